"""Real peers: DCMTK's tools, pynetdicom, and our own sender."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import warnings
import zipfile
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from pynetdicom import AE, build_role
from pynetdicom.presentation import build_context

from interface.dimse.scu import FileResult, send_paths
from internal.dicomfile import read_meta
from internal.errors import Transient
from internal.scan import scan
from internal.spool import EntryKind
from tests.contract.dimse.role import Role

JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
CT = "1.2.840.10008.5.1.4.1.1.2"
COMMITMENT = "1.2.840.10008.1.20.1"


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"DCMTK's {name} is missing")
        pytest.skip(f"DCMTK's {name} is not installed")
    return found


def dcmtk(
    name: str, port: int, *arguments: str | Path, called: str = "DCMROUTER", **environment: str,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    line = [tool(name), "-aec", called, "127.0.0.1", str(port), *map(str, arguments)]
    return subprocess.run(
        line, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "TCP_NODELAY": "1", **environment},
    )  # fmt: skip


def sample(name: str) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Path(str(get_testdata_file(name)))


def copies(folder: Path, name: str, count: int, **values: str) -> list[str]:
    """Copies of a sample with SOP Instance UIDs of their own; returns these."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset = pydicom.dcmread(sample(name))
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    uids = []
    for index in range(count):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.save_as(folder / f"{index:03d}.dcm")
        uids.append(str(dataset.SOPInstanceUID))
    return uids


def pixels(data_set: bytes, transfer_syntax: str) -> bytes:
    file = io.BytesIO(data_set)
    implicit = transfer_syntax == IMPLICIT
    return bytes(pydicom.filereader.read_dataset(file, implicit, is_little_endian=True).PixelData)


@pytest.mark.dcmtk
def test_echoscu(shared: Role) -> None:
    assert dcmtk("echoscu", shared.port).returncode == 0
    wrong = dcmtk("echoscu", shared.port, called="NOBODY")
    assert wrong.returncode != 0 and "Called AE Title Not Recognized" in wrong.stderr


@pytest.mark.dcmtk
def test_storescu_single_file(shared: Role, tmp_path: Path) -> None:
    (uid,) = copies(tmp_path, "CT_small.dcm", 1)
    done = dcmtk("storescu", shared.port, tmp_path / "000.dcm")
    assert done.returncode == 0, done.stderr
    assert pixels(shared.data_sets()[uid], EXPLICIT) == pydicom.dcmread(tmp_path / "000.dcm").PixelData


@pytest.mark.dcmtk
def test_storescu_folder_with_folders_and_three_studies(shared: Role, tmp_path: Path) -> None:
    studies = {generate_uid(): 3 for _ in range(3)}
    uids = [uid for number, study in enumerate(studies)
            for uid in copies(tmp_path / str(number), "MR_small.dcm", 3, StudyInstanceUID=study)]  # fmt: skip
    done = dcmtk("storescu", shared.port, "+sd", "+r", tmp_path)
    assert done.returncode == 0, done.stderr
    assert shared.data_sets().keys() >= set(uids)
    assert shared.record("released")["studies"] == studies


@pytest.mark.dcmtk
@pytest.mark.parametrize(("option", "name", "syntax"), [
    ("-xs", "SC_rgb_jpeg_gdcm.dcm", JPEG_LOSSLESS), ("-xv", "JPEG2000_UNC.dcm", None),
    ("-xv", "MR_small_jp2klossless.dcm", JPEG_2000), ("-xi", "CT_small.dcm", IMPLICIT),
    ("-xe", "CT_small.dcm", EXPLICIT), ("-xr", "MR_small_RLE.dcm", "1.2.840.10008.1.2.5"),
    ("-xb", "MR_small_bigendian.dcm", "1.2.840.10008.1.2.2"), ("-xd", "CT_small.dcm", "1.2.840.10008.1.2.1.99"),
])  # fmt: skip
def test_storescu_in_every_kind_of_transfer_syntax(
    shared: Role, tmp_path: Path, option: str, name: str, syntax: str | None
) -> None:
    (uid,) = copies(tmp_path, name, 1)
    done = dcmtk("storescu", shared.port, option, tmp_path / "000.dcm")
    assert done.returncode == 0, done.stderr
    kept = [entry for entry in shared.entries() if meta_of(shared, entry.id).sop_uid == uid]
    meta = meta_of(shared, kept[0].id)
    if syntax:
        assert meta.transfer_syntax_uid == syntax
    with shared.spool.open_entry(kept[0].id) as file:
        file.seek(meta.dataset_offset)
        assert scan(file, meta.transfer_syntax_uid).sop_uid == uid
    with shared.spool.open_entry(kept[0].id) as file:
        assert pydicom.dcmread(file).SOPInstanceUID == uid


