"""SQL for jobs: planned by `assemble`, claimed, settled and recovered by `worker`, moved on by people.

Where a job goes next is decided by `states.next_state` alone; only `settle` writes an outcome. Imports states, model,
rows, store and the other SQL of jobs (claims, events, items, lanes, interventions, job_list), whose
names callers find here. Changes when a job has to be found, owned or moved in another way.
"""
# ruff: noqa: S608 - SQL is composed of our own column lists and placeholders only; every value is bound

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from internal.claims import (
    BACKLOG,
    JOB_COLUMNS,
    NORMAL,
    PRIORITIES,
    URGENT,
    Poll,
    claim,
    claim_sql,
    is_due,
    job_from,
    poll_sql,
    set_priority,
)
from internal.errors import LeaseLost, NotFound
from internal.events import EventRow, add_event, events_after, events_of
from internal.interventions import (
    CALLER_NOT_ADMITTED,
    ENVIRONMENT_CHANGED,
    ENVIRONMENT_REASON,
    PARTLY_DELIVERED,
    Acted,
    accept_partial,
    act,
    admit,
    displace,
    give_up_expired,
    held_for_caller,
    hold,
    hold_for_person,
)
from internal.items import (
    add_items,
    close_intent,
    count_items,
    forget_facts,
    guard,
    items,
    items_of,
    mark_sent,
    newest_item_revision,
    open_intent,
    record_facts,
    send_again,
    settle_items,
    sibling_facts,
    take_back,
    unanswered_intent,
    unfinished_items,
)
from internal.job_list import NOT_PROVEN, JobRow, find_jobs, jobs_of, list_jobs
from internal.lanes import Lane, alert_lane, clear_alert, hurry_lane, lane, lanes, pause_lane, resume_lane, stand_in
from internal.model import FAILED, LEFT_OUT, RECEIPTED, UNPROVEN, Instance, Job
from internal.rows import json_text, node_of
from internal.set_aside import missing
from internal.states import Event, Finish, Later, More, NotYet, Outcome, Refuse, State, next_state
from internal.store import Row, Tx

__all__ = [
    "BACKLOG",
    "CALLER_NOT_ADMITTED",
    "ENDED",
    "NORMAL",
    "PRIORITIES",
    "URGENT",
    "Acted",
    "Behind",
    "EventRow",
    "JobRow",
    "Lane",
    "PlanResult",
    "Poll",
    "accept_partial",
    "act",
    "add_event",
    "admit",
    "alert_lane",
    "claim",
    "claim_sql",
    "clear_alert",
    "close_intent",
    "count_items",
    "displace",
    "events_after",
    "events_of",
    "expire_leases",
    "find_jobs",
    "find_request",
    "forget_facts",
    "give_up_expired",
    "held_for_caller",
    "hold_for_person",
    "hurry_lane",
    "is_due",
    "items",
    "items_of",
    "job",
    "jobs_behind",
    "jobs_of",
    "lane",
    "lanes",
    "list_jobs",
    "mark_sent",
    "open_intent",
    "pause_lane",
    "plan",
    "plan_request",
    "poll_sql",
    "record_facts",
    "release_leases",
    "renew",
    "resume_lane",
    "send_again",
    "set_priority",
    "settle",
    "settle_items",
    "sibling_facts",
    "stand_in",
    "take_back",
    "unanswered_intent",
    "unplanned",
]

#: States that a job leaves only by a person's word or by new work.
ENDED = frozenset({State.DONE, State.CANCELLED})

#: The kind of job that brings images to a destination.
DELIVER = "deliver"

_LOSSES_BEFORE_HOLD = 3
_UNFINISHED_RETRY_MS = 60_000


def job(tx: Tx, job_id: int) -> Job:
    """Return one job with the facts of its environment. Raises NotFound."""
    row = tx.row(f"SELECT {JOB_COLUMNS} FROM job WHERE job_id = ?", (job_id,))
    if row is None:
        raise NotFound(f"no job {job_id}")
    return job_from(tx, row)


