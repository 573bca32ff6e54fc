"""The data set of a message that is not an image: little memory whatever the peer sends, the rest lies in tmp/.

Imports the spool writer. The counterpart of `store_lane.StoreSink` for requests. Changes when a request may be longer.
"""

from __future__ import annotations

from typing import Final

from interface.dimse.pdu import PduError
from internal.errors import RouterError
from internal.spool import SpoolWriter
from internal.spool_writer import IncomingInstance

MAX_DATA_SET_BYTES: Final = 8 * 1024 * 1024
_IN_MEMORY_BYTES: Final = 64 * 1024


class RequestSink:
    """One data set; used by one thread. What nobody will read (`keep` False) is counted and dropped."""

    def __init__(self, writer: SpoolWriter, *, keep: bool) -> None:
        self._writer = writer
        self._keep = keep
        self._taken_bytes = 0
        self._held = bytearray()
        self._file: IncomingInstance | None = None
        self._fault: RouterError | None = None

    def take(self, fragment: memoryview) -> None:
        """Take the next bytes; raises PduError above 8 MB."""
        self._taken_bytes += len(fragment)
        if self._taken_bytes > MAX_DATA_SET_BYTES:
            raise PduError("the data set of a request is too long")
        if not self._keep or self._fault is not None:
            return
        self._held += fragment
        if len(self._held) > _IN_MEMORY_BYTES:
            self._put_away()

    def _put_away(self) -> None:
        try:
            if self._file is None:
                self._file = self._writer.begin()
            self._file.write(self._held)
        except RouterError as error:  # said to who reads it
            self._fault = error
            self.abandon()
        self._held = bytearray()

    def flush(self) -> None:
        """Nothing to do: take() has copied."""

    def read(self) -> bytes:
        """Return the whole data set; raises StorageFull or StorageFailed if the disk did not take it."""
        if self._fault is not None:
            raise self._fault
        if self._file is None:
            return bytes(self._held)
        with self._file.open_back(0) as file:
            return file.read() + self._held

    def abandon(self) -> None:
        """Throw away what has come in."""
        self._held = bytearray()
        if self._file is not None:
            self._file.abort()
            self._file = None
