"""The phase `identify`: the images' patient against the order's, before anything is registered or pushed.

Between resolve and register, once for each revision of the study. Imports client, run and internal.identity. What was
compared is recorded as a fact; the values themselves are shown by `show` alone, never logged.
Changes when another source can say who the patient of an order is. Source: issue "waiting room"; satusehat facts 2.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interface.satusehat.client import Client
from interface.satusehat.run import Run
from internal.identity import Comparison, Person, Verdict, compare, find_strangers, fingerprint
from internal.states import Refuse

MIXED = "mixed-patients"
MISMATCH = "patient-mismatch"
MAX_SHOWN = 10


class Identification:
    """Compares patients; reads the Patient, and the ServiceRequest where this step has not seen it."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def identify(self, run: Run) -> Refuse | None:
        """Return why the study must not go on by itself, None when nothing speaks against it; repeatable."""
        work = run.work
        if run.number("identity_revision") >= work.job.revision:
            return None
        people = work.patients()
        refusal = self._refuse_mixed(run, people)
        if refusal is not None:
            return refusal
        order_sides = self._find_order_sides(run)
        pairs = [(images, order, compare(images, order)) for images in people for order in order_sides]
        refusal = self._refuse_mismatch(run, pairs)
        if refusal is not None:
            return refusal
        work.record_facts(identity_revision=work.job.revision, identity=_summarise([pair[2] for pair in pairs]))
        return None

    def _refuse_mixed(self, run: Run, people: Sequence[Person]) -> Refuse | None:
        strangers = find_strangers(people)
        sides = fingerprint(people)
        if strangers is None or run.work.is_same_patient(sides):
            return None
        differences = compare(*strangers).differences
        return Refuse(MIXED, f"the images of this study name more than one patient ({', '.join(differences)} differ)",
                      {"images": [one.shown() for one in people[:MAX_SHOWN]], "differences": list(differences),
                       "sides": sides})

    def _refuse_mismatch(self, run: Run, pairs: Sequence[tuple[Person, Person, Comparison]]) -> Refuse | None:
        wrong = next((pair for pair in pairs if pair[2].differences), None)
        sides = fingerprint(one for pair in pairs for one in pair[:2])
        if wrong is None or run.work.is_same_patient(sides):
            return None
        images, order, comparison = wrong
        listed = ", ".join(comparison.differences)
        return Refuse(MISMATCH, f"the order is for another patient than the images: {listed} differ", {
            "images": images.shown(), "order": order.shown(), "differences": list(comparison.differences),
            "service_request_id": run.fact("service_request_id"), "sides": sides})

    def _find_order_sides(self, run: Run) -> list[Person]:
        order = run.order or self._client.read_shown("ServiceRequest", run.fact("service_request_id")) or {}
        patient = self._client.read_shown("Patient", run.fact("patient_id")) or {}
        platform = Person(_name_of(patient) or _display_of(order), _text(patient.get("birthDate")),
                          _text(patient.get("gender")))
        return [platform, *run.work.ordered_patients(run.accession_number)]


def _summarise(comparisons: Sequence[Comparison]) -> dict[str, list[str]]:
    """Return which elements agreed somewhere and which could be compared nowhere; no values."""
    agreed = {element for one in comparisons for element in one.of(Verdict.AGREES)}
    unknown = {element for one in comparisons for element in one.of(Verdict.NOT_COMPARABLE)} - agreed
    return {"agrees": sorted(agreed), "not_comparable": sorted(unknown)}


def _name_of(patient: Mapping[str, Any]) -> str:
    """Return the first name of a FHIR Patient as text. Source: FHIR R4 HumanName."""
    names = patient.get("name")
    for name in names if isinstance(names, list) else []:
        if not isinstance(name, Mapping):
            continue
        given = name.get("given")
        parts = [_text(name.get("family")), *(map(_text, given) if isinstance(given, list) else ())]
        if text := _text(name.get("text")) or " ".join(filter(None, parts)):
            return text
    return ""


def _display_of(order: Mapping[str, Any]) -> str:
    subject = order.get("subject")
    return _text(subject.get("display")) if isinstance(subject, Mapping) else ""


def _text(value: Any) -> str:
    return value[:512] if isinstance(value, str) else ""
