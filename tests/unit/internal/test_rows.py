"""Rows, placeholders and the small pure functions of the index."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internal import associations, engines, index, rows
from internal.model import Arrival, Header, Instance

MIGRATION = Path(index.__file__).parent / "migrations" / "0001_initial.sql"
TEXT = st.text(max_size=20)
HEADERS = st.builds(Header, **{
    field.name: st.lists(TEXT, max_size=4).map(tuple) if field.name == "image_type" else TEXT
    for field in fields(Header)})
INSTANCES = st.builds(
    Instance, id=TEXT, header=HEADERS, part=TEXT, sha256=TEXT, dataset_offset=st.integers(0, 1 << 40),
    dataset_bytes=st.integers(0, 1 << 62), location=TEXT, current=st.booleans(), purged_at=st.none() | st.integers(),
    arrival=st.builds(Arrival, **{
        field.name: st.integers() if field.name == "arrived_at" else TEXT for field in fields(Arrival)}))


@given(INSTANCES)
def test_an_instance_survives_its_row(instance: Instance) -> None:
    values = rows.instance_values(instance)
    assert len(values) == len(rows.INSTANCE_COLUMNS)
    assert rows.instance_from(values) == instance
    assert rows.instance_from([*values, "further", "columns"]) == instance


def test_the_table_has_a_column_for_each_field() -> None:
    table = re.search(r"CREATE TABLE instance \((.*?)\);", MIGRATION.read_text(encoding="utf-8"), re.DOTALL)
    assert table is not None
    found = set(re.findall(r"^ {4}(\w+) +(?:TEXT|INTEGER)", table[1], re.MULTILINE))
    later = {"committed_at", "purging_at"}  # set when a commitment is made, and by retention; never with the row
    assert found - later == set(rows.INSTANCE_COLUMNS)


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()))
def test_json_columns(value: dict[str, object]) -> None:
    text = rows.json_text(value)
    assert text.isascii()
    assert rows.json_object(text) == value


@given(st.lists(st.integers(), max_size=50), st.integers(1, 9))
def test_chunks_lose_nothing(values: list[int], size: int) -> None:
    pieces = list(rows.chunks(values, size))
    assert [value for piece in pieces for value in piece] == values
    assert all(0 < len(piece) <= size for piece in pieces)
    assert rows.marks(values).count("?") == len(values)


@pytest.mark.parametrize(("location", "node"), [
    ("spool:n1/e1", "n1"), ("spool:n1", "n1"), ("s3:spool:n1/e1", ""), ("", ""), ("n1/e1", ""),
])
def test_node_of(location: str, node: str) -> None:
    assert rows.node_of(location) == node


@pytest.mark.parametrize(("association_id", "expected"), [
    ("0.a1b2.17", ("0", "a1b2")), ("left.0.a1b2.17", ("left.0", "a1b2")), ("", ("", "")), ("0.17", ("", "")),
])
def test_slot_and_boot(association_id: str, expected: tuple[str, str]) -> None:
    assert associations.slot_and_boot(association_id) == expected


@pytest.mark.parametrize(("raw", "normalised"), [
    ("A1", "A1"), (" A1  ", "A1"), ("A1\0", "A1"), (" \0", ""), ("", ""), ("a 1", "a 1"), ("\tA1\n", "\tA1\n"),
    ("00012", "00012"), ("A\\B", "A\\B"),
])
def test_normalise_accession(raw: str, normalised: str) -> None:
    assert index.normalise_accession(raw) == normalised


@given(st.text())
def test_normalising_twice_changes_nothing(raw: str) -> None:
    once = index.normalise_accession(raw)
    assert index.normalise_accession(once) == once
    assert once in raw


@given(st.text())
def test_storable_text_can_be_encoded_and_keeps_its_length(text: str) -> None:
    kept = engines.storable(text)
    assert len(kept) == len(text)
    assert "\0" not in kept
    kept.encode("utf-8")
    assert engines.storable(kept) == kept


@pytest.mark.parametrize(("sql", "translated"), [
    ("SELECT ?", "SELECT %s"), ("SELECT '?', ?", "SELECT '?', %s"), ("a LIKE '%x'", "a LIKE '%%x'"),
    ("7 % 4", "7 %% 4"), ("'it''s ?' || ?", "'it''s ?' || %s"),
])
def test_placeholders(sql: str, translated: str) -> None:
    assert engines._with_percents(sql) == translated
