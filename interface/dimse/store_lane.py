"""C-STORE: the data set's bytes go from the receive buffer straight into the spool; answered when they are durable.

Imports the spool writer, scanner, file meta and messages. One StoreSink per C-STORE-RQ, used by one thread.
Changes when the conditions for accepting an image change. Source: PS3.4 B.2.3, PS3.7 9.1.1.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Final, Protocol

from interface.dimse import messages
from interface.dimse.messages import Command
from interface.dimse.negotiation import is_safe_uid
from internal import failpoints
from internal.dicomfile import build_meta
from internal.errors import MismatchedInstance, NotDicom, RouterError, StorageFailed, StorageFull
from internal.model import Arrival, Header
from internal.scan import CutShort, Uids, scan, scan_uids
from internal.spool import SpoolWriter
from internal.spool_writer import IncomingInstance

HEAD_BYTES: Final = 16 * 1024  #: nearly always enough to find the UIDs in
_REOPEN_AFTER_S: Final = 10.0

log = logging.getLogger("router.dimse")


class StoreContext(Protocol):
    """What a C-STORE has to know about its presentation context."""

    @property
    def abstract_syntax(self) -> str:
        """The SOP class that was agreed on."""

    @property
    def transfer_syntax(self) -> str:
        """The encoding that was agreed on."""


class Refusal(Exception):
    """This C-STORE is refused with `status`; the message is the Error Comment (at most 64 characters are sent)."""

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.status = status
        self.comment = comment


def _refusal_of(error: RouterError) -> Refusal:
    if isinstance(error, MismatchedInstance):
        return Refusal(messages.DATA_SET_DOES_NOT_MATCH, str(error))
    if isinstance(error, NotDicom):
        return Refusal(messages.CANNOT_UNDERSTAND, str(error))
    return Refusal(messages.OUT_OF_RESOURCES, str(error))


class StoreLane:
    """The C-STORE service of one process, shared by its associations."""

    def __init__(self, writer: SpoolWriter, max_object_bytes: int) -> None:
        self.writer = writer
        self.max_object_bytes = max_object_bytes
        self._reopen_lock = threading.Lock()
        self._reopen_at = 0.0

    def begin(self, command: Command, context: StoreContext, arrival: Arrival) -> StoreSink:
        """Return where the data set of `command` goes; never raises: refusals are answered after the data set."""
        if self.writer.read_only is not None:
            self._reopen()
        return StoreSink(self, command, context, arrival)

    def _reopen(self) -> None:
        """Probe a disk that failed, at most once in 10 s: receiving resumes by itself."""
        with self._reopen_lock:
            if time.monotonic() < self._reopen_at:
                return
            self._reopen_at = time.monotonic() + _REOPEN_AFTER_S
            if self.writer.reopen():
                log.warning("the disk keeps data again: receiving resumes")
            else:
                log.error("receiving is refused: %s", self.writer.read_only)


class StoreSink:
    """One data set on its way into the spool: take() and flush() as it comes in, then check() and keep().

    Once the answer has left, or cannot, hand_over() lets others see the instance.
    Views handed to take() stay valid until flush(): the bytes are then written with one system call.
    """

    def __init__(self, lane: StoreLane, command: Command, context: StoreContext, arrival: Arrival) -> None:
        self.sop_class_uid = command.uid(messages.AFFECTED_SOP_CLASS_UID)
        self.sop_uid = command.uid(messages.AFFECTED_SOP_INSTANCE_UID)
        self.study_uid = ""
        self._lane = lane
        self._transfer_syntax = context.transfer_syntax
        self._pending: list[bytes | memoryview] = []
        self._head = bytearray()
        self.received_bytes = 0
        self._meta_bytes = 0
        self._incoming: IncomingInstance | None = None
        self._refusal: Refusal | None = None
        try:
            self._check_command(context)
            self._incoming = lane.writer.begin()
        except Refusal as refusal:
            self._refusal = refusal
        except (StorageFull, StorageFailed) as error:
            self._refusal = _refusal_of(error)
        else:
            meta = build_meta(self.sop_class_uid, self.sop_uid, self._transfer_syntax, arrival)
            self._meta_bytes = len(meta)
            self._pending.append(meta)

    def _check_command(self, context: StoreContext) -> None:
        if not is_safe_uid(self.sop_uid):
            raise Refusal(messages.INVALID_OBJECT_INSTANCE, "Affected SOP Instance UID is empty or not a UID")
        if not is_safe_uid(self.sop_class_uid):
            raise Refusal(messages.DATA_SET_DOES_NOT_MATCH, "Affected SOP Class UID is empty or not a UID")
        if self.sop_class_uid != context.abstract_syntax:
            raise Refusal(messages.DATA_SET_DOES_NOT_MATCH, "SOP class is not that of the presentation context")

    def take(self, fragment: memoryview) -> None:
        """Take the next bytes of the data set."""
        failpoints.hit("recv.mid")
        self.received_bytes += len(fragment)
        if self._refusal is not None:
            return
        if self.received_bytes > self._lane.max_object_bytes:
            self._refuse(Refusal(messages.OUT_OF_RESOURCES, "the object is larger than the configured limit"))
            return
        self._pending.append(fragment)
        if (room := HEAD_BYTES - len(self._head)) > 0:
            self._head += fragment[:room]

    def flush(self) -> None:
        """Write what take() was given; its views may be overwritten afterwards."""
        self._write(last=False)

    def _write(self, *, last: bool) -> None:
        pending, self._pending = self._pending, []
        if self._incoming is None or not (pending or last):
            return
        try:
            self._incoming.writev(pending, last=last)
        except (StorageFull, StorageFailed) as error:
            self._refuse(_refusal_of(error))

    def _refuse(self, refusal: Refusal) -> None:
        self._refusal = refusal
        self.abandon()

    def check(self) -> None:
        """Write the rest, hand it to the disk, and see meanwhile whether it is what the command says. Never raises."""
        self._write(last=True)
        if self._refusal is None and self._incoming is not None:
            try:
                self._check_data_set(self._incoming)
            except RouterError as error:
                self._refuse(_refusal_of(error))

    def keep(self) -> tuple[int, str]:
        """Make what was checked durable, and return status and comment of the answer. Never raises."""
        if self._refusal is None and self._incoming is not None:
            try:
                self._incoming.seal()
            except RouterError as error:
                self._refuse(_refusal_of(error))
        if self._refusal is not None:
            return self._refusal.status, self._refusal.comment
        return messages.SUCCESS, ""

    def _check_data_set(self, incoming: IncomingInstance) -> None:
        if not self.received_bytes:
            raise NotDicom("the data set is empty")
        header = self._scan(incoming)
        if header.sop_uid != self.sop_uid:
            raise MismatchedInstance("SOP Instance UID differs between command and data set")
        if header.sop_class_uid != self.sop_class_uid:
            raise MismatchedInstance("SOP Class UID differs between command and data set")
        if not is_safe_uid(header.study_uid) or not is_safe_uid(header.series_uid):
            raise MismatchedInstance("Study or Series Instance UID is not a UID")
        self.study_uid = header.study_uid

    def _scan(self, incoming: IncomingInstance) -> Uids | Header:
        head = self._head
        try:
            return scan_uids(head, self._transfer_syntax, whole=self.received_bytes == len(head))
        except CutShort:
            with incoming.open_back(self._meta_bytes) as file:  # the UIDs lie behind much private data
                return scan(file, self._transfer_syntax)

    def hand_over(self) -> None:
        """Bring what was made durable to where it is indexed; never raises."""
        if self._incoming is not None:
            self._incoming.hand_over()

    def abandon(self) -> None:
        """Throw away what has come in; nothing was answered."""
        self._pending = []
        self._head = bytearray()
        if self._incoming is not None:
            self._incoming.abort()
            self._incoming = None
