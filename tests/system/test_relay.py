"""The router between devices and several receivers: every image once, pixels untouched, what came in downtime too."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path

import pydicom
import pytest

from interface.dimse.scu import send_paths
from internal.dicomfile import read_meta
from sandbox.samples import make_samples
from tests.contract.destinations.peers import Orthanc, Storescp, dataset_of, free_port, running
from tests.system.rig import Rig, wait_for

STUDIES = 8


def hashes(paths: list[Path]) -> dict[str, str]:
    """SHA-256 of each data set by SOP Instance UID; fails if one comes twice."""
    found: dict[str, str] = {}
    for path in paths:
        data = path.read_bytes()
        uid = read_meta(io.BytesIO(data)).sop_uid
        assert uid not in found, f"{uid} arrived twice"
        found[uid] = hashlib.sha256(dataset_of(data)).hexdigest()
    return found


def pixels(data: bytes) -> tuple[str, str]:
    """Return the SOP Instance UID and the SHA-256 of the pixel data as encoded."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    return str(dataset.SOPInstanceUID), hashlib.sha256(dataset.PixelData).hexdigest()


def wait_done(rig: Rig, lanes: int, timeout_s: float) -> None:
    """Return when every study is done in each lane."""

    def done() -> bool:
        jobs = rig.queue()
        return len(jobs) >= STUDIES * lanes and all(job["state"] == "done" for job in jobs)

    try:
        wait_for(done, timeout_s, "everything is delivered", every_s=0.3)
    except AssertionError as error:
        left = [(job["lane"], job["state"], job["reason"]) for job in rig.queue() if job["state"] != "done"]
        raise AssertionError(f"{error}: {left}\n{rig.log()[-3000:]}") from None


@pytest.mark.dcmtk
@pytest.mark.orthanc
@pytest.mark.long(seconds=40)
@pytest.mark.timeout(150)
def test_the_whole_sample_set_reaches_three_receivers_once(rig: Rig, tmp_path: Path) -> None:
    """Encodings of all kinds; the first PACS is off while a half comes in; one study comes through a watched folder."""
    samples = make_samples(tmp_path / "samples", STUDIES, seed="relay")
    sent = [tmp_path / "samples" / one.path for study in samples for one in study.files]
    expected = hashes(sent)
    pacs_port, modality = free_port(), {"router": ["DCMROUTER", "127.0.0.1", rig.dicom_port]}
    (tmp_path / "drop").mkdir()
    with running(Orthanc(tmp_path / "orthanc", DicomModalities=modality)) as orthanc:
        rig.write_config(send_to="pacs, web, archive", retry_max="1s", extra=f"""
[dimse:pacs]
host = 127.0.0.1
port = {pacs_port}
ae_title = PACS
[dicomweb:web]
url = {orthanc.url}
auth = basic
user = {orthanc.user}
secret = {orthanc.password}
[dimse:archive]
host = 127.0.0.1
port = {orthanc.dicom}
ae_title = {orthanc.aet}
commitment = yes
[watch:drop]
path = drop
every = 1s
stable = 1s
remove = yes
""")
        rig.start_router()
        half = len(samples) // 2
        folders = [tmp_path / "samples" / study.accession_number for study in samples]
        report = send_paths("127.0.0.1", rig.dicom_port, folders[:half])
        assert not report.failed and not report.skipped
        wait_for(lambda: any(job["state"] == "deferred" for job in rig.queue()), 30, "the lane to the PACS pauses")
        with running(Storescp(tmp_path / "pacs", port=pacs_port)) as pacs:
            for folder in folders[half:]:
                shutil.copytree(folder, tmp_path / "drop" / folder.name)
            wait_done(rig, 3, 60)
            assert hashes(pacs.files()) == expected
        kept = [pixels(orthanc.ask(f"/instances/{one}/file")) for one in json.loads(orthanc.ask("/instances"))]
    # Orthanc writes data sets anew, so that only pixels can be compared.
    assert dict(kept) == dict(pixels(path.read_bytes()) for path in sent) and len(kept) == len(sent)
    assert not [path for path in (tmp_path / "drop").rglob("*") if path.is_file()]
    assert rig.stop_router() == 0
    assert "Traceback" not in rig.log()