def meta_of(role: Role, entry_id: str):  # type: ignore[no-untyped-def]
    with role.spool.open_entry(entry_id) as file:
        return read_meta(file)


@pytest.mark.dcmtk
def test_storescu_that_aborts_has_lost_nothing_that_was_answered(shared: Role, tmp_path: Path) -> None:
    uids = copies(tmp_path, "CT_small.dcm", 3)
    done = dcmtk("storescu", shared.port, "--abort", "+sd", tmp_path)
    assert "Aborting" in done.stdout + done.stderr or done.returncode == 0
    assert shared.data_sets().keys() >= set(uids)
    assert shared.record("aborted")["refused"] == {}


def associate(  # type: ignore[no-untyped-def]
    role: Role, contexts: list[object], ae_title: str = "PYNETDICOM", **options: object,
):
    entity = AE(ae_title)
    entity.requested_contexts = contexts
    association = entity.associate("127.0.0.1", role.port, ae_title="DCMROUTER", **options)
    assert association.is_established
    return association


def test_pynetdicom_that_proposes_a_lossy_syntax_first_gets_a_lossless_one(shared: Role) -> None:
    private = "1.3.6.1.4.1.55555.1.2"
    association = associate(shared, [
        build_context(CT, [JPEG_BASELINE, EXPLICIT, JPEG_2000]), build_context(private, [JPEG_BASELINE, IMPLICIT]),
        build_context("1.2.840.10008.5.1.4.1.1.999.1", [JPEG_BASELINE]),
        build_context("1.2.840.10008.5.1.4.1.2.2.1", [IMPLICIT]), build_context(COMMITMENT, [IMPLICIT]),
    ])  # fmt: skip
    chosen = {context.abstract_syntax: context.transfer_syntax[0] for context in association.accepted_contexts}
    association.release()
    assert chosen == {CT: JPEG_2000, private: IMPLICIT, "1.2.840.10008.5.1.4.1.1.999.1": JPEG_BASELINE}


def test_pynetdicom_with_128_contexts_and_roles(shared: Role, tmp_path: Path) -> None:
    copies(tmp_path, "CT_small.dcm", 1)
    dataset = pydicom.dcmread(tmp_path / "000.dcm")
    contexts = [build_context(f"1.2.840.10008.5.1.4.1.1.{number}", [IMPLICIT]) for number in range(1000, 1127)]
    roles = [build_role(CT, scu_role=True, scp_role=True)]
    association = associate(shared, [*contexts, build_context(CT, [EXPLICIT])], ext_neg=roles)
    assert len(association.accepted_contexts) == 128
    assert association.send_c_store(dataset).Status == 0
    assert association.send_c_store(dataset).Status == 0  # the same again: kept, sorted out by the index
    association.release()
    assert association.is_released


def test_pynetdicom_sees_status_and_comment(shared: Role) -> None:
    dataset = pydicom.dcmread(sample("CT_small.dcm"))
    dataset.SOPInstanceUID = generate_uid()
    del dataset.StudyInstanceUID
    association = associate(shared, [build_context(CT, [EXPLICIT])])
    answer = association.send_c_store(dataset)
    association.release()
    assert answer.Status == 0xC000 and "study" in answer.ErrorComment


