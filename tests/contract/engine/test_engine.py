"""From new/ to a receipt through indexer, assembler and lane, on both database engines, with time moved by hand."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from internal import holdings, index, jobs, set_aside
from internal.errors import CredentialsRefused, Transient
from internal.indexer import BATCH_ROWS, Indexer
from internal.model import ItemState
from internal.ports import Work
from internal.spool import Entry
from internal.states import Event, Later, More, NotYet, Outcome, Refuse, State
from tests.contract.engine.conftest import Engine, HandClock, deliver_all
from tests.system.rig import wait_for

STUDY = "1.2.826.0.1.1"


def test_received_images_end_with_receipts(engine: Engine) -> None:
    for _ in range(5):
        engine.receive(STUDY)
    engine.settle()
    assert engine.work()
    job = engine.job()
    assert job.state is State.DONE
    assert job.done_revision == job.settled_revision
    with engine.store.reading() as tx:
        assert jobs.count_items(tx, job) == {ItemState.STORED: 5}
    assert not engine.work()
    assert engine.spool.scan_new() == []


def test_nothing_is_planned_before_the_study_is_quiet(engine: Engine) -> None:
    engine.receive(STUDY)
    engine.index()
    engine.assembler.run_once(engine.indexer.run_once().watermark_at - 10_000_000)
    assert engine.states() == []


def test_late_image_reopens_and_only_it_is_pushed(engine: Engine) -> None:
    engine.receive(STUDY)
    engine.settle()
    engine.work()
    engine.receive(STUDY)
    engine.settle()
    assert engine.states() == [State.QUEUED]
    pushed: list[int] = []

    def count(work: Work) -> Outcome:
        pushed.append(len(work.items([ItemState.DUE], 100)))
        return deliver_all(work)

    engine.destination.script = count
    engine.work()
    assert pushed == [1]
    assert engine.job().state is State.DONE


def test_late_image_while_the_step_runs_is_not_lost(engine: Engine) -> None:
    engine.receive(STUDY)
    engine.settle()

    def interrupted(work: Work) -> Outcome:
        outcome = deliver_all(work)
        engine.receive(STUDY)
        engine.settle()
        return outcome

    engine.destination.script = interrupted
    engine.work()
    engine.destination.script = None
    engine.assembler.run_once(engine.clock.ms)
    assert engine.work()
    job = engine.job()
    assert job.state is State.DONE
    with engine.store.reading() as tx:
        assert jobs.count_items(tx, job) == {ItemState.STORED: 2}


def test_two_accessions_in_one_study_are_two_jobs(engine: Engine) -> None:
    engine.receive(STUDY, accession="A1")
    engine.receive(STUDY, accession="B2 ")
    engine.settle()
    with engine.store.reading() as tx:
        assert sorted(row.accession_number for row in jobs.list_jobs(tx)) == ["A1", "B2"]


def test_same_image_again_changes_nothing(engine: Engine) -> None:
    engine.receive(STUDY, sop_uid="1.2.3.4")
    engine.settle()
    engine.work()
    engine.receive(STUDY, sop_uid="1.2.3.4")
    engine.settle()
    assert engine.states() == [State.DONE]


@pytest.mark.parametrize("first_padding", [0, 4])
def test_same_image_written_in_another_way_changes_nothing(engine: Engine, first_padding: int) -> None:
    """As senders do it: one keeps Data Set Trailing Padding, another leaves it out (PS3.10 7.2)."""
    first = engine.receive(STUDY, sop_uid="1.2.3.4", padding=first_padding)
    again = engine.receive(STUDY, sop_uid="1.2.3.4", padding=4 - first_padding)
    engine.settle()
    engine.work()
    later = engine.receive(STUDY, sop_uid="1.2.3.4", padding=8)
    engine.settle()
    assert engine.states() == [State.DONE]
    with engine.store.reading() as tx:
        known = index.study(tx, STUDY)
        assert known is not None and (known.conflict, known.revision, known.instances) == (False, 1, 1)
        assert sorted(holdings.duplicates_of(tx, first.id)) == sorted([again.id, later.id]), "they go when it goes"


def damage(engine: Engine, entry: Entry) -> None:
    """Change the last byte of an entry's file."""
    with engine.spool.open_entry(entry.id) as file:
        path = Path(file.name)
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")


