"""When a device usually works, learned from the hours in which it brought images; pure.

Layer 1. A room that is closed at night and on Sundays is not silent then. Changes when "usual" means something else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime, tzinfo

HOUR_MS = 3_600_000
#: How far back is looked, and how many weeks a device has to be known before anything is usual.
WEEKS = 8
MIN_WEEKS = 2
_WEEK_HOURS = 168
#: Silence is counted up to this many hours of the clock: more says nothing new.
MAX_HOURS = 24 * 7 * 2 * WEEKS


def usual_slots(hours: Collection[int], zone: tzinfo) -> frozenset[int]:
    """Return the hours of the week (0 is Monday 00:00 in `zone`) in which a device worked in half of its weeks or more.

    `hours`: each hour (epoch ms // HOUR_MS) in which it brought something; the WEEKS weeks before the newest count.
    Nothing is usual for a device that is known for less than MIN_WEEKS weeks.
    """
    if not hours:
        return frozenset()
    newest = max(hours)
    counted = [hour for hour in hours if newest - hour < WEEKS * _WEEK_HOURS]
    weeks = (newest - min(counted)) // _WEEK_HOURS + 1
    if newest - min(counted) < MIN_WEEKS * _WEEK_HOURS - 1:
        return frozenset()
    seen = Counter(_slot(hour, zone) for hour in counted)
    return frozenset(slot for slot, times in seen.items() if times * 2 >= weeks)


def silent_hours(slots: Collection[int], last_hour: int, now_hour: int, zone: tzinfo) -> int:
    """Return how many usual hours have gone by since `last_hour` without it, neither that one nor the running one."""
    passed = range(last_hour + 1, min(now_hour, last_hour + MAX_HOURS))
    return sum(_slot(hour, zone) in slots for hour in passed) if slots else 0


def _slot(hour: int, zone: tzinfo) -> int:
    at = datetime.fromtimestamp(hour * HOUR_MS / 1000, UTC).astimezone(zone)
    return at.weekday() * 24 + at.hour
