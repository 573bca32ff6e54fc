"""The next batch is read and hashed while one is being sent; nothing is written of it before its turn comes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from pathlib import Path

import pytest

from interface.relay import Answer, send_all
from internal import ahead, jobs
from internal.config import RuleText
from internal.model import Item, ItemState
from internal.ports import Frozen, Work
from internal.states import Event, Finish, Outcome, State
from internal.work import LeasedWork

from .conftest import Engine

BATCH = 3


class Taker:
    """A destination that takes images in batches of three; after `stop_after` images it does what `then` says, once."""

    def __init__(self, engine: Engine, stop_after: int = -1) -> None:
        self.engine = engine
        self.stop_after = stop_after
        self.arrived: list[tuple[str, bytes]] = []
        self.states_then: list[tuple[ItemState, bool]] = []
        engine.destination.script = self

    def __call__(self, work: Work) -> Outcome:
        self.work = work
        return send_all(work, self._send, BATCH) or Finish()

    def _send(self, batch: Sequence[Frozen]) -> Iterator[Answer]:
        for one in batch:
            with one.open() as body:
                self.arrived.append((one.header.sop_uid, body.read()))
            if len(self.arrived) == self.stop_after:
                assert isinstance(self.work, LeasedWork)
                futures.wait([coming for _, coming in self.work._ahead._coming.values()])
                self.states_then = [(item.state, bool(item.sha256)) for item in items_of(self.engine)]
                self.then()
            yield Answer(one, ItemState.STORED)

    def then(self) -> None:
        """What happens in the middle of a batch."""


class Dies(BaseException):
    """The process ends here: nothing runs any more, nothing is written."""


class Dying(Taker):
    def then(self) -> None:
        raise Dies


class Acted(Taker):
    """A person stops the study in the middle of a batch."""

    event = Event.CANCEL

    def then(self) -> None:
        with self.engine.store.transaction() as tx:
            assert jobs.act(tx, [1], self.event, who="dr", now=self.engine.clock.ms).moved


class Damaging(Taker):
    def then(self) -> None:
        """Damage the file of an image that is already read ahead, and the one of an image that is not."""
        for number in (4, 7):
            path = Path(self.engine.spool.locate(items_of(self.engine)[number].instance.id))
            content = path.read_bytes()
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def items_of(engine: Engine) -> list[Item]:
    with engine.store.reading() as tx:
        return jobs.items_of(tx, 1, "env-1")


def receive(engine: Engine, count: int = 10) -> list[str]:
    uids = [f"1.9.{number}" for number in range(count)]
    for number, uid in enumerate(uids):
        engine.receive("1.2.3", sop_uid=uid, pixels=bytes([number, 0]))
    engine.settle()
    return uids


RULE = RuleText("one", {"do": 'set PatientID = "N-{PatientID}"', "send_to": "scripted"}, {}, "file router.conf")


@pytest.mark.parametrize("rules", [(), (RULE,)])
def test_nothing_is_lost_or_written_down_early_when_the_process_dies(
    engine: Engine, rules: tuple[RuleText, ...],
) -> None:
    engine.use_rules(*rules)
    dying = Dying(engine, stop_after=1)
    uids = receive(engine)
    with pytest.raises(Dies):
        engine.work()
    assert dying.states_then == [(ItemState.SENT, True)] * BATCH + [(ItemState.DUE, False)] * 7
    with engine.store.transaction() as tx:
        jobs.release_leases(tx, engine.spool.node, engine.clock.ms)
    again = Taker(engine)
    while engine.work():
        pass
    assert engine.states() == [State.DONE]
    assert [uid for uid, _ in again.arrived] == uids
    assert again.arrived[:1] == dying.arrived, "what may have left before leaves as it was"
    assert [item.sends for item in items_of(engine)] == [2] * BATCH + [1] * 7
    assert all((b"N-P1" in content) is bool(rules) for _, content in again.arrived)


@pytest.mark.parametrize("event", [Event.CANCEL, Event.GIVE_UP])
def test_of_a_study_that_a_person_stops_nothing_leaves_that_was_read_ahead(engine: Engine, event: Event) -> None:
    engine.use_rules(RULE)
    stopped = Acted(engine, stop_after=2)
    stopped.event = event
    uids = receive(engine)
    engine.work()
    assert engine.states() == [State.CANCELLED if event is Event.CANCEL else State.HELD]
    assert [uid for uid, _ in stopped.arrived] == uids[:BATCH], "the batch in hand is the last one"
    assert [(item.state, item.sends) for item in items_of(engine)[BATCH:]] == [(ItemState.DUE, 0)] * 7
    again = Taker(engine)
    with engine.store.transaction() as tx:
        assert jobs.act(tx, [1], Event.RETRY, who="dr", now=engine.clock.ms).moved
    while engine.work():
        pass
    assert engine.states() == [State.DONE]
    assert {uid for uid, _ in again.arrived} == set(uids)


def test_a_damaged_file_holds_the_study_when_its_turn_comes(engine: Engine) -> None:
    damaging = Damaging(engine, stop_after=1)
    uids = receive(engine)
    engine.work()
    assert engine.states() == [State.HELD]
    assert engine.job().reason_code == "bytes-damaged"
    assert [uid for uid, _ in damaging.arrived] == uids[: 2 * BATCH]
    assert [item.state for item in items_of(engine)] == [ItemState.STORED] * 6 + [ItemState.DUE] * 4


@pytest.mark.parametrize("room_bytes", [0, 500, 1_000, 1 << 30])
def test_how_much_is_read_ahead_is_bounded_and_changes_nothing_else(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, room_bytes: int,
) -> None:
    monkeypatch.setattr(ahead, "AHEAD_BYTES", room_bytes)
    engine.use_rules(RULE)
    taker = Taker(engine)
    uids = receive(engine)
    while engine.work():
        pass
    assert engine.states() == [State.DONE]
    assert [uid for uid, _ in taker.arrived] == uids
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("freeze-ahead")]
