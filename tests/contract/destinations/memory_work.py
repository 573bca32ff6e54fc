"""The Work protocol in memory, honest about its commit points: a test can make the process "die" at any of them.

Each write goes through `Ledger.commit`; what was not committed is gone after a Crash, what was is there. `drive` is a
worker in one function: claim, step, settle, wait as long as asked. Bytes are real Part 10 files made here.
"""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from internal.errors import BytesMissing, LeaseLost, RouterError
from internal.identity import Person
from internal.model import Header, Instance, Intent, Inventory, Item, ItemState, Job, Series
from internal.ports import Destination, Following, Frozen
from internal.states import Event, Finish, Later, NotYet, Outcome, Refuse, State, next_state
from internal.worker import outcome_of


class Crash(BaseException):
    """The process died here."""


class SkewClock:
    """The machine's clock, which a test can put forward."""

    def __init__(self) -> None:
        self.skew_ms = 0

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000 + self.skew_ms

    def monotonic_s(self) -> float:
        return time.monotonic()


@dataclass(frozen=True)
class MemoryFrozen:
    """Frozen bytes held in memory."""

    item: Item
    sha256: str
    size_bytes: int
    data: bytes

    @property
    def header(self) -> Header:
        return self.item.instance.header

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data)


@dataclass
class Ledger:
    """What a database would hold of one job; survives crashes. `crash_at` (from 1) or `crash_on` says where."""

    study_uid: str
    part: str
    environment: str
    files: dict[str, bytes] = field(default_factory=dict)
    instances: list[Instance] = field(default_factory=list)
    state: State = State.QUEUED
    outcome: Outcome | None = None
    revision: int = 0
    done_revision: int = 0
    waiting_since: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    items: dict[int, Item] = field(default_factory=dict)
    intents: list[Intent] = field(default_factory=list)
    events: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    alerts: dict[str, str] = field(default_factory=dict)
    ordered: list[tuple[str, Person]] = field(default_factory=list)
    same_patient: str = ""
    commitments: dict[str, Mapping[str, int]] = field(default_factory=dict)
    siblings: list[Ledger] = field(default_factory=list)
    kind: str = "deliver"
    journal: list[str] = field(default_factory=list)
    crash_at: int = 0
    crash_on: str = ""
    crash_before: bool = False
    crashes: int = 0

    def add(self, made: Iterable[tuple[Instance, bytes]]) -> None:
        """Accept instances and settle the study: a new revision with an item for each."""
        self.revision += 1
        for instance, data in made:
            self.instances.append(instance)
            self.files[instance.id] = data
            item_id = len(self.items) + 1
            self.items[item_id] = Item(item_id, 1, instance, ItemState.DUE)
        if self.state is State.DONE:
            self.state = next_state(self.state, Event.REOPEN)

    def commit(self, name: str, apply: Callable[[], Any]) -> Any:
        """Apply one transaction, dying right before or right after it when this is the one."""
        due = len(self.journal) + 1 == self.crash_at or name == self.crash_on
        if due and self.crash_before:
            self._die()
        result = apply()
        self.journal.append(name)
        if due:
            self._die()
        return result

    def _die(self) -> None:
        self.crash_at, self.crash_on = 0, ""
        self.crashes += 1
        raise Crash

    def inventory(self) -> Inventory:
        series: dict[str, list[Instance]] = {}
        for instance in self.instances:
            series.setdefault(instance.header.series_uid, []).append(instance)
        first = min((i.arrival.arrived_at for i in self.instances), default=0)
        return Inventory(self.study_uid, self.part, self.revision, first,
                         tuple(Series(uid, tuple(found)) for uid, found in series.items()))

    def count(self) -> Counter[ItemState]:
        return Counter(item.state for item in self.items.values())


