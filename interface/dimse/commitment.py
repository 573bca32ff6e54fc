"""Storage Commitment SCP, the receiving half: an N-ACTION is parsed, made durable, and only then answered 0x0000.

Imports messages, records and the spool writer. The data set is walked here, bounded, without a library. The answer to
the request (N-EVENT-REPORT) is the business of `commitment_report`. Changes when a request may carry something else.
Source: PS3.4 J.3.2, PS3.5 7.5 (sequences).
"""

from __future__ import annotations

import json
import logging
import struct
import threading
from collections.abc import Container
from typing import Any, Final, Literal

from interface.dimse import messages
from interface.dimse.messages import build_response
from interface.dimse.negotiation import (
    COMMITMENT_INSTANCE,
    EXPLICIT_BIG,
    IMPLICIT_LITTLE,
    STORAGE_COMMITMENT,
    is_safe_uid,
)
from interface.dimse.records import now_ms
from interface.dimse.services import Handler, Request, Session
from internal.errors import RouterError
from internal.model import COMMITMENT_ANSWER, COMMITMENT_REQUEST
from internal.spool import EntryKind, SpoolWriter

MAX_REFERENCES: Final = 50_000
NOT_AUTHORISED: Final = 0x0124
_REQUEST_COMMITMENT: Final = 1
_MAX_ELEMENTS: Final = 400_000
_MAX_DEPTH: Final = 6
_TRANSACTION_UID: Final = 0x00081195
_REFERENCED_SOPS: Final = 0x00081199
_FAILED_SOPS: Final = 0x00081198
_FAILURE_REASON: Final = 0x00081197
_REFERENCED_CLASS: Final = 0x00081150
_REFERENCED_INSTANCE: Final = 0x00081155
#: Written without a VR, these are known to be sequences all the same.
_SEQUENCES: Final = frozenset({_REFERENCED_SOPS, _FAILED_SOPS, 0x00081111})
_LONG_VRS: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

log = logging.getLogger("router.dimse")

#: One request is read and taken apart at a time: a long one is 40 MB meanwhile, and many may come at once.
_one_at_a_time = threading.Lock()

DataSet = dict[int, Any]  # bytes, or a list of DataSet


class MalformedRequest(Exception):
    """The data set of a request is not what the service demands."""


class _Reader:
    """One bounded walk over a small data set."""

    def __init__(self, data: bytes, transfer_syntax: str) -> None:
        self._data = data
        self._explicit = transfer_syntax != IMPLICIT_LITTLE
        order = ">" if transfer_syntax == EXPLICIT_BIG else "<"
        self._tag = struct.Struct(order + "HH")
        self._short = struct.Struct(order + "H")
        self._long = struct.Struct(order + "I")
        self._budget = _MAX_ELEMENTS

    def data_set(self) -> DataSet:
        """Return the whole data set; raises MalformedRequest."""
        try:
            return self._elements(0, len(self._data), 0)[0]
        except struct.error:
            raise MalformedRequest("the data set is cut off") from None

    def _element(self, at: int) -> tuple[int, bytes, int, int]:
        """Return tag, VR (b"" if implicit), length and where the value begins."""
        self._budget -= 1
        if self._budget < 0:
            raise MalformedRequest("the data set has too many elements")
        group, number = self._tag.unpack_from(self._data, at)
        tag = (group << 16) | number
        if group == 0xFFFE or not self._explicit:
            return tag, b"", *self._long.unpack_from(self._data, at + 4), at + 8
        vr = self._data[at + 4 : at + 6]
        if vr in _LONG_VRS:
            return tag, vr, *self._long.unpack_from(self._data, at + 8), at + 12
        return tag, vr, *self._short.unpack_from(self._data, at + 6), at + 8

    def _elements(self, at: int, end: int | None, depth: int) -> tuple[DataSet, int]:
        """Return the elements up to `end`, or up to the item's delimiter if that is None, and where they end."""
        found: DataSet = {}
        while end is None or at < end:
            tag, vr, length, at = self._element(at)
            if tag == _ITEM_END and end is None:
                return found, at
            if vr == b"SQ" or length == _UNDEFINED or (not vr and tag in _SEQUENCES):
                found[tag], at = self._items(at, None if length == _UNDEFINED else at + length, depth + 1)
            else:
                if at + length > len(self._data):
                    raise MalformedRequest("an element is longer than the data set")
                found[tag] = self._data[at : at + length]
                at += length
        return found, at

    def _items(self, at: int, end: int | None, depth: int) -> tuple[list[DataSet], int]:
        if depth > _MAX_DEPTH:
            raise MalformedRequest("sequences are nested too deep")
        items: list[DataSet] = []
        while end is None or at < end:
            tag, _, length, at = self._element(at)
            if tag == _SEQUENCE_END and end is None:
                return items, at
            if tag != _ITEM:
                raise MalformedRequest("a sequence holds something that is no item")
            item, at = self._elements(at, None if length == _UNDEFINED else at + length, depth)
            items.append(item)
        return items, at


