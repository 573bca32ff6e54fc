"""A disk that is nearly full: images are refused, deliveries go on, and receiving resumes by itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage

from tests.system.images import make_study
from tests.system.rig import Rig, check_oracle, send_until_acknowledged

MIB = 1024 * 1024


@pytest.fixture
def small_disk(mount: Callable[[Path, str], Path], tmp_path: Path) -> Path:
    return mount(tmp_path / "disk", "256m")


@pytest.mark.long(seconds=15)
def test_below_the_floor_deliveries_go_on(small_disk: Path, rig: Rig, tmp_path: Path) -> None:
    """The ballast leaves 32 MB of a floor of 64 MB while a study waits for the platform."""
    rig.write_config(data_dir=str(small_disk / "data"), extra="[spool]\nmin_free = 64MB\nlow_space = 0")
    rig.start_router()
    first, second = make_study(tmp_path / "a", "FLOOR1", 3), make_study(tmp_path / "b", "FLOOR2", 2)
    send_until_acknowledged(rig.dicom_port, first.images, deadline_s=20, acknowledged=lambda _image: None)
    rig.wait_state(first, "deferred")
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        state = os.statvfs(small_disk)
        os.posix_fallocate(file.fileno(), 0, state.f_bavail * state.f_frsize - 32 * MIB)
    entity = AE("MODALITY")
    entity.add_requested_context(CTImageStorage)
    association = entity.associate("127.0.0.1", rig.dicom_port, ae_title="DCMROUTER")
    assert association.send_c_store(str(second.images[0].path)).Status == 0xA700

    rig.start_sandbox()
    rig.order(first)
    rig.order(second)
    rig.wait_state(first, "done", timeout_s=60)
    assert association.send_c_store(str(second.images[0].path)).Status == 0xA700

    ballast.unlink()
    assert association.send_c_store(str(second.images[0].path)).Status == 0x0000  # on the same association
    association.release()
    send_until_acknowledged(rig.dicom_port, second.images, deadline_s=20, acknowledged=lambda _image: None)
    rig.wait_state(second, "done", timeout_s=60)
    check_oracle(rig, [first, second], [*first.images, *second.images])
