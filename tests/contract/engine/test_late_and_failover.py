"""Late images by a destination's policy, and a destination that stands in while another one is dead."""

from __future__ import annotations

from dataclasses import replace

import pytest

from internal import jobs
from internal.assemble import Assembler, SettlePolicy
from internal.assemble import Lane as PlannedLane
from internal.late import Late, LatePolicy
from internal.model import ItemState
from internal.ports import Work
from internal.states import Finish, Later, More, Outcome, State
from internal.worker import Lane
from tests.contract.engine.conftest import Engine, Scripted, deliver_all

STUDY = "2.25.1"
HOUR_MS = 3_600_000


def with_policy(engine: Engine, policy: LatePolicy) -> None:
    engine.assembler = Assembler(
        engine.store, engine.clock, SettlePolicy(settle_ms=1_000, settle_cr_dx_ms=1_000, release_min_ms=1_000),
        [PlannedLane("scripted", "env-1", by_accession=True, late=policy)],
        engine.book.plan_from(engine.spool))


def item_states(engine: Engine) -> list[str]:
    with engine.store.reading() as tx:
        return [state for (state,) in tx.rows("SELECT state FROM item ORDER BY item_id")]


def codes(engine: Engine) -> list[str]:
    with engine.store.reading() as tx:
        return [code for (code,) in tx.rows("SELECT code FROM event ORDER BY event_id")]


def deliver_then_one_late(engine: Engine, policy: LatePolicy, *, after_ms: int = 0) -> None:
    with_policy(engine, policy)
    engine.receive(STUDY)
    engine.receive(STUDY)
    engine.settle()
    assert engine.work() and engine.states() == [State.DONE]
    engine.clock.ms += after_ms
    engine.receive(STUDY)
    engine.settle()


@pytest.mark.parametrize(("policy", "after_ms", "sent", "states"), [
    (LatePolicy(Late.NEW), 0, 1, ["stored"] * 3),
    (LatePolicy(Late.ALL), 0, 3, ["stored"] * 3),
    (LatePolicy(Late.NEVER), 0, 0, ["stored", "stored", "skipped"]),
    (LatePolicy(Late.ALL, 24 * HOUR_MS, Late.NEVER), 0, 3, ["stored"] * 3),
    (LatePolicy(Late.ALL, 24 * HOUR_MS, Late.NEVER), 48 * HOUR_MS, 0, ["stored", "stored", "skipped"]),
    (LatePolicy(Late.NEVER, HOUR_MS, Late.NEW), 48 * HOUR_MS, 1, ["stored"] * 3),
])
def test_what_goes_when_images_come_late(
    engine: Engine, policy: LatePolicy, after_ms: int, sent: int, states: list[str],
) -> None:
    deliver_then_one_late(engine, policy, after_ms=after_ms)
    frozen: list[str] = []

    def script(work: Work) -> Outcome:
        frozen.extend(item.instance.id for item in work.items([ItemState.DUE, ItemState.SENT], 9))
        return deliver_all(work)

    engine.destination.script = script
    engine.work()
    assert (len(frozen), item_states(engine), engine.states()) == (sent, states, [State.DONE])
    assert ("late-images" in codes(engine)) is (sent != 1)


def test_before_the_first_delivery_nothing_is_late(engine: Engine) -> None:
    with_policy(engine, LatePolicy(Late.NEVER))
    for _ in range(2):
        engine.receive(STUDY)
        engine.settle()
    engine.work()
    assert item_states(engine) == ["stored", "stored"]


def test_two_waves_of_late_images_are_both_left_out(engine: Engine) -> None:
    deliver_then_one_late(engine, LatePolicy(Late.NEVER))
    engine.receive(STUDY)
    engine.settle()
    engine.work()
    assert item_states(engine) == ["stored", "stored", "skipped", "skipped"]
    assert engine.states() == [State.DONE]


# -- failover --------------------------------------------------------------------------------------------------------

MINUTE_MS = 60_000


