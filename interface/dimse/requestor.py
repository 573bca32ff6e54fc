"""An association that we ask for: C-STORE, C-ECHO, N-ACTION and N-EVENT-REPORT over one socket, one thread at a time.

A data set is read from its file into blocks that already hold the PDU headers and leaves with few system calls.
Imports pdu and messages. Changes when we ask for another service. Source: PS3.8 9.3, PS3.7 9.1.1, 10.1.1, 10.1.4.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, Final

from interface.dimse import messages, pdu
from interface.dimse.messages import Command, build_command, parse_command
from interface.dimse.pdu import AssociateAccept, PduError, ProposedContext
from internal.errors import BytesDamaged, Transient

MAX_PDU_BYTES: Final = 64 * 1024
BLOCK_BYTES: Final = 256 * 1024
_MAX_DATA_SET: Final = 16 * 1024 * 1024
_CONNECT_S: Final = 10.0
_RELEASE_S: Final = 2.0
_PDV: Final = struct.Struct(">BxIIBB")
#: A node that writes its answer in two pieces with Nagle's algorithm on (DCMTK does) waits for our acknowledgement of
#: the first one: 40 ms for each image. The kernel forgets the option after a while.
_QUICK_ACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)
_REJECTIONS: Final = {
    (1, 1): "it gives no reason", (1, 2): "it does not know this application context",
    (1, 3): "it does not know our AE title", (1, 7): "it does not have this AE title",
    (3, 1): "it is busy", (3, 2): "it has too many associations",
}  # fmt: skip


class AssociationLost(Transient):
    """The association ended while an answer was waited for, or never came to be."""


@dataclass(frozen=True, slots=True)
class Node:
    """A DICOM node and how to reach it; times in seconds. `tls_name` is the name its certificate must have."""

    host: str
    port: int
    aet: str
    timeout_s: float = 60.0
    tls: ssl.SSLContext | None = None
    tls_name: str = ""

    def __str__(self) -> str:
        return f"{self.aet} at {self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Reply:
    """Status of a response, and the Error Comment that came with it (the peer's words: never logged)."""

    status: int
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """A request that the peer sent to us, with its data set, on the context `context_id`."""

    command: Command
    context_id: int
    data_set: bytes


class Requestor:
    """One established association; end it with release() or cut()."""

    def __init__(
        self, node: Node, calling_aet: str, contexts: Sequence[ProposedContext],
        roles: Sequence[tuple[str, int, int]] = (),
    ) -> None:
        """Connect and negotiate; raises AssociationLost with what the peer said, in words."""
        self.node = node
        self.contexts = tuple(contexts)
        self.used_s = time.monotonic()
        self._message_id = 0
        self._block = bytearray()
        self._sock = self._connect()
        try:
            self._send(pdu.build_associate_rq(node.aet, calling_aet, contexts, MAX_PDU_BYTES, roles))
            self.accepted = self._read_accept()
        except BaseException:
            self.cut()
            raise
        limit = self.accepted.max_pdu_bytes or BLOCK_BYTES
        self._room = max(min(limit, BLOCK_BYTES) - 6, 64)

    def _connect(self) -> socket.socket:
        node = self.node
        try:
            sock = socket.create_connection((node.host, node.port), min(_CONNECT_S, node.timeout_s))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.settimeout(node.timeout_s)
            if node.tls is not None:
                return node.tls.wrap_socket(sock, server_hostname=node.tls_name or node.host)
        except ssl.SSLCertVerificationError as fault:
            raise AssociationLost(f"TLS with {node}: {fault.verify_message}", code="dimse-tls") from None
        except ssl.SSLError as fault:
            raise AssociationLost(f"TLS with {node} failed ({fault.reason})", code="dimse-tls") from None
        except OSError as fault:
            raise AssociationLost(f"{node} cannot be reached ({_words(fault)})", code="dimse-connect") from None
        return sock

    def _read_accept(self) -> AssociateAccept:
        deadline = time.monotonic() + self.node.timeout_s
        kind, body = self._read_pdu(deadline, pdu.MAX_ASSOCIATE_BYTES)
        if kind == pdu.ASSOCIATE_AC:
            try:
                return pdu.parse_associate_ac(body)
            except PduError as fault:
                raise AssociationLost(f"{self.node} broke the protocol: {fault}", code="dimse-protocol") from None
        if kind == pdu.ASSOCIATE_RJ and len(body) == 4:
            result, source, reason = body[1:]
            words = _REJECTIONS.get((source, reason), "it gives an unknown reason")
            raise AssociationLost(f"{self.node} rejects the association: {words} ({result}/{source}/{reason})",
                                  code="dimse-rejected")
        raise AssociationLost(f"{self.node} does not let us in", code="dimse-rejected")

    # -- services --------------------------------------------------------------------------------------------------

    def find_context(self, abstract_syntax: str, transfer_syntaxes: Sequence[str]) -> tuple[int, str] | None:
        """Return id and transfer syntax of an accepted context for one of `transfer_syntaxes`, in their order."""
        accepted = self.accepted.transfer_syntaxes
        for wanted in transfer_syntaxes:
            for context in self.contexts:
                if context.abstract_syntax == abstract_syntax and accepted.get(context.context_id) == wanted:
                    return context.context_id, wanted
        return None

    def store(self, context_id: int, sop_class_uid: str, sop_uid: str, data_set: BinaryIO, size_bytes: int) -> Reply:
        """C-STORE `size_bytes` bytes of `data_set`; raises AssociationLost, BytesDamaged when the file ends early."""
        self._message_id = self._message_id % 0xFFFF + 1
        command = build_command({
            messages.AFFECTED_SOP_CLASS_UID: sop_class_uid, messages.COMMAND_FIELD: messages.C_STORE_RQ,
            messages.MESSAGE_ID: self._message_id, messages.PRIORITY: 0, messages.DATA_SET_TYPE: 1,
            messages.AFFECTED_SOP_INSTANCE_UID: sop_uid})
        head = b"".join(messages.cut(context_id, command, is_command=True, max_pdu_bytes=self._room + 6))
        self._send_data_set(head, context_id, data_set, size_bytes)
        return self._read_reply(messages.C_STORE_RQ)

    def echo(self, context_id: int, abstract_syntax: str) -> Reply:
        """C-ECHO; raises AssociationLost."""
        return self._ask(messages.C_ECHO_RQ, context_id, b"", {messages.AFFECTED_SOP_CLASS_UID: abstract_syntax})

    def action(self, context_id: int, sop_class_uid: str, sop_uid: str, action: int, data_set: bytes) -> Reply:
        """N-ACTION with the action information `data_set`; raises AssociationLost. Source: PS3.7 10.1.4."""
        return self._ask(messages.N_ACTION_RQ, context_id, data_set, {
            messages.REQUESTED_SOP_CLASS_UID: sop_class_uid, messages.REQUESTED_SOP_INSTANCE_UID: sop_uid,
            messages.ACTION_TYPE_ID: action})

    def event_report(self, context_id: int, sop_class_uid: str, sop_uid: str, event: int, data_set: bytes) -> Reply:
        """N-EVENT-REPORT with the event information `data_set`; raises AssociationLost. Source: PS3.7 10.1.1."""
        return self._ask(messages.N_EVENT_REPORT_RQ, context_id, data_set, {
            messages.AFFECTED_SOP_CLASS_UID: sop_class_uid, messages.AFFECTED_SOP_INSTANCE_UID: sop_uid,
            messages.EVENT_TYPE_ID: event})

    def _ask(self, field: int, context_id: int, data_set: bytes, elements: Mapping[int, int | str]) -> Reply:
        """Send a request whose data set is in memory (none: b"") and return the answer."""
        self._message_id = self._message_id % 0xFFFF + 1
        command = build_command({
            **elements, messages.COMMAND_FIELD: field, messages.MESSAGE_ID: self._message_id,
            messages.DATA_SET_TYPE: messages.DATA_SET_FOLLOWS if data_set else messages.NO_DATA_SET})
        limit = self._room + 6
        parts = [*messages.cut(context_id, command, is_command=True, max_pdu_bytes=limit)]
        if data_set:
            parts += messages.cut(context_id, data_set, is_command=False, max_pdu_bytes=limit)
        self._send(b"".join(parts))
        return self._read_reply(field)

    def await_request(self, seconds: float) -> Message | None:
        """Return a request that the peer sends to us within `seconds`, None if it sends none."""
        try:
            message = self._read_message(time.monotonic() + seconds)
        except AssociationLost:
            return None
        return None if message.command.field & messages.RESPONSE else message

    def respond(self, message: Message, status: int) -> None:
        """Answer a request of the peer."""
        self._send(b"".join(messages.cut(message.context_id, messages.build_response(message.command, status),
                                         is_command=True, max_pdu_bytes=self._room + 6)))

    def release(self) -> None:
        """End the association as the standard wants it; waits 2 s for the answer, and never raises."""
        with suppress(AssociationLost, PduError):
            self._send(pdu.RELEASE_REQUEST)
            deadline = time.monotonic() + _RELEASE_S
            while self._read_pdu(deadline, _MAX_DATA_SET)[0] == pdu.P_DATA_TF:
                pass
        self._close()

    def cut(self) -> None:
        """Abort the association; never raises."""
        with suppress(OSError):
            self._sock.settimeout(_RELEASE_S)
            self._sock.sendall(pdu.build_abort(pdu.ABORT_BY_USER))
        self._close()

    def _close(self) -> None:
        with suppress(OSError):
            self._sock.close()

    # -- bytes -----------------------------------------------------------------------------------------------------

    def _send_data_set(self, head: bytes, context_id: int, data_set: BinaryIO, size_bytes: int) -> None:
        left, room = size_bytes, self._room
        if not self._block:
            self._block = bytearray(max(BLOCK_BYTES, room + _PDV.size))
        view, used = memoryview(self._block), 0
        self._send(head)
        while True:
            count = min(left, room)
            left -= count
            _PDV.pack_into(view, used, pdu.P_DATA_TF, count + 6, count + 2, context_id, 0 if left else 2)
            used += _PDV.size
            _fill(data_set, view[used : used + count])
            used += count
            if not left or used + _PDV.size + room > len(view):
                self._send(view[:used])
                used = 0
            if not left:
                return

    def _send(self, data: bytes | memoryview) -> None:
        try:
            self._sock.settimeout(self.node.timeout_s)
            self._sock.sendall(data)
        except OSError as fault:
            raise self._lost(fault) from None

    def _read_reply(self, field: int) -> Reply:
        message = self._read_message(time.monotonic() + self.node.timeout_s)
        status = message.command.number(messages.STATUS)
        if message.command.field != field | messages.RESPONSE or message.command.message_id != self._message_id \
                or status is None:
            raise AssociationLost(f"{self.node} sent something that is no answer", code="dimse-protocol")
        self.used_s = time.monotonic()
        comment = message.command.values.get(messages.ERROR_COMMENT, b"").decode("ascii", "replace").strip(" \0")
        return Reply(status, comment[:64])

    def _read_message(self, deadline: float) -> Message:
        command, data_set, parsed, context_id = bytearray(), bytearray(), None, 0
        try:
            while True:
                kind, body = self._read_pdu(deadline, MAX_PDU_BYTES)
                if kind != pdu.P_DATA_TF:
                    raise AssociationLost(f"{self.node} ended the association", code="dimse-lost")
                for context_id, control, fragment in _fragments(body):
                    target = command if control & 1 else data_set
                    target += fragment
                    if len(command) > messages.MAX_COMMAND_BYTES or len(data_set) > _MAX_DATA_SET:
                        raise PduError("the message is too long")
                    if control & 2 and control & 1:
                        parsed = parse_command(command)
                    if control & 2 and parsed is not None and (not control & 1 or not parsed.has_data_set):
                        return Message(parsed, context_id, bytes(data_set))
        except PduError as fault:
            raise AssociationLost(f"{self.node} broke the protocol: {fault}", code="dimse-protocol") from None

    def _read_pdu(self, deadline: float, limit: int) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxI", self._read(6, deadline))
        if length > limit:
            raise AssociationLost(f"{self.node} sent a PDU that is too long", code="dimse-protocol")
        return kind, self._read(length, deadline)

    def _read(self, count: int, deadline: float) -> bytes:
        data = bytearray()
        try:
            while len(data) < count:
                self._sock.settimeout(max(deadline - time.monotonic(), 0.001))
                if _QUICK_ACK is not None:
                    self._sock.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
                part = self._sock.recv(count - len(data))
                if not part:
                    raise AssociationLost(f"{self.node} closed the connection", code="dimse-lost")
                data += part
        except OSError as fault:
            raise self._lost(fault) from None
        return bytes(data)

    def _lost(self, fault: OSError) -> AssociationLost:
        if isinstance(fault, TimeoutError):
            return AssociationLost(f"{self.node} did not answer in time", code="dimse-timeout")
        return AssociationLost(f"{self.node} broke the connection", code="dimse-lost")


def _fragments(body: bytes) -> list[tuple[int, int, bytes]]:
    """Return (context id, control header, bytes) of each PDV of a P-DATA-TF. Source: PS3.8 9.3.5."""
    found, position = [], 0
    while position < len(body):
        if position + 6 > len(body):
            raise PduError("a fragment is cut off")
        (length,) = struct.unpack_from(">I", body, position)
        if length < 2 or position + 4 + length > len(body):
            raise PduError("a fragment is longer than its PDU")
        found.append((body[position + 4], body[position + 5], body[position + 6 : position + 4 + length]))
        position += 4 + length
    return found


def _fill(source: BinaryIO, view: memoryview) -> None:
    while view:
        count = source.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise BytesDamaged("the file ended before the recorded size")
        view = view[count:]


def _words(fault: OSError) -> str:
    if isinstance(fault, TimeoutError):
        return "no answer"
    if isinstance(fault, socket.gaierror):
        return "its name is not known"
    return (fault.strerror or type(fault).__name__).lower()
