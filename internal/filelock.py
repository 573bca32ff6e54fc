"""Advisory locks that end with their process: who may run a role, a slot or a migration.

Layer 1, imports errors. Used by the spool only. A lock is the open file description, never the file: a file left
behind by a power cut locks nothing. Changes when a platform needs another locking call.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import TracebackType

from internal.errors import AlreadyRunning, StorageFailed

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_POLL_S = 0.05


def _try_lock(fd: int) -> bool:
    try:
        if sys.platform == "win32":
            os.lseek(fd, 1 << 20, os.SEEK_SET)  # beyond the pid, which others must be able to read
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class Lock:
    """An exclusive lock on one file, held until release() or the end of the process."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def acquire(cls, path: Path, wait_s: float) -> Lock:
        """Take the lock at `path`, waiting at most `wait_s` seconds.

        Raises AlreadyRunning naming the process that holds it, StorageFailed when the file cannot be opened.
        """
        deadline = time.monotonic() + wait_s
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        except OSError as error:
            raise StorageFailed(f"{path} cannot be opened ({error.strerror}): everything in the data folder must "
                                "belong to the user that runs the router") from None
        while not _try_lock(fd):
            if time.monotonic() >= deadline:
                holder = _read_holder(fd)
                os.close(fd)
                raise AlreadyRunning(f"{path.stem} is already running on this data folder (process {holder}): "
                                     "end that process first, or set another data_dir")
            time.sleep(_POLL_S)
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, f"{os.getpid()}\n".encode())
        return cls(fd)

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
    ) -> None:
        self.release()


def _read_holder(fd: int) -> str:
    os.lseek(fd, 0, os.SEEK_SET)
    text = os.read(fd, 32).decode("ascii", "replace").strip()
    return text if text.isdigit() else "unknown"
