"""Tables for rules: CSV files of two columns, what is sent and what is meant.

Layer 1, imports errors. Read again when a file has changed. Changes when tables come in another form.
"""

from __future__ import annotations

import csv
import io
import threading
from pathlib import Path
from typing import Final

from internal.errors import ConfigurationInvalid

MAX_BYTES: Final = 16 * 1024 * 1024
MAX_ROWS: Final = 200_000


class Tables:
    """The tables beside router.conf, by file name; safe for several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._read: dict[str, tuple[tuple[int, int], dict[str, str]]] = {}

    def find(self, name: str, key: str) -> str | None:
        """Return what a table has under `key`, None if it has not. Raises ConfigurationInvalid if it cannot be read."""
        return self.table(name).get(key)

    def table(self, name: str) -> dict[str, str]:
        """Return a table. Raises ConfigurationInvalid with what is wrong."""
        path = self._folder / name
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            with self._lock:
                known = self._read.get(name)
                if known is None or known[0] != stamp:
                    known = self._read[name] = (stamp, _read(path))
            return known[1]
        except OSError as error:
            raise ConfigurationInvalid(f"table {name} cannot be read: {error.strerror}") from None

    def fault(self, name: str) -> str:
        """Return what is wrong with a table, "" if nothing."""
        try:
            self.table(name)
        except ConfigurationInvalid as error:
            return str(error)
        return ""


def _read(path: Path) -> dict[str, str]:
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise ConfigurationInvalid(f"table {path.name} is no file, or larger than {MAX_BYTES // 2**20} MB")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except ValueError:
        raise ConfigurationInvalid(f"table {path.name} is not UTF-8") from None
    table: dict[str, str] = {}
    separator = ";" if ";" in text.partition("\n")[0] and "," not in text.partition("\n")[0] else ","
    try:
        for number, row in enumerate(csv.reader(io.StringIO(text), delimiter=separator, strict=True), start=1):
            if not row or row[0].startswith("#"):
                continue
            if len(row) != 2 or number > MAX_ROWS:
                raise ConfigurationInvalid(f"table {path.name} line {number}: two columns are expected, and at most"
                                           f" {MAX_ROWS} lines")
            if table.setdefault(row[0].strip(), row[1].strip()) != row[1].strip():
                raise ConfigurationInvalid(f"table {path.name} line {number}: stands a second time with another value")
    except csv.Error as error:
        raise ConfigurationInvalid(f"table {path.name} cannot be read: {error}") from None
    return table
