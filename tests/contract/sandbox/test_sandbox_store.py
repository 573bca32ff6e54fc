"""The DICOM store. Source: fact sheet section 3, PS3.18 section 10.5."""

from __future__ import annotations

import hashlib
import io
import socket
import threading
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pydicom
import pytest
import requests
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from tests.contract.sandbox.sandbox_client import ACSN, Sandbox, Study, make_instance, until


def instances(sandbox: Sandbox) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sandbox.state()["instances"]
    return found


def test_answer_to_a_push(sandbox: Sandbox, study: Study) -> None:
    answer = sandbox.push(study.files[0], study.id)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/dicom+json"
    parsed = pydicom.Dataset.from_json(answer.json())
    url = f"{sandbox.url}/dicom/v1/dicomWeb/studies/{study.uid}"
    assert parsed.RetrieveURL == url
    item = parsed.ReferencedSOPSequence[0]
    assert item.ReferencedSOPInstanceUID == study.sops[0]
    assert item.RetrieveURL == f"{url}/series/{study.series}/instances/{study.sops[0]}"


def test_hashes_of_file_and_data_set(sandbox: Sandbox, study: Study) -> None:
    sandbox.push(study.files[0], study.id)
    data = study.files[0]
    start = 144 + int.from_bytes(data[140:144], "little")
    found = instances(sandbox)[0]
    assert found["sha256"] == hashlib.sha256(data).hexdigest()
    assert found["dataset_sha256"] == hashlib.sha256(data[start:]).hexdigest()


def test_same_bytes_again_are_counted(sandbox: Sandbox, study: Study) -> None:
    assert [sandbox.push(study.files[0], study.id).status_code for _ in range(3)] == [200] * 3
    assert [one["times_received"] for one in instances(sandbox)] == [3]


def test_other_bytes_with_the_same_uids_are_a_conflict(sandbox: Sandbox, study: Study) -> None:
    other = make_instance(study.uid, study.series, study.sops[0], pixels=b"\3\4" * 64)
    sandbox.push(study.files[0], study.id)
    answer = sandbox.push(other, study.id)
    assert answer.status_code == 409
    item = answer.json()["00081198"]["Value"][0]
    assert item["00081197"] == {"vr": "US", "Value": [272]}
    assert item["00081155"]["Value"] == study.sops
    assert "Instance already exists" in item["00090097"]["Value"][0]
    assert item["00090097"]["Value"][0].endswith("already exists")
    found = instances(sandbox)
    assert [(one["sha256"], one["times_received"], one["times_conflicting"]) for one in found] == [
        (hashlib.sha256(study.files[0]).hexdigest(), 1, 1)]


def test_xml_unless_json_is_asked_for(sandbox: Sandbox, study: Study) -> None:
    answer = sandbox.push(study.files[0], study.id, Accept="*/*")
    root = ET.fromstring(answer.text)
    assert answer.status_code == 200 and root.tag == "NativeDicomModel"
    assert root.findtext(".//DicomAttribute[@tag='00081155']/Value") == study.sops[0]
    conflict = sandbox.push(make_instance(study.uid, study.series, study.sops[0], b"\5\6"), study.id, Accept="*/*")
    detail = ET.fromstring(conflict.text).find(".//DicomAttribute[@tag='00090097']")
    assert conflict.status_code == 409 and detail is not None and detail.get("privateCreator") == "GOOGLE"
    assert "already exists" in (detail.findtext("Value") or "")


def multipart(files: list[bytes], boundary: str = "b0undary") -> tuple[bytes, str]:
    body = b"".join(b"--%s\r\nContent-Type: application/dicom\r\n\r\n%s\r\n" % (boundary.encode(), data)
                    for data in files) + b"--%s--\r\n" % boundary.encode()
    return body, f'multipart/related; type="application/dicom"; boundary={boundary}'


