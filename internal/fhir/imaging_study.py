"""The ImagingStudy of one study and order: a pure function of every instance ever accepted for it.

The SATUSEHAT delivery calls `build` before each POST and PUT and sends what comes back as it is.
Layer 1, imports model and its neighbours dates, modality and union.
Changes when the mapping from DICOM to the platform's ImagingStudy changes. Source: FHIR R4 ImagingStudy;
satusehat facts 2.6 and 5.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from internal.fhir import dates, union
from internal.fhir.dates import DateProblem
from internal.fhir.modality import DERIVED, Modality, Origin, find_modality, order_codes
from internal.fhir.union import MAX_UNSIGNED, NO_DESCRIPTION, Resource
from internal.model import Instance, Inventory, Series

DCM = "http://dicom.nema.org/resources/ontology/DCM"
ACSN_TYPE = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]}
STUDY_UID_SYSTEM = "urn:dicom:uid"
URI_SYSTEM = "urn:ietf:rfc:3986"
DEFAULT_TITLE = "ORIGINAL\\PRIMARY"
MAX_TEXT = 1024

_INTEGER = re.compile(r"\+?\d{1,12}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_DEVICE_CLOCK = frozenset({DateProblem.IMPOSSIBLE, DateProblem.FUTURE, DateProblem.TOO_OLD})


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about the images that a person should know; `series_uid` "" means the study; no patient data."""

    code: str
    text: str
    series_uid: str = ""


@dataclass(frozen=True, slots=True)
class Built:
    """A resource ready to be sent, and what was noticed while it was built."""

    resource: Resource
    remarks: tuple[Remark, ...]


@dataclass(frozen=True, slots=True)
class _Setting:
    tz_name: str
    now_ms: int


def build_acsn_system(organization_id: str) -> str:
    """Return the identifier system of this organization's accession numbers. Source: satusehat facts 2.3."""
    return f"http://sys-ids.kemkes.go.id/acsn/{organization_id}"


def build_uid_value(study_uid: str) -> str:
    """Return a Study Instance UID as identifier value. Source: FHIR R4 ImagingStudy, "urn:oid:" notation."""
    return f"urn:oid:{study_uid}"


def build(
    inventory: Inventory, *, organization_id: str, accession_number: str, service_request_id: str, patient_id: str,
    tz_name: str, now_ms: int, existing: Mapping[str, Any] | None = None, imaging_study_id: str | None = None,
) -> Built:
    """Return the ImagingStudy of `inventory`, united with `existing` (the platform's resource just read), and remarks.

    Deterministic and in a stable order: series and instances by number, then UID. `patient_id` is SATUSEHAT's id.
    `imaging_study_id` goes into the resource for a PUT. `now_ms` (UTC epoch ms) is only compared with, never written.
    Raises ConfigurationInvalid when `tz_name` is no time zone.
    """
    setting = _Setting(tz_name, now_ms)
    remarks: list[Remark] = []
    by_arrival = _by_arrival(inventory.instances)
    resource: Resource = {"resourceType": "ImagingStudy"}
    if imaging_study_id is not None:
        resource["id"] = imaging_study_id
    resource["identifier"] = _identifiers(organization_id, accession_number, inventory.study_uid)
    resource["status"] = "available"
    resource["subject"] = {"reference": f"Patient/{patient_id}"}
    started = _started(
        ((i.header.study_date, i.header.study_time, i.header.timezone_offset) for i in by_arrival),
        setting, remarks, "the study", "",
    )
    if started:
        resource["started"] = started
    resource["basedOn"] = [{"reference": f"ServiceRequest/{service_request_id}"}]
    resource["description"] = _first_text(i.header.study_description for i in by_arrival) or NO_DESCRIPTION
    resource["series"] = [_build_series(series, setting, remarks) for series in inventory.series if series.instances]
    if existing is not None:
        resource = union.unite(resource, existing)
    _finish(resource)
    return Built(union.prune(resource), tuple(remarks))


def _identifiers(organization_id: str, accession_number: str, study_uid: str) -> list[Resource]:
    return [
        {"use": "usual", "type": ACSN_TYPE, "system": build_acsn_system(organization_id), "value": accession_number},
        {"system": STUDY_UID_SYSTEM, "value": build_uid_value(study_uid)},
    ]


def _by_arrival(instances: Iterable[Instance]) -> list[Instance]:
    """What is said once for many instances is taken from the first to arrive: a late image changes no past answer."""
    return sorted(instances, key=lambda i: (i.arrival.arrived_at, i.id))


def _build_series(series: Series, setting: _Setting, remarks: list[Remark]) -> Resource:
    by_arrival = _by_arrival(series.instances)
    result: Resource = {"uid": series.series_uid}
    number = next((n for n in (parse_number(i.header.series_number) for i in by_arrival) if n is not None), None)
    if number is not None:
        result["number"] = number
    modality = _series_modality(by_arrival, series.series_uid, remarks)
    result["modality"] = {"system": DCM, "code": modality.code}
    result["description"] = _first_text(i.header.series_description for i in by_arrival) or NO_DESCRIPTION
    started = _started(
        ((i.header.series_date, i.header.series_time, i.header.timezone_offset) for i in by_arrival),
        setting, remarks, "the series", series.series_uid,
    )
    if started:
        result["started"] = started
    result["instance"] = [_build_instance(instance, modality) for instance in series.instances]
    _remark_numbers(series, remarks)
    return result