class HurryingClock(HandClock):
    """Each look at it takes three seconds."""

    def monotonic_s(self) -> float:
        self.ms += 3_000
        return super().monotonic_s()


def test_a_batch_ends_early_where_looking_into_repeats_takes_long(engine: Engine) -> None:
    """The others come with the next batch, in the order in which they arrived."""
    entries = [engine.receive(STUDY, sop_uid="1.2.3.4", padding=2 * number) for number in range(4)]
    indexer = Indexer(engine.spool, engine.store, HurryingClock())
    passes = [indexer.run_once() for _ in range(4)]
    assert [(one.indexed, one.more) for one in passes] == [(1, True)] * 3 + [(1, False)]
    with engine.store.reading() as tx:
        assert sorted(holdings.duplicates_of(tx, entries[0].id)) == sorted(entry.id for entry in entries[1:])


def test_the_same_image_is_kept_where_the_first_is_no_longer_what_came(engine: Engine) -> None:
    """Only its padding is damaged, but that keeps it from leaving: the second may have to take its place."""
    first = engine.receive(STUDY, sop_uid="1.2.3.4", padding=4)
    engine.settle()
    damage(engine, first)
    engine.receive(STUDY, sop_uid="1.2.3.4")
    engine.settle()
    assert engine.job().reason_code == "conflict"
    assert sum(1 for _ in engine.spool.all_ids()) == 2


def test_the_same_image_is_not_recognised_once_the_first_bytes_are_gone(engine: Engine) -> None:
    """Then only equal bytes can be known to be equal: a person is asked."""
    first = engine.receive(STUDY, sop_uid="1.2.3.4")
    engine.settle()
    engine.work()
    engine.spool.remove([first.id])
    engine.receive(STUDY, sop_uid="1.2.3.4")
    engine.settle()
    assert engine.states() == [State.DONE]
    engine.receive(STUDY, sop_uid="1.2.3.4", padding=4)
    engine.settle()
    assert engine.job().reason_code == "conflict"


def test_same_uid_with_other_pixels_is_kept_and_held(engine: Engine) -> None:
    engine.receive(STUDY, sop_uid="1.2.3.4", pixels=b"\1\0")
    engine.receive(STUDY, sop_uid="1.2.3.4", pixels=b"\2\0")
    engine.settle()
    assert engine.states() == [State.HELD]
    assert engine.job().reason_code == "conflict"
    assert not engine.work()
    assert sum(1 for _ in engine.spool.all_ids()) == 2


def test_other_pixels_after_delivery_are_shown_to_a_person(engine: Engine) -> None:
    engine.receive(STUDY, sop_uid="1.2.3.4", pixels=b"\1\0")
    engine.settle()
    engine.work()
    assert engine.states() == [State.DONE]
    engine.receive(STUDY, sop_uid="1.2.3.4", pixels=b"\2\0")
    engine.settle()
    assert (engine.job().state, engine.job().reason_code) == (State.HELD, "conflict")
    assert not engine.work()
    with engine.store.transaction() as tx:
        assert jobs.act(tx, [1], Event.RETRY, who="test", now=engine.clock.ms).moved
    assert engine.work()
    engine.assembler.run_once(engine.clock.ms)
    assert engine.states() == [State.DONE], "a person's word holds until something else comes"


def test_other_pixels_during_delivery_are_shown_to_a_person(engine: Engine) -> None:
    engine.receive(STUDY, sop_uid="1.2.3.4", pixels=b"\1\0")
    engine.settle()

    def interrupted(work: Work) -> Outcome:
        outcome = deliver_all(work)
        engine.receive(STUDY, sop_uid="1.2.3.4", pixels=b"\2\0")
        engine.settle()
        return outcome

    engine.destination.script = interrupted
    engine.work()
    engine.assembler.run_once(engine.clock.ms)
    assert (engine.job().state, engine.job().reason_code) == (State.HELD, "conflict")