# --- planning ------------------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class PlanResult:
    """What `plan` did: items added, and whether a finished job became unfinished again."""

    job_id: int
    new_items: int
    reopened: bool


@dataclass(frozen=True, slots=True)
class Behind:
    """A finished job whose study has settled again since."""

    job_id: int
    kind: str
    destination: str
    environment: str
    study_uid: str
    part: str
    done_revision: int
    settled_revision: int


def plan(
    tx: Tx, *, kind: str, destination: str, environment: str, study_uid: str, part: str, instances: Sequence[Instance],
    settled_revision: int, now: int, due_at: int, priority: int = NORMAL, rules: str = "",
) -> PlanResult:
    """Create the job, or add the items it lacks; call it in the transaction that settled the study.

    `instances` is everything to send, in sending order; an item that exists stays as it is. A DONE job with an item
    that is newer than its done_revision, or whose study has lost an image since, is reopened, due at `due_at`; one
    without takes over `settled_revision` and stays DONE. One HELD as partly delivered is reopened by new items: what
    can be delivered is. Other states stay. A job of another environment keeps it, and its items: a DONE one is not
    reopened by itself but HELD as 'environment-changed', until a person chooses (`act`). `rules` is the rule set that
    decided, and rewrites what leaves from now on. Locks the study row, then the job's.
    """
    _lock_study(tx, study_uid)
    row = tx.row("SELECT job_id, state, environment, node, reason_code FROM job WHERE kind = ? AND destination = ?"
                 f" AND study_uid = ? AND part = ?{tx.for_update}", (kind, destination, study_uid, part))
    if row is None:
        job_id = int(tx.value(
            "INSERT INTO job (kind, destination, environment, study_uid, part, state, priority, due_at,"
            " settled_revision, node, created_at, updated_at, opened_at, rules)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING job_id",
            (kind, destination, environment, study_uid, part, str(State.QUEUED), priority, due_at, settled_revision,
             _node(instances), now, now, now, rules)))
        added = add_items(tx, job_id, environment, instances, settled_revision)
        add_event(tx, now, "job-planned", f"{len(added)} instances to go to {destination}", study_uid=study_uid,
                  job_id=job_id, fields={"revision": settled_revision})
        return PlanResult(job_id, len(added), reopened=False)
    job_id, state, own_environment, node, reason_code = row
    added = add_items(tx, job_id, own_environment, instances, settled_revision)
    if added:
        node = _node(added) if state == State.DONE or node == _node(added) else ""
    tx.execute("UPDATE job SET node = ?, rules = ?, settled_revision = CASE WHEN settled_revision > ? THEN"
               " settled_revision ELSE ? END WHERE job_id = ?",
               (node, rules, settled_revision, settled_revision, job_id))
    if state == State.DONE:
        reopened = _is_behind(tx, job_id, own_environment, bool(added) or missing(tx, study_uid) > 0)
    else:
        reopened = state == State.HELD and reason_code == PARTLY_DELIVERED and bool(added)
    if reopened:
        _reopen(tx, job_id, State(state), now, due_at, here=own_environment == environment)
    return PlanResult(job_id, len(added), reopened)


def find_request(tx: Tx, kind: str, lane: str, part: str) -> Job | None:
    """Return the job without a study that `plan_request` made under this key, None if there is none."""
    row = tx.row(f"SELECT {JOB_COLUMNS} FROM job WHERE kind = ? AND destination = ? AND study_uid = '' AND part = ?",
                 (kind, lane, part))
    return None if row is None else job_from(tx, row)


