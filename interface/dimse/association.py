"""The acceptor's side of one association: one blocking thread from the first byte to the last.

Imports the PDU codec, negotiation, messages, stream, store lane and services. PDV headers are parsed where they lie in
the receive buffer; data set fragments go from there to the sink. Changes when the upper layer's rules change.
Source: PS3.8 9.2 (state machine), 9.3.5 (P-DATA-TF), annex E (message control header).
"""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from interface.dimse import messages, pdu
from interface.dimse.counters import Counters
from interface.dimse.messages import Command, build_response
from interface.dimse.negotiation import ACCEPTED, negotiate
from interface.dimse.pdu import AssociateRequest, ContextResult, PduError
from interface.dimse.policy import Policy, PolicyFile
from interface.dimse.records import AssociationRecord, Refusals, Register, now_ms
from interface.dimse.request_sink import RequestSink
from interface.dimse.same_association import LOOK_EVERY_S, AwaitedReports
from interface.dimse.services import Request, Services, unrecognized
from interface.dimse.store_lane import StoreLane, StoreSink
from interface.dimse.stream import LITTLE_BYTES, PeerClosed, PeerStalled, Stream, nothing
from interface.logs import DETAIL, PHRASES, event
from internal import failpoints
from internal.model import Arrival
from internal.peers import canonical, with_port
from internal.report_box import ReportBox

BUFFER_BYTES: Final = 320 * 1024  #: holds the largest A-ASSOCIATE-RQ; more bytes per system call gain nothing
#: So many associations of all processes use all of their buffer; beyond, what a crowd takes has to stay bounded.
_WITH_ALL_OF_IT: Final = 64
_PDU_SLACK_BYTES: Final = 1024  #: some peers count their PDU's headers in, some do not
_CONTEXTS_SHOWN: Final = 5
_PDV: Final = struct.Struct(">IBB")
_PDU: Final = struct.Struct(">BxI")

log = logging.getLogger("router.dimse")


@dataclass(frozen=True, slots=True)
class Receiver:
    """What the associations of one process share."""

    policy: PolicyFile
    lane: StoreLane
    services: Services
    register: Register
    refusals: Refusals
    counters: Counters
    reports: ReportBox


