"""SQL for the files of watched folders that were looked at, so that none is taken twice.

Layer 3, called by the watcher. A file is known by folder, path, size and time: one that was written again is looked at
again. Imports store and rows. Changes when something else has to be remembered of a file.
"""
# ruff: noqa: S608 - SQL is composed of placeholders only; every value is bound

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from internal.rows import chunks, marks
from internal.store import Tx


@dataclass(frozen=True, slots=True)
class Seen:
    """A file that was looked at: `path` below the folder, `mtime_ns` its time; how many images were taken or refused.

    `reason` says why something was refused or left, "" otherwise.
    """

    path: str
    size: int
    mtime_ns: int
    at: int
    accepted: int
    refused: int
    reason: str = ""


def find(tx: Tx, name: str, paths: Sequence[str]) -> dict[str, Seen]:
    """Return what is remembered of some files of the watched folder `name`."""
    found: dict[str, Seen] = {}
    for some in chunks(paths):
        for row in tx.rows("SELECT path, size, mtime_ns, at, accepted, refused, reason FROM watched WHERE name = ?"
                           f" AND path IN ({marks(some)})", (name, *some)):
            found[row[0]] = Seen(*row)
    return found


def remember(tx: Tx, name: str, seen: Seen) -> None:
    """Write down that a file was looked at."""
    tx.execute("INSERT INTO watched (name, path, size, mtime_ns, at, accepted, refused, reason)"
               " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name, path) DO UPDATE SET size = excluded.size,"
               " mtime_ns = excluded.mtime_ns, at = excluded.at, accepted = excluded.accepted,"
               " refused = excluded.refused, reason = excluded.reason",
               (name, seen.path, seen.size, seen.mtime_ns, seen.at, seen.accepted, seen.refused, seen.reason))


def forget(tx: Tx, name: str, path: str) -> None:
    """Forget a file that has been removed: another one of this name is a new one."""
    tx.execute("DELETE FROM watched WHERE name = ? AND path = ?", (name, path))


def totals(tx: Tx, name: str) -> tuple[int, int, int]:
    """Return how many files were looked at, how many images taken and how many refused."""
    row = tx.row("SELECT COUNT(*), COALESCE(SUM(accepted), 0), COALESCE(SUM(refused), 0) FROM watched WHERE name = ?",
                 (name,))
    return (int(row[0]), int(row[1]), int(row[2])) if row else (0, 0, 0)


def refused(tx: Tx, name: str, limit: int = 100) -> list[Seen]:
    """Return the newest files with something that was refused."""
    return [Seen(*row) for row in tx.rows(
        "SELECT path, size, mtime_ns, at, accepted, refused, reason FROM watched WHERE name = ? AND refused > 0"
        " ORDER BY at DESC, path LIMIT ?", (name, limit))]
