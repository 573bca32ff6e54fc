"""SQL for finding studies and for the lists of what is not delivered: pages of 50, by keyset, each driven by one index.

Reads only; asked by pages and API. Layer 3, over study_terms and overview. Changes when people search in another way.
"""
# ruff: noqa: S608 - SQL is composed of this module's own fragments and placeholders only; every value is bound

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from internal.index import normalise_accession
from internal.job_list import DONE_NOT_PROVEN, NOT_PROVEN
from internal.overview import RECEIVING, outcome_of
from internal.rows import chunks, marks, row_number
from internal.states import State
from internal.store import Tx
from internal.study_terms import TermKind, fold, words

PAGE = 50
_LAST = "\U0010ffff"
_OPEN = "j.state <> 'done' AND j.state <> 'cancelled'"


@dataclass(frozen=True, slots=True)
class Search:
    """What a person looks for; "" asks for anything.

    `text`: a Study Instance UID, an accession number, a Patient ID, or the beginnings of words of a name. `state`: a
    job state, ``receiving`` or ``not-proven``. Days are study dates, YYYYMMDD, both included.
    """

    text: str = ""
    modality: str = ""
    caller: str = ""
    state: str = ""
    first_day: str = ""
    last_day: str = ""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of a listed study."""

    job_id: int
    destination: str
    state: State
    reason_code: str


@dataclass(frozen=True, slots=True)
class StudyRow:
    """One study of a list; `listed_at` in epoch ms; `outcome` as `overview.outcome_of`."""

    study_uid: str
    listed_at: int
    patient_name: str
    patient_id: str
    study_date: str
    description: str
    instances: int
    accession_numbers: tuple[str, ...]
    modalities: tuple[str, ...]
    callers: tuple[str, ...]
    outcome: str
    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Some studies, newest first; `after` leads to the next page, "" on the last one."""

    studies: tuple[StudyRow, ...]
    after: str


@dataclass(frozen=True, slots=True)
class OpenJob:
    """One unfinished job with its study (None for jobs that belong to none); times in epoch ms."""

    job_id: int
    kind: str
    destination: str
    state: State
    reason_code: str
    reason: str
    part: str
    attempts: int
    due_at: int
    opened_at: int
    study: StudyRow | None


@dataclass(frozen=True, slots=True)
class _Query:
    """A source of (at, study_uid): FROM with its own condition, the column that orders it, the values bound."""

    source: str
    at: str
    params: tuple[Any, ...]


def find(tx: Tx, search: Search, after: str = "", limit: int = PAGE) -> Page:
    """Return studies that match everything asked for, newest first. Raises ValueError for an `after` that is none."""
    driver, rest = _driver(search)
    conditions, params = [], list(driver.params)
    for sql, values in rest:
        conditions.append(sql)
        params += values
    if after:
        at, _, uid = after.partition("-")
        conditions.append(f"(c.{driver.at}, c.study_uid) < (?, ?)")
        params += [row_number(at), uid]
    where = "".join(f" AND {one}" for one in conditions)
    rows = tx.rows(f"SELECT c.{driver.at}, c.study_uid FROM {driver.source}{where}"
                   f" ORDER BY c.{driver.at} DESC, c.study_uid DESC LIMIT ?", (*params, limit + 1))
    found = rows_of(tx, [uid for _, uid in rows[:limit]])
    return Page(tuple(found[uid] for _, uid in rows[:limit] if uid in found),
                f"{rows[limit - 1][0]}-{rows[limit - 1][1]}" if len(rows) > limit else "")


Condition = tuple[str, tuple[Any, ...]]


