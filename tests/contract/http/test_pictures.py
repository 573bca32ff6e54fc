"""Thumbnails and previews over the wire: a picture or a notice that says why not, written down as looking."""

from __future__ import annotations

import imagecodecs
import pydicom
import pytest
from pydicom.uid import generate_uid

from internal import dicomfile
from internal.indexer import Indexer
from internal.model import Arrival
from tests.contract.codec.conftest import sample
from tests.contract.http.doors import Doors, now_ms


class Clock:
    def now_ms(self) -> int:
        return now_ms()

    def monotonic_s(self) -> float:
        return now_ms() / 1000


def receive(doors: Doors, *names: str, study_uid: str, syntax: str = "") -> list[str]:
    """Put samples into one study of the index, by way of the spool; return their SOP Instance UIDs."""
    writer = doors.spool.writer("receive-0")
    sop_uids = []
    for name in names:
        dataset = pydicom.dcmread(sample(name))
        dataset.StudyInstanceUID, dataset.SOPInstanceUID = study_uid, generate_uid(prefix=None)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        buffer = pydicom.filebase.DicomBytesIO()
        dataset.save_as(buffer)
        buffer.seek(0)
        meta = dicomfile.read_meta(buffer)
        arrival = Arrival(now_ms(), "a1", "CT1", "ROUTER", "192.0.2.7:104")
        incoming = writer.begin()
        incoming.write(dicomfile.build_meta(
            meta.sop_class_uid, meta.sop_uid, syntax or meta.transfer_syntax_uid, arrival))
        incoming.write(buffer.getvalue()[meta.dataset_offset:])
        incoming.commit()
        sop_uids.append(str(dataset.SOPInstanceUID))
    writer.close()
    Indexer(doors.spool, doors.store, Clock()).run_once()
    return sop_uids


def test_a_thumbnail_is_the_middle_image_and_is_written_down(doors: Doors) -> None:
    receive(doors, "CT_small.dcm", "reportsi.dcm", study_uid="2.25.7")
    viewer = doors.logged_in("viewer")
    reply = viewer.get("/studies/2.25.7/thumbnail")
    assert reply.status_code == 200 and reply.headers["Content-Type"] == "image/jpeg"
    assert imagecodecs.jpeg8_decode(reply.content).shape == (128, 128)
    assert reply.headers["Cache-Control"].startswith("private")
    entries = doors.audit("patient.view")
    assert [(entry.subject, entry.study_uid, entry.author) for entry in entries] == [
        ("thumbnail", "2.25.7", "user:viewer")]


def test_the_second_look_costs_no_drawing(doors: Doors) -> None:
    folder = doors.settings.data_dir / "pictures"  # shared with the tests before this one
    before = set(folder.iterdir()) if folder.exists() else set()
    receive(doors, "CT_small.dcm", study_uid="2.25.7")
    viewer = doors.logged_in("viewer")
    first = viewer.get("/studies/2.25.7/thumbnail")
    again = viewer.get("/studies/2.25.7/thumbnail", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304 and not again.content
    (kept,) = {*folder.iterdir()} - before
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.write_bytes(b"from the folder")
    assert viewer.get("/studies/2.25.7/thumbnail").content == b"from the folder"
    kept.unlink()  # it may be emptied at any time
    assert viewer.get("/studies/2.25.7/thumbnail").content == first.content


@pytest.mark.parametrize(("name", "syntax", "reason", "words"), [
    ("reportsi.dcm", "", "report", "SR"),
    ("SC_rgb_small_odd_jpeg.dcm", "1.2.840.10008.1.2.4.102", "video", "Video"),
    ("rtplan.dcm", "", "no-pixels", "Tidak ada gambar"),
    ("MR_small_RLE.dcm", "1.2.840.10008.1.2.4.90", "damaged", "rusak"),
])
def test_no_picture_says_why(doors: Doors, name: str, syntax: str, reason: str, words: str) -> None:
    (sop_uid,) = receive(doors, name, study_uid="2.25.7", syntax=syntax)
    viewer = doors.logged_in("viewer")
    for path in ("/studies/2.25.7/thumbnail", f"/studies/2.25.7/instances/{sop_uid}/preview"):
        reply = viewer.get(path, headers={"Accept-Language": "id"})
        assert reply.status_code == 200 and reply.headers["Content-Type"] == "image/svg+xml"
        assert reply.headers["Picture-Reason"] == reason and words in reply.text
    english = viewer.get("/studies/2.25.7/thumbnail", headers={"Accept-Language": "en"})
    assert english.text != viewer.get("/studies/2.25.7/thumbnail", headers={"Accept-Language": "id"}).text


def test_a_preview_of_a_frame_and_a_size(doors: Doors) -> None:
    (sop_uid,) = receive(doors, "emri_small.dcm", study_uid="2.25.7")
    viewer = doors.logged_in("viewer")
    path = f"/studies/2.25.7/instances/{sop_uid}/preview"
    middle, first = viewer.get(path), viewer.get(path + "?frame=1")
    assert middle.content != first.content
    assert imagecodecs.jpeg8_decode(viewer.get(path + "?edge=32").content).shape == (32, 32)
    assert viewer.get(path + "?frame=999").headers["Picture-Reason"] == "no-pixels"
    for wrong in ("?frame=0", "?edge=31", "?edge=99999", "?frame=x"):
        assert viewer.get(path + wrong).status_code == 422


def test_purged_bytes_are_said_even_if_a_picture_is_kept(doors: Doors) -> None:
    (sop_uid,) = receive(doors, "CT_small.dcm", study_uid="2.25.7")
    viewer = doors.logged_in("viewer")
    path = f"/studies/2.25.7/instances/{sop_uid}/preview"
    assert viewer.get(path).headers["Content-Type"] == "image/jpeg"
    with doors.store.transaction() as tx:
        tx.execute("UPDATE instance SET purging_at = 1, purged_at = 2 WHERE sop_uid = ?", (sop_uid,))
    assert viewer.get(path).headers["Picture-Reason"] == "purged"
    assert viewer.get("/studies/2.25.7/thumbnail").status_code == 404


def test_unknown_studies_and_strangers(doors: Doors) -> None:
    (sop_uid,) = receive(doors, "CT_small.dcm", study_uid="2.25.7")
    viewer = doors.logged_in("viewer")
    assert viewer.get("/studies/2.25.8/thumbnail").status_code == 404
    assert viewer.get(f"/studies/2.25.8/instances/{sop_uid}/preview").status_code == 404
    assert doors.visitor().get("/studies/2.25.7/thumbnail").status_code == 401
    assert doors.visitor(doors.key("metrics")).get("/studies/2.25.7/thumbnail").status_code == 403
    assert not doors.audit("patient.view")


def test_the_folder_stays_within_its_size(open_doors) -> None:  # type: ignore[no-untyped-def]
    from internal.users import Role

    doors = open_doors(http__picture_cache="1MB")
    doors.add_user("viewer", Role.VIEWER)
    folder = doors.settings.data_dir / "pictures"
    folder.mkdir()
    for number in range(20):
        (folder / f"old{number}").write_bytes(bytes(100_000))
    receive(doors, "CT_small.dcm", study_uid="2.25.7")
    doors.logged_in("viewer").get("/studies/2.25.7/thumbnail")
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 0.8 * 2**20
    assert any(not path.name.startswith("old") for path in folder.iterdir())