def parse_commitment(data: bytes, transfer_syntax: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the transaction UID and (SOP Class UID, SOP Instance UID) of everything asked for.

    Raises MalformedRequest. Source: PS3.4 table J.3-1.
    """
    data_set = _Reader(data, transfer_syntax).data_set()
    transaction_uid = _uid(data_set, _TRANSACTION_UID)
    items = data_set.get(_REFERENCED_SOPS)
    if not isinstance(items, list) or not items:
        raise MalformedRequest("the request names no instances")
    return transaction_uid, [(_uid(item, _REFERENCED_CLASS), _uid(item, _REFERENCED_INSTANCE)) for item in items]


def parse_report(data: bytes, transfer_syntax: str) -> tuple[str, dict[str, int]]:
    """Return the transaction UID of an N-EVENT-REPORT, and the failure reason of each instance (0: committed).

    Raises MalformedRequest. Source: PS3.4 table J.3-2.
    """
    data_set = _Reader(data, transfer_syntax).data_set()
    order: Literal["big", "little"] = "big" if transfer_syntax == EXPLICIT_BIG else "little"
    reasons: dict[str, int] = {}
    for tag in (_REFERENCED_SOPS, _FAILED_SOPS):
        items = data_set.get(tag, [])
        for item in items if isinstance(items, list) else []:
            reason = item.get(_FAILURE_REASON, b"")
            number = int.from_bytes(reason, order) if isinstance(reason, bytes) and len(reason) == 2 else 0
            reasons[_uid(item, _REFERENCED_INSTANCE)] = 0 if tag == _REFERENCED_SOPS else number or 0x0110
    if not reasons or len(reasons) > MAX_REFERENCES:
        raise MalformedRequest("the report names no instances, or too many")
    return _uid(data_set, _TRANSACTION_UID), reasons


def _uid(data_set: DataSet, tag: int) -> str:
    value = data_set.get(tag)
    uid = value.decode("ascii", "replace").strip(" \0") if isinstance(value, bytes) else ""
    if not is_safe_uid(uid):
        raise MalformedRequest(f"({tag >> 16:04X},{tag & 0xFFFF:04X}) is missing or no UID")
    return uid


def commitment(
    writer: SpoolWriter, callers: Container[str], same_association: Container[str] = (),
) -> Handler:
    """Return the N-ACTION handler of Storage Commitment: 0x0000 means that the request itself is durable.

    Only `callers` (AE titles) may ask: a commitment lets them delete. Those in `same_association` get the report on
    the association of the request while it is open.
    """

    def handle(session: Session, request: Request) -> None:
        with _one_at_a_time:
            status, comment = _keep(writer, same_association, session, request)
        session.send(request.context.context_id, build_response(request.command, status, comment))

    return only_from(callers, handle)


def only_from(titles: Container[str], handler: Handler) -> Handler:
    """Return `handler` for callers with these AE titles; all others are refused with 0x0124."""

    def handle(session: Session, request: Request) -> None:
        if session.record.calling_aet in titles:
            handler(session, request)
        else:
            refused = build_response(request.command, NOT_AUTHORISED, "not a service for this AE title")
            session.send(request.context.context_id, refused)

    return handle


def commitment_answer(writer: SpoolWriter) -> Handler:
    """Return the N-EVENT-REPORT handler: what a node says to a request of ours; 0x0000 means that it is durable."""

    def handle(session: Session, request: Request) -> None:
        with _one_at_a_time:
            status, comment = _keep_answer(writer, session, request)
        session.send(request.context.context_id, build_response(request.command, status, comment))

    return handle


def _keep_answer(writer: SpoolWriter, session: Session, request: Request) -> tuple[int, str]:
    try:
        if request.context.abstract_syntax != STORAGE_COMMITMENT:
            raise MalformedRequest("not the Storage Commitment Push Model")
        transaction_uid, reasons = parse_report(request.read_data_set(), request.context.transfer_syntax)
        document = {"request": COMMITMENT_ANSWER, "arrived_at": now_ms(), "calling_aet": session.record.calling_aet,
                    "transaction_uid": transaction_uid, "reasons": reasons}
        writer.add_record(EntryKind.REQUEST, json.dumps(document).encode("ascii"))
    except MalformedRequest as error:
        return messages.INVALID_ARGUMENT_VALUE, str(error)
    except RouterError as error:
        log.error("an answer to a commitment request is refused: %s", error)
        return messages.PROCESSING_FAILURE, str(error)
    return messages.SUCCESS, ""


def _keep(
    writer: SpoolWriter, same_association: Container[str], session: Session, request: Request
) -> tuple[int, str]:
    command = request.command
    if request.context.abstract_syntax != STORAGE_COMMITMENT or (
        command.uid(messages.REQUESTED_SOP_CLASS_UID) != STORAGE_COMMITMENT
    ):
        return messages.NO_SUCH_SOP_CLASS, "not the Storage Commitment Push Model"
    if command.uid(messages.REQUESTED_SOP_INSTANCE_UID) != COMMITMENT_INSTANCE:
        return messages.INVALID_OBJECT_INSTANCE, "not the well-known Storage Commitment instance"
    if command.number(messages.ACTION_TYPE_ID) != _REQUEST_COMMITMENT:
        return messages.NO_SUCH_ACTION, "only action type 1 is offered"
    record = session.record
    try:
        transaction_uid, references = parse_commitment(request.read_data_set(), request.context.transfer_syntax)
        if len(references) > MAX_REFERENCES:
            return messages.RESOURCE_LIMITATION, f"more than {MAX_REFERENCES} instances in one request"
        document = {
            "request": COMMITMENT_REQUEST, "arrived_at": now_ms(), "association_id": record.association_id,
            "calling_aet": record.calling_aet, "called_aet": record.called_aet, "peer": record.peer,
            "transaction_uid": transaction_uid, "references": references,
        }  # fmt: skip
        entry = writer.add_record(EntryKind.REQUEST, json.dumps(document).encode("ascii"))
    except MalformedRequest as error:
        return messages.INVALID_ARGUMENT_VALUE, str(error)
    except RouterError as error:
        log.error("a storage commitment request is refused: %s", error)
        return messages.PROCESSING_FAILURE, str(error)
    if record.calling_aet in same_association:
        session.expect_report(entry.id, request.context)
    return messages.SUCCESS, ""
