"""SQL for what is wrong right now: silent devices, studies that wait too long, lanes that are down, a disk that fills.

Read by `watcher`, which decides what becomes of it. Layer 3, imports alerts, lanes, set_aside, usual_hours and store.
Changes when something else can be wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo

from internal.alerts import Condition, Finding
from internal.lanes import BREAKER, lanes
from internal.set_aside import count_open
from internal.store import Tx
from internal.usual_hours import HOUR_MS, MAX_HOURS, silent_hours, usual_slots

DAY_MS = 86_400_000
_DISK_DAYS = 7
_DISK_MIN_MS = 6 * HOUR_MS
_MAX_ROWS = 200_000
_CREDENTIALS = frozenset({"credentials-refused", "no-api-product"})


@dataclass(frozen=True, slots=True)
class Limits:
    """From when on something counts as wrong; milliseconds unless named otherwise. `devices` empty: every one."""

    devices: frozenset[str] = frozenset()
    silent_hours: int = 4
    waiting_ms: int = DAY_MS
    lane_down_ms: int = 15 * 60_000
    disk_days: int = 7
    clock_off_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Vitals:
    """What only the running process knows: room on the disk in bytes, and how far the clock is off by destination."""

    node: str
    free_bytes: int
    min_free_bytes: int
    zone: tzinfo = UTC
    clock_offsets_s: Mapping[str, int] = field(default_factory=dict)


def find(tx: Tx, condition: Condition, limits: Limits, vitals: Vitals, now: int) -> list[Finding]:
    """Return what is wrong in one respect."""
    return _FINDERS[condition](tx, limits, vitals, now)


def _silent_devices(tx: Tx, limits: Limits, vitals: Vitals, now: int) -> list[Finding]:
    now_hour = now // HOUR_MS
    hours: dict[str, set[int]] = {}
    for aet, at in tx.rows("SELECT DISTINCT calling_aet, hour_at FROM tally WHERE hour_at >= ? AND calling_aet <> ''"
                           " LIMIT ?", ((now_hour - MAX_HOURS) * HOUR_MS, _MAX_ROWS)):
        if not limits.devices or aet in limits.devices:
            hours.setdefault(aet, set()).add(at // HOUR_MS)
    found = []
    for aet, seen in sorted(hours.items()):
        last = max(seen)
        silent = silent_hours(usual_slots(seen, vitals.zone), last, now_hour, vitals.zone)
        if silent >= limits.silent_hours:
            found.append(Finding(Condition.DEVICE_SILENT, aet, {"hours": silent, "last_at": (last + 1) * HOUR_MS}))
    return found


def _waiting(tx: Tx, limits: Limits, vitals: Vitals, now: int) -> list[Finding]:
    del vitals
    row = tx.row("SELECT COUNT(*), MIN(waiting_since) FROM job WHERE state = 'waiting' AND kind = 'deliver'"
                 " AND waiting_since < ?", (now - limits.waiting_ms,))
    return [Finding(Condition.WAITING, "", {"studies": row[0], "since": row[1]})] if row and row[0] else []


def _lanes_down(tx: Tx, limits: Limits, vitals: Vitals, now: int) -> list[Finding]:
    del vitals
    return [Finding(Condition.LANE_DOWN, one.name, {"since": one.down_since, "reason_code": one.reason_code})
            for one in lanes(tx) if one.down_since and now - one.down_since >= limits.lane_down_ms
            and one.reason_code not in _CREDENTIALS]


def _credentials(tx: Tx, limits: Limits, vitals: Vitals, now: int) -> list[Finding]:
    del limits, vitals, now
    return [Finding(Condition.CREDENTIALS, one.name, {"since": one.down_since, "reason_code": one.reason_code})
            for one in lanes(tx) if one.down_since and one.paused_by == BREAKER and one.reason_code in _CREDENTIALS]


def _disk(tx: Tx, limits: Limits, vitals: Vitals, now: int) -> list[Finding]:
    days = days_left(tx, vitals, now)
    if days is None or days >= limits.disk_days:
        return []
    return [Finding(Condition.DISK, "", {"days": days, "free_gb": round(vitals.free_bytes / 1e9)})]


def _clock(tx: Tx, limits: Limits, vitals: Vitals, now: int) -> list[Finding]:
    del tx, now
    return [Finding(Condition.CLOCK, name, {"seconds": seconds})
            for name, seconds in sorted(vitals.clock_offsets_s.items()) if abs(seconds) > limits.clock_off_s]


def _set_aside(tx: Tx, limits: Limits, vitals: Vitals, now: int) -> list[Finding]:
    del limits, vitals
    files, first_at = count_open(tx, now - DAY_MS)
    return [Finding(Condition.SET_ASIDE, "", {"files": files, "since": first_at})] if files else []


_FINDERS: Mapping[Condition, Callable[[Tx, Limits, Vitals, int], list[Finding]]] = {
    Condition.DEVICE_SILENT: _silent_devices, Condition.WAITING: _waiting, Condition.LANE_DOWN: _lanes_down,
    Condition.DISK: _disk, Condition.CREDENTIALS: _credentials, Condition.CLOCK: _clock,
    Condition.SET_ASIDE: _set_aside,
}


# --- the disk ------------------------------------------------------------------------------------------------------

def sample_disk(tx: Tx, vitals: Vitals, now: int) -> None:
    """Note the free space of this hour; samples older than a week go."""
    tx.execute("INSERT INTO disk_sample (node, hour_at, free_bytes) VALUES (?, ?, ?) ON CONFLICT (node, hour_at)"
               " DO NOTHING", (vitals.node, now - now % HOUR_MS, vitals.free_bytes))
    tx.execute("DELETE FROM disk_sample WHERE node = ? AND hour_at < ?", (vitals.node, now - (_DISK_DAYS + 1) * DAY_MS))


def is_sampled(tx: Tx, node: str, now: int) -> bool:
    """Return whether this hour's free space is noted already."""
    return tx.row("SELECT 1 FROM disk_sample WHERE node = ? AND hour_at = ?", (node, now - now % HOUR_MS)) is not None


def days_left(tx: Tx, vitals: Vitals, now: int) -> int | None:
    """Return in how many days images will be refused if the disk fills as it did, None if it does not or is not known.

    By how the free space changed over the last 7 days, whatever filled or freed it; 0 when it is full now.
    """
    room = vitals.free_bytes - vitals.min_free_bytes
    if room <= 0:
        return 0
    row = tx.row("SELECT hour_at, free_bytes FROM disk_sample WHERE node = ? AND hour_at >= ? ORDER BY hour_at LIMIT 1",
                 (vitals.node, now - _DISK_DAYS * DAY_MS))
    if row is None or now - row[0] < _DISK_MIN_MS or row[1] <= vitals.free_bytes:
        return None
    days = room * (now - row[0]) // ((row[1] - vitals.free_bytes) * DAY_MS)
    return int(min(days, 36_500))
