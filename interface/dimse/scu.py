"""Sending files to a DICOM node: what ``main.py send`` and the demo use.

Imports dicomfile and requestor; the data sets are sent as they lie in the files, never decoded. Changes when files can
come from another kind of container. Source: PS3.4 B (SCU).
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from interface.dimse.negotiation import is_safe_uid
from interface.dimse.pdu import MAX_CONTEXTS, ProposedContext
from interface.dimse.requestor import AssociationLost, Node, Requestor
from internal.dicomfile import Meta, read_meta
from internal.errors import BytesDamaged, NotDicom, Transient

MAX_ZIP_MEMBERS: Final = 100_000
MAX_ZIP_MEMBER_BYTES: Final = 16 * 1024**3
_MEDIA_STORAGE_DIRECTORY: Final = "1.2.840.10008.1.3.10"
_COPY_BYTES: Final = 1024 * 1024
_WARNING_STATUSES: Final = frozenset({0x0107, 0x0116, 0xB000, 0xB006, 0xB007})


@dataclass(frozen=True, slots=True)
class FileResult:
    """What became of one file: the peer's `status`, None if there was no answer, and why in words."""

    name: str
    sop_uid: str
    status: int | None
    reason: str = ""

    @property
    def stored(self) -> bool:
        """Whether the peer says that it has stored the instance (success or warning)."""
        return self.status == 0 or self.status in _WARNING_STATUSES


@dataclass(slots=True)
class SendReport:
    """All files of one sending, and what was skipped as (name, reason)."""

    results: list[FileResult] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failed(self) -> list[FileResult]:
        """The files that the peer did not store."""
        return [result for result in self.results if not result.stored]

    @property
    def stored(self) -> int:
        """How many files the peer has stored."""
        return len(self.results) - len(self.failed)


@dataclass(frozen=True, slots=True)
class _Found:
    """One DICOM file on disk, or one member of a zip file."""

    path: Path
    member: str
    meta: Meta

    @property
    def name(self) -> str:
        return f"{self.path}!{self.member}" if self.member else str(self.path)

    @property
    def context(self) -> tuple[str, str]:
        return self.meta.sop_class_uid, self.meta.transfer_syntax_uid

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        if not self.member:
            yield self.path
            return
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(self.path) as archive:
            target = Path(folder, "member.dcm")
            with archive.open(self.member) as source, target.open("wb") as copy:
                _copy_bounded(source, copy)
            yield target


def _copy_bounded(source: Any, target: BinaryIO) -> None:
    left = MAX_ZIP_MEMBER_BYTES
    while data := source.read(_COPY_BYTES):
        left -= len(data)
        if left < 0:
            raise NotDicom("the member of the zip file is too large")
        target.write(data)


Progress = Callable[[FileResult, int, int], None]


def send_paths(
    host: str,
    port: int,
    paths: Sequence[Path | str],
    calling: str = "SATUSEHAT_SEND",
    called: str = "DCMROUTER",
    on_progress: Progress | None = None,
    timeout_s: float = 60.0,
) -> SendReport:
    """Send files, folders (with all below them) and zip files to `called` at `host`:`port` and report on each file.

    `on_progress` gets (result, done, total) after each file. A dropped association fails the rest of its files; one
    that is refused or cannot be opened raises Transient if nothing has been sent yet, otherwise it fails its files.
    """
    began = time.monotonic()
    node = Node(host, port, called, timeout_s)
    report = SendReport()
    found: list[_Found] = []
    for path in paths:
        _collect(Path(path), found, report)
    done = 0

    def note(result: FileResult) -> None:
        nonlocal done
        done += 1
        report.results.append(result)
        if on_progress is not None:
            on_progress(result, done, len(found))

    for group in _groups(found):
        before = done
        try:
            _send_group(node, group, calling, note)
        except Transient as error:
            if not report.results:
                raise
            for file in group[done - before :]:
                note(FileResult(file.name, file.meta.sop_uid, None, str(error)))
    report.seconds = time.monotonic() - began
    return report