class MemoryWork:
    """One claim of a Ledger's job."""

    def __init__(self, ledger: Ledger, clock: SkewClock, yield_after: int = 1000) -> None:
        self.ledger = ledger
        self.clock = clock
        self.renewals = 0
        self.lost = False
        self._yield_after = yield_after
        ledger.state = next_state(ledger.state, Event.CLAIM)
        self.job = Job(
            job_id=1, kind=ledger.kind, destination="d", environment=ledger.environment, study_uid=ledger.study_uid,
            part=ledger.part, state=State.ACTIVE, reason_code="", reason="", attempts=0, due_at=0,
            revision=ledger.revision, done_revision=ledger.done_revision, settled_revision=ledger.revision, lease="l",
            lease_until=clock.now_ms() + 120_000, created_at=0, updated_at=0, waiting_since=ledger.waiting_since,
            facts=dict(ledger.facts))

    @property
    def facts(self) -> Mapping[str, Any]:
        return self.ledger.facts

    def _commit(self, name: str, apply: Callable[[], Any]) -> Any:
        if self.lost:
            raise LeaseLost
        return self.ledger.commit(name, apply)

    def record_facts(self, **facts: Any) -> None:
        def apply() -> None:
            merged = {**self.ledger.facts, **facts}
            self.ledger.facts = {key: value for key, value in merged.items() if value is not None}

        self._commit("facts " + " ".join(sorted(facts)), apply)

    def inventory(self) -> Inventory:
        return self.ledger.inventory()

    def patients(self) -> list[Person]:
        headers = [instance.header for instance in self.ledger.instances]
        return list(dict.fromkeys(Person(h.patient_name, h.patient_birth_date, h.patient_sex, h.patient_id)
                                  for h in headers))

    def ordered_patients(self, accession_number: str) -> list[Person]:
        return [person for accession, person in self.ledger.ordered if accession == accession_number]

    def is_same_patient(self, sides: str) -> bool:
        return sides == self.ledger.same_patient

    def siblings(self) -> list[Mapping[str, Any]]:
        return [dict(one.facts) for one in self.ledger.siblings]

    def items(self, states: Iterable[ItemState], limit: int, after: int = 0) -> list[Item]:
        wanted = set(states)
        found = [item for item in self.ledger.items.values() if item.state in wanted and item.item_id > after]
        return found[:limit]

    def count_items(self) -> dict[ItemState, int]:
        return dict(self.ledger.count())

    def rehearse(self) -> None:
        """There are no rules here."""

    def freeze(self, items: Sequence[Item], following: Following | None = None) -> list[Frozen]:
        frozen: list[MemoryFrozen] = []
        for item in items:
            if item.instance.id not in self.ledger.files:
                raise BytesMissing
            data = self.ledger.files[item.instance.id]
            digest = hashlib.sha256(data).hexdigest()
            assert item.sha256 in ("", digest)
            sent = replace(item, state=ItemState.SENT, sha256=digest, size_bytes=len(data), sends=item.sends + 1)
            frozen.append(MemoryFrozen(sent, digest, len(data), data))

        self._commit("sent", lambda: self.ledger.items.update({one.item.item_id: one.item for one in frozen}))
        return list(frozen)

    def take_back(self, items: Sequence[Item]) -> None:
        def undone(item: Item) -> Item:
            if item.sends > 1:
                return replace(item, sends=item.sends - 1)
            return replace(item, state=ItemState.DUE, sha256="", size_bytes=0, sends=0)

        known = [self.ledger.items[one.item_id] for one in items]
        self.ledger.commit("taken back", lambda: self.ledger.items.update(
            {now.item_id: undone(now) for now, marked in zip(known, items, strict=True)
             if (now.state, now.sends) == (ItemState.SENT, marked.sends)}))

    def settle_items(self, answers: Sequence[tuple[Item, ItemState, Mapping[str, Any]]]) -> None:
        self._commit("answers", lambda: self._write(answers, lambda now: now is not ItemState.STORED))

    def revise_receipts(self, answers: Sequence[tuple[Item, ItemState, Mapping[str, Any]]]) -> None:
        self._commit("receipts", lambda: self._write(answers, lambda now: now is ItemState.STORED))

    def _write(self, answers: Sequence[tuple[Item, ItemState, Mapping[str, Any]]],
               may: Callable[[ItemState], bool]) -> None:
        for item, state, answer in answers:
            known = self.ledger.items[item.item_id]
            if may(known.state):
                self.ledger.items[item.item_id] = replace(known, state=state, answer=answer)

    def commitment_answer(self, transaction_uid: str) -> Mapping[str, int] | None:
        return self.ledger.commitments.get(transaction_uid)

    def file_commitment_answer(self, transaction_uid: str, reasons: Mapping[str, int]) -> None:
        self._commit("commitment answer", lambda: self.ledger.commitments.update({transaction_uid: dict(reasons)}))

    def open_intent(self, verb: str, deadline_s: float) -> Intent:
        now = self.clock.now_ms()
        intent = Intent(len(self.ledger.intents) + 1, 1, verb, now, now + round(deadline_s * 1000), None)
        self._commit(f"intent {verb}", lambda: self.ledger.intents.append(intent))
        return intent

    def unanswered_intent(self, verb: str) -> Intent | None:
        found = [one for one in self.ledger.intents if one.verb == verb and one.answered_at is None]
        return found[-1] if found else None

    def close_intent(self, intent: Intent, answer: Mapping[str, Any]) -> None:
        closed = replace(intent, answered_at=self.clock.now_ms(), answer=answer)

        def apply() -> None:
            self.ledger.intents[intent.intent_id - 1] = closed

        self._commit("close intent", apply)

    def renew(self) -> None:
        if self.lost:
            raise LeaseLost
        self.renewals += 1

    def should_yield(self) -> bool:
        self._yield_after -= 1
        return self._yield_after < 0

    def event(self, code: str, text: str, **fields: Any) -> None:
        self._commit(f"event {code}", lambda: self.ledger.events.append((code, text, fields)))


    def alert(self, code: str, text: str) -> None:
        if code not in self.ledger.alerts:
            self._commit(f"alert {code}", lambda: self.ledger.alerts.update({code: text}))


