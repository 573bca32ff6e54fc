"""Small pictures of stored instances: drawn once, kept in a bounded folder that may be emptied at any time.

Layer 4: reads the spool, draws through `codec`. A drawing that failed is remembered too, so that looking at a page
twice does not decode hostile pixels twice. Changes when pictures are kept in another way.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from internal.codec import Codec, Limits
from internal.errors import BytesMissing, PixelsRefused, Transient
from internal.model import Instance
from internal.rows import node_of
from internal.spool import Spool

#: Part of every name: raise it when pictures should be drawn anew.
VERSION: Final = "1"
_LIMITS: Final = Limits(memory_bytes=1536 * 1024**2, cpu_s=20, wall_s=30)
_MAX_WAITING: Final = 12
_SHRINK_TO: Final = 0.8
#: A refusal that may have been bad luck is tried again after this long.
_PASSING: Final = frozenset({"too-slow", "died", "too-large"})
_PASSING_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class Drawn:
    """A JPEG, or `reason`: why there is no picture (codes of PixelsRefused, ``purged`` or ``elsewhere``)."""

    data: bytes
    reason: str = ""


class Pictures:
    """Pictures of one spool's instances, kept in `folder` up to `max_bytes`. Safe for use by many threads."""

    def __init__(self, spool: Spool, folder: Path, max_bytes: int) -> None:
        self._spool = spool
        self._folder = folder
        self._max_bytes = max_bytes
        self._codec = Codec(children=1, limits=_LIMITS)
        self._drawing = threading.Lock()
        self._waiting = threading.BoundedSemaphore(_MAX_WAITING)
        self._kept_bytes = -1

    def close(self) -> None:
        """End the processes that draw."""
        self._codec.close()

    def etag(self, instance: Instance, edge: int, frame: int | None) -> str:
        """Return what changes whenever another picture would be drawn."""
        text = f"{instance.sha256}/{edge}/{frame}/{VERSION}/{instance.purged_at is None}"
        return hashlib.sha256(text.encode("ascii", "replace")).hexdigest()[:40]

    def picture(self, instance: Instance, edge: int, frame: int | None, now: int) -> Drawn:
        """Return the picture of an instance, from the folder if it is there.

        At most one is drawn at a time; raises Transient when too many wait already.
        """
        if instance.purged_at is not None:
            return Drawn(b"", "purged")
        if node_of(instance.location) != self._spool.node:
            return Drawn(b"", "elsewhere")
        name = self.etag(instance, edge, frame)
        found = self._kept(name, now)
        if found is not None:
            return found
        with self._turn():
            found = self._kept(name, now)
            if found is None:
                found = self._draw(instance, edge, frame)
                self._keep(name, found)
            return found

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._waiting.acquire(blocking=False):
            raise Transient("too many pictures are being drawn", code="busy", retry_after_s=2)
        try:
            with self._drawing:
                yield
        finally:
            self._waiting.release()

    def _draw(self, instance: Instance, edge: int, frame: int | None) -> Drawn:
        for last in (False, True):
            try:
                return Drawn(self._codec.draw(self._spool.locate(instance.id), edge=edge, frame=frame).data)
            except PixelsRefused as refused:
                return Drawn(b"", refused.code)
            except BytesMissing:  # it moved from new/ to cur/ between asking and opening, or it is gone
                if last:
                    return Drawn(b"", "purged")
        raise AssertionError("the second try always returns")

    def _kept(self, name: str, now: int) -> Drawn | None:
        try:
            data = (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        if data[:1] != b"{":
            os.utime(self._folder / name)
            return Drawn(data)
        refusal = json.loads(data)
        if refusal["reason"] in _PASSING and now - (self._folder / name).stat().st_mtime * 1000 > _PASSING_MS:
            return None
        return Drawn(b"", refusal["reason"])

    def _keep(self, name: str, drawn: Drawn) -> None:
        """Put a picture into the folder; a full disk only means that it is drawn again."""
        data = drawn.data or json.dumps({"reason": drawn.reason}).encode("ascii")
        if len(data) > self._max_bytes or drawn.reason == "purged":
            return
        temporary = self._folder / f".{name}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._kept_bytes < 0:
                self._kept_bytes = sum(entry.stat().st_size for entry in os.scandir(self._folder))
            temporary.write_bytes(data)
            temporary.chmod(0o600)
            temporary.replace(self._folder / name)
        except OSError:
            return
        self._kept_bytes += len(data)
        if self._kept_bytes > self._max_bytes:
            self._shrink()

    def _shrink(self) -> None:
        """Remove what was not looked at for longest, down to four fifths."""
        entries = sorted(((one.stat(), one.path) for one in os.scandir(self._folder)), key=lambda one: one[0].st_mtime)
        left = sum(state.st_size for state, _ in entries)
        for state, path in entries:
            if left <= self._max_bytes * _SHRINK_TO:
                break
            Path(path).unlink(missing_ok=True)
            left -= state.st_size
        self._kept_bytes = left
