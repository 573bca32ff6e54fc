"""What people do with jobs and see of them, moves between environments, lanes and the timeline, on both engines."""

from __future__ import annotations

import pytest

from internal import jobs
from internal.errors import LeaseLost
from internal.model import ItemState, Job
from internal.states import Event, Finish, Later, NotYet, Refuse, State
from internal.store import Store
from tests.contract.store.samples import LANE, PRODUCTION, STAGING, STUDY, add, claim, claimed, instance, settle_study


def act(store: Store, event: Event, *job_ids: int, now: int = 9000, **options: object) -> jobs.Acted:
    with store.transaction() as tx:
        return jobs.act(tx, job_ids, event, who="ani", now=now, **options)  # type: ignore[arg-type]


def job_of(store: Store, job_id: int = 1) -> Job:
    with store.reading() as tx:
        return jobs.job(tx, job_id)


def states_of_items(store: Store, job: Job) -> list[ItemState]:
    with store.reading() as tx:
        return [one.state for one in jobs.items(tx, job, list(ItemState), 100)]


def deliver(store: Store, job: Job, state: ItemState = ItemState.STORED) -> None:
    with store.transaction() as tx:
        for one in jobs.items(tx, job, [ItemState.DUE], 100):
            (sent,) = jobs.mark_sent(tx, job, [(one, f"sha-{one.instance.id}", 10, {})])
            jobs.settle_items(tx, job, [(sent, state, {})])
        jobs.record_facts(tx, job, {"imaging_study_id": "is-1"})
        jobs.settle(tx, job, Finish(), now=8000, due_at=8000)


# --- acts ----------------------------------------------------------------------------------------------------------

def test_retry_of_a_held_job(store: Store) -> None:
    job = claimed(store)
    with store.transaction() as tx:
        jobs.settle(tx, job, Refuse("two-orders", "several orders", {"orders": [1]}), now=8000, due_at=0)
    acted = act(store, Event.RETRY, job.job_id, 404)
    assert list(acted) == acted.moved == [(job.job_id, State.QUEUED)]
    assert len(acted) == 1
    assert [job_id for job_id, _ in acted.refused] == [404]
    found = job_of(store)
    assert (found.due_at, found.attempts, found.reason, found.reason_code, found.detail) == (9000, 0, "", "", {})
    assert claim(store, now=9000) is not None


def test_what_cannot_be_is_said_and_does_not_stop_the_others(store: Store) -> None:
    add(store, instance(1), instance(1, study="2.25.2"))
    first = settle_study(store).job_id
    second = settle_study(store, "2.25.2").job_id
    assert act(store, Event.CANCEL, first).moved == [(first, State.CANCELLED)]
    acted = act(store, Event.CANCEL, second, first, second)
    assert acted.moved == [(second, State.CANCELLED)]
    assert acted.refused == [(first, "a job that is cancelled cannot cancel")]
    with pytest.raises(ValueError, match="claim"):
        act(store, Event.CLAIM, first)
    with pytest.raises(ValueError, match="finish"):
        act(store, Event.FINISH, first)


def test_wake_ends_the_wait_and_keeps_its_count(store: Store) -> None:
    job = claimed(store)
    with store.transaction() as tx:
        jobs.settle(tx, job, NotYet("no-order", "none"), now=8000, due_at=1 << 40)
    assert claim(store, now=9000) is None
    act(store, Event.WAKE, job.job_id)
    found = claim(store, now=9000)
    assert found is not None
    assert found.waiting_since == 8000


def test_refused_items_are_sent_again_when_a_person_asks(store: Store) -> None:
    job = claimed(store)
    deliver(store, job, ItemState.REFUSED)
    assert job_of(store).state is State.HELD
    act(store, Event.RETRY, job.job_id)
    again = claim(store, now=9000)
    assert again is not None
    assert states_of_items(store, again) == [ItemState.DUE] * 3
    with store.transaction() as tx:
        (one, *_) = jobs.items(tx, again, [ItemState.DUE], 1)
        assert one.sha256  # frozen for ever
        assert jobs.mark_sent(tx, again, [(one, one.sha256, 10, {})])[0].sends == 2


def test_patience_ends_for_waiting_and_deferred_jobs_only(store: Store) -> None:
    outcomes = {"2.25.1": Later("http-503", "busy"), "2.25.2": NotYet("no-order", "none"), "2.25.3": None,
                "2.25.4": Refuse("x", "y")}
    for uid, outcome in outcomes.items():
        add(store, instance(1, study=uid))
        settle_study(store, uid, now=6000)
        if outcome:
            job = claim(store)
            assert job is not None
            with store.transaction() as tx:
                jobs.settle(tx, job, outcome, now=8000, due_at=9000)
    day = 86_400_000
    with store.transaction() as tx:
        assert jobs.give_up_expired(tx, 90 * day, 90 * day + 6000) == []
        assert jobs.give_up_expired(tx, 90 * day, 90 * day + 6001) == [1, 2]
    found = job_of(store)
    assert (found.state, found.reason_code, found.reason) == \
        (State.HELD, "patience-ended", "given up after 90 days: busy")
    act(store, Event.RETRY, 1, now=90 * day + 9000)
    assert job_of(store).state is State.QUEUED


