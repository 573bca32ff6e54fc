"""SQL for the timeline: what happened, for people. No code decides by reading it.

Written by `jobs`, `items` and their callers; read by `show`, the API and feeds. Imports rows and store.
Changes when people have to be told something else, or a feed has to be read in another way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from internal.rows import json_object, json_text, row_number
from internal.store import Row, Tx

#: The cursor of `events_after` that lies before every event.
START = "0-0"

_COLUMNS = "event_id, at, study_uid, job_id, code, text, fields, who"


@dataclass(frozen=True, slots=True)
class EventRow:
    """One line of the timeline; `at` in epoch ms, `who` "" when the router itself did it."""

    event_id: int
    at: int
    study_uid: str
    job_id: int | None
    code: str
    text: str
    fields: Mapping[str, Any]
    who: str


def add_event(
    tx: Tx, at: int, code: str, text: str, *, study_uid: str = "", job_id: int | None = None,
    fields: Mapping[str, Any] | None = None, who: str = "",
) -> None:
    """Add one line; `code` is a short machine name, `text` a sentence without patient data."""
    tx.execute("INSERT INTO event (at, study_uid, job_id, code, text, fields, who) VALUES (?, ?, ?, ?, ?, ?, ?)",
               (at, study_uid, job_id, code, text, json_text(fields or {}), who))


def events_of(tx: Tx, study_uid: str, after: int = 0, limit: int = 10_000) -> list[EventRow]:
    """Return the timeline of a study in the order it was written, only events whose id is beyond `after`."""
    return [_event(row) for row in tx.rows(
        f"SELECT {_COLUMNS} FROM event WHERE study_uid = ? AND event_id > ? ORDER BY event_id LIMIT ?",  # noqa: S608
        (study_uid, after, limit))]


def events_after(tx: Tx, cursor: str = START, limit: int = 1000) -> tuple[list[EventRow], str]:
    """Return events after `cursor` and the next cursor: each event exactly once, however commits interleave.

    A bare ``event_id > last`` misses rows on PostgreSQL, where ids are given out before the commit. This reads only
    what was written by transactions before the oldest one still running, in the order of transactions. A long writing
    transaction delays the feed, it never makes it lose anything. Raises ValueError for a cursor that is none.
    """
    xact, _, event_id = cursor.partition("-")
    last = (row_number(xact), row_number(event_id))
    rows = tx.rows(
        f"SELECT {_COLUMNS}, xact FROM event WHERE (xact, event_id) > (?, ?) AND {tx.ended_transactions}"  # noqa: S608
        " ORDER BY xact, event_id LIMIT ?", (*last, limit))
    if rows:
        last = (rows[-1][-1], rows[-1][0])
    return [_event(row) for row in rows], f"{last[0]}-{last[1]}"


def newest_cursor(tx: Tx) -> str:
    """Return the cursor behind which `events_after` finds what is written from now on."""
    row = tx.row(f"SELECT xact, event_id FROM event WHERE {tx.ended_transactions}"  # noqa: S608
                 " ORDER BY xact DESC, event_id DESC LIMIT 1")
    return f"{row[0]}-{row[1]}" if row else START


def _event(row: Row) -> EventRow:
    return EventRow(event_id=row[0], at=row[1], study_uid=row[2], job_id=row[3], code=row[4], text=row[5],
                    fields=json_object(row[6]), who=row[7])