def plan_request(
    tx: Tx, *, kind: str, lane: str, part: str, facts: Mapping[str, Any], node: str, now: int,
) -> int:
    """Create a job that belongs to no study and has no items; `facts` name the spool entry it is about ("entry").

    An equal entry again changes nothing; another entry takes its place, and a DONE job is done once more.
    """
    known = find_request(tx, kind, lane, part)
    if known is None:
        job_id = int(tx.value(
            "INSERT INTO job (kind, destination, environment, study_uid, part, state, due_at, settled_revision, node,"
            " created_at, updated_at, opened_at) VALUES (?, ?, ?, '', ?, ?, ?, 1, ?, ?, ?, ?) RETURNING job_id",
            (kind, lane, lane, part, str(State.QUEUED), now, node, now, now, now)))
    elif known.facts.get("entry") == facts["entry"]:
        return known.job_id
    else:
        job_id = known.job_id
        if known.state is State.DONE:
            _reopen(tx, job_id, known.state, now, now, here=True)
    tx.execute("INSERT INTO job_facts (job_id, environment, facts) VALUES (?, ?, ?) ON CONFLICT (job_id, environment)"
               " DO UPDATE SET facts = excluded.facts", (job_id, lane, json_text(facts)))
    return job_id


def _lock_study(tx: Tx, study_uid: str) -> None:
    tx.row(f"SELECT 1 FROM study WHERE study_uid = ?{tx.for_update}", (study_uid,))


def _node(instances: Sequence[Instance]) -> str:
    """Return the one spool that holds all of these bytes, "" if there are several or none."""
    nodes = {node_of(one.location) for one in instances}
    return nodes.pop() if len(nodes) == 1 else ""


def _is_behind(tx: Tx, job_id: int, environment: str, has_news: bool) -> bool:
    """Return whether a DONE job has work again; if not, let its done_revision catch up with its settled_revision."""
    done, settled = tx.rows("SELECT done_revision, settled_revision FROM job WHERE job_id = ?", (job_id,))[0]
    newest = newest_item_revision(tx, job_id, environment)
    if has_news or (done < settled and (newest is None or newest > done)):
        return True
    if done < settled:  # the study grew in another part, or by what the rules do not send here
        tx.execute("UPDATE job SET done_revision = settled_revision WHERE job_id = ?", (job_id,))
    return False


def _reopen(tx: Tx, job_id: int, state: State, now: int, due_at: int, *, here: bool) -> None:
    """Reopen a job; `here` False: it belongs to another environment, and is held instead of sent."""
    state = next_state(state, Event.REOPEN)
    revision, done_revision, study_uid = tx.rows(
        "UPDATE job SET state = ?, due_at = ?, opened_at = ?, updated_at = ?, attempts = 0, turns = 0,"
        " reason_code = '', reason = '' WHERE job_id = ? RETURNING settled_revision, done_revision, study_uid",
        (str(state), due_at, now, now, job_id))[0]
    add_event(tx, now, "job-reopened", "the study has changed", study_uid=study_uid, job_id=job_id,
              fields={"revision": revision, "done_revision": done_revision})
    if not here:
        hold(tx, job_id, next_state(state, Event.GIVE_UP), ENVIRONMENT_CHANGED, ENVIRONMENT_REASON, now)
        add_event(tx, now, "job-held", ENVIRONMENT_REASON, study_uid=study_uid, job_id=job_id)


def jobs_behind(tx: Tx, limit: int, *, thorough: bool = False) -> list[Behind]:
    """Return DONE jobs of studies with done_revision < settled_revision: what `assemble` plans again, at every pass.

    By default the job's own settled_revision is compared, by index: complete as long as `plan` runs in the transaction
    of `mark_settled`. `thorough` compares with the study's, a scan of all finished jobs: at start, after a restore.
    """
    source, settled = ("job j", "j.settled_revision")
    if thorough:
        source, settled = ("job j JOIN study s ON s.study_uid = j.study_uid", "s.settled_revision")
    return [Behind(*row) for row in tx.rows(
        "SELECT j.job_id, j.kind, j.destination, j.environment, j.study_uid, j.part, j.done_revision,"
        f" {settled} FROM {source} WHERE j.state = 'done' AND j.done_revision < {settled} AND j.study_uid <> ''"
        " ORDER BY j.job_id LIMIT ?",
        (limit,))]


