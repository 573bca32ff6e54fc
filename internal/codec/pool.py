"""The parent's side: a few child processes with limits, started when needed, killed and replaced when they overrun.

Imports errors and new_directory; never a codec, so that hostile pixels meet nothing but a child. Not for the paths on
which images are received or indexed. Changes when the limits or the life of a child change.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from internal.errors import BytesMissing, PixelsRefused, StorageFull
from internal.new_directory import fsync_directory

_ROOT: Final = Path(__file__).resolve().parents[2]
_INHERITED: Final = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "TMPDIR", "TEMP", "TZ")
_MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
_ORDERS_PER_CHILD: Final = 500
_IDLE_S: Final = 60.0
_START_S: Final = 60.0
_SHARE_BYTES: Final = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class Limits:
    """What one child may use: memory in all; for each order bytes written, and processor and wall seconds.

    Transcoding and comparing get these seconds again for every 64 MB of the file.
    """

    memory_bytes: int = 2 * 1024**3
    cpu_s: float = 60.0
    wall_s: float = 120.0
    output_bytes: int = 8 * 1024**3


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn frame: `data` is of `content_type`; `frame` counts from 0."""

    data: bytes
    content_type: str
    frame: int
    frames: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Transcoded:
    """A finished file in another transfer syntax; its data set begins at `dataset_offset`."""

    path: Path
    size_bytes: int
    sha256: str
    dataset_offset: int


