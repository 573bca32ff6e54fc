"""The same image by two senders: DCMTK writes a data set anew, ours sends the bytes of the file; one image it stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from interface.dimse.scu import send_paths
from interface.roles import SystemClock
from internal import index
from internal.indexer import Indexer
from internal.store import Store
from tests.contract.dimse.role import Role
from tests.contract.dimse.test_peers import copies, dcmtk

Send = Callable[[Role, Path], None]


def by_dcmtk(*options: str) -> Send:
    def send(role: Role, image: Path) -> None:
        assert dcmtk("storescu", role.port, *options, image).returncode == 0

    return send


def by_us(role: Role, image: Path) -> None:
    assert [result.status for result in send_paths("127.0.0.1", role.port, [image]).results] == [0]


def image(folder: Path) -> Path:
    """A CT image with trailing padding, and a sequence with delimiters."""
    copies(folder, "CT_small.dcm", 1)
    path = folder / "000.dcm"
    dataset = pydicom.dcmread(path)
    assert "DataSetTrailingPadding" in dataset
    inner = Dataset()
    inner.CodeMeaning = "Kepala"
    inner.is_undefined_length_sequence_item = True
    dataset.AnatomicRegionSequence = [inner]
    dataset["AnatomicRegionSequence"].is_undefined_length = True
    dataset.save_as(path)
    return path


def indexed(role: Role, database: Path) -> tuple[bool, int, int]:
    """Index what came and tell of the one study: whether it is in conflict, images, repeats."""
    with closing(Store.open(f"sqlite://{database}")) as store:
        store.migrate()
        assert Indexer(role.spool, store, SystemClock()).run_once().set_aside == 0
        with store.reading() as tx:
            ((uid, repeats),) = tx.rows("SELECT study_uid, (SELECT COUNT(*) FROM duplicate) FROM study")
            study = index.study(tx, uid)
        assert study is not None
        return study.conflict, study.instances, repeats


@pytest.mark.dcmtk
@pytest.mark.parametrize("senders", [
    pytest.param([by_dcmtk(), by_us], id="storescu, send"),
    pytest.param([by_us, by_dcmtk()], id="send, storescu"),
    pytest.param([by_dcmtk("--propose-implicit"), by_us, by_dcmtk("--propose-little")], id="implicit, send, explicit"),
])  # fmt: skip
def test_the_same_image_by_two_senders_is_no_conflict(
    start: Callable[..., Role], tmp_path: Path, senders: Sequence[Send],
) -> None:
    role, path = start(), image(tmp_path / "images")
    for send in senders:
        send(role, path)
    data_sets = [role.spool.open_entry(entry.id).read() for entry in role.entries()]
    assert len({data[-400:] for data in data_sets}) > 1, "the senders wrote the same bytes"
    assert indexed(role, tmp_path / "index.db") == (False, 1, len(senders) - 1)
    assert role.stop() == 0


@pytest.mark.dcmtk
def test_an_image_with_another_patient_by_another_sender_is_one(start: Callable[..., Role], tmp_path: Path) -> None:
    role, path = start(), image(tmp_path / "images")
    by_us(role, path)
    dataset = pydicom.dcmread(path)
    dataset.PatientName = "Lain^Orang"
    dataset.save_as(path)
    by_dcmtk()(role, path)
    assert indexed(role, tmp_path / "index.db") == (True, 1, 0)
    assert role.stop() == 0
