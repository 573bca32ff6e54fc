"""What receiving costs beside throughput: idling, one huge object, setting up, the wait for an answer, delivery.

Run by `python -m bench.receive --case NAME`. The peers are plain sockets. Changes when another cost has a bar.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import psutil

from bench.servers import ROOT, TITLE, configure, free_port, process, receiver, role, router
from internal.spool import Spool
from tests.contract.dimse.wire import CT, EXPLICIT, Wire, command, context, data_set, p_data, pdv

SETTLE_S = 4.0
WATCH_S = 15.0
IDLE_ASSOCIATIONS = 200
HUGE_BYTES = 4_000_000_000
FRAGMENT_BYTES = 130_000
SYNTAXES = (EXPLICIT, "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.50")
YIELD_SECONDS = 10.0
SIZE_BYTES = 500_000


@dataclass(frozen=True)
class Figure:
    """One measured figure; `values` of several rounds, `sign` and `bar` what its median should keep to."""

    case: str
    figure: str
    values: Sequence[float]
    sign: str = ""
    bar: float = 0.0

    @property
    def holds(self) -> bool | None:
        """Whether the bar is kept, None without one."""
        if not self.sign:
            return None
        return median(self.values) >= self.bar if self.sign == ">=" else median(self.values) < self.bar


def _tree(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    return float(sum(sum(each.cpu_times()[:2]) for each in processes))


def _percent(processes: Sequence[psutil.Process]) -> float:
    """Percent of one core that `processes` use over WATCH_S."""
    before, began_s = _cpu_s(processes), time.monotonic()
    time.sleep(WATCH_S)
    return (_cpu_s(processes) - before) / (time.monotonic() - began_s) * 100


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def idle() -> list[Figure]:
    """The whole router with nothing to do, and with idle associations."""
    case = "idle"
    with _folder() as folder:
        port = free_port()
        with router(port, folder) as running:
            time.sleep(SETTLE_S)
            everything = _tree(running.pid)
            alone = [_percent(everything) for _ in range(3)]
            peers = [Wire(port) for _ in range(IDLE_ASSOCIATIONS)]
            for peer in peers:
                peer.associate(called=TITLE)
            time.sleep(1)
            held = _percent(everything)
            for peer in peers:
                peer.release()
    return [
        Figure(case, "idle router, % of one core", alone, "<", 1.0),
        Figure(case, f"with {IDLE_ASSOCIATIONS} idle associations, % of one core", [held], "<", 5.0),
    ]


def huge() -> list[Figure]:
    """One object of 4 GB: the most memory that the processes of the receive role had, added up."""
    uid = "1.2.826.0.1.99.4"
    head = data_set(uid, pixels=0)[:-12]
    head += struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, HUGE_BYTES)
    piece = bytes(FRAGMENT_BYTES)
    full = p_data(pdv(1, 0, piece))
    with _folder() as folder:
        port = free_port()
        with receiver(port, folder) as running, Wire(port, timeout=300) as wire:
            wire.associate(called=TITLE)
            began_s = time.monotonic()
            wire.send(p_data(pdv(1, 3, command(0x0001, 1, CT, uid))) + p_data(pdv(1, 0, head)))
            left = HUGE_BYTES
            while left > FRAGMENT_BYTES:
                wire.send(full)
                left -= FRAGMENT_BYTES
            wire.send(p_data(pdv(1, 2, bytes(left))))
            status = wire.response().status
            took_s = time.monotonic() - began_s
            peaks = [_peak_mb(each.pid) for each in _tree(running.pid)]
            wire.release()
        if status:
            raise RuntimeError(f"4 GB object refused with 0x{status:04X}")
    return [
        Figure("4 GB object", "memory of the receive role at its highest, MB", [sum(peaks)], "<", 150),
        Figure("4 GB object", "largest process, MB", [max(peaks)]),
        Figure("4 GB object", "MB/s", [HUGE_BYTES / took_s / 1e6]),
    ]


def _peak_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel does not tell VmHWM")


def setup() -> list[Figure]:
    """From the connect to the A-ASSOCIATE-AC, 200 times."""
    found = []
    with _folder() as folder:
        port = free_port()
        with receiver(port, folder):
            for count, bar in ((32, 15.0), (128, 40.0)):
                proposed = b"".join(
                    context(2 * number + 1, f"1.2.840.10008.5.1.4.1.1.{number + 1}", *SYNTAXES)
                    for number in range(count)
                )
                took_ms = []
                for _ in range(200):
                    began_s = time.perf_counter()
                    with Wire(port) as wire:
                        wire.associate(proposed, called=TITLE)
                        took_ms.append((time.perf_counter() - began_s) * 1000)
                        wire.release()
                name = f"setting up with {count} contexts"
                cuts = quantiles(took_ms, n=100)
                found += [Figure(name, "p50, ms", [cuts[49]]), Figure(name, "p95, ms", [cuts[94]], "<", bar)]
    return found


def answers() -> list[Figure]:
    """From the last byte of an image of 0.5 MB to its C-STORE-RSP; beside it what the disk takes for the same bytes."""
    case = "answer to 0.5 MB"
    with _folder() as folder:
        port = free_port()
        waits_ms, disk_ms = [], []
        with router(port, folder), Wire(port) as wire:
            wire.associate(called=TITLE)
            for number in range(500):
                uid = f"1.2.826.0.1.99.5.{number}"
                body = data_set(uid, pixels=0)[:-12] + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, SIZE_BYTES)
                wire.send(p_data(pdv(1, 3, command(0x0001, number, CT, uid))))
                wire.send_data(body + os.urandom(SIZE_BYTES), FRAGMENT_BYTES)
                began_s = time.perf_counter()
                if wire.response().status:
                    raise RuntimeError("an image was refused")
                waits_ms.append((time.perf_counter() - began_s) * 1000)
                disk_ms.append(_disk_ms(folder, number))
            wire.release()
    rows = []
    for name, values in (("C-STORE-RSP", waits_ms), ("bare fsync, rename, fsync of the directory", disk_ms)):
        cuts = quantiles(values, n=100)
        rows += [Figure(case, f"{name}, p{place}, ms", [cuts[place - 1]]) for place in (50, 95, 99)]
    return rows


def _disk_ms(folder: Path, number: int) -> float:
    path = folder / f"bare-{number}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    directory = os.open(folder, os.O_RDONLY)
    os.write(fd, os.urandom(SIZE_BYTES))
    began_s = time.perf_counter()
    os.fsync(fd)
    path.rename(folder / f"bare-{number}.done")
    os.fsync(directory)
    took_ms = (time.perf_counter() - began_s) * 1000
    os.close(fd)
    os.close(directory)
    return took_ms


class Sender(threading.Thread):
    """Sends images of `size_bytes` over one association until told to stop, made ready beforehand."""

    def __init__(self, port: int, root: str, size_bytes: int) -> None:
        super().__init__(daemon=True)
        self._port, self._root, self._stop_asked = port, root, threading.Event()
        starts = range(0, size_bytes, FRAGMENT_BYTES)
        self._tail = b"".join(
            p_data(pdv(1, 2 if start == starts[-1] else 0, os.urandom(min(FRAGMENT_BYTES, size_bytes - start))))
            for start in starts
        )
        self._size_bytes = size_bytes
        self.done = 0

    def run(self) -> None:
        """Send; a refusal ends it."""
        with Wire(self._port, timeout=60) as wire:
            wire.associate(called=TITLE)
            while not self._stop_asked.is_set():
                uid = f"{self._root}.{self.done}"
                study = f"{self._root}.9.{self.done // 200}"
                body = data_set(uid, study=study, series=f"{study}.1", pixels=0)[:-12]
                body += struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, self._size_bytes)
                wire.send(p_data(pdv(1, 3, command(0x0001, 1, CT, uid))) + p_data(pdv(1, 0, body)) + self._tail)
                if wire.response().status:
                    return
                self.done += 1
            wire.release()

    def stop(self) -> None:
        """Ask it to end and wait until it has."""
        self._stop_asked.set()
        self.join(60)


def _receive(port: int, seconds: float, size_bytes: int = 200_000, root: str = "1.2.826.0.1.99.6") -> float:
    """Images per second of two senders over `seconds`."""
    senders = [Sender(port, f"{root}.{number}", size_bytes) for number in range(2)]
    for sender in senders:
        sender.start()
    time.sleep(seconds)
    done = sum(sender.done for sender in senders)
    for sender in senders:
        sender.stop()
    if not done:
        raise RuntimeError("nothing was received")
    return done / seconds


def _delivered(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder / "archive"))


@contextmanager
def _deliver(folder: Path, port: int) -> Iterator[None]:
    """The deliver role, from its first delivered image on."""
    configuration = configure(folder, port, free_port(), settle="1s")
    delivered = _delivered(folder)
    with process(role(configuration, "--role", "deliver"), ROOT, lambda: _delivered(folder) > delivered):
        yield


def _yield_round() -> tuple[float, float, float, float]:
    """Delivery alone, receiving alone, then both: images/s. What is received alone is the backlog of the rest."""
    with _folder() as folder:
        port = free_port()
        with receiver(port, folder):
            receive_alone = _receive(port, YIELD_SECONDS)
            with _deliver(folder, port):
                before, began_s = _delivered(folder), time.monotonic()
                time.sleep(YIELD_SECONDS / 3)
                middle, middle_s = _delivered(folder), time.monotonic()
                receive_both = _receive(port, YIELD_SECONDS / 3, root="1.2.826.0.1.99.8")
                after, after_s = _delivered(folder), time.monotonic()
    delivery_alone = (middle - before) / (middle_s - began_s)
    return receive_alone, delivery_alone, receive_both, (after - middle) / (after_s - middle_s)


def yields() -> list[Figure]:
    """Receiving while a backlog is indexed and delivered to a folder; 2 senders, images of 200 KB."""
    case = "delivery yields"
    rounds = [_yield_round() for _ in range(3)]
    return [
        Figure(case, "receiving alone, images/s", [each[0] for each in rounds]),
        Figure(case, "index and delivery alone, images/s", [each[1] for each in rounds]),
        Figure(case, "receiving beside delivery : alone", [each[2] / each[0] for each in rounds], ">=", 0.6),
        Figure(case, "delivery beside receiving : alone", [each[3] / each[1] for each in rounds], ">=", 0.2),
    ]


def backlog(minutes: float = 5.0) -> list[Figure]:
    """What waits in new/ while two senders send images of 20 KB without pause for `minutes`."""
    with _folder() as folder:
        port = free_port()
        waiting: list[int] = []
        with router(port, folder):
            spool = Spool.open(folder / "data" / "spool", create=False)
            senders = [Sender(port, f"1.2.826.0.1.99.9.{number}", 20_000) for number in range(2)]
            for sender in senders:
                sender.start()
            until_s = time.monotonic() + minutes * 60
            while time.monotonic() < until_s:
                time.sleep(2)
                waiting.append(len(spool.scan_new(sys.maxsize)))
            done = sum(sender.done for sender in senders)
            for sender in senders:
                sender.stop()
    half = len(waiting) // 2
    case = f"{minutes:g} minutes of small images"
    return [
        Figure(case, "images/s", [done / minutes / 60]),
        Figure(case, "waiting in new/, first half", waiting[:half]),
        Figure(case, "waiting in new/, second half", waiting[half:]),
    ]


COSTS: dict[str, Callable[[], list[Figure]]] = {
    "idle": idle, "huge": huge, "setup": setup, "answers": answers, "yields": yields, "backlog": backlog,
}  # fmt: skip
