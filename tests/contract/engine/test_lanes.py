"""One lane over the real store: which job it takes, who may stop it, and when it asks again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time

from internal import jobs
from internal.hours import Hours
from internal.model import ItemState
from internal.ports import Work
from internal.states import Finish, More, NotYet, Outcome, State
from tests.contract.engine.conftest import Engine, deliver_all


def plan(engine: Engine, count: int) -> None:
    for number in range(1, count + 1):
        engine.receive(f"2.25.{number}")
        engine.settle()


def pause(engine: Engine) -> None:
    with engine.store.transaction() as tx:
        jobs.pause_lane(tx, "scripted", engine.clock.ms + 10**12, "paused", "because", engine.clock.ms, by="person")


def resume(engine: Engine) -> None:
    with engine.store.transaction() as tx:
        jobs.resume_lane(tx, "scripted", engine.clock.ms, by="person")


def test_a_paused_lane_takes_nothing_until_it_is_resumed(engine: Engine) -> None:
    plan(engine, 1)
    pause(engine)
    assert not engine.work()
    resume(engine)
    assert engine.work()
    assert engine.states() == [State.DONE]


def test_a_pause_ends_a_running_step_at_its_next_boundary(engine: Engine) -> None:
    plan(engine, 1)

    def script(work: Work) -> Outcome:
        assert not work.should_yield()
        pause(engine)
        engine.clock.ms += 2_000
        return More() if work.should_yield() else Finish()

    engine.destination.script = script
    assert engine.work()
    assert engine.states() == [State.QUEUED]
    assert not engine.work()


def test_success_of_a_running_step_does_not_undo_a_persons_pause(engine: Engine) -> None:
    plan(engine, 1)

    def script(work: Work) -> Outcome:
        pause(engine)
        return deliver_all(work)

    engine.destination.script = script
    engine.work()
    with engine.store.reading() as tx:
        assert jobs.lane(tx, "scripted").paused_by == "person"


def test_outside_its_hours_only_urgent_studies_go(engine: Engine) -> None:
    plan(engine, 2)
    now = datetime.fromtimestamp(engine.clock.ms / 1000, UTC)
    shut = Hours(time((now.hour + 2) % 24), time((now.hour + 3) % 24), UTC)
    engine.policy = replace(engine.policy, hours=shut)
    engine.lane = engine.make_lane()
    assert not engine.work()
    with engine.store.transaction() as tx:
        jobs.set_priority(tx, [1], jobs.URGENT, engine.clock.ms)
    assert engine.work() and not engine.work()
    assert engine.states().count(State.DONE) == 1
    engine.clock.ms += 2 * 3_600_000
    assert engine.work()
    assert engine.states() == [State.DONE, State.DONE]


def test_the_waiting_room_asks_the_newest_and_sometimes_the_longest_due(engine: Engine) -> None:
    plan(engine, 6)
    engine.destination.script = lambda _work: NotYet("no-order", "no order yet")
    while engine.work():
        pass
    engine.destination.seen.clear()
    engine.clock.ms += 3_600_000
    engine.destination.polls = False
    assert not engine.work()
    engine.destination.polls = True
    for _ in range(4):
        assert engine.work()
    asked = [job_id for job_id, _ in engine.destination.seen]
    assert sorted(asked, reverse=True) == [6, 5, 4, 1]


def test_an_alert_is_told_once_and_stays_until_a_person_has_seen_it(engine: Engine) -> None:
    plan(engine, 1)

    def script(work: Work) -> Outcome:
        for _ in range(3):
            work.alert("reply-not-understood", "replies have a new form")
        for item in work.items([ItemState.DUE], 9):
            (frozen,) = work.freeze([item])
            work.settle_items([(frozen.item, ItemState.UNREAD, {"status": 200})])
        return Finish("1 accepted, reply not understood")

    engine.destination.script = script
    engine.work()
    assert engine.states() == [State.DONE]
    with engine.store.transaction() as tx:
        assert jobs.lane(tx, "scripted").alert == "replies have a new form"
        told = [event.code for event in jobs.events_of(tx, "2.25.1")]
        assert told.count("lane-alert") == 1
        assert jobs.clear_alert(tx, "scripted", 1) and not jobs.clear_alert(tx, "scripted", 2)


def test_workers_settle_one_job_and_claim_the_next_in_one_go(engine: Engine) -> None:
    plan(engine, 8)
    engine.lane.start()
    try:
        done = engine.destination_done(8)
    finally:
        assert engine.lane.stop(10)
    assert done
    assert engine.states() == [State.DONE] * 8
    assert len({job_id for job_id, _ in engine.destination.seen}) == 8
