"""The DIMSE services beside C-STORE: a handler per command field.

Imports messages, negotiation and the spool writer. C-FIND, C-MOVE, C-GET, N-CREATE and N-SET add a handler here and
their SOP classes to `Services.abstract_syntaxes`. Changes when the receiver offers another service.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from interface.dimse import messages
from interface.dimse.messages import Command, build_response
from interface.dimse.negotiation import STORAGE_COMMITMENT, VERIFICATION
from interface.dimse.pdu import ContextResult
from interface.dimse.records import AssociationRecord, now_ms
from internal.errors import RouterError
from internal.spool import EntryKind, SpoolWriter

COMMITMENT_INSTANCE: Final = "1.2.840.10008.1.20.1.1"
_REQUEST_COMMITMENT: Final = 1

log = logging.getLogger("router.dimse")


@dataclass(frozen=True, slots=True)
class Request:
    """A whole message with a bounded data set (not for C-STORE)."""

    command: Command
    context: ContextResult
    data_set: bytes


class Session(Protocol):
    """What a handler may do with the association its request came on."""

    record: AssociationRecord

    def send(self, context_id: int, command: bytes, data_set: bytes | None = None) -> None:
        """Send one message; raises PeerClosed."""


Handler = Callable[[Session, Request], None]


@dataclass(frozen=True, slots=True)
class Services:
    """The handlers by command field, and the abstract syntaxes accepted for them."""

    handlers: Mapping[int, Handler]
    abstract_syntaxes: frozenset[str]


def echo(session: Session, request: Request) -> None:
    """Answer a C-ECHO. Source: PS3.7 9.1.5."""
    session.send(request.context.context_id, build_response(request.command, messages.SUCCESS))


def unrecognized(session: Session, request: Request) -> None:
    """Answer a command that no service here understands. Source: PS3.7 C.5."""
    session.send(
        request.context.context_id,
        build_response(request.command, messages.UNRECOGNIZED_OPERATION, "this operation is not offered here"),
    )


def commitment(writer: SpoolWriter) -> Handler:
    """Return the N-ACTION handler of Storage Commitment: 0x0000 means that the request itself is durable.

    Source: PS3.4 J.3.2. The answer to the request (N-EVENT-REPORT) is somebody else's job.
    """

    def handle(session: Session, request: Request) -> None:
        status, comment = _keep_commitment(writer, session, request)
        session.send(request.context.context_id, build_response(request.command, status, comment))

    return handle


def _keep_commitment(writer: SpoolWriter, session: Session, request: Request) -> tuple[int, str]:
    command = request.command
    if command.uid(messages.REQUESTED_SOP_CLASS_UID) != STORAGE_COMMITMENT:
        return messages.NO_SUCH_SOP_CLASS, "not the Storage Commitment Push Model"
    if command.uid(messages.REQUESTED_SOP_INSTANCE_UID) != COMMITMENT_INSTANCE:
        return messages.INVALID_OBJECT_INSTANCE, "not the well-known Storage Commitment instance"
    if command.number(messages.ACTION_TYPE_ID) != _REQUEST_COMMITMENT:
        return messages.NO_SUCH_ACTION, "only action type 1 is offered"
    if not request.data_set:
        return messages.INVALID_ARGUMENT_VALUE, "the request names no instances"
    document = {
        "request": "storage-commitment", "arrived_at": now_ms(), "association_id": session.record.association_id,
        "calling_aet": session.record.calling_aet, "called_aet": session.record.called_aet,
        "peer": session.record.peer, "transfer_syntax_uid": request.context.transfer_syntax,
        "data_set": base64.b64encode(request.data_set).decode("ascii"),
    }  # fmt: skip
    try:
        writer.add_record(EntryKind.REQUEST, json.dumps(document).encode("ascii"))
    except RouterError as error:
        log.error("a storage commitment request is refused: %s", error)
        return messages.PROCESSING_FAILURE, str(error)
    return messages.SUCCESS, ""


def services_for(writer: SpoolWriter, *, with_commitment: bool) -> Services:
    """Return the services of a receive process; commitment only where an admin wants it: it lets a scanner delete."""
    handlers: dict[int, Handler] = {messages.C_ECHO_RQ: echo}
    abstract_syntaxes = {VERIFICATION}
    if with_commitment:
        handlers[messages.N_ACTION_RQ] = commitment(writer)
        abstract_syntaxes.add(STORAGE_COMMITMENT)
    return Services(handlers, frozenset(abstract_syntaxes))
