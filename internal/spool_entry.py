"""What an entry of the spool is called: id, kind and time of arrival are its file name, nothing else has to be read.

Layer 1, imports nothing of ours. Changes when names of the spool are made in another way.
"""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass
from enum import StrEnum

_MAX_SEQUENCE = 0xFFFF


class EntryKind(StrEnum):
    """What an entry of the spool is; the value is the file's extension."""

    INSTANCE = "dcm"
    ASSOCIATION = "assoc"
    REQUEST = "req"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the spool; `arrived_at` (ms, from its id) is when its bytes were all there, about to be durable.

    Settling goes by this time; `Arrival.arrived_at` in the file meta is when the first byte came.
    """

    id: str
    kind: EntryKind
    arrived_at: int

    @property
    def file_name(self) -> str:
        """The entry's name inside new/ or cur/."""
        return f"{self.id}.{self.kind}"


def parse_name(name: str) -> Entry | None:
    """Return the entry that a file name stands for, None for a name that is not ours."""
    entry_id, _, extension = name.partition(".")
    try:
        return Entry(entry_id, EntryKind(extension), arrived_at_of(entry_id))
    except ValueError:
        return None


def arrived_at_of(entry_id: str) -> int:
    """Return the arrival time (ms) that an id begins with; raises ValueError for a string that is no id."""
    head, dash, _ = entry_id.partition("-")
    if len(head) != 12 or not dash or not entry_id.replace("-", "").isalnum():
        raise ValueError("not the id of a spool entry")
    return int(head, 16)


class EntryIds:
    """Ids of one writer: ``<12 hex ms>-<4 hex>-<slot>-<boot>``; they never go back, even if the clock does."""

    def __init__(self, slot: str) -> None:
        self._tail = f"{slot}-{secrets.token_hex(4)}"
        self._last_ms = 0
        self._sequence = 0
        self._lock = threading.Lock()

    def make(self, kind: EntryKind) -> Entry:
        """Return a new entry that has arrived now. Safe for threads."""
        with self._lock:
            now = time.time_ns() // 1_000_000
            if now > self._last_ms:
                self._last_ms, self._sequence = now, 0
            elif self._sequence < _MAX_SEQUENCE:
                self._sequence += 1
            else:
                self._last_ms, self._sequence = self._last_ms + 1, 0
            return Entry(f"{self._last_ms:012x}-{self._sequence:04x}-{self._tail}", kind, self._last_ms)
