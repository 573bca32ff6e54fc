"""The parent's side of the limited process that parses headers: one child, used for many files, replaced when it dies.

Layer 2, beside the spool. Changes when a file may cost more or less, or the child is started another way.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from internal.errors import NotDicom, StorageFailed

_ROOT: Final = Path(__file__).resolve().parent.parent
_MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost: address space (bytes) and computing time of the child, and time on the clock (s).

    The time on the clock is long because the child has the lowest priority; memory and computing time are bounded by
    the kernel, on Windows by nobody.
    """

    memory_bytes: int = 640 * 1024 * 1024
    cpu_s: float = 20.0
    wall_s: float = 300.0


class Parser:
    """Parses headers in a process of its own. One caller at a time; stop() may come from another thread."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._stopped = False

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        return self._child.pid if self._child is not None else None

    def header_json(self, path: Path, offset: int, transfer_syntax_uid: str) -> bytes:
        """Return the header at `offset` of a file as one line of DICOM JSON; see header_json for its form.

        Raises NotDicom with the reason (never a value of the file) if it cannot be parsed within the limits,
        StorageFailed when the child cannot be started or was stopped.
        """
        child = self._running()
        assert child.stdin is not None and child.stdout is not None
        request = {"path": str(path), "offset": offset, "transfer_syntax_uid": transfer_syntax_uid}
        late = threading.Timer(self._limits.wall_s, child.kill)
        late.daemon = True
        late.start()
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
            head = json.loads(child.stdout.readline() or b"{}")
            size = int(head.get("bytes", 0))
            body = child.stdout.read(size) if 0 < size <= _MAX_ANSWER_BYTES else b""
        except (OSError, ValueError):  # it died while it was asked or while it answered
            head, size, body = {}, 1, b""
        finally:
            late.cancel()
        if reason := head.get("reason"):
            raise NotDicom(str(reason))
        if not head or len(body) != size:
            self._bury()
            raise NotDicom("parsing it took more time or memory than is allowed" if size <= _MAX_ANSWER_BYTES else
                           "its header is longer than 64 MB as JSON")
        return body

    def _running(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopped:
                raise StorageFailed("the parser was stopped")
            if self._child is None:
                command = [sys.executable, "-m", "internal.parse_child", str(self._limits.memory_bytes),
                           str(self._limits.cpu_s)]
                try:
                    self._child = subprocess.Popen(
                        command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                except OSError as error:
                    raise StorageFailed(f"the parser cannot be started ({error.strerror})") from None
            else:
                return self._child
            child = self._child
        assert child.stdout is not None
        if not child.stdout.readline():  # it says once that it can work: what fails later is a file's fault
            self._bury()
            raise StorageFailed(f"the parser does not start (status {child.returncode})")
        return child

    def _bury(self) -> None:
        with self._lock:
            if self._child is not None:
                _end(self._child)
            self._child = None
            if self._stopped:
                raise StorageFailed("the parser was stopped")

    def stop(self) -> None:
        """End the child; whoever waits for it gets StorageFailed."""
        with self._lock:
            self._stopped = True
            if self._child is not None:
                self._child.kill()

    def close(self) -> None:
        """End the child and give its pipes back, when nobody waits for it any more."""
        self.stop()
        if self._child is not None:
            _end(self._child)
            self._child = None


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:
                pass  # what it was never given
