"""What people set for a lane while the router runs: paused or not, how much bandwidth, at which hours.

Rows of the catalogue (kind ``lane``) are the truth; the brake of the lane's own row follows in the same transaction,
bandwidth and hours are taken up by the deliver role. Layer 3, over catalogue, lanes and events. Changes when people
may set something else for a lane.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC
from typing import Any

from internal import catalogue, events, lanes
from internal.hours import parse_hours
from internal.store import Tx

KIND = "lane"
#: A person's pause ends by a person's word.
FOR_EVER_MS = 100 * 365 * 86_400_000
BY_PERSON = "person"
MIN_BANDWIDTH = 16 * 1024
MAX_BANDWIDTH = 100 * 1024**3
_MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class LaneSettings:
    """None means as the file says: `bandwidth` in bytes per second (0: no limit), `send_hours` ``HH:MM-HH:MM``."""

    paused: bool = False
    reason: str = ""
    bandwidth: int | None = None
    send_hours: str | None = None


def parse(body: Mapping[str, Any] | None) -> LaneSettings:
    """Return the settings that `body` states; None and missing keys mean the defaults. Raises ValueError."""
    body = dict(body or {})
    unknown = body.keys() - {"paused", "reason", "bandwidth", "send_hours"}
    if unknown:
        raise ValueError(f"a lane has no setting {', '.join(sorted(unknown))}")
    settings = LaneSettings(**body)
    if not isinstance(settings.paused, bool) or not isinstance(settings.reason, str) \
            or len(settings.reason) > _MAX_REASON:
        raise ValueError("paused is true or false, reason a short text")
    if settings.bandwidth is not None and (
            not isinstance(settings.bandwidth, int) or isinstance(settings.bandwidth, bool)
            or not (settings.bandwidth == 0 or MIN_BANDWIDTH <= settings.bandwidth <= MAX_BANDWIDTH)):
        raise ValueError("bandwidth is a number of bytes per second, at least 16384, or 0 for no limit")
    if settings.send_hours is not None:
        if not isinstance(settings.send_hours, str):
            raise ValueError("hours are written as HH:MM-HH:MM")
        parse_hours(settings.send_hours, UTC)
    return settings


def in_force(tx: Tx, name: str) -> LaneSettings:
    """Return what people have set for a lane."""
    found = catalogue.newest(tx, KIND, name)
    return parse(found.body if found else None)


def changed(tx: Tx, name: str, **changes: Any) -> dict[str, Any] | None:
    """Return the body that a lane's row would have with `changes`, for `put`."""
    return _body(replace(in_force(tx, name), **changes))


def change(tx: Tx, name: str, *, who: str, now: int, **changes: Any) -> None:
    """Set some of a lane's settings and keep the others; workers notice within seconds. Raises ValueError."""
    put(tx, name, changed(tx, name, **changes), who=who, now=now)


def _body(settings: LaneSettings) -> dict[str, Any] | None:
    """Return what differs from the defaults; None when nothing does."""
    stated = {key: value for key, value in asdict(settings).items() if value is not None and value is not False}
    if not stated["reason"]:
        del stated["reason"]
    return stated or None


def put(
    tx: Tx, name: str, body: Mapping[str, Any] | None, *, who: str, now: int, restores: int | None = None,
) -> int:
    """Set all of a lane's settings at once and return the revision. Raises ValueError."""
    before, settings = in_force(tx, name), parse(body)
    revision = catalogue.record(tx, KIND, name, _body(settings), author=who, now=now, restores=restores)
    if settings.paused:
        reason = settings.reason or "paused by a person"
        lanes.pause_lane(tx, name, now + FOR_EVER_MS, "paused", reason, now, by=BY_PERSON)
        if (before.paused, before.reason) != (True, settings.reason):
            events.add_event(tx, now, "lane-paused", f"{name}: {reason}", fields={"lane": name}, who=who)
    elif before.paused:
        _open(tx, name, who=who, now=now)
    if (before.bandwidth, before.send_hours) != (settings.bandwidth, settings.send_hours):
        events.add_event(tx, now, "lane-changed", f"{name}: bandwidth or hours changed", who=who, fields={
            "lane": name, "bandwidth": settings.bandwidth, "send_hours": settings.send_hours})
    return revision


def resume(tx: Tx, name: str, *, who: str, now: int) -> None:
    """Open a lane, whoever paused it, and take its alert down."""
    if in_force(tx, name).paused:
        change(tx, name, who=who, now=now, paused=False, reason="")
    else:
        _open(tx, name, who=who, now=now)


def _open(tx: Tx, name: str, *, who: str, now: int) -> None:
    lanes.resume_lane(tx, name, now, by=BY_PERSON)
    lanes.clear_alert(tx, name, now)
    events.add_event(tx, now, "lane-resumed", f"{name} resumed", fields={"lane": name}, who=who)