def test_a_database_that_fails_sets_no_image_aside(engine: Engine) -> None:
    """The rows cannot be written, again and again; that is not the image's fault."""
    engine.receive(STUDY)
    with engine.store.transaction() as tx:
        tx.execute("ALTER TABLE series RENAME TO series_away")
    for _ in range(5):
        with pytest.raises(Exception, match="series"):
            engine.indexer.run_once()
    with engine.store.transaction() as tx:
        tx.execute("ALTER TABLE series_away RENAME TO series")
    engine.settle()
    assert engine.work()
    assert engine.states() == [State.DONE]


def test_a_file_that_cannot_be_read_keeps_no_other_waiting(engine: Engine) -> None:
    unreadable, other = engine.receive(STUDY), engine.receive(STUDY)
    path = engine.root / "spool" / "new" / unreadable.file_name
    path.unlink()
    path.mkdir()
    engine.index()
    assert [one.id for one in engine.spool.all_ids()] == [other.id]
    with engine.store.reading() as tx:
        assert tx.value("SELECT reason FROM bad WHERE entry_id = ?", (unreadable.id,)).startswith("the disk")


def test_an_entry_that_went_away_leaves_nothing_behind(engine: Engine) -> None:
    entry = engine.receive(STUDY)
    path = engine.root / "spool" / "new" / entry.file_name
    path.unlink()
    path.symlink_to("nowhere")
    for _ in range(5):
        engine.indexer.run_once()
    with engine.store.reading() as tx:
        assert set_aside.parsing_interrupted(tx) == {}
        assert tx.rows("SELECT * FROM bad") == []


def test_an_image_that_ends_the_process_is_set_aside_at_the_third_start(engine: Engine) -> None:
    entry = engine.receive(STUDY)
    other = engine.receive(STUDY)
    for _ in range(2):
        with engine.store.transaction() as tx:
            set_aside.parsing_started(tx, [entry.id])
    engine.indexer = Indexer(engine.spool, engine.store, engine.clock)
    engine.index()
    assert [one.id for one in engine.spool.all_ids()] == [other.id]
    with engine.store.reading() as tx:
        assert set_aside.parsing_interrupted(tx) == {}


def test_a_lane_fault_pauses_the_lane_once_and_charges_no_attempt(engine: Engine) -> None:
    for n in range(3):
        engine.receive(f"{STUDY}.{n}")
    engine.settle()

    def down(work: Work) -> Outcome:
        raise Transient("no healthy upstream", code="http-503")

    engine.destination.script = down
    assert engine.work()
    assert not engine.work(), "the other studies must not be tried while the lane is paused"
    assert [engine.job(n).attempts for n in (1, 2, 3)] == [0, 0, 0]
    engine.destination.script = None
    engine.clock.ms += 60_000
    while engine.work():
        pass
    assert engine.states() == [State.DONE] * 3


def test_refused_credentials_are_tried_once_in_five_minutes(engine: Engine) -> None:
    engine.receive(STUDY)
    engine.settle()

    def refused(work: Work) -> Outcome:
        raise CredentialsRefused("ClientId is Invalid")

    engine.destination.script = refused
    assert engine.work()
    engine.clock.ms += 299_000
    assert not engine.work()
    engine.clock.ms += 2_000
    assert engine.work()
    job = engine.job()
    assert (job.state, job.reason_code, job.reason) == (State.DEFERRED, "credentials-refused", "ClientId is Invalid")


