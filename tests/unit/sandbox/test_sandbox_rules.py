"""rules.json against the official numbers, and the validator against damaged resources."""

from __future__ import annotations

import copy
import importlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.catalogue import Catalogue, values_at
from sandbox.options import Options
from sandbox.orders import build_order, parse_order
from sandbox.rules import Validator
from tests.examples import examples

# Other work on the machine must not fail a test.
calm = settings(deadline=None, suppress_health_check=list(HealthCheck))

CATALOGUE = Catalogue()
VALIDATOR = Validator(CATALOGUE, Options())
ORDER = build_order(parse_order({"accession_number": "A", "authored_on": "2025-01-02"}))
STUDY: dict[str, Any] = {
    "resourceType": "ImagingStudy", "status": "available", "started": "2025-01-02T03:04:05+07:00",
    "identifier": [{"system": "http://sys-ids.kemkes.go.id/acsn/100099001", "value": "A"}],
    "modality": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"}],
    "subject": {"reference": "Patient/P01"}, "basedOn": [{"reference": "ServiceRequest/x"}],
    "note": [{"text": "catatan", "time": "2025-01-02"}],
    "series": [{"uid": "1.2", "modality": {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"},
                "instance": [{"uid": "1.2.3", "sopClass": {"system": "urn:ietf:rfc:3986", "code": "urn:oid:1"}}]}]}
RESOURCES = {"ImagingStudy": STUDY, **{str(one["resourceType"]): one for one, _ in ORDER}}


def test_mandatory_elements_carry_the_official_numbers() -> None:
    """Written from the dictionary (fact sheet section 2.6), not from rules.json."""
    official = {
        "ImagingStudy": {"identifier": 10150, "status": 10151, "modality": 10152, "subject": 10153, "basedOn": 10154},
        "ServiceRequest": {"code": 10060, "intent": 10063, "status": 10065, "subject": 10141, "encounter": 10142,
                           "requester": 10376, "performer": 10377},
        "Encounter": {"identifier": 10117, "subject": 10118, "participant.individual": 10119,
                      "location.location": 10120, "statusHistory": 10122, "period.start": 10123,
                      "serviceProvider": 10124, "status": None, "class": None},
        "Observation": {"status": 10008, "code": 10010, "subject": 10129, "encounter": 10130, "performer": 10383},
        "DiagnosticReport": {"code": 10071, "status": 10072, "subject": 10144, "encounter": 10145, "performer": 10384,
                             "result": 10385, "basedOn": 10387, "identifier": 10432},
        "Patient": {"identifier": 10166, "multipleBirthInteger": 10167, "name.text": 10168, "birthDate": 10397,
                    "gender": 10413}}
    for type_name, expected in official.items():
        assert {rule.path: rule.number for rule in CATALOGUE.rules[type_name] if rule.need} == expected


def test_every_rule_and_element_leads_somewhere() -> None:
    primitive = {"string", "code", "uri", "id", "boolean", "integer", "unsignedInt", "positiveInt", "decimal", "date",
                 "dateTime", "instant", "any"}
    for elements in CATALOGUE.elements.values():
        assert {element.type_name for element in elements.values()} <= primitive | set(CATALOGUE.elements)
    for type_name, rules in CATALOGUE.rules.items():
        for rule in rules:
            owner = type_name
            for name in rule.path.split("."):
                owner = CATALOGUE.elements[owner][name].type_name
            assert set(rule.targets) <= CATALOGUE.types
            assert not rule.codes or rule.codes in CATALOGUE.codes


def test_valid_resources_have_no_issues() -> None:
    for type_name, resource in RESOURCES.items():
        assert VALIDATOR.check(resource, type_name, lambda *_: True) == []


def nodes(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [place]
    for key, item in value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else []):
        found += nodes(item, (*place, key))
    return found


PLACES = [(name, place) for name, resource in RESOURCES.items() for place in nodes(resource) if place]
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
        st.sampled_from(["system", "code", "coding", "value", "reference", "period", "start", "end", "x"]), inner,
        max_size=3), max_leaves=6)


@settings(calm, max_examples=examples(400))
@given(place=st.sampled_from(PLACES), junk=JUNK)
def test_damage_anywhere_is_named_or_harmless_and_never_a_crash(place: tuple[str, tuple[Any, ...]], junk: Any) -> None:
    type_name, (*names, last) = place
    resource = copy.deepcopy(RESOURCES[type_name])
    target: Any = resource
    for name in names:
        target = target[name]
    target[last] = junk
    issues = VALIDATOR.check(resource, type_name, lambda *_: True)
    for issue in issues:
        assert issue.text and issue.code
        assert len(json.dumps([issue.text, issue.expression, issue.diagnostics])) < 2000
    if junk in (None, "", [], {}) and junk is not False and junk != 0 and type_name != "Practitioner":
        assert issues, "nothing empty is accepted"


def test_values_at_names_its_way() -> None:
    found = list(values_at({"a": [{"b": 1}, {"b": [2, 3]}, {"c": 4}, 5]}, "a.b"))
    assert found == [("a[0].b", 1), ("a[1].b[0]", 2), ("a[1].b[1]", 3)]


R4B = ("ImagingStudy", "ServiceRequest", "Encounter", "Observation", "DiagnosticReport", "Patient", "Coding",
       "CodeableConcept", "Identifier", "Reference", "Period", "Quantity", "Annotation", "HumanName", "Address")


def model_of(name: str) -> Any:
    """The class of a FHIR R4B type in fhir.resources, which knows the standard independently of us."""
    return getattr(importlib.import_module(f"fhir.resources.R4B.{name.lower()}"), name)


@pytest.mark.parametrize("name", R4B)
def test_element_tables_agree_with_the_standard(name: str) -> None:
    fields = {field.alias or key: "List" in str(field.annotation) for key, field in model_of(name).model_fields.items()}
    ours = CATALOGUE.elements[name]
    everywhere = set(CATALOGUE.elements["Resource"]) | {"extension", "modifierExtension", "fhir_comments"}
    theirs = {key for key in fields if not key.startswith("_") and "__" not in key and key != "resource_type"}
    assert theirs - set(ours) - everywhere == set() == set(ours) - theirs
    assert {key: element.many for key, element in ours.items()} == {key: fields[key] for key in ours}


def test_orders_are_valid_fhir() -> None:
    for name in ("Patient", "Encounter", "ServiceRequest"):
        model_of(name).model_validate(RESOURCES[name])
