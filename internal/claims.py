"""SQL for which job is next: what a free worker of a lane takes, and in which order.

Started work first, then new studies: urgent before normal before backlog, the newest first, and nobody gets a second
turn before everybody has had one, so that small studies are not stuck behind a large one. Jobs in the waiting room,
which only look whether their order has come, are asked for on their own. One study is worked on once at a time at a
destination, whatever node asks: its accessions share one ImagingStudy. Called by `jobs`; imports items and store.
Changes when a lane is to take its jobs in another order.
"""
# ruff: noqa: S608 - SQL is composed of our own column lists and placeholders only; every value is bound

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum

from internal.items import facts_of
from internal.model import Job
from internal.rows import json_object
from internal.states import Event, State, next_state
from internal.store import Row, Tx

#: Priorities, most urgent first. Each is asked for on its own, so that one index range answers it.
PRIORITIES = (URGENT, NORMAL, BACKLOG) = (0, 1, 2)

JOB_COLUMNS = ("job_id, kind, destination, environment, study_uid, part, state, reason_code, reason, attempts, due_at,"
               " revision, done_revision, settled_revision, lease, lease_until, created_at, updated_at, waiting_since,"
               " detail, accession, rules")


class Poll(StrEnum):
    """Which job of the waiting room may be taken: none, the newest study's, or the one that is due for longest."""

    NONE = "none"
    NEWEST = "newest"
    LONGEST = "longest"


_AGAIN = ("state IN ('deferred', 'waiting') AND polling = 0", "due_at, job_id")
_FRESH = ("state = 'queued'", "turns, opened_at DESC, job_id DESC")
_POLLING = "state = 'waiting' AND polling = 1"
# Another accession of the study, or its taking back, is under way at this destination.
_BUSY = ("EXISTS (SELECT 1 FROM job o WHERE o.study_uid = job.study_uid AND o.study_uid <> ''"
         " AND o.destination = job.destination AND o.state = 'active')")
_POLLS = {Poll.NEWEST: "opened_at DESC, job_id DESC", Poll.LONGEST: "due_at, job_id"}


def job_from(tx: Tx, row: Row) -> Job:
    """Return the job of a row of `JOB_COLUMNS`, with the facts of its environment."""
    values = dict(zip(JOB_COLUMNS.split(", "), row, strict=True))
    values["state"] = State(values["state"])
    values["detail"] = json_object(values["detail"])
    return Job(**values, facts=facts_of(tx, values["job_id"], values["environment"]))


def is_any_active(tx: Tx) -> bool:
    """Return whether a worker of any lane has a job in hand."""
    return tx.row("SELECT 1 FROM job WHERE state = 'active' LIMIT 1") is not None


def claim_sql(tx: Tx) -> list[str]:
    """Return the statements that pick the next job of a priority, in order: destination, environment, priority, now,
    node."""
    return [f"SELECT job_id, state, study_uid FROM job WHERE destination = ? AND environment = ? AND {which}"
            f" AND priority = ? AND due_at <= ? AND (node = '' OR node = ?) AND NOT {_BUSY} ORDER BY {order}"
            f" LIMIT 1{tx.skip_locked}"
            for which, order in (_AGAIN, _FRESH)]


def poll_sql(tx: Tx, poll: Poll) -> str:
    """Return the statement that picks the next job of the waiting room: destination, environment, now, node."""
    due = "due_at" if poll is Poll.LONGEST else "+due_at"  # the plus keeps the other index out
    return (f"SELECT job_id, state, study_uid FROM job WHERE destination = ? AND environment = ? AND {_POLLING}"
            f" AND {due} <= ? AND (node = '' OR node = ?) AND NOT {_BUSY} ORDER BY {_POLLS[poll]}"
            f" LIMIT 1{tx.skip_locked}")


def is_due(
    tx: Tx, *, destination: str, environment: str, now: int, priorities: Sequence[int] = PRIORITIES, poll: bool = True,
) -> bool:
    """Return whether `claim` could find something; reads only, so that idle workers never take the write lock."""
    where = "SELECT 1 FROM job WHERE destination = ? AND environment = ?"
    if poll and tx.row(f"{where} AND {_POLLING} AND due_at <= ? AND NOT {_BUSY} LIMIT 1",
                       (destination, environment, now)):
        return True
    return any(tx.row(f"{where} AND {which} AND priority = ? AND due_at <= ? AND NOT {_BUSY} LIMIT 1",
                      (destination, environment, priority, now))
               for priority in priorities for which, _ in (_AGAIN, _FRESH))


def claim(
    tx: Tx, *, destination: str, environment: str, node: str, now: int, lease_ms: int,
    priorities: Sequence[int] = PRIORITIES, poll: Poll = Poll.NEWEST,
) -> Job | None:
    """Take the next job of these `priorities` whose bytes `node` can reach, None if nothing is due.

    `poll`: a job of the waiting room comes first where the lane may ask now. The job's `revision` becomes the settled
    revision it was planned with. `lease_until` of the returned job is `now + lease_ms`, in the caller's clock; the row
    holds the server's where nodes share a PostgreSQL.
    """
    found = None
    if poll is not Poll.NONE:
        found = tx.row(poll_sql(tx, poll), (destination, environment, now, node))
    for priority in () if found else priorities:
        for sql in claim_sql(tx):
            found = found or tx.row(sql, (destination, environment, priority, now, node))
        if found:
            break
    if not found:
        return None
    job_id, state, study_uid = found
    if _is_taken(tx, study_uid, destination):
        return None
    row = tx.row(
        "UPDATE job SET state = ?, lease = ?, lease_until = ?, leased_by = ?, revision = settled_revision,"
        f" updated_at = ? WHERE job_id = ? RETURNING {JOB_COLUMNS}",
        (str(next_state(State(state), Event.CLAIM)), secrets.token_hex(8), tx.clock_ms(now) + lease_ms, node,
         now, job_id))
    assert row is not None  # RETURNING of the row just read
    return replace(job_from(tx, row), lease_until=now + lease_ms)


def _is_taken(tx: Tx, study_uid: str, destination: str) -> bool:
    """Lock the study's row and look again whether somebody works on it: two nodes can pick two of its accessions.

    Never waits for the lock, since a job's row is locked already and others lock in the opposite order.
    """
    if not study_uid:
        return False
    return (tx.row(f"SELECT 1 FROM study WHERE study_uid = ?{tx.skip_locked}", (study_uid,)) is None
            or tx.row("SELECT 1 FROM job WHERE study_uid = ? AND destination = ? AND state = 'active'",
                      (study_uid, destination)) is not None)


def set_priority(tx: Tx, job_ids: Sequence[int], priority: int, now: int) -> None:
    """Let a person move jobs ahead or back. Raises ValueError for a priority that does not exist."""
    if priority not in PRIORITIES:
        raise ValueError(f"no priority {priority}")
    tx.executemany("UPDATE job SET priority = ?, updated_at = ? WHERE job_id = ?",
                   [(priority, now, job_id) for job_id in job_ids])
