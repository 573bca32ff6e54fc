"""Images of one patient and an order of another, against the real sandbox: held before anything is registered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from internal.identity import Person
from internal.model import Item, ItemState
from internal.states import Finish, Refuse
from tests.contract.destinations.conftest import Case
from tests.contract.destinations.images import make_instance
from tests.contract.sandbox.sandbox_client import ACSN

MakeCase = Callable[..., Case]


def order_with_display(case: Case, display: str) -> None:
    """Give the platform an order whose subject is named, as hospital systems send it."""
    case.order()
    reply = case.sandbox.fhir("GET", f"/ServiceRequest?identifier={ACSN}%7C{case.accession}")
    order: dict[str, Any] = reply.json()["entry"][0]["resource"]
    order["subject"]["display"] = display
    assert case.sandbox.fhir("PUT", f"/ServiceRequest/{order['id']}", order).status_code == 200


def test_masked_patient_is_recorded_as_not_comparable_and_goes_on(make_case: MakeCase) -> None:
    case = make_case()
    assert isinstance(case.drive(), Finish)
    assert case.ledger.facts["identity"]["not_comparable"] == ["birth_date", "mrn", "name", "sex"]


def test_order_of_another_patient_is_held_with_both_sides_and_nothing_is_sent(make_case: MakeCase) -> None:
    case = make_case(order=False)
    order_with_display(case, "NY. RATNA DEWI")
    outcome = case.drive()
    assert isinstance(outcome, Refuse) and outcome.code == "patient-mismatch"
    assert outcome.detail["images"]["name"] == "CONTOH^SITI"
    assert outcome.detail["order"]["name"] == "NY. RATNA DEWI"
    assert "RATNA" not in outcome.reason and "SITI" not in outcome.reason
    assert not case.imaging_studies() and not case.stored()
    case.ledger.same_patient = outcome.detail["sides"]
    case.ledger.state = case.ledger.state.QUEUED
    assert isinstance(case.drive(), Finish)


def test_same_name_written_otherwise_goes_on(make_case: MakeCase) -> None:
    case = make_case(order=False)
    order_with_display(case, "Siti Contoh, NY")
    assert isinstance(case.drive(), Finish)
    assert case.ledger.facts["identity"]["agrees"] == ["name"]


def test_record_number_counts_where_the_order_came_to_us(make_case: MakeCase) -> None:
    case = make_case()
    case.ledger.ordered = [(case.accession, Person("SITI", mrn="MR-777"))]
    outcome = case.drive()
    assert isinstance(outcome, Refuse) and outcome.detail["differences"] == ["mrn"]


def test_two_patients_in_one_study_are_held(make_case: MakeCase) -> None:
    case = make_case(instances=1)
    case.add(2, patient_name="AGUS", patient_id="99")
    outcome = case.drive()
    assert isinstance(outcome, Refuse) and outcome.code == "mixed-patients"
    assert {side["name"] for side in outcome.detail["images"]} == {"CONTOH^SITI", "AGUS"}
    assert not case.imaging_studies()


def test_late_image_of_another_patient_is_held_before_it_is_pushed(make_case: MakeCase) -> None:
    case = make_case(instances=1)
    assert isinstance(case.drive(), Finish)
    case.ledger.add([make_instance(case.ledger.study_uid, 2, case.accession, patient_name="AGUS", patient_id="99")])
    outcome = case.drive()
    assert isinstance(outcome, Refuse) and outcome.code == "mixed-patients"
    late: list[Item] = [item for item in case.ledger.items.values() if item.state is ItemState.DUE]
    assert len(late) == 1 and len(case.stored()) == 1


def test_a_patient_that_may_not_be_read_is_not_comparable(make_case: MakeCase) -> None:
    case = make_case()
    case.sandbox.control("POST", "/faults", [{"method": "GET", "path": "/fhir-r4/v1/Patient/", "status": 403, "body": {
        "resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "forbidden"}]}}])
    assert isinstance(case.drive(), Finish)


def test_a_fault_of_the_platform_does_not_skip_the_comparison(make_case: MakeCase) -> None:
    case = make_case()
    case.sandbox.control("POST", "/faults", [
        {"method": "GET", "path": "/fhir-r4/v1/Patient/", "status": 503, "count": 2}])
    assert isinstance(case.drive(), Finish)
    (fault,) = case.sandbox.control("GET", "/faults")
    assert (fault["hits"], fault["matches"]) == (2, 3)
