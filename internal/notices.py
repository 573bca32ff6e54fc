"""SQL for the outbox: what others are to be told about a delivery, as jobs of kind "notify" in the same machine.

A delivery that reaches a state worth telling counts one up in `job.news`; `plan` compares that with `job.told` and is
repeated, so that no news is lost with a process. Layer 3, called by the deliver role. Changes when somebody else has
to be told, or of something else.
"""
# ruff: noqa: S608 - only the lock's fragment is composed; every value is bound

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from internal import index, jobs
from internal.events import add_event
from internal.items import facts_of
from internal.rows import json_text
from internal.states import Event, State, can, next_state
from internal.store import Row, Tx

KIND = "notify"
#: One outbox whatever its address: a changed URL gets what the old one did not take.
ENVIRONMENT = "webhook"
_TOLD = frozenset({State.DONE, State.HELD, State.WAITING})


@dataclass(frozen=True, slots=True)
class News:
    """A delivery with something to tell: where it stands now, and up to which count this tells it."""

    job_id: int
    study_uid: str
    part: str
    environment: str
    state: State
    reason_code: str
    facts: Mapping[str, Any]
    news: int
    accession_number: str


def pending(tx: Tx, limit: int = 50) -> list[News]:
    """Return jobs of every kind whose news has not been handed over, by index; deliveries are told, others ticked off.

    Reads only: an idle outbox never takes the write lock.
    """
    return [_news(tx, row) for row in tx.rows(
        "SELECT job_id, study_uid, part, environment, state, reason_code, news, accession FROM job WHERE news > told"
        " ORDER BY job_id LIMIT ?", (limit,))]


def plan(tx: Tx, news: News, *, of: str, to: str | None, now: int) -> int | None:
    """Hand one piece of news to the outbox `to` (None: nobody listens) and tick it off; return the notify job, if any.

    Only deliveries to `of` are told, and only in a state that lasts. Several pieces that were not taken yet become one:
    the newest state counts.
    """
    tx.execute("UPDATE job SET told = ? WHERE job_id = ? AND told < ?", (news.news, news.job_id, news.news))
    row = tx.row("SELECT kind, destination FROM job WHERE job_id = ?", (news.job_id,))
    if to is None or row is None or row[0] != "deliver" or row[1] != of or news.state not in _TOLD:
        return None
    facts = {name: news.facts[name] for name in ("imaging_study_id", "service_request_id", "patient_id")
             if name in news.facts}
    body = {"state": str(news.state), "reason_code": news.reason_code, "environment": news.environment,
            "accession_number": news.accession_number, **facts}
    return hand_over(tx, kind=KIND, to=to, environment=ENVIRONMENT, study_uid=news.study_uid, part=news.part,
                     facts=body, now=now)


def plan_sidecar(tx: Tx, news: News, *, of: str, to: str, environment: str, now: int) -> int | None:
    """Plan copies of a finished delivery to `of` for the lane `to`; return the job, None where there is nothing to do.

    Call it in the transaction of `plan`. A late image adds to the same job.
    """
    row = tx.row("SELECT kind, destination FROM job WHERE job_id = ?", (news.job_id,))
    if row is None or tuple(row) != ("deliver", of) or news.state is not State.DONE:
        return None
    held = index.inventory(tx, news.study_uid, news.part)
    job_id = jobs.plan(
        tx, kind=to, destination=to, environment=environment, study_uid=news.study_uid, part=news.part,
        instances=held.instances, settled_revision=held.revision, now=now, due_at=now, priority=jobs.BACKLOG).job_id
    facts = {"patient_id": news.facts.get("patient_id", ""), "accession_number": news.accession_number}
    tx.execute("INSERT INTO job_facts (job_id, environment, facts) VALUES (?, ?, ?)"
               " ON CONFLICT (job_id, environment) DO UPDATE SET facts = excluded.facts",
               (job_id, environment, json_text(facts)))
    return job_id


def hand_over(
    tx: Tx, *, kind: str, to: str, environment: str, study_uid: str, part: str, facts: Mapping[str, Any], now: int,
) -> int:
    """Have `facts` told on the lane `to` by the one job of (kind, to, study, part); return it.

    What was not told yet is replaced: the newest counts. `reopen_behind` looks after what came during a step.
    """
    job_id = _open(tx, (kind, to, study_uid, part), environment, now)
    tx.execute("INSERT INTO job_facts (job_id, environment, facts) VALUES (?, ?, ?)"
               " ON CONFLICT (job_id, environment) DO UPDATE SET facts = excluded.facts",
               (job_id, environment, json_text(facts)))
    return job_id


def _open(tx: Tx, key: tuple[str, str, str, str], environment: str, now: int) -> int:
    """Create the job of (kind, destination, study, part), or give it one revision more and reopen it where done."""
    row = tx.row("SELECT job_id, state FROM job WHERE kind = ? AND destination = ? AND study_uid = ? AND part = ?"
                 f"{tx.for_update}", key)
    if row is None:
        return int(tx.value(
            "INSERT INTO job (kind, destination, study_uid, part, environment, state, due_at, settled_revision,"
            " created_at, updated_at, opened_at) VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?) RETURNING job_id",
            (*key, environment, str(State.QUEUED), now, now, now, now)))
    job_id, state = int(row[0]), State(row[1])
    tx.execute("UPDATE job SET settled_revision = settled_revision + 1 WHERE job_id = ?", (job_id,))
    _reopen(tx, job_id, state, now)
    return job_id


def reopen_behind(tx: Tx, to: str, now: int, *, kind: str = KIND) -> int:
    """Reopen jobs of the lane `to` that finished with an older state than the newest; return how many."""
    rows = tx.rows("SELECT job_id FROM job WHERE state = 'done' AND done_revision < settled_revision AND kind = ?"
                   " AND destination = ?", (kind, to))
    for (job_id,) in rows:
        _reopen(tx, job_id, State.DONE, now)
    return len(rows)


def _reopen(tx: Tx, job_id: int, state: State, now: int) -> None:
    if can(state, Event.REOPEN):
        tx.execute("UPDATE job SET state = ?, due_at = ?, opened_at = ?, updated_at = ?, attempts = 0 WHERE job_id = ?",
                   (str(next_state(state, Event.REOPEN)), now, now, now, job_id))


def escalate(tx: Tx, older_than_ms: int, now: int) -> list[int]:
    """Raise the alarm once for each delivery that has been waiting for longer than this; return their jobs.

    Written as an event and as news for the outbox; nothing else changes, the job keeps looking.
    """
    rows = tx.rows("SELECT job_id, study_uid, reason_code, waiting_since FROM job WHERE state = 'waiting'"
                   " AND escalated_at IS NULL AND kind = 'deliver' AND waiting_since < ? ORDER BY job_id LIMIT 500",
                   (now - older_than_ms,))
    for job_id, study_uid, reason_code, since in rows:
        tx.execute("UPDATE job SET escalated_at = ?, news = news + 1 WHERE job_id = ?", (now, job_id))
        hours = (now - since) // 3_600_000
        add_event(tx, now, "escalated", f"waiting for {hours} hours: a person should look", study_uid=study_uid,
                  job_id=job_id, fields={"reason_code": reason_code})
    return [row[0] for row in rows]


def _news(tx: Tx, row: Row) -> News:
    return News(row[0], row[1], row[2], row[3], State(row[4]), row[5], facts_of(tx, row[0], row[3]), row[6],
                row[7] or row[2])