def _build_instance(instance: Instance, modality: Modality) -> Resource:
    header = instance.header
    result: Resource = {
        "uid": header.sop_uid,
        "sopClass": {"system": URI_SYSTEM, "code": f"urn:oid:{header.sop_class_uid}"},
    }
    number = parse_number(header.instance_number)
    if number is not None:
        result["number"] = number
    title = clean_text("\\".join(value.strip(" \0") for value in header.image_type)).strip("\\")
    if not title and modality.code not in DERIVED:
        title = DEFAULT_TITLE
    if title:
        result["title"] = title
    return result


def _series_modality(by_arrival: Sequence[Instance], series_uid: str, remarks: list[Remark]) -> Modality:
    found = [find_modality(i.header.modality, i.header.sop_class_uid) for i in by_arrival]
    order = list(Origin)
    best = min(found, key=lambda modality: order.index(modality.origin))
    said = _first_text(i.header.modality for i in by_arrival)
    if best.origin is Origin.REPLACED:
        remarks.append(Remark("modality-replaced", f"the device says modality {said}; sent as {best.code}", series_uid))
    elif best.origin is Origin.SOP_CLASS:
        text = f"the device says {_said(said)}; sent as {best.code} after its SOP class"
        remarks.append(Remark("modality-from-sop-class", text, series_uid))
    elif best.origin is Origin.UNKNOWN:
        remarks.append(Remark("modality-unknown", f"the device says {_said(said)}; sent as OT", series_uid))
    return best


def _said(modality: str) -> str:
    return f"modality {modality[:16]!r}" if modality else "no modality"


def _started(
    values: Iterable[tuple[str, str, str]], setting: _Setting, remarks: list[Remark], what: str, series_uid: str,
) -> str:
    """Return the first value that may be sent; what is wrong with the values before it becomes one remark each."""
    seen: set[DateProblem] = set()
    for da, tm, offset in dict.fromkeys(values):
        started = dates.build_started(da, tm, offset, tz_name=setting.tz_name, now_ms=setting.now_ms)
        if started.problem is not None and started.problem not in seen:
            seen.add(started.problem)
            remarks.append(_date_remark(started.problem, what, series_uid))
        if started.value:
            return started.value
    return ""


def _date_remark(problem: DateProblem, what: str, series_uid: str) -> Remark:
    if problem in _DEVICE_CLOCK:
        return Remark("device-clock", f"the date of {what} is {problem.replace('-', ' ')}: left out; "
                      "check the clock of the device", series_uid)
    if problem is DateProblem.BEFORE_FLOOR:
        return Remark("date-before-floor", f"the date of {what} is before {dates.PLATFORM_FLOOR}: "
                      "the platform may refuse it", series_uid)
    return Remark("time-left-out", f"the time of {what} is not a full time of day: only the date is sent", series_uid)


def _remark_numbers(series: Series, remarks: list[Remark]) -> None:
    headers = [instance.header for instance in series.instances]
    bad = sum(1 for h in headers if h.instance_number.strip(" \0") and parse_number(h.instance_number) is None)
    if bad:
        remarks.append(Remark("number-left-out", f"{bad} instance numbers are not whole numbers from 0: left out",
                              series.series_uid))
    if any(h.series_number.strip(" \0") and parse_number(h.series_number) is None for h in headers):
        remarks.append(Remark("number-left-out", "the series number is not a whole number from 0: left out",
                              series.series_uid))


def parse_number(text: str) -> int | None:
    """Return a DICOM IS value as FHIR unsignedInt, None when empty, text, negative or too large.

    Source: PS3.5 6.2 (IS); FHIR R4 unsignedInt.
    """
    stripped = text.strip(" \0")
    if _INTEGER.fullmatch(stripped) is None:
        return None
    number = int(stripped)
    return number if number <= MAX_UNSIGNED else None


def clean_text(text: str) -> str:
    """Return `text` as a FHIR string: valid Unicode, control characters as one blank, at most MAX_TEXT characters."""
    valid = text.encode("utf-8", "replace").decode("utf-8")
    return _CONTROL.sub(" ", valid).strip()[:MAX_TEXT].rstrip()


def _first_text(texts: Iterable[str]) -> str:
    return next((cleaned for cleaned in (clean_text(text) for text in texts) if cleaned), "")


def _finish(resource: Resource) -> None:
    """Order series and instances and redo what is counted over them."""
    series = union.objects(resource.get("series"))
    for one in series:
        instances = sorted(union.objects(one.get("instance")), key=_order)
        one["instance"] = instances
        if instances or not union.is_unsigned(one.get("numberOfInstances")):
            one["numberOfInstances"] = len(instances)
    series.sort(key=_order)
    resource["modality"] = _study_modalities(series, union.objects(resource.get("modality")))
    resource["numberOfSeries"] = len(series)
    resource["numberOfInstances"] = sum(one["numberOfInstances"] for one in series)
    resource["series"] = series


def _study_modalities(series: Sequence[Resource], listed: Sequence[Resource]) -> list[Resource]:
    """Return the codings of `series` and those `listed` on the platform that no series explains."""
    of_series = _codes(one.get("modality") for one in series)
    known = {*of_series, union.UNKNOWN_MODALITY}
    codings = [{"system": DCM, "code": code} for code in order_codes(of_series)]
    codings += [coding for coding in listed if isinstance(coding.get("code"), str) and coding["code"] not in known]
    return codings or [{"system": DCM, "code": union.UNKNOWN_MODALITY}]


def _order(entry: Mapping[str, Any]) -> tuple[bool, int, str]:
    number = entry.get("number")
    return not isinstance(number, int), number if isinstance(number, int) else 0, str(entry.get("uid", ""))


def _codes(modalities: Iterable[Any]) -> list[str]:
    return [m["code"] for m in modalities if isinstance(m, Mapping) and isinstance(m.get("code"), str)]
