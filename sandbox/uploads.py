"""Bytes on their way to the disk: streamed into a temporary file and hashed as they pass.

Used by the DICOM store. Imports `part10`. Changes when the way bytes are written changes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sandbox.part10 import WINDOW_BYTES, Part10Head, read_part10_head

STAGE_BYTES = 512 * 1024
BLOCK_BYTES = 4096
_DIRECT = getattr(os, "O_DIRECT", 0)
_BINARY = getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class Upload:
    """One received file, still under a temporary name; hashes are SHA-256 in hex."""

    path: Path
    head: Part10Head
    bytes: int
    sha256: str
    dataset_sha256: str


class _Writer:
    """Writes whole blocks past the page cache where the system can, which costs a tenth of the CPU time."""

    def __init__(self, path: Path) -> None:
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | _BINARY
        try:
            self.descriptor = os.open(path, flags | _DIRECT, 0o600)
            self._direct = bool(_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            path.unlink(missing_ok=True)
            self.descriptor = os.open(path, flags, 0o600)
            self._direct = False

    def write(self, data: memoryview) -> None:
        """Write all of `data`; only the last call may bring a length that is no multiple of the block size."""
        whole = len(data) - len(data) % BLOCK_BYTES
        try:
            self._all(data[:whole])
        except OSError as error:
            if not self._direct or error.errno != errno.EINVAL:
                raise
            self.leave_direct()
            self._all(data[:whole])
        if whole < len(data):
            self.leave_direct()
            self._all(data[whole:])

    def leave_direct(self) -> None:
        """From here on write and read through the page cache, which asks for no alignment."""
        if self._direct:
            import fcntl  # not on Windows, which has no O_DIRECT either

            fcntl.fcntl(self.descriptor, fcntl.F_SETFL, fcntl.fcntl(self.descriptor, fcntl.F_GETFL) & ~_DIRECT)
            self._direct = False

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)

    def _all(self, data: memoryview) -> None:
        while data:
            data = data[os.write(self.descriptor, data):]


class _Hashes:
    """SHA-256 of the whole file and of what follows the file meta, whose end its group length tells in advance."""

    def __init__(self) -> None:
        self.whole, self.dataset = hashlib.sha256(), hashlib.sha256()
        self._seen = 0
        self.dataset_offset = -1

    def update(self, data: memoryview) -> None:
        self.whole.update(data)
        if not self._seen and bytes(data[132:136]) == b"\x02\x00\x00\x00" and len(data) >= 144:
            self.dataset_offset = 144 + int.from_bytes(data[140:144], "little")
        if self.dataset_offset >= 0:
            self.dataset.update(data[max(0, self.dataset_offset - self._seen):])
        self._seen += len(data)


class UploadFolder:
    """Receives uploads into one folder; memory use does not depend on their size."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Fresh memory costs more than the copy into it, so stages are used again.
        self._stages: list[mmap.mmap] = []
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("*.part"):
            leftover.unlink()

    @contextlib.contextmanager
    def receive(self, pieces: Iterable[bytes | memoryview]) -> Iterator[Upload]:
        """Stream `pieces` into a file and describe it; the file is gone on leaving unless it was renamed.

        Raises NotDicom for anything but a DICOM file, and whatever `pieces` raises. Nothing is synced: the file
        survives a kill of the process, not a power cut.
        """
        path = self._folder / f"{uuid.uuid4().hex}.part"
        stage = self._stages.pop() if self._stages else mmap.mmap(-1, STAGE_BYTES)
        try:
            yield _receive(pieces, path, memoryview(stage))
        finally:
            self._stages.append(stage)
            path.unlink(missing_ok=True)


def _receive(pieces: Iterable[bytes | memoryview], path: Path, stage: memoryview) -> Upload:
    hashes = _Hashes()
    size = filled = 0
    start_bytes = b""
    with contextlib.closing(_Writer(path)) as writer:
        for piece in pieces:
            at = 0
            while at < len(piece):
                step = min(len(piece) - at, STAGE_BYTES - filled)
                stage[filled:filled + step] = piece[at:at + step]
                at, filled, size = at + step, filled + step, size + step
                if filled == STAGE_BYTES:
                    start_bytes = start_bytes or bytes(stage[:WINDOW_BYTES])
                    hashes.update(stage)
                    writer.write(stage)
                    filled = 0
        start_bytes = start_bytes or bytes(stage[:min(filled, WINDOW_BYTES)])
        hashes.update(stage[:filled])
        writer.write(stage[:filled])
        writer.leave_direct()
        head = read_part10_head(writer.descriptor, size, start_bytes)
        dataset = hashes.dataset.hexdigest()
        if hashes.dataset_offset != head.dataset_offset:
            dataset = _hash_from(writer.descriptor, head.dataset_offset)
        return Upload(path, head, size, hashes.whole.hexdigest(), dataset)


def _hash_from(descriptor: int, offset: int) -> str:
    os.lseek(descriptor, offset, os.SEEK_SET)
    digest = hashlib.sha256()
    while data := os.read(descriptor, 1024 * 1024):
        digest.update(data)
    return digest.hexdigest()
