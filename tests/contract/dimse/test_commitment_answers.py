"""Answers to our own requests for storage commitment: durable before 0x0000, only from nodes that are asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom import AE, build_role
from pynetdicom.sop_class import StorageCommitmentPushModel

from interface.dimse.commitment import MalformedRequest, parse_report
from interface.dimse.commitment_scu import build_request
from interface.dimse.negotiation import COMMITMENT_INSTANCE, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from internal.commitments import CommitAnswer, parse_entry
from internal.model import COMMITMENT_ANSWER
from internal.spool import EntryKind, Spool
from tests.contract.dimse.role import Role
from tests.examples import examples

Start = Callable[..., Role]


def report(transaction: str, stored: list[str], failed: list[str]) -> Dataset:
    body = Dataset()
    body.TransactionUID = transaction

    def item(uid: str, reason: int = 0) -> Dataset:
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", uid
        if reason:
            one.FailureReason = reason
        return one

    if stored:
        body.ReferencedSOPSequence = [item(uid) for uid in stored]
    if failed:
        body.FailedSOPSequence = [item(uid, 0x0112) for uid in failed]
    return body


@pytest.fixture
def role(start: Start) -> Iterator[Role]:
    yield start(commitment_nodes=("ARCHIVE",))


def bring(role: Role, caller: str, body: Dataset) -> int | None:
    entity = AE(ae_title=caller)
    entity.add_requested_context(StorageCommitmentPushModel)
    association = entity.associate("127.0.0.1", role.port, ae_title="DCMROUTER",
                                   ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)])
    if not association.is_established:
        return None
    try:
        answer, _ = association.send_n_event_report(body, 1, StorageCommitmentPushModel, COMMITMENT_INSTANCE)
        return int(answer.Status)
    except ValueError:  # no context for it
        return None
    finally:
        association.release()


def kept(spool: Spool) -> list[dict[str, object]]:
    return [json.loads(spool.read(entry)) for entry in spool.scan_new() if entry.kind is EntryKind.REQUEST]


def test_an_answer_is_kept_before_it_is_acknowledged(role: Role) -> None:
    assert bring(role, "ARCHIVE", report("1.2.3", ["1.2.4", "1.2.5"], ["1.2.6"])) == 0
    (document,) = kept(role.spool)
    assert document["request"] == COMMITMENT_ANSWER and document["transaction_uid"] == "1.2.3"
    assert document["reasons"] == {"1.2.4": 0, "1.2.5": 0, "1.2.6": 0x0112}
    assert isinstance(parse_entry(json.dumps(document).encode()), CommitAnswer)


@pytest.mark.attack("S15")
def test_nobody_else_may_bring_answers_and_nonsense_is_refused(role: Role) -> None:
    assert bring(role, "STRANGER", report("1.2.3", ["1.2.4"], [])) is None
    assert bring(role, "ARCHIVE", report("1.2.3", [], [])) == 0x0115
    assert kept(role.spool) == []


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, IMPLICIT_LITTLE])
def test_what_we_ask_is_what_another_library_reads(syntax: str) -> None:
    from io import BytesIO

    from pydicom.filereader import read_dataset

    data = build_request("1.2.3", [("1.2.840.10008.5.1.4.1.1.2", "1.2.4"), ("1.2.840.10008.5.1.4.1.1.4", "1.2.55")],
                         syntax)
    found = read_dataset(BytesIO(data), syntax == IMPLICIT_LITTLE, True)
    assert found.TransactionUID == "1.2.3"
    assert [one.ReferencedSOPInstanceUID for one in found.ReferencedSOPSequence] == ["1.2.4", "1.2.55"]


@settings(deadline=None, max_examples=examples(150))
@given(st.binary(max_size=300))
def test_no_report_breaks_the_reader(data: bytes) -> None:
    for syntax in (EXPLICIT_LITTLE, IMPLICIT_LITTLE):
        try:
            parse_report(data, syntax)
        except MalformedRequest:
            pass
