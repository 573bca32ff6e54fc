"""A bounded scanner: the index fields of a data set from its bytes, without pydicom and without trusting any length.

Layer 1, imports errors, model and charset. The receiver asks it for the UIDs before it answers, the indexer for the
whole header. Depth, number of elements, bytes looked at and bytes inflated are limited. Changes when the index needs
another field or DICOM another encoding. Source: PS3.5 7 and annex A.
"""

from __future__ import annotations

import functools
import mmap
import os
import re
import struct
import threading
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, BinaryIO, Final, NamedTuple, NoReturn

from internal.charset import decode
from internal.errors import NotDicom
from internal.model import Header

MAX_DEPTH: Final = 32
MAX_ELEMENTS: Final = 100_000
MAX_ELEMENTS_OF_FILE: Final = 5_000_000
MAX_VALUE_BYTES: Final = 64 * 1024
MAX_INFLATED_BYTES: Final = 16 * 1024 * 1024
_INFLATE_STEP_BYTES: Final = 64 * 1024
_WINDOWS: Final = (32 * 1024, 1024 * 1024, 32 * 1024 * 1024)

IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
EXPLICIT_BIG: Final = "1.2.840.10008.1.2.2"
_PRIVATE_GE_IMPLICIT: Final = "1.2.840.113619.5.2"
DEFLATED: Final = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})

FIELDS: Final = {
    0x00080005: "character_set", 0x00080008: "image_type", 0x00080016: "sop_class_uid", 0x00080018: "sop_uid",
    0x00080020: "study_date", 0x00080021: "series_date", 0x00080030: "study_time", 0x00080031: "series_time",
    0x00080050: "accession_number", 0x00080060: "modality", 0x00080080: "institution_name",
    0x00080201: "timezone_offset", 0x00081010: "station_name", 0x00081030: "study_description",
    0x0008103E: "series_description", 0x00100010: "patient_name", 0x00100020: "patient_id",
    0x00100030: "patient_birth_date", 0x00100040: "patient_sex", 0x00180015: "body_part", 0x0020000D: "study_uid",
    0x0020000E: "series_uid", 0x00200010: "study_id", 0x00200011: "series_number", 0x00200013: "instance_number",
    0x00280008: "number_of_frames",
}  # fmt: skip
CHARACTER_SET: Final = 0x00080005
_IMAGE_TYPE: Final = 0x00080008
_FIELD_TAGS: Final = frozenset(FIELDS)
_UID_TAGS_IN_ORDER: Final = (0x00080016, 0x00080018, 0x0020000D, 0x0020000E)  # of Uids
UID_TAGS: Final = frozenset(_UID_TAGS_IN_ORDER)
_PIXEL_DATA: Final = 0x7FE00008
_RUN_ELEMENTS: Final = 1000
#: An element's header with its VR, one without, a length of 32 bits.
_LITTLE: Final = (struct.Struct("<HH2sH"), struct.Struct("<HHI"), struct.Struct("<I"))
_BIG: Final = (struct.Struct(">HH2sH"), struct.Struct(">HHI"), struct.Struct(">I"))

LONG_VRS: Final = frozenset({b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
SHORT_VRS: Final = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
     b"ST", b"TM", b"UI", b"UL", b"US"}
)  # fmt: skip
_VRS: Final = LONG_VRS | SHORT_VRS
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD


#: Inflating, and windows beyond the first, take up to 70 MB: one data set after the other, however many come at once.
_one_at_a_time = threading.RLock()


class Uids(NamedTuple):
    """What a data set calls itself, its study and its series; not padded, otherwise as received."""

    sop_class_uid: str
    sop_uid: str
    study_uid: str
    series_uid: str


@functools.cache
def _unwanted_run(wanted: frozenset[int]) -> re.Pattern[bytes]:
    """Return what matches a run of explicit little endian elements not `wanted`, of groups before its last one.

    Of an even length below 128 bytes only, one branch for each: the length alone decides which one can match, so
    there is nothing to go back to, and plain repetition will do (a possessive one ends too late before Python 3.11.5).
    """
    last_group = max(wanted) >> 16
    tags = (struct.pack("<HH", tag >> 16, tag & 0xFFFF) for tag in sorted(wanted) if tag >> 16 < last_group)
    skipped = b"(?!%b)[\\x00-%b]\\x00.." % (b"|".join(map(re.escape, tags)), re.escape(bytes([last_group - 1])))
    vr = b"(?:%b)" % b"|".join(sorted(SHORT_VRS))
    value = b"(?:%b)" % b"|".join(re.escape(struct.pack("<H", size)) + b".{%d}" % size for size in range(0, 128, 2))
    return re.compile(b"(?:%b%b%b){1,%d}" % (skipped, vr, value, _RUN_ELEMENTS), re.DOTALL)


