"""Files made ahead: how many, which are durable, what room they have, and that nothing stays behind."""

from __future__ import annotations

import errno
import os
import sys
import threading
from pathlib import Path
from unittest import mock

import pytest

from internal.empty_files import MAX_EMPTY, EmptyFile, EmptyFiles

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="marks and reserved room are Linux's")


def synced(files: EmptyFiles) -> list[str]:
    """Top up, and return the names that lay in the folder when it was fsynced."""
    real, seen = os.fsync, []

    def fsync(fd: int) -> None:
        seen.extend(os.listdir(fd))
        real(fd)

    with mock.patch("os.fsync", fsync):
        files.top_up()
    return seen


def test_what_is_said_to_be_durable_lay_in_the_folder_when_it_was_synced(tmp_path: Path) -> None:
    files = EmptyFiles(tmp_path, durable=True)
    first = files.take()
    assert not first.is_durable
    names = synced(files)
    taken = [files.take() for _ in range(MAX_EMPTY + 1)]
    assert [file.is_durable for file in taken] == [True] * MAX_EMPTY + [False]
    assert {Path(file.path).name for file in taken if file.is_durable} <= set(names)
    assert len({file.path for file in taken}) == len(taken)
    for file in [first, *taken]:
        os.close(file.fd)


def test_some_always_lie_ready_and_one_sync_serves_many(tmp_path: Path) -> None:
    files = EmptyFiles(tmp_path, durable=True)
    assert files.top_up()
    assert len(list(tmp_path.iterdir())) == MAX_EMPTY
    syncs = 0
    for _ in range(100):
        file = files.take()
        assert file.is_durable
        os.close(file.fd)
        syncs += files.top_up()
    assert 10 <= syncs <= 13
    files.close()
    assert len(list(tmp_path.iterdir())) == 100


def test_without_a_promise_nothing_is_synced(tmp_path: Path) -> None:
    files = EmptyFiles(tmp_path, durable=False)
    assert synced(files) == []
    file = files.take()
    assert not file.is_durable
    os.close(file.fd)
    files.close()


def test_room_is_reserved_for_the_next_and_the_file_stays_empty(tmp_path: Path) -> None:
    files = EmptyFiles(tmp_path, durable=True)
    files.top_up()
    files.reserve(500_000)
    file, other = files.take(), files.take()
    found = os.fstat(file.fd)
    assert found.st_size == 0 and found.st_blocks * 512 >= file.reserved_bytes == 500_000
    assert other.reserved_bytes == 0 and os.fstat(other.fd).st_blocks == 0
    for one in (file, other):
        os.close(one.fd)
    files.close()


@pytest.mark.parametrize("size", [0, 5 * 1024 * 1024])
def test_no_room_is_reserved_for_nothing_or_for_much(tmp_path: Path, size: int) -> None:
    files = EmptyFiles(tmp_path, durable=True)
    files.top_up()
    files.reserve(size)
    file = files.take()
    assert file.reserved_bytes == 0
    os.close(file.fd)
    files.close()


def test_what_lies_ready_is_bounded_whoever_asks(tmp_path: Path) -> None:
    files = EmptyFiles(tmp_path, durable=True)
    for _ in range(3 * MAX_EMPTY):
        files.top_up()
        files.reserve(100_000)
    assert len(list(tmp_path.iterdir())) == MAX_EMPTY
    assert sum(path.stat().st_blocks for path in tmp_path.iterdir()) * 512 <= 8 * 120_000
    files.close()
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "1").write_bytes(b"stays")
    file = EmptyFiles(tmp_path, durable=True).take()
    os.close(file.fd)
    assert (tmp_path / "1").read_bytes() == b"stays" and Path(file.path).name == "2"


def test_names_that_could_not_be_made_durable_are_not_handed_out(tmp_path: Path) -> None:
    files = EmptyFiles(tmp_path, durable=True)
    with mock.patch("os.fsync", side_effect=OSError(errno.EIO, "")), pytest.raises(OSError, match="5"):
        files.top_up()
    assert list(tmp_path.iterdir()) == []
    files.top_up()
    file = files.take()
    assert file.is_durable
    os.close(file.fd)
    files.close()


def test_many_threads_get_a_file_each(tmp_path: Path) -> None:
    files, taken = EmptyFiles(tmp_path, durable=True), list[EmptyFile]()

    def use() -> None:
        for _ in range(100):
            file = files.take()
            taken.append(file)
            os.close(file.fd)
            files.top_up()
            files.reserve(5_000)

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({file.path for file in taken}) == 600
    files.close()
    assert len(list(tmp_path.iterdir())) == 600
