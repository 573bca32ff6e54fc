"""Storage Commitment SCP, the answering half: a destination that reports what we commit to.

The worker's lane of a caller calls `step` with a job of kind "commit" and retries as for any destination. The report
goes over the association of the request, where the caller waits for it there, else over an own one. Only the address
in the configuration is called, never one that a request names. Imports commitments and requestor.
Changes when a report has to reach a peer in another way. Source: PS3.4 J.3.3, PS3.7 D.3.3.4 (role selection).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from interface.dimse.negotiation import (
    COMMITMENT_INSTANCE,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    STORAGE_COMMITMENT,
    is_storage,
)
from interface.dimse.pdu import ProposedContext
from interface.dimse.requestor import AssociationLost, Node, Requestor
from internal.commitments import DUPLICATE_TRANSACTION_UID, Commitments, CommitRequest, lane_of
from internal.errors import Transient
from internal.model import Probe
from internal.ports import Work
from internal.report_box import Report, ReportBox
from internal.states import Finish, NotYet, Outcome

SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
_ALL_COMMITTED, _SOME_FAILED = 1, 2
_TIMEOUT_S: Final = 30.0
_INDEXING_S: Final = 1.0
_DELIVERY_S: Final = 30.0
_LOOK_S: Final = 0.05
_SYNTAXES: Final = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)


@dataclass(frozen=True, slots=True)
class CommitmentPeer:
    """A caller that may ask for commitment, and where it wants the answer."""

    aet: str
    host: str
    port: int


class CommitmentReport:
    """Answers one caller's requests; one lane."""

    kind = "commit"
    by_accession = False

    def __init__(
        self, peer: CommitmentPeer, own_aet: str, commitments: Commitments, box: ReportBox, *, patience_s: float = 5.0,
    ) -> None:
        """Use `box` for associations that wait for their answer, which get `patience_s` to take it."""
        self.name = lane_of(peer.aet)
        self._peer = peer
        self._own_aet = own_aet
        self._commitments = commitments
        self._box = box
        self._patience_s = patience_s
        self._look = threading.Event()

    @property
    def environment(self) -> str:
        """Return the lane's name: the address may change without making requests another's."""
        return self.name

    def step(self, work: Work) -> Outcome:
        """Judge every instance of the request, mark what we commit to, and report; raises Transient, BytesMissing."""
        entry = str(work.facts["entry"])
        request = self._commitments.request(entry)
        if not self._commitments.is_indexed(request):
            return NotYet("commit-indexing", "images received before the request are still being indexed", _INDEXING_S)
        if work.facts.get("duplicate"):
            reasons: Mapping[str, int] = {uid: DUPLICATE_TRANSACTION_UID for _, uid in request.references}
        else:
            supported = [pair for pair in request.references if is_storage(pair[0])]
            verdicts = self._commitments.judge(supported, work.clock.now_ms(), work.renew)
            if verdicts.damaged and not work.facts.get("flagged"):
                self._commitments.flag(verdicts.damaged, work.clock.now_ms())
                work.record_facts(flagged=True)
            if verdicts.waiting:
                return NotYet("commit-waits-delivery", f"SATUSEHAT has not confirmed {verdicts.waiting} instances yet",
                              _DELIVERY_S)
            reasons = {uid: verdicts.reasons.get(uid, SOP_CLASS_NOT_SUPPORTED) for _, uid in request.references}
        status = self._report_in_place(entry, request, reasons)
        if status is None:
            status = self._report(request, reasons)
        if status != 0:
            raise Transient(f"{self._peer.aet} answered the report with 0x{status:04X}", code="commit-refused",
                            blame_lane=False)
        failed = sum(reason != 0 for reason in reasons.values())
        work.event("commitment-reported", f"reported to {self._peer.aet}: {len(reasons) - failed} committed,"
                   f" {failed} not", committed=len(reasons) - failed, failed=failed)
        return Finish()

    def _report_in_place(self, entry: str, request: CommitRequest, reasons: Mapping[str, int]) -> int | None:
        """Return the status of the N-EVENT-REPORT on the association of the request, None if it cannot be had there."""
        syntax = self._box.listening(entry)
        if syntax is not None and self._box.answer(entry) is None:
            report = Report(_event_of(reasons), encode_report(build_report(request, reasons), syntax))
            if not self._box.offer(entry, report):
                return None
        status = self._await_answer(entry)
        self._box.forget(entry)
        return status

    def _await_answer(self, entry: str) -> int | None:
        """Wait while an association may still take the report, and longer while it has it."""
        deadline_s = time.monotonic() + self._patience_s
        while self._box.answer(entry) is None and self._box.listening(entry) is not None:
            late_s = time.monotonic() - deadline_s
            if late_s >= 0 and (self._box.withdraw(entry) or late_s >= _TIMEOUT_S):
                return None
            self._look.wait(_LOOK_S)
        return self._box.answer(entry)

    def _report(self, request: CommitRequest, reasons: Mapping[str, int]) -> int:
        """Send the N-EVENT-REPORT as SCP on an association of ours and return the answer's status; raises Transient."""
        peer = self._peer
        calling = request.called_aet if request.called_aet.isascii() and request.called_aet else self._own_aet
        contexts = [ProposedContext(1, STORAGE_COMMITMENT, _SYNTAXES)]
        try:
            requestor = Requestor(Node(peer.host, peer.port, peer.aet, _TIMEOUT_S), calling, contexts,
                                  roles=[(STORAGE_COMMITMENT, 0, 1)])
        except AssociationLost as lost:
            raise Transient(f"{peer.aet} does not take the report: {lost}", code="commit-unreachable") from None
        try:
            found = requestor.find_context(STORAGE_COMMITMENT, _SYNTAXES)
            if found is None or not any(uid == STORAGE_COMMITMENT and scp for uid, _, scp in requestor.accepted.roles):
                raise Transient(f"{peer.aet} does not let us report: it does not take us as SCP of storage commitment",
                                code="commit-refused")
            report = encode_report(build_report(request, reasons), found[1])
            return requestor.event_report(found[0], STORAGE_COMMITMENT, COMMITMENT_INSTANCE, _event_of(reasons),
                                          report).status
        except AssociationLost as lost:
            raise Transient(f"{peer.aet} did not answer the report: {lost}", code="commit-refused",
                            blame_lane=False) from None
        finally:
            requestor.release()

    def may_poll(self) -> bool:
        """Return True: looking whether SATUSEHAT has confirmed asks nobody but our own index."""
        return True

    def report(self) -> Mapping[str, int]:
        """Return nothing: there are no figures."""
        return {}

    def probe(self) -> Iterable[Probe]:
        """Nothing: a report to a modality cannot be tried without one."""
        return ()


