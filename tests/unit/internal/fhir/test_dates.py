"""DICOM dates to FHIR, and the spans that FHIR dates name."""

from __future__ import annotations

from datetime import date, time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internal.errors import ConfigurationInvalid
from internal.fhir import dates
from internal.fhir.dates import DateProblem, Span, Started

NOW_MS = 1_760_000_000_000  # 2025-10-09T08:53:20Z = 15:53:20 in Jakarta
JAKARTA = "Asia/Jakarta"


@pytest.mark.parametrize(("da", "tm", "offset", "expected"), [
    ("20251009", "101112", "", Started("2025-10-09T10:11:12+07:00")),
    ("2025.10.09", "10:11:12.99", "", Started("2025-10-09T10:11:12+07:00")),
    (" 20251009 ", "101112\0", "+0000", Started("2025-10-09T10:11:12+00:00", DateProblem.FUTURE)),
    ("20251009", "101112", "-0330", None),
    ("20251009", "101112", "+1500", Started("2025-10-09T10:11:12+07:00")),
    ("20251009", "155320", "", Started("2025-10-09T15:53:20+07:00")),
    ("20251009", "155321", "", Started("", DateProblem.FUTURE)),
    ("20251009", "", "", Started("2025-10-09")),
    ("20251009", "1011", "", Started("2025-10-09", DateProblem.NO_TIME)),
    ("20251009", "235960", "", Started("2025-10-09", DateProblem.NO_TIME)),
    ("20251010", "", "", Started("", DateProblem.FUTURE)),
    ("20250230", "101112", "", Started("", DateProblem.IMPOSSIBLE)),
    ("20250101-20250202", "", "", Started("", DateProblem.IMPOSSIBLE)),
    ("٢٠٢٥١٠٠٩", "", "", Started("", DateProblem.IMPOSSIBLE)),
    ("19891231", "101112", "", Started("", DateProblem.TOO_OLD)),
    ("19900101", "", "", Started("1990-01-01", DateProblem.BEFORE_FLOOR)),
    ("99991231", "235959", "-1200", Started("", DateProblem.FUTURE)),
    ("", "101112", "", Started("")),
])
def test_started(da: str, tm: str, offset: str, expected: Started | None) -> None:
    started = dates.build_started(da, tm, offset, tz_name=JAKARTA, now_ms=NOW_MS)
    if expected is None or expected.problem is DateProblem.FUTURE:
        expected = Started("", DateProblem.FUTURE)
    assert started == expected


@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=6))
def test_started_is_sendable_or_absent(da: str, tm: str, offset: str) -> None:
    started = dates.build_started(da, tm, offset, tz_name=JAKARTA, now_ms=NOW_MS)
    assert started.value == "" or dates.is_sendable(started.value)


@given(st.dates(), st.times(), st.integers(-12 * 60, 14 * 60))
def test_started_never_lies_in_the_future(day: date, clock: time, minutes: int) -> None:
    sign = "-" if minutes < 0 else "+"
    offset = f"{sign}{abs(minutes) // 60:02}{abs(minutes) % 60:02}"
    started = dates.build_started(day.strftime("%Y%m%d").zfill(8), clock.strftime("%H%M%S"), offset, tz_name=JAKARTA,
                                  now_ms=NOW_MS)
    if started.value:
        span = dates.parse_fhir(started.value, tz_name=JAKARTA)
        assert span is not None and span.begin_at <= NOW_MS


@pytest.mark.parametrize(("value", "sendable"), [
    ("2025", True), ("2025-10", True), ("2025-10-09", True), ("2025-10-09T10:11:12+07:00", True),
    ("2025-10-09T10:11:12Z", True), ("2025-10-09T10:11:12", False), ("2025-10-09T24:00:00Z", False),
    ("2025-13-01", False), ("", False), (None, False), (20251009, False),
])
def test_sendable(value: object, sendable: bool) -> None:
    assert dates.is_sendable(value) is sendable


def test_spans() -> None:
    assert dates.parse_fhir("2025-10-09T00:00:00+07:00", tz_name=JAKARTA) == Span(1759942800000, 1759942801000)
    assert dates.parse_fhir("2025-10-09", tz_name=JAKARTA) == Span(1759942800000, 1759942800000 + 86_400_000)
    year = dates.parse_fhir("2025", tz_name="UTC")
    assert year is not None and year.end_at - year.begin_at == 365 * 86_400_000
    december = dates.parse_fhir("2025-12", tz_name="UTC")
    assert december is not None and december.end_at - december.begin_at == 31 * 86_400_000
    for garbage in ("2025-02-30", "x", None, 5, "0000", "2025-10-09T10:11:12+99:99", "9999"):
        assert dates.parse_fhir(garbage, tz_name=JAKARTA) is None


def test_distance() -> None:
    day = dates.build_day_span(date(2025, 10, 9), tz_name=JAKARTA)
    assert day.distance_s(day) == 0
    assert day.distance_s(Span(day.end_at + 5_000, day.end_at + 6_000)) == 5
    assert Span(day.end_at + 5_000, day.end_at + 6_000).distance_s(day) == 5
    assert dates.build_local_day(NOW_MS, tz_name="Asia/Jayapura") == date(2025, 10, 9)


def test_an_unknown_zone_is_a_configuration_mistake() -> None:
    for name in ("Asia/Bekasi", "../etc/passwd", ""):
        with pytest.raises(ConfigurationInvalid):
            dates.zone(name)


def test_plausible_days() -> None:
    assert dates.parse_plausible_da("20251010", NOW_MS) == date(2025, 10, 10)
    assert dates.parse_plausible_da("20251011", NOW_MS) is None
    assert dates.parse_plausible_da("18991231", NOW_MS) is None
