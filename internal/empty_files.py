"""Empty files of one folder, made ahead: nobody waits for an inode, for room on the disk or for a durable name.

Layer 1, imports disk_hints and new_directory. Used by the spool's writer. Changes when files are made ready in another
way.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from internal import disk_hints
from internal.new_directory import fsync_directory

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
#: Files that lie ready at most, and at how few of them more are made: all at once, since then one fsync of the folder
#: serves them all, and the folder stays as it is on the disk while the next images are written.
MAX_EMPTY = 32
_FEW = 8
#: Room is reserved for so much at most: what lies ready must not fill the disk, and gains nothing for larger ones.
_MAX_RESERVED_BYTES = 4 * 1024 * 1024


class EmptyFile(NamedTuple):
    """One that was taken; the taker closes `fd` and gives the file a name elsewhere or unlinks it."""

    path: str
    fd: int
    #: Whether a power cut leaves the file, under this path.
    is_durable: bool
    #: Room on the disk that it has beyond its end.
    reserved_bytes: int = 0


class EmptyFiles:
    """The empty files of `folder`, which nobody else puts anything into. Safe for threads.

    With `durable` their names are made so before they are taken; without, nothing is promised.
    """

    def __init__(self, folder: Path, durable: bool) -> None:
        self.folder = folder
        self.durable = durable
        self._path = f"{folder}{os.sep}"
        self._numbers = itertools.count(1)
        self._ready: deque[EmptyFile] = deque()
        self._roomy: deque[EmptyFile] = deque()
        self._filling = threading.Lock()

    def take(self) -> EmptyFile:
        """Return one that lies ready, else a new one, whose name is not durable; raises OSError."""
        for files in (self._roomy, self._ready):
            try:
                return files.popleft()
            except IndexError:
                continue
        return self._create()

    def reserve(self, size_bytes: int) -> None:
        """Give one more of those that lie ready room for `size_bytes`."""
        if not self.durable or not 0 < size_bytes <= _MAX_RESERVED_BYTES or len(self._roomy) >= _FEW:
            return
        try:
            file = self._ready.popleft()
        except IndexError:
            return
        self._roomy.append(file._replace(reserved_bytes=disk_hints.reserve(file.fd, size_bytes)))

    def _create(self, *, is_durable: bool = False) -> EmptyFile:
        while True:
            path = f"{self._path}{next(self._numbers)}"
            try:
                return EmptyFile(path, os.open(path, _CREATE, 0o600), is_durable)
            except FileExistsError:  # what could not be taken in at the start
                continue

    def are_few(self) -> bool:
        """Return whether it is time to refill()."""
        return len(self._ready) <= _FEW

    def refill(self) -> None:
        """Make MAX_EMPTY lie ready, unless another thread is about it; raises OSError, with fewer left then."""
        if not self._filling.acquire(blocking=False):
            return
        durable = self.durable
        made: list[EmptyFile] = []
        try:
            for _ in range(MAX_EMPTY - len(self._ready) - len(self._roomy)):
                made.append(self._create(is_durable=durable))
            if durable:
                fsync_directory(self.folder)
            self._ready.extend(made)
        except OSError:
            self._drop(made)
            raise
        finally:
            self._filling.release()

    def close(self) -> None:
        """Remove those that were not taken."""
        for files in (self._roomy, self._ready):
            self._drop([files.popleft() for _ in range(len(files))])

    def _drop(self, files: list[EmptyFile]) -> None:
        for file in files:
            os.close(file.fd)
            with suppress(OSError):  # swept when the slot starts again
                Path(file.path).unlink()
