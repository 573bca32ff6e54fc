"""SQL for accession numbers: the alias table, corrections of what is sent, and orders that wake what waits for them.

What was received is never touched: a correction is a column of the job and a decision with before and after. Layer 3,
called by commands, the API and the doctor. Changes when accessions are corrected in another way.
"""
# ruff: noqa: S608 - only the lock's fragment and placeholders are composed; every value is bound

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace

from internal import catalogue, decisions, jobs
from internal.accession import Case, Order, Proposal, check_new, propose
from internal.decisions import Kind, KnownOrder
from internal.errors import NotAllowed, NotFound
from internal.index import normalise_accession
from internal.items import facts_of
from internal.model import Job
from internal.rows import json_text
from internal.states import Event, State
from internal.store import Tx

#: What belongs to the order of the old accession and is asked for again.
_OF_THE_ORDER = frozenset({"service_request_id", "patient_id", "identity", "identity_revision", "duplicate_at"})
_MAX_ALIASES = 100_000
#: Kind of the catalogue's rows.
ALIAS = "alias"


# --- aliases -------------------------------------------------------------------------------------------------------

def aliases(tx: Tx) -> dict[str, str]:
    """Return the alias table: what a modality sends -> the platform's accession."""
    return {name: str(body["to"]) for name, body in catalogue.current(tx, ALIAS).items()}


def set_alias(
    tx: Tx, sent: str, to: str | None, *, author: str, now: int, restores: int | None = None,
) -> None:
    """Write a new revision of one alias; `to` None removes it. Raises ValueError, NotFound when there is none."""
    sent = check_new(sent)
    if to is None and sent not in aliases(tx):
        raise NotFound(f"there is no alias for {sent!r}")
    body = None if to is None else {"to": check_new(to)}
    catalogue.record(tx, ALIAS, sent, body, author=author, now=now, restores=restores)


def parse_aliases(text: str) -> dict[str, str]:
    """Read a CSV of two columns, sent and meant; a heading, blank lines and lines that begin with # are left out.

    Raises ValueError with the line that is wrong: another number of columns, no accession, or the same one twice.
    """
    found: dict[str, str] = {}
    lines = text.removeprefix("\ufeff").splitlines()
    for number, row in enumerate(map(_columns, lines), start=1):
        if not row or row[0].startswith("#") or (number == 1 and row[0].strip().lower() in ("sent", "from", "dari")):
            continue
        try:
            sent, meant = map(check_new, row)
        except ValueError:
            raise ValueError(f"line {number} is not two accession numbers") from None
        if sent in found or len(found) >= _MAX_ALIASES:
            raise ValueError(f"line {number} names {sent!r} twice, or the table is too long")
        found[sent] = meant
    return found


def _columns(line: str) -> list[str]:
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return [line]


# --- corrections ---------------------------------------------------------------------------------------------------

def correct(tx: Tx, job_id: int, accession_number: str, *, reason: str, who: str, now: int) -> State:
    """Let a delivery go out under another accession number and look for that order now; return the job's state.

    Before and after are kept as a decision. Raises NotAllowed when something of it has reached the platform (that
    leads to withdraw) or is on its way right now, ValueError for a number that may not be sent.
    """
    new = check_new(accession_number)
    tx.row(f"SELECT 1 FROM job WHERE job_id = ?{tx.for_update}", (job_id,))
    job = jobs.job(tx, job_id)
    _refuse_if_sent(tx, job)
    before = job.accession or job.part
    if new == before:
        raise NotAllowed(f"{new!r} is what it is sent under already")
    facts = {name: value for name, value in facts_of(tx, job_id, job.environment).items()
             if name not in _OF_THE_ORDER}
    tx.execute("UPDATE job_facts SET facts = ? WHERE job_id = ? AND environment = ?",
               (json_text(facts), job_id, job.environment))
    tx.execute("UPDATE job SET accession = ? WHERE job_id = ?", ("" if new == job.part else new, job_id))
    decisions.decide(tx, Kind.ACCESSION, job.study_uid, part=job.part, body={"before": before, "after": new},
                     reason=reason, who=who, now=now, text=f"accession number {before or '(none)'} is sent as {new}")
    event = Event.WAKE if job.state in (State.WAITING, State.DEFERRED) else Event.RETRY
    if job.state is not State.QUEUED:
        jobs.act(tx, [job_id], event, who=who, now=now)
    return jobs.job(tx, job_id).state


