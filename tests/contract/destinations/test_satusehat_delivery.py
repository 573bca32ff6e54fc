"""The SATUSEHAT destination against the real sandbox process: orders, registration, pushes, late images."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import pytest

from interface.satusehat.delivery import Satusehat
from interface.satusehat.run import Run
from internal.errors import LeaseLost, Transient
from internal.model import Inventory, Item, ItemState
from internal.ports import Following, Frozen
from internal.states import Finish, More, NotYet, Refuse, State
from tests.contract.destinations.conftest import Case
from tests.contract.destinations.images import make_instance
from tests.contract.destinations.memory_work import Ledger, MemoryFrozen, MemoryWork, SkewClock, step_once
from tests.contract.sandbox.sandbox_client import Sandbox

MakeCase = Callable[..., Case]


def assert_delivered(case: Case) -> None:
    """What the platform holds is what was accepted: one ImagingStudy that lists all, and the very bytes."""
    studies = case.imaging_studies()
    assert len(studies) == 1
    listed = {i["uid"] for series in studies[0]["series"] for i in series["instance"]}
    stored = case.stored()
    for instance in case.ledger.instances:
        assert instance.header.sop_uid in listed
        digest = hashlib.sha256(case.ledger.files[instance.id]).hexdigest()
        assert stored[instance.header.sop_uid]["sha256"] == digest
    assert case.ledger.facts["imaging_study_id"] == studies[0]["id"]
    assert case.ledger.state is State.DONE and case.ledger.done_revision == case.ledger.revision


def test_a_study_is_delivered(make_case: MakeCase) -> None:
    case = make_case(instances=20)
    assert isinstance(case.drive(), Finish)
    assert_delivered(case)
    assert case.ledger.count() == {ItemState.STORED: 20}
    texts = [text for _, text, _ in case.ledger.events]
    study_id = case.ledger.facts["imaging_study_id"]
    assert texts == [
        "Obtaining Patient ID and ServiceRequest ID", "Patient ID and ServiceRequest ID obtained",
        "POST-ing ImagingStudy",
        f"ImagingStudy POST-ed, id: {study_id}", "DICOM Push started", "DICOM sent successfully"]
    assert all(one["times_received"] == 1 for one in case.stored().values())


def test_nothing_of_the_patient_is_told(make_case: MakeCase) -> None:
    case = make_case()
    case.drive()
    told = json.dumps([case.ledger.events, case.ledger.facts])
    assert "SITI" not in told and "3171010101010001" not in told and "sandbox-secret" not in told


def test_it_yields_at_boundaries_and_goes_on(make_case: MakeCase) -> None:
    case = make_case(instances=20, push_parallel=2)
    assert isinstance(step_once(case.destination, case.ledger, case.clock, yield_after=0), More)
    assert case.ledger.count() == {ItemState.STORED: 16, ItemState.DUE: 4}
    assert isinstance(case.drive(yield_after=0), Finish)
    assert_delivered(case)
    assert all(one["times_received"] == 1 for one in case.stored().values())


def test_no_order_waits_until_it_appears(make_case: MakeCase) -> None:
    case = make_case(order=False)
    outcome = case.drive(until=lambda o: isinstance(o, NotYet))
    assert isinstance(outcome, NotYet) and outcome.code == "no-order" and outcome.retry_after_s is None
    assert case.ledger.state is State.WAITING
    case.order()
    assert isinstance(case.drive(), Finish)
    assert_delivered(case)


@pytest.mark.parametrize(("orders", "code"), [
    ([{}, {}], "several-orders"),
    ([{}, {"patient_id": "P00000000009"}], "several-orders"),
    ([{"authored_on": "2024-01-02T03:04:05+00:00"}], "order-not-usable"),
    ([{"status": "revoked"}], "order-not-usable"),
    ([{"status": "entered-in-error"}], "order-not-usable"),
    ([{"status": "draft"}], "order-not-usable"),
])
def test_orders_that_need_a_person(make_case: MakeCase, orders: list[dict[str, Any]], code: str) -> None:
    case = make_case(order=False)
    ids = {case.order(**fields)["service_request_id"] for fields in orders}
    outcome = case.drive()
    assert isinstance(outcome, Refuse) and outcome.code == code
    assert {row["id"] for row in outcome.detail["candidates"]} == ids
    assert all({"status", "authoredOn", "fault"} <= row.keys() for row in outcome.detail["candidates"])
    assert case.imaging_studies() == [] and case.stored() == {}


def test_only_one_order_qualifies_beside_a_revoked_and_last_years(make_case: MakeCase) -> None:
    case = make_case(order=False)
    case.order(status="revoked")
    case.order(authored_on="2024-01-02T03:04:05+00:00")
    right = case.order(status="completed")
    assert isinstance(case.drive(), Finish)
    assert case.ledger.facts["service_request_id"] == right["service_request_id"]
    assert case.imaging_studies()[0]["subject"]["reference"] == f"Patient/{right['patient_id']}"


def test_without_study_date_the_day_of_receipt_counts(make_case: MakeCase) -> None:
    for study_date in ("", "19010101", "20990101"):
        case = make_case(study_date=study_date, instances=1)
        assert isinstance(case.drive(), Finish)


@pytest.mark.parametrize("accession", ["A#1&b=2+3%204", "A|B/ é", "A,B", "$x\\y", "q?r'\"<>;", "   padded 1  "])
def test_special_characters_in_the_accession_number(make_case: MakeCase, accession: str) -> None:
    case = make_case(accession=accession.strip())
    other = case.sandbox.order("A", indexed=True)
    assert isinstance(case.drive(), Finish)
    assert_delivered(case)
    assert case.ledger.facts["service_request_id"] != other["service_request_id"]


@pytest.mark.parametrize("accession", ["", "   ", "\0\0"])
def test_an_empty_accession_number_is_never_looked_up(make_case: MakeCase, accession: str) -> None:
    case = make_case(accession=accession, order=False)
    case.sandbox.order("SOMEBODY-ELSES", indexed=True)
    before = case.sandbox.control("GET", "/counts")["requests"]
    outcome = step_once(case.destination, case.ledger, case.clock)
    assert isinstance(outcome, NotYet) and outcome.code == "no-accession"
    after = case.sandbox.control("GET", "/counts")["requests"]
    assert {k: v for k, v in after.items() if "_sandbox" not in k} == {
        k: v for k, v in before.items() if "_sandbox" not in k}


def _register_foreign(case: Case, order: dict[str, str], **changes: Any) -> str:
    resource = {
        "resourceType": "ImagingStudy", "status": "available",
        "identifier": [{"system": "http://sys-ids.kemkes.go.id/acsn/100099001", "value": case.accession},
                       {"system": "urn:dicom:uid", "value": f"urn:oid:{case.ledger.study_uid}"}],
        "subject": {"reference": f"Patient/{order['patient_id']}"},
        "basedOn": [{"reference": f"ServiceRequest/{order['service_request_id']}"}],
        "modality": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"}],
    } | changes
    made: dict[str, str] = case.sandbox.control("POST", "/resources", resource)
    return made["id"]


@pytest.mark.parametrize(("changes", "difference"), [
    ({"subject": {"reference": "Patient/P00000000001"}}, "subject"),
    ({"basedOn": [{"reference": "ServiceRequest/another"}]}, "basedOn"),
    ({"identifier": [{"system": "http://sys-ids.kemkes.go.id/acsn/100099001", "value": "{accession}"},
                     {"system": "urn:dicom:uid", "value": "urn:oid:1.2.3.4"}]}, "study UID"),
])
def test_a_foreign_imaging_study_is_never_touched(
    make_case: MakeCase, changes: dict[str, Any], difference: str,
) -> None:
    case = make_case(order=False)
    order = case.order()
    _register_foreign(case, order, **json.loads(json.dumps(changes).replace("{accession}", case.accession)))
    before = case.imaging_studies()
    outcome = case.drive()
    assert isinstance(outcome, Refuse) and outcome.code == "foreign-imaging-study"
    assert outcome.detail["differences"] == [difference]
    assert outcome.detail["ours"]["study_uid"] == case.ledger.study_uid
    assert outcome.detail["theirs"][0]["id"] == before[0]["id"]
    assert case.imaging_studies() == before and case.stored() == {}


def test_our_own_imaging_study_is_adopted_and_completed(make_case: MakeCase) -> None:
    case = make_case(order=False)
    order = case.order()
    dcm = "http://dicom.nema.org/resources/ontology/DCM"
    sop_class = {"system": "urn:ietf:rfc:3986", "code": "urn:oid:1.2.840.10008.5.1.4.1.1.88.11"}
    foreign_series = {"uid": "1.2.3.99", "modality": {"system": dcm, "code": "SR"},
                      "instance": [{"uid": "1.2.3.99.1", "sopClass": sop_class}]}
    found = _register_foreign(case, order, series=[foreign_series], description="Dari tempat lain")
    assert isinstance(case.drive(), Finish)
    assert case.ledger.facts["imaging_study_id"] == found
    study = case.imaging_studies()[0]
    assert study["numberOfInstances"] == 3 and study["description"] == "Dari tempat lain"
    assert_delivered(case)


def test_late_images_extend_the_same_imaging_study(make_case: MakeCase) -> None:
    case = make_case()
    assert isinstance(case.drive(), Finish)
    study = case.imaging_studies()[0]
    study["note"] = [{"text": "dari rumah sakit lain"}]
    sop_class = study["series"][0]["instance"][0]["sopClass"]
    study["series"].append({"uid": "1.2.9.9", "modality": study["series"][0]["modality"], "numberOfInstances": 1,
                            "instance": [{"uid": "1.2.9.9.1", "sopClass": sop_class}]})
    assert case.sandbox.fhir("PUT", f"/ImagingStudy/{study['id']}", study).status_code == 200
    case.add(3)
    assert isinstance(case.drive(), Finish)
    assert_delivered(case)
    after = case.imaging_studies()[0]
    assert after["numberOfInstances"] == 4 and after["note"] == study["note"]
    assert all(one["times_received"] == 1 for one in case.stored().values())


def test_a_revision_without_news_is_not_put_again(make_case: MakeCase) -> None:
    case = make_case()
    case.drive()
    version = case.imaging_studies()[0]["meta"]["versionId"]
    case.ledger.add([])
    assert isinstance(case.drive(), Finish)
    assert case.imaging_studies()[0]["meta"]["versionId"] == version
    assert case.ledger.facts["registered_revision"] == case.ledger.revision


def test_each_registration_waits_twice_as_long_as_the_one_before(make_case: MakeCase) -> None:
    case = make_case(instances=1, reregister_first_s=100.0, reregister_max_s=350.0)
    case.drive()
    for number, pause_s in ((2, 100.0), (3, 200.0), (4, 350.0), (5, 350.0)):
        case.add(number)
        outcome = case.drive(until=lambda o: isinstance(o, NotYet))
        assert isinstance(outcome, NotYet) and outcome.code == "re-registration-pause"
        assert outcome.retry_after_s is not None and pause_s - 60 < outcome.retry_after_s <= pause_s
        case.clock.skew_ms += round(pause_s * 1000)
        assert isinstance(case.drive(), Finish)
    assert case.ledger.facts["registrations"] == 5


def test_a_registered_study_that_is_gone_or_withdrawn_is_held(make_case: MakeCase) -> None:
    case = make_case()
    case.drive()
    study = case.imaging_studies()[0]
    study["status"] = "entered-in-error"
    case.sandbox.control("POST", "/resources", study)
    case.add(3)
    outcome = case.drive()
    assert isinstance(outcome, Refuse) and outcome.code == "imaging-study-withdrawn"
    case.ledger.facts["imaging_study_id"] = "00000000-0000-4000-8000-00000000dead"
    case.ledger.state = State.QUEUED
    outcome = case.drive()
    assert isinstance(outcome, Refuse) and outcome.code == "imaging-study-gone"


def test_an_image_listed_no_more_is_listed_again(make_case: MakeCase) -> None:
    case = make_case(instances=2)
    case.drive()
    study = case.imaging_studies()[0]
    study["series"][0]["instance"] = study["series"][0]["instance"][:1]
    study["series"][0]["numberOfInstances"] = study["numberOfInstances"] = 1
    case.sandbox.control("POST", "/resources", study)
    case.ledger.state = State.QUEUED
    assert isinstance(case.drive(), Finish)
    assert_delivered(case)


def test_an_image_that_settles_during_the_step_is_never_pushed_unlisted(make_case: MakeCase) -> None:
    case = make_case(instances=1)
    late = make_instance(case.ledger.study_uid, 2, case.accession)
    original = case.destination._registration.register  # the study settles again between register and push

    def settle_again(run: Any) -> Any:
        outcome = original(run)
        if len(case.ledger.instances) == 1:
            case.ledger.add([late])
        return outcome

    case.destination._registration.register = settle_again  # type: ignore[method-assign]
    assert isinstance(case.drive(), Finish)
    assert case.ledger.count() == {ItemState.STORED: 2}
    assert_delivered(case)


def test_already_there_with_other_bytes_is_unverified_and_said_so(make_case: MakeCase) -> None:
    case = make_case(instances=2)
    case.ledger.crash_on = "event push"  # registered, nothing sent yet
    assert step_once(case.destination, case.ledger, case.clock) is None
    instance, other = make_instance(case.ledger.study_uid, 1, case.accession, pad=9)
    study_id = case.ledger.facts["imaging_study_id"]
    assert case.sandbox.push(other, study_id).status_code == 200
    outcome = case.drive()
    assert isinstance(outcome, Finish) and "1 were there already" in outcome.note
    assert case.ledger.count() == {ItemState.STORED: 1, ItemState.UNVERIFIED: 1}
    assert next(i for i in case.ledger.items.values() if i.instance.header.sop_uid == instance.header.sop_uid
                ).state is ItemState.UNVERIFIED


def test_already_there_after_an_earlier_attempt_of_ours_is_stored(make_case: MakeCase, platform: Sandbox) -> None:
    case = make_case(instances=1)
    platform.control("POST", "/faults", [
        {"method": "POST", "path": "/dicom", "nth": 1, "store_then_reset": True},
        {"method": "POST", "path": "/dicom", "nth": 2, "status": 409, "body": already_there(case)}])
    assert isinstance(case.drive(), Finish)
    assert case.ledger.count() == {ItemState.STORED: 1}
    assert case.ledger.items[1].sends == 2


def already_there(case: Case) -> dict[str, Any]:
    """The store's answer for the case's first instance when it holds these UIDs."""
    failed = {"00081155": {"vr": "UI", "Value": [case.ledger.instances[0].header.sop_uid]},
              "00081197": {"vr": "US", "Value": [272]}, "00090097": {"vr": "LT", "Value": ["x already exists"]}}
    return {"00081198": {"vr": "SQ", "Value": [failed]}}


@pytest.mark.parametrize(("fault", "pixels", "receipt"), [
    ({"reset": True, "after_bytes": 100}, 512, ItemState.STORED),  # it left as a whole: it may have been ours
    ({"reset": True, "after_bytes": 100}, 16_000_000, ItemState.UNVERIFIED),  # its end never left this machine
    ({"status": 500}, 512, ItemState.STORED),
    ({"status": 503}, 512, ItemState.UNVERIFIED),  # "no healthy upstream": turned away unread
    ({"status": 429, "headers": {"Retry-After": "0"}}, 512, ItemState.UNVERIFIED),
    ({"status": 401}, 512, ItemState.UNVERIFIED),
])
def test_already_there_is_a_receipt_only_after_an_attempt_that_may_have_arrived(
    make_case: MakeCase, platform: Sandbox, fault: dict[str, Any], pixels: int, receipt: ItemState,
) -> None:
    case = make_case(instances=0)
    case.add(1, pixels=pixels)
    platform.control("POST", "/faults", [
        {"method": "POST", "path": "/dicom", "nth": 1, **fault},
        {"method": "POST", "path": "/dicom", "nth": 2, "status": 409, "body": already_there(case)}])
    assert isinstance(case.drive(), Finish)
    assert case.ledger.count() == {receipt: 1}


@dataclass(frozen=True)
class WaitsForTheNext(MemoryFrozen):
    """An image that is pushed only when more have been marked."""

    more: threading.Event

    def open(self) -> BinaryIO:
        assert self.more.wait(10)
        return super().open()


class LosesItsLease(MemoryWork):
    """Another worker has the job when the first answers are to be written down; some of what is marked waits then.

    The last of a batch leaves only after the next batch was marked: otherwise all that is marked may have left.
    """

    def __init__(self, ledger: Ledger, clock: SkewClock) -> None:
        super().__init__(ledger, clock)
        self._more = threading.Event()

    def freeze(self, items: Sequence[Item], following: Following | None = None) -> list[Frozen]:
        frozen = super().freeze(items, following)
        self._more.set()
        self._more = threading.Event()
        last = frozen[-1]
        assert isinstance(last, MemoryFrozen)
        return [*frozen[:-1], WaitsForTheNext(last.item, last.sha256, last.size_bytes, last.data, self._more)]

    def settle_items(self, answers: Sequence[tuple[Item, ItemState, Mapping[str, Any]]]) -> None:
        self.lost = True
        super().settle_items(answers)


def test_what_was_marked_and_not_begun_when_the_lease_was_lost_is_no_attempt(
    make_case: MakeCase, platform: Sandbox,
) -> None:
    case = make_case(instances=40, push_parallel=1)
    with pytest.raises(LeaseLost):
        case.destination.step(LosesItsLease(case.ledger, case.clock))
    assert case.ledger.journal[-1] == "taken back"
    arrived = case.stored().keys()
    on_record = {one.instance.header.sop_uid for one in case.ledger.items.values() if one.sends}
    assert arrived and arrived <= on_record and len(on_record) <= len(arrived) + 2  # what was under way counts
    assert {(one.state, one.sends > 0, one.sha256 != "") for one in case.ledger.items.values()} == \
        {(ItemState.SENT, True, True), (ItemState.DUE, False, False)}
    case.ledger.state = State.QUEUED
    assert isinstance(case.drive(), Finish)
    assert case.ledger.count() == {ItemState.STORED: 40}


class LosesItOneByOne(MemoryWork):
    """Another worker has the job while images are prepared one by one, since the file of one is missing."""

    def freeze(self, items: Sequence[Item], following: Following | None = None) -> list[Frozen]:
        self.lost = self.lost or [one.item_id for one in items] == [3]
        return super().freeze(items, following)


def test_what_was_prepared_one_by_one_when_the_lease_was_lost_is_no_attempt(make_case: MakeCase) -> None:
    case = make_case(instances=4)
    del case.ledger.files[case.ledger.items[2].instance.id]
    with pytest.raises(LeaseLost):
        case.destination.step(LosesItOneByOne(case.ledger, case.clock))
    assert "sent" in case.ledger.journal and not case.stored()
    assert {(one.state, one.sends) for one in case.ledger.items.values()} == {(ItemState.DUE, 0)}


class LosesItWhileReading(MemoryWork):
    """Another worker has the job by the time the images are read."""

    def inventory(self) -> Inventory:
        self.lost = True
        return super().inventory()


def test_who_lost_the_lease_puts_no_older_imaging_study(make_case: MakeCase, platform: Sandbox) -> None:
    case = make_case(instances=2)
    assert isinstance(case.drive(), Finish)
    case.add(3)
    before = platform.control("GET", "/counts")["requests"]
    with pytest.raises(LeaseLost):
        case.destination.step(LosesItWhileReading(case.ledger, case.clock))
    after = platform.control("GET", "/counts")["requests"]
    assert {one: after[one] for one in after if one.startswith("PUT")} == \
        {one: before[one] for one in before if one.startswith("PUT")}
    assert case.imaging_studies()[0]["numberOfInstances"] == 2


def test_a_platform_that_is_gone_before_the_pushes_leaves_no_attempt_on_record(
    make_case: MakeCase, make_destination: Callable[..., Satusehat],
) -> None:
    case = make_case(instances=40, order=False)
    work = MemoryWork(case.ledger, case.clock)
    listed = [{"uid": one.header.sop_uid} for one in case.ledger.instances]
    run = Run(work, "100099001", resource={"series": [{"instance": listed}]})
    with pytest.raises(Transient, match="does not accept connections"):
        make_destination("http://127.0.0.1:9")._pushing.push(run)
    assert "sent" in case.ledger.journal
    assert {(one.state, one.sends, one.sha256) for one in case.ledger.items.values()} == {(ItemState.DUE, 0, "")}


def test_one_refused_instance_does_not_stop_the_others(make_case: MakeCase, platform: Sandbox) -> None:
    case = make_case(instances=12)
    platform.control("POST", "/faults", [{"method": "POST", "path": "/dicom", "nth": 3, "status": 422, "body": {
        "resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "value", "details": {
            "text": "Pixel for Patient/P01234567890 not allowed (RuleNumber: 10999)"}}]}}])
    outcome = case.drive()
    assert isinstance(outcome, Refuse) and outcome.code == "partly-delivered" and "11/12" in outcome.reason
    assert case.ledger.count() == {ItemState.STORED: 11, ItemState.REFUSED: 1}
    shown = json.dumps(outcome.detail)
    assert "rule-10999" in shown and "P01234567890" not in shown


def test_a_missing_file_does_not_stop_the_others(make_case: MakeCase) -> None:
    case = make_case(instances=4)
    del case.ledger.files[case.ledger.instances[1].id]
    outcome = case.drive()
    assert isinstance(outcome, Refuse) and outcome.code == "bytes-missing"
    assert case.ledger.count() == {ItemState.STORED: 3, ItemState.DUE: 1}


def test_a_lost_lease_ends_the_step_and_writes_nothing(make_case: MakeCase) -> None:
    case = make_case()
    from tests.contract.destinations.memory_work import MemoryWork

    work = MemoryWork(case.ledger, case.clock)
    work.lost = True
    before = list(case.ledger.journal)
    with pytest.raises(Exception, match="owns this job"):
        case.destination.step(work)
    assert case.ledger.journal == before


def test_probe_says_all_is_well(make_case: MakeCase) -> None:
    lines = list(make_case(order=False).destination.probe())
    assert [line.name for line in lines] == ["DNS", "TLS", "token", "FHIR", "DICOM endpoint"]
    assert all(line.ok for line in lines), lines