def test_waiting_costs_no_attempt_and_a_person_can_hurry_it(engine: Engine) -> None:
    engine.receive(STUDY)
    engine.settle()
    engine.destination.script = lambda work: NotYet("no-order", "no ServiceRequest")
    engine.work()
    assert engine.job().state is State.WAITING
    assert not engine.work()
    engine.destination.script = None
    with engine.store.transaction() as tx:
        jobs.act(tx, [1], Event.RETRY, who="test", now=engine.clock.ms)
    assert engine.work()
    assert engine.job().state is State.DONE
    assert engine.job().attempts == 0


@pytest.mark.parametrize("wait", ["later", "unexpected"])
def test_faults_of_one_job_back_off_and_never_end(engine: Engine, wait: str) -> None:
    engine.receive(STUDY)
    engine.settle()

    def fail(work: Work) -> Outcome:
        if wait == "later":
            return Later("x", "try again")
        raise ZeroDivisionError

    engine.destination.script = fail
    for attempt in range(1, 12):
        assert engine.work()
        assert engine.job().attempts == attempt
        assert engine.job().due_at - engine.clock.ms <= 8_000
        engine.clock.ms += 8_001
    engine.destination.script = None
    engine.work()
    assert engine.job().state is State.DONE
    assert engine.job().attempts == 0


def test_more_goes_on_at_once(engine: Engine) -> None:
    engine.receive(STUDY)
    engine.settle()
    steps = [lambda work: More(), lambda work: More(), deliver_all]
    engine.destination.script = lambda work: steps.pop(0)(work)
    assert engine.work()
    assert engine.work()
    assert engine.work()
    assert engine.job().state is State.DONE


def test_held_until_a_person_says_so(engine: Engine) -> None:
    engine.receive(STUDY)
    engine.settle()
    engine.destination.script = lambda work: Refuse("several-orders", "two orders", {"candidates": [1, 2]})
    engine.work()
    assert engine.job().state is State.HELD
    assert engine.job().detail == {"candidates": [1, 2]}
    engine.clock.ms += 10**9
    assert not engine.work()


def test_a_dead_worker_is_replaced_at_the_next_start_and_held_after_three(engine: Engine) -> None:
    engine.receive(STUDY)
    engine.settle()
    for _ in range(3):
        with engine.store.transaction() as tx:
            job = jobs.claim(
                tx, destination="scripted", environment="env-1", node=engine.spool.node, now=engine.clock.ms,
                lease_ms=60_000,
            )
        assert job is not None
        with engine.store.transaction() as tx:
            assert jobs.release_leases(tx, engine.spool.node, engine.clock.ms)
    assert engine.job().state is State.HELD
    assert engine.job().reason_code == "worker-died"


def test_sent_items_keep_their_bytes_over_attempts(engine: Engine) -> None:
    engine.receive(STUDY)
    engine.settle()
    hashes: list[str] = []

    def lose_reply(work: Work) -> Outcome:
        frozen = work.freeze(work.items([ItemState.DUE, ItemState.SENT], 10))
        hashes.append(frozen[0].sha256)
        assert frozen[0].item.sends == len(hashes)
        return Later("reset", "reply lost")

    engine.destination.script = lose_reply
    for _ in range(2):
        engine.work()
        engine.clock.ms += 60_000
    assert len(set(hashes)) == 1


def test_damaged_file_holds_its_job(engine: Engine) -> None:
    entry = engine.receive(STUDY)
    engine.settle()
    damage(engine, entry)
    engine.work()
    assert (engine.job().state, engine.job().reason_code) == (State.HELD, "bytes-damaged")


def test_moving_to_another_environment_waits_for_a_person(engine: Engine) -> None:
    engine.receive(STUDY)
    engine.receive("1.2.826.0.1.2")
    engine.settle()
    engine.work()
    engine.destination.environment = "env-2"
    with engine.store.transaction() as tx:
        assert jobs.displace(tx, "scripted", "env-2", engine.clock.ms) == 1
    engine.assembler = engine.make_assembler()
    engine.assembler.run_once(engine.clock.ms)
    assert sorted(engine.states()) == [State.DONE, State.HELD]
    assert not engine.work()
    with engine.store.transaction() as tx:
        for job_id, event in ((2, Event.REOPEN), (1, Event.RETRY)):
            jobs.act(tx, [job_id], event, who="test", now=engine.clock.ms, environment={"scripted": "env-2"})
    while engine.work():
        pass
    assert engine.states() == [State.DONE, State.DONE]
    assert {engine.job(n).environment for n in (1, 2)} == {"env-2"}


