"""SQL for people's view of the jobs: what `queue`, `retry 2.25.1 ACC7`, the API and the pages ask.

Reads only; called through `jobs`. Imports states, model, rows and store. Changes when people want to see more.
"""
# ruff: noqa: S608 - SQL is composed of our own column lists and placeholders only; every value is bound

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from internal.errors import NotFound
from internal.model import RECEIPTED
from internal.rows import chunks, json_object, marks
from internal.states import State
from internal.store import Row, Tx

_COLUMNS = ("j.job_id, j.kind, j.destination, j.environment, j.study_uid, j.part, j.state, j.reason_code, j.reason,"
            " j.attempts, j.due_at, j.created_at, j.updated_at, j.opened_at, j.waiting_since")
#: Reason of a delivery that is done, and not every receipt of it proves that our bytes are there.
NOT_PROVEN = "not-proven"
DONE_NOT_PROVEN = f"j.state = 'done' AND j.reason_code = '{NOT_PROVEN}'"
_RECEIPTED = ", ".join(f"'{state}'" for state in sorted(RECEIPTED))


@dataclass(frozen=True, slots=True)
class JobRow:
    """One line of `queue`; times in epoch ms, counts of the job's current environment.

    `lane` is the destination. `accession_number` is the job's part; for a job over the whole study its one accession,
    "" if it has none or several. `opened_at`: since when it is unfinished, or was last.
    """

    job_id: int
    kind: str
    lane: str
    environment: str
    study_uid: str
    accession_number: str
    modality: str
    state: State
    reason_code: str
    reason: str
    attempts: int
    due_at: int
    instances: int
    receipts: int
    imaging_study_id: str | None
    created_at: int
    updated_at: int
    opened_at: int
    waiting_since: int | None


def list_jobs(
    tx: Tx, *, state: State | None = None, reason_code: str | None = None, destination: str | None = None,
    limit: int = 1000, before: int | None = None,
) -> list[JobRow]:
    """Return jobs, newest first, at most `limit`; `before` (a job id) goes on where the last page ended."""
    conditions, params = [DONE_NOT_PROVEN if reason_code == NOT_PROVEN else "1 = 1"], list[Any]()
    for condition, value in (("j.state = ?", state and str(state)),
                             ("j.reason_code = ?", reason_code if reason_code != NOT_PROVEN else None),
                             ("j.destination = ?", destination), ("j.job_id < ?", before)):
        if value is not None:
            conditions.append(condition)
            params.append(value)
    return _with_counts(tx, tx.rows(
        f"SELECT {_COLUMNS} FROM job j WHERE {' AND '.join(conditions)} ORDER BY j.job_id DESC LIMIT ?",
        (*params, limit)))


def count_not_proven(tx: Tx) -> dict[str, int]:
    """Return by destination how many finished deliveries have receipts that do not prove that our bytes are there."""
    return dict(tx.rows(f"SELECT j.destination, COUNT(*) FROM job j WHERE {DONE_NOT_PROVEN} GROUP BY j.destination"))


def jobs_of(tx: Tx, study_uid: str) -> list[JobRow]:
    """Return every job of a study, oldest first."""
    return _with_counts(tx, tx.rows(f"SELECT {_COLUMNS} FROM job j WHERE j.study_uid = ? ORDER BY j.job_id",
                                    (study_uid,)))


def job_row(tx: Tx, job_id: int) -> JobRow:
    """Return one job as `list_jobs` shows it. Raises NotFound."""
    rows = tx.rows(f"SELECT {_COLUMNS} FROM job j WHERE j.job_id = ?", (job_id,))
    if not rows:
        raise NotFound(f"no job {job_id}")
    return _with_counts(tx, rows)[0]


def find_jobs(tx: Tx, token: str) -> list[int]:
    """Return the jobs a person means by a Study Instance UID, an accession (blanks around it ignored), or a job id.

    A number that is also an accession means the accession, since hospitals number from 1 as well; ``#12`` always means
    job 12. For an accession: its own job, and jobs over whole studies that hold an instance of it.
    """
    token = token.strip(" \0")
    if not token:
        return []
    wanted_id = token.removeprefix("#")
    is_id = wanted_id.isascii() and wanted_id.isdigit() and len(wanted_id) <= 18
    found = [] if is_id and token.startswith("#") else tx.rows(
        "SELECT job_id FROM job WHERE study_uid = ? UNION SELECT j.job_id FROM job j WHERE j.study_uid IN"
        " (SELECT study_uid FROM study_part WHERE part = ?) AND (j.part = ? OR (j.part = '' AND EXISTS (SELECT 1"
        " FROM item i JOIN instance n ON n.id = i.instance_id WHERE i.job_id = j.job_id AND n.part = ?)))"
        " UNION SELECT job_id FROM job WHERE accession = ?"
        " ORDER BY job_id", (token, token, token, token, token))
    if not found and is_id:
        found = tx.rows("SELECT job_id FROM job WHERE job_id = ?", (int(wanted_id),))
    return [job_id for (job_id,) in found]


def _with_counts(tx: Tx, rows: Sequence[Row]) -> list[JobRow]:
    counts: dict[int, tuple[int, int]] = {}
    facts: dict[int, dict[str, Any]] = {}
    for some in chunks([row[0] for row in rows]):
        listed = f"j.job_id IN ({marks(some)})"
        counts |= {job_id: (instances, receipts) for job_id, instances, receipts in tx.rows(
            f"SELECT j.job_id, COUNT(*), SUM(CASE WHEN i.state IN ({_RECEIPTED}) THEN 1 ELSE 0 END) FROM job j"
            f" JOIN item i ON i.job_id = j.job_id AND i.environment = j.environment WHERE {listed} GROUP BY j.job_id",
            some)}
        facts |= {job_id: json_object(text) for job_id, text in tx.rows(
            "SELECT j.job_id, f.facts FROM job j JOIN job_facts f ON f.job_id = j.job_id"
            f" AND f.environment = j.environment WHERE {listed}", some)}
    uids = sorted({row[4] for row in rows})
    accessions = _grouped(tx, "SELECT study_uid, part FROM study_part WHERE study_uid IN", uids)
    modalities = _grouped(tx, "SELECT DISTINCT study_uid, modality FROM series WHERE study_uid IN", uids)
    return [_job_row(row, counts.get(row[0], (0, 0)), facts.get(row[0], {}), accessions.get(row[4], []),
                     modalities.get(row[4], [])) for row in rows]


def _grouped(tx: Tx, select: str, study_uids: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for some in chunks(study_uids):
        for study_uid, value in tx.rows(f"{select} ({marks(some)})", some):
            found.setdefault(study_uid, []).append(value)
    return found


def _job_row(
    row: Row, counts: tuple[int, int], facts: Mapping[str, Any], accessions: Sequence[str], modalities: Sequence[str],
) -> JobRow:
    part = row[5] or (accessions[0] if len(accessions) == 1 else "")
    return JobRow(
        job_id=row[0], kind=row[1], lane=row[2], environment=row[3], study_uid=row[4], accession_number=part,
        modality=",".join(sorted(filter(None, modalities))), state=State(row[6]), reason_code=row[7], reason=row[8],
        attempts=row[9], due_at=row[10], instances=counts[0], receipts=counts[1],
        imaging_study_id=facts.get("imaging_study_id"), created_at=row[11], updated_at=row[12], opened_at=row[13],
        waiting_since=row[14],
    )
