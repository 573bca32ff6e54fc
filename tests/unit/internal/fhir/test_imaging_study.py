"""The ImagingStudy builder: golden files, FHIR validity, and what must hold for every input."""

from __future__ import annotations

import copy
import json
import random
import re
from typing import Any

import pytest
from fhir.resources.R4B.imagingstudy import ImagingStudy
from hypothesis import given, settings
from hypothesis import strategies as st

from internal.fhir import dates, union
from internal.fhir.imaging_study import parse_number
from tests.examples import examples
from tests.unit.internal.fhir.imaging_study_cases import (
    CASES,
    FOREIGN,
    NOW_MS,
    Case,
    as_golden,
    golden_path,
    make,
    make_instance,
    make_inventory,
)

IDS = [case.name for case in CASES]


def instance_uids(resource: dict[str, Any]) -> set[str]:
    return {instance["uid"] for series in resource["series"] for instance in series.get("instance", [])}


def assert_no_empties(value: Any) -> None:
    assert value is not None and value != "" and value != [] and value != {}
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        assert_no_empties(child)


def assert_sendable(resource: dict[str, Any]) -> None:
    assert_no_empties(resource)
    ImagingStudy.model_validate(json.loads(json.dumps(resource)))
    for each in (resource, *resource["series"]):
        assert "started" not in each or dates.is_sendable(each["started"])
    for series in resource["series"]:
        assert series["modality"]["code"]
        assert series["numberOfInstances"] == len(series["instance"])
    assert resource["numberOfSeries"] == len(resource["series"])
    assert resource["numberOfInstances"] == sum(series["numberOfInstances"] for series in resource["series"])


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_golden_file(case: Case) -> None:
    built = make(case.inventory, case.existing)
    assert as_golden(built) == json.loads(golden_path(case).read_text(encoding="utf-8"))
    assert_sendable(built.resource)


def test_every_golden_file_has_its_case() -> None:
    assert {path.stem for path in golden_path(CASES[0]).parent.glob("*.json")} == set(IDS)


def test_no_patient_data_in_resource_or_remarks() -> None:
    for case in CASES:
        text = json.dumps(as_golden(make(case.inventory)))
        assert not any(secret in text for secret in ("BUDI", "3171010101010001", "19800101"))


def test_same_input_gives_same_bytes_whatever_the_order_of_instances() -> None:
    members = [make_instance(f"1.2.3.{n}", instance_number=str(n % 5), arrived_at=NOW_MS - n) for n in range(1, 30)]
    expected = json.dumps(make(make_inventory(*members)).resource)
    for seed in range(5):
        shuffled = members[:]
        random.Random(seed).shuffle(shuffled)
        assert json.dumps(make(make_inventory(*shuffled)).resource) == expected


def test_a_late_image_only_adds() -> None:
    first = make(make_inventory(make_instance("1.2.3.1"))).resource
    late = make_instance("1.2.3.2", arrived_at=NOW_MS - 5, study_date="20250101", study_description="Lain",
                         series_description="Lain", series_number="9")
    second = make(make_inventory(make_instance("1.2.3.1"), late), {**first, "id": "x"}).resource
    assert second["started"] == first["started"]
    assert second["description"] == first["description"]
    assert second["series"][0]["number"] == first["series"][0]["number"]
    assert instance_uids(second) == {"1.2.3.1", "1.2.3.2"}


def test_union_keeps_what_others_added_and_is_a_fixed_point() -> None:
    built = make(make_inventory(make_instance("1.2.3.1")), FOREIGN).resource
    assert instance_uids(built) == {"1.2.3.1", "9.9.8", "9.9.9"}
    assert built["note"] == FOREIGN["note"]
    assert built["series"][0]["bodySite"] == {"code": "51185008"}
    again = make(make_inventory(make_instance("1.2.3.1")), copy.deepcopy(built)).resource
    assert again == built == union.comparable(built)


def test_what_the_platform_knows_is_not_replaced_by_a_placeholder() -> None:
    existing = make(make_inventory(make_instance("1.2.3.1"))).resource
    bare = make_instance("1.2.3.1", study_description="", series_description="", modality="", sop_class_uid="1.2",
                         study_date="", series_date="", series_number="", instance_number="")
    assert make(make_inventory(bare), {**existing, "id": "x"}).resource["series"][0]["modality"]["code"] == "DX"
    assert make(make_inventory(bare), {**existing, "id": "x"}).resource["description"] == "Thorax PA"


def test_a_series_listed_only_by_its_count_keeps_the_count() -> None:
    existing = {"resourceType": "ImagingStudy", "id": "x", "series": [
        {"uid": "9.1", "modality": {"code": "CT"}, "numberOfInstances": 12}]}
    built = make(make_inventory(make_instance("1.2.3.1")), existing).resource
    assert built["numberOfInstances"] == 13


def test_five_thousand_instances() -> None:
    members = [make_instance(f"1.2.3.{n}", series_uid=f"1.2.{n % 10}", instance_number=str(n)) for n in range(5000)]
    first = make(make_inventory(*members)).resource
    built = make(make_inventory(*members), {**first, "id": "x"}).resource
    assert built["numberOfInstances"] == 5000
    assert len(json.dumps(built)) < 2_000_000


def test_an_empty_inventory_is_still_a_resource() -> None:
    resource = make(make_inventory()).resource
    assert resource["modality"][0]["code"] == "OT"
    assert "series" not in resource


text = st.text(max_size=20) | st.sampled_from(
    ["20251009", "101112", "00000000", "", "DR", "CT", "+0700", "-3", "5", "\0 "])


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(st.fixed_dictionaries({
    "study_date": text, "study_time": text, "series_date": text, "series_time": text, "timezone_offset": text,
    "modality": text, "series_number": text, "instance_number": text, "study_description": text,
    "series_description": text, "image_type": st.lists(text, max_size=3).map(tuple),
}), min_size=1, max_size=4))
def test_any_header_gives_a_valid_resource_that_lists_every_instance(headers: list[dict[str, Any]]) -> None:
    members = [make_instance(f"1.2.3.{n}", series_uid=f"1.2.{n % 2}", **fields) for n, fields in enumerate(headers)]
    resource = make(make_inventory(*members)).resource
    assert_sendable(resource)
    assert instance_uids(resource) == {member.header.sop_uid for member in members}


json_value = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["uid", "number", "instance", "series", "modality", "code", "started", "title"]), inner,
        max_size=4),
    max_leaves=12)


@settings(max_examples=examples(150), deadline=None)
@given(st.dictionaries(st.sampled_from(
    ["identifier", "series", "modality", "basedOn", "started", "description", "status", "meta", "numberOfInstances"]),
    json_value, max_size=6))
def test_any_existing_resource_never_hides_ours(existing: dict[str, Any]) -> None:
    resource = make(make_inventory(make_instance("1.2.3.1")), {**existing, "id": "x"}).resource
    assert "1.2.3.1" in {i.get("uid") for s in resource["series"] for i in s.get("instance", []) if isinstance(i, dict)}
    assert resource["subject"] == {"reference": "Patient/P01234567890"}
    assert_no_empties(resource)


@given(st.text(max_size=14) | st.integers().map(str))
def test_numbers_are_unsigned_or_absent(value: str) -> None:
    number = parse_number(value)
    if number is None:
        stripped = value.strip(" \0")
        assert re.fullmatch(r"\+?[0-9]{1,12}", stripped) is None or int(stripped) > union.MAX_UNSIGNED
    else:
        assert 0 <= number <= union.MAX_UNSIGNED
