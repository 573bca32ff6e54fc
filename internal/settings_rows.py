"""Settings that are rows, whatever their kind: written, checked and brought back to an earlier revision in one way.

Layer 4, over catalogue and the writer of each kind. What the file states is not changed here: the same name in both is
refused when it is written and an error when it is loaded. Changes when a new kind of setting becomes rows: one line in
KINDS.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from internal import admission, catalogue, corrections, devices, lane_settings, peers, rule_rows
from internal.accession import check_new
from internal.catalogue import Difference, Revision
from internal.devices import Verdict
from internal.errors import NotAllowed, NotFound
from internal.rules import RulesInvalid, RuleText
from internal.store import Tx

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ground:
    """What the configuration says that a change has to respect.

    `in_file` has, by kind, the names that stand in the file; of lanes ``NAME.bandwidth`` and ``NAME.send_hours``.
    `lanes` are the names of lanes, `throttled` those whose bandwidth can be limited. `compile_rules` raises
    RulesInvalid for rules of the database that cannot be used beside those of the file.
    """

    unknown_callers: Verdict = Verdict.ACCEPT
    lanes: Collection[str] = ()
    throttled: Collection[str] = ()
    in_file: Mapping[str, Collection[str]] = field(default_factory=dict)
    compile_rules: Callable[[Sequence[RuleText]], object] | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One change on its way; `body` None takes the name out."""

    name: str
    body: Body | None
    who: str
    now: int
    restores: int | None = None


def name_of(kind: str, name: str) -> str:
    """Return the name under which a setting of `kind` is kept: a device's address may be written in any way."""
    aet, at, address = name.rpartition("@")
    return f"{aet}@{peers.canonical(address)}" if kind == devices.KIND and at else name


def change(
    tx: Tx, kind: str, name: str, body: Body | None, ground: Ground, *, who: str, now: int, restores: int | None = None,
) -> Revision:
    """Put a setting into force and return its revision; what waited for it goes on in the same transaction.

    Raises NotFound for a kind that does not exist, NotAllowed when the setting stands in the file or is not valid.
    """
    if kind not in KINDS:
        raise NotFound(f"no setting of the kind {kind!r} is kept in the database")
    try:
        KINDS[kind](tx, Change(name, body, who, now, restores), ground)
    except (ValueError, TypeError, KeyError) as fault:
        raise NotAllowed(f"{kind} {name}: {fault}") from None
    found = catalogue.newest(tx, kind, name)
    if found is None:
        raise NotFound(f"there is no {kind} {name}")
    return found


def rollback(tx: Tx, kind: str, name: str, number: int, ground: Ground, *, who: str, now: int) -> Revision:
    """Bring back what revision `number` said, as a new revision. Raises NotFound, and NotAllowed as `change`."""
    then = catalogue.revision(tx, kind, name, number)
    return change(tx, kind, name, then.body, ground, who=who, now=now, restores=number)


def compared(tx: Tx, kind: str, name: str, number: int, to: int | None = None) -> list[Difference]:
    """Return what revision `number` changed against revision `to` (None: the one before it); raises NotFound."""
    after = catalogue.revision(tx, kind, name, number)
    before = None if to is None and number == 1 else catalogue.revision(tx, kind, name, to or number - 1)
    return catalogue.differences(before.body if before else None, after.body)


def conflicts(tx: Tx, ground: Ground) -> list[str]:
    """Return in sentences which settings stand in the file and in the database; what the file says is in force."""
    found = [f"{kind} {name}" for kind, names in sorted(ground.in_file.items()) if kind != lane_settings.KIND
             for name in catalogue.shadowed(tx, kind, names)]
    stated = ground.in_file.get(lane_settings.KIND, ())
    found += [f"lane {name}: {key}" for name, body in catalogue.current(tx, lane_settings.KIND).items()
              for key in body if f"{name}.{key}" in stated]
    return [f"{one} is set in the configuration file and in the database: remove one of them" for one in found]


def _device(tx: Tx, change: Change, ground: Ground) -> None:
    aet, at, address = change.name.rpartition("@")
    if not at or not aet.strip() or len(aet) > 64 or (address and peers.parse_address(address) != address):
        raise ValueError("a device is named AET@ADDRESS, or AET@ for any address")
    verdict = None if change.body is None else Verdict(change.body["verdict"])
    admission.decide(tx, aet, address, verdict, default=ground.unknown_callers, who=change.who, now=change.now,
                     restores=change.restores)


def _alias(tx: Tx, change: Change, ground: Ground) -> None:
    if change.name in ground.in_file.get("alias", ()):
        raise ValueError("it stands in alias_file: change it there")
    to = None if change.body is None else check_new(str(change.body["to"]))
    corrections.set_alias(tx, change.name, to, author=change.who, now=change.now, restores=change.restores)


def _lane(tx: Tx, change: Change, ground: Ground) -> None:
    if change.name not in ground.lanes:
        raise ValueError(f"lanes are {', '.join(sorted(ground.lanes))}")
    settings = lane_settings.parse(change.body)
    if settings.bandwidth is not None and change.name not in ground.throttled:
        raise ValueError("the bandwidth of this destination cannot be limited")
    for key in ("bandwidth", "send_hours"):
        if getattr(settings, key) is not None and f"{change.name}.{key}" in ground.in_file.get(lane_settings.KIND, ()):
            raise ValueError(f"{key} stands in the configuration file: change it there")
    lane_settings.put(tx, change.name, change.body, who=change.who, now=change.now, restores=change.restores)


def _rule(tx: Tx, change: Change, ground: Ground) -> None:
    if change.name in ground.in_file.get(rule_rows.KIND, ()):
        raise ValueError("it stands in router.conf: change it there")
    rule_rows.write_rule(tx, change.name, change.body, author=change.who, now=change.now, restores=change.restores)
    if ground.compile_rules is not None:
        try:
            ground.compile_rules(rule_rows.catalogue_texts(tx))
        except RulesInvalid as error:
            raise ValueError(str(error)) from None


#: How a setting of each kind is put into force.
KINDS: Mapping[str, Callable[[Tx, Change, Ground], None]] = {
    devices.KIND: _device, corrections.ALIAS: _alias, lane_settings.KIND: _lane,
    rule_rows.KIND: _rule,
}
