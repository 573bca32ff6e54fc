"""DICOM dates and times -> FHIR dateTime, and FHIR dateTime -> the span of time it names.

Used by the FHIR builders and by the choice of an order. Layer 1, imports nothing of ours but errors.
Changes when a date form has to be understood that is not understood today.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from internal.errors import ConfigurationInvalid

#: Dates before this are a device whose clock was never set, not a study.
OLDEST_PLAUSIBLE = date(1990, 1, 1)
#: The platform's own lower bound; sources disagree, so it only warns. Source: satusehat facts 2.6.
PLATFORM_FLOOR = date(2014, 6, 3)

_DA = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})", re.ASCII)
_TM = re.compile(r"(\d{2}):?(\d{2}):?(\d{2})(?:\.\d{1,6})?", re.ASCII)
_OFFSET = re.compile(r"([+-])(\d{2})(\d{2})", re.ASCII)
_FHIR = re.compile(
    r"(\d{4})(?:-(\d{2})(?:-(\d{2})(?:T(\d{2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?(Z|[+-]\d{2}:\d{2})?)?)?)?", re.ASCII
)
_FHIR_SENDABLE = re.compile(
    r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01])"
    r"(T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-](0\d|1[0-4]):[0-5]\d))?)?)?",
    re.ASCII,
)


class DateProblem(StrEnum):
    """Why a date was left out or shortened."""

    IMPOSSIBLE = "impossible"  #: no such day
    FUTURE = "future"  #: later than now
    TOO_OLD = "too-old"  #: before OLDEST_PLAUSIBLE
    BEFORE_FLOOR = "before-floor"  #: kept, but the platform may refuse it
    NO_TIME = "no-time"  #: kept as a date: the time was there and could not be used


@dataclass(frozen=True, slots=True)
class Started:
    """A FHIR dateTime ("" when nothing may be said) and what was wrong with the DICOM values (None: nothing)."""

    value: str
    problem: DateProblem | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """The moments a partial date may mean: `begin_at` <= t < `end_at`, UTC epoch milliseconds."""

    begin_at: int
    end_at: int

    def distance_s(self, other: Span) -> float:
        """Return the seconds between the two spans, 0 when they touch or overlap."""
        return max(other.begin_at - self.end_at, self.begin_at - other.end_at, 0) / 1000


@lru_cache(maxsize=16)
def zone(tz_name: str) -> ZoneInfo:
    """Return the time zone `tz_name` (IANA name); raises ConfigurationInvalid when there is none."""
    try:
        return ZoneInfo(tz_name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationInvalid(f"tz_name {tz_name!r} is not a time zone, such as Asia/Jakarta") from None


def parse_da(text: str) -> date | None:
    """Return the day of a DICOM DA value (also the old YYYY.MM.DD), None when it names no day.

    Source: PS3.5 6.2 (DA).
    """
    match = _DA.fullmatch(text.strip(" \0"))
    if match is None:
        return None
    try:
        return date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return None


def parse_tm(text: str) -> time | None:
    """Return the time of a DICOM TM value to the second; None when it is shorter, impossible or a leap second.

    Source: PS3.5 6.2 (TM); satusehat facts 5: a time that lacks seconds is left out, never filled up.
    """
    match = _TM.fullmatch(text.strip(" \0"))
    if match is None:
        return None
    try:
        return time(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return None


def parse_offset(text: str) -> timezone | None:
    """Return Timezone Offset From UTC as a zone, None when absent or out of -1200..+1400. Source: PS3.3 C.12.1.1.8."""
    match = _OFFSET.fullmatch(text.strip(" \0"))
    if match is None or int(match[3]) > 59:
        return None
    offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
    if match[1] == "-":
        offset = -offset
    if not timedelta(hours=-12) <= offset <= timedelta(hours=14):
        return None
    return timezone(offset)


def parse_plausible_da(text: str, now_ms: int) -> date | None:
    """Return the day of a DA value unless it is impossible, before 1990 or after tomorrow (UTC)."""
    day = parse_da(text)
    tomorrow = datetime.fromtimestamp(now_ms / 1000, UTC).date() + timedelta(days=1)
    return day if day is not None and OLDEST_PLAUSIBLE <= day <= tomorrow else None


def build_started(da: str, tm: str, offset: str, *, tz_name: str, now_ms: int) -> Started:
    """Return `started` for DICOM date, time and Timezone Offset From UTC; a missing time gives a date, never a guess.

    The offset of the data set rules, else `tz_name`. `now_ms` is UTC epoch milliseconds.
    Source: FHIR R4 dateTime; satusehat facts 2.6 and 5.
    """
    if not da.strip(" \0"):
        return Started("")
    day = parse_da(da)
    if day is None:
        return Started("", DateProblem.IMPOSSIBLE)
    if day < OLDEST_PLAUSIBLE:
        return Started("", DateProblem.TOO_OLD)
    local = parse_offset(offset) or zone(tz_name)
    clock = parse_tm(tm)
    if _is_future(day, clock, local, now_ms):
        return Started("", DateProblem.FUTURE)
    if clock is None:
        value, problem = day.isoformat(), DateProblem.NO_TIME if tm.strip(" \0") else None
    else:
        value, problem = datetime.combine(day, clock, local).isoformat(timespec="seconds"), None
    if day < PLATFORM_FLOOR:
        problem = DateProblem.BEFORE_FLOOR
    return Started(value, problem)


def _is_future(day: date, clock: time | None, local: tzinfo, now_ms: int) -> bool:
    now = datetime.fromtimestamp(now_ms / 1000, local)
    if clock is None:
        return day > now.date()
    return day > now.date() + timedelta(days=1) or datetime.combine(day, clock, local) > now


def is_sendable(value: object) -> bool:
    """Return whether `value` is a dateTime the platform's rule 10424 takes: with an offset whenever it has a time.

    Source: FHIR R4 dateTime; satusehat facts 2.6.
    """
    return isinstance(value, str) and _FHIR_SENDABLE.fullmatch(value) is not None


def parse_fhir(value: object, *, tz_name: str) -> Span | None:
    """Return the span that a FHIR date or dateTime names (a value without offset is read in `tz_name`), None if none.

    Source: FHIR R4 dateTime.
    """
    match = _FHIR.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    try:
        begin, end = _bounds(match, tz_name)
        return Span(round(begin.timestamp() * 1000), round(end.timestamp() * 1000))
    except (ValueError, OverflowError, OSError):
        return None


def _bounds(match: re.Match[str], tz_name: str) -> tuple[datetime, datetime]:
    year, month, day, hour, minute, second, offset = match.groups()
    local = zone(tz_name) if offset is None else datetime.fromisoformat(f"2000-01-01T00:00:00{offset}").tzinfo
    begin = datetime(int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0),
                     min(int(second or 0), 59), tzinfo=local)
    if hour is not None:
        return begin, begin + (timedelta(seconds=1) if second is not None else timedelta(minutes=1))
    if day is not None:
        return begin, begin + timedelta(days=1)
    if month is not None:
        return begin, (begin + timedelta(days=32)).replace(day=1)
    return begin, begin.replace(year=begin.year + 1)


def build_day_span(day: date, *, tz_name: str) -> Span:
    """Return the span of a whole local day in `tz_name`."""
    begin = datetime.combine(day, time(), zone(tz_name))
    return Span(round(begin.timestamp() * 1000), round((begin + timedelta(days=1)).timestamp() * 1000))


def build_local_day(at: int, *, tz_name: str) -> date:
    """Return the day in `tz_name` at `at` (UTC epoch milliseconds)."""
    return datetime.fromtimestamp(at / 1000, zone(tz_name)).date()
