"""Planning, claiming, settling and losing jobs, on both engines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from internal import holdings, index, jobs, study_list
from internal.claims import Poll
from internal.errors import LeaseLost, NotFound
from internal.items import revise_receipts
from internal.job_list import DONE_NOT_PROVEN, NOT_PROVEN, count_not_proven
from internal.model import ItemState, Job
from internal.states import Event, Finish, Later, More, NotYet, Outcome, Refuse, State
from internal.store import Store
from internal.study_list import Search
from tests.contract.store.samples import (
    LANE,
    NODE,
    PRODUCTION,
    STAGING,
    STUDY,
    add,
    claim,
    claimed,
    instance,
    moved,
    plan_all,
    settle_study,
)


def job_of(store: Store, job_id: int = 1) -> Job:
    with store.reading() as tx:
        return jobs.job(tx, job_id)


def settled(store: Store, job: Job, outcome: Outcome, *, now: int = 8000, due_at: int = 9000) -> State:
    with store.transaction() as tx:
        return jobs.settle(tx, job, outcome, now=now, due_at=due_at)


def deliver(store: Store, job: Job) -> None:
    """Give every item of the job its receipt."""
    with store.transaction() as tx:
        for one in jobs.items(tx, job, [ItemState.DUE], 100):
            (sent,) = jobs.mark_sent(tx, job, [(one, f"sha-{one.item_id}", 10, {})])
            jobs.settle_items(tx, job, [(sent, ItemState.STORED, {"status": 200})])


def finished(store: Store) -> Job:
    job = claimed(store)
    deliver(store, job)
    assert settled(store, job, Finish()) is State.DONE
    return job_of(store, job.job_id)


def behind(store: Store, *, thorough: bool = False) -> list[int]:
    with store.reading() as tx:
        return [one.job_id for one in jobs.jobs_behind(tx, 100, thorough=thorough)]


# --- planning ------------------------------------------------------------------------------------------------------

def test_planning_makes_one_job_with_an_item_per_instance(store: Store) -> None:
    add(store, *[instance(number) for number in (3, 1, 2)])
    planned = settle_study(store)
    assert (planned.new_items, planned.reopened) == (3, False)
    job = job_of(store, planned.job_id)
    assert (job.state, job.environment, job.settled_revision, job.revision, job.done_revision) == \
        (State.QUEUED, STAGING, 1, 0, 0)
    taken = claim(store)
    assert taken is not None
    with store.reading() as tx:
        found = jobs.items(tx, taken, [ItemState.DUE], 10)
    assert [one.instance.header.instance_number for one in found] == ["1", "2", "3"]


def test_planning_again_adds_nothing(store: Store) -> None:
    add(store, instance(1))
    first = settle_study(store)
    with store.transaction() as tx:
        assert plan_all(tx) == jobs.PlanResult(first.job_id, 0, reopened=False)


@pytest.mark.parametrize("event", [None, Event.CANCEL, Event.GIVE_UP])
def test_late_instances_join_an_unfinished_job_whatever_its_state(store: Store, event: Event | None) -> None:
    add(store, instance(1))
    job_id = settle_study(store).job_id
    if event:
        with store.transaction() as tx:
            jobs.act(tx, [job_id], event, who="ani", now=1)
    before = job_of(store, job_id).state
    add(store, instance(2))
    assert settle_study(store) == jobs.PlanResult(job_id, 1, reopened=False)
    assert (job_of(store, job_id).state, job_of(store, job_id).settled_revision) == (before, 2)


def test_a_late_instance_reopens_a_finished_job(store: Store) -> None:
    job = finished(store)
    add(store, instance(9))
    assert settle_study(store, now=20_000) == jobs.PlanResult(job.job_id, 1, reopened=True)
    again = job_of(store, job.job_id)
    assert (again.state, again.due_at, again.done_revision, again.settled_revision) == (State.QUEUED, 20_000, 1, 2)
    taken = claim(store, now=20_000)
    assert taken is not None
    assert taken.revision == 2
    with store.reading() as tx:
        assert [one.instance.id for one in jobs.items(tx, taken, [ItemState.DUE], 9)] == [instance(9).id]


def test_a_study_that_grew_elsewhere_does_not_reopen_a_job(store: Store) -> None:
    job = finished(store)
    add(store, instance(9, part="ACC2"))
    assert settle_study(store) == jobs.PlanResult(job.job_id, 0, reopened=False)
    assert (job_of(store).state, job_of(store).done_revision) == (State.DONE, 2)
    assert behind(store) == behind(store, thorough=True) == []


def test_more_instances_at_the_same_revision_reopen_it_too(store: Store) -> None:
    """Such as after a change of rules: nothing new has come, but more is to go."""
    add(store, instance(1), instance(2))
    with store.transaction() as tx:
        assert index.mark_settled(tx, STUDY, 1, 1)
        some = index.inventory(tx, STUDY, "ACC1").instances[:1]
        jobs.plan(tx, kind="deliver", destination=LANE, environment=STAGING, study_uid=STUDY, part="ACC1",
                  instances=some, settled_revision=1, now=1, due_at=1)
    job = claim(store)
    assert job is not None
    deliver(store, job)
    settled(store, job, Finish())
    with store.transaction() as tx:
        assert plan_all(tx) == jobs.PlanResult(job.job_id, 1, reopened=True)


def test_parts_destinations_and_kinds_are_jobs_of_their_own(store: Store) -> None:
    add(store, instance(1), instance(2, part=""))
    settle_study(store)
    with store.transaction() as tx:
        ids = {plan_all(tx).job_id, plan_all(tx, part="").job_id, plan_all(tx, lane="folder").job_id}
        ids.add(jobs.plan(tx, kind="notify", destination=LANE, environment="", study_uid="", part="", instances=[],
                          settled_revision=0, now=1, due_at=1).job_id)
    assert len(ids) == 4


def test_studies_without_a_job_at_a_destination(store: Store) -> None:
    for uid in ("2.25.1", "2.25.2", "2.25.3"):
        add(store, instance(1, study=uid))
    settle_study(store, "2.25.1")
    settle_study(store, "2.25.2", lane="folder")
    with store.reading() as tx:
        assert jobs.unplanned(tx, kind="deliver", destination=LANE) == ["2.25.2"]
        assert jobs.unplanned(tx, kind="deliver", destination="new") == ["2.25.1", "2.25.2"]
        assert jobs.unplanned(tx, kind="deliver", destination="new", after="2.25.1") == ["2.25.2"]


# --- claiming ------------------------------------------------------------------------------------------------------

def plan_studies(store: Store, *opened_at: int) -> None:
    for number, at in enumerate(opened_at, 1):
        add(store, instance(1, study=f"2.25.{number}"))
        settle_study(store, f"2.25.{number}", now=at)


def claim_all(store: Store, **options: object) -> list[int]:
    taken = []
    while job := claim(store, **options):  # type: ignore[arg-type]
        taken.append(job.job_id)
    return taken


def test_claim_takes_the_newest_study_first_and_each_only_once(store: Store) -> None:
    plan_studies(store, 300, 100, 200, 9_999_999)
    with store.reading() as tx:
        assert jobs.is_due(tx, destination=LANE, environment=STAGING, now=100)
        assert not jobs.is_due(tx, destination=LANE, environment=STAGING, now=99)
    assert claim_all(store) == [1, 3, 2]


def test_nobody_gets_a_second_turn_before_everybody_had_one(store: Store) -> None:
    plan_studies(store, 300, 100, 200)
    for expected in (1, 3, 2, 1):
        job = claim(store)
        assert job is not None
        assert job.job_id == expected
        settled(store, job, More(), due_at=400)
    add(store, instance(1, study="2.25.9"))
    settle_study(store, "2.25.9", now=50)
    assert claim_all(store) == [4, 3, 2, 1]


def test_started_work_comes_before_new_studies_and_longest_due_first(store: Store) -> None:
    plan_studies(store, 100, 200, 300)
    outcomes: list[Outcome] = [NotYet("index-lag", "soon", retry_after_s=1.0), Later("http-500", "fault")]
    for outcome, due_at in zip(outcomes, (6900, 6800), strict=True):
        job = claim(store, now=6500)
        assert job is not None
        settled(store, job, outcome, due_at=due_at)
    assert claim_all(store) == [2, 3, 1]


def test_the_waiting_room_asks_only_when_it_may_and_the_newest_first(store: Store) -> None:
    plan_studies(store, 100, 200, 300, 400)
    for due_at in (6600, 6700, 6800):
        job = claim(store, now=6500)
        assert job is not None
        settled(store, job, NotYet("no-order", "no order yet"), due_at=due_at)
    assert claim_all(store, poll=Poll.NONE) == [1]
    with store.reading() as tx:
        asked = {"destination": LANE, "environment": STAGING, "now": 7000}
        assert jobs.is_due(tx, **asked) and not jobs.is_due(tx, **asked, poll=False)  # type: ignore[arg-type]
    longest = claim(store, poll=Poll.LONGEST)
    assert longest is not None and longest.job_id == 4
    assert claim_all(store) == [3, 2]


def test_a_woken_or_failed_job_leaves_the_waiting_room(store: Store) -> None:
    plan_studies(store, 100, 200)
    for _ in range(2):
        job = claim(store, now=6500)
        assert job is not None
        settled(store, job, NotYet("no-order", "no order yet"), due_at=6900)
    with store.transaction() as tx:
        jobs.act(tx, [1], Event.WAKE, who="ani", now=6900)
    polled = claim(store)
    assert polled is not None and polled.job_id == 2
    settled(store, polled, Later("http-500", "fault"), due_at=6950)
    assert claim_all(store, poll=Poll.NONE) == [2, 1]


def test_a_person_makes_a_study_urgent(store: Store) -> None:
    plan_studies(store, 100, 200)
    with store.transaction() as tx:
        jobs.set_priority(tx, [1], jobs.URGENT, 7000)
        with pytest.raises(ValueError, match="priority"):
            jobs.set_priority(tx, [1], 3, 7000)
    assert claim_all(store, priorities=(jobs.URGENT,)) == [1]
    assert claim_all(store) == [2]


def test_claim_prefers_what_is_urgent(store: Store) -> None:
    for uid, priority in (("2.25.1", jobs.BACKLOG), ("2.25.2", jobs.NORMAL), ("2.25.3", jobs.URGENT)):
        add(store, instance(1, study=uid))
        settle_study(store, uid, priority=priority)
    assert [one.study_uid for one in (claim(store), claim(store), claim(store)) if one] == \
        ["2.25.3", "2.25.2", "2.25.1"]


def test_claim_looks_at_lane_and_environment(store: Store) -> None:
    add(store, instance(1))
    settle_study(store)
    assert claim(store, lane="folder") is None
    assert claim(store, environment=PRODUCTION) is None
    job = claim(store)
    assert job is not None
    assert (job.state, job.revision, job.lease_until) == (State.ACTIVE, 1, 67_000)
    assert len(job.lease) == 16


def test_claim_only_where_the_bytes_are(store: Store) -> None:
    add(store, instance(1, node="n1"))
    settle_study(store)
    add(store, moved(instance(1, study="2.25.2"), location="s3:bucket/key"))
    settle_study(store, "2.25.2")
    anywhere = claim(store, node="n2")
    assert anywhere is not None
    assert anywhere.study_uid == "2.25.2"
    assert claim(store, node="n2") is None
    assert claim(store, node="n1") is not None


def test_late_bytes_on_another_node_move_a_finished_job_there(store: Store) -> None:
    finished(store)
    add(store, instance(9, node="n2"))
    settle_study(store)
    assert claim(store, node=NODE) is None
    assert claim(store, node="n2") is not None


def two_accessions(store: Store, uid: str = "2.25.9") -> None:
    add(store, instance(1, study=uid, part="A1"), instance(2, study=uid, part="A2"))
    with store.transaction() as tx:
        assert index.mark_settled(tx, uid, 1, 6000)
        for part in ("A1", "A2"):
            plan_all(tx, uid, part=part)


def test_one_study_is_worked_on_once_at_a_time(store: Store) -> None:
    two_accessions(store)
    first = claim(store)
    assert first is not None
    assert claim(store) is None
    assert not due(store)
    other = claimed(store, instance(3, study="2.25.10"))
    assert other.study_uid == "2.25.10"
    settled(store, first, More())
    second = claim(store)
    assert second is not None and second.study_uid == first.study_uid


def test_the_waiting_room_does_not_look_for_a_study_that_is_being_worked_on(store: Store) -> None:
    two_accessions(store)
    first = claim(store)
    assert first is not None
    settled(store, first, NotYet("no-order", "none yet"))
    second = claim(store, poll=Poll.NONE)
    assert second is not None and second.job_id != first.job_id
    assert claim(store, now=10**12) is None
    settled(store, second, More())
    again = claim(store, now=10**12)
    assert again is not None and again.job_id == first.job_id


def due(store: Store) -> bool:
    with store.reading() as tx:
        return jobs.is_due(tx, destination=LANE, environment=STAGING, now=7000)


def test_claiming_is_by_index(store: Store) -> None:
    explain = "EXPLAIN QUERY PLAN " if store.dialect == "sqlite" else "EXPLAIN "
    with store.transaction() as tx:
        if store.dialect == "postgresql":
            tx.execute("SET LOCAL enable_seqscan = off")
        plans = [str(tx.rows(explain + sql, (LANE, STAGING, jobs.NORMAL, 7000, NODE))) for sql in jobs.claim_sql(tx)]
        plans += [str(tx.rows(explain + jobs.poll_sql(tx, poll), (LANE, STAGING, 7000, NODE)))
                  for poll in (Poll.LONGEST, Poll.NEWEST)]
    for index_name, plan in zip(("job_again", "job_fresh", "job_poll_longest", "job_poll_newest"), plans, strict=True):
        assert index_name in plan
        assert "TEMP B-TREE" not in plan
        assert "Sort" not in plan


# --- settling ------------------------------------------------------------------------------------------------------

def test_finish(store: Store) -> None:
    job = finished(store)
    assert (job.state, job.done_revision, job.lease, job.attempts) == (State.DONE, 1, "", 0)
    assert behind(store) == []


@pytest.mark.parametrize("state", [ItemState.UNVERIFIED, ItemState.UNREAD])
def test_a_finished_delivery_without_proof_is_counted_and_found_until_it_has_it(store: Store, state: ItemState) -> None:
    job = claimed(store)
    deliver(store, job)
    with store.transaction() as tx:
        (first, *_) = jobs.items(tx, job, [ItemState.STORED], 10)
        revise_receipts(tx, job, [(first, state, {"status": 409})])
    assert settled(store, job, Finish("1 were there already, content not verified")) is State.DONE
    with store.reading() as tx:
        (found,) = jobs.list_jobs(tx, reason_code=NOT_PROVEN)
        assert (found.job_id, found.state, found.receipts) == (job.job_id, State.DONE, 3)
        assert found.reason == "1 were there already, content not verified"
        assert count_not_proven(tx) == {LANE: 1}
        assert [one.why for one in holdings.shares(tx)] == ["delivered/not-proven"]
        assert [one.study_uid for one in study_list.find(tx, Search(state=NOT_PROVEN)).studies] == [STUDY]
        assert study_list.find(tx, Search(state=NOT_PROVEN, text="nobody")).studies == ()
    with store.transaction() as tx:
        jobs.act(tx, [job.job_id], Event.REOPEN, who="ani", now=8100)
    again = claim(store, now=8200)
    assert again is not None
    with store.transaction() as tx:
        jobs.settle_items(tx, again, [(first, ItemState.STORED, {"status": 409})])
    assert settled(store, again, Finish()) is State.DONE
    with store.reading() as tx:
        assert jobs.list_jobs(tx, reason_code=NOT_PROVEN) == []
        assert count_not_proven(tx) == {}


def test_what_is_not_proven_is_found_by_index(store: Store) -> None:
    with store.reading() as tx:
        if store.dialect == "postgresql":
            return  # it plans by statistics, and an empty table has none
        plans = [str(tx.rows(f"EXPLAIN QUERY PLAN {sql}")) for sql in (
            f"SELECT j.destination, COUNT(*) FROM job j WHERE {DONE_NOT_PROVEN} GROUP BY j.destination",
            f"SELECT j.job_id FROM job j WHERE {DONE_NOT_PROVEN} AND j.job_id < 7 ORDER BY j.job_id DESC LIMIT 9")]
    assert all("job_not_proven" in plan for plan in plans), plans
    assert "TEMP B-TREE" not in plans[1]


def test_finish_with_an_unanswered_item_is_not_believed(store: Store) -> None:
    job = claimed(store)
    assert settled(store, job, Finish()) is State.DEFERRED
    found = job_of(store)
    assert (found.reason_code, found.done_revision, found.due_at) == ("unfinished-items", 0, 68_000)


@pytest.mark.parametrize(("outcome", "state", "attempts"), [
    (More(), State.QUEUED, 0),
    (Later("http-503", "busy"), State.DEFERRED, 1),
    (Later("dns", "no such host", blame="lane"), State.DEFERRED, 0),
    (NotYet("no-order", "no order yet"), State.WAITING, 0),
    (Refuse("two-orders", "several orders", {"orders": [1, 2]}), State.HELD, 0),
])
def test_other_outcomes(store: Store, outcome: Outcome, state: State, attempts: int) -> None:
    job = claimed(store)
    assert settled(store, job, outcome) is state
    found = job_of(store)
    assert (found.state, found.attempts, found.lease) == (state, attempts, "")
    assert found.reason_code == getattr(outcome, "code", "")
    assert found.reason == getattr(outcome, "reason", "")
    assert found.detail == getattr(outcome, "detail", {})
    if state is not State.HELD:
        assert found.due_at == 9000
        assert claim(store, now=8999) is None
        assert claim(store, now=9000) is not None
    else:
        assert claim(store, now=1 << 50) is None


def test_attempts_add_up_and_are_forgotten_after_success(store: Store) -> None:
    job: Job | None = claimed(store)
    for attempt in (1, 2, 3):
        assert job is not None
        settled(store, job, Later("http-503", f"busy {attempt}"))
        assert job_of(store).attempts == attempt
        job = claim(store, now=10_000)
    assert job is not None
    settled(store, job, More())
    assert job_of(store).attempts == 0


def test_waiting_is_counted_from_its_first_moment(store: Store) -> None:
    job: Job | None = claimed(store)
    for now in (8000, 9000, 10_000):
        assert job is not None
        settled(store, job, NotYet("no-order", "none yet"), now=now, due_at=now)
        assert job_of(store).waiting_since == 8000
        job = claim(store, now=now)
    assert job is not None
    deliver(store, job)
    settled(store, job, Finish())
    assert job_of(store).waiting_since is None


def test_only_the_lease_may_settle(store: Store) -> None:
    job = claimed(store)
    for stranger in (replace(job, lease="somebody else"), replace(job, lease="")):
        with pytest.raises(LeaseLost):
            settled(store, stranger, More())
    settled(store, job, More())
    with pytest.raises(LeaseLost):
        settled(store, job, More())
    assert job_of(store).state is State.QUEUED


def test_the_timeline_tells_each_change_once(store: Store) -> None:
    job: Job | None = claimed(store)
    for _ in range(3):
        assert job is not None
        settled(store, job, NotYet("no-order", "no order yet"))
        job = claim(store, now=10_000)
    assert job is not None
    deliver(store, job)
    settled(store, job, Finish("3 instances"))
    with store.reading() as tx:
        told = [(one.code, one.text) for one in jobs.events_of(tx, STUDY)]
    assert told == [("job-planned", f"3 instances to go to {LANE}"), ("job-waiting", "no order yet"),
                    ("job-done", "3 instances")]


# --- revisions -----------------------------------------------------------------------------------------------------

def test_an_image_planned_while_the_job_was_at_work_leaves_it_behind(store: Store) -> None:
    job = claimed(store)
    add(store, instance(9))
    settle_study(store)
    deliver(store, job)  # even if the same step brings the new one along: what was registered before lacks it
    assert settled(store, job, Finish()) is State.DONE
    assert (job_of(store).done_revision, job_of(store).settled_revision) == (1, 2)
    assert behind(store) == behind(store, thorough=True) == [job.job_id]
    with store.transaction() as tx:
        assert plan_all(tx) == jobs.PlanResult(job.job_id, 0, reopened=True)
    again = claim(store, now=10_000)
    assert again is not None
    assert again.revision == 2
    settled(store, again, Finish())
    assert behind(store) == []


def test_the_thorough_look_finds_a_study_that_settled_without_its_plan(store: Store) -> None:
    job = finished(store)
    add(store, instance(9))
    with store.transaction() as tx:
        assert index.mark_settled(tx, STUDY, 2, 9)
    assert behind(store) == []
    assert behind(store, thorough=True) == [job.job_id]


# --- leases --------------------------------------------------------------------------------------------------------

def lose(store: Store, *, node: str = NODE, now: int = 8000) -> list[tuple[int, State]]:
    with store.transaction() as tx:
        return jobs.release_leases(tx, node, now)


def test_a_start_takes_back_this_nodes_leases_only(store: Store) -> None:
    job = claimed(store)
    assert lose(store, node="n2") == []
    assert lose(store) == [(job.job_id, State.QUEUED)]
    with pytest.raises(LeaseLost):
        settled(store, job, More())
    again = claim(store, now=8000)
    assert again is not None
    assert again.lease != job.lease


def test_an_expired_lease_of_another_node_is_taken_back(store: Store) -> None:
    job = claimed(store, lease_ms=-3_600_000)
    with store.transaction() as tx:
        assert jobs.expire_leases(tx, 7001) == [(job.job_id, State.QUEUED)]
    assert claim(store, now=7001) is not None
    assert lose(store, node="n2") == []


def test_a_lease_that_is_renewed_does_not_expire(store: Store) -> None:
    job = claimed(store, lease_ms=-3_600_000)
    with store.transaction() as tx:
        assert jobs.renew(tx, job, now=7000, lease_ms=60_000).lease_until == 67_000
        assert jobs.expire_leases(tx, 7001) == []
        with pytest.raises(LeaseLost):
            jobs.renew(tx, replace(job, lease="x"), now=1, lease_ms=1)


def test_the_third_lost_lease_without_progress_needs_a_person(store: Store) -> None:
    job = claimed(store)
    for expected in (State.QUEUED, State.QUEUED, State.HELD):
        assert lose(store) == [(job.job_id, expected)]
        claim(store, now=8000)
    found = job_of(store)
    assert (found.state, found.reason_code) == (State.HELD, "worker-died")
    with store.transaction() as tx:
        assert list(jobs.act(tx, [job.job_id], Event.RETRY, who="ani", now=8000)) == [(job.job_id, State.QUEUED)]
    claim(store, now=8000)
    assert lose(store) == [(job.job_id, State.QUEUED)]


@pytest.mark.parametrize("progress", ["facts", "receipt", "settle"])
def test_progress_forgets_lost_leases(store: Store, progress: str) -> None:
    claimed(store)
    for _ in range(7):
        lose(store)
        job = claim(store, now=8000)
        assert job is not None
        lose(store)
        job = claim(store, now=8000)
        assert job is not None
        with store.transaction() as tx:
            if progress == "facts":
                jobs.record_facts(tx, job, {"phase": "registered"})
            elif progress == "receipt":
                (one,) = jobs.items(tx, job, list(ItemState), 1)
                jobs.settle_items(tx, job, [(one, ItemState.STORED, {})])
            else:
                jobs.settle(tx, job, More(), now=8000, due_at=8000)
        if progress == "settle":
            claim(store, now=8000)
    assert job_of(store).state is State.ACTIVE


def test_there_is_no_such_job(store: Store) -> None:
    with pytest.raises(NotFound):
        job_of(store, 404)