def test_multipart(sandbox: Sandbox) -> None:
    study = Study(sandbox, "MP", instances=3)
    body, content_type = multipart(study.files)
    answer = sandbox.push(body, study.id, **{"Content-Type": content_type})
    assert answer.status_code == 200, answer.text
    assert [one["00081155"]["Value"][0] for one in answer.json()["00081199"]["Value"]] == study.sops
    assert [one["sha256"] for one in instances(sandbox)] == [hashlib.sha256(one).hexdigest() for one in study.files]


def test_multipart_with_one_bad_part_is_half_a_success(sandbox: Sandbox) -> None:
    study = Study(sandbox, "MP2", instances=2)
    body, content_type = multipart([study.files[0], b"nonsense"])
    answer = sandbox.push(body, study.id, **{"Content-Type": content_type})
    assert answer.status_code == 202
    assert len(answer.json()["00081198"]["Value"]) == len(answer.json()["00081199"]["Value"]) == 1


@pytest.mark.parametrize(("content_type", "status"), [
    ("application/json", 415), ("multipart/related", 400), ("multipart/related; boundary=" + "x" * 80, 400),
    ("multipart/related; boundary=elsewhere", 400), ("", 415)])
def test_other_content_types(sandbox: Sandbox, study: Study, content_type: str, status: int) -> None:
    body, _ = multipart(study.files)
    assert sandbox.push(body, study.id, **{"Content-Type": content_type}).status_code == status
    assert instances(sandbox) == []


def test_the_imaging_study_must_allow_it(sandbox: Sandbox, study: Study) -> None:
    foreign = sandbox.control("POST", "/resources", {**study.resource(), "identifier": [
        {"system": ACSN.replace("100099001", "100000001"), "value": "X"}]})["id"]
    unlisted = make_instance(study.uid, study.series, generate_uid())
    misplaced = make_instance(study.uid, generate_uid(), study.sops[0])
    elsewhere = make_instance(generate_uid(), study.series, study.sops[0])
    for data, study_id, text in (
            (study.files[0], "", "is missing"), (study.files[0], "none", "not found"),
            (study.files[0], foreign, "another organization"), (unlisted, study.id, "does not list"),
            (misplaced, study.id, "in series"),
            (elsewhere, study.id, "not about study")):
        answer = sandbox.push(data, study_id)
        assert answer.status_code == 400 and answer.json()["resourceType"] == "OperationOutcome"
        assert text in answer.json()["issue"][0]["details"]["text"]
    assert instances(sandbox) == []
    sandbox.control("POST", "/settings", {"strict_imagingstudy_id": False})
    assert sandbox.push(unlisted).status_code == 200


def test_an_update_changes_what_is_listed(sandbox: Sandbox, study: Study) -> None:
    late = make_instance(study.uid, study.series, "1.2.3.4.5.6")
    assert sandbox.push(late, study.id).status_code == 400
    study.sops.append("1.2.3.4.5.6")
    assert sandbox.fhir("PUT", f"/ImagingStudy/{study.id}", {**study.resource(), "id": study.id}).status_code == 200
    assert sandbox.push(late, study.id).status_code == 200


def test_head_and_get_of_an_instance(sandbox: Sandbox, study: Study) -> None:
    sandbox.push(study.files[0], study.id)
    url = f"{sandbox.url}/dicom/v1/dicomWeb/studies/{study.uid}/series/{study.series}/instances/"
    head = sandbox.session.head(url + study.sops[0], headers=sandbox.bearer)
    assert head.status_code == 200 and int(head.headers["content-length"]) == len(study.files[0])
    got = sandbox.session.get(url + study.sops[0], headers=sandbox.bearer)
    assert got.content == study.files[0] and got.headers["content-type"] == "application/dicom"
    assert sandbox.session.get(url + "1.2.3", headers=sandbox.bearer).status_code == 404
    assert sandbox.session.head(url + study.sops[0]).status_code == 401


