"""Storage commitment answered on the association that asked: the association's own thread sends the report when idle.

Imports messages and the box that the deliver role puts answers into. Changes when another service answers this way.
Source: PS3.4 J.3.3 (N-EVENT-REPORT on the same association), PS3.7 10.3.1.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from interface.dimse import messages
from interface.dimse.messages import Command, build_command
from interface.dimse.negotiation import COMMITMENT_INSTANCE, STORAGE_COMMITMENT
from interface.dimse.pdu import ContextResult
from internal.report_box import Report, ReportBox

LOOK_EVERY_S: Final = 0.1  #: how often an association that waits looks whether its answer is there
_MAX_AWAITED: Final = 16  #: of one association; what is beyond is reported over another one

log = logging.getLogger("router.dimse")

Send = Callable[[int, bytes, bytes], None]


class AwaitedReports:
    """The answers that one association waits for. Used by its thread only."""

    def __init__(self, box: ReportBox) -> None:
        self._box = box
        self._due: dict[str, ContextResult] = {}
        self._sent: dict[int, str] = {}
        self._next_message = 0

    @property
    def awaited(self) -> bool:
        """Whether an answer may still have to be sent."""
        return bool(self._due)

    def expect(self, entry_id: str, context: ContextResult) -> None:
        """Wait for the answer to the request `entry_id`, to be sent in `context`."""
        if len(self._due) < _MAX_AWAITED and self._box.listen(entry_id, context.transfer_syntax):
            self._due[entry_id] = context

    def send_due(self, send: Send) -> None:
        """Send what has come; raises what `send` raises."""
        for entry_id in list(self._due):
            report = self._box.take(entry_id)
            if report is None:
                continue
            context = self._due.pop(entry_id)
            self._next_message += 1
            self._sent[self._next_message] = entry_id
            send(context.context_id, _command(self._next_message, report), report.data_set)

    def answered(self, response: Command) -> None:
        """Pass on the peer's response to a report of ours; any other is ignored."""
        if response.field != messages.N_EVENT_REPORT_RQ | messages.RESPONSE:
            return
        entry_id = self._sent.pop(response.message_id, None)
        status = response.number(messages.STATUS)
        if entry_id is not None and status is not None:
            self._box.leave_answer(entry_id, status)

    def end(self) -> None:
        """The association has ended: what was not answered is reported over another one."""
        for entry_id in (*self._due, *self._sent.values()):
            self._box.hang_up(entry_id)
        self._due.clear()
        self._sent.clear()


def _command(message_id: int, report: Report) -> bytes:
    return build_command({
        messages.AFFECTED_SOP_CLASS_UID: STORAGE_COMMITMENT, messages.COMMAND_FIELD: messages.N_EVENT_REPORT_RQ,
        messages.MESSAGE_ID: message_id, messages.DATA_SET_TYPE: messages.DATA_SET_FOLLOWS,
        messages.AFFECTED_SOP_INSTANCE_UID: COMMITMENT_INSTANCE, messages.EVENT_TYPE_ID: report.event_type,
    })  # fmt: skip
