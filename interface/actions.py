"""What a person may order, once for command line, API and pages: each function works inside the caller's transaction.

Over jobs, decisions and lanes in internal/; who asked is always named. Changes when people get another order to give.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from interface.destinations import build
from internal import decisions, index, jobs, lane_settings
from internal.config import Settings
from internal.decisions import Kind
from internal.errors import NotAllowed, NotFound
from internal.states import Event, State
from internal.store import Tx

RECYCLE_MS = 30 * 86_400_000
_SIDES = frozenset({"patient-mismatch", "mixed-patients"})
_STOPPED = (State.HELD, State.CANCELLED)


def environments(settings: Settings) -> dict[str, str]:
    """Return the present environment of every destination: where a retry moves a job of another one."""
    return {destination.name: destination.environment for destination in build(settings)}


def retry(
    tx: Tx, job_ids: Iterable[int], present: Mapping[str, str], *, who: str, now: int, resend: bool = False,
) -> jobs.Acted:
    """Try jobs again now: held, cancelled, deferred and waiting ones, and delivered ones of another environment.

    `resend`: delivered ones of this environment too are opened again; what has its receipt is not sent twice.
    """
    acted = jobs.Acted([], [])
    for job_id in job_ids:
        job = jobs.job(tx, job_id)
        elsewhere = present.get(job.destination, job.environment) != job.environment
        event = Event.REOPEN if job.state is State.DONE and (elsewhere or resend) else Event.RETRY
        one = jobs.act(tx, [job_id], event, who=who, now=now, environment=present)
        acted.moved.extend(one.moved)
        acted.refused.extend(one.refused)
        jobs.hurry_lane(tx, job.destination, now)
    return acted


def cancel(tx: Tx, job_ids: Iterable[int], *, who: str, now: int) -> jobs.Acted:
    """Stop jobs; nothing is deleted."""
    return jobs.act(tx, job_ids, Event.CANCEL, who=who, now=now)


@dataclass(frozen=True, slots=True)
class SentOn:
    """What `send_now` did; `stopped` need a retry first."""

    studies: list[str]
    woken: list[tuple[int, State]]
    stopped: list[tuple[int, State]]


def send_now(
    tx: Tx, study_uids: Iterable[str], job_ids: Iterable[int], *, urgent: bool, who: str, now: int,
) -> SentOn:
    """Settle studies at once and wake their jobs; `urgent` also puts the jobs before all others."""
    found = [jobs.job(tx, job_id) for job_id in job_ids]
    studies = list(dict.fromkeys([*study_uids, *(job.study_uid for job in found)]))
    for uid in studies:
        index.request_settle(tx, uid)
        if urgent:
            index.mark_urgent(tx, uid)
    ids = [job.job_id for job in found]
    if urgent:
        jobs.set_priority(tx, ids, jobs.URGENT, now)
    woken = jobs.act(tx, ids, Event.WAKE, who=who, now=now)
    for lane in {job.destination for job in found}:
        jobs.hurry_lane(tx, lane, now)
    return SentOn(studies, woken.moved, [(job.job_id, job.state) for job in found if job.state in _STOPPED])


def same_patient(tx: Tx, job_ids: Iterable[int], *, reason: str, who: str, now: int) -> list[int]:
    """Decide that both sides of held studies are one patient, and try these jobs again; return them."""
    done: list[int] = []
    for job_id in job_ids:
        job = jobs.job(tx, job_id)
        sides = str(job.detail.get("sides", ""))
        if job.reason_code not in _SIDES or not sides:
            continue
        decisions.decide(tx, Kind.PATIENT, job.study_uid, part=job.part, body={"sides": sides}, reason=reason, who=who,
                         now=now, text="a person confirmed that it is the same patient")
        done += [moved for moved, _ in jobs.act(tx, [job_id], Event.RETRY, who=who, now=now)]
    return done


def discard(tx: Tx, study_uid: str, *, reason: str, who: str, now: int) -> None:
    """Give up a study that can never be confirmed; its bytes stay for 30 days. Raises NotAllowed, ValueError."""
    rows = [row for row in jobs.jobs_of(tx, study_uid) if row.kind == "deliver"]
    alive = [row for row in rows if row.state not in _STOPPED]
    if alive or not rows:
        raise NotAllowed("only a study that is held or cancelled at every destination can be discarded: "
                         "`cancel` it first")
    jobs.act(tx, [row.job_id for row in rows if row.state is State.HELD], Event.CANCEL, who=who, now=now)
    decisions.decide(tx, Kind.DISCARD, study_uid, body={"until": now + RECYCLE_MS}, reason=reason, who=who, now=now,
                     text=f"discarded by {who}: the images are removed in 30 days")


def undo_discard(tx: Tx, study_uid: str, *, who: str, now: int) -> None:
    """Bring a discarded study back; `retry` sends it. Raises NotFound when it was not discarded."""
    if not decisions.revoke(tx, Kind.DISCARD, study_uid, now=now):
        raise NotFound(f"{study_uid} was not discarded")
    jobs.add_event(tx, now, "discard-undone", f"brought back by {who}", study_uid=study_uid, who=who)


def pause_lane(tx: Tx, name: str, *, reason: str, who: str, now: int) -> None:
    """Pause a lane until a person resumes it."""
    lane_settings.change(tx, name, who=who, now=now, paused=True, reason=reason)


def resume_lane(tx: Tx, name: str, *, who: str, now: int) -> None:
    """Open a lane, whoever paused it, and take its alert down."""
    lane_settings.resume(tx, name, who=who, now=now)
