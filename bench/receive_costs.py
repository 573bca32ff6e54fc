"""What receiving costs beside throughput: idling, one huge object, setting up, the wait for an answer, delivery.

Run by `python -m bench.receive --case NAME`. The peers are plain sockets. Changes when another cost has a bar.
"""

from __future__ import annotations

import os
import random
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import quantiles

import psutil

from bench.figures import Figure, growth_percent
from bench.sender import FRAGMENT_BYTES, sending
from bench.servers import TITLE, deliverer, free_port, receiver, router
from bench.yielding import yields
from tests.contract.dimse.wire import CT, EXPLICIT, Wire, command, context, data_set, element, explicit, p_data, pdv

SETTLE_S = 5.0
WATCH_S = 12.0
IDLE_ASSOCIATIONS = 200
#: Multi-frame True Color Secondary Capture
MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.7.4"
JPEG = "1.2.840.10008.1.2.4.50"
FRAME_BYTES = 1_000_000
#: More than 4 GiB in all, where a length of 32 bits would end.
FRAMES = 4_400
FRAME_EDGE = 2048
HUGE_DELIVERY_S = 300.0
SYNTAXES = (EXPLICIT, "1.2.840.10008.1.2", "1.2.840.10008.1.2.4.70", JPEG)
SIZE_BYTES = 500_000
SMALL_BYTES = 20_000
#: A queue that falls behind by two percent is seen as such; one that only goes up and down stays below half of this.
GROWTH_BAR_PERCENT = 1.0


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


def idle(samples: int, base: Path) -> list[Figure]:
    """The whole router with nothing to do, and with idle associations."""
    case = "idle"
    port = free_port()
    with router(port, base) as running:
        time.sleep(SETTLE_S)
        everything = _tree(running.pid)
        alone = [_percent(everything) for _ in range(samples)]
        peers = [Wire(port) for _ in range(IDLE_ASSOCIATIONS)]
        for peer in peers:
            peer.associate(called=TITLE)
        time.sleep(1)
        held = [_percent(everything) for _ in range(samples)]
        for peer in peers:
            peer.release()
    return [
        Figure(case, "idle router, % of one core", alone, "<", 1.0),
        Figure(case, f"with {IDLE_ASSOCIATIONS} idle associations, % of one core", held, "<", 5.0),
    ]


def multi_frame(uid: str, frame: bytes, frames: int) -> Iterator[bytes]:
    """Yield a data set of `frames` compressed frames, each in a fragment of its own (PS3.5 A.4), as P-DATA.

    `frame` is of even length. What is yielded is never more than one frame.
    """
    head = data_set(uid, MULTI_FRAME, pixels=0)[:-12]
    values = ((0x0002, b"US", struct.pack("<H", 3)), (0x0004, b"CS", b"YBR_FULL_422"), (0x0006, b"US", bytes(2)),
              (0x0008, b"IS", str(frames).encode()), (0x0010, b"US", struct.pack("<H", FRAME_EDGE)),
              (0x0011, b"US", struct.pack("<H", FRAME_EDGE)), (0x0100, b"US", struct.pack("<H", 8)),
              (0x0101, b"US", struct.pack("<H", 8)), (0x0102, b"US", struct.pack("<H", 7)), (0x0103, b"US", bytes(2)))
    head += b"".join(explicit(0x0028, number, vr, value) for number, vr, value in values)
    head += struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + element(0xFFFE, 0xE000, b"")
    yield p_data(pdv(1, 0, head))
    item = element(0xFFFE, 0xE000, frame)
    parts = (item[start : start + FRAGMENT_BYTES] for start in range(0, len(item), FRAGMENT_BYTES))
    whole = b"".join(p_data(pdv(1, 0, part)) for part in parts)
    for _ in range(frames):
        yield whole
    yield p_data(pdv(1, 2, element(0xFFFE, 0xE0DD, b"")))


