"""SQL for how many images came in which hour: written with each new instance, added up by charts and forecasts.

Written by `index`, read by `overview`; imports model and store. Changes when arrivals are counted by something else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from internal.model import Instance
from internal.store import Tx, storable

HOUR_MS = 3_600_000
#: A hostile peer may invent titles and modalities; beyond this many in one hour they are counted together.
MAX_ROWS_PER_HOUR = 500
_MAX_TEXT = 64
_ADD = ("INSERT INTO tally (hour_at, calling_aet, modality, instances, size_bytes) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (hour_at, calling_aet, modality) DO UPDATE SET instances = tally.instances + excluded.instances,"
        " size_bytes = tally.size_bytes + excluded.size_bytes")


@dataclass(frozen=True, slots=True)
class HourCount:
    """New images of one hour (its first moment in epoch ms) from one caller and modality, and their bytes."""

    hour_at: int
    calling_aet: str
    modality: str
    instances: int
    size_bytes: int


def count_arrivals(tx: Tx, fresh: Sequence[Instance]) -> None:
    """Add new instances to their hours."""
    counts: Counter[tuple[int, str, str]] = Counter()
    sizes: Counter[tuple[int, str, str]] = Counter()
    for one in fresh:
        at = one.arrival.arrived_at
        caller, modality = storable(one.arrival.calling_aet)[:_MAX_TEXT], storable(one.header.modality)[:_MAX_TEXT]
        key = (at - at % HOUR_MS, caller, modality)
        counts[key] += 1
        sizes[key] += one.dataset_bytes
    for key in sorted(counts):
        tx.execute(_ADD, (*_bounded(tx, key), counts[key], sizes[key]))


def _bounded(tx: Tx, key: tuple[int, str, str]) -> tuple[int, str, str]:
    rows = int(tx.value("SELECT COUNT(*) FROM tally WHERE hour_at = ?", (key[0],)))
    return key if rows < MAX_ROWS_PER_HOUR else (key[0], "", "")


def counts_since(tx: Tx, since: int) -> list[HourCount]:
    """Return the counts of every hour that began at `since` (epoch ms) or later, oldest first."""
    return [HourCount(*row) for row in tx.rows(
        "SELECT hour_at, calling_aet, modality, instances, size_bytes FROM tally WHERE hour_at >= ?"
        " ORDER BY hour_at, calling_aet, modality", (since,))]


def bytes_since(tx: Tx, since: int) -> int:
    """Return how many bytes of new images came in hours that began at `since` (epoch ms) or later."""
    return int(tx.value("SELECT COALESCE(SUM(size_bytes), 0) FROM tally WHERE hour_at >= ?", (since,)))