def test_storage_commitment_is_offered_only_where_it_is_enabled(tmp_path: Path) -> None:
    role = Role(tmp_path / "spool", commitment_callers=["PYNETDICOM"])
    request = pydicom.Dataset()
    request.TransactionUID = generate_uid()
    item = pydicom.Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, "1.2.3"
    request.ReferencedSOPSequence = [item]
    try:
        association = associate(role, [build_context(COMMITMENT, [IMPLICIT])])
        status, _ = association.send_n_action(request, 1, COMMITMENT, "1.2.840.10008.1.20.1.1")
        wrong, _ = association.send_n_action(request, 1, COMMITMENT, "1.2.3")
        empty, _ = association.send_n_action(None, 1, COMMITMENT, "1.2.840.10008.1.20.1.1")
        association.release()
        assert (status.Status, wrong.Status, empty.Status) == (0, 0x0117, 0x0115)
        stranger = associate(role, [build_context(COMMITMENT, [IMPLICIT]), build_context(CT)], ae_title="OTHER")
        assert [context.abstract_syntax for context in stranger.accepted_contexts] == [CT]
        stranger.release()
        requests = role.entries(EntryKind.REQUEST)
        assert len(requests) == 1
        assert b"PYNETDICOM" in role.spool.read(requests[0])
    finally:
        assert role.stop() == 0


def test_our_sender_sends_files_folders_and_zip_and_lists_the_rest(shared: Role, tmp_path: Path) -> None:
    uids = copies(tmp_path / "a" / "deep", "CT_small.dcm", 2)
    uids += copies(tmp_path / "b", "MR_small_RLE.dcm", 1)
    zipped = copies(tmp_path / "z", "JPEG2000.dcm", 2)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for path in sorted((tmp_path / "z").iterdir()):
            archive.write(path, f"folder/{path.name}")
        archive.writestr("readme.txt", "no image")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    shutil.copy(sample("DICOMDIR"), tmp_path / "a" / "DICOMDIR")
    seen: list[tuple[FileResult, int, int]] = []
    report = send_paths(
        "127.0.0.1", shared.port, [tmp_path / "a", tmp_path / "b" / "000.dcm", tmp_path / "images.zip"],
        on_progress=lambda *step: seen.append(step),
    )  # fmt: skip
    assert report.failed == [] and report.stored == 5
    assert [step[1:] for step in seen] == [(done, 5) for done in range(1, 6)]
    assert sorted(Path(name.split("!")[-1]).name for name, _ in report.skipped) == [
        "DICOMDIR", "notes.txt", "readme.txt"]  # fmt: skip
    assert shared.data_sets().keys() >= {*uids, *zipped}


def test_our_sender_needs_as_many_associations_as_contexts_demand(shared: Role, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(sample("CT_small.dcm"))
    for number in range(130):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        sop_class = f"1.2.840.10008.5.1.4.1.1.{7000 + number}"
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
        dataset.save_as(tmp_path / f"{number}.dcm")
    report = send_paths("127.0.0.1", shared.port, [tmp_path])
    assert report.stored == 130 and not report.failed


def test_our_sender_reports_refusals_and_a_lost_association(shared: Role, tmp_path: Path) -> None:
    copies(tmp_path, "CT_small.dcm", 4)
    with pytest.raises(Transient, match="1/1/7"):
        send_paths("127.0.0.1", shared.port, [tmp_path], called="NOBODY")
    with pytest.raises(Transient, match="cannot be reached"):
        send_paths("127.0.0.1", 1, [tmp_path], timeout_s=2)
    dataset = pydicom.dcmread(tmp_path / "000.dcm")
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"  # differs from the data set
    dataset.save_as(tmp_path / "000.dcm", enforce_file_format=False)
    report = send_paths("127.0.0.1", shared.port, [tmp_path])
    assert [result.status for result in report.failed] == [0xA900] and report.stored == 3
    role = Role(tmp_path / "spool", environment={"ROUTER_FAULT": "recv.mid:raise:2"})
    try:
        report = send_paths("127.0.0.1", role.port, [tmp_path / f"00{number}.dcm" for number in (1, 2, 3)],
                            timeout_s=5)
        assert [result.status for result in report.results] == [0, None, None]
        assert "lost" in report.failed[-1].reason
    finally:
        assert role.stop() == 0
