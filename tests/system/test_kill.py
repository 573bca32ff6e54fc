"""kill -9 at random moments, of every role and of the supervisor, under load: nothing acknowledged may be lost."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.system.images import Image, Study, make_study
from tests.system.rig import Rig, check_oracle, send_until_acknowledged, wait_for

SEED = int(os.environ.get("KILL_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)


def _load(rig: Rig, studies: list[Study], acknowledged: list[Image], done: threading.Event, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for study in studies:
        send_until_acknowledged(
            rig.dicom_port, study.images, deadline_s=deadline - time.monotonic(), acknowledged=acknowledged.append
        )
    done.set()


def _kill_loop(rig: Rig, tmp_path: Path, kills: int, images: int) -> dict[str, object]:
    print(f"KILL_SEED={SEED}")
    dice = random.Random(SEED)
    studies = [make_study(tmp_path / f"s{n}", f"KILL{n:03d}", images, side=96) for n in range(kills + 2)]
    rig.start_sandbox("--allow-duplicates", "--index-delay", "1")
    rig.start_router()
    for study in studies:
        rig.order(study, indexed=True)
    acknowledged: list[Image] = []
    done = threading.Event()
    sender = threading.Thread(
        target=_load, args=(rig, studies, acknowledged, done, 30.0 + 15.0 * kills), daemon=True
    )
    sender.start()
    killed: dict[str, int] = {}
    for _ in range(kills):
        time.sleep(dice.uniform(0.2, 2.0))
        name = dice.choice(sorted(rig.roles()))
        killed[name] = killed.get(name, 0) + 1
        if name == "main":
            rig.kill_router()
            rig.start_router()
            continue
        try:
            rig.roles()[name].kill()
        except (KeyError, psutil.NoSuchProcess):
            continue
        wait_for(rig.is_ready, 60, f"router ready again after {name} was killed")
    wait_for(done.is_set, 60 + 15 * kills, "everything acknowledged")
    assert len(acknowledged) == sum(len(study.images) for study in studies)
    for study in studies:
        rig.wait_state(study, "done", timeout_s=120)
    check_oracle(rig, studies, acknowledged)
    print(f"0 of {len(acknowledged)} acknowledged images lost in {kills} kills: {killed}")
    return {"acknowledged": len(acknowledged), "lost": 0, "kills": kills, "killed": killed, "seed": SEED}


@pytest.mark.timeout(240)
def test_kill_loop_short(rig: Rig, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    rig.write_config(satusehat="index_lag = 3s")
    for name, value in _kill_loop(rig, tmp_path, kills=6, images=12).items():
        record_property(name, value)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_kill_loop_long(rig: Rig, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    rig.write_config(satusehat="index_lag = 3s")
    for name, value in _kill_loop(rig, tmp_path, kills=40, images=30).items():
        record_property(name, value)


@pytest.mark.long(seconds=35)
@pytest.mark.timeout(180)
def test_kill_between_create_and_reply_never_registers_twice(rig: Rig, tmp_path: Path) -> None:
    """The sandbox stores the ImagingStudy, drops the reply, and its index lags: the router dies right then."""
    rig.write_config(satusehat="index_lag = 25s")
    rig.start_sandbox("--allow-duplicates", "--index-delay", "20")
    rig.start_router()
    study = make_study(tmp_path / "s", "LOST1", 2)
    rig.order(study, indexed=True)
    rig.faults({"method": "POST", "path": "/fhir-r4/v1/ImagingStudy", "count": 1, "store_then_reset": True})
    send_until_acknowledged(rig.dicom_port, study.images, deadline_s=20, acknowledged=lambda _image: None)
    wait_for(lambda: rig.state()["resources"].get("ImagingStudy"), 40, "the platform has stored it", every_s=0.02)
    rig.kill_router()
    rig.start_router()
    rig.wait_state(study, "done", timeout_s=90)
    check_oracle(rig, [study], study.images)
