"""SQL for alerts: what is wrong by which rule, since when, who has been told and who knows of it.

Written by `watcher` (raise, clear) and by people (acknowledge); telling is a job of kind "alert" in the same machine,
handed over in the transaction that decides it. Layer 3, imports notices, events, rows and store.
Changes when an alert has to remember something else.
"""
# ruff: noqa: S608 - SQL is composed of our own column lists only; every value is bound

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from internal.errors import NotFound
from internal.events import add_event
from internal.notices import hand_over
from internal.rows import json_object, json_text
from internal.store import Row, Tx

#: Kind, lane and environment of the jobs that tell people.
KIND = "alert"
LANE = "alerts"

_COLUMNS = ("alert_id, rule, condition, subject, detail, raised_at, told_at, acknowledged_at, acknowledged_by,"
            " cleared_at")


class Condition(StrEnum):
    """What can be wrong."""

    DEVICE_SILENT = "device-silent"
    WAITING = "waiting"
    LANE_DOWN = "lane-down"
    DISK = "disk"
    CREDENTIALS = "credentials"
    CLOCK = "clock"
    SET_ASIDE = "set-aside"


class News(StrEnum):
    """What people are told of an alert."""

    RAISED = "raised"
    AGAIN = "again"
    CLEARED = "cleared"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong right now; `detail` holds numbers and moments (JSON), never patient data."""

    condition: Condition
    subject: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Alert:
    """A row of `alert`; times in epoch ms. `cleared_at` None: it goes on."""

    alert_id: int
    rule: str
    condition: Condition
    subject: str
    detail: Mapping[str, Any]
    raised_at: int
    told_at: int | None
    acknowledged_at: int | None
    acknowledged_by: str
    cleared_at: int | None


def open_alerts(tx: Tx) -> list[Alert]:
    """Return what is wrong now, the oldest first."""
    return [_alert(row) for row in tx.rows(
        f"SELECT {_COLUMNS} FROM alert WHERE cleared_at IS NULL ORDER BY raised_at, alert_id")]


def past_alerts(tx: Tx, limit: int, before: int | None = None, *, open_only: bool = False) -> list[Alert]:
    """Return alerts, open and cleared, the newest first; `before` (an alert id) goes on where the last page ended."""
    only = " AND cleared_at IS NULL" if open_only else ""
    return [_alert(row) for row in tx.rows(
        f"SELECT {_COLUMNS} FROM alert WHERE alert_id < ?{only} ORDER BY alert_id DESC LIMIT ?",
        (before if before is not None else 1 << 62, limit))]


def alert(tx: Tx, alert_id: int) -> Alert:
    """Return one alert. Raises NotFound."""
    row = tx.row(f"SELECT {_COLUMNS} FROM alert WHERE alert_id = ?", (alert_id,))
    if row is None:
        raise NotFound(f"no alert {alert_id}")
    return _alert(row)


def raise_alert(tx: Tx, rule: str, finding: Finding, *, quiet_ms: int, channels: Sequence[str], now: int) -> int:
    """Note something that is newly wrong and have it told over `channels`; return the alert's id.

    Nobody is told again of what comes back within `quiet_ms` of the last word about it: `remind` does that later.
    """
    key = (rule, str(finding.condition), finding.subject)
    last_told = tx.value("SELECT MAX(told_at) FROM alert WHERE rule = ? AND condition = ? AND subject = ?", key)
    quiet = last_told is not None and now - last_told < quiet_ms
    alert_id = int(tx.value(
        "INSERT INTO alert (rule, condition, subject, detail, raised_at) VALUES (?, ?, ?, ?, ?) RETURNING alert_id",
        (*key, json_text(finding.detail), now)))
    add_event(tx, now, "alert-raised", f"{finding.condition} {finding.subject}".strip(),
              fields={"rule": rule, "condition": str(finding.condition), "subject": finding.subject})
    if not quiet:
        _tell(tx, alert(tx, alert_id), News.RAISED, channels, now)
    return alert_id


def keep(tx: Tx, one: Alert, detail: Mapping[str, Any]) -> None:
    """Write down the newest figures of an alert that goes on."""
    tx.execute("UPDATE alert SET detail = ? WHERE alert_id = ? AND cleared_at IS NULL", (json_text(detail),
                                                                                         one.alert_id))


def remind(tx: Tx, one: Alert, *, repeat_ms: int, channels: Sequence[str], now: int) -> bool:
    """Tell again of an alert that goes on once `repeat_ms` have passed, unless somebody knows of it; True if told."""
    last = tx.value("SELECT MAX(told_at) FROM alert WHERE rule = ? AND condition = ? AND subject = ?",
                    (one.rule, str(one.condition), one.subject))
    if one.acknowledged_at is not None or (last is not None and now - last < repeat_ms):
        return False
    _tell(tx, alert(tx, one.alert_id), News.RAISED if one.told_at is None else News.AGAIN, channels, now)
    return True


def clear(tx: Tx, one: Alert, *, channels: Sequence[str], now: int) -> None:
    """Note that it is over; whoever was told is told so."""
    if tx.execute("UPDATE alert SET cleared_at = ? WHERE alert_id = ? AND cleared_at IS NULL",
                  (now, one.alert_id)) != 1:
        return
    add_event(tx, now, "alert-cleared", f"{one.condition} {one.subject}".strip(),
              fields={"rule": one.rule, "condition": str(one.condition), "subject": one.subject})
    if one.told_at is not None:
        _tell(tx, alert(tx, one.alert_id), News.CLEARED, channels, now)


def acknowledge(tx: Tx, alert_id: int, *, who: str, now: int) -> Alert:
    """Note that a person knows: no further reminders until it is over. Raises NotFound for none and for a past one."""
    changed = tx.execute("UPDATE alert SET acknowledged_at = ?, acknowledged_by = ? WHERE alert_id = ?"
                         " AND cleared_at IS NULL AND acknowledged_at IS NULL", (now, who, alert_id))
    one = alert(tx, alert_id)
    if one.cleared_at is not None:
        raise NotFound(f"alert {alert_id} is over")
    if changed:
        add_event(tx, now, "alert-acknowledged", f"{one.condition} {one.subject}".strip(), who=who,
                  fields={"rule": one.rule, "condition": str(one.condition), "subject": one.subject})
    return one


def _tell(tx: Tx, one: Alert, news: News, channels: Sequence[str], now: int) -> None:
    tx.execute("UPDATE alert SET told_at = ? WHERE alert_id = ?", (now, one.alert_id))
    for channel in channels:
        facts = {"rule": one.rule, "channel": channel, "news": str(news), "condition": str(one.condition),
                 "subject": one.subject, "detail": dict(one.detail), "raised_at": one.raised_at,
                 "cleared_at": one.cleared_at, "alert_id": one.alert_id}
        hand_over(tx, kind=KIND, to=LANE, environment=LANE, study_uid="", part=f"{one.alert_id}:{channel}",
                  facts=facts, now=now)


def _alert(row: Row) -> Alert:
    return Alert(row[0], row[1], Condition(row[2]), row[3], json_object(row[4]), *row[5:])
