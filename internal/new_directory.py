"""How a name in new/ becomes durable: in through one descriptor, one fsync of the directory for all who wait.

Layer 1, imports nothing of ours. Used by all of the spool. Changes when names are made durable in another way.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

HAS_DIR_FD = {os.rename, os.link} <= os.supports_dir_fd
_RENAME_TRIES = 100


class NewDirectory:
    """The directory new/ held open: names go in through the same descriptor that is fsynced afterwards.

    `Spool.refresh_new` may replace the (empty) directory at any time. A rename or link through the descriptor of a
    replaced directory fails with ENOENT, so no name can land where it is not synced.
    """

    def __init__(self, path: Path, durable: bool) -> None:
        self._path = path
        self._durable = durable
        self._fd = -1
        self._parent_due = False
        self._changed = threading.Condition()
        self._begun = self._done = 0
        self._running = False
        self._error: tuple[int, OSError] | None = None
        self._open()

    def _open(self) -> None:
        if not HAS_DIR_FD:
            return
        fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # A descriptor of a replaced directory stays open: another thread may be about to sync through it. Replacing
        # is rare (once after a backlog of tens of thousands), so this is no leak that counts.
        self._fd = fd
        self._parent_due = True  # a fresh new/ must itself have a durable name before one in it counts

    def rename_into(self, source: str, name: str) -> None:
        """Move the file `source` into new/ under `name`; the name is not durable yet. Raises OSError."""
        self._bring(os.rename, source, name)

    def link_into(self, source: str, name: str) -> None:
        """Give the file `source` the second name `name` in new/; it is not durable yet. Raises OSError."""
        self._bring(os.link, source, name)

    def _bring(self, call: Callable[..., None], source: str, name: str) -> None:
        if not HAS_DIR_FD:
            call(source, self._path / name)
            return
        for _ in range(_RENAME_TRIES):
            fd = self._fd
            try:
                call(source, name, dst_dir_fd=fd)
                return
            except FileNotFoundError:
                if os.fstat(fd).st_nlink:  # new/ is where it was: there is no `source`
                    raise
                with self._changed:
                    if fd == self._fd:
                        self._open()
        raise FileNotFoundError(errno.ENOENT, "new/ cannot be written to", name)

    def make_names_durable(self) -> None:
        """Return when every name this thread has put in is durable; one fsync serves all threads that wait for it.

        An fsync that began before our rename may not cover it, so we wait for one that begins from now on.
        """
        if not (HAS_DIR_FD and self._durable):
            return
        with self._changed:
            ticket = self._begun + 1
            while self._done < ticket:
                if self._running:
                    self._changed.wait()
                else:
                    self._lead()
            if self._error is not None and ticket <= self._error[0]:
                raise OSError(self._error[1].errno, "fsync of new/ failed")

    def _lead(self) -> None:
        self._begun += 1
        current = self._begun
        self._running = True
        self._changed.release()
        error: OSError | None = None
        try:
            if self._parent_due:
                self._parent_due = False
                fsync_directory(self._path.parent)
            os.fsync(self._fd)
        except OSError as failed:
            error = failed
            self._parent_due = True  # whichever of the two failed: the next leader makes both durable
        finally:
            self._changed.acquire()
        self._running = False
        self._done = current
        if error is not None:
            self._error = (current, error)
        self._changed.notify_all()

    def close(self) -> None:
        """Let go of the directory."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def make_durably(folder: Path) -> None:
    """Make a folder (0700) and what leads to it so that a power cut does not take its name, with all that lies below.

    Raises OSError.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir(mode=0o700 if one == folder else 0o777, exist_ok=True)
        if sys.platform != "win32":
            fsync_directory(one.parent)


def fsync_directory(path: Path) -> None:
    """Make the names in the directory `path` durable (POSIX only); raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