def _refuse_if_sent(tx: Tx, job: Job) -> None:
    sent = tx.row("SELECT 1 FROM item WHERE job_id = ? AND environment = ? AND sends > 0 LIMIT 1",
                  (job.job_id, job.environment))
    intent = tx.row("SELECT 1 FROM intent WHERE job_id = ? AND environment = ? AND answered_at IS NULL LIMIT 1",
                    (job.job_id, job.environment))
    if sent or intent or job.facts.get("imaging_study_id"):
        raise NotAllowed("the platform has something of this study already: `withdraw` it first")
    if job.state is State.ACTIVE:
        raise NotAllowed("a worker is busy with this study right now: try again in a moment")


def proposals(tx: Tx, job: Job, table: Mapping[str, str]) -> list[Proposal]:
    """Return what the job's accession may have been meant to be, from known orders and the alias table."""
    row = tx.row("SELECT study_date, first_arrived_at FROM study WHERE study_uid = ?", (job.study_uid,))
    if row is None:
        return []
    modalities = frozenset(value for (value,) in tx.rows(
        "SELECT DISTINCT modality FROM series WHERE study_uid = ? AND modality <> ''", (job.study_uid,)))
    case = Case(job.part, tuple(decisions.patients_of(tx, job.study_uid)), modalities, row[0])
    known = decisions.orders_near(tx, row[0], row[1])
    alias = table.get(job.part)
    if alias:
        known += [order for order in decisions.orders_under(tx, alias) if order not in known]
    return propose(case, [Order(one.accession_number, one.patient, one.modality, one.day) for one in known], table)


def waiting_for_an_order(tx: Tx, destination: str, after: int, limit: int) -> list[int]:
    """Return waiting deliveries without an order, ids beyond `after`: whom the doctor looks at."""
    return [job_id for (job_id,) in tx.rows(
        "SELECT job_id FROM job WHERE state = 'waiting' AND job_id > ? AND kind = 'deliver' AND destination = ?"
        " AND reason_code IN ('no-order', 'no-accession') ORDER BY job_id LIMIT ?", (after, destination, limit))]


def order_came(tx: Tx, order: KnownOrder, now: int, *, who: str = "order") -> list[int]:
    """Keep an order that reached us directly and wake what waits for its accession; return the jobs woken.

    For the order API and for a person's word; call it in a transaction of its own. An urgent order goes ahead of others
    with everything of it that is not done, and with what comes later. Blanks around the accession do not count.
    Durable once the transaction is.
    """
    order = replace(order, accession_number=normalise_accession(order.accession_number))
    decisions.add_order(tx, order, now)
    unfinished = _unfinished_under(tx, order.accession_number)
    if order.urgent:
        jobs.set_priority(tx, [job_id for job_id, _ in unfinished], jobs.URGENT, now)
    woken = [job_id for job_id, state in unfinished if state in (State.WAITING, State.DEFERRED)]
    jobs.act(tx, woken, Event.WAKE, who=who, now=now)
    return woken


def _unfinished_under(tx: Tx, accession_number: str) -> list[tuple[int, State]]:
    """Return the deliveries that are sent under this accession number, corrected or as received, and are not done."""
    if not accession_number:
        return []
    open_states = "('queued', 'active', 'waiting', 'deferred', 'held')"
    return [(job_id, State(state)) for job_id, state in tx.rows(
        f"SELECT job_id, state FROM job WHERE state IN {open_states} AND kind = 'deliver' AND accession = ?"
        " UNION SELECT j.job_id, j.state FROM study_part p JOIN job j ON j.study_uid = p.study_uid AND j.part = p.part"
        f" WHERE p.part = ? AND j.state IN {open_states} AND j.kind = 'deliver' AND j.accession = '' ORDER BY job_id",
        (accession_number, accession_number))]
