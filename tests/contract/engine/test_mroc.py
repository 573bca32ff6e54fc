"""Copies for an MROC client: only by the hospital's own choice and while the platform says so, never in the way."""

from __future__ import annotations

import email.parser
import email.policy
from collections.abc import Iterator
from pathlib import Path

import pytest

from interface.destinations import build, build_mroc
from interface.mroc import Mroc, MrocOptions, is_own_choice
from internal import jobs, notices
from internal.config import load
from internal.model import ItemState
from internal.ports import Work
from internal.states import Outcome, State
from internal.worker import Lane
from tests.contract.destinations.hospital import Hospital
from tests.contract.engine.conftest import Engine, deliver_all

STUDY = "1.2.826.0.1.8"


@pytest.fixture
def hospital() -> Iterator[Hospital]:
    made = Hospital()
    yield made
    made.close()


class Sidecar:
    """The MROC lane over an engine, driven by hand."""

    def __init__(self, engine: Engine, hospital: Hospital, *, enabled: bool = True) -> None:
        self.engine, self.hospital = engine, hospital
        self.mroc = Mroc(MrocOptions(url=f"{hospital.url}/m", organization_id="100", is_enabled=lambda: enabled))
        self.lane = Lane(self.mroc, engine.store, engine.spool, engine.clock, engine.policy, jitter=lambda: 0.5)

    def run(self) -> None:
        with self.engine.store.reading() as tx:
            pending = notices.pending(tx)
        with self.engine.store.transaction() as tx:
            for one in pending:
                notices.plan(tx, one, of="scripted", to=None, now=self.engine.clock.ms)
                notices.plan_sidecar(tx, one, of="scripted", to="mroc", environment=self.mroc.environment,
                                     now=self.engine.clock.ms)
        while self.lane._once():
            pass

    def job(self) -> jobs.Job:
        with self.engine.store.reading() as tx:
            return jobs.job(tx, next(row.job_id for row in jobs.list_jobs(tx) if row.kind == "mroc"))

    def parts(self, number: int) -> list[tuple[str, str | None, bytes]]:
        headers, body = self.hospital.told[number]
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
            b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + body)
        return [(str(part.get_param("name", header="content-disposition")), part.get_filename(),
                 part.get_payload(decode=True)) for part in message.iter_parts()]  # type: ignore[attr-defined,misc]


def delivered(engine: Engine, images: int = 2) -> None:
    def deliver(work: Work) -> Outcome:
        work.record_facts(imaging_study_id="is-1", patient_id="P-platform")
        return deliver_all(work)

    engine.destination.script = deliver
    for _ in range(images):
        engine.receive(STUDY)
    engine.settle()
    assert engine.work()


def test_the_form_is_that_of_the_official_router(engine: Engine, hospital: Hospital) -> None:
    sidecar = Sidecar(engine, hospital)
    delivered(engine)
    sidecar.run()
    parts = sidecar.parts(0)
    assert hospital.paths == ["/m/files"]
    assert [(name, data) for name, _, data in parts[:3]] == [
        ("patientId", b"P-platform"), ("organizationId", b"100"), ("accessionNumber", b"A1")]
    files = parts[3:]
    assert [name for name, _, _ in files] == ["files", "files"]
    assert all(data[128:132] == b"DICM" for _, _, data in files)
    assert len({filename for _, filename, _ in files}) == 2
    assert sidecar.job().state is State.DONE
    sidecar.run()
    assert len(hospital.told) == 1


def test_a_late_image_is_the_only_one_sent_again(engine: Engine, hospital: Hospital) -> None:
    sidecar = Sidecar(engine, hospital)
    delivered(engine)
    sidecar.run()
    delivered(engine, 1)
    sidecar.run()
    assert len(sidecar.parts(1)) == 4 and sidecar.job().state is State.DONE


def test_without_the_flag_nothing_leaves(engine: Engine, hospital: Hospital) -> None:
    sidecar = Sidecar(engine, hospital, enabled=False)
    delivered(engine)
    sidecar.run()
    assert hospital.told == [] and sidecar.job().state is State.DONE
    with engine.store.reading() as tx:
        assert jobs.count_items(tx, sidecar.job()) == {ItemState.SKIPPED: 2}


def test_a_refusal_is_tried_again_and_deliveries_go_on(engine: Engine, hospital: Hospital) -> None:
    sidecar = Sidecar(engine, hospital)
    hospital.statuses = [500]
    delivered(engine)
    sidecar.run()
    assert (sidecar.job().state, sidecar.job().reason_code) == (State.DEFERRED, "mroc-500")
    delivered(engine, 1)
    engine.clock.ms += 3_700_000
    sidecar.run()
    assert sidecar.job().state is State.DONE


@pytest.mark.parametrize(("url", "own"), [
    ("", False), ("http://localhost:8000", False), ("http://localhost:8000/", False), ("http://0.0.0.0:8081", False),
    ("http://192.168.1.5:8081", True), ("http://localhost:9000", True),
])
def test_the_official_default_is_nobodys_choice(url: str, own: bool) -> None:
    assert is_own_choice(url) is own


@pytest.mark.parametrize(("line", "made"), [
    ("", False), ("mroc_client_url = http://localhost:8000", False),
    ("mroc_client_url = http://192.168.1.5:8081", True),
])
def test_a_lane_is_made_only_where_the_hospital_set_a_client_of_its_own(
    tmp_path: Path, line: str, made: bool,
) -> None:
    conf = tmp_path / "router.conf"
    conf.write_text("[satusehat]\nurl = http://127.0.0.1:9\norganization_id = 100\nclient_key = k\nsecret_key = s\n"
                    f"{line}\n[router]\ndata_dir = {tmp_path}\n")
    conf.chmod(0o600)
    settings = load(conf, {}, {}, require_platform=True)
    destinations = build(settings)
    lane = build_mroc(settings, destinations)
    assert (lane is not None) is made
    for one in [*destinations, *([lane] if lane else [])]:
        one.close()  # type: ignore[attr-defined]
