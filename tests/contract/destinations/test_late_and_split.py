"""Several accessions in one study, one accession on two studies, what is kept here, and taking back: real sandbox."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from internal.model import ItemState
from internal.states import Finish, Refuse, State
from tests.contract.destinations.conftest import Case
from tests.contract.destinations.images import make_instance
from tests.contract.destinations.memory_work import Ledger
from tests.contract.sandbox.sandbox_client import ACSN

MakeCase = Callable[..., Case]
RAW = "1.2.840.10008.5.1.4.1.1.66"


def split(make_case: MakeCase, *, same_patient: bool = True) -> tuple[Case, Case]:
    """One study whose images came under two accessions; both orders exist."""
    first = make_case(order=False)
    second = make_case(order=False, destination=first.destination)
    first.order(patient_id="P-one")
    second.order(patient_id="P-one" if same_patient else "P-two")
    ledger = Ledger(first.ledger.study_uid, second.accession, first.destination.environment)
    ledger.add(make_instance(first.ledger.study_uid, number, second.accession) for number in (11, 12))
    second.ledger = ledger
    first.ledger.siblings, second.ledger.siblings = [second.ledger], [first.ledger]
    return first, second


def values(resource: dict[str, Any], system: str) -> set[str]:
    return {one["value"] for one in resource["identifier"] if one["system"] == system}


def test_several_accessions_of_one_study_share_one_imaging_study(make_case: MakeCase) -> None:
    first, second = split(make_case)
    assert isinstance(first.drive(), Finish)
    assert isinstance(second.drive(), Finish)
    (resource,) = first.imaging_studies()
    assert values(resource, ACSN) == {first.accession, second.accession}
    assert len(resource["basedOn"]) == 2
    listed = {i["uid"] for series in resource["series"] for i in series["instance"]}
    assert listed == {i.header.sop_uid for case in (first, second) for i in case.ledger.instances}
    assert "several-accessions" in [code for code, _, _ in second.ledger.events]
    assert len(first.stored()) == 4


def test_a_late_image_under_the_first_accession_keeps_the_second(make_case: MakeCase) -> None:
    first, second = split(make_case)
    first.drive()
    second.drive()
    first.add(3)
    assert isinstance(first.drive(), Finish)
    (resource,) = first.imaging_studies()
    assert values(resource, ACSN) == {first.accession, second.accession}
    assert resource["numberOfInstances"] == 5


def test_accessions_of_two_patients_in_one_study_are_held(make_case: MakeCase) -> None:
    first, second = split(make_case, same_patient=False)
    assert isinstance(first.drive(), Finish)
    outcome = second.drive()
    assert isinstance(outcome, Refuse) and outcome.code == "foreign-imaging-study"
    assert len(first.stored()) == 2


def test_one_accession_on_two_studies_the_first_stays_the_second_is_held(make_case: MakeCase) -> None:
    first = make_case()
    assert isinstance(first.drive(), Finish)
    second = make_case(accession=first.accession, order=False, destination=first.destination)
    outcome = second.drive()
    assert isinstance(outcome, Refuse) and outcome.code == "foreign-imaging-study"
    assert outcome.detail["ours"]["study_uid"] != outcome.detail["theirs"][0]["study_uid"]
    assert second.stored() == {}


def test_skipped_classes_are_neither_listed_nor_pushed(make_case: MakeCase) -> None:
    case = make_case(skip_sop_classes=frozenset({RAW}))
    instance, data = make_instance(case.ledger.study_uid, 9, case.accession)
    case.ledger.add([(_as_raw(instance), data)])
    assert isinstance(case.drive(), Finish)
    assert case.ledger.count() == {ItemState.STORED: 2, ItemState.SKIPPED: 1}
    (resource,) = case.imaging_studies()
    assert resource["numberOfInstances"] == 2 and len(case.stored()) == 2


def test_a_study_of_skipped_classes_only_needs_no_order(make_case: MakeCase) -> None:
    case = make_case(instances=0, order=False, skip_sop_classes=frozenset({RAW}))
    instance, data = make_instance(case.ledger.study_uid, 9, case.accession)
    case.ledger.add([(_as_raw(instance), data)])
    outcome = case.drive()
    assert isinstance(outcome, Finish) and "skip" in outcome.note
    assert not case.imaging_studies()


def _as_raw(instance: Any) -> Any:
    from dataclasses import replace

    return replace(instance, header=replace(instance.header, sop_class_uid=RAW))


def test_changes_by_others_survive_a_late_image_and_a_withdrawal(make_case: MakeCase) -> None:
    case = make_case()
    case.drive()
    (resource,) = case.imaging_studies()
    resource["note"] = [{"text": "read by the radiologist"}]
    resource.pop("meta")
    assert case.sandbox.fhir("PUT", f"/ImagingStudy/{resource['id']}", resource).status_code == 200
    case.add(5)
    assert isinstance(case.drive(), Finish)
    withdrawal = Ledger(case.ledger.study_uid, case.accession, case.destination.environment, kind="withdraw",
                        facts=dict(case.ledger.facts))
    taken = Case(case.sandbox, case.destination, withdrawal, case.clock)
    assert isinstance(taken.drive(), Finish)
    (resource,) = case.imaging_studies()
    assert resource["status"] == "entered-in-error" and resource["numberOfInstances"] == 3
    assert resource["note"] == [{"text": "read by the radiologist"}]
    withdrawal.state = State.QUEUED
    assert isinstance(taken.drive(), Finish)
    case.add(6)
    outcome = case.drive()
    assert isinstance(outcome, Refuse) and outcome.code == "imaging-study-withdrawn"


def test_the_flag_for_mroc_clients_is_false_unless_the_platform_says_true(make_case: MakeCase) -> None:
    case = make_case(order=False)
    assert case.destination.read_client_flag() is False
    for status, body, expected in ((200, {"SATUSEHAT_CLIENT_ENABLE": True}, True), (200, {}, False),
                                   (200, {"SATUSEHAT_CLIENT_ENABLE": "true"}, False), (404, "", False)):
        case.sandbox.control("POST", "/faults", [
            {"method": "GET", "path": "/fhir-r4/v1/dcm_cfg", "status": status, "body": body, "count": 1}])
        assert case.destination.read_client_flag() is expected