class CutShort(NotDicom):
    """The bytes given end before the header does. `resume_at` (bytes) is where an element not yet read begins."""

    def __init__(self, message: str, resume_at: int = 0) -> None:
        super().__init__(message)
        self.resume_at = resume_at


def scan(source: bytes | bytearray | memoryview | BinaryIO, transfer_syntax_uid: str) -> Header:
    """Return the index fields of the data set `source`: a whole buffer, or a seekable file at its first byte.

    Raises NotDicom (and nothing else) if one of the four UIDs cannot be read; what is damaged behind them is left out.
    Of a file, long values that are not needed are skipped by seeking; at most 32 MB are held in memory.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return header_of(_top(source, transfer_syntax_uid, _FIELD_TAGS, whole=True), transfer_syntax_uid)
    return header_of(_collect_from_file(source, transfer_syntax_uid), transfer_syntax_uid)


def scan_uids(head: bytes | bytearray | memoryview, transfer_syntax_uid: str, *, whole: bool) -> Uids:
    """Return the four UIDs from the first bytes of a data set.

    Raises CutShort if they may lie behind `head` and it is not `whole`, otherwise NotDicom.
    """
    return uids_of(_top(head, transfer_syntax_uid, UID_TAGS, whole=whole))


def _top(
    data: bytes | bytearray | memoryview, transfer_syntax_uid: str, wanted: frozenset[int], *, whole: bool,
) -> dict[int, bytes]:
    with ExitStack() as turn:
        if transfer_syntax_uid in DEFLATED:
            turn.enter_context(_one_at_a_time)
        walk = _walk(data, transfer_syntax_uid, whole, wanted=wanted)
        try:
            return walk.top()
        finally:
            walk.go_on(b"", whole=True)  # the traceback of what is raised would keep all of it in memory


def check_end(file: BinaryIO, transfer_syntax_uid: str) -> None:
    """Raise NotDicom unless the data set that begins where `file` (of a disk) stands ends exactly with the file.

    Lengths only are read, no values; a deflated data set is complete when its stream has its end. Source: PS3.5 7.
    """
    offset = file.tell()
    if os.fstat(file.fileno()).st_size <= offset:
        raise NotDicom("the data set is empty")
    if transfer_syntax_uid in DEFLATED:
        _check_deflated(file)
        return
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped)[offset:] as data:
        walk = _walk(data, transfer_syntax_uid, whole=True)
        try:
            walk.to_the_end(MAX_ELEMENTS_OF_FILE)
        finally:
            walk.go_on(b"", whole=True)  # a view that is still held would keep the file mapped


def _check_deflated(file: BinaryIO) -> None:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        while not inflater.eof:
            data = inflater.unconsumed_tail or file.read(MAX_VALUE_BYTES)
            if not inflater.decompress(data, MAX_INFLATED_BYTES) and not data:  # it may hold output back
                break
    except zlib.error:
        raise NotDicom("the deflated data set cannot be inflated") from None
    if not inflater.eof or len(inflater.unused_data + file.read(2)) > 1:
        raise NotDicom("the data set does not end where the file ends: it is cut off or damaged")


def _collect_from_file(file: BinaryIO, transfer_syntax_uid: str) -> dict[int, bytes]:
    with ExitStack() as turn:
        if transfer_syntax_uid in DEFLATED:
            turn.enter_context(_one_at_a_time)
        return _collect_by_windows(file, transfer_syntax_uid, turn)


def _collect_by_windows(file: BinaryIO, transfer_syntax_uid: str, turn: ExitStack) -> dict[int, bytes]:
    position = file.tell()
    windows = iter(_WINDOWS)
    window = next(windows)
    walk: _Walk | None = None
    while True:
        walk = _read_window(file, position, window, transfer_syntax_uid, walk)
        try:
            return walk.top()
        except CutShort as cut:
            position += cut.resume_at
            if cut.resume_at == 0:
                larger = next(windows, None)
                if larger is None:
                    raise NotDicom("one element of the header is longer than 32 MB") from None
                window = larger
        finally:
            walk.go_on(b"", whole=True)
        if window > _WINDOWS[0]:
            turn.enter_context(_one_at_a_time)


def _read_window(
    file: BinaryIO, position: int, window: int, transfer_syntax_uid: str, earlier: _Walk | None
) -> _Walk:
    file.seek(position)
    data = file.read(window)
    return _walk(data, transfer_syntax_uid, len(data) < window, earlier)


def header_of(values: dict[int, bytes], transfer_syntax_uid: str) -> Header:
    """Return the header that these values of FIELDS make; raises NotDicom where one of the four UIDs is missing."""
    character_set = values.get(CHARACTER_SET, b"").decode("ascii", "replace").strip(" \x00")
    fields = fields_of(values, character_set)
    fields["character_set"] = character_set
    fields.update(uids_of(values)._asdict())
    return Header(transfer_syntax_uid=transfer_syntax_uid, **fields)


def fields_of(values: Mapping[int, bytes], character_set: str) -> dict[str, Any]:
    """Return what these values of FIELDS are in a header, by its names."""
    fields: dict[str, Any] = {}
    for tag, value in values.items():
        text = decode(value, character_set).rstrip(" \x00")
        fields[FIELDS[tag]] = text
        if tag == _IMAGE_TYPE:
            fields["image_type"] = tuple(part.strip(" ") for part in text.split("\\")) if text else ()
    return fields


def uids_of(values: dict[int, bytes]) -> Uids:
    """Return the UIDs among these values of FIELDS; raises NotDicom where one of the four is missing or empty."""
    uids = Uids(*[values.get(tag, b"").decode("latin-1").strip(" \x00") for tag in _UID_TAGS_IN_ORDER])
    for name, uid in zip(Uids._fields, uids, strict=True):
        if not uid:
            raise NotDicom(f"the data set has no {name.replace('_', ' ').replace('uid', 'UID')}")
    return uids


def _walk(
    data: bytes | bytearray | memoryview, transfer_syntax_uid: str, whole: bool, earlier: _Walk | None = None,
    wanted: frozenset[int] = _FIELD_TAGS,
) -> _Walk:
    """Return the walk over `data`, going on where `earlier` ran out."""
    if earlier is not None and transfer_syntax_uid not in DEFLATED:
        earlier.go_on(data, whole)
        return earlier
    if transfer_syntax_uid in DEFLATED:
        data, whole = inflate(data, whole)
    return _Walk(
        data, whole, implicit=is_implicit(data[:6], transfer_syntax_uid), big=is_big(transfer_syntax_uid),
        seekable=transfer_syntax_uid not in DEFLATED, wanted=wanted,
    )


def is_big(transfer_syntax_uid: str) -> bool:
    """Return whether numbers are big endian in this transfer syntax."""
    return transfer_syntax_uid == EXPLICIT_BIG


def is_implicit(head: bytes | bytearray | memoryview, transfer_syntax_uid: str) -> bool:
    """Return whether a data set that begins with `head` (6 bytes) is written without VRs."""
    vr = bytes(head[4:6])
    if vr in _VRS:  # some devices send the other VR encoding than the one negotiated: the first element tells
        return False
    if vr and not vr.isalpha():
        return True
    return transfer_syntax_uid in (IMPLICIT_LITTLE, _PRIVATE_GE_IMPLICIT)


def inflate(data: bytes | bytearray | memoryview, whole: bool) -> tuple[memoryview, bool]:
    """Return at most MAX_INFLATED_BYTES of the deflated data set, and whether that is all of it.

    The memory is mapped for itself: it goes back to the system at once, in whatever thread it was needed.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    room = memoryview(mmap.mmap(-1, MAX_INFLATED_BYTES))
    size, part = 0, b""
    try:
        for start in range(0, len(data), _INFLATE_STEP_BYTES):
            step: bytes | bytearray | memoryview = data[start : start + _INFLATE_STEP_BYTES]
            # What has taken all of its input may still hold output that it was given no room for.
            while (step or part) and size < MAX_INFLATED_BYTES and not inflater.eof:
                part = inflater.decompress(step, min(_INFLATE_STEP_BYTES, MAX_INFLATED_BYTES - size))
                room[size : size + len(part)] = part
                size += len(part)
                step = inflater.unconsumed_tail
    except zlib.error:
        raise NotDicom("the deflated data set cannot be inflated") from None
    return room[:size], whole and inflater.eof


