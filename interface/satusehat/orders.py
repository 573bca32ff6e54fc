"""Which ServiceRequest is the order of a study: exactly one that qualifies, or a person decides.

`delivery` hands in everything the platform found under the accession number. Pure; imports internal.fhir.
Changes when the rule for accepting an order changes. Source: satusehat facts 2.3 and 7; FHIR R4 ServiceRequest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from internal.fhir import dates
from internal.fhir.imaging_study import build_acsn_system
from internal.states import NotYet, Refuse

LIVE = frozenset({"active", "completed"})
MAX_SHOWN = 50
MAX_STATUS = 32
DATE_FIELDS = ("occurrenceDateTime", "authoredOn")

_ID = re.compile(r"[A-Za-z0-9.-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The one order of the study: ids of ServiceRequest and of SATUSEHAT's Patient, and the order itself."""

    service_request_id: str
    patient_id: str
    order: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an order has to fit: accession as sent, the study's local day, how far off in seconds, and the time zone."""

    organization_id: str
    accession_number: str
    study_day: date
    window_s: float
    tz_name: str


def choose(found: Iterable[Mapping[str, Any]], wanted: Wanted) -> Accepted | NotYet | Refuse:
    """Return the one order among `found` that qualifies; none at all: NotYet; several, or none that is good: Refuse.

    Only resources with our ACSN identifier count: the platform's search may return others. `detail` of a refusal
    lists every candidate with id, status and dates, without names.
    """
    system = build_acsn_system(wanted.organization_id)
    candidates = [order for order in found if _has_accession(order, system, wanted.accession_number)]
    if not candidates:
        return NotYet("no-order", f"no ServiceRequest with accession number {wanted.accession_number} yet")
    faults = [_find_fault(order, wanted) for order in candidates]
    good = [order for order, fault in zip(candidates, faults, strict=True) if not fault]
    if len(good) == 1:
        return Accepted(str(good[0]["id"]), find_patient_id(good[0]), good[0])
    detail = {"accession_number": wanted.accession_number, "study_date": wanted.study_day.isoformat(),
              "candidates": _show(candidates, faults)}
    if good:
        return Refuse("several-orders", f"{len(good)} orders have accession number {wanted.accession_number}: "
                      "which one is right must be decided by a person", detail)
    text = f"no usable order for accession number {wanted.accession_number}: {', '.join(sorted(set(faults)))}"
    return Refuse("order-not-usable", text, detail)


def find_patient_id(resource: Mapping[str, Any]) -> str:
    """Return the Patient id that `subject` refers to, "" when it refers to none. Source: FHIR R4 Reference."""
    return find_reference_id(resource.get("subject"), "Patient")


def find_reference_id(reference: Any, resource_type: str) -> str:
    """Return the id in a reference to `resource_type`, relative or absolute, "" when it is none."""
    target = reference.get("reference") if isinstance(reference, Mapping) else None
    if not isinstance(target, str):
        return ""
    parts = target.split("/_history/")[0].split("/")
    if len(parts) < 2 or parts[-2] != resource_type or not is_id(parts[-1]):
        return ""
    return parts[-1]


def is_id(value: Any) -> bool:
    """Return whether `value` is a FHIR id, safe in a URL. Source: FHIR R4 id."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None and value.strip(".") != ""


def find_identifiers(resource: Mapping[str, Any], system: str) -> list[str]:
    """Return the values of the identifiers of `resource` that have `system`."""
    listed = resource.get("identifier")
    entries = listed if isinstance(listed, list) else []
    return [str(entry.get("value", "")).strip() for entry in entries
            if isinstance(entry, Mapping) and entry.get("system") == system]


def _has_accession(order: Mapping[str, Any], system: str, accession_number: str) -> bool:
    return (order.get("resourceType") == "ServiceRequest" and bool(accession_number)
            and accession_number in find_identifiers(order, system))


def _find_fault(order: Mapping[str, Any], wanted: Wanted) -> str:
    """Return why `order` cannot be the one, "" when it can."""
    status = order.get("status")
    if not isinstance(status, str) or len(status) > MAX_STATUS:
        return "no status"
    if status not in LIVE:
        return f"status {status}"
    if not is_id(order.get("id")) or not find_patient_id(order):
        return "no patient"
    day = dates.build_day_span(wanted.study_day, tz_name=wanted.tz_name)
    spans = (dates.parse_fhir(order.get(name), tz_name=wanted.tz_name) for name in DATE_FIELDS)
    distances = [span.distance_s(day) for span in spans if span is not None]
    if not distances:
        return "no date"
    return "" if min(distances) <= wanted.window_s else "too far from the study's date"


def _show(candidates: Sequence[Mapping[str, Any]], faults: Sequence[str]) -> list[dict[str, Any]]:
    shown = []
    for order, fault in list(zip(candidates, faults, strict=True))[:MAX_SHOWN]:
        row = {name: str(order[name])[:64] for name in ("id", "status", *DATE_FIELDS) if name in order}
        shown.append({**row, "fault": fault})
    return shown