def without_uid(data: bytes, keyword: str) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(data))
    delattr(dataset, keyword)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("spoil", [
    lambda data: b"", lambda data: b"x" * 1000, lambda data: data[:200], lambda data: data[128:],
    lambda data: without_uid(data, "SeriesInstanceUID"), lambda data: without_uid(data, "StudyInstanceUID"),
    lambda data: data.replace(b"\x08\x00\x18\x00UI", b"\x08\x00\x18\x00\0\0")])
def test_what_is_no_dicom_file_is_refused(sandbox: Sandbox, study: Study, spoil: Any) -> None:
    answer = sandbox.push(spoil(study.files[0]), study.id)
    assert answer.status_code == 409 and answer.json()["00081198"]["Value"][0]["00090097"]["Value"][0]
    assert instances(sandbox) == []


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2",
                                    "1.2.840.10008.1.2.1.99"])
def test_transfer_syntaxes_and_sequences_before_the_uids(sandbox: Sandbox, study: Study, syntax: str) -> None:
    inner, outer = Dataset(), Dataset()
    inner.StudyInstanceUID = inner.SeriesInstanceUID = "9.9.9"
    outer.PurposeOfReferenceCodeSequence = Sequence([inner])
    outer.PurposeOfReferenceCodeSequence.is_undefined_length = True
    outer.is_undefined_length_sequence_item = True
    sequence = Sequence([outer, inner])
    sequence.is_undefined_length = True
    data = make_instance(study.uid, study.series, study.sops[0], b"\1\2" * 64, syntax,
                         ReferencedImageSequence=sequence)
    answer = sandbox.push(data, study.id)
    assert answer.status_code == 200, answer.text
    start = 144 + int.from_bytes(data[140:144], "little")
    assert instances(sandbox)[0]["dataset_sha256"] == hashlib.sha256(data[start:]).hexdigest()


@pytest.mark.parametrize("size", [4096, 100_000, 512 * 1024, 512 * 1024 + 1, 1_048_576, 1_500_001])
def test_sizes_around_the_blocks_that_are_written(sandbox: Sandbox, study: Study, size: int) -> None:
    data = make_instance(study.uid, study.series, study.sops[0])
    data = make_instance(study.uid, study.series, study.sops[0], b"\7" * (size - len(data) + 128 & ~1))
    assert sandbox.push(data, study.id).status_code == 200
    assert instances(sandbox)[0]["sha256"] == hashlib.sha256(data).hexdigest()
    url = f"/dicom/v1/dicomWeb/studies/{study.uid}/series/{study.series}/instances/{study.sops[0]}"
    assert sandbox.session.get(sandbox.url + url, headers=sandbox.bearer).content == data


def sample_files() -> list[Path]:
    """The DICOM files that come with pydicom."""
    return sorted((Path(pydicom.__file__).parent / "data" / "test_files").rglob("*.dcm"))


