"""What is usual for a device, and how long it has been silent by its own clock."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from internal.usual_hours import HOUR_MS, MAX_HOURS, silent_hours, usual_slots

WIB = ZoneInfo("Asia/Jakarta")
WEEK = 168
MONDAY = 1_767_546_000_000 // HOUR_MS  # 2026-01-05 00:00 in Jakarta


def weeks(count: int, *slots: int) -> set[int]:
    return {MONDAY + week * WEEK + slot for week in range(count) for slot in slots}


def test_what_happens_in_most_weeks_is_usual() -> None:
    assert usual_slots(weeks(4, 8, 9, 33), WIB) == {8, 9, 33}
    assert usual_slots(weeks(4, 8) | weeks(1, 100), WIB) == {8}


def test_nothing_is_usual_for_a_new_device_or_none() -> None:
    assert usual_slots(set(), WIB) == usual_slots(weeks(2, 8), WIB) == frozenset()
    assert usual_slots(weeks(3, 8), WIB) == {8}


def test_old_habits_are_forgotten() -> None:
    recent = {hour + 20 * WEEK for hour in weeks(8, 8)}
    assert usual_slots(weeks(8, 30) | recent, WIB) == {8}


def test_silence_counts_whole_usual_hours_only() -> None:
    last = MONDAY + 9
    assert silent_hours({8, 9, 10, 11}, last, MONDAY + 11, WIB) == 1
    assert silent_hours({8, 9, 10, 11}, last, MONDAY + 12, WIB) == 2
    assert silent_hours({8, 9, 10, 11}, last, MONDAY + WEEK + 9, WIB) == 3
    assert silent_hours(set(), last, last + 1000, WIB) == 0


@given(st.sets(st.integers(0, 10**6), max_size=50), st.integers(0, 10**6), st.integers(0, 2 * 10**6))
def test_silence_never_exceeds_the_time(hours: set[int], last: int, now: int) -> None:
    slots = usual_slots(hours, WIB)
    assert 0 <= silent_hours(slots, last, now, WIB) <= min(max(0, now - last), MAX_HOURS)
