"""Nothing that was answered with 0x0000 may be lost by a power cut: by the order of system calls, and by cutting."""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from interface.roles import SystemClock
from internal import whole_mark
from internal.dicomfile import read_meta
from internal.indexer import Indexer
from internal.spool import Entry, EntryKind, Spool
from internal.store import Store
from tests.contract.dimse.role import ROOT, Role, until
from tests.contract.dimse.wire import Closed, Wire, data_set

LIE = {"ROUTER_FAULT": "lie.ack:on"}


def need(condition: bool, what: str) -> None:
    if not condition:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{what} is missing")
        pytest.skip(f"{what} is missing")


# -- the order of system calls ---------------------------------------------------------------------------------------

CALL = re.compile(r"^(\w+)\((.*)\)\s+= (-?\d+)")
IN_TMP = re.compile(r'"([^"]*/tmp/receive-\d+/\d+)"')
NO_MARKS = {"ROUTER_FAULT": "store.mark:eio"}
MARKS = {"ROUTER_FAULT": "store.mark_anywhere:on"}


def unproven_answers(trace: list[str]) -> int:
    """How many C-STORE responses in one thread's trace left before file and name were durable.

    Either the file was renamed into new/ and that was fsynced, or it was fsynced, with its mark, under a name in tmp/
    that an fsync of tmp/ had made durable before.
    """
    unproven = answers = 0
    made: set[str] = set()
    named: set[str] = set()
    written: set[str] = set()
    marked: set[str] = set()
    synced: set[str] = set()
    name_due = name_durable = False
    for line in trace:
        call = CALL.match(line)
        if call is None:
            continue
        name, arguments, path = call[1], call[2], path_of(call[2])
        if name == "openat" and "O_CREAT" in arguments and (opened := IN_TMP.search(arguments)):
            made.add(opened[1])
        elif name in ("write", "writev", "pwritev") and "/tmp/receive-" in path:
            written.add(path)
            marked.discard(path)
            synced.discard(path)
            name_durable = False
        elif name == "fsetxattr":
            marked.add(path)
            synced.discard(path)
        elif name in ("fsync", "fdatasync") and re.search(r"/tmp/receive-\d+$", path):
            named |= made
        elif name in ("fsync", "fdatasync") and "/tmp/receive-" in path:
            synced.add(path)
            name_durable = path in named & written & marked
        elif name.startswith("rename") and ".dcm" in arguments:
            source = IN_TMP.search(arguments)
            name_due = source is not None and source[1] in written & synced
            name_durable = False
        elif name in ("fsync", "fdatasync") and path.endswith("/new"):
            name_durable = name_durable or name_due
        elif name == "sendto" and "\\1\\200" in arguments:  # Command Field 0x8001
            answers += 1
            unproven += not name_durable
            name_due = name_durable = False
            written.clear()
            synced.clear()
    assert answers, "no answer was seen"
    return unproven


def path_of(arguments: str) -> str:
    found = re.search(r"\d+<([^>]*)>", arguments)
    return found[1] if found else ""


def traced_stores(tmp_path: Path, environment: dict[str, str]) -> list[str]:
    """The system calls of the thread that answered, behind those that other threads had made before its first one."""
    need(shutil.which("strace") is not None, "strace")
    calls = "openat,write,writev,pwritev,fsetxattr,fsync,fdatasync,rename,renameat,renameat2,sendto"
    prefix = ["strace", "-ff", "-ttt", "-y", "-s", "300", "-o", str(tmp_path / "trace"), "-e", f"trace={calls}"]
    role = Role(tmp_path / "spool", prefix=prefix, environment=environment)
    with Wire(role.port) as wire:
        wire.associate()
        for number in range(5):
            assert wire.store(number, f"1.2.{number}", data_set(f"1.2.{number}", pixels=300_000)).status == 0
        wire.release()
    os.kill(role.status("receive.json")["pid"], 15)
    assert role.process.wait(30) == 0
    assert role.process.stdin
    role.process.stdin.close()
    traces = [path.read_text(errors="replace").splitlines() for path in tmp_path.glob("trace.*")]
    for trace in traces:
        if any("sendto" in line and "\\1\\200" in line for line in trace):
            before = sorted(line for other in traces if other is not trace for line in other if line < trace[0])
            return [line.partition(" ")[2] for line in (*before, *trace)]
    raise AssertionError("no thread answered a C-STORE")


