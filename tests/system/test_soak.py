"""A working day in small: senders, kills, faults of the platform and short-lived tokens at once; then the oracle.

SOAK_MINUTES sets how long it sends (2 in `make proof`, 20 in `make soak`, which keeps its figures in
docs/reliability.md); SOAK_SEED repeats the dice.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.system.images import Image, Study, make_study
from tests.system.rig import Rig, check_oracle, send_until_acknowledged, wait_for

MINUTES = float(os.environ.get("SOAK_MINUTES", "2"))
SEED = int(os.environ.get("SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
KILL_EVERY_S = 20.0
CANARY_EVERY_S = 2.0
MAX_RSS_BYTES = 300 * 2**20
FAULTS = [
    {"method": "POST", "path": "/dicom/v1/dicomWeb/studies", "probability": 0.02, "status": 503, "body": "busy"},
    {"method": "POST", "path": "/dicom/v1/dicomWeb/studies", "probability": 0.02, "store_then_reset": True},
    {"method": "POST", "path": "/dicom/v1/dicomWeb/studies", "probability": 0.01, "reset": True},
    {"method": "POST", "path": "/fhir-r4/v1/ImagingStudy", "probability": 0.05, "store_then_reset": True},
    {"method": "GET", "path": "/fhir-r4/v1/", "probability": 0.02, "status": 500, "body": "internal"},
]


class Soak:
    """What the threads of one soak share."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        self.rig = rig
        self.folder = folder
        self.studies: list[Study] = []
        self.acknowledged: list[Image] = []
        self.slowest_s = {"load": 0.0, "canary": 0.0}
        self.canary_studies = 0
        self.failures: list[str] = []
        self.over = threading.Event()

    def send(self, name: str, images: int, every_s: float) -> None:
        """Send study after study until it is over; every image must be acknowledged in the end."""
        number = 0
        while not self.over.wait(every_s):
            number += 1
            study = make_study(self.folder / f"{name}{number}", f"{name}{number:05d}", images)
            self.rig.order(study, indexed=True)
            began_s = time.monotonic()
            try:
                send_until_acknowledged(
                    self.rig.dicom_port, study.images, deadline_s=60, acknowledged=self.acknowledged.append
                )
            except AssertionError as error:
                self.failures.append(f"{study.accession_number}: {error}")
                return
            kind = "canary" if name == "CANARY" else "load"
            self.canary_studies += kind == "canary"
            self.slowest_s[kind] = max(self.slowest_s[kind], time.monotonic() - began_s)
            self.studies.append(study)
            shutil.rmtree(self.folder / f"{name}{number}")


def _sample(rig: Rig, peak: dict[str, int]) -> None:
    for name, process in rig.roles().items():
        try:
            peak[name] = max(peak.get(name, 0), process.memory_info().rss)
        except psutil.Error:
            continue


def _kill_and_watch(soak: Soak, peak: dict[str, int]) -> int:
    dice = random.Random(SEED)
    kills, ends_s = 0, time.monotonic() + MINUTES * 60
    kill_at_s = time.monotonic() + KILL_EVERY_S
    while time.monotonic() < ends_s and not soak.failures:
        _sample(soak.rig, peak)
        if time.monotonic() >= kill_at_s:
            kill_at_s = time.monotonic() + KILL_EVERY_S
            kills += 1
            name = dice.choice(sorted(soak.rig.roles()))
            if name == "main":
                soak.rig.kill_router()
                soak.rig.start_router()
            else:
                soak.rig.roles()[name].kill()
                wait_for(soak.rig.is_ready, 60, f"ready again after {name} was killed")
        soak.over.wait(1.0)
    return kills


@pytest.mark.long(seconds=MINUTES * 60 + 120)
@pytest.mark.timeout(MINUTES * 60 + 900)
def test_soak(rig: Rig, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    print(f"SOAK_SEED={SEED}")
    rig.write_config(satusehat="index_lag = 3s", retry_max="2s")
    rig.start_sandbox("--allow-duplicates", "--index-delay", "1", "--token-ttl", "30")
    rig.start_router()
    rig.faults(*FAULTS)
    soak, peak = Soak(rig, tmp_path / "images"), dict[str, int]()
    senders = [
        threading.Thread(target=soak.send, args=("LOADA", 6, 0.2), daemon=True),
        threading.Thread(target=soak.send, args=("LOADB", 3, 0.2), daemon=True),
        threading.Thread(target=soak.send, args=("CANARY", 1, CANARY_EVERY_S), daemon=True),
    ]
    for sender in senders:
        sender.start()
    kills = _kill_and_watch(soak, peak)
    soak.over.set()
    for sender in senders:
        sender.join(90)
    assert not soak.failures, soak.failures
    faults_met = sum(one["hits"] for one in rig.faults_met())
    rig.clear_faults()
    rig.run("retry", "--state", "deferred")
    sent = len({image.sop_uid for image in soak.acknowledged})
    wait_for(lambda: rig.count_delivered() == sent and not rig.unfinished(), 300, "every study delivered", every_s=2)
    state = check_oracle(rig, soak.studies, soak.acknowledged)
    tokens = state["requests"]["POST /oauth2/v1/accesstoken"]
    figures = {
        "minutes": MINUTES, "seed": SEED, "kills": kills, "studies": len(soak.studies),
        "acknowledged": len(soak.acknowledged), "lost": 0, "faults_met": faults_met, "tokens": tokens,
        "slowest_study_s": round(soak.slowest_s["load"], 1),
        "canary": f"{soak.canary_studies} of {soak.canary_studies}",
        "slowest_canary_s": round(soak.slowest_s["canary"], 1),
        "peak_rss_mb": {name: size >> 20 for name, size in sorted(peak.items())},
    }
    for name, value in figures.items():
        record_property(name, value)
    print(figures)
    assert max(peak.values()) < MAX_RSS_BYTES, figures
