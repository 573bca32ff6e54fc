"""What becomes of a delivery is told to the hospital's system: never lost, never in the way."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from interface.webhook import Webhook, WebhookOptions, is_inside
from internal import jobs, notices
from internal.ports import Work
from internal.states import Event, Finish, Later, NotYet, Outcome, Refuse, State
from internal.worker import Lane
from tests.contract.destinations.hospital import Hospital
from tests.contract.engine.conftest import Engine, deliver_all

STUDY = "1.2.826.0.1.2"
SECRETS = {"user": "simrs", "password": "kunci-rahasia"}


@pytest.fixture
def hospital() -> Iterator[Hospital]:
    made = Hospital()
    yield made
    made.close()


class Outbox:
    """The webhook's lane over an engine, driven by hand."""

    def __init__(self, engine: Engine, hospital: Hospital, form: str = "simple") -> None:
        self.engine, self.hospital = engine, hospital
        self.webhook = Webhook(WebhookOptions(
            url=lambda: f"{hospital.url}/hook?key=1", user=SECRETS["user"], password=lambda: SECRETS["password"],
            form=form, organization_id="100", language="en", timeout_s=5))
        self.lane = Lane(self.webhook, engine.store, engine.spool, engine.clock, engine.policy, jitter=lambda: 0.5)

    def plan(self, to: str | None = "webhook") -> int:
        with self.engine.store.reading() as tx:
            pending = notices.pending(tx)
        with self.engine.store.transaction() as tx:
            return sum(notices.plan(tx, one, of="scripted", to=to, now=self.engine.clock.ms) is not None
                       for one in pending)

    def tell(self) -> list[dict[str, Any]]:
        """Plan, work until idle, and return what was told since the last time."""
        self.plan()
        while self.lane._once():
            pass
        return [json.loads(body) for _, body in self.hospital.told]

    def job(self) -> jobs.JobRow:
        with self.engine.store.reading() as tx:
            return next(row for row in jobs.list_jobs(tx) if row.kind == "notify")


def delivered(engine: Engine) -> None:
    def deliver(work: Work) -> Outcome:
        work.record_facts(imaging_study_id="is-1", service_request_id="sr-1", patient_id="P0")
        return deliver_all(work)

    engine.destination.script = deliver
    engine.receive(STUDY)
    engine.settle()
    assert engine.work()


def test_a_delivered_study_is_told_once_with_basic_auth(engine: Engine, hospital: Hospital) -> None:
    outbox = Outbox(engine, hospital)
    delivered(engine)
    told = outbox.tell()
    assert told == [{"accessionNumber": "A1", "status": "SUCCESS", "error_code": "", "message": "",
                     "imagingStudyId": "is-1"}]
    headers = hospital.told[0][0]
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode() == "simrs:kunci-rahasia"
    assert hospital.paths == ["/hook?key=1"]
    assert outbox.job().state is State.DONE
    assert len(outbox.tell()) == 1


def test_a_held_study_is_told_with_its_reason_and_again_when_it_went_through(
    engine: Engine, hospital: Hospital,
) -> None:
    outbox = Outbox(engine, hospital)
    engine.destination.script = lambda _work: Refuse("several-orders", "two", {"secret": "name"})
    engine.receive(STUDY)
    engine.settle()
    engine.work()
    assert [(one["status"], one["error_code"]) for one in outbox.tell()] == [("FAILED", "several-orders")]
    engine.destination.script = deliver_all
    with engine.store.transaction() as tx:
        jobs.act(tx, [1], Event.RETRY, who="t", now=engine.clock.ms)
    engine.work()
    assert [one["status"] for one in outbox.tell()] == ["FAILED", "SUCCESS"]


def test_nobody_listens_means_ticked_off_not_saved_up(engine: Engine, hospital: Hospital) -> None:
    outbox = Outbox(engine, hospital)
    delivered(engine)
    assert outbox.plan(to=None) == 0
    with engine.store.reading() as tx:
        assert notices.pending(tx) == []
    assert outbox.tell() == []


