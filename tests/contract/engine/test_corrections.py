"""Corrections of what is sent, the alias table, orders that wake, and the doctor, on both engines."""

from __future__ import annotations

import pytest

from internal import corrections, decisions, index, jobs
from internal.accession import Rule
from internal.decisions import Kind, KnownOrder
from internal.doctor import Doctor
from internal.errors import NotAllowed, NotFound
from internal.identity import Person
from internal.ports import Work
from internal.states import Finish, NotYet, Outcome, State
from internal.store import Store
from tests.contract.engine.conftest import Engine, deliver_all

STUDY = "1.2.826.0.1.6"


def waiting(engine: Engine, accession: str = "00123") -> None:
    def look(work: Work) -> Outcome:
        sent = work.job.accession or work.job.part
        return deliver_all(work) if sent == "123" else NotYet("no-order", "none yet")

    engine.destination.script = look
    engine.receive(STUDY, accession=accession)
    engine.settle()
    engine.work()
    assert engine.states() == [State.WAITING]


def correct(engine: Engine, new: str = "123") -> State:
    with engine.store.transaction() as tx:
        return corrections.correct(tx, 1, new, reason="typed wrong", who="rina", now=engine.clock.ms)


def test_a_correction_is_sent_and_the_received_number_stays(engine: Engine) -> None:
    waiting(engine)
    assert correct(engine) is State.QUEUED
    engine.work()
    job = engine.job()
    assert (job.state, job.part, job.accession) == (State.DONE, "00123", "123")
    with engine.store.reading() as tx:
        kept = decisions.find_decision(tx, Kind.ACCESSION, STUDY, "00123")
        assert kept is not None and dict(kept.body) == {"before": "00123", "after": "123"}
        assert index.inventory(tx, STUDY).instances[0].header.accession_number == "00123"
        assert jobs.find_jobs(tx, "123") == jobs.find_jobs(tx, "00123") == [1]


def test_the_answers_about_the_old_order_are_forgotten(engine: Engine) -> None:
    waiting(engine)

    def look(work: Work) -> Outcome:
        work.record_facts(service_request_id="old", patient_id="P-old", other=1)
        return NotYet("no-order", "x")

    engine.destination.script = look
    engine.clock.ms += 3_600_000
    engine.work()
    correct(engine)
    assert dict(engine.job().facts) == {"other": 1}


def test_what_was_sent_leads_to_withdraw(engine: Engine) -> None:
    waiting(engine)
    correct(engine)
    engine.work()
    with pytest.raises(NotAllowed, match="withdraw"):
        correct(engine, "999")


def test_no_correction_while_a_worker_is_busy_or_to_the_same(engine: Engine) -> None:
    waiting(engine)
    with pytest.raises(NotAllowed, match="already"):
        correct(engine, "00123")
    engine.clock.ms += 3_600_000
    with engine.store.transaction() as tx:
        assert jobs.claim(tx, destination="scripted", environment="env-1", node=engine.spool.node,
                          now=engine.clock.ms, lease_ms=1000)
    with pytest.raises(NotAllowed, match="busy"):
        correct(engine)


def test_a_late_image_goes_out_under_the_corrected_number_too(engine: Engine) -> None:
    waiting(engine)
    correct(engine)
    engine.work()
    engine.receive(STUDY, accession="00123")
    engine.settle()
    engine.work()
    assert engine.states() == [State.DONE] and engine.job().accession == "123"


def test_aliases_have_revisions_and_authors(store: Store) -> None:
    with store.transaction() as tx:
        corrections.set_alias(tx, "X1", "RAD1", author="rina", now=1)
        corrections.set_alias(tx, "X1", "RAD2", author="budi", now=2)
        corrections.set_alias(tx, "X2", "RAD9", author="budi", now=2)
        assert corrections.aliases(tx) == {"X1": "RAD2", "X2": "RAD9"}
        corrections.set_alias(tx, "X2", None, author="budi", now=3)
        assert corrections.aliases(tx) == {"X1": "RAD2"}
        with pytest.raises(NotFound):
            corrections.set_alias(tx, "X2", None, author="budi", now=4)
        assert tx.value("SELECT COUNT(*) FROM catalogue") == 4


