"""The folder destination: safe names, complete files, full and missing disks."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interface.folder import Folder, FolderOptions
from interface.naming import build_parts, build_text_part, build_uid_part
from interface.relay import BATCH
from internal import failpoints
from internal.errors import BytesMissing
from internal.model import ItemState
from internal.states import Finish, Later, Refuse
from tests.contract.destinations.images import make_instance, new_study_uid
from tests.contract.destinations.memory_work import Ledger, MemoryFrozen, MemoryWork, SkewClock, drive, step_once

TEMPLATE = "{accession}/{study}/{sop}.dcm"
NASTY = st.sampled_from(
    ["..", ".", "", "../../etc/passwd", "/abs", "a\0b", "1.2.", ".1", "1..2", "CON", "nul.txt", "C:\\x"])


def make_ledger(folder: Folder, accession: str = "A 1", instances: int = 3) -> Ledger:
    ledger = Ledger(new_study_uid(), accession, folder.environment)
    ledger.add(make_instance(ledger.study_uid, number, accession) for number in range(1, instances + 1))
    return ledger


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(FolderOptions("copy", tmp_path / "out"))


def test_path_template(folder: Folder, tmp_path: Path) -> None:
    ledger = make_ledger(folder, "A/1.x", 1)
    drive(folder, ledger, SkewClock())
    uid = ledger.instances[0].header.sop_uid
    path = tmp_path / "out" / "A%2F1%2Ex" / ledger.study_uid / f"{uid}.dcm"
    assert path.read_bytes() == ledger.files[ledger.instances[0].id]
    assert ledger.items[1].answer["path"] == str(path.relative_to(tmp_path / "out"))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_without_accession_number(folder: Folder, tmp_path: Path) -> None:
    drive(folder, make_ledger(folder, "", 1), SkewClock())
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["no-accession"]


TEMPLATES = st.sampled_from([TEMPLATE, "{modality}{accession}{calling}.{sop}", "{date}/{year}/{month}{day}/{sop}"])


@settings(deadline=None)
@given(TEMPLATES, st.text(max_size=80) | NASTY, st.text(max_size=80) | NASTY, st.text(max_size=300) | NASTY)
def test_no_value_leads_out_of_the_folder(template: str, sop: str, study: str, accession: str) -> None:
    instance, _ = make_instance("1.2.3", 1, accession)
    header = replace(instance.header, sop_uid=sop, study_uid=study, modality=accession, study_date=study)
    parts = build_parts(template, header, replace(instance.arrival, calling_aet=accession))
    assert len(parts) == template.count("/") + 1
    for part in parts:
        assert part not in ("", ".", "..") and len(part.encode()) <= 200
        assert not set(part) & set('/\\:*?"<>|\0') and part.isprintable() and not part.endswith((".", " "))
        assert not os.path.isreserved(part) if hasattr(os.path, "isreserved") else True
    path = Path("/root", *parts)
    assert Path(os.path.normpath(path)) == path


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_two_accession_numbers_never_share_a_folder(one: str, other: str) -> None:
    same = one.strip(" \0") == other.strip(" \0")
    clean = "\ufffd" not in (one + other).encode("utf-8", "replace").decode()
    if clean and not any("\ud800" <= char <= "\udfff" for char in one + other):
        assert (build_text_part(one, "-") == build_text_part(other, "-")) is same


def test_uid_part() -> None:
    assert build_uid_part("1.2.840.10008") == "1.2.840.10008"
    assert build_uid_part("1.2.x") != build_uid_part("1.2.y")


def test_equal_file_is_a_receipt_and_another_one_a_conflict(folder: Folder) -> None:
    ledger = make_ledger(folder)
    drive(folder, ledger, SkewClock())
    other = Ledger(ledger.study_uid, ledger.part, ledger.environment)
    other.add([make_instance(ledger.study_uid, 1, ledger.part), make_instance(ledger.study_uid, 2, ledger.part, pad=5)])
    outcome = drive(folder, other, SkewClock())
    assert isinstance(outcome, Refuse) and outcome.code == "partly-delivered"
    assert other.count() == {ItemState.STORED: 1, ItemState.CONFLICT: 1}
    path = Path(folder.environment.removeprefix("folder:"), ledger.items[2].answer["path"])
    assert path.read_bytes() == ledger.files[ledger.instances[1].id]


@pytest.mark.parametrize(("action", "code"), [("enospc", "disk-full"), ("eio", "folder-not-writable")])
def test_a_full_or_failing_disk_pauses_the_lane_and_is_used_again(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, action: str, code: str,
) -> None:
    ledger = make_ledger(folder)
    with monkeypatch.context() as patch:
        patch.setitem(failpoints._plan, "push.mid", failpoints.parse_plan(f"push.mid:{action}:2")["push.mid"])
        outcome = step_once(folder, ledger, SkewClock())
    assert isinstance(outcome, Later) and (outcome.code, outcome.blame) == (code, "lane")
    assert ledger.count() == {ItemState.STORED: 1, ItemState.SENT: 2}
    assert isinstance(drive(folder, ledger, SkewClock()), Finish)
    assert not list(Path(folder.environment.removeprefix("folder:")).rglob("*.part"))


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot open a folder; NTFS journals its entries")
def test_a_receipt_comes_after_its_name_is_durable_and_one_wait_serves_a_batch(folder: Folder) -> None:
    """Also that of a file which was there already: whoever put it there may have died before its own wait."""
    ledger = make_ledger(folder, instances=BATCH + 1)
    again = Ledger(ledger.study_uid, ledger.part, ledger.environment)
    again.add(make_instance(ledger.study_uid, number, ledger.part) for number in range(1, BATCH + 2))
    for one, text in ((ledger, "written"), (again, "was there already")):
        seen: list[set[str]] = []
        real = os.fsync

        def fsync(descriptor: int, seen: list[set[str]] = seen, real: Callable[[int], None] = real) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                seen.append(set(os.listdir(descriptor)))
            real(descriptor)

        with mock.patch("os.fsync", fsync):
            assert isinstance(drive(folder, one, SkewClock()), Finish)
        assert {item.answer["text"] for item in one.items.values()} == {text}
        with_images = [names for names in seen if any(name.endswith(".dcm") for name in names)]
        assert len(with_images) == 2
        assert {f"{instance.header.sop_uid}.dcm" for instance in one.instances} == with_images[-1]


def test_what_was_written_before_an_image_went_missing_is_answered_and_the_lease_kept(
    folder: Folder, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A batch of large files takes longer than a lease."""
    ledger = make_ledger(folder)
    work = MemoryWork(ledger, SkewClock())
    renewals: list[int] = []
    real = MemoryFrozen.open

    def open_or_miss(frozen: MemoryFrozen) -> BinaryIO:
        renewals.append(work.renewals)
        if len(renewals) == 3:
            raise BytesMissing
        return real(frozen)

    monkeypatch.setattr(MemoryFrozen, "open", open_or_miss)
    with pytest.raises(BytesMissing):
        folder.step(work)
    assert ledger.count() == {ItemState.STORED: 2, ItemState.SENT: 1}
    assert renewals == [0, 1, 2]


def test_a_share_that_is_not_mounted_pauses_the_lane(tmp_path: Path) -> None:
    folder = Folder(FolderOptions("copy", tmp_path / "share" / "out"))
    outcome = step_once(folder, make_ledger(folder), SkewClock())
    assert isinstance(outcome, Later) and (outcome.code, outcome.blame) == ("folder-missing", "lane")
    assert [line.ok for line in folder.probe()] == [False]