def _driver(search: Search) -> tuple[_Query, list[Condition]]:
    """Choose the narrowest index to walk; what else was asked for is looked up for each of its rows."""
    filters: dict[str, Condition] = {}
    if search.modality:
        filters["modality"] = _has_term(TermKind.MODALITY, search.modality)
    if search.caller:
        filters["caller"] = _has_term(TermKind.CALLER, search.caller)
    if search.state == RECEIVING:
        filters["state"] = ("EXISTS (SELECT 1 FROM study r WHERE r.study_uid = c.study_uid"
                            " AND r.revision > r.settled_revision)", ())
    elif search.state == NOT_PROVEN:
        filters["state"] = (f"EXISTS (SELECT 1 FROM job j WHERE j.study_uid = c.study_uid AND {DONE_NOT_PROVEN})", ())
    elif search.state:
        filters["state"] = ("EXISTS (SELECT 1 FROM job j WHERE j.study_uid = c.study_uid AND j.kind = 'deliver'"
                            " AND j.state = ?)", (search.state,))
    if search.first_day or search.last_day:
        days = (search.first_day or "00000000", search.last_day or "99999999")
        filters["days"] = ("EXISTS (SELECT 1 FROM study d WHERE d.study_uid = c.study_uid"
                           " AND d.study_date BETWEEN ? AND ?)", days)
    if search.text.strip():
        return _by_text(search.text), list(filters.values())
    if search.state and search.state != State.DONE:
        filters.pop("state")
        return _by_state(search.state), list(filters.values())
    for name, kind in (("caller", TermKind.CALLER), ("modality", TermKind.MODALITY)):
        if name in filters and "days" not in filters:
            filters.pop(name)
            return _Query("study_term c WHERE c.kind = ? AND c.term = ?", "at",
                          (str(kind), getattr(search, name))), list(filters.values())
    if "days" in filters:
        _, days = filters.pop("days")
        return _Query("study c WHERE c.study_date BETWEEN ? AND ?", "listed_at", days), list(filters.values())
    return _Query("study c WHERE 1 = 1", "listed_at", ()), list(filters.values())


def _has_term(kind: TermKind, term: str) -> Condition:
    return ("EXISTS (SELECT 1 FROM study_term x WHERE x.study_uid = c.study_uid AND x.kind = ? AND x.term = ?)",
            (str(kind), term))


def _by_state(state: str) -> _Query:
    if state == RECEIVING:
        return _Query("study c WHERE c.revision > c.settled_revision", "listed_at", ())
    if state == NOT_PROVEN:
        return _Query("(SELECT DISTINCT s.listed_at, s.study_uid FROM job j CROSS JOIN study s"
                      f" WHERE s.study_uid = j.study_uid AND {DONE_NOT_PROVEN}) AS c WHERE 1 = 1", "listed_at", ())
    is_open = f" AND {_OPEN}" if state != State.CANCELLED else ""
    return _Query("(SELECT DISTINCT s.listed_at, s.study_uid FROM job j CROSS JOIN study s"
                  f" WHERE s.study_uid = j.study_uid AND j.kind = 'deliver' AND j.state = ?{is_open})"
                  " AS c WHERE 1 = 1", "listed_at", (state,))


def _by_text(text: str) -> _Query:
    token = normalise_accession(text)[:256]
    sources = [
        ("SELECT listed_at AS at, study_uid FROM study WHERE study_uid = ?", (token,)),
        ("SELECT s.listed_at, s.study_uid FROM study_part p JOIN study s ON s.study_uid = p.study_uid"
         " WHERE p.part = ?", (token,)),
        ("SELECT s.listed_at, s.study_uid FROM job j JOIN study s ON s.study_uid = j.study_uid"
         " WHERE j.accession = ? AND j.accession <> ''", (token,)),
        ("SELECT at, study_uid FROM study_term WHERE kind = ? AND term = ?", (str(TermKind.PATIENT), fold(token))),
    ]
    if names := words(token):
        sources.append(_named(names))
    union = " UNION ".join(sql for sql, _ in sources)
    return _Query(f"({union}) AS c WHERE 1 = 1", "at", tuple(value for _, values in sources for value in values))


def _named(names: Sequence[str]) -> Condition:
    """Match every word as the beginning of a word; the longest drives, one of two letters must be the whole word."""
    longest, *others = sorted(names, key=len, reverse=True)
    sql, values = "SELECT n.at, n.study_uid FROM study_term n WHERE n.kind = 'name' AND n.term BETWEEN ? AND ?", [
        longest, longest + (_LAST if len(longest) > 2 else "")]
    for word in others:
        sql += (" AND EXISTS (SELECT 1 FROM study_term o WHERE o.study_uid = n.study_uid AND o.kind = 'name'"
                " AND o.term BETWEEN ? AND ?)")
        values += [word, word + _LAST]
    return sql, tuple(values)


