"""Taking back: two people, then blocked for good, on both engines."""

from __future__ import annotations

import pytest

from internal import jobs, withdrawals
from internal.errors import NotAllowed, NotFound
from internal.ports import Work
from internal.states import Event, Finish, Outcome, State
from tests.contract.engine.conftest import Engine, deliver_all

STUDY = "1.2.826.0.1.7"


def delivered(engine: Engine) -> None:
    def deliver(work: Work) -> Outcome:
        if work.job.kind == withdrawals.KIND:
            assert work.facts["imaging_study_id"] == "is-1"
            return Finish("taken back")
        work.record_facts(imaging_study_id="is-1", patient_id="P0", service_request_id="sr")
        return deliver_all(work)

    engine.destination.script = deliver
    engine.receive(STUDY)
    engine.settle()
    assert engine.work()


def ask(engine: Engine) -> str:
    with engine.store.transaction() as tx:
        return withdrawals.request(tx, 1, reason="wrong patient", who="rina", now=engine.clock.ms)


def confirm(engine: Engine, code: str, who: str = "budi") -> int:
    with engine.store.transaction() as tx:
        return withdrawals.confirm(tx, STUDY, "A1", code, who=who, now=engine.clock.ms)


def test_asked_confirmed_told_and_blocked(engine: Engine) -> None:
    delivered(engine)
    job_id = confirm(engine, ask(engine))
    assert (engine.job().state, engine.job().reason_code) == (State.HELD, "withdrawn")
    assert engine.work()
    assert engine.job(job_id).state is State.DONE
    with engine.store.transaction() as tx:
        for event in (Event.RETRY, Event.REOPEN):
            acted = jobs.act(tx, [1], event, who="x", now=engine.clock.ms)
            assert not acted.moved and "withdrawn" in acted.refused[0][1]
        jobs.act(tx, [1], Event.CANCEL, who="x", now=engine.clock.ms)
        assert not jobs.act(tx, [1], Event.RETRY, who="x", now=engine.clock.ms).moved
        assert len(withdrawals.receipts_of(tx, jobs.job(tx, 1))) == 1
        decision = withdrawals.find_confirmed(tx, STUDY, "A1")
    assert decision is not None and (decision.who, decision.body["confirmed_by"]) == ("rina", "budi")


def test_late_images_stay_here_whatever_their_accession(engine: Engine) -> None:
    delivered(engine)
    confirm(engine, ask(engine))
    engine.work()
    engine.receive(STUDY)
    engine.receive(STUDY, accession="A2")
    engine.settle()
    assert not engine.work()
    with engine.store.reading() as tx:
        rows = [row for row in jobs.jobs_of(tx, STUDY) if row.kind == "deliver"]
    assert [(row.state, row.reason_code) for row in rows] == [(State.HELD, "withdrawn")] * 2


def test_the_second_person_is_another_one_with_the_right_code_in_time(engine: Engine) -> None:
    delivered(engine)
    with pytest.raises(NotFound):
        confirm(engine, "00000000")
    code = ask(engine)
    with pytest.raises(NotAllowed, match="another"):
        confirm(engine, code, "Rina")
    with pytest.raises(NotAllowed, match="wrong"):
        confirm(engine, "00000000")
    engine.clock.ms += 86_400_001
    with pytest.raises(NotAllowed, match="older"):
        confirm(engine, code)
    assert engine.job().state is State.DONE
    engine.clock.ms += 1
    confirm(engine, ask(engine))
    with pytest.raises(NotFound):
        confirm(engine, code)


def test_nothing_registered_is_nothing_to_take_back(engine: Engine) -> None:
    engine.receive(STUDY)
    engine.settle()
    with pytest.raises(NotAllowed, match="cancel"):
        ask(engine)
