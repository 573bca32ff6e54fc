"""The hand-over of a report: exactly one side gets it, whatever lies in the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internal.report_box import Report, ReportBox

ENTRY = "0123456789ab-0000-receive-0-abcdef12"


def test_only_one_side_gets_a_report(tmp_path: Path) -> None:
    box = ReportBox(tmp_path / "reports")
    assert box.offer(ENTRY, Report(1, b"x\ny"))
    assert box.take(ENTRY) == Report(1, b"x\ny")
    assert not box.withdraw(ENTRY)
    assert box.offer(ENTRY, Report(2, b""))
    assert box.withdraw(ENTRY)
    assert box.take(ENTRY) is None


def test_who_listens_and_what_was_answered(tmp_path: Path) -> None:
    box = ReportBox(tmp_path / "reports")
    assert box.listening(ENTRY) is None
    assert box.answer(ENTRY) is None
    assert box.listen(ENTRY, "1.2.840.10008.1.2")
    assert box.listening(ENTRY) == "1.2.840.10008.1.2"
    box.leave_answer(ENTRY, 0x0110)
    assert (box.listening(ENTRY), box.answer(ENTRY)) == (None, 0x0110)
    box.forget(ENTRY)
    assert list((tmp_path / "reports").iterdir()) == []


def test_a_slot_forgets_only_its_own(tmp_path: Path) -> None:
    box = ReportBox(tmp_path / "reports")
    other = ENTRY.replace("receive-0", "receive-1")
    for entry in (ENTRY, other):
        box.listen(entry, "1.2")
    box.sweep("receive-0")
    assert (box.listening(ENTRY), box.listening(other)) == (None, "1.2")


def test_a_disk_that_does_not_take_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "reports").write_bytes(b"no folder")
    box = ReportBox(tmp_path / "reports")
    assert not box.listen(ENTRY, "1.2")
    assert not box.offer(ENTRY, Report(1, b""))
    box.sweep("receive-0")
    box.leave_answer(ENTRY, 0)
    assert box.answer(ENTRY) is None


@pytest.mark.parametrize("entry", ["../a", "", "a/b", "A", "." * 3])
def test_only_ids_of_entries_become_names(tmp_path: Path, entry: str) -> None:
    with pytest.raises(ValueError, match="id of a spool entry"):
        ReportBox(tmp_path).take(entry)


@given(content=st.binary(max_size=40))
def test_foreign_bytes_in_the_folder_are_no_report(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("reports")
    box = ReportBox(folder)
    for kind in ("open", "report", "answer"):
        (folder / f"{ENTRY}.{kind}").write_bytes(content)
    assert box.listening(ENTRY) is None or set(content) <= set(b"0123456789.")
    assert box.answer(ENTRY) is None or content.isdigit()
    assert box.take(ENTRY) is None or content.partition(b"\n")[0].isdigit()
