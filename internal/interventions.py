"""SQL for what happens to a job outside of its worker: by a person, by patience, by a move to another environment.

Called through `jobs` by the commands, the API and `worker`; imports states, items, events, rule_rows, store. Changes
when people get another way to move a job.
"""
# ruff: noqa: S608 - only the lock's fragment is composed; every value is bound

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from internal.decisions import is_withdrawn
from internal.events import add_event
from internal.items import copy_items, due_again, waive_failed
from internal.rule_rows import newest_revision
from internal.set_aside import accept_missing
from internal.states import Event, IllegalTransition, State, can, next_state
from internal.store import Row, Tx

#: Why a job is HELD after the destination's base URL or organization has changed.
ENVIRONMENT_CHANGED = "environment-changed"
ENVIRONMENT_REASON = "it belongs to another environment; a person chooses whether it is sent to this one"

#: Why a job is HELD whose study has instances that were refused or set aside, when all others have arrived.
PARTLY_DELIVERED = "partly-delivered"

#: Why a job is HELD whose images were brought by a caller that nobody has admitted.
CALLER_NOT_ADMITTED = "caller-not-admitted"

#: What a person may do; everything else belongs to the worker.
ACTS = frozenset({Event.RETRY, Event.CANCEL, Event.WAKE, Event.GIVE_UP, Event.REOPEN})

#: Why a job is HELD whose images a rule could not change: what was never frozen then follows the set in force.
RULE_REASONS = frozenset({"rewrite-failed", "source-empty", "may-show-patient", "rules-invalid"})

_AGAIN = frozenset({Event.RETRY, Event.REOPEN})


@dataclass(frozen=True, slots=True)
class Acted:
    """What `act` did; iterates over `moved`. `refused` says of each other job why, in a sentence."""

    moved: list[tuple[int, State]]
    refused: list[tuple[int, str]]

    def __iter__(self) -> Iterator[tuple[int, State]]:
        return iter(self.moved)

    def __len__(self) -> int:
        return len(self.moved)


def hold(tx: Tx, job_id: int, state: State, code: str, reason: str, now: int) -> None:
    """Write `state` with its reason and end any lease; the caller has asked `next_state`."""
    tx.execute("UPDATE job SET state = ?, reason_code = ?, reason = ?, lease = '', lease_until = 0, leased_by = '',"
               " news = news + 1, updated_at = ? WHERE job_id = ?", (str(state), code, reason, now, job_id))


def act(
    tx: Tx, job_ids: Iterable[int], event: Event, *, who: str, now: int,
    environment: str | Mapping[str, str] | None = None,
) -> Acted:
    """Do what a person asks (RETRY, CANCEL, WAKE, GIVE_UP, REOPEN) to each job that allows it.

    RETRY, WAKE and REOPEN make it due now. RETRY and REOPEN forget attempts and make refused items due again; if
    `environment` (one, or a mapping from destination) is another than the job's, the job moves there and starts over:
    done_revision 0, every instance due. CANCEL of an active job ends its lease: the worker's next write raises
    LeaseLost. Raises ValueError for any other event.
    """
    if event not in ACTS:
        raise ValueError(f"{event} is not for people")
    acted = Acted([], [])
    for job_id in sorted(set(job_ids)):
        row = tx.row("SELECT job_id, state, destination, environment, study_uid, kind, reason_code FROM job"
                     f" WHERE job_id = ?{tx.for_update}", (job_id,))
        if row is None:
            acted.refused.append((job_id, f"there is no job {job_id}"))
            continue
        if event in _AGAIN and (why_not := _why_not_again(tx, row)):
            acted.refused.append((job_id, why_not))
            continue
        target = environment if isinstance(environment, str) else (environment or {}).get(row[2])
        try:
            acted.moved.append((job_id, _act(tx, row, event, who, now, target)))
        except IllegalTransition as error:
            acted.refused.append((job_id, str(error)))
    return acted


def _why_not_again(tx: Tx, row: Row) -> str:
    """Return why a person may not have this job done (again), "" if nothing is in the way."""
    _, state, destination, _, study_uid, kind, reason_code = row
    if kind == "deliver" and is_withdrawn(tx, study_uid, destination):
        return "the study was withdrawn: it is never sent again"
    if state == State.HELD and reason_code == CALLER_NOT_ADMITTED:
        return "its caller has to be admitted first (devices admit)"
    return ""


def _act(tx: Tx, row: Row, event: Event, who: str, now: int, target: str | None) -> State:
    job_id, state, _, environment, study_uid, *_ = row
    if event in _AGAIN:
        _follow_rules_in_force(tx, job_id)
    state = next_state(State(state), event)
    if event is Event.GIVE_UP:
        hold(tx, job_id, state, "given-up", f"given up by {who}", now)
    elif event is Event.CANCEL:
        hold(tx, job_id, state, "cancelled", f"cancelled by {who}", now)
    else:
        tx.execute("UPDATE job SET state = ?, due_at = ?, updated_at = ? WHERE job_id = ?",
                   (str(state), now, now, job_id))
    if event in _AGAIN:
        tx.execute("UPDATE job SET opened_at = ?, attempts = 0, turns = 0, lease_losses = 0, reason_code = '',"
                   " reason = '', detail = '{}', waiting_since = NULL, escalated_at = NULL WHERE job_id = ?",
                   (now, job_id))
        if target is not None and target != environment:
            tx.execute("UPDATE job SET environment = ?, done_revision = 0 WHERE job_id = ?", (target, job_id))
            copy_items(tx, job_id, target)
        due_again(tx, job_id, environment if target is None else target)
    add_event(tx, now, f"person-{event}", f"{event} by {who}", study_uid=study_uid, job_id=job_id, who=who,
              fields={"state": str(state)})
    return state


