"""Lanes and devices changed while the router runs take effect without a restart of any role."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.contract.dimse.wire import CT, EXPLICIT, VERIFICATION, Wire, associate_rq, context, data_set
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


PROPOSED = context(1, CT, EXPLICIT) + context(3, VERIFICATION, EXPLICIT)
TOO_MANY = (3, b"\0\2\3\2")


def refused_of_five(rig: Rig) -> int:
    """How many of five that call at once are too many: which ones is up to who is heard first.

    More than expected while associations before are still counted.
    """
    with ExitStack() as opened:
        wires = [opened.enter_context(Wire(rig.dicom_port)) for _ in range(5)]
        for wire in wires:
            wire.send(associate_rq(PROPOSED))
        answers = [wire.read_pdu() for wire in wires]
    assert all(answer == TOO_MANY or answer[0] == 2 for answer in answers)
    return answers.count(TOO_MANY)


def stored(rig: Rig, uid: str) -> int:
    """The status, -1 if the association before is still being counted."""
    with Wire(rig.dicom_port) as wire:
        wire.send(associate_rq(PROPOSED))
        if wire.read_pdu()[0] != 2:
            return -1
        status = wire.store(1, uid, data_set(uid, pixels=1_500_000)).status
        wire.release()
    return status


def test_sighup_takes_the_limits_of_router_conf_and_never_wrong_ones(rig: Rig) -> None:
    """In every process, and for what is asked from then on: an association that stands keeps what it was given."""
    rig.write_config(extra="[dicom]\nchildren = 2")
    rig.start_router()
    before = {name: process.pid for name, process in rig.roles().items()}
    main = rig.roles()["main"]
    with Wire(rig.dicom_port) as standing:
        standing.associate()
        assert stored(rig, "1.2.826.66.1") == 0
        rig.write_config(extra="[dicom]\nchildren = 2\nmax_associations_per_address = 5\nmax_object = 1MB\n"
                               "max_pdu = 16KB\nunknown_callers = refuse")
        main.send_signal(signal.SIGHUP)
        wait_for(lambda: "in force only after a restart: unknown_callers" in rig.log(), 20, "the limits are read again")
        wait_for(lambda: refused_of_five(rig) == 1, 20, "five in all, and one stands")
        for number in range(3):  # one child after the other
            wait_for(lambda number=number: stored(rig, f"1.2.826.66.2.{number}") == 0xA700, 20, "max_object")
        assert standing.store(1, "1.2.826.66.3", data_set("1.2.826.66.3"), fragment=60_000).status == 0  # its max_pdu

        rig.write_config(extra="[dicom]\nchildren = 2\nmax_associations_per_address = none")
        main.send_signal(signal.SIGHUP)
        wait_for(lambda: "the limits before stay in force" in rig.log(), 20, "the mistake is logged")
        wait_for(lambda: refused_of_five(rig) == 1, 20, "still five")
        assert standing.echo() == 0
        standing.release()
    assert {name: process.pid for name, process in rig.roles().items()} == before
    assert rig.stop_router() == 0