def test_crash_between_commit_and_rename_indexes_once(engine: Engine) -> None:
    entry = engine.receive(STUDY)
    engine.index()
    engine.spool.return_to_new([entry.id])
    engine.index()
    with engine.store.reading() as tx:
        study = index.study(tx, STUDY)
        assert study is not None
        assert (study.instances, study.revision) == (1, 1)


def test_a_destination_for_whole_studies_gets_one_job_whatever_the_accessions(engine: Engine) -> None:
    engine.destination.by_accession = False
    engine.assembler = engine.make_assembler()
    engine.receive(STUDY, accession="A1")
    engine.receive(STUDY, accession="B2")
    engine.settle()
    seen: list[int] = []

    def look(work: Work) -> Outcome:
        seen.append(len(work.inventory().instances))
        return deliver_all(work)

    engine.destination.script = look
    assert engine.work()
    assert seen == [2]
    assert (engine.job().part, engine.job().state) == ("", State.DONE)
    assert not engine.work()


def test_an_idle_worker_can_be_woken(engine: Engine) -> None:
    engine.policy = replace(engine.policy, idle_s=3600.0)
    engine.lane = engine.make_lane()
    engine.lane.start()
    engine.receive(STUDY)
    engine.settle()

    def done() -> bool:
        engine.lane.wake()
        return engine.states() == [State.DONE]

    wait_for(done, 20, "the study is delivered")


def test_every_idle_worker_gets_its_job_though_only_one_looks(engine: Engine) -> None:
    """No wake(): the worker that watches finds the first job and passes the watch on before it starts."""
    together = threading.Barrier(3)

    def meet(work: Work) -> Outcome:
        together.wait(20)
        return deliver_all(work)

    engine.destination.script = meet
    engine.policy = replace(engine.policy, workers=3, idle_s=0.01)
    engine.lane = engine.make_lane()
    engine.lane.start()
    for number in range(3):
        engine.receive(f"{STUDY}.{number}", accession=f"A{number}")
    engine.settle()
    wait_for(lambda: engine.states() == [State.DONE] * 3, 20, "all three are delivered")


def test_a_worker_outlives_its_database(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    engine.receive(STUDY)
    engine.settle()
    with engine.store.transaction() as tx:
        tx.execute("ALTER TABLE lane RENAME TO lane_away")
    engine.lane.start()
    wait_for(lambda: any("could not go on" in one.message for one in caplog.records), 20, "the worker says so")
    with engine.store.transaction() as tx:
        tx.execute("ALTER TABLE lane_away RENAME TO lane")

    def done() -> bool:
        engine.lane.wake()
        return engine.states() == [State.DONE]

    wait_for(done, 20, "the study is delivered")


def test_what_vanishes_or_arrives_while_a_backlog_is_indexed(engine: Engine) -> None:
    """The indexer works off one look into new/ for a while; what it saw may move, what it did not see may be older."""
    for _ in range(2 * BATCH_ROWS + 5):
        engine.receive(STUDY)
    first = engine.indexer.run_once()
    waiting = engine.spool.scan_new()
    assert (first.indexed, first.more, first.watermark_at) == (BATCH_ROWS, True, waiting[0].arrived_at)
    engine.spool.to_cur(waiting[:3])  # somebody else moved them: their bytes are found all the same
    engine.receive(STUDY)
    engine.clock.ms += 2_000  # time to look again
    while engine.indexer.run_once().more:
        pass
    with engine.store.reading() as tx:
        assert tx.value("SELECT count(*) FROM instance") == 2 * BATCH_ROWS + 6
    assert engine.spool.scan_new() == []