@pytest.mark.parametrize("status", [302, 401, 404, 500, 503])
def test_what_was_not_taken_is_tried_again_and_deliveries_go_on(
    engine: Engine, hospital: Hospital, status: int,
) -> None:
    outbox = Outbox(engine, hospital)
    hospital.statuses = [status]
    delivered(engine)
    outbox.tell()
    job = outbox.job()
    assert (job.state, job.reason_code) == (State.DEFERRED, f"webhook-{status}")
    engine.receive("1.2.826.0.1.3")
    engine.settle()
    assert engine.work()
    engine.clock.ms += 3_700_000
    outbox.tell()
    assert outbox.job().state is State.DONE
    assert all("elsewhere" not in path for path in hospital.paths)


def test_news_during_a_notice_is_told_after_it(engine: Engine, hospital: Hospital) -> None:
    outbox = Outbox(engine, hospital)
    delivered(engine)
    outbox.plan()
    with engine.store.transaction() as tx:
        claimed = jobs.claim(tx, destination="webhook", environment="webhook", node=engine.spool.node,
                             now=engine.clock.ms, lease_ms=60_000)
    assert claimed is not None
    engine.receive(STUDY)
    engine.settle()
    engine.work()
    outbox.plan()
    with engine.store.transaction() as tx:
        jobs.settle(tx, claimed, Finish(), now=engine.clock.ms, due_at=0)
    with engine.store.transaction() as tx:
        assert notices.reopen_behind(tx, "webhook", engine.clock.ms) == 1
    assert outbox.tell()[-1]["status"] == "SUCCESS"
    assert outbox.job().state is State.DONE


@pytest.mark.parametrize(("form", "has_series"), [("imagingstudy", True), ("reply", False)])
def test_the_other_forms_are_the_imaging_study(
    engine: Engine, hospital: Hospital, form: str, has_series: bool,
) -> None:
    outbox = Outbox(engine, hospital, form)
    delivered(engine)
    (told,) = outbox.tell()
    assert (told["resourceType"], told["id"]) == ("ImagingStudy", "is-1")
    assert told["identifier"][0]["value"] == "A1"
    assert ("series" in told) is has_series
    assert "P1" not in json.dumps(told)


def test_the_other_forms_say_nothing_of_a_held_study(engine: Engine, hospital: Hospital) -> None:
    outbox = Outbox(engine, hospital, "reply")
    engine.destination.script = lambda _work: Refuse("several-orders", "two")
    engine.receive(STUDY)
    engine.settle()
    engine.work()
    assert outbox.tell() == []
    assert outbox.job().state is State.DONE


def test_waiting_too_long_is_escalated_once_and_told(engine: Engine, hospital: Hospital) -> None:
    outbox = Outbox(engine, hospital)
    engine.destination.script = lambda _work: NotYet("no-order", "none yet")
    engine.receive(STUDY)
    engine.settle()
    engine.work()
    assert outbox.tell() == []
    engine.clock.ms += 90_000_000
    engine.work()
    for found in ([1], []):
        with engine.store.transaction() as tx:
            assert notices.escalate(tx, 86_400_000, engine.clock.ms) == found
    assert [(one["status"], one["error_code"]) for one in outbox.tell()] == [("FAILED", "no-order")]
    with engine.store.reading() as tx:
        assert [e.code for e in jobs.events_of(tx, STUDY)].count("escalated") == 1


def test_http_only_inside_the_hospital() -> None:
    assert is_inside("127.0.0.1", 80) and is_inside("192.168.1.9", 80) and is_inside("localhost", 80)
    assert not is_inside("8.8.8.8", 80)
    webhook = Webhook(WebhookOptions(url=lambda: "http://8.8.8.8/hook", user="u", password=lambda: "p"))
    outcome = webhook._refuse_transport()
    assert isinstance(outcome, Later) and outcome.code == "webhook-insecure"
    assert not next(iter(webhook.probe())).ok