def unplanned(tx: Tx, *, kind: str, destination: str, after: str = "", limit: int = 1000) -> list[str]:
    """Return settled studies beyond `after` (by UID) that have no job of this kind at a destination.

    For a person who sends past studies to a new destination. That the rules keep a study away looks the same.
    """
    return [uid for (uid,) in tx.rows(
        "SELECT study_uid FROM study s WHERE settled_revision > 0 AND study_uid > ? AND NOT EXISTS (SELECT 1 FROM job j"
        " WHERE j.kind = ? AND j.destination = ? AND j.study_uid = s.study_uid) ORDER BY study_uid LIMIT ?",
        (after, kind, destination, limit))]


def destinations_of(tx: Tx, study_uid: str) -> list[str]:
    """Return the destinations that have a job for a study."""
    return [name for (name,) in tx.rows("SELECT DISTINCT destination FROM job WHERE study_uid = ? AND kind = ?"
                                        " ORDER BY destination", (study_uid, DELIVER))]


# --- a worker's life with a job ------------------------------------------------------------------------------------

def renew(tx: Tx, job: Job, *, now: int, lease_ms: int) -> Job:
    """Extend the lease and return the job with its new end, in the caller's clock. Raises LeaseLost."""
    guard(tx, job)
    tx.execute("UPDATE job SET lease_until = ? WHERE job_id = ?", (tx.clock_ms(now) + lease_ms, job.job_id))
    return replace(job, lease_until=now + lease_ms)


def settle(tx: Tx, job: Job, outcome: Outcome, *, now: int, due_at: int) -> State:
    """Write the outcome of a step and end the lease; the only place that does. Return the job's new state.

    Finish stores done_revision = the claimed revision and forgets attempts; with an item of that revision still
    unanswered it is taken as Later instead, with an instance refused or set aside as Refuse: a job is never done by
    mistake. Later(blame="job") charges an attempt.
    `due_at` counts for More, Later and NotYet. Raises LeaseLost.
    """
    if isinstance(outcome, Finish):
        _lock_study(tx, job.study_uid)
    guard(tx, job)
    row = tx.row("SELECT revision, reason_code, reason, attempts FROM job WHERE job_id = ?", (job.job_id,))
    assert row is not None  # guarded
    if isinstance(outcome, Finish):
        outcome = _checked_finish(tx, job, row[0], outcome)
        if isinstance(outcome, Later):
            due_at = max(due_at, now + _UNFINISHED_RETRY_MS)
    state = next_state(State.ACTIVE, outcome.event)
    assignments, params = _consequences(outcome, now, due_at)
    polling = isinstance(outcome, NotYet) and outcome.retry_after_s is None
    if tx.execute(f"UPDATE job SET state = ?, lease = '', lease_until = 0, leased_by = '', lease_losses = 0,"
                  f" polling = ?, updated_at = ?, {assignments} WHERE job_id = ? AND lease = ?",
                  (str(state), int(polling), now, *params, job.job_id, job.lease)) != 1:
        raise LeaseLost
    _note_outcome(tx, job, outcome, state, now, (row[1], row[2]))
    return state


def _checked_finish(tx: Tx, job: Job, revision: int, finish: Finish) -> Outcome:
    """Return `finish`, or what the items and the set-aside entries say instead."""
    open_items = unfinished_items(tx, job.job_id, job.environment, revision)
    if open_items:
        return Later("unfinished-items", f"{open_items} instances have no receipt yet")
    counts = count_items(tx, job)
    unproven = sum(counts.get(state, 0) for state in UNPROVEN)
    refused = sum(counts.get(state, 0) for state in FAILED)
    lost = missing(tx, job.study_uid) if job.kind == DELIVER else 0
    if not refused and not lost:
        note = finish.note or f"{unproven} images were there already or were accepted without a word: not proven"
        return replace(finish, note=note, code=NOT_PROVEN) if unproven else finish
    arrived = sum(counts.get(state, 0) for state in RECEIPTED)
    total = sum(count for state, count in counts.items() if state not in LEFT_OUT) + lost
    return Refuse(PARTLY_DELIVERED, f"partly delivered {arrived}/{total}: {refused} refused by {job.destination},"
                  f" {lost} unreadable and set aside here",
                  {"arrived": arrived, "total": total, "refused": refused, "set_aside": lost})


