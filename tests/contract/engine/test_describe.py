"""Full parsing beside delivery: the real limited process, hostile files, both database engines."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from internal import dicomfile, series_metadata
from internal.describe import Describer
from internal.errors import NotDicom, StorageFailed
from internal.model import Arrival
from internal.parser import Limits, Parser
from internal.ports import Work
from internal.spool import Entry
from internal.states import Finish, Outcome, State
from tests.contract.dimse.role import ROOT, peak_bytes, until
from tests.contract.engine.conftest import CT, Engine
from tests.unit.internal.test_outline import nested
from tests.unit.internal.test_scan import DEFLATED, EXPLICIT, element

STUDY = "1.2.5"  # what `identity` and `nested` of the scanner's tests say
SERIES = "1.2.5.6"


@pytest.fixture(scope="module")
def shared() -> Iterator[Parser]:
    """One process for most files; it takes a second to start."""
    made = Parser()
    yield made
    made.close()


@pytest.fixture
def parser() -> Iterator[Parser]:
    """One that is new."""
    made = Parser()
    yield made
    made.close()


@pytest.fixture
def describer(engine: Engine, shared: Parser) -> Describer:
    return Describer(engine.store, engine.spool, engine.clock, shared, threading.Event())


def receive_bytes(engine: Engine, data: bytes, sop_uid: str, syntax: str = EXPLICIT) -> Entry:
    incoming = engine.writer.begin()
    arrival = Arrival(engine.clock.ms, "", "CT1", "DCMROUTER", "10.0.0.9:1")
    incoming.write(dicomfile.build_meta(CT, sop_uid, syntax, arrival))
    incoming.write(data)
    return incoming.commit()


def settle(engine: Engine) -> None:
    """Let the studies settle, and their first rush be over."""
    engine.settle()
    engine.clock.ms += 10_000


def read(engine: Engine, study: str, series: str) -> series_metadata.SeriesMetadata:
    with engine.store.reading() as tx:
        found = series_metadata.series_metadata(tx, study, series)
    assert found is not None
    return found


def events(engine: Engine, code: str) -> int:
    with engine.store.reading() as tx:
        return int(tx.value("SELECT COUNT(*) FROM event WHERE code = ?", (code,)))


def test_headers_of_a_settled_study_are_a_row_per_series(engine: Engine, describer: Describer) -> None:
    first = engine.receive("1.2.9", sop_uid="1.2.9.1.1")
    engine.index()
    assert not describer.run_once()  # not settled yet
    settle(engine)
    assert describer.run_once()
    assert not describer.run_once()
    found = read(engine, "1.2.9", "1.2.9.1")
    assert (list(found.lines), found.unparsed, found.revision) == ([first.id], {}, 1)
    header = json.loads(found.lines[first.id])
    assert header["00080018"] == {"vr": "UI", "Value": ["1.2.9.1.1"]}
    assert header["00100020"]["Value"] == ["P1"]
    assert "7FE00010" not in header


def test_a_late_image_is_added_without_reading_the_others_again(engine: Engine, describer: Describer) -> None:
    first = engine.receive("1.2.9", sop_uid="1.2.9.1.1")
    settle(engine)
    assert describer.run_once()
    engine.spool.locate(first.id).unlink()  # nobody reads it again
    late = engine.receive("1.2.9", sop_uid="1.2.9.1.2")
    settle(engine)
    assert describer.run_once()
    found = read(engine, "1.2.9", "1.2.9.1")
    assert (set(found.lines), found.unparsed, found.revision) == ({first.id, late.id}, {}, 2)


def test_while_studies_are_sent_it_waits_for_its_turn(engine: Engine, describer: Describer) -> None:
    """A job in hand of another study: only what has waited for ten minutes is begun."""
    engine.receive("1.2.9", sop_uid="1.2.9.1.1")
    settle(engine)

    def look(work: Work) -> Outcome:
        assert not describer.run_once()
        engine.clock.ms += 600_000
        assert describer.run_once()
        return Finish()

    engine.destination.script = look
    assert engine.work()
    assert list(read(engine, "1.2.9", "1.2.9.1").lines) != []


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "300 nests": (lambda: nested(300, defined=False), EXPLICIT),
    "248 nests of known length": (lambda: nested(248, defined=True), EXPLICIT),
    "100,000 open sequences": (lambda: nested(0, defined=True) + (
        struct.pack("<HH2sHI", 0x40, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    ) * 100_000, EXPLICIT),
    "300,000 elements": (lambda: nested(0, defined=True) + element(0x21, 1, b"UL", b"") * 300_000, EXPLICIT),
}  # fmt: skip


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_hostile_headers_are_noted_and_delivered_all_the_same(engine: Engine, describer: Describer) -> None:
    honest = receive_bytes(engine, nested(2, defined=True).replace(b"1.2.3.4\0", b"1.2.3.5\0"), "1.2.3.5")
    bad = {}
    for number, (make, syntax) in enumerate(HOSTILE.values(), 6):
        uid = f"1.2.3.{number}"
        bad[receive_bytes(engine, make().replace(b"1.2.3.4\0", uid.encode() + b"\0"), uid, syntax).id] = uid
    settle(engine)
    assert describer.run_once()
    found = read(engine, STUDY, SERIES)
    assert list(found.lines) == [honest.id]
    assert found.unparsed.keys() == bad.keys()
    assert set(found.unparsed.values()) == {
        "sequences are nested too deep", "the header has more than 200,000 elements"}
    assert events(engine, "metadata-unparsed") == 1
    while engine.work():
        pass
    assert engine.states() == [State.DONE]


def file_of(folder: Path, data: bytes, name: str = "a") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_a_bomb_fills_neither_memory_nor_time(parser: Parser, tmp_path: Path) -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    private = struct.pack("<HH2sHI", 0x19, 0x1001, b"UN", 0, 1 << 30)
    bomb = deflate.compress(nested(1, defined=True) + private + bytes(400 * 1024 * 1024)) + deflate.flush()
    line = parser.header_json(file_of(tmp_path, bomb), 0, DEFLATED)
    assert json.loads(line)["0020000D"]["Value"] == [STUDY]
    assert parser.pid is not None and peak_bytes(parser.pid) < 200 * 1024 * 1024


def many_elements(count: int) -> bytes:
    return nested(0, defined=True) + b"".join(
        struct.pack("<HH2sHI", 0x29 + 2 * (n // 60_000), 0x1000 + n % 60_000, b"UN", 0, 200) + bytes(200)
        for n in range(count))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits for a process")
def test_the_kernel_bounds_memory_and_the_next_file_is_parsed(tmp_path: Path) -> None:
    parser = Parser(Limits(memory_bytes=200 * 1024 * 1024, cpu_s=60))
    try:
        with pytest.raises(NotDicom, match="memory"):
            parser.header_json(file_of(tmp_path, many_elements(140_000)), 0, EXPLICIT)
        line = parser.header_json(file_of(tmp_path, nested(1, defined=True), "b"), 0, EXPLICIT)
        assert json.loads(line)["0020000D"]["Value"] == [STUDY]
        assert parser.pid is not None and peak_bytes(parser.pid) < 200 * 1024 * 1024
    finally:
        parser.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits for a process")
@pytest.mark.parametrize("limits", [Limits(cpu_s=1), Limits(wall_s=0.5)], ids=["computing", "waiting"])
def test_time_is_bounded_and_the_next_file_is_parsed(tmp_path: Path, limits: Limits) -> None:
    parser = Parser(limits)
    try:
        with pytest.raises(NotDicom, match="more time"):
            parser.header_json(file_of(tmp_path, many_elements(140_000)), 0, EXPLICIT)
        line = parser.header_json(file_of(tmp_path, nested(1, defined=True), "b"), 0, EXPLICIT)
        assert json.loads(line)["0020000D"]["Value"] == [STUDY]
    finally:
        parser.close()


def test_one_process_of_the_lowest_priority_serves_many_files(parser: Parser, tmp_path: Path) -> None:
    path = file_of(tmp_path, nested(1, defined=True))
    parser.header_json(path, 0, EXPLICIT)
    pid = parser.pid
    assert pid is not None
    for _ in range(20):
        parser.header_json(path, 0, EXPLICIT)
    assert parser.pid == pid
    assert os.getpriority(os.PRIO_PROCESS, pid) == 19
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(NotDicom):
        parser.header_json(path, 0, EXPLICIT)
    parser.header_json(path, 0, EXPLICIT)
    assert parser.pid != pid


def test_stopping_does_not_wait_for_a_file(parser: Parser, tmp_path: Path) -> None:
    path = file_of(tmp_path, many_elements(140_000))
    ended: list[str] = []

    def parse() -> None:
        try:
            parser.header_json(path, 0, EXPLICIT)
        except StorageFailed as error:
            ended.append(str(error))

    thread = threading.Thread(target=parse)
    thread.start()
    until(lambda: parser.pid is not None)
    parser.stop()
    thread.join(20)
    assert ended == ["the parser was stopped"]


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    path = file_of(tmp_path, nested(1, defined=True))
    code = ("import sys, pathlib\nfrom internal.parser import Parser\np = Parser()\n"
            f"p.header_json(pathlib.Path({str(path)!r}), 0, '{EXPLICIT}')\n"
            "print(p.pid, flush=True)\nsys.stdin.read()\n")
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    until(lambda: not Path(f"/proc/{pid}").exists() or "Z (zombie)" in Path(f"/proc/{pid}/status").read_text())