@pytest.mark.strace
@pytest.mark.parametrize(("environment", "renames"), [({}, 0), (NO_MARKS, 5)], ids=["marked", "no marks"])
def test_each_answer_follows_bytes_and_a_name_that_are_durable(
    tmp_path: Path, environment: dict[str, str], renames: int
) -> None:
    trace = traced_stores(tmp_path, environment)
    assert unproven_answers(trace) == 0
    assert sum(line.startswith("rename") and ".dcm" in line for line in trace) == renames


@pytest.mark.strace
def test_the_proof_of_order_finds_a_receiver_that_lies(tmp_path: Path) -> None:
    assert unproven_answers(traced_stores(tmp_path, LIE)) == 5


# -- cutting the power -----------------------------------------------------------------------------------------------


class Power:
    """A mounted forgetful file system (tests/system/powerfs.py)."""

    def __init__(self, mount: Path) -> None:
        self.mount = mount
        self.marked = 0  #: cuts that left a marked file in tmp/
        mount.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.powerfs", str(mount)], cwd=ROOT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        until(lambda: os.path.ismount(mount), what="the file system was not mounted")

    def cut(self, target: Path) -> None:
        assert self.process.stdin and self.process.stdout
        print(target, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "cut\n"
        self.marked += any(whole_mark.read(path) for path in target.rglob("tmp/*/*"))

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.mount)], check=False, capture_output=True)
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def power(tmp_path: Path) -> Iterator[Power]:
    fuse = subprocess.run([sys.executable, "-c", "import fuse"], check=False, capture_output=True)
    need(Path("/dev/fuse").exists() and fuse.returncode == 0 and os.geteuid() == 0, "FUSE (libfuse2, /dev/fuse, root)")
    system = Power(tmp_path / "mount")
    yield system
    system.close()


class Load:
    """Senders that store without pause and note each instance once it is answered with success."""

    def __init__(self, port: int, senders: int, seed: int) -> None:
        self.acknowledged: dict[str, bytes] = {}
        self.permits = threading.Semaphore(0)  #: one per instance: what is kept must not grow faster than the cuts
        self._port = port
        self._seed = seed
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(senders)]
        for thread in self._threads:
            thread.start()

    def _send(self, sender: int) -> None:
        rng = random.Random(self._seed * 100 + sender)
        count = 0
        while not self._stop.is_set():
            try:
                with Wire(self._port) as wire:
                    wire.associate()
                    for _ in range(rng.randint(1, 8)):
                        while not self.permits.acquire(timeout=0.2):
                            if self._stop.is_set():
                                return
                        count += 1
                        uid = f"1.2.{sender}.{count}"
                        body = data_set(uid, pixels=rng.choice((10, 3_000, 60_000)))
                        if wire.store(1, uid, body).status == 0:
                            self.acknowledged[uid] = body
                    wire.release()
            except (Closed, OSError):
                continue

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


class Indexing:
    """The index of deliver, taking what comes from new/ to cur/; its database lies where the power stays on."""

    def __init__(self, spool: Path, database: Path) -> None:
        self.indexed = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(Spool.open(spool), database))
        self._thread.start()

    def _run(self, spool: Spool, database: Path) -> None:
        with closing(Store.open(f"sqlite://{database}")) as store:
            store.migrate()
            indexer = Indexer(spool, store, SystemClock())
            while not self._stop.wait(0.01):
                self.indexed += indexer.run_once().indexed

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def lost_after(folder: Path, acknowledged: dict[str, bytes]) -> list[str]:
    """The acknowledged instances that a start on `folder` would not find with their bytes."""
    try:
        spool = Spool.open(folder, create=False)
    except Exception:
        return list(acknowledged)
    found: dict[str, bytes] = {}
    spool.take_in_leftovers()
    for entry in spool.all_ids():
        if entry.kind is EntryKind.INSTANCE:
            with spool.open_entry(entry.id) as file:
                data = file.read()
            try:
                meta = read_meta(io.BytesIO(data))
            except Exception:
                continue
            found[meta.sop_uid] = data[meta.dataset_offset :]
    return [uid for uid, body in acknowledged.items() if found.get(uid) != body]


