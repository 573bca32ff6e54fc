"""A person's decisions with the real router and the real commands: correct, be told, take back, give up."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.destinations.hospital import Hospital
from tests.system.images import make_study
from tests.system.rig import Rig, send_until_acknowledged, wait_for


@pytest.fixture
def hospital() -> Iterator[Hospital]:
    made = Hospital()
    yield made
    made.close()


def run_as_told(rig: Rig, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command, again while it says that a worker has the study right now."""
    def run() -> subprocess.CompletedProcess[str] | None:
        done = rig.run(*arguments)
        return None if "try again in a moment" in done.stderr else done

    found: subprocess.CompletedProcess[str] = wait_for(run, 20, "the worker let go of the study")
    return found


def test_corrected_told_taken_back_and_given_up(rig: Rig, hospital: Hospital, tmp_path: Path) -> None:
    rig.write_config(satusehat=(f"webhook_url = {hospital.url}/hook\nwebhook_user = simrs\n"
                                "webhook_password = kunci-simrs"))
    rig.start_sandbox()
    rig.start_router()
    study = make_study(tmp_path / "s", "00123", 2)
    phantom = make_study(tmp_path / "p", "PHANTOM", 1)
    rig.order(make_study(tmp_path / "order", "123", 0))
    for one in (study, phantom):
        send_until_acknowledged(rig.dicom_port, one.images, deadline_s=20, acknowledged=lambda _image: None)
    rig.wait_state(study, "waiting", code="no-order")

    corrected = run_as_told(rig, "accession", "00123", "123", "--reason", "typed wrong", "--by", "rina")
    assert corrected.returncode == 0, corrected.stderr
    rig.wait_state(study, "done")
    wait_for(lambda: hospital.told, 20, "the hospital was told")
    told = json.loads(hospital.told[0][1])
    assert (told["accessionNumber"], told["status"]) == ("123", "SUCCESS")
    (resource,) = rig.state()["resources"]["ImagingStudy"]
    assert told["imagingStudyId"] == resource["id"]
    assert "123" in [one["value"] for one in resource["identifier"]]

    asked = rig.run("withdraw", "00123", "--reason", "wrong order", "--by", "rina")
    code = re.search(r"--confirm (\w+)", asked.stdout)
    assert code, asked.stderr
    assert rig.run("withdraw", "00123", "--confirm", code[1], "--by", "rina").returncode == 1
    assert rig.run("withdraw", "00123", "--confirm", code[1], "--by", "budi").returncode == 0
    wait_for(lambda: rig.state()["resources"]["ImagingStudy"][0]["status"] == "entered-in-error", 20, "taken back")
    assert rig.run("retry", study.study_uid).returncode == 1
    checked = rig.run("verify", "00123")
    assert checked.returncode == 0 and "taken back: entered in error" in checked.stdout, checked.stdout
    assert "missing" not in checked.stdout and "1 in order, 0 not" in checked.stdout
    letter = rig.run("withdraw", "00123", "--letter").stdout
    assert all(image.sop_uid in letter for image in study.images) and "Contoh" not in letter

    assert rig.run("discard", "PHANTOM", "--reason", "phantom").returncode == 1
    assert rig.run("cancel", "PHANTOM").returncode == 0
    assert rig.run("discard", "PHANTOM", "--reason", "phantom").returncode == 0
    assert "cancelled" in rig.run("storage", "--set", "router.language=en").stdout
    assert rig.run("discard", "PHANTOM", "--undo").returncode == 0
    assert rig.run("alias", "add", "X1", "RAD1").returncode == 0
    assert "RAD1" in rig.run("alias", "list").stdout
    for hidden in ("Contoh", study.patient_id, "19800101", "kunci-simrs"):
        assert hidden not in rig.log()