def step_once(destination: Destination, ledger: Ledger, clock: SkewClock, yield_after: int = 1000) -> Outcome | None:
    """One claim and one step, settled as the worker does; None after a crash or a lost lease."""
    work = MemoryWork(ledger, clock, yield_after)
    try:
        outcome = destination.step(work)
    except (Crash, LeaseLost):
        ledger.state = next_state(ledger.state, Event.LEASE_LOST)
        return None
    except RouterError as error:
        outcome = outcome_of(error)
    ledger.state = next_state(ledger.state, outcome.event)
    ledger.outcome = outcome
    ledger.waiting_since = (ledger.waiting_since or clock.now_ms()) if isinstance(outcome, NotYet) else None
    if isinstance(outcome, Finish):
        ledger.done_revision = work.job.revision
    return outcome


def drive(destination: Destination, ledger: Ledger, clock: SkewClock, *, timeout_s: float = 30.0,
          until: Callable[[Outcome], bool] | None = None, retry_s: float = 0.02, yield_after: int = 1000) -> Outcome:
    """Step until the job is done, held or `until` says so; wait as asked, after a fault `retry_s`."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while time.monotonic() < deadline:
        outcome = step_once(destination, ledger, clock, yield_after)
        if outcome is not None and (isinstance(outcome, Finish | Refuse) or (until is not None and until(outcome))):
            return outcome
        if isinstance(outcome, NotYet):
            pause.wait(min(outcome.retry_after_s if outcome.retry_after_s is not None else retry_s, 1.0))
        elif isinstance(outcome, Later):
            pause.wait(retry_s)
    raise AssertionError(f"not finished: {ledger.outcome} {ledger.journal[-8:]}")
