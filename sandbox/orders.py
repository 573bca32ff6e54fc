"""An order as a hospital would have sent it: Patient, Practitioner, Encounter and ServiceRequest.

Used by the control interface; nothing like it exists on the platform. Imports `fhir`, `options`. Changes when
the imaging chain needs another resource. All names are invented. Source: fact sheet satusehat.md section 6.
"""

from __future__ import annotations

import datetime
import re
import secrets
from dataclasses import dataclass
from typing import Any

from sandbox.fhir import new_id
from sandbox.moments import parse_moment
from sandbox.options import ORGANIZATION_ID

LOCATION_ID = "7d6c5b4a-1111-4222-8333-9999aaaabbbb"
PRACTITIONER_IDS = ("10012345678", "10098765432")
SYSTEMS = "http://sys-ids.kemkes.go.id"
NIK = "https://fhir.kemkes.go.id/id/nik"
DCM = "http://dicom.nema.org/resources/ontology/DCM"

# LOINC codes of the official examples (fact sheet section 6.2).
_LOINC = {"CR": ("24648-8", "XR Chest PA upr"), "DX": ("24648-8", "XR Chest PA upr"),
          "CT": ("79103-8", "CT Abdomen W contrast IV"), "US": ("42132-1", "US Breast screening"),
          "PX": ("24828-6", "XR Mandible Panoramic")}
_ANY_IMAGING = ("18748-4", "Diagnostic imaging study")
_FIRST_NAMES = ("Cendana", "Melati", "Kenanga", "Rimba", "Samudra", "Bintang", "Fajar", "Gunung", "Pelangi", "Embun")
_LAST_NAMES = ("Contoh", "Rekaan", "Peraga", "Simulasi", "Latihan", "Percobaan")

_STATUSES = ("draft", "active", "on-hold", "revoked", "completed", "entered-in-error", "unknown")
_FIELDS = ("accession_number", "patient_id", "modality", "name", "gender", "birth_date", "status", "authored_on",
           "indexed")
_ID = re.compile(r"[A-Za-z0-9.-]{1,64}\Z", re.ASCII)
_MODALITY = re.compile(r"[A-Z0-9]{2,16}\Z", re.ASCII)


class OrderInvalid(ValueError):
    """An order cannot be made from this; the text names the field."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the caller of `POST /_sandbox/orders` asked for, defaults filled in."""

    accession_number: str
    patient_id: str
    modality: str
    name: str
    gender: str
    birth_date: str
    status: str
    authored_on: str
    indexed: bool


