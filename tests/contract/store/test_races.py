"""Two processes at once: two stores, two threads, started together by a barrier, many rounds, on both engines.

Whatever the interleaving, an invariant must hold afterwards; nothing here depends on who comes first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from internal import index, jobs
from internal.errors import LeaseLost, Transient
from internal.index import Added
from internal.model import ItemState, Job
from internal.states import Event, Finish, More, Refuse, State
from internal.store import Store
from tests.contract.conftest import OpenStore
from tests.contract.store.samples import LANE, NODE, STAGING, add, claim, instance, moved, plan_all, settle_study

ROUNDS = 25


def together(*calls: Callable[[], object]) -> list[object]:
    """Run all at once and return their results in order; an exception of one is raised."""
    barrier = threading.Barrier(len(calls))
    results: list[object] = [None] * len(calls)
    failures: list[BaseException] = []

    def run(place: int, call: Callable[[], object]) -> None:
        barrier.wait(10)
        try:
            results[place] = call()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results


def delivered(store: Store, uid: str) -> Job:
    """Return the claimed job of a study whose three items all have their receipts."""
    add(store, *[instance(number, study=uid) for number in (1, 2, 3)])
    settle_study(store, uid)
    job = claim(store, now=7000)
    assert job is not None
    with store.transaction() as tx:
        due = jobs.items(tx, job, [ItemState.DUE], 10)
        sent = jobs.mark_sent(tx, job, [(one, "aa", 1, {}) for one in due])
        jobs.settle_items(tx, job, [(one, ItemState.STORED, {}) for one in sent])
    return job


def finish(store: Store, job: Job) -> State:
    with store.transaction() as tx:
        return jobs.settle(tx, job, Finish(), now=8000, due_at=8000)


def test_a_late_image_while_its_job_finishes_is_never_lost(open_store: OpenStore) -> None:
    worker, indexer = open_store(), open_store()
    ways = set()
    for turn in range(ROUNDS):
        uid = f"2.25.{turn + 1}"
        job = delivered(worker, uid)

        def late(uid: str = uid) -> None:
            add(indexer, instance(9, study=uid))
            settle_study(indexer, uid)

        together(lambda job=job: finish(worker, job), late)
        with worker.transaction() as tx:
            now = jobs.job(tx, job.job_id)
            assert now.settled_revision == 2
            assert now.done_revision == 1
            ways.add(now.state)
            if now.state is State.DONE:  # planned before the finish: found by the comparison
                assert job.job_id in [one.job_id for one in jobs.jobs_behind(tx, 100)]
                held = index.inventory(tx, uid, "ACC1")
                jobs.plan(tx, kind="deliver", destination=LANE, environment=STAGING, study_uid=uid, part="ACC1",
                          instances=held.instances, settled_revision=held.revision, now=1, due_at=1)
        again = claim(worker, now=9000)
        assert again is not None
        assert (again.job_id, again.revision) == (job.job_id, 2)
        with worker.transaction() as tx:
            (due,) = jobs.items(tx, again, [ItemState.DUE], 10)
            assert due.instance.id == instance(9, study=uid).id
            jobs.settle_items(tx, again, [(due, ItemState.STORED, {})])
        assert finish(worker, again) is State.DONE
    assert ways <= {State.DONE, State.QUEUED}


@pytest.mark.parametrize("finish_first", [True, False])
def test_the_same_with_one_of_them_held_open(open_store: OpenStore, finish_first: bool) -> None:
    """Both orders for certain: the second one starts while the first has not committed."""
    worker, indexer = open_store(), open_store()
    job = delivered(worker, "2.25.1")
    add(indexer, instance(9, study="2.25.1"))
    started = threading.Event()
    second = (lambda: settle_study(indexer, "2.25.1")) if finish_first else (lambda: finish(worker, job))

    def run() -> None:
        started.set()
        second()

    thread = threading.Thread(target=run)
    with (worker if finish_first else indexer).transaction() as tx:
        if finish_first:
            jobs.settle(tx, job, Finish(), now=8000, due_at=8000)
        else:
            assert index.mark_settled(tx, "2.25.1", 2, 8000)
            held = index.inventory(tx, "2.25.1", "ACC1")
            jobs.plan(tx, kind="deliver", destination=LANE, environment=STAGING, study_uid="2.25.1", part="ACC1",
                      instances=held.instances, settled_revision=2, now=8000, due_at=8000)
        thread.start()
        assert started.wait(10)
    thread.join()
    with worker.reading() as tx:
        found = jobs.job(tx, job.job_id)
        assert (found.done_revision, found.settled_revision) == (1, 2)
        # Planned after the finish, it is queued. Planned before it, one more look is needed, and that look finds it.
        assert found.state is (State.QUEUED if finish_first else State.DONE)
        assert (jobs.jobs_behind(tx, 10) == []) is finish_first


def test_an_image_indexed_while_its_study_settles_is_planned_now_or_later(open_store: OpenStore) -> None:
    assembler, indexer = open_store(), open_store()
    for turn in range(ROUNDS):
        uid = f"2.25.{turn + 1}"
        add(indexer, instance(1, study=uid))

        def settle(uid: str = uid) -> bool:
            with assembler.transaction() as tx:
                if not index.mark_settled(tx, uid, 1, 6000):
                    return False
                held = index.inventory(tx, uid, "ACC1")
                jobs.plan(tx, kind="deliver", destination=LANE, environment=STAGING, study_uid=uid, part="ACC1",
                          instances=held.instances, settled_revision=held.revision, now=1, due_at=1)
            return True

        settled, _ = together(settle, lambda uid=uid: add(indexer, instance(2, study=uid)))
        with assembler.reading() as tx:
            study = index.study(tx, uid)
            assert study is not None
            assert study.revision == 2
            assert study.settled_revision == (1 if settled else 0)
            assert uid in [one.study_uid for one in index.studies_to_settle(tx, 1000)]


def test_no_job_is_ever_claimed_twice(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(4)]
    for number in range(60):
        add(stores[0], instance(1, study=f"2.25.{number}"))
        settle_study(stores[0], f"2.25.{number}")

    def take_all(store: Store) -> list[int]:
        taken = []
        while job := claim(store):
            taken.append(job.job_id)
        return taken

    taken = together(*[lambda store=store: take_all(store) for store in stores])
    ids = [job_id for some in taken for job_id in some]  # type: ignore[attr-defined]
    assert sorted(ids) == list(range(1, 61))


def test_either_the_worker_settles_or_its_lease_is_taken_never_both(open_store: OpenStore) -> None:
    worker, other = open_store(), open_store()
    for turn in range(ROUNDS):
        job = delivered(worker, f"2.25.{turn}")

        def settle(job: Job = job) -> bool:
            try:
                with worker.transaction() as tx:
                    jobs.settle(tx, job, More(), now=8000, due_at=8000)
                return True
            except LeaseLost:
                return False

        def release() -> list[tuple[int, State]]:
            with other.transaction() as tx:
                return jobs.release_leases(tx, NODE, 8000)

        settled, released = together(settle, release)
        assert settled is not bool(released)
        again = claim(worker, now=9000)
        assert again is not None
        assert finish(worker, again) is State.DONE


def test_either_the_cancel_or_the_finish_counts_never_both(open_store: OpenStore) -> None:
    worker, person = open_store(), open_store()
    for turn in range(ROUNDS):
        job = delivered(worker, f"2.25.{turn}")

        def done(job: Job = job) -> bool:
            try:
                return finish(worker, job) is State.DONE
            except LeaseLost:
                return False

        def cancel(job: Job = job) -> bool:
            with person.transaction() as tx:
                return bool(jobs.act(tx, [job.job_id], Event.CANCEL, who="ani", now=8000))

        was_done, was_cancelled = together(done, cancel)
        assert was_done is not was_cancelled
        with worker.reading() as tx:
            assert jobs.job(tx, job.job_id).state is (State.DONE if was_done else State.CANCELLED)


def test_two_indexers_with_the_same_images(open_store: OpenStore) -> None:
    stores = [open_store(), open_store()]
    for turn in range(ROUNDS):
        one = instance(1, study=f"2.25.{turn}")
        copies = [one, moved(one, id=f"other-{turn}")]
        results = together(*[lambda store=store, copy=copy, one=one: add(store, copy, one)
                             for store, copy in zip(stores, copies, strict=True)])
        flat = [added for result in results for added in result]  # type: ignore[attr-defined]
        assert flat.count(Added.NEW) == 1
        assert set(flat) <= {Added.NEW, Added.DUPLICATE, Added.REPLAY}
        with stores[0].reading() as tx:
            study = index.study(tx, f"2.25.{turn}")
            assert study is not None
            assert (study.revision, study.instances) == (1, 1)


def test_one_uid_in_two_studies_at_once_is_one_current_image(open_store: OpenStore) -> None:
    """Their study rows are not the same, so no lock keeps them apart: one of them is told to try again."""
    stores = [open_store(), open_store()]
    for turn in range(ROUNDS):
        def index_it(store: Store, number: int, turn: int = turn) -> Added:
            while True:
                try:
                    return add(store, instance(1, study=f"2.25.{turn}.{number}", sop=f"2.25.99.{turn}"))[0]
                except Transient as busy:
                    assert busy.code == "database-race"

        results = together(*[lambda store=store, number=number: index_it(store, number)
                             for number, store in enumerate(stores)])
        assert sorted(map(str, results)) == ["conflict", "new"]


def test_two_who_plan_the_same_study_make_one_job(open_store: OpenStore) -> None:
    stores = [open_store(), open_store()]
    for turn in range(ROUNDS):
        uid = f"2.25.{turn}"
        add(stores[0], instance(1, study=uid), instance(2, study=uid))

        def plan(store: Store, uid: str = uid) -> jobs.PlanResult:
            with store.transaction() as tx:
                held = index.inventory(tx, uid, "ACC1")
                return jobs.plan(tx, kind="deliver", destination=LANE, environment=STAGING, study_uid=uid, part="ACC1",
                                 instances=held.instances, settled_revision=1, now=1, due_at=1)

        first, second = together(lambda: plan(stores[0]), lambda: plan(stores[1]))
        assert isinstance(first, jobs.PlanResult)
        assert isinstance(second, jobs.PlanResult)
        assert first.job_id == second.job_id
        assert sorted((first.new_items, second.new_items)) == [0, 2]


def test_two_nodes_never_work_on_two_accessions_of_one_study_at_once(open_store: OpenStore) -> None:
    ours, theirs = open_store(), open_store()
    both = 0
    for turn in range(ROUNDS):
        uid = f"2.25.{turn + 1}"
        add(ours, *[replace(instance(number, study=uid, part=f"A{number}"), location="s3:x") for number in (1, 2)])
        with ours.transaction() as tx:
            assert index.mark_settled(tx, uid, 1, 6000)
            for part in ("A1", "A2"):
                plan_all(tx, uid, part=part)
        found = together(lambda: claim(ours, node="n1"), lambda: claim(theirs, node="n2"))
        taken = [job for job in found if isinstance(job, Job)]
        assert len(taken) <= 1, "both accessions are being worked on"
        both += len(taken)
        while (job := taken.pop() if taken else claim(ours, node="n1")) is not None:
            with ours.transaction() as tx:
                jobs.settle(tx, job, Refuse("x", "x"), now=8000, due_at=8000)
    assert both > 0
