"""Choosing the order: exactly one qualifies, or nobody guesses."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interface.satusehat.client import spell_token
from interface.satusehat.orders import Accepted, Wanted, choose, find_reference_id
from internal.states import NotYet, Refuse

ACSN = "http://sys-ids.kemkes.go.id/acsn/100099001"
WANTED = Wanted("100099001", "RAD1", date(2025, 10, 9), 30 * 86400, "Asia/Jakarta")


def order(**changes: Any) -> dict[str, Any]:
    return {
        "resourceType": "ServiceRequest", "id": "sr-1", "status": "active",
        "identifier": [{"system": "x", "value": "RAD1"}, {"system": ACSN, "value": "RAD1"}],
        "subject": {"reference": "Patient/P1", "display": "CONTOH BUDI"}, "authoredOn": "2025-10-01T00:00:00+07:00",
    } | changes


@pytest.mark.parametrize("changes", [
    {}, {"status": "completed"}, {"authoredOn": "2025-09-09"}, {"authoredOn": "2025-11-08T00:00:00+07:00"},
    {"authoredOn": "2020-01-01", "occurrenceDateTime": "2025-10-09"}, {"authoredOn": "2025"},
    {"subject": {"reference": "https://x/fhir-r4/v1/Patient/P1/_history/2"}},
])
def test_accepted(changes: dict[str, Any]) -> None:
    assert choose([order(**changes)], WANTED) == Accepted("sr-1", "P1")


@pytest.mark.parametrize("found", [
    [], [order(identifier=[{"system": "x", "value": "RAD1"}])],
    [order(identifier=[{"system": ACSN, "value": "RAD12"}])],
    [order(identifier=[{"system": ACSN, "value": "rad1"}])], [order(identifier=[{"system": ACSN, "value": ""}])],
    [order(resourceType="Patient")], [{}], [order(identifier=None)], [order(identifier=["RAD1"])],
])
def test_nothing_that_matches_means_waiting(found: list[dict[str, Any]]) -> None:
    outcome = choose(found, WANTED)
    assert isinstance(outcome, NotYet) and outcome.code == "no-order"


@pytest.mark.parametrize(("changes", "fault"), [
    ({"status": "revoked"}, "status revoked"), ({"status": "entered-in-error"}, "status entered-in-error"),
    ({"status": "draft"}, "status draft"), ({"status": None}, "no status"), ({"status": ["active"]}, "no status"),
    ({"authoredOn": "2025-09-07"}, "too far"), ({"authoredOn": "2025-11-10"}, "too far"),
    ({"authoredOn": "2024-10-09"}, "too far"), ({"authoredOn": None}, "no date"), ({"authoredOn": "soon"}, "no date"),
    ({"subject": None}, "no patient"), ({"subject": {"reference": "Group/1"}}, "no patient"),
    ({"id": "../x"}, "no patient"),
])
def test_one_that_does_not_qualify_is_held_and_shown(changes: dict[str, Any], fault: str) -> None:
    outcome = choose([order(**changes)], WANTED)
    assert isinstance(outcome, Refuse) and outcome.code == "order-not-usable"
    assert fault in outcome.detail["candidates"][0]["fault"] and fault in outcome.reason
    assert "BUDI" not in json.dumps(outcome.detail) + outcome.reason


def test_several_are_all_shown() -> None:
    outcome = choose([order(), order(id="sr-2"), order(id="sr-3", status="revoked")], WANTED)
    assert isinstance(outcome, Refuse) and outcome.code == "several-orders"
    assert [row["id"] for row in outcome.detail["candidates"]] == ["sr-1", "sr-2", "sr-3"]
    assert "P1" not in json.dumps(outcome.detail)


def test_the_only_one_that_qualifies_wins() -> None:
    found = [order(id="old", authoredOn="2024-10-01"), order(id="new"), order(id="bad", status="revoked")]
    assert choose(found, WANTED) == Accepted("new", "P1")


def test_an_empty_accession_number_matches_nothing() -> None:
    empty = Wanted("100099001", "", WANTED.study_day, WANTED.window_s, WANTED.tz_name)
    assert isinstance(choose([order(identifier=[{"system": ACSN, "value": ""}, {"system": ACSN}])], empty), NotYet)


field = st.none() | st.text(max_size=12) | st.integers() | st.lists(st.text(max_size=3), max_size=2) | st.sampled_from(
    ["active", "RAD1", ACSN, "2025-10-09", "Patient/P1"])


KEYS = ["resourceType", "id", "status", "identifier", "subject", "authoredOn", "occurrenceDateTime"]


@given(st.lists(st.dictionaries(st.sampled_from(KEYS), field, max_size=7), max_size=4))
def test_hostile_resources_never_raise(found: list[dict[str, Any]]) -> None:
    assert isinstance(choose([order(**one) for one in found], WANTED), Accepted | NotYet | Refuse)


@given(st.text(max_size=30))
def test_references_give_safe_ids(text: str) -> None:
    found = find_reference_id({"reference": f"Patient/{text}"}, "Patient")
    assert not set(found) & set("/?#&% \n") and found.strip(".") == found.strip(".")


@given(st.text(alphabet="A1,|$\\ ", min_size=1, max_size=8).filter(str.strip))
def test_no_spelling_of_a_value_can_be_read_as_an_empty_code(value: str) -> None:
    for written in spell_token(value):
        pieces = written.replace("\\\\", "").replace("\\,", "").split(",")
        assert all(piece.strip() for piece in pieces) or "\\" in written