def huge(base: Path) -> list[Figure]:
    """One multi-frame object of more than 4 GiB: the most memory that the processes of a role had, added up.

    Received with the receive role alone; then the deliver role takes it as far as into a folder.
    """
    case = f"object of {FRAMES:,} compressed frames, {FRAMES * FRAME_BYTES / 1e9:.1f} GB"
    uid = "1.2.826.0.1.99.4"
    frame = b"\xff\xd8" + os.urandom(FRAME_BYTES - 4) + b"\xff\xd9"
    port = free_port()
    with receiver(port, base) as running:
        with Wire(port, timeout=300) as wire:
            wire.associate(context(1, MULTI_FRAME, JPEG), called=TITLE)
            began_s = time.monotonic()
            wire.send(p_data(pdv(1, 3, command(0x0001, 1, MULTI_FRAME, uid))))
            for piece in multi_frame(uid, frame, FRAMES):
                wire.send(piece)
            status = wire.response().status
            took_s = time.monotonic() - began_s
            peaks = [_peak_mb(each.pid) for each in _tree(running.pid)]
            wire.release()
        if status:
            raise RuntimeError(f"{case} refused with 0x{status:04X}")
        with deliverer(port, base, start_s=HUGE_DELIVERY_S) as delivering:
            delivery_peak = sum(_peak_mb(each.pid) for each in _tree(delivering.pid))
    return [
        Figure(case, "memory of the receive role at its highest, MB", [sum(peaks)], "<", 150),
        Figure(case, "largest process, MB", [max(peaks)]),
        Figure(case, "MB/s", [FRAMES * FRAME_BYTES / took_s / 1e6]),
        Figure(case, "memory of the deliver role until it is delivered, MB", [delivery_peak]),
    ]


def _peak_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel does not tell VmHWM")


def setup(base: Path) -> list[Figure]:
    """From the connect to the A-ASSOCIATE-AC, 200 times."""
    found = []
    port = free_port()
    with receiver(port, base):
        for count, bar in ((32, 15.0), (128, 40.0)):
            proposed = b"".join(
                context(2 * number + 1, f"1.2.840.10008.5.1.4.1.1.{number + 1}", *SYNTAXES) for number in range(count)
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


def answers(base: Path) -> list[Figure]:
    """From the last byte of an image of 0.5 MB to its C-STORE-RSP; beside it what the disk takes for the same bytes."""
    case = "answer to 0.5 MB"
    port = free_port()
    waits_ms, disk_ms = [], []
    with router(port, base), Wire(port) as wire:
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
            disk_ms.append(_disk_ms(base, number))
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


def backlog(base: Path, minutes: float = 5.0) -> list[Figure]:
    """What waits in new/ while two senders send images of 20 KB without pause for `minutes`."""
    port = free_port()
    at_s: list[float] = []
    waiting: list[int] = []
    with router(port, base), sending(port, "1.2.826.0.1.99.9", SMALL_BYTES) as senders:
        time.sleep(SETTLE_S)  # from empty to its usual ups and downs is no growth
        done, began_s = sum(sender.done for sender in senders), time.monotonic()
        while time.monotonic() - began_s < minutes * 60:
            # At no fixed interval: the indexer has one of its own, and the two would beat.
            time.sleep(random.uniform(0.5, 1.5))
            waiting.append(sum(1 for _ in os.scandir(base / "data" / "spool" / "new")))
            at_s.append(time.monotonic() - began_s)
        arriving_per_s = (sum(sender.done for sender in senders) - done) / (time.monotonic() - began_s)
    half = len(waiting) // 2
    case = f"{minutes:g} minutes of small images"
    return [
        Figure(case, "images/s", [arriving_per_s]),
        Figure(case, "waiting in new/, first half", waiting[:half]),
        Figure(case, "waiting in new/, second half", waiting[half:]),
        Figure(case, "growth of new/, % of what arrives", [growth_percent(at_s, waiting, arriving_per_s)], "<",
               GROWTH_BAR_PERCENT),
    ]  # fmt: skip


#: By name: given how often to measure what varies from one time to the next, and a folder for what is written.
COSTS: dict[str, Callable[[int, Path], list[Figure]]] = {
    "idle": idle, "huge": lambda _, base: huge(base), "setup": lambda _, base: setup(base),
    "answers": lambda _, base: answers(base), "yields": yields, "backlog": lambda _, base: backlog(base),
}  # fmt: skip