class Codec:
    """Draws, transcodes and compares through at most `children` processes. Safe for use by many threads."""

    def __init__(self, children: int = 1, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._slots = threading.BoundedSemaphore(children)
        self._guard = threading.Lock()
        self._idle: list[_Child] = []
        self._reaper: threading.Timer | None = None
        self._closed = False

    def __enter__(self) -> Codec:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def draw(self, source: Path, *, edge: int, frame: int | None = None, kind: str = "jpeg") -> Picture:
        """Return a picture of frame `frame` (from 0; None: the middle one), at most `edge` (16 to 2048) pixels a side.

        `kind` is ``jpeg`` or ``png``. Raises PixelsRefused when there is no picture, BytesMissing.
        """
        answer = self._order({"do": "draw", "source": str(source), "edge": edge, "frame": frame, "kind": kind})
        return Picture(base64.b64decode(answer["picture"]), f"image/{kind}", answer["frame"], answer["frames"],
                       answer["height"], answer["width"])

    def transcode(self, source: Path, transfer_syntax_uid: str, target: Path) -> Transcoded:
        """Write the Part 10 file `source` as `target` in another transfer syntax, without loss and proven so.

        `target` appears whole and durable, or not at all. Its file meta is the canonical one. Raises PixelsRefused
        (``lossy``: the source was compressed with loss; ``unsupported``, ``damaged``, ``too-large``, ``too-slow``,
        ``not-exact``, ``died``), BytesMissing, StorageFull.
        """
        part = target.with_name(f"{target.name}.{os.getpid()}.{threading.get_ident()}.part")
        try:
            answer = self._order({"do": "transcode", "source": str(source), "syntax": transfer_syntax_uid,
                                  "target": str(part)}, _shares(source))
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        if sys.platform != "win32":
            fsync_directory(target.parent)
        return Transcoded(target, answer["size_bytes"], answer["sha256"], answer["dataset_offset"])

    def same_content(self, one: Path, other: Path) -> bool:
        """Do two files hold equal values, whatever their encoding, and equal pixels after decoding?

        Raises PixelsRefused when that cannot be told, BytesMissing.
        """
        order = {"do": "compare", "source": str(one), "target": str(other)}
        return bool(self._order(order, max(_shares(one), _shares(other)))["same"])

    def close(self) -> None:
        """End the children that are idle now; those at work end after their order."""
        with self._guard:
            self._closed = True
            idle, self._idle = self._idle, []
            if self._reaper is not None:
                self._reaper.cancel()
        for child in idle:
            child.end()

    def _order(self, order: dict[str, Any], shares: float = 1.0) -> Mapping[str, Any]:
        """Let a child carry out `order` within `shares` times the limits of time."""
        order |= {"cpu_s": self._limits.cpu_s * shares, "output_bytes": self._limits.output_bytes}
        with self._slots:
            child = self._take()
            answer = child.ask(order, self._limits.wall_s * shares)
            self._give_back(child, alive="ended" not in answer)
        return _checked(answer)

    def _take(self) -> _Child:
        with self._guard:
            while self._idle:
                child = self._idle.pop()
                if child.alive():  # one that was killed while idle says nothing about the next image
                    return child
                child.end()
        return _Child(self._limits.memory_bytes)

    def _give_back(self, child: _Child, *, alive: bool) -> None:
        with self._guard:
            keep = alive and not self._closed and child.orders < _ORDERS_PER_CHILD
            if keep:
                self._idle.append(child)
                self._arm()
        if not keep:
            child.end()

    def _arm(self) -> None:
        if self._reaper is not None:
            self._reaper.cancel()
        self._reaper = threading.Timer(_IDLE_S, self._reap)
        self._reaper.daemon = True
        self._reaper.start()

    def _reap(self) -> None:
        with self._guard:
            idle, self._idle = self._idle, []
        for child in idle:
            child.end()


def _shares(source: Path) -> float:
    """Return how much longer than a small one a file of this size may take; raises BytesMissing."""
    try:
        return 1 + source.stat().st_size / _SHARE_BYTES
    except FileNotFoundError:
        raise BytesMissing("the file of this instance is not there") from None


def _checked(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    if "refused" in answer:
        raise PixelsRefused(answer["message"], code=answer["refused"])
    if "missing" in answer:
        raise BytesMissing("the file of this instance is not there")
    if "failed" in answer:
        if answer["failed"] == errno.EFBIG:
            raise PixelsRefused("the result is larger than may be written", code="too-large")
        raise StorageFull("the disk did not take the result")
    if "ended" in answer:
        raise PixelsRefused(answer["message"], code=answer["ended"])
    return answer


class _Child:
    """One process of internal.codec; `orders` counts what it was asked."""

    def __init__(self, memory_bytes: int) -> None:
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment |= {"PYTHONPATH": str(_ROOT), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1",
                        "MALLOC_ARENA_MAX": "2"}
        self.orders = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "internal.codec", str(memory_bytes)], env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )
        self._started = False

    def alive(self) -> bool:
        """Does the process run?"""
        return self._process.poll() is None

    def ask(self, order: Mapping[str, Any], wall_s: float) -> Mapping[str, Any]:
        """Return the answer to `order`; ``ended`` with a reason when the child had to be killed or died of it."""
        if not self._started:
            if self._line(_START_S) is None:
                return {"ended": "died", "message": "the process that decodes images cannot start"}
            self._started = True
        self.orders += 1
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode("ascii") + b"\n")
            self._process.stdin.flush()
        except OSError:
            return {"ended": "died", "message": "the process that decodes images has ended"}
        killed = threading.Event()
        answer = self._line(wall_s, killed)
        if answer is not None:
            return answer
        if killed.is_set() or self._process.wait() == -_sigxcpu():
            return {"ended": "too-slow", "message": "decoding took longer than it may"}
        return {"ended": "died", "message": "the process that decoded it has died"}

    def _line(self, wall_s: float, killed: threading.Event | None = None) -> Mapping[str, Any] | None:
        def overrun() -> None:
            if killed is not None:
                killed.set()
            self._process.kill()

        timer = threading.Timer(wall_s, overrun)
        timer.daemon = True
        timer.start()
        try:
            assert self._process.stdout is not None
            line = self._process.stdout.readline(_MAX_ANSWER_BYTES)
        finally:
            timer.cancel()
        return dict(json.loads(line)) if line.endswith(b"\n") else None

    def end(self) -> None:
        """Kill and reap the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    pass


def _sigxcpu() -> int:
    if sys.platform == "win32":
        return 0
    import signal

    return int(signal.SIGXCPU)