def _follow_rules_in_force(tx: Tx, job_id: int) -> None:
    """Let a job that a rule held follow the set in force; items that were frozen keep the set of their recipe."""
    revision = newest_revision(tx)
    if revision is not None and tx.value("SELECT reason_code FROM job WHERE job_id = ?", (job_id,)) in RULE_REASONS:
        tx.execute("UPDATE job SET rules = ? WHERE job_id = ?", (revision, job_id))


def accept_partial(tx: Tx, study_uid: str, *, who: str, now: int) -> Acted:
    """A person lets a study go without the instances that failed: they are waived, and its held jobs may finish.

    Only jobs HELD as 'partly-delivered' are moved, by RETRY: the next step confirms the rest. `refused` says of each
    other job why not.
    """
    acted = Acted([], [])
    rows = tx.rows("SELECT job_id, state, destination, environment, study_uid, reason_code FROM job"
                   f" WHERE study_uid = ? AND kind = 'deliver' ORDER BY job_id{tx.for_update}", (study_uid,))
    held = [row for row in rows if row[1] == State.HELD and row[5] == PARTLY_DELIVERED]
    lost = accept_missing(tx, study_uid, now) if held else 0
    for row in held:
        waived = waive_failed(tx, row[0], row[3])
        acted.moved.append((row[0], _act(tx, row, Event.RETRY, who, now, None)))
        add_event(tx, now, "partial-accepted", f"accepted without {waived + lost} instances by {who}",
                  study_uid=study_uid, job_id=row[0], who=who, fields={"waived": waived, "set_aside": lost})
    acted.refused.extend((row[0], "it is not held as partly delivered") for row in rows if row not in held)
    return acted


def held_for_caller(tx: Tx) -> list[tuple[int, str]]:
    """Return (job, study) of every job that waits for its caller to be admitted."""
    return [(job_id, study_uid) for job_id, study_uid in tx.rows(
        "SELECT job_id, study_uid FROM job WHERE state = 'held' AND reason_code = ? ORDER BY job_id",
        (CALLER_NOT_ADMITTED,))]


def admit(tx: Tx, job_ids: Iterable[int], *, who: str, now: int) -> list[tuple[int, State]]:
    """Let jobs go on that were held for their caller; the caller of this has looked who is admitted."""
    moved: list[tuple[int, State]] = []
    for job_id in sorted(set(job_ids)):
        row = tx.row("SELECT job_id, state, destination, environment, study_uid FROM job WHERE job_id = ?"
                     f" AND state = 'held' AND reason_code = ?{tx.for_update}", (job_id, CALLER_NOT_ADMITTED))
        if row is not None:
            moved.append((job_id, _act(tx, row, Event.RETRY, who, now, None)))
    return moved


def hold_for_person(tx: Tx, job_id: int, code: str, reason: str, now: int, *, reopen: bool = False) -> bool:
    """Hold an unfinished job for a reason that only a person can settle; False where that cannot be.

    An active one loses its lease: the worker's next write raises LeaseLost, so nothing more of the study leaves.
    `reopen`: a finished or held job too, because what has come since must not stay unseen.
    """
    row = tx.row(f"SELECT job_id, state, study_uid FROM job WHERE job_id = ?{tx.for_update}", (job_id,))
    if row is None:
        return False
    state = State(row[1])
    if reopen and can(state, Event.REOPEN):
        state = next_state(state, Event.REOPEN)
        tx.execute("UPDATE job SET opened_at = ? WHERE job_id = ?", (now, job_id))
    if not can(state, Event.GIVE_UP):
        return False
    _give_up(tx, [(job_id, state, row[2])], code, reason, now)
    return True


def displace(tx: Tx, destination: str, environment: str, now: int) -> int:
    """Hold every unfinished job of `destination` that belongs to another environment than `environment`.

    Returns how many. Call it at start, after `release_leases`. Finished jobs stay: a person chooses which past studies
    are sent.
    """
    rows = tx.rows("SELECT job_id, state, study_uid FROM job WHERE destination = ? AND environment <> ?"
                   f" AND state IN ('queued', 'deferred', 'waiting') ORDER BY job_id{tx.for_update}",
                   (destination, environment))
    _give_up(tx, rows, ENVIRONMENT_CHANGED, ENVIRONMENT_REASON, now)
    return len(rows)


def give_up_expired(tx: Tx, patience_ms: int, now: int) -> list[int]:
    """Hold DEFERRED and WAITING jobs that have been unfinished for longer than `patience_ms`; return their ids."""
    rows = tx.rows("SELECT job_id, state, study_uid, reason FROM job WHERE state IN ('deferred', 'waiting')"
                   f" AND opened_at < ? ORDER BY job_id{tx.for_update}", (now - patience_ms,))
    days = patience_ms // 86_400_000
    for row in rows:
        _give_up(tx, [row[:3]], "patience-ended", f"given up after {days} days: {row[3]}", now)
    return [row[0] for row in rows]


def _give_up(tx: Tx, rows: Iterable[Row], code: str, reason: str, now: int) -> None:
    for job_id, state, study_uid in rows:
        hold(tx, job_id, next_state(State(state), Event.GIVE_UP), code, reason, now)
        add_event(tx, now, "job-held", reason, study_uid=study_uid, job_id=job_id, fields={"reason_code": code})
