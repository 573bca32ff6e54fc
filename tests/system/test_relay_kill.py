"""kill -9 of the deliver role while it relays: each image arrives, and none twice whose answer was written down."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from pathlib import Path

import psutil
import pytest

from internal.dicomfile import read_meta
from tests.contract.destinations.peers import Storescp, dataset_of
from tests.system.images import Image, make_study
from tests.system.rig import Rig, send_until_acknowledged, wait_for

IMAGES, BATCH = 80, 32
RULES = """
[dimse:pacs]
host = 127.0.0.1
port = {port}
ae_title = PACS
[rule:names]
do = set PatientID = "RS1-{{PatientID}}" else hold
send_to = pacs
"""
#: name:nth hit -> which images (in sending order) may arrive a second time: they had left, and no answer was kept.
POINTS = {
    "push.marked_sent:2": range(0),  # the first batch is answered, the second marked as sent, the third read ahead
    "push.mid:40": range(BATCH, 40),
    "push.mid:70": range(2 * BATCH, 70),
}


def arrivals(folder: Path) -> dict[str, list[str]]:
    """Return the SHA-256 of each data set that came under each SOP Instance UID."""
    found: dict[str, list[str]] = {}
    for path in folder.iterdir():
        data = path.read_bytes()
        found.setdefault(read_meta(io.BytesIO(data)).sop_uid, []).append(hashlib.sha256(dataset_of(data)).hexdigest())
    return found


@pytest.mark.dcmtk
@pytest.mark.long(seconds=12)
@pytest.mark.timeout(120)
@pytest.mark.parametrize("point", POINTS)
def test_kill_while_relaying(rig: Rig, tmp_path: Path, point: str) -> None:
    peer = Storescp(tmp_path / "pacs", "+uf")
    try:
        rig.write_config(send_to="pacs", extra=RULES.format(port=peer.port))
        study = make_study(tmp_path / "s", "KILL1", IMAGES)
        name, _, nth = point.partition(":")
        rig.start_router(environment={"ROUTER_FAULT": f"{name}:kill9:{nth}"})
        deliver = rig.roles()["deliver"]
        acknowledged: list[Image] = []
        send_until_acknowledged(rig.dicom_port, study.images, deadline_s=30, acknowledged=acknowledged.append)
        wait_for(lambda: not deliver.is_running() or deliver.status() == psutil.STATUS_ZOMBIE, 30,
                 f"the role died at {name}", every_s=0.02)
        rig.kill_router()
        rig.start_router()
        wait_for(lambda: [job["state"] for job in rig.queue()] == ["done"], 40, "the study is done", every_s=0.2)
        assert rig.stop_router() == 0
    finally:
        peer.stop()
    found = arrivals(peer.folder)
    assert found.keys() == {image.sop_uid for image in study.images}
    assert all(len(set(hashes)) == 1 for hashes in found.values()), "the same bytes at every attempt"
    times = Counter(len(hashes) for hashes in found.values())
    assert times == Counter({1: IMAGES - len(POINTS[point]), 2: len(POINTS[point])} if POINTS[point] else {1: IMAGES})
