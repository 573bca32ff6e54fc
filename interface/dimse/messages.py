"""DIMSE command sets and how messages are cut into P-DATA-TF PDUs; pure, bounded.

Imports nothing of ours. Changes when a service needs another command element. Source: PS3.7 6.3, 9.3, 10.3, annex E.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from interface.dimse.pdu import P_DATA_TF, PduError

MAX_COMMAND_BYTES: Final = 64 * 1024
_MAX_ELEMENTS: Final = 128
_MAX_ECHOED_BYTES: Final = 66
_HEADER: Final = struct.Struct("<HHI")
_SHORT: Final = struct.Struct("<HHIH")
_GROUP_LENGTH: Final = struct.Struct("<HHII")
_PDV: Final = struct.Struct(">BxIIBB")

C_STORE_RQ: Final = 0x0001
C_ECHO_RQ: Final = 0x0030
N_EVENT_REPORT_RQ: Final = 0x0100
N_ACTION_RQ: Final = 0x0130
C_CANCEL_RQ: Final = 0x0FFF
RESPONSE: Final = 0x8000
NO_DATA_SET: Final = 0x0101
DATA_SET_FOLLOWS: Final = 0x0001  #: any value of (0000,0800) but 0101

AFFECTED_SOP_CLASS_UID: Final = 0x0002
REQUESTED_SOP_CLASS_UID: Final = 0x0003
COMMAND_FIELD: Final = 0x0100
MESSAGE_ID: Final = 0x0110
MESSAGE_ID_RESPONDED_TO: Final = 0x0120
PRIORITY: Final = 0x0700
DATA_SET_TYPE: Final = 0x0800
STATUS: Final = 0x0900
ERROR_COMMENT: Final = 0x0902
AFFECTED_SOP_INSTANCE_UID: Final = 0x1000
REQUESTED_SOP_INSTANCE_UID: Final = 0x1001
EVENT_TYPE_ID: Final = 0x1002
ACTION_TYPE_ID: Final = 0x1008

#: Element of a request -> element of its response with the same value.
_ECHOED: Final = (
    (AFFECTED_SOP_CLASS_UID, AFFECTED_SOP_CLASS_UID), (AFFECTED_SOP_INSTANCE_UID, AFFECTED_SOP_INSTANCE_UID),
    (REQUESTED_SOP_CLASS_UID, AFFECTED_SOP_CLASS_UID), (REQUESTED_SOP_INSTANCE_UID, AFFECTED_SOP_INSTANCE_UID),
)  # fmt: skip

#: Also echoed by build_response. A C-STORE-RQ has none of them; one that has takes the slow way.
_RARELY_ECHOED: Final = frozenset({REQUESTED_SOP_CLASS_UID, REQUESTED_SOP_INSTANCE_UID, ACTION_TYPE_ID, EVENT_TYPE_ID})

SUCCESS: Final = 0x0000
PROCESSING_FAILURE: Final = 0x0110
INVALID_ARGUMENT_VALUE: Final = 0x0115
INVALID_OBJECT_INSTANCE: Final = 0x0117
RESOURCE_LIMITATION: Final = 0x0213
UNRECOGNIZED_OPERATION: Final = 0x0211
NO_SUCH_SOP_CLASS: Final = 0x0118
NO_SUCH_EVENT: Final = 0x0113
NO_SUCH_ACTION: Final = 0x0123
OUT_OF_RESOURCES: Final = 0xA700
DATA_SET_DOES_NOT_MATCH: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000


@dataclass(frozen=True, slots=True)
class Command:
    """A command set as received: values by element number of group 0000."""

    values: Mapping[int, bytes]
    field: int
    message_id: int
    has_data_set: bool

    def uid(self, number: int) -> str:
        """Return a UI element without padding, "" if absent; what is not ASCII becomes U+FFFD."""
        return self.values.get(number, b"").decode("ascii", "replace").strip(" \0")

    def number(self, number: int) -> int | None:
        """Return a US element, None if it is absent or malformed."""
        return _us(self.values, number)


def parse_command(data: bytes | bytearray) -> Command:
    """Return the command set in `data` (implicit little endian); raises PduError if it is none."""
    data = bytes(data)
    values: dict[int, bytes] = {}
    position, end = 0, len(data)
    while position < end:
        if position + 8 > end or len(values) >= _MAX_ELEMENTS:
            raise PduError("a command set is cut off or too long")
        group, number, length = _HEADER.unpack_from(data, position)
        start = position + 8
        position = start + length
        if group != 0 or position > end:
            raise PduError("a command set has a foreign or cut off element")
        values[number] = data[start:position]
    field, kind = _us(values, COMMAND_FIELD), _us(values, DATA_SET_TYPE)
    answers = field == C_CANCEL_RQ or (field is not None and field & RESPONSE)
    message_id = _us(values, MESSAGE_ID_RESPONDED_TO if answers else MESSAGE_ID)
    if field is None or message_id is None or kind is None:
        raise PduError("a command set lacks its field, message id or data set type")
    return Command(values, field, message_id, kind != NO_DATA_SET)


def _us(values: Mapping[int, bytes], number: int) -> int | None:
    value = values.get(number, b"")
    return int.from_bytes(value, "little") if len(value) == 2 else None


def build_command(elements: Mapping[int, int | str | bytes]) -> bytes:
    """Return a command set with its group length.

    Numbers are encoded as US, texts as UI (ErrorComment: LO), bytes are taken as they are but for the padding.
    """
    body = b"".join([_encoded(number, elements[number]) for number in sorted(elements)])
    return _GROUP_LENGTH.pack(0, 0, 4, len(body)) + body


@lru_cache(maxsize=64)  # most of a response is what it was for the instance before
def _encoded(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _SHORT.pack(0, number, 2, value)
    if isinstance(value, str):
        value = value.encode("ascii", "replace")
    if len(value) % 2:
        value += b" " if number == ERROR_COMMENT else b"\0"
    return _HEADER.pack(0, number, len(value)) + value


def build_response(request: Command, status: int, comment: str = "") -> bytes:
    """Return the response without data set to `request`; UIDs of the request are echoed if they are ASCII."""
    elements: dict[int, int | str | bytes] = {
        COMMAND_FIELD: request.field | RESPONSE,
        MESSAGE_ID_RESPONDED_TO: request.message_id,
        DATA_SET_TYPE: NO_DATA_SET,
        STATUS: status,
    }
    values = request.values
    for echoed, number in _ECHOED:
        if (value := values.get(echoed)) and len(value) <= _MAX_ECHOED_BYTES:
            elements[number] = value if value.isascii() else request.uid(echoed)
    for number in (ACTION_TYPE_ID, EVENT_TYPE_ID):
        if number in values and (kind := request.number(number)) is not None:
            elements[number] = kind
    if comment:
        elements[ERROR_COMMENT] = comment[:64]
    return build_command(elements)


def cut(context_id: int, message: bytes, *, is_command: bool, max_pdu_bytes: int) -> Iterator[bytes]:
    """Yield `message` (a command set or a data set) as P-DATA-TF PDUs of at most `max_pdu_bytes` (0: no limit)."""
    room = max(max_pdu_bytes - 6, 64) if max_pdu_bytes else len(message) or 1
    for start in range(0, len(message) or 1, room):
        fragment = message[start : start + room]
        last = start + room >= len(message)
        control = (1 if is_command else 0) | (2 if last else 0)
        yield _PDV.pack(P_DATA_TF, len(fragment) + 6, len(fragment) + 2, context_id, control) + fragment


def cut_success(context_id: int, request: Command, max_pdu_bytes: int) -> bytes:
    """Return the PDUs of the response SUCCESS to `request`, as build_response and cut make them.

    Most of it is what it was for the instance before: only message id and SOP Instance UID are put in.
    """
    values = request.values
    sop_class, sop_uid = values.get(AFFECTED_SOP_CLASS_UID, b""), values.get(AFFECTED_SOP_INSTANCE_UID, b"")
    if (
        0 < len(sop_class) <= _MAX_ECHOED_BYTES and 0 < len(sop_uid) <= _MAX_ECHOED_BYTES and sop_class.isascii()
        and sop_uid.isascii() and len(sop_uid) % 2 == 0 and _RARELY_ECHOED.isdisjoint(values)
    ):  # fmt: skip
        around = _around(context_id, request.field, sop_class, len(sop_uid), max_pdu_bytes)
        if around is not None:
            return b"".join((around[0], request.message_id.to_bytes(2, "little"), around[1], sop_uid))
    return b"".join(cut(context_id, build_response(request, SUCCESS), is_command=True, max_pdu_bytes=max_pdu_bytes))


@lru_cache(maxsize=64)
def _around(
    context_id: int, field: int, sop_class: bytes, uid_bytes: int, max_pdu_bytes: int
) -> tuple[bytes, bytes] | None:
    """Return what stands before and behind the message id, without the SOP Instance UID; None for several PDUs."""
    request = Command({AFFECTED_SOP_CLASS_UID: sop_class, AFFECTED_SOP_INSTANCE_UID: b"0" * uid_bytes}, field, 0, True)
    whole, *more = cut(context_id, build_response(request, SUCCESS), is_command=True, max_pdu_bytes=max_pdu_bytes)
    if more:
        return None
    message_id = _SHORT.pack(0, MESSAGE_ID_RESPONDED_TO, 2, 0)
    at = whole.rindex(message_id) + len(message_id)
    return whole[: at - 2], whole[at:-uid_bytes]
