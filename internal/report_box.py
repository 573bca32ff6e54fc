"""run/reports: answers on their way from the deliver role to the very association that asked, if it is still open.

Layer 1, files only. Best effort by design: nothing here is durable or decides anything. A job says what is still to be
reported; whatever gets lost here is reported again over another association.
Flow: an association `listen`s for the answer to its request, the deliver role `offer`s it, exactly one side gets it
(`take` and `withdraw` are renames of one file), the association leaves what the peer said (`leave_answer`).
Changes when roles have to hand over something else.
"""

from __future__ import annotations

import json
import os
import re
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ENTRY: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
_UID: Final = re.compile(r"[0-9.]{1,64}")
_MAX_BYTES: Final = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Report:
    """What to tell the peer: the event type, and the data set in the transfer syntax that `listen` named."""

    event_type: int
    data_set: bytes


class ReportBox:
    """The folder of one node. Every method is one step on the disk and never raises OSError."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _path(self, entry_id: str, what: str) -> Path:
        if not _ENTRY.fullmatch(entry_id):
            raise ValueError("not the id of a spool entry")
        return self._directory / f"{entry_id}.{what}"

    def _write(self, path: Path, data: bytes) -> bool:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            return False
        return True

    def _read(self, path: Path) -> bytes | None:
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except OSError:
            return None
        return data if len(data) <= _MAX_BYTES else None

    def _remove(self, entry_id: str, *kinds: str) -> None:
        for kind in kinds:
            with suppress(OSError):
                self._path(entry_id, kind).unlink()

    # -- the association -------------------------------------------------------------------------------------------

    def sweep(self, slot: str) -> None:
        """Forget what an earlier process of `slot` had in hand: its associations have ended."""
        try:
            names = [path for path in self._directory.iterdir() if f"-{slot}-" in path.name]
        except OSError:
            return
        for path in names:
            with suppress(OSError):
                path.unlink()

    def listen(self, entry_id: str, transfer_syntax_uid: str) -> bool:
        """Say that the association which brought the request `entry_id` waits for its answer."""
        return self._write(self._path(entry_id, "open"), transfer_syntax_uid.encode("ascii", "replace"))

    def take(self, entry_id: str) -> Report | None:
        """Return the answer if it is there; from then on nobody else gets it."""
        taken = self._path(entry_id, "taken")
        try:
            self._path(entry_id, "report").rename(taken)
        except OSError:
            return None
        head, _, data_set = (self._read(taken) or b"").partition(b"\n")
        return Report(int(head), data_set) if head.isdigit() else None

    def leave_answer(self, entry_id: str, status: int) -> None:
        """Leave the status that the peer answered the report with."""
        self._write(self._path(entry_id, "answer"), json.dumps(status).encode("ascii"))
        self._remove(entry_id, "taken", "open")

    def hang_up(self, entry_id: str) -> None:
        """Say that the association has ended without an answer from the peer."""
        self._remove(entry_id, "open", "taken")

    # -- the deliver role ------------------------------------------------------------------------------------------

    def listening(self, entry_id: str) -> str | None:
        """Return the transfer syntax in which an open association waits for the answer, None if none does."""
        text = (self._read(self._path(entry_id, "open")) or b"").decode("ascii", "replace")
        return text if _UID.fullmatch(text) else None

    def offer(self, entry_id: str, report: Report) -> bool:
        """Put the answer where the association finds it; False if the disk does not take it."""
        return self._write(self._path(entry_id, "report"), b"%d\n" % report.event_type + report.data_set)

    def withdraw(self, entry_id: str) -> bool:
        """Take the offer back; False if the association has taken it."""
        try:
            self._path(entry_id, "report").unlink()
        except OSError:
            return False
        return True

    def answer(self, entry_id: str) -> int | None:
        """Return the status that the peer answered with, None if it has not yet."""
        data = self._read(self._path(entry_id, "answer"))
        return int(data) if data is not None and data.isdigit() else None

    def forget(self, entry_id: str) -> None:
        """Remove what is left of a report that was answered."""
        self._remove(entry_id, "report", "answer")