class Association:
    """One accepted connection. run() is the thread's top; stop() may be called from another thread.

    `on_begun` is called in run() when the association is accepted, before the peer is told.
    """

    def __init__(self, sock: socket.socket, receiver: Receiver, on_begun: Callable[[], None] = nothing) -> None:
        address = sock.getpeername()
        self._host = canonical(str(address[0]))
        self._receiver = receiver
        self._policy: Policy = receiver.policy.current
        self._stream = Stream(sock, BUFFER_BYTES)
        self.record: AssociationRecord = receiver.register.open(with_port(self._host, address[1]))
        self._contexts: dict[int, ContextResult] = {}
        self._accepted = False
        self._on_begun = on_begun
        self._peer_max_pdu_bytes = 0
        self._command_bytes = bytearray()
        self._command: Command | None = None
        self._context: ContextResult | None = None
        self._sink: StoreSink | RequestSink | None = None
        self._idle_lock = threading.Lock()
        self._idle = True  # nothing is in hand before the association stands
        self._stopping = False
        self._reports = AwaitedReports(receiver.reports)

    def run(self) -> None:
        """Serve the association until it ends; never raises, and leaves neither socket nor temporary file behind."""
        how, last_words = "lost", b""
        try:
            how, last_words = self._serve()
        except PeerClosed:
            if self._stopping:
                how, last_words = "shutdown", pdu.build_abort(pdu.ABORT_UNSPECIFIED)
        except PeerStalled:
            # PS3.8 9.2 AA-2: before there is an association, the connection is closed without a word.
            last_words = pdu.build_abort(pdu.ABORT_UNSPECIFIED) if self._accepted else b""
            self._complain("the peer stopped sending")
        except PduError as error:
            how, last_words = "aborted", pdu.build_abort(error.abort)
            self._complain(str(error))
        except Exception:  # the thread's top: whatever it is, only this association ends
            how, last_words = "aborted", pdu.build_abort(pdu.ABORT_UNSPECIFIED)
            log.exception("association %s failed", self.record.association_id)
        finally:
            self._end(how, last_words)

    def _complain(self, what: str) -> None:
        """Log a peer's fault; before there is an association, once a minute and peer: a storm must not fill the log."""
        if self._accepted or self._receiver.refusals.add(self._host, "", "", what):
            log.warning("association %s with %s ended: %s", self.record.association_id, self.record.peer, what)

    def stop(self) -> None:
        """End as soon as the instance in hand is answered; at once if there is none."""
        with self._idle_lock:
            self._stopping = True
            if self._idle:
                self._stream.wake()

    def cut(self) -> None:
        """End without waiting for the instance in hand, which was not answered; from another thread."""
        self._stopping = True
        self._stream.wake()

    def refuse(self) -> None:
        """End instead of run()."""
        self._end("lost", b"")

    def _end(self, how: str, last_words: bytes) -> None:
        if self._sink is not None:
            self._sink.abandon()
        self._reports.end()
        # The record comes first: a peer that has seen the connection close may rely on it.
        self._receiver.register.end(self.record, how)
        self._stream.close(last_words)
        record = self.record
        level = logging.INFO if record.studies or record.refused else logging.DEBUG
        phrase = PHRASES["association_released"] if how == "released" else f"Association {how}"
        event(
            log, level, phrase, association=record.association_id, calling_aet=record.calling_aet, peer=record.peer,
            instances=sum(record.studies.values()), studies=len(record.studies), refused=record.refused or "none",
        )  # fmt: skip

    # -- upper layer -----------------------------------------------------------------------------------------------

    def _serve(self) -> tuple[str, bytes]:
        """Return how the association ended, and what to send before closing."""
        stream = self._stream
        stream.allow(self._policy.settings.association_timeout_s)
        if rejected := self._accept():
            return "refused", rejected
        while True:
            if self._command is None and not self._command_bytes and not self._wait_idle():
                return "shutdown", pdu.build_abort(pdu.ABORT_UNSPECIFIED)
            if stream.tail - stream.head < _PDU.size:
                stream.need(1)
                stream.begin_pdu(_PDU.size)
                stream.need(_PDU.size)
            kind, length = _PDU.unpack_from(stream.view, stream.head)
            stream.head += _PDU.size
            if stream.tail - stream.head < length:
                stream.begin_pdu(length)
            if kind == pdu.P_DATA_TF:
                self._read_p_data(length)
                stream.end_pdu()
            elif kind in (pdu.RELEASE_RQ, pdu.ABORT):
                return self._finish(kind, length)
            else:
                known = pdu.ASSOCIATE_RQ <= kind <= pdu.ABORT
                raise PduError("a PDU out of order", pdu.ABORT_UNEXPECTED_PDU if known else pdu.ABORT_UNRECOGNIZED_PDU)

    def _finish(self, kind: int, length: int) -> tuple[str, bytes]:
        if length != 4:
            raise PduError("an A-RELEASE-RQ or A-ABORT of a wrong length")
        self._stream.need(length)
        self._stream.head += length
        return ("aborted", b"") if kind == pdu.ABORT else ("released", pdu.RELEASE_RESPONSE)

    def _wait_idle(self) -> bool:
        """Wait for the next message; False if we are to stop instead."""
        settings = self._policy.settings
        with self._idle_lock:
            if self._stopping:
                return False
            self._idle = True
        if self._stream.head == self._stream.tail:
            if self._reports.awaited:
                self._wait_reporting(settings.idle_timeout_s)
            else:
                self._stream.allow(settings.idle_timeout_s)
                self._stream.need(1)
        with self._idle_lock:
            self._idle = False
        self._stream.use(self._buffer_bytes())
        self._stream.expect_rate(settings.stall_timeout_s, settings.min_bytes_per_s)
        return True

    def _buffer_bytes(self) -> int:
        share = _WITH_ALL_OF_IT // max(self._policy.settings.children, 1)
        return BUFFER_BYTES if len(self._receiver.register) <= max(share, 1) else LITTLE_BYTES

    def _wait_reporting(self, seconds: float) -> None:
        """Wait for the next message, and send the reports that come meanwhile."""
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            self._stream.allow(min(left, LOOK_EVERY_S) if self._reports.awaited else left)
            try:
                self._stream.need(1)
                return
            except PeerStalled:
                if time.monotonic() >= deadline:
                    raise
                self._reports.send_due(self.send)

    def expect_report(self, entry_id: str, context: ContextResult) -> None:
        """Send the answer to a request on this association, if it comes while that is open."""
        self._reports.expect(entry_id, context)

    def _accept(self) -> bytes:
        """Read the A-ASSOCIATE-RQ and accept it; if it must be rejected, return the A-ASSOCIATE-RJ."""
        self._stream.need(_PDU.size)
        kind, length = _PDU.unpack_from(self._stream.view, self._stream.head)
        pdu.check_first(kind, length)
        self._stream.need(_PDU.size + length)
        start = self._stream.head + _PDU.size
        request = pdu.parse_associate_rq(bytes(self._stream.view[start : start + length]))
        self._stream.head = start + length
        self._policy = self._receiver.policy.current
        self.record.calling_aet, self.record.called_aet = request.calling_aet, request.called_aet
        if rejection := self._policy.judge(request, self._host):
            self._note_rejection(request, rejection)
            return pdu.build_associate_rj(rejection)
        results = negotiate(request, self._receiver.services.offered_to(request.calling_aet))
        self._accepted = True
        self._on_begun()
        self._contexts = {result.context_id: result for result in results if result.result == ACCEPTED}
        self._peer_max_pdu_bytes = request.max_pdu_bytes
        roles = self._receiver.services.roles_of(request.calling_aet)
        self._stream.send(pdu.build_associate_ac(request, results, self._policy.settings.max_pdu_bytes, roles))
        self._receiver.counters.add("associations")
        log.debug(
            "association %s accepted: %r at %s (%r), %d of %d contexts", self.record.association_id,
            request.calling_aet, self.record.peer, request.implementation, len(self._contexts), len(results),
        )  # fmt: skip
        return b""

    def _note_rejection(self, request: AssociateRequest, rejection: pdu.Rejection) -> None:
        self._receiver.counters.add("rejected_associations")
        if self._receiver.refusals.add(self._host, request.calling_aet, request.called_aet, str(rejection)):
            log.warning(
                "association refused (%s): %r at %s called %r with %d contexts: %s", rejection, request.calling_aet,
                self.record.peer, request.called_aet, len(request.contexts),
                ", ".join(repr(context.abstract_syntax) for context in request.contexts[:_CONTEXTS_SHOWN]),
            )  # fmt: skip

    # -- messages --------------------------------------------------------------------------------------------------

    def _read_p_data(self, length: int) -> None:
        if length > self._policy.settings.max_pdu_bytes + _PDU_SLACK_BYTES:
            raise PduError("a P-DATA-TF is longer than we allowed")
        stream = self._stream
        while length > 0:
            if length < _PDV.size:
                raise PduError("a presentation data value is cut off")
            if stream.tail - stream.head < _PDV.size:
                stream.need(_PDV.size)
            pdv_length, context_id, control = _PDV.unpack_from(stream.view, stream.head)
            stream.head += _PDV.size
            length -= pdv_length + 4
            if pdv_length < 2 or length < 0:
                raise PduError("a presentation data value is longer than its PDU or empty")
            if control & 1:
                self._take_command(context_id, pdv_length - 2, last=bool(control & 2))
            else:
                self._take_data(context_id, pdv_length - 2, last=bool(control & 2))

    def _take_command(self, context_id: int, left: int, *, last: bool) -> None:
        if self._command is not None:
            raise PduError("a command comes before the data set of the one before has ended")
        context = self._contexts.get(context_id)
        if context is None or (self._context is not None and context is not self._context):
            raise PduError("a fragment in a presentation context that was not agreed on")
        if len(self._command_bytes) + left > messages.MAX_COMMAND_BYTES:
            raise PduError("a command set is too long")
        self._context = context
        stream = self._stream
        while left:
            if stream.head == stream.tail:
                stream.receive()
            count = min(left, stream.tail - stream.head)
            self._command_bytes += stream.view[stream.head : stream.head + count]
            stream.head += count
            left -= count
        if last:
            command = messages.parse_command(self._command_bytes)
            self._command_bytes.clear()
            self._begin(command, context)

    def _begin(self, command: Command, context: ContextResult) -> None:
        if command.field == messages.C_STORE_RQ:
            store = self._receiver.lane.begin(command, context, self._arrival())
            self._sink, self._stream.before_refill = store, store.flush
        else:
            keep = self._receiver.services.reads_data_set(command.field)
            self._sink = RequestSink(self._receiver.lane.writer, keep=keep)
        self._command = command
        if not command.has_data_set:
            self._complete(command, context)

    def _arrival(self) -> Arrival:
        record = self.record
        return Arrival(
            now_ms(), record.association_id, record.calling_aet, record.called_aet, record.peer,
        )  # fmt: skip

    def _take_data(self, context_id: int, left: int, *, last: bool) -> None:
        command, context, sink = self._command, self._context, self._sink
        if command is None or context is None or sink is None:
            raise PduError("a data set comes before its command", pdu.ABORT_UNEXPECTED_PDU)
        if context_id != context.context_id:
            raise PduError("a data set comes in another presentation context than its command")
        stream = self._stream
        while left:
            head = stream.head
            count = stream.tail - head
            if not count:
                stream.receive()
                continue
            if count > left:
                count = left
            sink.take(stream.view[head : head + count])
            stream.head = head + count
            left -= count
        if last:
            self._complete(command, context)

    def _complete(self, command: Command, context: ContextResult) -> None:
        sink = self._sink
        self._stream.before_refill = nothing
        if isinstance(sink, StoreSink):
            self._answer_store(command, context, sink)
        elif command.field & messages.RESPONSE:
            self._reports.answered(command)
        elif isinstance(sink, RequestSink):
            self._answer_other(Request(command, context, sink.read))
            sink.abandon()
        self._command = self._context = self._sink = None

    def _answer_store(self, command: Command, context: ContextResult, sink: StoreSink) -> None:
        began = time.perf_counter()
        sink.check()
        answer = messages.cut_success(context.context_id, command, self._peer_max_pdu_bytes)  # while the disk writes
        status, comment = sink.keep()
        if status != messages.SUCCESS:
            answer = self._framed(context.context_id, build_response(command, status, comment))
        took_s = time.perf_counter() - began
        try:
            self._stream.send(answer)
        finally:
            sink.hand_over()
            self._note_store(status, comment, sink, took_s)
        failpoints.hit("assoc.after_rsp")
        self._receiver.lane.writer.prepare()  # while the peer gets its next image ready

    def _note_store(self, status: int, comment: str, sink: StoreSink, took_s: float) -> None:
        if status == messages.SUCCESS and log.isEnabledFor(DETAIL):
            event(log, DETAIL, PHRASES["store_request"], study=sink.study_uid, sop=sink.sop_uid,
                  bytes=sink.received_bytes)
        self.record.count(status, sink.study_uid)
        self._receiver.counters.store(status, sink.received_bytes, took_s)
        if status != messages.SUCCESS and self.record.refused[f"0x{status:04X}"] == 1:
            log.warning(
                "association %s: instance %r refused with 0x%04X: %s", self.record.association_id, sink.sop_uid,
                status, comment,
            )  # fmt: skip

    def _answer_other(self, request: Request) -> None:
        if request.command.field == messages.C_CANCEL_RQ:
            return  # what it would cancel has been answered already
        handler = self._receiver.services.handlers.get(request.command.field, unrecognized)
        try:
            handler(self, request)
        except (PeerClosed, PeerStalled, PduError):
            raise
        except Exception:  # a service's top: the peer gets an answer, the association goes on
            log.exception("association %s: a service failed", self.record.association_id)
            failure = build_response(request.command, messages.PROCESSING_FAILURE, "internal error")
            self.send(request.context.context_id, failure)

    def send(self, context_id: int, command: bytes, data_set: bytes | None = None) -> None:
        """Send one message, cut to the peer's maximum PDU length; raises PeerClosed."""
        self._stream.send(self._framed(context_id, command, data_set))

    def _framed(self, context_id: int, command: bytes, data_set: bytes | None = None) -> bytes:
        limit = self._peer_max_pdu_bytes
        parts = list(messages.cut(context_id, command, is_command=True, max_pdu_bytes=limit))
        if data_set is not None:
            parts.extend(messages.cut(context_id, data_set, is_command=False, max_pdu_bytes=limit))
        return b"".join(parts)
