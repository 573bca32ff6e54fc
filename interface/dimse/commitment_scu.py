"""Storage Commitment as SCU: a study sent to a node is done only when the node says that it keeps every image.

Used by the destination "dimse". The answer comes on the same association, or later on one that the node opens to us;
the receive role keeps that one, and the index files it under its transaction. Imports requestor.
Changes when commitment is asked for in another way. Source: PS3.4 J.3.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

from interface.dimse import messages
from interface.dimse.commitment import MalformedRequest, parse_report
from interface.dimse.negotiation import COMMITMENT_INSTANCE, EXPLICIT_LITTLE, IMPLICIT_LITTLE, STORAGE_COMMITMENT
from interface.dimse.pdu import ProposedContext
from interface.dimse.requestor import Message, Node, Requestor
from internal.errors import Transient
from internal.model import Item, ItemState
from internal.ports import Work
from internal.states import NotYet, Outcome

_PER_REQUEST: Final = 2000
_LOOK_S: Final = 5.0
_REQUEST: Final = 1


class Commitment:
    """Asks one node, and reads its answers."""

    def __init__(self, node: Node, calling_aet: str, timeout_s: float, linger_s: float) -> None:
        self._node = node
        self._linger_s = linger_s
        self._calling_aet = calling_aet
        self._timeout_s = timeout_s

    def step(self, work: Work) -> Outcome | None:
        """Return None once nothing is left to be committed, NotYet while the answer is waited for.

        An image that the node does not commit to is REFUSED with the node's reason. Raises Transient.
        """
        asked = work.facts.get("commitment")
        if asked:
            answer = work.commitment_answer(str(asked["transaction_uid"]))
            if answer is not None:
                self._take(work, asked, answer)
            elif asked.get("sent"):
                return self._wait(work, asked)
        open_ = [item for item in _stored(work) if not item.answer.get("committed")]
        if not open_:
            return None
        return self._ask(work, open_[:_PER_REQUEST])

    def _wait(self, work: Work, asked: Mapping[str, Any]) -> Outcome:
        if work.clock.now_ms() - int(asked["at"]) > self._timeout_s * 1000:
            work.record_facts(commitment=None)
            raise Transient(f"{self._node} did not answer a request for commitment", code="commit-no-answer",
                            blame_lane=False)
        return NotYet("commit-asked", f"{self._node.aet} has not answered whether it keeps every image", _LOOK_S)

    def _take(self, work: Work, asked: Mapping[str, Any], answer: Mapping[str, int]) -> None:
        """Write the verdicts to the images: reason 0 is a commitment, one that is missing was not answered."""
        first, last = asked["items"]
        answers: list[tuple[Item, ItemState, dict[str, Any]]] = []
        for item in _stored(work):
            if first <= item.item_id <= last and not item.answer.get("committed"):
                reason = answer.get(str(item.answer.get("sop_uid") or item.instance.header.sop_uid))
                if reason == 0:
                    answers.append((item, ItemState.STORED, {**item.answer, "committed": work.clock.now_ms()}))
                elif reason is not None:
                    text = f"stored, but not committed (0x{reason:04X})"
                    answers.append((item, ItemState.REFUSED, {**item.answer, "text": text}))
        if not answers:
            work.record_facts(commitment=None)
            raise Transient(f"{self._node} answered for none of the images", code="commit-no-answer", blame_lane=False)
        work.revise_receipts(answers)
        work.record_facts(commitment=None)

    def _ask(self, work: Work, items: Sequence[Item]) -> Outcome:
        transaction_uid = f"2.25.{secrets.randbits(126)}"
        roles = [(STORAGE_COMMITMENT, 1, 0)]
        contexts = [ProposedContext(1, STORAGE_COMMITMENT, (EXPLICIT_LITTLE, IMPLICIT_LITTLE))]
        requestor = Requestor(self._node, self._calling_aet, contexts, roles)
        try:
            found = requestor.find_context(STORAGE_COMMITMENT, (EXPLICIT_LITTLE, IMPLICIT_LITTLE))
            if found is None:
                raise Transient(f"{self._node} does not offer storage commitment", code="commit-not-offered")
            work.record_facts(commitment={"transaction_uid": transaction_uid, "at": work.clock.now_ms(),
                                          "items": [items[0].item_id, items[-1].item_id]})
            body = build_request(transaction_uid, [_reference(item) for item in items], found[1])
            reply = requestor.action(found[0], STORAGE_COMMITMENT, COMMITMENT_INSTANCE, _REQUEST, body)
            if reply.status != messages.SUCCESS:
                work.record_facts(commitment=None)
                raise Transient(f"{self._node} refuses a request for commitment (0x{reply.status:04X})",
                                code="commit-not-offered")
            work.record_facts(commitment={**work.facts["commitment"], "sent": True})
            message = requestor.await_request(self._linger_s)
            if message is not None:
                self._answer_here(work, requestor, message, transaction_uid)
        finally:
            requestor.release()
        return NotYet("commit-asked", f"{self._node.aet} was asked to commit to {len(items)} images",
                      0.0 if message else _LOOK_S)

    def _answer_here(self, work: Work, requestor: Requestor, message: Message, transaction_uid: str) -> None:
        syntax = requestor.accepted.transfer_syntaxes.get(message.context_id, IMPLICIT_LITTLE)
        try:
            found, reasons = parse_report(message.data_set, syntax)
        except MalformedRequest:
            requestor.respond(message, messages.INVALID_ARGUMENT_VALUE)
            return
        if found == transaction_uid:
            work.file_commitment_answer(transaction_uid, reasons)
        requestor.respond(message, messages.SUCCESS)


def _stored(work: Work) -> list[Item]:
    found: list[Item] = []
    while some := work.items((ItemState.STORED,), 500, found[-1].item_id if found else 0):
        found += some
    return found


def _reference(item: Item) -> tuple[str, str]:
    header = item.instance.header
    return str(item.answer.get("sop_class_uid") or header.sop_class_uid), str(
        item.answer.get("sop_uid") or header.sop_uid)


def build_request(transaction_uid: str, references: Sequence[tuple[str, str]], transfer_syntax: str) -> bytes:
    """Return the data set of the N-ACTION. Source: PS3.4 table J.3-1."""
    explicit = transfer_syntax != IMPLICIT_LITTLE

    def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
        if not explicit:
            return struct.pack("<HHI", group, number, len(value)) + value
        if vr == b"SQ":
            return struct.pack("<HH2sHI", group, number, vr, 0, len(value)) + value
        return struct.pack("<HH2sH", group, number, vr, len(value)) + value

    def uid(number: int, text: str) -> bytes:
        value = text.encode("ascii")
        return element(0x0008, number, b"UI", value + b"\0" * (len(value) % 2))

    items = b""
    for sop_class_uid, sop_uid in references:
        body = uid(0x1150, sop_class_uid) + uid(0x1155, sop_uid)
        items += struct.pack("<HHI", 0xFFFE, 0xE000, len(body)) + body
    return uid(0x1195, transaction_uid) + element(0x0008, 0x1199, b"SQ", items)