@dataclass
class Cuts:
    """What cutting the power has shown: the acknowledged instances that each cut lost, and how much there was."""

    losses: list[list[str]]
    acknowledged: int
    indexed: int


def cut_many(power: Power, tmp_path: Path, cuts: int, environment: dict[str, str], seed: int) -> Cuts:
    """Cut the power `cuts` times at random moments while instances come in and are indexed."""
    rng = random.Random(seed)
    role = Role(power.mount / "spool", children=2, environment=environment)
    load = Load(role.port, senders=2, seed=seed)
    indexing = Indexing(power.mount / "spool", tmp_path / "index.db")
    losses: list[list[str]] = []
    try:
        for number in range(cuts):
            load.permits.release(12)
            goal = len(load.acknowledged) + rng.randint(1, 6)
            until(lambda goal=goal: len(load.acknowledged) >= goal, 60)  # type: ignore[misc]
            pause = threading.Event()
            pause.wait(rng.random() * 0.02)  # any moment between two answers
            before = dict(load.acknowledged)
            folder = tmp_path / f"cut{number}"
            power.cut(folder)
            losses.append(lost_after(folder / "spool", before))
            if number < cuts - 1:
                shutil.rmtree(folder)
    finally:
        load.stop()
        indexing.stop()
        role.kill()
    return Cuts(losses, len(load.acknowledged), indexing.indexed)


@pytest.mark.fuse
@pytest.mark.parametrize("environment", [MARKS, {}], ids=["marked", "no marks"])
def test_nothing_answered_is_lost_in_20_power_cuts(
    power: Power, tmp_path: Path, environment: dict[str, str]
) -> None:
    seed = random.SystemRandom().randrange(10_000)
    found = cut_many(power, tmp_path, 20, environment, seed)
    assert found.losses == [[]] * 20, f"seed {seed}"
    assert found.indexed > 0
    assert power.marked > 0 if environment else power.marked == 0
    again = Role(tmp_path / "cut19" / "spool")  # what the last cut left is a spool to go on with
    with Wire(again.port) as wire:
        wire.associate()
        assert wire.store(1, "1.2.99", data_set("1.2.99")).status == 0
        wire.release()
    assert again.stop() == 0


@pytest.mark.fuse
@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("environment", [MARKS, {}], ids=["marked", "no marks"])
def test_nothing_answered_is_lost_in_200_power_cuts(
    power: Power, tmp_path: Path, environment: dict[str, str], record_property: Callable[[str, object], None]
) -> None:
    seed = random.SystemRandom().randrange(10_000)
    found = cut_many(power, tmp_path, 200, environment, seed)
    assert found.losses == [[]] * 200, f"seed {seed}"
    assert found.indexed > 0
    for name, value in (("cuts", len(found.losses)), ("acknowledged", found.acknowledged),
                        ("indexed", found.indexed), ("lost", sum(map(len, found.losses)))):
        record_property(name, value)


@pytest.mark.fuse
def test_what_is_indexed_is_in_new_or_cur_whenever_the_power_is_cut(power: Power, tmp_path: Path) -> None:
    spool = Spool.open(power.mount / "spool")
    writer = spool.writer("receive-0")

    def receive() -> Entry:
        incoming = writer.begin()
        incoming.write(b"image")
        return incoming.commit()

    def left(number: int) -> set[Entry]:
        power.cut(tmp_path / f"cut{number}")
        return set(Spool.open(tmp_path / f"cut{number}" / "spool", create=False).all_ids())

    first = [receive() for _ in range(5)]
    spool.to_cur(first)
    assert left(1) == set(first)
    second = receive()  # makes new/ durable as it is now, without the first
    assert left(2) == {*first, second}
    spool.return_to_new([first[0].id])
    spool.set_aside(first[1], "a reason")
    assert left(3) >= {first[0], *first[2:], second}  # the old name of what was set aside may have stayed
    assert (tmp_path / "cut3" / "spool" / "bad" / first[1].file_name).read_bytes() == b"image"


@pytest.mark.fuse
def test_the_power_cuts_find_a_receiver_that_lies(power: Power, tmp_path: Path) -> None:
    assert all(cut_many(power, tmp_path, 3, LIE, seed=1).losses)