def _consequences(outcome: Outcome, now: int, due_at: int) -> tuple[str, list[object]]:
    """Return the columns that this outcome sets, beside the state and the lease, and their values."""
    fresh = "attempts = 0, detail = '{}', waiting_since = NULL, escalated_at = NULL, reason_code = ?, reason = ?"
    match outcome:
        case Finish():
            return (f"done_revision = revision, done_at = ?, turns = 0, news = news + 1, {fresh}",
                    [now, outcome.code, outcome.note if outcome.code else ""])
        case More():
            return f"due_at = ?, turns = turns + 1, {fresh}", [due_at, "", ""]
        case Later():
            return ("due_at = ?, reason_code = ?, reason = ?, attempts = attempts + ?",
                    [due_at, outcome.code, outcome.reason, int(outcome.blame == "job")])
        case NotYet():
            return ("due_at = ?, reason_code = ?, reason = ?, waiting_since = COALESCE(waiting_since, ?)",
                    [due_at, outcome.code, outcome.reason, now])
        case Refuse():
            return ("reason_code = ?, reason = ?, detail = ?, news = news + 1",
                    [outcome.code, outcome.reason, json_text(outcome.detail)])


def _note_outcome(tx: Tx, job: Job, outcome: Outcome, state: State, now: int, before: tuple[str, str]) -> None:
    """Write the outcome into the timeline, unless it only repeats the last one: the job's row shows attempts."""
    if isinstance(outcome, More):
        return
    if isinstance(outcome, Finish):
        code, text = outcome.code, outcome.note or f"everything is confirmed by {job.destination}"
    else:
        code, text = outcome.code, outcome.reason
        if (code, text) == before:
            return
    add_event(tx, now, f"job-{state}", text, study_uid=job.study_uid, job_id=job.job_id,
              fields={"destination": job.destination, "reason_code": code, "revision": job.revision})


# --- leases of the dead --------------------------------------------------------------------------------------------

def release_leases(tx: Tx, node: str, now: int) -> list[tuple[int, State]]:
    """At start: take back every lease of this node, and expired ones of any; return the jobs and their new states.

    A job whose lease was lost three times in a row without progress is HELD as 'worker-died'.
    """
    rows = tx.rows("SELECT job_id, study_uid, lease_losses FROM job WHERE state = 'active'"
                   f" AND (leased_by = ? OR lease_until < ?) ORDER BY job_id{tx.skip_locked}", (node, tx.clock_ms(now)))
    return [_lose(tx, row, now) for row in rows]


def expire_leases(tx: Tx, now: int) -> list[tuple[int, State]]:
    """While running: take back leases that have expired, of any node; as `release_leases` otherwise."""
    rows = tx.rows("SELECT job_id, study_uid, lease_losses FROM job WHERE state = 'active' AND lease_until < ?"
                   f" ORDER BY job_id{tx.skip_locked}", (tx.clock_ms(now),))
    return [_lose(tx, row, now) for row in rows]


def _lose(tx: Tx, row: Row, now: int) -> tuple[int, State]:
    job_id, study_uid, losses = row[0], row[1], row[2] + 1
    state = next_state(State.ACTIVE, Event.LEASE_LOST)
    tx.execute("UPDATE job SET state = ?, lease = '', lease_until = 0, leased_by = '', lease_losses = ?, due_at = ?,"
               " updated_at = ? WHERE job_id = ?", (str(state), losses, now, now, job_id))
    if losses >= _LOSSES_BEFORE_HOLD:
        state = next_state(state, Event.GIVE_UP)
        hold(tx, job_id, state, "worker-died", "the worker died here", now)
    add_event(tx, now, "lease-lost", f"the worker died here, {losses} in a row", study_uid=study_uid, job_id=job_id,
              fields={"state": str(state)})
    return job_id, state
