"""Compares what is wrong with what is already known to be wrong, for each rule: raises, reminds, clears.

Layer 4, one per deliver role. Reads first; writes only what changed, so that a quiet minute costs no commit.
Changes when alerts come and go by another rule.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from internal import alerts, conditions
from internal.alerts import Alert, Condition, Finding
from internal.conditions import Limits, Vitals
from internal.ports import Clock
from internal.store import Store, Tx

log = logging.getLogger("router.alerts")


@dataclass(frozen=True, slots=True)
class Rule:
    """One [alert:NAME]: what it watches, whom it tells (`channels`), and after how many ms again."""

    name: str
    conditions: tuple[Condition, ...] = tuple(Condition)
    limits: Limits = field(default_factory=Limits)
    channels: tuple[str, ...] = ()
    repeat_ms: int = 12 * 3_600_000


class Watcher:
    """Looks at everything once per `run_once`; every change is committed with what people are told of it."""

    def __init__(self, store: Store, clock: Clock, rules: Sequence[Rule], vitals: Callable[[], Vitals]) -> None:
        self._store = store
        self._clock = clock
        self._rules = {rule.name: rule for rule in rules}
        self._vitals = vitals

    def run_once(self) -> int:
        """Compare and write down; return how many alerts were raised, told again or cleared."""
        now, vitals = self._clock.now_ms(), self._vitals()
        with self._store.reading() as tx:
            known = alerts.open_alerts(tx)
            found = {rule.name: self._find(tx, rule, vitals, now) for rule in self._rules.values()}
            sampled = conditions.is_sampled(tx, vitals.node, now)
        changes = [*self._new(known, found), *self._old(known, found, now)]
        if not sampled:
            changes.append(lambda tx: conditions.sample_disk(tx, vitals, now))
        changed = 0
        for change in changes:
            with self._store.transaction() as tx:
                changed += change(tx) is True
        return changed

    def _find(self, tx: Tx, rule: Rule, vitals: Vitals, now: int) -> dict[tuple[Condition, str], Finding]:
        return {(one.condition, one.subject): one for condition in rule.conditions
                for one in conditions.find(tx, condition, rule.limits, vitals, now)}

    def _new(
        self, known: Sequence[Alert], found: Mapping[str, Mapping[tuple[Condition, str], Finding]],
    ) -> list[Callable[[Tx], object]]:
        have = {(one.rule, one.condition, one.subject) for one in known}
        return [self._raise(self._rules[rule], one) for rule, some in found.items()
                for key, one in some.items() if (rule, *key) not in have]

    def _raise(self, rule: Rule, one: Finding) -> Callable[[Tx], object]:
        def change(tx: Tx) -> bool:
            now = self._clock.now_ms()
            alerts.raise_alert(tx, rule.name, one, quiet_ms=rule.repeat_ms, channels=rule.channels, now=now)
            log.warning("Alert raised", extra={"fields": {"rule": rule.name, "condition": str(one.condition),
                                                          "subject": one.subject}})
            return True

        return change

    def _old(
        self, known: Sequence[Alert], found: Mapping[str, Mapping[tuple[Condition, str], Finding]], now: int,
    ) -> list[Callable[[Tx], object]]:
        changes: list[Callable[[Tx], object]] = []
        for one in known:
            rule = self._rules.get(one.rule)
            still = found.get(one.rule, {}).get((one.condition, one.subject))
            if still is None:
                changes.append(self._clear(one, rule))
            elif rule is not None:
                changes += self._keep(one, still, rule, now)
        return changes

    def _clear(self, one: Alert, rule: Rule | None) -> Callable[[Tx], object]:
        def change(tx: Tx) -> bool:
            alerts.clear(tx, one, channels=rule.channels if rule else (), now=self._clock.now_ms())
            log.info("Alert cleared", extra={"fields": {"rule": one.rule, "condition": str(one.condition),
                                                        "subject": one.subject}})
            return True

        return change

    def _keep(self, one: Alert, still: Finding, rule: Rule, now: int) -> list[Callable[[Tx], object]]:
        """Return what there is to write for an alert that goes on: its figures once they differ, and a reminder."""
        changes: list[Callable[[Tx], object]] = []
        if dict(still.detail) != dict(one.detail):
            changes.append(lambda tx: alerts.keep(tx, one, still.detail))
        if one.acknowledged_at is None and (one.told_at is None or now - one.told_at >= rule.repeat_ms):
            changes.append(lambda tx: alerts.remind(tx, one, repeat_ms=rule.repeat_ms, channels=rule.channels, now=now))
        return changes
