"""Proof of arrival against the real sandbox: what is missing is found, what was there already is compared."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interface.cli_verify import describe
from interface.satusehat import audit
from interface.satusehat.audit import DatasetHash
from interface.satusehat.run import Run
from internal import dicomfile
from internal.errors import LeaseLost
from internal.model import Item, ItemState
from internal.states import Finish, State
from tests.contract.destinations.conftest import Case
from tests.contract.destinations.images import IMPLEMENTATION, OTHER_IMPLEMENTATION
from tests.contract.destinations.memory_work import MemoryWork, step_once
from tests.contract.sandbox.sandbox_client import Sandbox

MakeCase = Callable[..., Case]
META = dicomfile.canonical_meta("1.2.3", "1.2.4", "1.2.840.10008.1.2.1")


def dataset_sha256(data: bytes) -> str:
    return hashlib.sha256(data[dicomfile.read_meta(io.BytesIO(data)).dataset_offset:]).hexdigest()


@pytest.mark.parametrize("same", [True, False])
def test_what_was_there_already_is_fetched_and_compared(make_case: MakeCase, same: bool) -> None:
    case = make_case(instances=2)
    case.ledger.crash_on = "event push"
    assert step_once(case.destination, case.ledger, case.clock) is None
    for item_id, item in list(case.ledger.items.items()):
        sha256 = dataset_sha256(case.ledger.files[item.instance.id])
        case.ledger.items[item_id] = replace(item, instance=replace(item.instance, sha256=sha256))
    data = case.ledger.files[case.ledger.items[1].instance.id]
    # Another router's file meta around the same, or around another data set.
    other = data.replace(IMPLEMENTATION.encode(), OTHER_IMPLEMENTATION.encode(), 1)
    if not same:
        other = other[:-1] + bytes([data[-1] ^ 1])
    assert case.sandbox.push(other, case.ledger.facts["imaging_study_id"]).status_code == 200
    outcome = case.drive()
    assert isinstance(outcome, Finish)
    item = case.ledger.items[1]
    assert item.state is (ItemState.STORED if same else ItemState.UNVERIFIED)
    assert item.answer["held_sha256"] == dataset_sha256(other)
    assert ("not verified" in outcome.note) is not same


def test_a_platform_that_shows_no_images_leaves_it_unverified(make_case: MakeCase, platform: Sandbox) -> None:
    case = make_case(instances=1)
    case.ledger.crash_on = "event push"
    step_once(case.destination, case.ledger, case.clock)
    data = case.ledger.files[case.ledger.items[1].instance.id]
    other = data.replace(IMPLEMENTATION.encode(), OTHER_IMPLEMENTATION.encode(), 1)
    case.sandbox.push(other, case.ledger.facts["imaging_study_id"])
    platform.control("POST", "/faults", [{"method": "GET", "path": "/dicom", "status": 404, "body": "<html></html>"}])
    assert isinstance(case.drive(), Finish)
    assert case.ledger.items[1].state is ItemState.UNVERIFIED
    assert "compared" not in case.ledger.items[1].answer


def check(case: Case) -> tuple[bool, int, list[str], tuple[str, ...]]:
    items = list(case.ledger.items.values())
    finding = case.destination.audit.check(case.ledger.facts["imaging_study_id"], case.ledger.inventory(), items)
    return finding.ok, finding.here, [one.instance.header.sop_uid for one in finding.missing], finding.unlisted


def test_the_audit_finds_what_is_missing(make_case: MakeCase, platform: Sandbox) -> None:
    case = make_case(instances=3)
    assert isinstance(case.drive(), Finish)
    assert check(case) == (True, 3, [], ())
    lost = case.ledger.items[2].instance.header
    path = f"/dicom/v1/dicomWeb/studies/{lost.study_uid}/series/{lost.series_uid}/instances/{lost.sop_uid}"
    platform.control("POST", "/faults", [{"method": "HEAD", "path": path, "status": 404, "body": ""}])
    assert check(case) == (False, 2, [lost.sop_uid], ())
    platform.control("DELETE", "/faults")
    platform.control("POST", "/faults", [{"method": "HEAD", "path": "/dicom", "status": 404, "body": ""}])
    assert check(case) == (True, 0, [], ())
    case.add(4)
    platform.control("DELETE", "/faults")
    assert check(case)[3] == (case.ledger.items[4].instance.header.sop_uid,)


@pytest.mark.parametrize(("asked", "pushes"), [(True, 4), (False, 3)])
def test_an_image_that_is_not_there_after_its_push_is_pushed_again(
    make_case: MakeCase, platform: Sandbox, asked: bool, pushes: int,
) -> None:
    """The platform says that it has stored one, and has not."""
    case = make_case(instances=3, confirm_images=asked)
    lost = case.ledger.items[2].instance.header
    said = {"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [lost.sop_uid]}}]}}
    platform.control("POST", "/faults", [
        {"method": "POST", "path": "/dicom", "body_contains": lost.sop_uid, "count": 1, "status": 200, "body": said}])
    assert isinstance(case.drive(), Finish)
    assert case.ledger.count() == {ItemState.STORED: 3}
    assert (lost.sop_uid in case.stored()) is asked
    assert sum(item.sends for item in case.ledger.items.values()) == pushes


@pytest.mark.parametrize("fault", [
    {"status": 404, "body": ""}, {"status": 405, "body": ""}, {"status": 500, "body": ""}, {"status": 403, "body": ""},
])
def test_a_platform_that_answers_for_no_image_ends_nothing_and_gets_nothing_twice(
    make_case: MakeCase, platform: Sandbox, fault: dict[str, Any],
) -> None:
    case = make_case(instances=9)
    platform.control("POST", "/faults", [{"method": "HEAD", "path": "/dicom", **fault}])
    assert isinstance(case.drive(), Finish)
    assert {one["times_received"] for one in case.stored().values()} == {1}
    assert platform.control("GET", "/faults")[0]["hits"] == 4


def test_an_image_that_is_denied_for_ever_is_pushed_once_more_and_no_more(
    make_case: MakeCase, platform: Sandbox,
) -> None:
    case = make_case(instances=6)
    denied = case.ledger.items[5].instance.header.sop_uid
    platform.control("POST", "/faults", [{"method": "HEAD", "path": f"/dicom/v1/dicomWeb/studies/"
                      f"{case.ledger.study_uid}/series/{case.ledger.study_uid}.1/instances/{denied}",
                      "status": 404, "body": ""}])
    assert isinstance(case.drive(), Finish)
    assert case.ledger.items[5].sends == 2 and case.ledger.items[5].state is ItemState.STORED
    case.add(7)
    assert isinstance(case.drive(), Finish)
    assert case.ledger.items[5].sends == 2


class LosesItsLease(MemoryWork):
    """Another worker has the job when it is to be written down which images are missing."""

    def revise_receipts(self, answers: Sequence[tuple[Item, ItemState, Mapping[str, Any]]]) -> None:
        self.lost = True
        super().revise_receipts(answers)


def test_a_missing_image_is_not_passed_over_by_who_lost_the_lease(make_case: MakeCase, platform: Sandbox) -> None:
    case = make_case(instances=3)
    lost = case.ledger.items[2].instance.header
    said = {"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [lost.sop_uid]}}]}}
    platform.control("POST", "/faults", [
        {"method": "POST", "path": "/dicom", "body_contains": lost.sop_uid, "count": 1, "status": 200, "body": said}])
    with pytest.raises(LeaseLost):
        case.destination.step(LosesItsLease(case.ledger, case.clock))
    case.ledger.state = State.QUEUED
    assert isinstance(case.drive(), Finish)
    assert lost.sop_uid in case.stored()


class CountsRenewals(MemoryWork):
    """Says how often somebody wanted the lease to be renewed."""

    renewed = 0

    def renew(self) -> None:
        self.renewed += 1
        super().renew()


def test_the_lease_is_kept_while_the_platform_thinks(
    make_case: MakeCase, platform: Sandbox, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit, "RENEW_EVERY_S", 0.01)
    case = make_case(instances=1)
    assert isinstance(case.drive(), Finish)
    platform.control("POST", "/faults", [{"method": "HEAD", "path": "/dicom", "delay_s": 0.5, "status": 200}])
    case.ledger.facts.pop(audit.ASKED)
    case.add(2)
    work = CountsRenewals(case.ledger, case.clock)
    assert case.destination.audit.ask_for_stored(Run(work, "")) is None
    assert work.renewed > 5


def test_the_lease_is_kept_while_an_image_is_fetched_and_compared(make_case: MakeCase) -> None:
    case = make_case(instances=0)
    case.add(1, pixels=1_000_000)
    assert isinstance(case.drive(), Finish)
    item = case.ledger.items[1]
    instance = replace(item.instance, sha256=dataset_sha256(case.ledger.files[item.instance.id]))
    case.ledger.items[1] = replace(item, state=ItemState.UNVERIFIED, instance=instance)
    case.add(2)
    work = CountsRenewals(case.ledger, case.clock)
    assert case.destination.audit.compare_unproven(Run(work, "")) is None
    assert case.ledger.items[1].state is ItemState.STORED
    assert work.renewed > 5


def test_what_is_kept_here_is_not_missed(make_case: MakeCase) -> None:
    """Everything of one class is kept here; nothing of it is at the platform, not even an ImagingStudy."""
    case = make_case(instances=2, skip_sop_classes=frozenset({"1.2.840.10008.5.1.4.1.1.2"}))
    assert isinstance(case.drive(), Finish)
    assert case.ledger.count() == {ItemState.SKIPPED: 2} and case.imaging_studies() == []
    finding = case.destination.audit.check("", case.ledger.inventory(), list(case.ledger.items.values()))
    assert finding.ok and finding.skipped == 2
    assert describe(finding) == "nothing of it is sent: 2 images are kept here (skip_sop_classes)"


def test_an_audit_names_what_is_kept_here_beside_what_is_there(make_case: MakeCase) -> None:
    case = make_case(instances=3)
    assert isinstance(case.drive(), Finish)
    case.add(4)  # not registered: this one is kept here
    case.ledger.items[4] = replace(case.ledger.items[4], state=ItemState.SKIPPED)
    finding = case.destination.audit.check(
        case.ledger.facts["imaging_study_id"], case.ledger.inventory(), list(case.ledger.items.values()))
    assert finding.ok and (finding.here, finding.skipped) == (3, 1)
    assert describe(finding) == ("complete: SATUSEHAT has 3 of 3 images; 1 images are kept here (skip_sop_classes)")


@given(st.binary(max_size=200_000), st.lists(st.integers(1, 70_000), max_size=20))
def test_the_data_set_is_hashed_however_it_arrives(dataset: bytes, cuts: list[int]) -> None:
    data, digest, at = META + dataset, DatasetHash(), 0
    for cut in cuts:
        digest.take(data[at:at + cut])
        at += cut
    digest.take(data[at:])
    # Group 0002 goes on as long as elements say so.
    expected = dataset_sha256(data) if not dataset.startswith(b"\x02\x00") else None
    assert expected in (None, digest.hexdigest())


@given(st.binary(max_size=1000), st.integers(0, 70_000))
def test_what_is_no_dicom_file_has_no_hash(data: bytes, more: int) -> None:
    digest = DatasetHash()
    digest.take(data)
    digest.take(bytes(more))
    digest.take(b"end")
    assert digest.hexdigest() == "" or data[128:132] == b"DICM"
