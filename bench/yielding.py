"""Does delivery yield? Receiving, delivering, and both at once, each for the same time.

Run by `python -m bench.receive --case yields`. Changes when the load or what is compared does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Figure
from bench.sender import STUDY_IMAGES, Sender, sending
from bench.servers import delivered, deliverer, free_port, give_back, memory_at_hand, receiver
from internal.spool import EntryKind, Spool

SECONDS = 8.0
#: More than what comes in and is copied meanwhile takes of the page cache.
_PAGES_BYTES = 4_000_000_000
WARM_S = 2.0
SIZE_BYTES = 200_000
SENDERS = 2
#: So many lie in the router before anything is measured: delivery alone and beside receiving must not run out of them.
BACKLOG_IMAGES = 12_000
_ROOT = "1.2.826.0.1.99.6"


@dataclass(frozen=True)
class Rates:
    """Images per second that came in and went out, percent of one core that all senders took."""

    received: float
    delivered: float
    senders_percent: float


@dataclass(frozen=True)
class Round:
    """One measurement of each."""

    receiving: Rates
    delivering: Rates
    both: Rates


def rates(folder: Path, senders: Sequence[Sender]) -> Rates:
    """Count over SECONDS, after WARM_S in which nothing is counted; the same for whatever runs."""
    time.sleep(WARM_S)
    before, began_s = _counts(folder, senders), time.monotonic()
    time.sleep(SECONDS)
    after, took_s = _counts(folder, senders), time.monotonic() - began_s
    received, sent_on, cpu_s = ((now - then) / took_s for now, then in zip(after, before, strict=True))
    return Rates(received, sent_on, cpu_s * 100)


def _counts(folder: Path, senders: Sequence[Sender]) -> tuple[float, float, float]:
    return (sum(sender.done for sender in senders), delivered(folder), sum(sender.cpu_s for sender in senders))


def _received(port: int, folder: Path, name: int) -> Rates:
    """Rates with senders; `name` makes their UIDs other than those of the same round before."""
    with sending(port, f"{_ROOT}.{name}", SIZE_BYTES, SENDERS) as senders:
        return rates(folder, senders)


def _fill(port: int) -> None:
    with sending(port, f"{_ROOT}.1", SIZE_BYTES, SENDERS) as senders:
        while sum(sender.done for sender in senders) < BACKLOG_IMAGES and all(sender.is_alive for sender in senders):
            time.sleep(0.1)


def _round(folder: Path, *, alone_first: bool) -> Round:
    """Receiving alone with the deliver role off; the order is turned round, as nothing of a round may favour one.

    Alone comes before the backlog, or when that is indexed: beside delivery new/ does not hold all of it either. Memory
    is brought before the deliver role starts, which would have sent the backlog on meanwhile.
    """
    port = free_port()
    with receiver(port, folder):
        if alone_first:
            receiving = _received_alone(port, folder)
        _fill(port)
        backlog = _held(folder)
        with memory_at_hand(_PAGES_BYTES), deliverer(port, folder):
            if alone_first:
                delivering = rates(folder, ())
            both = _received(port, folder, 3)
            if not alone_first:
                delivering = rates(folder, ())
            _check_left(folder, backlog)
        if not alone_first:
            receiving = _received_alone(port, folder)
    return Round(receiving, delivering, both)


def _received_alone(port: int, folder: Path) -> Rates:
    with memory_at_hand(_PAGES_BYTES):
        return _received(port, folder, 2)


def _held(folder: Path) -> int:
    spool = Spool.open(folder / "data" / "spool", create=False)
    return sum(entry.kind is EntryKind.INSTANCE for entry in spool.all_ids())


def _check_left(folder: Path, backlog: int) -> None:
    """RuntimeError if delivery may have had nothing to do before the end, as if nothing newer had been sent on."""
    left = backlog - delivered(folder)
    if left < SENDERS * STUDY_IMAGES:
        raise RuntimeError(f"{left} images were left to deliver: a larger backlog is needed")


def yields(rounds: int, base: Path) -> list[Figure]:
    """Receiving while a backlog is indexed and delivered to a folder, in `rounds` of alternating order."""
    found = []
    for number in range(rounds):
        folder = base / str(number)
        folder.mkdir()
        found.append(_round(folder, alone_first=number % 2 == 0))
        give_back(folder)
    return figures_of(found)


def figures_of(found: Sequence[Round]) -> list[Figure]:
    """Return the rates, and the ratios within the rounds with their bars."""
    case = f"delivery yields, {len(found)} round{'s' * (len(found) != 1)}"
    return [
        Figure(case, "receiving alone, images/s", [each.receiving.received for each in found]),
        Figure(case, "its senders, % of one core", [each.receiving.senders_percent for each in found]),
        Figure(case, "index and delivery alone, images/s", [each.delivering.delivered for each in found]),
        Figure(case, "receiving beside delivery : alone",
               [each.both.received / each.receiving.received for each in found], ">=", 0.6),
        Figure(case, "delivery beside receiving : alone",
               [each.both.delivered / each.delivering.delivered for each in found], ">=", 0.2),
    ]  # fmt: skip
