"""The platform misbehaves: down, slow, expiring tokens, lagging index, lost replies. The study arrives, once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.images import Study, make_study
from tests.system.rig import Rig, check_oracle, send_until_acknowledged, wait_for

FAULTS: dict[str, list[dict[str, Any]]] = {
    "fhir 503 text": [{"method": "GET", "path": "/fhir-r4/v1/ServiceRequest", "count": 2, "status": 503,
                       "body": "no healthy upstream"}],
    "create reply lost": [{"method": "POST", "path": "/fhir-r4/v1/ImagingStudy", "count": 1,
                           "store_then_reset": True}],
    "push reply lost": [{"method": "POST", "path": "/dicom/v1/dicomWeb/studies", "nth": 2, "store_then_reset": True}],
    "push reset": [{"method": "POST", "path": "/dicom/v1/dicomWeb/studies", "nth": 1, "reset": True}],
    "push 500": [{"method": "POST", "path": "/dicom/v1/dicomWeb/studies", "count": 2, "status": 500,
                  "body": "internal"}],
    "push answered with HTML": [{"method": "POST", "path": "/dicom/v1/dicomWeb/studies", "nth": 1, "status": 200,
                                 "headers": {"Content-Type": "text/html"}, "body": "<html>ok</html>"}],
    "push answered with nothing": [{"method": "POST", "path": "/dicom/v1/dicomWeb/studies", "nth": 1, "status": 200,
                                    "body": ""}],
    "429 with Retry-After": [{"method": "POST", "path": "/dicom/v1/dicomWeb/studies", "nth": 1, "status": 429,
                              "headers": {"Retry-After": "1"}, "body": "slow down"}],
    "slow platform": [{"method": "POST", "path": "/fhir-r4/v1/ImagingStudy", "count": 1, "delay_s": 2}],
    "dripping reply": [{"method": "GET", "path": "/fhir-r4/v1/ServiceRequest", "count": 1, "drip_bytes_per_s": 4000}],
    "401 in mid-study": [{"method": "POST", "path": "/dicom/v1/dicomWeb/studies", "nth": 2, "status": 401,
                          "body": "{}"}],
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, list[Study]]]:
    """One router for these faults, and every study that it was sent."""
    rig = Rig(tmp_path_factory.mktemp("faults"))
    rig.write_config(satusehat="index_lag = 2s")
    try:
        rig.start_sandbox("--allow-duplicates")
        rig.start_router()
        yield rig, []
    finally:
        rig.close()


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_study_survives(running: tuple[Rig, list[Study]], tmp_path: Path, name: str) -> None:
    rig, studies = running
    study = make_study(tmp_path / "s", f"FAULT{sorted(FAULTS).index(name)}", 3)
    studies.append(study)
    rig.order(study)
    rig.faults(*FAULTS[name])
    send_until_acknowledged(rig.dicom_port, study.images, deadline_s=20, acknowledged=lambda _image: None)
    rig.wait_state(study, "done", timeout_s=60)
    assert all(fault["hits"] for fault in rig.faults_met()), "the fault was not met"
    rig.clear_faults()
    check_oracle(rig, studies, [image for one in studies for image in one.images])


def test_platform_down_then_up(rig: Rig, tmp_path: Path) -> None:
    rig.start_router()
    study = make_study(tmp_path / "s", "DOWN1", 3)
    send_until_acknowledged(rig.dicom_port, study.images, deadline_s=20, acknowledged=lambda _image: None)
    rig.wait_state(study, "deferred")
    rig.start_sandbox()
    rig.order(study)
    rig.wait_state(study, "done", timeout_s=60)
    check_oracle(rig, [study], study.images)


def test_tokens_expire_in_mid_study(rig: Rig, tmp_path: Path) -> None:
    rig.start_sandbox("--token-ttl", "1", "--latency-ms", "150")
    rig.start_router()
    study = make_study(tmp_path / "s", "TOKEN1", 12)
    rig.order(study)
    send_until_acknowledged(rig.dicom_port, study.images, deadline_s=20, acknowledged=lambda _image: None)
    rig.wait_state(study, "done", timeout_s=60)
    state = check_oracle(rig, [study], study.images)
    assert state["requests"]["POST /oauth2/v1/accesstoken"] > 1


def test_move_to_another_environment_sends_nothing_by_itself(rig: Rig, tmp_path: Path) -> None:
    rig.start_sandbox()
    rig.start_router()
    delivered, waiting = make_study(tmp_path / "a", "ENV1", 2), make_study(tmp_path / "b", "ENV2", 1)
    rig.order(delivered)
    send_until_acknowledged(
        rig.dicom_port, [*delivered.images, *waiting.images], deadline_s=20, acknowledged=lambda _image: None
    )
    rig.wait_state(delivered, "done")
    rig.wait_state(waiting, "waiting")
    assert rig.stop_router() == 0
    text = rig.config.read_text()
    rig.config.write_text(text.replace(rig.sandbox_url, rig.sandbox_url.replace("127.0.0.1", "localhost")))
    rig.start_router()
    rig.wait_state(waiting, "held", code="environment-changed")
    assert (rig.job_of(delivered) or {})["state"] == "done"
    assert rig.run("retry", "ENV2").returncode == 0
    rig.order(waiting)
    wait_for(lambda: (rig.job_of(waiting) or {}).get("state") == "done", 40, "sent on a person's word", every_s=0.3)
