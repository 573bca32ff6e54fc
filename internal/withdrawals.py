"""SQL for taking back a delivered study: asked for by one person, confirmed by another, then blocked for good.

Layer 3, called by commands and the API; the platform is told by a job of kind "withdraw" in the same machine. Changes
when taking back needs another proof. Source: issue "withdraw".
"""
# ruff: noqa: S608 - only the lock's fragment is composed; every value is bound

from __future__ import annotations

import hashlib
import hmac
import secrets
import unicodedata

from internal import decisions, jobs
from internal.decisions import Decision, Kind
from internal.errors import NotAllowed, NotFound
from internal.interventions import hold
from internal.model import Job
from internal.rows import json_text
from internal.states import Event, State, can, next_state
from internal.store import Tx

KIND = "withdraw"
WITHDRAWN = "withdrawn"
CODE_LIFE_MS = 24 * 3_600_000
_REASON = "it was taken back; it is never sent again by this router"


def request(tx: Tx, job_id: int, *, reason: str, who: str, now: int) -> str:
    """Ask to take back what a delivery registered; return the code for the second person, good for a day.

    Raises NotAllowed when nothing of it is at the platform, and when `who` is no person.
    """
    person_of(who)
    job = jobs.job(tx, job_id)
    if not job.facts.get("imaging_study_id"):
        raise NotAllowed("nothing of this study is registered at the platform: `cancel` it")
    code = secrets.token_hex(4)
    decisions.decide(tx, Kind.WITHDRAW, job.study_uid, part=job.part, reason=reason, who=who, now=now,
                     body={"code_sha256": _hash(code), "job_id": job_id, "destination": job.destination,
                           "confirmed_by": ""},
                     text=f"{who} asks to take this study back; a second person has to confirm")
    return code


def confirm(tx: Tx, study_uid: str, part: str, code: str, *, who: str, now: int) -> int:
    """Confirm as another person: the ImagingStudy will be PUT as entered-in-error, and the study is blocked.

    Returns the withdraw job. Raises NotFound without a request, NotAllowed for a wrong or old code, for the same
    person, for a `who` that is none and while a worker is busy with the study.
    """
    decision = decisions.find_decision(tx, Kind.WITHDRAW, study_uid, part)
    if decision is None or decision.body["confirmed_by"]:
        raise NotFound("nobody has asked to take this study back, or it was confirmed already")
    if not hmac.compare_digest(str(decision.body["code_sha256"]), _hash(code)) or now - decision.at > CODE_LIFE_MS:
        raise NotAllowed("the code is wrong or older than a day")
    if person_of(who) == person_of(decision.who):
        raise NotAllowed("the second person must be another one than the first (--by)")
    asked = jobs.job(tx, int(decision.body["job_id"]))
    _block(tx, asked, now)
    decisions.decide(tx, Kind.WITHDRAW, study_uid, part=part, reason=decision.reason, who=decision.who, now=now,
                     body={**decision.body, "confirmed_by": who}, text=f"taken back: {who} confirmed")
    return _open_job(tx, asked, now)


def person_of(who: str) -> str:
    """Return whom `who` stands for, the same by whichever way they came: page, API or command line.

    Without the namespace before the name (``user:``, ``cli:``), without regard to case, width and spaces. Raises
    NotAllowed for a key, the router itself and nobody.
    """
    way, colon, rest = " ".join(unicodedata.normalize("NFKC", who).casefold().split()).partition(":")
    name = rest.rpartition(":")[2].strip() if colon else way
    if not name or (way not in ("user", "cli") if colon else name in ("anonymous", "system")):
        raise NotAllowed("a study is taken back by people who are logged in, not by a key")
    return name


def find_confirmed(tx: Tx, study_uid: str, part: str) -> Decision | None:
    """Return the confirmed decision to take back, None if there is none."""
    decision = decisions.find_decision(tx, Kind.WITHDRAW, study_uid, part)
    return decision if decision is not None and decision.body["confirmed_by"] else None


def receipts_of(tx: Tx, job: Job) -> list[tuple[str, str]]:
    """Return (series, SOP Instance UID) of everything the platform holds of a delivery: what only it can remove."""
    return [(series, sop) for series, sop in tx.rows(
        "SELECT n.series_uid, n.sop_uid FROM item i JOIN instance n ON n.id = i.instance_id WHERE i.job_id = ?"
        " AND i.environment = ? AND i.sends > 0 AND i.state IN ('sent', 'stored', 'unverified', 'unread', 'conflict')"
        " ORDER BY i.item_id",
        (job.job_id, job.environment))]


def _block(tx: Tx, asked: Job, now: int) -> None:
    """Hold every delivery of the study to the same place, whatever its state; a cancelled one stays cancelled."""
    for job_id, state in tx.rows(
            "SELECT job_id, state FROM job WHERE study_uid = ? AND kind = 'deliver' AND destination = ?"
            f" ORDER BY job_id{tx.for_update}", (asked.study_uid, asked.destination)):
        now_in = State(state)
        if now_in is State.ACTIVE:
            raise NotAllowed("a worker is busy with this study right now: try again in a moment")
        if can(now_in, Event.REOPEN):
            now_in = next_state(now_in, Event.REOPEN)
        if can(now_in, Event.GIVE_UP):
            now_in = next_state(now_in, Event.GIVE_UP)
        hold(tx, job_id, now_in, WITHDRAWN, _REASON, now)


def _open_job(tx: Tx, asked: Job, now: int) -> int:
    job_id = int(tx.value(
        "INSERT INTO job (kind, destination, environment, study_uid, part, state, priority, due_at, settled_revision,"
        " created_at, updated_at, opened_at) VALUES (?, ?, ?, ?, ?, ?, 0, ?, 1, ?, ?, ?)"
        " ON CONFLICT (kind, destination, study_uid, part) DO UPDATE SET state = excluded.state,"
        " due_at = excluded.due_at, settled_revision = job.settled_revision + 1, lease = '' RETURNING job_id",
        (KIND, asked.destination, asked.environment, asked.study_uid, asked.part, str(State.QUEUED), now, now, now,
         now)))
    facts = {name: asked.facts[name] for name in ("imaging_study_id", "patient_id", "service_request_id")
             if name in asked.facts}
    tx.execute("INSERT INTO job_facts (job_id, environment, facts) VALUES (?, ?, ?)"
               " ON CONFLICT (job_id, environment) DO UPDATE SET facts = excluded.facts",
               (job_id, asked.environment, json_text(facts)))
    return job_id


def _hash(code: str) -> str:
    return hashlib.sha256(code.strip().lower().encode()).hexdigest()