def parse_order(given: object) -> Order:
    """Check one order from untrusted JSON and fill in defaults; raises OrderInvalid."""
    if not isinstance(given, dict):
        raise OrderInvalid("an order must be an object")
    unknown = [name for name in given if name not in _FIELDS]
    if unknown:
        raise OrderInvalid(f"{unknown[0][:40]} is not one of {', '.join(_FIELDS)}")
    order = Order(
        accession_number=_text(given, "accession_number", ""),
        patient_id=_text(given, "patient_id", new_id("Patient")),
        modality=_text(given, "modality", "CT"),
        name=_text(given, "name", f"{secrets.choice(_FIRST_NAMES)} {secrets.choice(_LAST_NAMES)}"),
        gender=_text(given, "gender", secrets.choice(("male", "female"))),
        birth_date=_text(given, "birth_date", f"{1940 + secrets.randbelow(70)}-0{1 + secrets.randbelow(9)}-15"),
        status=_text(given, "status", "active"),
        authored_on=_text(given, "authored_on", datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")),
        indexed=given.get("indexed", False) is True)
    checks = (("accession_number", bool(order.accession_number.strip())), ("patient_id", _ID.match(order.patient_id)),
              ("modality", _MODALITY.match(order.modality)), ("status", order.status in _STATUSES),
              ("gender", order.gender in ("male", "female", "other", "unknown")),
              ("birth_date", parse_moment(order.birth_date, "date")),
              ("authored_on", parse_moment(order.authored_on, "dateTime")))
    for name, right in checks:
        if not right:
            raise OrderInvalid(f"{name} is missing or not valid")
    return order


def _text(given: dict[str, Any], name: str, default: str) -> str:
    value = given.get(name)
    if value is None:
        return default
    if not isinstance(value, str) or not 0 < len(value) <= 128:
        raise OrderInvalid(f"{name} must be a text of 1 to 128 characters")
    return value


def build_order(order: Order) -> list[tuple[dict[str, Any], str]]:
    """(resource, id) of Patient, Practitioner, Encounter and ServiceRequest, valid by the platform's rules."""
    practitioner_id, encounter_id = new_id("Practitioner"), new_id("Encounter")
    practitioner = {"reference": f"Practitioner/{practitioner_id}", "display": "dr. Rekaan, Sp.Rad"}
    subject = {"reference": f"Patient/{order.patient_id}"}
    return [
        (build_patient(order), order.patient_id),
        ({"resourceType": "Practitioner", "active": True, "name": [{"text": "dr. Rekaan, Sp.Rad"}],
          "identifier": [{"system": NIK, "value": _invented_nik()}]}, practitioner_id),
        (_build_encounter(order, encounter_id, subject, practitioner), encounter_id),
        (_build_service_request(order, encounter_id, subject, practitioner), new_id("ServiceRequest"))]


def _invented_nik() -> str:
    # 99 is no province, so this can be nobody's number.
    return f"99{secrets.randbelow(10**14):014d}"


def build_patient(order: Order) -> dict[str, Any]:
    """The invented Patient of an order."""
    return {"resourceType": "Patient", "active": True, "gender": order.gender, "birthDate": order.birth_date,
            "name": [{"use": "official", "text": order.name}], "multipleBirthInteger": 0,
            "identifier": [{"use": "official", "system": NIK, "value": _invented_nik()},
                           {"use": "official", "system": "https://fhir.kemkes.go.id/id/ihs-number",
                            "value": order.patient_id}]}


def _build_encounter(order: Order, encounter_id: str, subject: dict[str, str], practitioner: dict[str, str],
                     ) -> dict[str, Any]:
    start = order.authored_on
    return {
        "resourceType": "Encounter", "status": "arrived", "subject": subject,
        "identifier": [{"system": f"{SYSTEMS}/encounter/{ORGANIZATION_ID}", "value": encounter_id}],
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB",
                  "display": "ambulatory"},
        "participant": [{"individual": practitioner, "type": [{"coding": [{
            "system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": "ATND"}]}]}],
        "period": {"start": start},
        "location": [{"location": {"reference": f"Location/{LOCATION_ID}", "display": "Radiologi"}}],
        "statusHistory": [{"status": "arrived", "period": {"start": start, "end": start}}],
        "serviceProvider": {"reference": f"Organization/{ORGANIZATION_ID}"}}


def _build_service_request(order: Order, encounter_id: str, subject: dict[str, str], practitioner: dict[str, str],
                           ) -> dict[str, Any]:
    code, display = _LOINC.get(order.modality, _ANY_IMAGING)
    return {
        "resourceType": "ServiceRequest", "status": order.status, "intent": "original-order", "priority": "routine",
        "identifier": [
            {"system": f"{SYSTEMS}/servicerequest/{ORGANIZATION_ID}", "value": f"ORD-{secrets.token_hex(8)}"},
            {"use": "usual", "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203",
                                                  "code": "ACSN"}]},
             "system": f"{SYSTEMS}/acsn/{ORGANIZATION_ID}", "value": order.accession_number}],
        "category": [{"coding": [{"system": "http://snomed.info/sct", "code": "363679005", "display": "Imaging"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": code, "display": display}], "text": display},
        "orderDetail": [{"coding": [{"system": DCM, "code": order.modality}],
                         "text": f"Modality Code: {order.modality}"}],
        "subject": subject, "encounter": {"reference": f"Encounter/{encounter_id}"},
        "occurrenceDateTime": order.authored_on, "authoredOn": order.authored_on,
        "requester": practitioner, "performer": [practitioner], "reasonCode": [{"text": "Pemeriksaan contoh"}]}


def build_base_resources() -> list[tuple[dict[str, Any], str]]:
    """(resource, id) of what a hospital finds on the platform before its first order: never part of the state."""
    practitioners: list[tuple[dict[str, Any], str]] = [
        ({"resourceType": "Practitioner", "active": True, "name": [{"text": f"dr. Rekaan {number}"}],
          "identifier": [{"system": NIK, "value": f"99{number:014d}"}]}, id_)
        for number, id_ in enumerate(PRACTITIONER_IDS, 1)]
    organization = {"resourceType": "Organization", "active": True, "name": "Rumah Sakit Contoh",
                    "identifier": [{"system": f"{SYSTEMS}/organization/1000", "value": ORGANIZATION_ID}]}
    location = {"resourceType": "Location", "status": "active", "mode": "instance", "name": "Radiologi",
                "identifier": [{"system": f"{SYSTEMS}/location/{ORGANIZATION_ID}", "value": "RAD"}],
                "managingOrganization": {"reference": f"Organization/{ORGANIZATION_ID}"}}
    return [(organization, ORGANIZATION_ID), (location, LOCATION_ID), *practitioners]
