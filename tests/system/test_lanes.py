"""A person's word on lanes and on what was delivered: pause, resume, urgent, verify, receipts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.system.images import make_study
from tests.system.rig import Rig, check_oracle, send_until_acknowledged, wait_for


@pytest.mark.timeout(120)
def test_pause_resume_receipts_and_verify(rig: Rig, tmp_path: Path) -> None:
    rig.start_sandbox()
    rig.start_router()
    study = make_study(tmp_path / "s", "LANE1", 3)
    rig.order(study)
    assert "paused: maintenance" in rig.run("lane", "satusehat", "pause", "--reason", "maintenance").stdout
    send_until_acknowledged(rig.dicom_port, study.images, deadline_s=20, acknowledged=lambda _image: None)
    rig.wait_state(study, "queued")
    assert "maintenance" in rig.run("queue").stderr
    assert rig.state()["instances"] == []
    assert rig.run("lane", "satusehat", "resume").returncode == 0
    rig.wait_state(study, "done")
    check_oracle(rig, [study], study.images)
    (story,) = json.loads(rig.run("show", "LANE1", "--json").stdout)
    receipts = story["jobs"][0]["receipts"]
    assert {one["sop_uid"]: one["dataset_sha256"] for one in receipts} == \
        {image.sop_uid: image.dataset_sha256 for image in study.images}
    assert all(one["status"] == 200 and one["at"] and one["state"] == "stored" for one in receipts)
    checked = rig.run("verify", "LANE1")
    assert checked.returncode == 0 and "SATUSEHAT has 3 of 3 images" in checked.stdout
    _lose_one(rig, study.images[1].sop_uid)
    checked = rig.run("verify", "--since", "2020-01-01", "--json")
    assert checked.returncode == 1
    assert json.loads(checked.stdout)[0]["missing"] == [study.images[1].sop_uid]
    rig.clear_faults()
    wait_for(lambda: _received(rig, study.images[1].sop_uid) == 2, 30, "sent again", every_s=0.2)
    rig.wait_state(study, "done")
    assert rig.run("verify", "LANE1").returncode == 0


def _lose_one(rig: Rig, sop_uid: str) -> None:
    """Let the sandbox deny that it has this instance."""
    (held,) = [one for one in rig.state()["instances"] if one["sop_uid"] == sop_uid]
    path = f"/dicom/v1/dicomWeb/studies/{held['study_uid']}/series/{held['series_uid']}/instances/{sop_uid}"
    rig.faults({"method": "HEAD", "path": path, "status": 404, "body": ""})


def _received(rig: Rig, sop_uid: str) -> int:
    return int(next(one["times_received"] for one in rig.state()["instances"] if one["sop_uid"] == sop_uid))
