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


def is_as_the_rules_say(before: Path, content: bytes) -> bool:
    """Whether a copy differs from what was sent in nothing but what the rules name, with the old values noted."""
    sent, found = pydicom.dcmread(before), pydicom.dcmread(io.BytesIO(content))
    (noted,) = found[0x04000561].value
    old = noted.ModifiedAttributesSequence[0]
    assert (found.PatientID, found.InstitutionName) == (f"RS1-{sent.PatientID}", "RS JAYA"), found.PatientID
    assert (old.PatientID, old.get("InstitutionName")) == (sent.PatientID, sent.get("InstitutionName"))
    assert {one.tag for one in found} - {one.tag for one in sent} <= {0x04000561, 0x00080080}
    return all(found[one.tag] == one for one in sent if one.tag not in (0x00100020, 0x00080080, 0x04000561)
               and one.tag.element)


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
def test_the_whole_sample_set_reaches_four_receivers_once(rig: Rig, tmp_path: Path) -> None:
    """Encodings of all kinds; the first PACS is off while a half comes in; some come through a watched folder.

    That PACS gets headers changed by rules, the others what was received.
    """
    samples = make_samples(tmp_path / "samples", STUDIES, seed="relay")
    sent = [tmp_path / "samples" / one.path for study in samples for one in study.files]
    expected = hashes(sent)
    pacs_port, plain_port = free_port(), free_port()
    modality = {"router": ["DCMROUTER", "127.0.0.1", rig.dicom_port]}
    (tmp_path / "drop").mkdir()
    with running(Orthanc(tmp_path / "orthanc", DicomModalities=modality)) as orthanc, \
            running(Storescp(tmp_path / "plain", port=plain_port)) as plain:
        rig.write_config(send_to="pacs, web, archive, plain", retry_max="1s", extra=f"""
[dimse:pacs]
host = 127.0.0.1
port = {pacs_port}
ae_title = PACS
[dimse:plain]
host = 127.0.0.1
port = {plain_port}
ae_title = PACS
[rule:names]
do =
    set PatientID = "RS1-{{PatientID}}" else hold
    set InstitutionName = "RS JAYA"
for = pacs
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
            wait_done(rig, 4, 60)
            assert hashes(plain.files()) == expected
            changed = {read_meta(io.BytesIO(data)).sop_uid: data for data in map(Path.read_bytes, pacs.files())}
            assert len(changed) == len(pacs.files()), "none arrived twice"
            assert changed.keys() == expected.keys()
            for path in sent:
                uid, hashed = pixels(path.read_bytes())
                assert pixels(changed[uid]) == (uid, hashed)
                assert is_as_the_rules_say(path, changed[uid]), path
        kept = [pixels(orthanc.ask(f"/instances/{one}/file")) for one in json.loads(orthanc.ask("/instances"))]
    # Orthanc writes data sets anew, so that only pixels can be compared.
    assert dict(kept) == dict(pixels(path.read_bytes()) for path in sent) and len(kept) == len(sent)
    assert not [path for path in (tmp_path / "drop").rglob("*") if path.is_file()]
    assert rig.stop_router() == 0
    assert "Traceback" not in rig.log()
