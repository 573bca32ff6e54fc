"""kill -9 at each step that matters of a delivery: nothing lost, nothing twice, whatever had just been done."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.system.images import make_study
from tests.system.rig import Rig, check_oracle, send_until_acknowledged, wait_for

#: name:nth hit -> what the other side knows when the role dies there
STEPS = {
    "job.claimed:1": "nothing",
    "delivery.before_post:1": "nothing, an intent is written",
    "delivery.after_post:1": "the ImagingStudy, whose id is not written down",
    "push.marked_sent:1": "the ImagingStudy; images are marked as sent and none has left",
    "push.mid:3": "some images, and parts of others",
    "push.after_answer:1": "images whose receipts are not written down",
    "study.before_done:1": "everything; the job is not done yet",
}


@pytest.mark.long(seconds=10)
@pytest.mark.timeout(120)
@pytest.mark.parametrize("step", STEPS)
def test_kill_at(rig: Rig, tmp_path: Path, step: str) -> None:
    rig.write_config(satusehat="index_lag = 2s\nrequest_timeout = 2s")
    rig.start_sandbox("--allow-duplicates", "--index-delay", "1")
    study = make_study(tmp_path / "s", "STEP1", 6)
    rig.order(study, indexed=True)
    name, _, nth = step.partition(":")
    rig.start_router(environment={"ROUTER_FAULT": f"{name}:kill9:{nth}"})
    deliver = rig.roles()["deliver"]
    send_until_acknowledged(rig.dicom_port, study.images, deadline_s=20, acknowledged=lambda _image: None)
    wait_for(lambda: not _alive(deliver), 30, f"the role died at {name}", every_s=0.02)
    rig.kill_router()
    rig.start_router()
    rig.wait_state(study, "done", timeout_s=60)
    state = check_oracle(rig, [study], study.images)
    assert len(state["resources"]["ImagingStudy"]) == 1
    assert len(state["instances"]) == len(study.images)


def _alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