def expected_uids(path: Path) -> list[str] | None:
    """The UIDs pydicom finds in a file that is whole: meta and data set agree, nothing is missing."""
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        uids = [str(dataset[name].value) for name in
                ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")]
    except (KeyError, pydicom.errors.InvalidDicomError):
        return None
    meta = dataset.file_meta
    whole = all(uids) and uids[2] == meta.get("MediaStorageSOPInstanceUID") and meta.get("TransferSyntaxUID")
    return uids if whole else None


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_real_files_are_judged_as_pydicom_judges_them(sandbox: Sandbox) -> None:
    sandbox.control("POST", "/settings", {"strict_imagingstudy_id": False})
    expected = {}
    # SC_rgb_jpeg.dcm is implicit VR under an explicit VR transfer syntax; pydicom guesses that, we refuse it.
    for path in (one for one in sample_files() if one.name != "SC_rgb_jpeg.dcm"):
        uids = expected_uids(path)
        answer = sandbox.push(path.read_bytes())
        assert answer.status_code == (200 if uids else 409) or "already exists" in answer.text, path.name
        if answer.status_code == 200 and uids:
            expected[uids[2]] = uids
    found = {one["sop_uid"]: [one[name] for name in ("study_uid", "series_uid", "sop_uid", "sop_class_uid")]
             for one in instances(sandbox)}
    assert len(found) >= 20 and found == expected


def head_of_push(sandbox: Sandbox, study: Study, more: str) -> bytes:
    return (f"POST /dicom/v1/dicomWeb/studies HTTP/1.1\r\nHost: x\r\nAuthorization: {sandbox.bearer['Authorization']}"
            f"\r\nContent-Type: application/dicom\r\nX-ImagingStudy-ID: {study.id}\r\n{more}\r\n\r\n").encode()


def leftovers(sandbox: Sandbox) -> list[Path]:
    return list((sandbox.data / "uploads").iterdir())


def test_an_upload_cut_short_stores_nothing(sandbox: Sandbox, study: Study) -> None:
    data = study.files[0]
    for head, body in ((f"Content-Length: {len(data)}", data[:-1]),
                       ("Transfer-Encoding: chunked", b"%x\r\n%s\r\n" % (len(data), data))):
        with socket.create_connection(sandbox.address, timeout=10) as sock:
            sock.sendall(head_of_push(sandbox, study, head) + body)
            until(lambda: leftovers(sandbox), "the upload arrives")
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
        until(lambda: not leftovers(sandbox), "the upload is dropped")
    assert instances(sandbox) == []
    assert sandbox.push(data, study.id).status_code == 200


def test_chunked_upload(sandbox: Sandbox, study: Study) -> None:
    data = study.files[0]
    answer = sandbox.push(iter([data[:100], data[100:101], data[101:]]), study.id)
    assert answer.status_code == 200
    assert instances(sandbox)[0]["sha256"] == hashlib.sha256(data).hexdigest()


def test_expect_100_continue(sandbox: Sandbox, study: Study) -> None:
    data = study.files[0]
    with socket.create_connection(sandbox.address, timeout=10) as sock:
        sock.sendall(head_of_push(sandbox, study, f"Expect: 100-continue\r\nContent-Length: {len(data)}"))
        assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")
        sock.sendall(data)
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
    with socket.create_connection(sandbox.address, timeout=10) as sock:
        sock.sendall(b"POST /dicom/v1/dicomWeb/studies HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 401 "), "no body is asked for when it is refused anyway"


def test_pushes_at_the_same_time(sandbox: Sandbox) -> None:
    study = Study(sandbox, "PAR", instances=24)
    statuses: list[int] = []

    def push(part: list[bytes]) -> None:
        with requests.Session() as session:
            for data in part:
                statuses.append(session.post(
                    f"{sandbox.url}/dicom/v1/dicomWeb/studies", data=data, timeout=30,
                    headers={**sandbox.bearer, "Content-Type": "application/dicom",
                             "X-ImagingStudy-ID": study.id}).status_code)

    assert sandbox.bearer
    threads = [threading.Thread(target=push, args=(study.files[start::3],)) for start in (0, 1, 2, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert statuses == [200] * 32
    assert sorted(one["times_received"] for one in instances(sandbox)) == [1] * 16 + [2] * 8


def test_a_large_instance_does_not_fill_memory(sandbox: Sandbox, study: Study) -> None:
    total = 300 * 1024 * 1024
    start = make_instance(study.uid, study.series, study.sops[0], b"")
    start = start[:-4] + total.to_bytes(4, "little")
    block = uuid.uuid4().bytes * 65_536
    digest = hashlib.sha256(start)

    def generate() -> Iterator[bytes]:
        yield start
        for _ in range(total // len(block)):
            digest.update(block)
            yield block

    process = psutil.Process(sandbox.process.pid)
    before, peak, done = process.memory_info().rss, 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    answer = sandbox.push(generate(), study.id)
    done.set()
    watcher.join()
    assert answer.status_code == 200, answer.text
    assert peak and peak - before < 32 * 1024 * 1024
    assert [(one["bytes"], one["sha256"]) for one in instances(sandbox)] == [
        (len(start) + total, digest.hexdigest())]
