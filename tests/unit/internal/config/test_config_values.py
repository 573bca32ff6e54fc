"""Texts become values: units, limits, identifiers; every spelling printed is read back as the same value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internal.config.values import (
    Secret,
    WrongValue,
    format_duration,
    format_size,
    many,
    parse_ae_title,
    parse_bind_address,
    parse_bool,
    parse_destination_name,
    parse_duration,
    parse_fhir_id,
    parse_header_value,
    parse_int,
    parse_path_suffix,
    parse_size,
    parse_time_zone,
    parse_uid,
    within,
)


@pytest.mark.parametrize(("text", "seconds"), [
    ("500ms", 0.5), ("30s", 30), ("5m", 300), ("2h", 7200), ("7d", 604800), ("0", 0), ("1.5s", 1.5), ("10 S", 10),
])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1,5s", "1h30m", "5w", "1e3s", "9" * 5000 + "s", "٣s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(WrongValue):
        parse_duration(text)


@pytest.mark.parametrize(("text", "size_bytes"), [
    ("64KB", 65536), ("2GB", 2 << 30), ("512B", 512), ("1 MiB", 1 << 20), ("1.5k", 1536), ("1tb", 1 << 40), ("0", 0),
])
def test_sizes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "64", "KB", "-1KB", "1PB", "1BB", "1bib", "9" * 5000 + "KB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(WrongValue):
        parse_size(text)


@given(st.integers(0, 10**12))
def test_durations_are_read_back(milliseconds: int) -> None:
    text = format_duration(milliseconds / 1000)
    assert parse_duration(text) == milliseconds / 1000


@given(st.integers(0, 10**14))
def test_sizes_are_read_back(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes


@pytest.mark.parametrize(("text", "value"), [
    (yes, True) for yes in ("yes", "True", "ON", "1", "ya")] + [
    (no, False) for no in ("no", "False", "OFF", "0", "tidak")])
def test_yes_and_no(text: str, value: bool) -> None:
    assert parse_bool(text) is value


def test_limits_belong_to_the_range() -> None:
    parse = within(parse_int, "1", "65535")
    assert (parse("1"), parse("65535")) == (1, 65535)
    for text in ("0", "65536", "x", "²", "1.0", "-1"):
        with pytest.raises(WrongValue):
            parse(text)


@pytest.mark.parametrize(("parse", "good", "bad"), [
    (parse_ae_title, ["A", "DCM ROUTER", "0123456789ABCDEF"], ["", "   ", "A\\B", "Ä", "0123456789ABCDEFG", "A\n"]),
    (parse_uid, ["1.2.840.10008.1.1", "2.25.0"], ["1", "1.", "1.02", "1.2.x", "1." + "2" * 63, "1.2\n"]),
    (parse_destination_name, ["a", "a-b_9"], ["", "A", "a b", "a" * 33, "../x", "folder:", "ä"]),
    (parse_fhir_id, ["100099001", "a-b.C"], ["", "a b", "a/b", "a" * 65, "1\n"]),
    (parse_path_suffix, ["/fhir-r4/v1"],
     ["", "/", "/a b", "/a/../b", "/a?b", "/a#b", "/a//b", "/./a", "/" + "a" * 200]),
    (parse_header_value, ["router/2.0 (x)"], ["", "a\r\nX: y", "ä", "a" * 201]),
    (parse_time_zone, ["Asia/Jakarta", "UTC"], ["", "Asia", "../etc/passwd", "/etc/localtime", "Asia/Nowhere", "ä"]),
])
def test_identifiers(parse: object, good: list[str], bad: list[str]) -> None:
    assert callable(parse)
    for text in good:
        assert parse(text) == text
    for text in bad:
        with pytest.raises(WrongValue):
            parse(text)


def test_spellings_that_are_made_equal() -> None:
    assert parse_path_suffix("fhir-r4/v1/") == "/fhir-r4/v1"
    assert [parse_time_zone(zone) for zone in ("WIB", "wita", "WIT")] == [
        "Asia/Jakarta", "Asia/Makassar", "Asia/Jayapura"]
    assert parse_destination_name("folder:pacs") == "pacs"
    assert [parse_bind_address(each) for each in ("all", "localhost", "[::1]", "0.0.0.0")] == [
        "", "127.0.0.1", "::1", "0.0.0.0"]
    with pytest.raises(WrongValue):
        parse_bind_address("router.local")


def test_lists() -> None:
    parse = many(parse_ae_title, limit=5)
    assert parse("A, B C\n,D,,A") == ("A", "B C", "D")
    assert parse("none") == ()
    with pytest.raises(WrongValue):
        parse("A,B,C,D,E,F")


def test_a_secret_compares_by_value_and_is_false_when_empty() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert not Secret() and str(Secret()) == ""
    assert f"{Secret('abc')} {Secret('abc')!r} {[Secret('abc')]}" == "*** Secret('***') [Secret('***')]"