def test_hold_for_person(store: Store) -> None:
    job = claimed(store)
    with store.transaction() as tx:
        assert not jobs.hold_for_person(tx, 404, "conflict", "two versions", 9)
        assert jobs.hold_for_person(tx, job.job_id, "conflict", "two versions", 9)
        assert not jobs.hold_for_person(tx, job.job_id, "conflict", "two versions", 9)
        with pytest.raises(LeaseLost):
            jobs.settle(tx, job, Later("x", "y"), now=9, due_at=9)
    assert (job_of(store).state, job_of(store).reason_code) == (State.HELD, "conflict")


# --- environments --------------------------------------------------------------------------------------------------

def test_after_a_move_nothing_counts_as_delivered_and_a_person_chooses(store: Store) -> None:
    deliver(store, claimed(store))
    add(store, instance(1, study="2.25.2"))
    settle_study(store, "2.25.2")
    with store.transaction() as tx:
        assert jobs.displace(tx, LANE, STAGING, 9000) == 0
        assert jobs.displace(tx, LANE, PRODUCTION, 9000) == 1
    assert (job_of(store, 2).state, job_of(store, 2).reason_code) == (State.HELD, "environment-changed")
    assert job_of(store, 1).state is State.DONE
    act(store, Event.RETRY, 2, environment=PRODUCTION)
    act(store, Event.REOPEN, 1, environment={LANE: PRODUCTION, "folder": "elsewhere"})
    assert claim(store, now=9000) is None
    other = claim(store, environment=PRODUCTION, now=9000)
    assert other is not None
    assert states_of_items(store, other) == [ItemState.DUE]
    moved = claim(store, environment=PRODUCTION, now=9000)
    assert moved is not None
    assert (moved.job_id, moved.environment, moved.done_revision, moved.facts) == (1, PRODUCTION, 0, {})
    assert states_of_items(store, moved) == [ItemState.DUE] * 3
    deliver(store, moved)
    assert job_of(store, 1).facts == {"imaging_study_id": "is-1"}
    # Back in staging, everything it said and got is still known there.
    act(store, Event.REOPEN, 1, environment=STAGING)
    back = claim(store, now=9000)
    assert back is not None
    assert back.facts == {"imaging_study_id": "is-1"}
    assert states_of_items(store, back) == [ItemState.STORED] * 3


def test_a_late_image_of_a_study_delivered_elsewhere_waits_for_a_person(store: Store) -> None:
    deliver(store, claimed(store))
    add(store, instance(8, part="ACC2"))
    assert settle_study(store, environment=PRODUCTION) == jobs.PlanResult(1, 0, reopened=False)
    assert job_of(store).state is State.DONE
    add(store, instance(9))
    settle_study(store, environment=PRODUCTION)
    found = job_of(store)
    assert (found.state, found.environment, found.reason_code) == (State.HELD, STAGING, "environment-changed")
    act(store, Event.RETRY, 1, environment=PRODUCTION)
    moved = claim(store, environment=PRODUCTION, now=9000)
    assert moved is not None
    assert states_of_items(store, moved) == [ItemState.DUE] * 4


def test_only_current_versions_move(store: Store) -> None:
    deliver(store, claimed(store))
    with store.transaction() as tx:
        tx.execute("UPDATE instance SET is_current = 0 WHERE id = ?", (instance(2).id,))
    act(store, Event.REOPEN, 1, environment=PRODUCTION)
    moved = claim(store, environment=PRODUCTION, now=9000)
    assert moved is not None
    assert states_of_items(store, moved) == [ItemState.DUE] * 2


# --- what people see -----------------------------------------------------------------------------------------------

def test_the_queue(store: Store) -> None:
    deliver(store, claimed(store))
    add(store, instance(1, study="2.25.2", part="", modality="DX"), instance(2, study="2.25.2", part="", series="2"))
    settle_study(store, "2.25.2", part="", lane="folder", environment="/srv/out")
    with store.reading() as tx:
        newest, oldest = jobs.list_jobs(tx)
        assert jobs.list_jobs(tx, state=State.DONE) == [oldest]
        assert jobs.list_jobs(tx, state=State.HELD) == []
        assert jobs.list_jobs(tx, destination="folder") == [newest]
        assert jobs.list_jobs(tx, limit=1) == [newest]
        assert jobs.list_jobs(tx, limit=1, before=newest.job_id) == [oldest]
        assert jobs.jobs_of(tx, STUDY) == [oldest]
    assert (oldest.kind, oldest.study_uid, oldest.accession_number, oldest.lane, oldest.environment, oldest.state) == \
        ("deliver", STUDY, "ACC1", LANE, STAGING, State.DONE)
    assert (oldest.instances, oldest.receipts, oldest.imaging_study_id, oldest.modality) == (3, 3, "is-1", "CT")
    assert (newest.instances, newest.receipts, newest.imaging_study_id, newest.modality) == (2, 0, None, "CT,DX")
    assert newest.accession_number == ""


