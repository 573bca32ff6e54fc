"""What is written down about associations: one record each when they end, refusals summed per peer and minute.

Imports the spool writer. Records are entries of the spool: indexed in order with the instances they carried.
Changes when people or the assembler need to know more about how images came in.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Final

from internal.errors import RouterError
from internal.spool import EntryKind, SpoolWriter

MAX_STUDIES_SHOWN: Final = 1000
MAX_REFUSALS: Final = 1000

log = logging.getLogger("router.dimse")


def now_ms() -> int:
    """Return UTC epoch milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class AssociationRecord:
    """One association while it is open. Changed by its own thread only; others may read."""

    association_id: str
    peer: str
    started_at: int
    calling_aet: str = ""
    called_aet: str = ""
    studies: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    last_at: int = 0

    def count(self, status: int, study_uid: str) -> None:
        """Note the answer to one C-STORE."""
        self.last_at = now_ms()
        if status == 0:
            self.studies[study_uid] = self.studies.get(study_uid, 0) + 1
        else:
            name = f"0x{status:04X}"
            self.refused[name] = self.refused.get(name, 0) + 1

    def shown(self) -> dict[str, Any]:
        """Return the record as JSON values; of very many studies only the latest."""
        latest = list(self.studies.items())[-MAX_STUDIES_SHOWN:]
        return {
            "association_id": self.association_id, "calling_aet": self.calling_aet, "called_aet": self.called_aet,
            "peer": self.peer, "started_at": self.started_at, "last_at": self.last_at, "studies": dict(latest),
            "refused": dict(self.refused),
        }  # fmt: skip


class Register:
    """The open associations of one slot, and the writing of records. Thread-safe."""

    def __init__(self, writer: SpoolWriter) -> None:
        self._writer = writer
        self.boot = secrets.token_hex(4)
        self._lock = threading.Lock()
        self._open: dict[str, AssociationRecord] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._open)

    def slot_restarted(self) -> None:
        """Write down that every association of this slot's earlier boots has ended."""
        self._write({"how": "slot-restarted", "ended_at": now_ms()})

    def open(self, peer: str) -> AssociationRecord:
        """Return the record of a new association; its id contains slot and boot."""
        with self._lock:
            self._next += 1
            record = AssociationRecord(f"{self._writer.slot}.{self.boot}.{self._next}", peer, now_ms())
            self._open[record.association_id] = record
        return record

    def end(self, record: AssociationRecord, how: str) -> None:
        """Write the record if the association carried or was refused anything; `how` is one of
        released, aborted, lost and shutdown. An echo leaves no trace.
        """
        if record.studies or record.refused:
            studies = dict(record.studies)
            self._write({**record.shown(), "studies": studies, "how": how, "ended_at": now_ms()})
        with self._lock:
            self._open.pop(record.association_id, None)

    def _write(self, document: dict[str, Any]) -> None:
        document = {"slot": self._writer.slot, "boot": self.boot, **document}
        try:
            self._writer.add_record(EntryKind.ASSOCIATION, json.dumps(document).encode("ascii"))
        except RouterError as error:
            log.error("an association record could not be kept: %s", error)

    def shown(self) -> list[dict[str, Any]]:
        """Return all open associations that carried anything, as JSON values."""
        with self._lock:
            records = list(self._open.values())
        return [record.shown() for record in records if record.studies or record.refused]


class Refusals:
    """Refused associations, summed until flush(); at most 1000 different ones, the rest in one sum. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[tuple[str, str, str, str], list[int]] = {}

    def add(self, peer: str, calling_aet: str, called_aet: str, reason: str) -> bool:
        """Count one refusal; True if it is the first of its kind since flush() (worth a log line)."""
        key = (peer, calling_aet, called_aet, reason)
        with self._lock:
            if key not in self._sums and len(self._sums) >= MAX_REFUSALS:
                key = ("others", "", "", reason)
            first = key not in self._sums
            entry = self._sums.setdefault(key, [0, now_ms(), 0])
            entry[0] += 1
            entry[2] = now_ms()
        return first

    def flush(self, writer: SpoolWriter) -> None:
        """Write one record that lists all sums, if there are any, and begin anew."""
        with self._lock:
            sums, self._sums = self._sums, {}
        if not sums:
            return
        listed = [
            {"peer": peer, "calling_aet": calling_aet, "called_aet": called_aet, "reason": reason, "count": count,
             "started_at": started_at, "ended_at": ended_at}
            for (peer, calling_aet, called_aet, reason), (count, started_at, ended_at) in sums.items()
        ]  # fmt: skip
        document = {"how": "refused", "slot": writer.slot, "ended_at": now_ms(), "refusals": listed}
        try:
            writer.add_record(EntryKind.ASSOCIATION, json.dumps(document).encode("ascii"))
        except RouterError as error:
            log.error("refused associations could not be written down: %s", error)