def test_an_order_that_comes_to_us_wakes_what_waits_for_it(engine: Engine) -> None:
    waiting(engine)
    with engine.store.transaction() as tx:
        assert corrections.order_came(tx, KnownOrder("api", "o1", "OTHER", Person()), engine.clock.ms) == []
        assert corrections.order_came(tx, KnownOrder("api", "o2", "00123", Person()), engine.clock.ms) == [1]
    assert engine.states() == [State.QUEUED]
    engine.destination.script = lambda _work: Finish()


def come(engine: Engine, accession: str, *, urgent: bool = False) -> list[int]:
    with engine.store.transaction() as tx:
        order = KnownOrder("api", f"{accession}{urgent}", accession, Person(), urgent=urgent)
        return corrections.order_came(tx, order, engine.clock.ms)


def test_a_corrected_study_is_woken_by_the_order_it_is_sent_under(engine: Engine) -> None:
    waiting(engine)
    engine.destination.script = lambda _work: NotYet("no-order", "none yet")
    correct(engine)
    engine.work()
    assert engine.states() == [State.WAITING]
    assert come(engine, "00123") == []
    assert come(engine, " 123\0") == [1]


@pytest.mark.parametrize("before", [True, False])
def test_an_urgent_order_goes_first_whether_it_comes_before_its_images_or_after(engine: Engine, before: bool) -> None:
    if before:
        come(engine, "URGENT", urgent=True)
    engine.receive("2.25.1", accession="URGENT")
    engine.index()
    engine.clock.ms += 5_000
    engine.receive("2.25.2", accession="LATER")
    engine.settle()
    if not before:
        assert come(engine, "URGENT", urgent=True) == []
    engine.work()
    assert engine.job(engine.destination.seen[0][0]).part == "URGENT"


def test_a_routine_order_changes_no_turn(engine: Engine) -> None:
    come(engine, "ROUTINE")
    engine.receive("2.25.1", accession="ROUTINE")
    engine.settle()
    with engine.store.reading() as tx:
        assert tx.value("SELECT priority FROM job") == jobs.NORMAL


def test_a_study_called_urgent_before_it_has_a_job_gets_an_urgent_one(engine: Engine) -> None:
    engine.receive("2.25.1")
    engine.index()
    with engine.store.transaction() as tx:
        index.mark_urgent(tx, "2.25.1")
    engine.settle()
    with engine.store.reading() as tx:
        assert tx.value("SELECT priority FROM job") == jobs.URGENT


def doctor(engine: Engine, *rules: Rule) -> Doctor:
    return Doctor(engine.store, engine.clock, frozenset(rules), None, "scripted")


def known(engine: Engine, accession: str, mrn: str = "P1") -> None:
    import time

    day = time.strftime("%Y%m%d", time.gmtime(engine.clock.ms / 1000 - 3600))
    with engine.store.transaction() as tx:
        decisions.add_order(tx, KnownOrder("api", accession + mrn, accession, Person(mrn=mrn), "CT", day), 1)


def test_a_saved_rule_corrects_what_is_proven_and_leaves_the_rest(engine: Engine) -> None:
    waiting(engine)
    known(engine, "123")
    assert doctor(engine).run_once() == 0
    assert doctor(engine, Rule.CASE).run_once() == 0
    assert doctor(engine, Rule.ZEROS).run_once() == 1
    engine.work()
    assert engine.states() == [State.DONE]
    with engine.store.reading() as tx:
        kept = decisions.find_decision(tx, Kind.ACCESSION, STUDY, "00123")
    assert kept is not None and kept.who == "rule:zeros"


@pytest.mark.parametrize("mrn", ["OTHER", ""])
def test_a_saved_rule_does_nothing_without_a_second_identifier(engine: Engine, mrn: str) -> None:
    waiting(engine)
    known(engine, "123", mrn)
    assert doctor(engine, *Rule).run_once() == 0
    assert engine.states() == [State.WAITING]


def test_the_doctor_walks_round(engine: Engine) -> None:
    waiting(engine)
    made = doctor(engine, Rule.ZEROS)
    assert made.run_once() == made.run_once() == 0
    known(engine, "123")
    assert made.run_once() == 1