def rows_of(tx: Tx, study_uids: Sequence[str]) -> dict[str, StudyRow]:
    """Return list rows of these studies by UID; unknown ones are left out."""
    found: dict[str, StudyRow] = {}
    for some in chunks(list(dict.fromkeys(study_uids)), PAGE):
        listed = f"IN ({marks(some)})"
        parts = _grouped(tx, f"SELECT study_uid, part FROM study_part WHERE part <> '' AND study_uid {listed}"
                             " ORDER BY part", some)
        # Every kind is read and none sorted here: else SQLite without statistics walks all terms of a kind.
        terms = _grouped(tx, f"SELECT study_uid, kind || ':' || term FROM study_term WHERE study_uid {listed}", some)
        deliveries: dict[str, list[Delivery]] = {}
        for uid, job_id, destination, state, code in tx.rows(
                f"SELECT study_uid, job_id, destination, state, reason_code FROM job WHERE study_uid {listed}"
                " AND kind = 'deliver' ORDER BY job_id", some):
            deliveries.setdefault(uid, []).append(Delivery(job_id, destination, State(state), code))
        for row in tx.rows("SELECT study_uid, listed_at, patient_name, patient_id, study_date, description, instances,"
                           f" revision > settled_revision FROM study WHERE study_uid {listed}", some):
            found[row[0]] = _study_row(row, parts, terms, deliveries.get(row[0], []))
    return found


def _study_row(
    row: Sequence[Any], parts: dict[str, list[str]], terms: dict[str, list[str]], deliveries: list[Delivery],
) -> StudyRow:
    uid = row[0]
    of = [term.partition(":") for term in sorted(terms.get(uid, []))]
    return StudyRow(
        study_uid=uid, listed_at=row[1], patient_name=row[2], patient_id=row[3], study_date=row[4], description=row[5],
        instances=row[6], accession_numbers=tuple(parts.get(uid, [])),
        modalities=tuple(term for kind, _, term in of if kind == TermKind.MODALITY),
        callers=tuple(term for kind, _, term in of if kind == TermKind.CALLER),
        outcome=outcome_of({one.state for one in deliveries}, receiving=bool(row[7])), deliveries=tuple(deliveries))


def _grouped(tx: Tx, sql: str, params: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for uid, value in tx.rows(sql, params):
        found.setdefault(uid, []).append(value)
    return found


# --- what is not delivered -----------------------------------------------------------------------------------------

def open_jobs(
    tx: Tx, states: Sequence[State], *, reason_code: str | None = None, destination: str | None = None,
    after: str = "", limit: int = PAGE,
) -> tuple[list[OpenJob], str]:
    """Return unfinished jobs in these states, longest unfinished first, and what leads to the next page, "" at the end.

    Raises ValueError for an `after` that is none.
    """
    conditions, params = [f"j.state IN ({marks(states)})", _OPEN], [str(state) for state in states]
    bound: list[Any] = list(params)
    for column, value in (("reason_code", reason_code), ("destination", destination)):
        if value is not None:
            conditions.append(f"j.{column} = ?")
            bound.append(value)
    if after:
        at, _, job_id = after.partition("-")
        conditions.append("(j.opened_at, j.job_id) > (?, ?)")
        bound += [row_number(at), row_number(job_id)]
    ids = tx.rows(f"SELECT j.opened_at, j.job_id FROM job j WHERE {' AND '.join(conditions)}"
                  " ORDER BY j.opened_at, j.job_id LIMIT ?", (*bound, limit + 1))
    rows = _jobs(tx, [job_id for _, job_id in ids[:limit]])
    more = f"{ids[limit - 1][0]}-{ids[limit - 1][1]}" if len(ids) > limit else ""
    return rows, more


def _jobs(tx: Tx, job_ids: Sequence[int]) -> list[OpenJob]:
    rows = tx.rows("SELECT job_id, kind, destination, state, reason_code, reason, accession, part, attempts, due_at,"
                   f" opened_at, study_uid FROM job WHERE job_id IN ({marks(job_ids)})", job_ids) if job_ids else []
    studies = rows_of(tx, [row[11] for row in rows if row[11]])
    found = {row[0]: OpenJob(
        job_id=row[0], kind=row[1], destination=row[2], state=State(row[3]), reason_code=row[4], reason=row[5],
        part=row[6] or row[7], attempts=row[8], due_at=row[9], opened_at=row[10], study=studies.get(row[11]),
    ) for row in rows}
    return [found[job_id] for job_id in job_ids if job_id in found]


def terms_of_kind(tx: Tx, kind: TermKind, limit: int = 100) -> list[str]:
    """Return the different terms of a kind in order, by jumps through the index: what a search form offers."""
    found: list[str] = []
    term = ""
    while len(found) < limit:
        row = tx.row("SELECT term FROM study_term WHERE kind = ? AND term > ? ORDER BY kind, term LIMIT 1",
                     (str(kind), term))
        if row is None:
            break
        term = row[0]
        found.append(term)
    return found
