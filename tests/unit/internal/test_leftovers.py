"""What a writer that died has left: whole files are taken in, once and under their id; half ones go; none is lost."""

from __future__ import annotations

import errno
import logging
import os
import sys
from pathlib import Path
from unittest import mock

import pytest

from internal.spool import Entry, Spool
from internal.spool_writer import SpoolWriter

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="marks and reserved room are Linux's")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.open(tmp_path / "spool")


def sealed(writer: SpoolWriter, data: bytes = b"image") -> Entry:
    """An instance that is durable but, as after kill -9, not handed over."""
    writer.prepare()
    incoming = writer.begin()
    incoming.write(data)
    return incoming.seal()


def died(spool: Spool, writer: SpoolWriter) -> None:
    """The end of a process as its locks see it; its files stay."""
    writer._lock.release()


def folder(spool: Spool) -> Path:
    return spool._root / "tmp" / "a"


def content(spool: Spool, entry: Entry) -> bytes:
    with spool.open_entry(entry.id) as file:
        return file.read()


def test_a_sealed_instance_is_taken_in_under_its_id(spool: Spool) -> None:
    writer = spool.writer("a")
    entry = sealed(writer)
    assert spool.scan_new() == []
    died(spool, writer)
    spool.writer("a")
    assert spool.scan_new() == [entry] and content(spool, entry) == b"image"
    assert list(folder(spool).iterdir()) == []


def test_half_of_one_is_swept(spool: Spool) -> None:
    writer = spool.writer("a")
    writer.prepare()
    writer.begin().write(b"half")
    died(spool, writer)
    spool.writer("a")
    assert spool.scan_new() == [] and list(folder(spool).iterdir()) == []


@pytest.mark.parametrize("moved", [False, True])
def test_one_that_was_handed_over_is_not_taken_in_again(spool: Spool, moved: bool) -> None:
    writer = spool.writer("a")
    writer.prepare()
    incoming = writer.begin()
    incoming.write(b"image")
    entry = incoming.seal()
    incoming.hand_over()
    if moved:
        spool.to_cur([entry])
    died(spool, writer)
    spool.writer("a")
    assert spool.scan_new() == ([] if moved else [entry])
    assert list(spool.all_ids()) == [entry] and content(spool, entry) == b"image"
    assert list(folder(spool).iterdir()) == []


def test_pages_lost_though_marked_are_set_aside_and_said(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    writer = spool.writer("a")
    entry = sealed(writer, b"x" * 10_000)
    died(spool, writer)
    path = next(path for path in folder(spool).iterdir() if path.stat().st_size)
    with path.open("r+b") as file:
        file.write(bytes(4096))
    with caplog.at_level(logging.WARNING):
        spool.writer("a")
    bad = spool._root / "bad"
    assert (bad / entry.file_name).stat().st_size == 10_000
    assert "the power failed" in (bad / f"{entry.id}.reason").read_text()
    assert spool.scan_new() == [] and "set aside" in caplog.text


@pytest.mark.parametrize("mark", [b"\1" + bytes(7) + bytes(8) + b"../../etc/passwd", b"cut off", bytes(16) + b"\xff"])
def test_a_mark_that_is_not_ours_names_no_path_and_its_file_is_kept(spool: Spool, mark: bytes) -> None:
    folder(spool).mkdir()
    for name in ("1", "2"):
        (folder(spool) / name).write_bytes(name.encode())
        os.setxattr(folder(spool) / name, "user.dcmrouter", mark)
    spool.writer("a")
    bad = spool._root / "bad"
    assert sorted(path.name for path in bad.iterdir()) == [
        "unknown-a-1", "unknown-a-1.reason", "unknown-a-2", "unknown-a-2.reason"]
    assert (bad / "unknown-a-2").read_bytes() == b"2"
    assert spool.scan_new() == [] and list(folder(spool).iterdir()) == []


def test_what_the_disk_does_not_let_through_is_tried_again_by_the_next_writer(
    spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    writer = spool.writer("a")
    entry = sealed(writer)
    died(spool, writer)
    with mock.patch("os.link", side_effect=OSError(errno.ENOSPC, "No space left on device")):
        writer = spool.writer("a")
    assert "cannot be taken in (No space left on device)" in caplog.text and spool.scan_new() == []
    other = sealed(writer, b"other")  # receiving goes on meanwhile
    writer.tidy()
    assert spool.scan_new() == [entry] and content(spool, entry) == b"image"
    died(spool, writer)
    spool.writer("a")
    assert spool.scan_new() == [entry, other]


def test_what_cannot_be_read_stays(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    writer = spool.writer("a")
    entry = sealed(writer)
    died(spool, writer)
    with mock.patch("os.getxattr", side_effect=OSError(errno.EIO, "Input/output error")):
        spool.writer("a")._lock.release()
    assert "Input/output error" in caplog.text
    spool.writer("a")
    assert spool.scan_new() == [entry]


def test_a_name_in_new_is_durable_before_that_in_tmp_goes(spool: Spool) -> None:
    writer = spool.writer("a")
    entry = sealed(writer)
    died(spool, writer)
    with mock.patch("internal.leftovers.fsync_directory", side_effect=OSError(errno.EIO, "")):
        spool.writer("a")
    assert any(path.stat().st_size for path in folder(spool).iterdir())
    assert spool.scan_new() == [entry]


def test_slots_without_a_writer_are_looked_after_and_others_left_alone(spool: Spool) -> None:
    gone, running = spool.writer("a"), spool.writer("b")
    entry, in_hand = sealed(gone), sealed(running)
    died(spool, gone)
    (spool._root / "tmp" / "Not a slot").mkdir()
    spool.take_in_leftovers()
    assert spool.scan_new() == [entry] and list(folder(spool).iterdir()) == []
    died(spool, running)
    spool.take_in_leftovers()
    assert spool.scan_new() == [entry, in_hand]
