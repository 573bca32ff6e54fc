"""Lanes and devices changed while the router runs take effect without a restart of any role."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.system.images import make_study
from tests.system.rig import Rig, send_until_acknowledged, wait_for


@pytest.mark.timeout(120)
@pytest.mark.long(seconds=30)
def test_hours_and_devices_without_a_restart(rig: Rig, tmp_path: Path) -> None:
    rig.start_sandbox()
    rig.start_router()
    before = {name: process.pid for name, process in rig.roles().items()}
    # WIB is UTC+7: from ten hours from now to eleven.
    begin, end = (time.strftime("%H:%M", time.gmtime(time.time() + hours * 3600)) for hours in (17, 18))
    assert rig.run("lane", "satusehat", "set", "--send-hours", f"{begin}-{end}").returncode == 0
    wait_for(lambda: "Lane settings changed" in rig.log(), 30, "hours taken up", every_s=0.2)
    study = make_study(tmp_path / "s", "HOURS1", 2)
    rig.order(study)
    send_until_acknowledged(rig.dicom_port, study.images, deadline_s=20, acknowledged=lambda _image: None)
    rig.wait_state(study, "queued")
    assert rig.state()["instances"] == []
    assert rig.run("lane", "satusehat", "set", "--send-hours", "").returncode == 0
    rig.wait_state(study, "done")
    caller = rig.storescu("-aet", "STRANGER", str(study.images[0].path))
    assert caller.returncode == 0
    assert rig.run("devices", "refuse", "STRANGER").returncode == 0
    wait_for(lambda: rig.storescu("-aet", "STRANGER", str(study.images[0].path)).returncode != 0, 20, "refused")
    assert rig.run("settings", "rollback", "device", "STRANGER@", "--revision", "1").returncode == 0
    assert rig.run("devices", "admit", "STRANGER").returncode == 0
    wait_for(lambda: rig.storescu("-aet", "STRANGER", str(study.images[0].path)).returncode == 0, 20, "admitted")
    assert {name: process.pid for name, process in rig.roles().items()} == before
