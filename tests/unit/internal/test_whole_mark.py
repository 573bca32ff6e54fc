"""The mark of a whole file on a real file system, and what is not taken for one."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from internal import whole_mark
from internal.whole_mark import Checksum, Mark, MarksUnsupported
from tests.examples import examples

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="marks and reserved room are Linux's")


def marked(path: Path, content: bytes, mark: Mark) -> Path:
    path.write_bytes(content)
    fd = os.open(path, os.O_RDWR)
    whole_mark.put(fd, mark)
    os.close(fd)
    return path


def mark_of(content: bytes) -> Mark:
    return Mark("018f3a2b4c5d-0000-receive-0-1a2b3c4d", len(content), Checksum(content).intdigest())


def test_a_mark_is_read_as_it_was_put_and_leaves_the_bytes_alone(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    path = marked(tmp_path / "1", content, mark_of(content))
    assert whole_mark.read(path) == mark_of(content) and whole_mark.is_whole(path, mark_of(content))
    assert path.read_bytes() == content


@pytest.mark.parametrize("change", ["shorter", "longer", "a page of zeros", "one bit"])
def test_what_is_not_what_was_marked_is_not_whole(tmp_path: Path, change: str) -> None:
    content = os.urandom(20_000)
    path = marked(tmp_path / "1", content, mark_of(content))
    damaged = {"shorter": content[:-1], "longer": content + b"\0", "one bit": bytes([content[0] ^ 1]) + content[1:],
               "a page of zeros": content[:4096] + bytes(4096) + content[8192:]}[change]
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(damaged)
    assert not whole_mark.is_whole(path, mark_of(content))


def test_no_mark_is_none(tmp_path: Path) -> None:
    path = tmp_path / "1"
    path.write_bytes(b"x")
    assert whole_mark.read(path) is None


@settings(max_examples=examples(100), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.binary(max_size=300))
def test_foreign_marks_are_refused_or_say_what_they_say(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "1"
    path.write_bytes(b"x")
    os.setxattr(path, "user.dcmrouter", text)
    try:
        mark = whole_mark.read(path)
    except ValueError:
        return
    assert mark is not None and len(text) >= 16 and mark.entry_id.isascii()


@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.ENOSYS, errno.EPERM])
def test_a_file_system_without_attributes_is_named(tmp_path: Path, code: int) -> None:
    path = tmp_path / "1"
    path.write_bytes(b"x")
    with mock.patch("os.setxattr", side_effect=OSError(code, "")), pytest.raises(MarksUnsupported):
        whole_mark.put(0, mark_of(b"x"))
    with mock.patch("os.getxattr", side_effect=OSError(code, "")):
        assert whole_mark.read(path) is None


def test_other_faults_of_the_disk_are_told(tmp_path: Path) -> None:
    with mock.patch("os.setxattr", side_effect=OSError(errno.ENOSPC, "")), pytest.raises(OSError, match="28"):
        whole_mark.put(0, mark_of(b"x"))
    with mock.patch("os.getxattr", side_effect=OSError(errno.EIO, "")), pytest.raises(OSError, match="5"):
        whole_mark.read(tmp_path)
