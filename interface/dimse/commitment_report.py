"""Storage Commitment SCP, the answering half: a destination that reports what we commit to, over an own association.

The worker's lane of a caller calls `step` with a job of kind "commit" and retries as for any destination. Only the
address in the configuration is called, never one that a request names. Imports commitments and pynetdicom.
Changes when a report has to reach a peer in another way. Source: PS3.4 J.3.3, PS3.7 D.3.3.4 (role selection).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from interface.dimse.negotiation import STORAGE_COMMITMENT, is_storage
from internal.commitments import DUPLICATE_TRANSACTION_UID, Commitments, CommitRequest, lane_of
from internal.errors import Transient
from internal.model import Probe
from internal.ports import Work
from internal.states import Finish, NotYet, Outcome

COMMITMENT_INSTANCE: Final = "1.2.840.10008.1.20.1.1"
SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
_ALL_COMMITTED, _SOME_FAILED = 1, 2
_TIMEOUT_S: Final = 30.0
_CONNECT_S: Final = 10.0
_INDEXING_S: Final = 1.0
_DELIVERY_S: Final = 30.0


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

    def __init__(self, peer: CommitmentPeer, own_aet: str, commitments: Commitments) -> None:
        self.name = lane_of(peer.aet)
        self._peer = peer
        self._own_aet = own_aet
        self._commitments = commitments

    @property
    def environment(self) -> str:
        """Return the lane's name: the address may change without making requests another's."""
        return self.name

    def step(self, work: Work) -> Outcome:
        """Judge every instance of the request, mark what we commit to, and report; raises Transient, BytesMissing."""
        request = self._commitments.request(str(work.facts["entry"]))
        if not self._commitments.is_indexed(request):
            return NotYet("commit-indexing", "images received before the request are still being indexed", _INDEXING_S)
        if work.facts.get("duplicate"):
            reasons: Mapping[str, int] = {uid: DUPLICATE_TRANSACTION_UID for _, uid in request.references}
        else:
            supported = [pair for pair in request.references if is_storage(pair[0])]
            verdicts = self._commitments.judge(supported, work.clock.now_ms())
            if verdicts.waiting:
                return NotYet("commit-waits-delivery", f"SATUSEHAT has not confirmed {verdicts.waiting} instances yet",
                              _DELIVERY_S)
            reasons = {uid: verdicts.reasons.get(uid, SOP_CLASS_NOT_SUPPORTED) for _, uid in request.references}
        self._report(request, reasons)
        failed = sum(reason != 0 for reason in reasons.values())
        work.event("commitment-reported", f"reported to {self._peer.aet}: {len(reasons) - failed} committed,"
                   f" {failed} not", committed=len(reasons) - failed, failed=failed)
        return Finish()

    def _report(self, request: CommitRequest, reasons: Mapping[str, int]) -> None:
        """Send the N-EVENT-REPORT as SCP on an association of ours; raises Transient unless it is answered 0x0000."""
        from pynetdicom import AE, build_role

        ae = AE(ae_title=request.called_aet if request.called_aet.isascii() and request.called_aet else self._own_aet)
        ae.connection_timeout = _CONNECT_S
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = _TIMEOUT_S
        ae.add_requested_context(STORAGE_COMMITMENT)
        association = ae.associate(
            self._peer.host, self._peer.port, ae_title=self._peer.aet,
            ext_neg=[build_role(STORAGE_COMMITMENT, scp_role=True)],
        )  # fmt: skip
        if not association.is_established:
            raise Transient(f"{self._peer.aet} does not take the report at {self._peer.host}:{self._peer.port}",
                            code="commit-unreachable")
        try:
            event = _SOME_FAILED if any(reasons.values()) else _ALL_COMMITTED
            answer, _ = association.send_n_event_report(
                build_report(request, reasons), event, STORAGE_COMMITMENT, COMMITMENT_INSTANCE)
        except (ValueError, RuntimeError) as error:  # no context in which we are SCP; the association has ended
            raise Transient(f"{self._peer.aet} does not let us report: {error}", code="commit-refused") from None
        finally:
            association.release()
        status = getattr(answer, "Status", None)
        if status != 0:
            shown = "nothing" if status is None else f"0x{status:04X}"
            raise Transient(
                f"{self._peer.aet} answered the report with {shown}", code="commit-refused", blame_lane=False)

    def may_poll(self) -> bool:
        """Return True: looking whether SATUSEHAT has confirmed asks nobody but our own index."""
        return True

    def report(self) -> Mapping[str, int]:
        """Return nothing: there are no figures."""
        return {}

    def probe(self) -> Iterable[Probe]:
        """Nothing: a report to a modality cannot be tried without one."""
        return ()


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