def test_finding_jobs(store: Store) -> None:
    add(store, instance(1, part="2"), instance(2, part=""), instance(1, study="2.25.2", part="A 7"))
    first = settle_study(store, part="2").job_id
    second = settle_study(store, "2.25.2", part="A 7").job_id
    whole = second + 1
    with store.transaction() as tx:
        tx.execute("INSERT INTO job (kind, destination, environment, study_uid, part, state, due_at, created_at,"
                   " updated_at, opened_at) VALUES ('deliver', 'folder', '', ?, '', 'queued', 0, 0, 0, 0)", (STUDY,))
        tx.execute("INSERT INTO item (job_id, environment, instance_id, revision, state) VALUES (?, '', ?, 1, 'due')",
                   (whole, instance(1).id))
    with store.reading() as tx:
        assert jobs.find_jobs(tx, STUDY) == [first, whole]
        assert jobs.find_jobs(tx, " A 7 ") == [second]
        assert jobs.find_jobs(tx, "2") == [first, whole]  # the accession, not the job's number
        assert jobs.find_jobs(tx, "#2") == [second]
        assert jobs.find_jobs(tx, "1") == [first]
        for nothing in ("", " ", "#", "404", "#404", "A", "9" * 40, "²", "' OR 1=1"):
            assert jobs.find_jobs(tx, nothing) == []


def test_a_whole_study_job_shows_its_one_accession(store: Store) -> None:
    add(store, instance(1, part="ACC7"))
    with store.transaction() as tx:
        tx.execute("INSERT INTO job (kind, destination, environment, study_uid, part, state, due_at, created_at,"
                   " updated_at, opened_at) VALUES ('deliver', 'folder', '', ?, '', 'queued', 0, 0, 0, 0)", (STUDY,))
        assert jobs.list_jobs(tx)[0].accession_number == "ACC7"
    add(store, instance(2, part="ACC8"))
    with store.reading() as tx:
        assert jobs.list_jobs(tx)[0].accession_number == ""


def test_the_timeline(store: Store) -> None:
    with store.transaction() as tx:
        jobs.add_event(tx, 5, "order-found", "order 7 belongs to it", study_uid=STUDY, job_id=None, fields={"n": 1})
        jobs.add_event(tx, 4, "person-retry", "retry by ani", study_uid=STUDY, who="ani")
        jobs.add_event(tx, 6, "else", "of another study", study_uid="2.25.2")
    with store.reading() as tx:
        first, second = jobs.events_of(tx, STUDY)
        assert (first.code, first.at, first.fields, first.who) == ("order-found", 5, {"n": 1}, "")
        assert (second.code, second.who) == ("person-retry", "ani")
        assert jobs.events_of(tx, STUDY, after=first.event_id) == [second]


# --- lanes ---------------------------------------------------------------------------------------------------------

def test_a_lane_that_its_breaker_paused(store: Store) -> None:
    with store.transaction() as tx:
        assert jobs.lane(tx, LANE) == jobs.Lane(LANE)
        jobs.pause_lane(tx, LANE, 900, "http-503", "busy", 100)
        jobs.pause_lane(tx, LANE, 1900, "dns", "no such host", 1000)
        assert jobs.lane(tx, LANE) == jobs.Lane(
            LANE, 1900, "breaker", "dns", "no such host", 2, 1000, down_since=100)
        jobs.hurry_lane(tx, LANE, 1100)
        assert (jobs.lane(tx, LANE).paused_until, jobs.lane(tx, LANE).failures) == (1100, 2)
        assert jobs.resume_lane(tx, LANE, 1200)
        assert jobs.lane(tx, LANE) == jobs.Lane(LANE, updated_at=1200)
        assert not jobs.resume_lane(tx, LANE, 1300)


def test_a_persons_pause_is_not_ended_by_the_breaker(store: Store) -> None:
    with store.transaction() as tx:
        jobs.pause_lane(tx, LANE, 5000, "person", "maintenance", 100, by="ani")
        jobs.pause_lane(tx, LANE, 300, "dns", "no such host", 200)
        assert not jobs.resume_lane(tx, LANE, 400)
        jobs.hurry_lane(tx, LANE, 400)
        found = jobs.lane(tx, LANE)
        assert (found.paused_until, found.paused_by, found.reason, found.failures) == (5000, "ani", "maintenance", 1)
        jobs.pause_lane(tx, LANE, 7000, "dns", "no such host", 6000)  # hers has ended by itself
        assert jobs.lane(tx, LANE).paused_by == "breaker"
        jobs.pause_lane(tx, LANE, 9000, "person", "again", 6500, by="ani")
        assert jobs.resume_lane(tx, LANE, 6600, by="ani")
        assert jobs.lane(tx, LANE).paused_until == 0
