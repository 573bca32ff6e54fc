"""SIGTERM under load, and a disk that fills up and is given room again, while associations stay open."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.dimse.role import MOST_BYTES, Footprint, Role, until
from tests.contract.dimse.wire import Closed, Wire, data_set, served

SENDERS = 6
MIB = 1024 * 1024


class Sender(threading.Thread):
    """Stores without pause until the product ends the association; notes what was answered with success."""

    def __init__(self, port: int, number: int) -> None:
        super().__init__()
        self._port, self._number = port, number
        self.answered: dict[str, bytes] = {}

    def run(self) -> None:
        with Wire(self._port) as wire:
            wire.associate()
            for count in range(100_000):
                uid = f"1.2.{self._number}.{count}"
                body = data_set(uid, pixels=20_000)
                try:
                    if wire.store(1, uid, body).status == 0:
                        self.answered[uid] = body
                except (AssertionError, Closed, OSError):  # an A-ABORT instead of the answer, or the end of all
                    return


def test_sigterm_under_load_drains(start: Callable[..., Role]) -> None:
    role = start(children=2, drain_s=15)
    senders = [Sender(role.port, number) for number in range(SENDERS)]
    for sender in senders:
        sender.start()
    until(lambda: all(len(sender.answered) >= 5 for sender in senders), 60)
    role.process.send_signal(signal.SIGTERM)
    assert role.process.wait(25) == 0
    for sender in senders:
        sender.join(15)
        assert not sender.is_alive()
    kept = role.data_sets()
    answered = {uid: body for sender in senders for uid, body in sender.answered.items()}
    assert kept.items() >= answered.items()
    assert len(kept) <= len(answered) + SENDERS  # at most the answer in flight was lost, never an image
    assert role.temporary_files() == []
    assert len(role.records("shutdown")) + len(role.records("lost")) + len(role.records("aborted")) >= SENDERS


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(mount)], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip("a file system of its own cannot be mounted here")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def fill(ballast: Path, size: int) -> None:
    """Let a file take up so much of the disk."""
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def test_below_the_floor_of_free_space_it_refuses_and_resumes_by_itself(
    small_disk: Path, start: Callable[..., Role]
) -> None:
    role = start("disk/spool", min_free_bytes=32 * MIB)
    ballast = small_disk / "ballast"
    with Wire(role.port) as wire:
        wire.associate()
        assert wire.store(1, "1.2.1", data_set("1.2.1")).status == 0
        fill(ballast, 40 * MIB)
        refused = wire.store(2, "1.2.2", data_set("1.2.2"))
        assert (refused.status, bool(refused.comment)) == (0xA700, True)
        assert wire.echo() == 0
        assert served(role.port)
        ballast.unlink()
        assert wire.store(3, "1.2.2", data_set("1.2.2")).status == 0
        wire.release()
    assert role.data_sets().keys() == {"1.2.1", "1.2.2"}


def test_a_disk_that_is_really_full_refuses_and_resumes_by_itself(
    small_disk: Path, start: Callable[..., Role]
) -> None:
    role = start("disk/spool", min_free_bytes=0)
    footprint = Footprint(role)
    ballast = small_disk / "ballast"
    body = data_set("1.2.2", pixels=3 * MIB)
    with Wire(role.port) as wire:
        wire.associate()
        fill(ballast, 62 * MIB)
        assert wire.store(1, "1.2.2", body, fragment=100_000).status == 0xA700
        assert served(role.port)
        assert role.temporary_files() == []
        ballast.unlink()
        assert wire.store(2, "1.2.2", body, fragment=100_000).status == 0
        fill(ballast, 59 * MIB)
        assert wire.store(3, "1.2.4", body, fragment=100_000).status == 0xA700
        assert footprint.growth_bytes() < MOST_BYTES
        assert role.stop(25) == 0
    assert role.data_sets() == {"1.2.2": body} and role.temporary_files() == []
    assert "Traceback" not in role.log()