def _event_of(reasons: Mapping[str, int]) -> int:
    return _SOME_FAILED if any(reasons.values()) else _ALL_COMMITTED


def encode_report(report: Any, transfer_syntax_uid: str) -> bytes:
    """Return the data set of a report in an uncompressed transfer syntax."""
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    buffer = DicomBytesIO()
    buffer.is_implicit_VR = transfer_syntax_uid == IMPLICIT_LITTLE
    buffer.is_little_endian = transfer_syntax_uid != EXPLICIT_BIG
    write_dataset(buffer, report)
    return bytes(buffer.getvalue())


def build_report(request: CommitRequest, reasons: Mapping[str, int]) -> Any:
    """Return the data set of the N-EVENT-REPORT (a pydicom Dataset). Source: PS3.4 table J.3-2."""
    from pydicom.dataset import Dataset

    committed: list[Any] = []
    failed: list[Any] = []
    for class_uid, uid in dict.fromkeys(request.references):
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = class_uid, uid
        if reasons[uid]:
            item.FailureReason = reasons[uid]
        (failed if reasons[uid] else committed).append(item)
    report = Dataset()
    report.TransactionUID = request.transaction_uid
    if committed:
        report.ReferencedSOPSequence = committed
    if failed:
        report.FailedSOPSequence = failed
    return report