class _Walk:
    """One pass over the bytes; every step checks what is left and how much has been done."""

    def __init__(
        self, data: bytes | bytearray | memoryview, whole: bool, *, implicit: bool, big: bool, seekable: bool,
        wanted: frozenset[int],
    ) -> None:
        self._explicit_header, self._implicit_header, self._length = _BIG if big else _LITTLE
        self._implicit = implicit
        self._seekable = seekable
        self._wanted = wanted
        self._last = max(wanted)
        self._run = None if implicit or big else _unwanted_run(wanted)
        self._budget = MAX_ELEMENTS
        self._values: dict[int, bytes] = {}
        self.go_on(data, whole)

    def go_on(self, data: bytes | bytearray | memoryview, whole: bool) -> None:
        """Use `data`, which begins with an element, from here on; `whole` if nothing follows it."""
        self._data = data
        self._end = len(data)
        self._whole = whole

    def top(self) -> dict[int, bytes]:
        """Return the values of the wanted elements of the outermost data set, up to the last one and all four UIDs."""
        last, wanted, start = self._last, self._wanted, 0
        try:
            while (start := self._pass_over(start)) < self._end or not self._whole:
                tag, length, position = self._element(start, self._implicit)
                if tag > last and (tag >= _PIXEL_DATA or self._complete()):
                    break
                if length == _UNDEFINED:
                    start = self._skip_sequence(position, self._implicit, 1)
                elif tag in wanted and length <= MAX_VALUE_BYTES:
                    start = position + length
                    self._check(start)
                    self._values.setdefault(tag, bytes(self._data[position:start]))
                    if tag == last and self._complete():
                        break
                else:
                    self._check(position + length, whole_only=True)
                    start = position + length
        except CutShort as cut:
            cut.resume_at = start if self._seekable else 0
            raise
        except NotDicom:
            if not self._complete():  # damaged behind the UIDs: still registered and delivered
                raise
        return self._values

    def _pass_over(self, start: int) -> int:
        """Return where the run of elements that begins at `start` ends: those that `top` would step over one by one.

        One step of the regular expression engine instead of a loop: most elements of a header are of this kind. They
        count against the budget as if each were as short as an element can be, up to the most that one run has.
        """
        if self._run is None or (match := self._run.match(self._data, start)) is None:
            return start
        self._budget -= min((match.end() - start) // 8, _RUN_ELEMENTS)
        return match.end()

    def to_the_end(self, budget: int) -> None:
        """Raise NotDicom unless the outermost elements, at most `budget` with all they hold, end with the bytes."""
        self._budget = budget
        start = 0
        try:
            while start < self._end:
                _, length, position = self._element(start, self._implicit)
                start = self._skip_sequence(position, self._implicit, 1) if length == _UNDEFINED else position + length
                self._check(start)
        except NotDicom as fault:
            raise NotDicom(f"the data set does not end where the file ends: {fault}") from None

    def _complete(self) -> bool:
        return self._values.keys() >= UID_TAGS

    def _check(self, end: int, *, whole_only: bool = False) -> None:
        """Refuse an element that ends at `end`, behind the bytes at hand; one that is skipped may if more follows."""
        if end > self._end and (self._whole or not whole_only):
            self._ran_out()

    def _element(self, position: int, implicit: bool) -> tuple[int, int, int]:
        """Return tag, length and where the value begins."""
        self._budget -= 1
        if self._budget < 0:
            raise NotDicom("the data set has too many elements")
        try:
            if not implicit:
                group, number, vr, length = self._explicit_header.unpack_from(self._data, position)
                if vr in SHORT_VRS:
                    return (group << 16) | number, length, position + 8
                if vr in LONG_VRS:
                    (length,) = self._length.unpack_from(self._data, position + 8)
                    return (group << 16) | number, length, position + 12
            # no VR there: an element (or item) written implicitly
            group, number, length = self._implicit_header.unpack_from(self._data, position)
        except struct.error:
            self._ran_out()
        return (group << 16) | number, length, position + 8

    def _ran_out(self) -> NoReturn:
        raise (NotDicom if self._whole else CutShort)("an element is longer than the data set")

    def _skip_sequence(self, position: int, implicit: bool, depth: int) -> int:
        """Return where the sequence (or encapsulated fragments) of undefined length that begins here ends."""
        if depth > MAX_DEPTH:
            raise NotDicom("sequences are nested too deep")
        while True:
            tag, length, position = self._element(position, implicit=True)
            if tag == _SEQUENCE_END:
                return position
            if tag != _ITEM:
                raise NotDicom("a sequence holds something that is no item")
            position = self._skip_item(position, implicit, depth) if length == _UNDEFINED else position + length
            self._check(position)

    def _skip_item(self, position: int, implicit: bool, depth: int) -> int:
        while True:
            tag, length, position = self._element(position, implicit)
            if tag == _ITEM_END:
                return position
            position = self._skip_sequence(position, implicit, depth + 1) if length == _UNDEFINED else position + length
            self._check(position)

