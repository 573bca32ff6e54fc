"""A DICOM file that was brought otherwise than by C-STORE becomes an entry of the spool, under the same conditions.

Layer 3, over the spool writer, the scanner and the file meta. Nothing is accepted that a C-STORE of the same data set
would not be, nor a file that was cut off: nobody who sent it says that it is whole. Changes when the conditions for
accepting an image change. Source: PS3.10 7, PS3.4 B.2.3.
"""

from __future__ import annotations

import io
import re
from typing import BinaryIO, Final

from internal.dicomfile import Meta, build_meta, read_meta
from internal.errors import MismatchedInstance, NotDicom
from internal.model import Arrival, Header
from internal.scan import CutShort, Uids, check_end, scan, scan_uids
from internal.spool_entry import Entry
from internal.spool_writer import IncomingInstance, SpoolWriter

HEAD_BYTES: Final = 256 * 1024
MEDIA_STORAGE_DIRECTORY: Final = "1.2.840.10008.1.3.10"
_COPY_BYTES: Final = 1024 * 1024
_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)


def accept(writer: SpoolWriter, source: BinaryIO, arrival: Arrival, max_bytes: int) -> Entry | None:
    """Keep the Part 10 file that `source` is at the beginning of; return its entry, None for a DICOMDIR.

    On return bytes and name are durable. At most `max_bytes` of data set are taken. Raises NotDicom,
    MismatchedInstance, StorageFull, StorageFailed, and OSError when `source` cannot be read: nothing is kept then.
    """
    head = _read(source, HEAD_BYTES)
    meta = read_meta(io.BytesIO(head))
    if meta.sop_class_uid == MEDIA_STORAGE_DIRECTORY:
        return None
    start = head[meta.dataset_offset :]
    whole = len(head) < HEAD_BYTES
    named = _name(meta, start, whole=whole)
    incoming = writer.begin()
    try:
        frame = build_meta(*named, meta.transfer_syntax_uid, arrival)
        incoming.write(frame)
        _copy(incoming, start, source, max_bytes)
        _check(incoming, len(frame), named, meta.transfer_syntax_uid, start, whole=whole)
        return incoming.commit()
    except BaseException:
        incoming.abort()
        raise


def _read(source: BinaryIO, count: int) -> bytes:
    parts, left = [], count
    while left and (part := source.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _name(meta: Meta, start: bytes, *, whole: bool) -> tuple[str, str]:
    """Return SOP class and instance UID: those of the data set, of the file meta where they lie too deep to be seen."""
    try:
        header = scan_uids(start, meta.transfer_syntax_uid, whole=whole)
    except CutShort:
        return meta.sop_class_uid, meta.sop_uid
    return header.sop_class_uid, header.sop_uid


def _copy(incoming: IncomingInstance, start: bytes, source: BinaryIO, max_bytes: int) -> None:
    size = len(start)
    incoming.write(start)
    while size <= max_bytes and (part := source.read(_COPY_BYTES)):
        size += len(part)
        incoming.write(part)
    if not size:
        raise NotDicom("the data set is empty")
    if size > max_bytes:
        raise NotDicom("the object is larger than the configured limit")


def _check(
    incoming: IncomingInstance, offset: int, named: tuple[str, str], transfer_syntax_uid: str, start: bytes, *,
    whole: bool,
) -> None:
    header = _scan(incoming, offset, transfer_syntax_uid, start, whole=whole)
    if (header.sop_class_uid, header.sop_uid) != named:
        raise MismatchedInstance("SOP class or instance UID differs between file meta and data set")
    for uid in (header.sop_class_uid, header.sop_uid, header.study_uid, header.series_uid, transfer_syntax_uid):
        if len(uid) > 64 or not _UID.fullmatch(uid):
            raise MismatchedInstance("one of its UIDs is not a UID")
    with incoming.open_back(offset) as file:
        check_end(file, transfer_syntax_uid)


def _scan(
    incoming: IncomingInstance, offset: int, transfer_syntax_uid: str, start: bytes, *, whole: bool,
) -> Uids | Header:
    try:
        return scan_uids(start, transfer_syntax_uid, whole=whole)
    except CutShort:
        with incoming.open_back(offset) as file:
            return scan(file, transfer_syntax_uid)