def _collect(path: Path, found: list[_Found], report: SendReport) -> None:
    if path.is_dir():
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                _collect(Path(folder, name), found, report)
        return
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            report.skipped.append((str(path), "not a regular file"))
        elif zipfile.is_zipfile(path) and not _has_prefix(path):
            _collect_zip(path, found, report)
        else:
            with path.open("rb") as file:
                _take(path, "", file, found, report)
    except (OSError, zipfile.BadZipFile) as error:
        report.skipped.append((str(path), f"cannot be read ({error.__class__.__name__})"))


def _has_prefix(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _collect_zip(path: Path, found: list[_Found], report: SendReport) -> None:
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if not info.is_dir()]
        if len(members) > MAX_ZIP_MEMBERS:
            report.skipped.append((str(path), f"more than {MAX_ZIP_MEMBERS} members"))
            return
        for info in members:
            try:
                with archive.open(info) as file:
                    _take(path, info.filename, file, found, report)
            except (RuntimeError, NotImplementedError, zipfile.BadZipFile):
                report.skipped.append((f"{path}!{info.filename}", "encrypted or damaged member"))


def _take(path: Path, member: str, file: Any, found: list[_Found], report: SendReport) -> None:
    name = f"{path}!{member}" if member else str(path)
    try:
        meta = read_meta(file)
    except NotDicom as error:
        report.skipped.append((name, str(error)))
        return
    if meta.sop_class_uid == _MEDIA_STORAGE_DIRECTORY:
        report.skipped.append((name, "a DICOMDIR, not an instance"))
    elif not (is_safe_uid(meta.sop_class_uid) and is_safe_uid(meta.sop_uid) and is_safe_uid(meta.transfer_syntax_uid)):
        report.skipped.append((name, "the file meta names no SOP class or instance"))
    else:
        found.append(_Found(path, member, meta))


def _groups(found: Iterable[_Found]) -> Iterator[list[_Found]]:
    """Yield the files in order, cut where an association would need more than 128 presentation contexts."""
    group: list[_Found] = []
    contexts: set[tuple[str, str]] = set()
    for file in found:
        if file.context not in contexts and len(contexts) == MAX_CONTEXTS:
            yield group
            group, contexts = [], set()
        contexts.add(file.context)
        group.append(file)
    if group:
        yield group


def _send_group(node: Node, group: list[_Found], calling: str, note: Callable[[FileResult], None]) -> None:
    """Send files over one association, and another one after each file that broke off; raises AssociationLost."""
    contexts = [ProposedContext(2 * number + 1, sop_class, (syntax,))
                for number, (sop_class, syntax) in enumerate(dict.fromkeys(file.context for file in group))]
    left = list(reversed(group))
    while left:
        requestor = Requestor(node, calling, contexts)
        try:
            while left:
                note(_send_one(requestor, left[-1]))
                left.pop()
        except AssociationLost as lost:
            requestor.cut()
            for file in reversed(left):
                note(FileResult(file.name, file.meta.sop_uid, None, f"the association was lost: {lost}"))
            return
        except (BytesDamaged, OSError) as error:
            requestor.cut()
            file = left.pop()
            note(FileResult(file.name, file.meta.sop_uid, None, f"it cannot be read to its end ({_words(error)})"))
        else:
            requestor.release()


def _send_one(requestor: Requestor, file: _Found) -> FileResult:
    """Send a file; raises AssociationLost, and BytesDamaged or OSError when the file broke off while it was sent."""
    uid = file.meta.sop_uid
    sop_class, syntax = file.context
    found = requestor.find_context(sop_class, (syntax,))
    if found is None:
        return FileResult(file.name, uid, None, "the node does not accept this kind of object")
    with ExitStack() as stack:
        try:
            data_set = stack.enter_context(stack.enter_context(file.on_disk()).open("rb"))
            size_bytes = data_set.seek(0, os.SEEK_END) - file.meta.dataset_offset
            data_set.seek(file.meta.dataset_offset)
            if size_bytes <= 0:
                raise NotDicom("it has no data set any more")
        except (OSError, RuntimeError, NotDicom, zipfile.BadZipFile) as error:
            return FileResult(file.name, uid, None, f"not sent ({_words(error)})")
        reply = requestor.store(found[0], sop_class, uid, data_set, size_bytes)
    return FileResult(file.name, uid, reply.status, reply.comment)


def _words(error: Exception) -> str:
    return (error.strerror or type(error).__name__).lower() if isinstance(error, OSError) else str(error)