class Pair:
    """A lane with a stand-in; `dead` makes its own destination fail after `some` images."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.dead, self.standby_dead, self.some = True, False, 0
        self.standby = Scripted(name="spare", environment="env-2", script=self._spare)
        engine.destination.script = self._own
        engine.policy = replace(engine.policy, failover_ms=10 * MINUTE_MS)
        engine.lane = Lane(engine.destination, engine.store, engine.spool, engine.clock, engine.policy,
                           jitter=lambda: 0.5, standby=self.standby)
        self.own_got: list[str] = []
        self.spare_got: list[str] = []

    def _take(self, work: Work, got: list[str], most: int) -> None:
        for item in work.items([ItemState.DUE, ItemState.SENT], most) if most else []:
            (frozen,) = work.freeze([item])
            got.append(item.instance.id)
            work.settle_items([(frozen.item, ItemState.STORED, {"at": 1})])

    def _own(self, work: Work) -> Outcome:
        self._take(work, self.own_got, self.some if self.dead else 99)
        self.some = 0
        return Later("dimse-connect", "cannot be reached", None, "lane") if self.dead else Finish()

    def _spare(self, work: Work) -> Outcome:
        if self.standby_dead:
            return Later("dimse-connect", "cannot be reached either", None, "lane")
        self._take(work, self.spare_got, 99)
        return Finish()

    def run_for(self, minutes: float) -> None:
        end = self.engine.clock.ms + int(minutes * MINUTE_MS)
        while self.engine.clock.ms < end:
            while self.engine.work():
                pass
            self.engine.clock.ms += 1_000

    def lane(self) -> jobs.Lane:
        with self.engine.store.reading() as tx:
            return jobs.lane(tx, "scripted")


@pytest.fixture
def pair(engine: Engine) -> Pair:
    return Pair(engine)


def test_the_stand_in_takes_over_after_the_time_and_repeats_nothing(engine: Engine, pair: Pair) -> None:
    for _ in range(4):
        engine.receive(STUDY)
    engine.settle()
    pair.some = 1
    pair.run_for(9)
    assert (len(pair.own_got), pair.spare_got, engine.states()) == (1, [], [State.DEFERRED])
    pair.run_for(1.2)
    assert len(pair.spare_got) == 3 and not set(pair.own_got) & set(pair.spare_got)
    assert engine.states() == [State.DONE] and pair.lane().standby == "spare"
    with engine.store.reading() as tx:
        via = [one.answer.get("via", "") for one in jobs.items_of(tx, 1, "env-1")]
    assert sorted(via) == ["", "spare", "spare", "spare"]
    assert codes(engine).count("failover") == 1


def test_it_goes_back_when_the_own_destination_works_again(engine: Engine, pair: Pair) -> None:
    engine.receive(STUDY)
    engine.settle()
    pair.run_for(11)
    pair.dead = False
    for number in range(2, 6):
        engine.receive(f"2.25.{number}")
        engine.settle()
        pair.run_for(1)
    assert len(pair.spare_got) == 1 and len(pair.own_got) == 4
    found = pair.lane()
    assert (found.standby, found.down_since, found.failures) == ("", 0, 0)
    assert "failover-ended" in codes(engine)


def test_while_it_is_dead_studies_flow_and_it_is_tried_now_and_then(engine: Engine, pair: Pair) -> None:
    engine.receive(STUDY)
    engine.settle()
    pair.run_for(11)
    tries = len(engine.destination.seen)
    for number in range(2, 12):
        engine.receive(f"2.25.{number}")
        engine.index()
        engine.clock.ms += 5_000
        engine.assembler.run_once(engine.clock.ms)
        pair.run_for(0.1)
    assert len(pair.spare_got) == 11 and set(engine.states()) == {State.DONE}
    assert len(engine.destination.seen) - tries <= 12  # the longest pause of this lane is 8 s


def test_both_dead_is_a_pause_and_nothing_is_charged(engine: Engine, pair: Pair) -> None:
    pair.standby_dead = True
    engine.receive(STUDY)
    engine.settle()
    pair.run_for(15)
    assert engine.states() == [State.DEFERRED] and engine.job().attempts == 0
    pair.standby_dead = False
    pair.run_for(1)
    assert engine.states() == [State.DONE] and len(pair.spare_got) == 1


def test_a_short_fault_or_a_persons_pause_is_no_failover(engine: Engine, pair: Pair) -> None:
    engine.receive(STUDY)
    engine.settle()
    pair.run_for(5)
    pair.dead = False
    pair.run_for(1)
    assert pair.spare_got == [] and engine.states() == [State.DONE]
    with engine.store.transaction() as tx:
        jobs.pause_lane(tx, "scripted", engine.clock.ms + 10**12, "paused", "because", engine.clock.ms, by="person")
    engine.receive("2.25.2")
    engine.settle()
    pair.run_for(20)
    assert pair.spare_got == [] and State.QUEUED in engine.states()


def test_a_stand_in_may_need_several_steps(engine: Engine, pair: Pair) -> None:
    steps: list[int] = []

    def script(work: Work) -> Outcome:
        steps.append(1)
        pair._take(work, pair.spare_got, 1)
        return More() if len(steps) < 3 else Finish()

    pair.standby.script = script
    for _ in range(3):
        engine.receive(STUDY)
    engine.settle()
    pair.run_for(12)
    assert len(pair.spare_got) == 3 and engine.states() == [State.DONE]
