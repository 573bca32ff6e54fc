"""What is seen to before a server is measured."""

from __future__ import annotations

import mmap
import os
import sys
import threading
from pathlib import Path

import pytest

from bench import servers


def test_a_folder_whose_storescu_is_a_script_is_left_out(tmp_path: Path) -> None:
    for name, head in (("dcmtk", b"\x7fELF"), ("pynetdicom", b"#!/usr/bin/python3\n"), ("neither", None)):
        (tmp_path / name).mkdir()
        if head is not None:
            (tmp_path / name / "storescu").write_bytes(head)
    folders = [str(tmp_path / name) for name in ("pynetdicom", "dcmtk", "neither", "nowhere")]
    assert servers.with_programs_only(folders).split(os.pathsep) == folders[1:]


@pytest.mark.skipif(sys.platform != "linux", reason="ext4 is Linux's")
def test_a_journal_is_looked_for_where_the_folder_lies(tmp_path: Path) -> None:
    """What is said of this machine is what the kernel lists, and a folder of no disk has none."""
    device = tmp_path.stat().st_dev
    name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
    on_ext = (Path("/proc/fs/ext4") / name).is_dir()
    journals = [path.name for path in Path("/proc/fs/jbd2").iterdir()] if Path("/proc/fs/jbd2").is_dir() else []
    assert servers.has_no_journal(tmp_path) == (on_ext and not any(j.startswith(f"{name}-") for j in journals))
    assert not servers.has_no_journal(Path("/proc"))
    assert not servers.has_no_journal(tmp_path / "nowhere")


def test_how_dear_a_file_is_is_seen_by_making_some_that_stay(tmp_path: Path) -> None:
    assert servers.dearness(tmp_path / "a") > 0
    names = list((tmp_path / "a").iterdir())
    assert len(names) == 200 and len({name.stat().st_ino for name in names}) == 100


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is asked for memory")
def test_no_more_memory_is_taken_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_LOOSE_BYTES", 8 << 20)
    monkeypatch.setattr(servers, "_free_bytes", lambda: 64 << 20)
    with servers.memory_at_hand(8 << 20):
        assert any(thread.name == "memory" for thread in threading.enumerate())
    assert not any(thread.name == "memory" for thread in threading.enumerate())
    assert servers.warmable_bytes() <= 32 << 20
    monkeypatch.undo()
    assert 0 < servers.warmable_bytes() <= 4 << 30


def test_so_much_memory_is_given_back_as_others_have_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    free_mb, ended, given_mb = iter([100, 100, 90, 90, 64]), threading.Event(), []
    monkeypatch.setattr(servers, "_LOOSE_BYTES", 8 << 20)
    monkeypatch.setattr(servers, "_GIVE_EVERY_S", 0)
    monkeypatch.setattr(servers, "_free_bytes", lambda: next(free_mb) << 20)
    with mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        pages.write(bytes([1]) * len(pages))

        def rest(_seconds: float) -> None:
            given_mb.append(sum(pages[place] == 0 for place in range(0, len(pages), 2 << 20)) * 2)

        monkeypatch.setattr(ended, "wait", rest)
        servers._give_memory(pages, ended)
    assert given_mb == [8, 26, 44, 64]
