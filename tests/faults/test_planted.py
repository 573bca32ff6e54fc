"""The suite can fail: with a planted bug the very rows that others pass go red."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import platform
from tests.faults.conftest import Keep
from tests.faults.oracle import Told, find_wrongs
from tests.faults.stand import Fault, Stand, Verdict, run_together, wait_done
from tests.system.rig import Rig
from tests.system.test_power_cut import Power, need

#: Rows whose truth lies in the reply to a push.
REPLIES = [fault for fault in platform.FAULTS if fault.id in {"D11", "D12", "D14a", "D24b", "D24c", "D34"}]


@pytest.mark.long(seconds=25)
@pytest.mark.timeout(120)
def test_counting_any_reply_as_success_is_found(stand: Stand) -> None:
    stand.start(environment={"ROUTER_FAULT": "lie.reply:on"})
    verdicts = run_together(stand, REPLIES, wait_s=8)
    red = {one.id for one in verdicts if not one.survived}
    assert red == {fault.id for fault in REPLIES}, verdicts
    lies = [one for one in verdicts if "called delivered without being there" in one.result]
    assert lies, verdicts


@pytest.fixture
def power(tmp_path: Path) -> Iterator[Power]:
    fuse = subprocess.run([sys.executable, "-c", "import fuse"], check=False, capture_output=True)
    need(Path("/dev/fuse").exists() and fuse.returncode == 0, "FUSE (libfuse2, /dev/fuse)")
    made = Power(tmp_path / "mount")
    yield made
    made.close()


def cut_and_go_on(tmp_path: Path, power: Power, environment: dict[str, str]) -> Verdict:
    """Send, cut the power the moment the last image is answered, start again on what is left, deliver, judge."""
    first = Rig(tmp_path / "first")
    first.folder.mkdir()
    # The file system of the test says nothing about free space.
    first.write_config(data_dir=str(power.mount / "data"), extra="[spool]\nmin_free = 0")
    again = Stand(Rig(tmp_path / "again"))
    again.rig.folder.mkdir()
    try:
        first.start_router("--role", "receive", environment=environment, until=first.accepts_images)
        study = again.make(Fault("B15", "", images=6))
        again.rig.dicom_port, port = first.dicom_port, again.rig.dicom_port
        again.send_all(study)
        power.cut(tmp_path / "left")
        first.kill_router()
        again.rig.dicom_port = port
        again.data = tmp_path / "left" / "data"
        again.rig.write_config(data_dir=str(again.data))
        again.rig.start_sandbox()
        again.order(study.accession_number)
        again.rig.start_router()
        try:
            wait_done(again, study, timeout_s=15)
        except AssertionError:
            pass  # nothing of it was left: the oracle says so
        wrongs = find_wrongs(again.rig.state(), Told(list(study.images), again.sent))
        return Verdict("B15", "power cut right after the last answer", "; ".join(wrongs[:2]) or "survived")
    finally:
        again.close()
        again.rig.close()
        first.close()


@pytest.mark.fuse
@pytest.mark.long(seconds=12)
def test_a_power_cut_after_the_answer(tmp_path: Path, power: Power, keep: Keep) -> None:
    keep([cut_and_go_on(tmp_path, power, {})])


@pytest.mark.fuse
@pytest.mark.long(seconds=20)
def test_acknowledging_before_fsync_is_found(tmp_path: Path, power: Power) -> None:
    verdict = cut_and_go_on(tmp_path, power, {"ROUTER_FAULT": "lie.ack:on"})
    assert "acknowledged and lost" in verdict.result, verdict
