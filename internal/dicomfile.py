"""The frame around a data set that makes it a DICOM file: preamble, prefix and File Meta Information.

Layer 1, imports errors and model. `build_meta` frames what arrived (the spool alone can rebuild the index from it),
`canonical_meta` what leaves, `read_meta` reads any Part 10 file. Data sets themselves are never touched here.
Changes when the file meta says more. Source: PS3.10 7.1.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

from internal.errors import NotDicom
from internal.model import Arrival

#: One constant each, never changed with a release: bytes that leave must be equal at every attempt.
IMPLEMENTATION_CLASS_UID = "2.25.286180963574210583412386297508193476122"
IMPLEMENTATION_VERSION_NAME = "SATUSEHAT_ROUTER"
PRIVATE_INFORMATION_CREATOR_UID = "2.25.91738240561902847561029384756102938475"

_PREAMBLE = bytes(128) + b"DICM"
_LONG_VRS = frozenset({b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
#: So much of a file is looked at for its file meta.
META_BYTES = 132 + 64 * 1024
_MAX_META_ELEMENTS = 256
_UNPRINTABLE = re.compile(r"[^\x20-\x5b\x5d-\x7e]")


@dataclass(frozen=True, slots=True)
class Meta:
    """What the file meta of one file says; the data set begins at `dataset_offset` (bytes).

    `arrival` is None for a file that was not framed by build_meta.
    """

    sop_class_uid: str
    sop_uid: str
    transfer_syntax_uid: str
    dataset_offset: int
    arrival: Arrival | None


def build_meta(sop_class_uid: str, sop_uid: str, transfer_syntax_uid: str, arrival: Arrival | None) -> bytes:
    """Return preamble, prefix and file meta for a data set that arrived as `arrival` says.

    Calling and called AE and the peer's address go to Sending and Receiving AE Title and Sending Presentation Address,
    everything together as JSON to Private Information. Source: PS3.10 7.1.
    """
    elements = _identity(sop_class_uid, sop_uid, transfer_syntax_uid)
    if arrival is not None:
        elements += _arrival_elements(arrival)
    return _frame(elements)


def canonical_meta(sop_class_uid: str, sop_uid: str, transfer_syntax_uid: str) -> bytes:
    """Return preamble, prefix and file meta as they leave: a function of the three UIDs alone, for ever."""
    return _frame(_identity(sop_class_uid, sop_uid, transfer_syntax_uid))


def _identity(sop_class_uid: str, sop_uid: str, transfer_syntax_uid: str) -> list[bytes]:
    return [
        _long_element(0x0001, b"OB", b"\x00\x01"),
        _element(0x0002, b"UI", sop_class_uid),
        _element(0x0003, b"UI", sop_uid),
        _element(0x0010, b"UI", transfer_syntax_uid),
        _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
        _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
    ]


def _arrival_elements(arrival: Arrival) -> list[bytes]:
    facts = {
        "arrived_at": arrival.arrived_at, "association_id": arrival.association_id, "calling_aet": arrival.calling_aet,
        "called_aet": arrival.called_aet, "peer_address": arrival.peer_address, "source": arrival.source,
    }
    elements = [
        _element(number, b"AE", _UNPRINTABLE.sub("?", title)[:16])
        for number, title in ((0x0017, arrival.calling_aet), (0x0018, arrival.called_aet)) if title.strip()
    ]
    if arrival.peer_address:
        address = _UNPRINTABLE.sub("?", arrival.peer_address)[:256]
        elements.append(_long_element(0x0027, b"UR", f"dicom:{address}".encode("ascii")))
    elements.append(_element(0x0100, b"UI", PRIVATE_INFORMATION_CREATOR_UID))
    elements.append(_long_element(0x0102, b"OB", json.dumps(facts, separators=(",", ":")).encode("ascii")))
    return elements


def _element(number: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii", "replace")
    if len(value) % 2:
        value += b"\x00" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", 0x0002, number, vr, len(value)) + value


def _long_element(number: int, vr: bytes, value: bytes) -> bytes:
    value += b" " * (len(value) % 2)
    return struct.pack("<HH2sHI", 0x0002, number, vr, 0, len(value)) + value


def _frame(elements: list[bytes]) -> bytes:
    body = b"".join(elements)
    return _PREAMBLE + struct.pack("<HH2sHI", 0x0002, 0x0000, b"UL", 4, len(body)) + body


def read_meta(file: BinaryIO) -> Meta:
    """Return the file meta of the Part 10 file that `file` is at the beginning of; raises NotDicom.

    Reads at most 64 KB; the position of `file` afterwards is undefined. The group length, often wrong, is not used.
    """
    return parse_meta(file.read(META_BYTES))


def parse_meta(head: bytes) -> Meta:
    """Return the file meta of the Part 10 file that begins with `head`, META_BYTES or all of it; as `read_meta`."""
    if head[128:132] != b"DICM":
        raise NotDicom("no DICM prefix: this is not a DICOM file")
    values, offset = _read_group_2(head)
    transfer_syntax_uid = _text(values.get(0x0010, b""))
    if not transfer_syntax_uid:
        raise NotDicom("the file meta names no transfer syntax")
    return Meta(
        sop_class_uid=_text(values.get(0x0002, b"")),
        sop_uid=_text(values.get(0x0003, b"")),
        transfer_syntax_uid=transfer_syntax_uid,
        dataset_offset=offset,
        arrival=_read_arrival(values),
    )


def _read_group_2(head: bytes) -> tuple[dict[int, bytes], int]:
    values: dict[int, bytes] = {}
    position = 132
    for _ in range(_MAX_META_ELEMENTS):
        if head[position : position + 2] != b"\x02\x00":
            return values, position
        if position + 12 > len(head):
            break
        _, number, vr, length = struct.unpack_from("<HH2sH", head, position)
        position += 8
        if vr in _LONG_VRS:
            (length,) = struct.unpack_from("<I", head, position)
            position += 4
        if position + length > len(head):
            break
        values[number] = head[position : position + length]
        position += length
    raise NotDicom("the file meta is longer than 64 KB, cut off or garbage")


def _read_arrival(values: dict[int, bytes]) -> Arrival | None:
    if _text(values.get(0x0100, b"")) != PRIVATE_INFORMATION_CREATOR_UID:
        return None
    try:
        facts = json.loads(values.get(0x0102, b"").decode("utf-8"))
        return Arrival(
            arrived_at=int(facts["arrived_at"]),
            association_id=str(facts["association_id"]),
            calling_aet=str(facts["calling_aet"]),
            called_aet=str(facts["called_aet"]),
            peer_address=str(facts["peer_address"]),
            source=str(facts["source"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \x00")
