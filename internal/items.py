"""SQL for what a step does under its lease: items, facts and intents of one job.

Called by `worker` on behalf of a destination; every write is guarded by the job's lease. Imports model, rows and store.
Changes when a delivery has to remember something new about one instance or one request.
"""
# ruff: noqa: S608 - SQL is composed of our own column lists and placeholders only; every value is bound

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from internal.errors import BytesDamaged, LeaseLost
from internal.model import FAILED, FINAL, Instance, Intent, Item, ItemState, Job
from internal.rows import INSTANCE_COLUMNS, chunks, instance_from, json_object, json_text, marks, select_instance
from internal.store import Row, Tx

_WIDTH = len(INSTANCE_COLUMNS)
_ITEM_COLUMNS = "i.item_id, i.job_id, i.state, i.sha256, i.size_bytes, i.recipe, i.sends, i.answer"
_FAILED = ", ".join(f"'{state}'" for state in sorted(FAILED))
_FINAL = ", ".join(f"'{state}'" for state in sorted(FINAL))


def guard(tx: Tx, job: Job, *, write: bool = True) -> None:
    """Raise LeaseLost unless `job.lease` still owns the job; for a write, lock its row until the transaction ends."""
    lock = tx.for_update if write else ""
    if not job.lease or tx.row(f"SELECT 1 FROM job WHERE job_id = ? AND lease = ? AND state = 'active'{lock}",
                               (job.job_id, job.lease)) is None:
        raise LeaseLost(f"job {job.job_id} belongs to another worker now, or a person stopped it")


def note_progress(tx: Tx, job: Job) -> None:
    """Forget earlier lost leases: the worker that has come further did not die where the last one died."""
    tx.execute("UPDATE job SET lease_losses = 0 WHERE job_id = ? AND lease_losses > 0", (job.job_id,))


# --- items ---------------------------------------------------------------------------------------------------------

def add_items(tx: Tx, job_id: int, environment: str, instances: Sequence[Instance], revision: int) -> list[Instance]:
    """Insert a DUE item for each instance that has none in this environment; return those instances, in their order."""
    known = {id_ for (id_,) in tx.rows("SELECT instance_id FROM item WHERE job_id = ? AND environment = ?",
                                       (job_id, environment))}
    missing = [one for one in instances if one.id not in known]
    tx.executemany("INSERT INTO item (job_id, environment, instance_id, revision, state) VALUES (?, ?, ?, ?, 'due')",
                   [(job_id, environment, one.id, revision) for one in missing])
    return missing


def copy_items(tx: Tx, job_id: int, environment: str) -> int:
    """Make every current instance that the job ever had an item for DUE in another environment; return how many."""
    return tx.execute(
        "INSERT INTO item (job_id, environment, instance_id, revision, state)"
        " SELECT i.job_id, ?, i.instance_id, MAX(i.revision), 'due' FROM item i JOIN instance n ON n.id = i.instance_id"
        " WHERE i.job_id = ? AND n.is_current = 1 GROUP BY i.job_id, i.instance_id ORDER BY MIN(i.item_id)"
        " ON CONFLICT (job_id, instance_id, environment) DO NOTHING", (environment, job_id))


def due_again(tx: Tx, job_id: int, environment: str) -> int:
    """Make refused and skipped items DUE again, with the same frozen bytes: a person has asked for them once more."""
    return tx.execute("UPDATE item SET state = 'due' WHERE job_id = ? AND environment = ?"
                      " AND state IN ('refused', 'skipped')", (job_id, environment))


def waive_failed(tx: Tx, job_id: int, environment: str) -> int:
    """Make refused and conflicting items WAIVED, because a person accepts that they do not arrive; return how many."""
    return tx.execute(f"UPDATE item SET state = 'waived' WHERE job_id = ? AND environment = ? AND state IN ({_FAILED})",
                      (job_id, environment))


def unfinished_items(tx: Tx, job_id: int, environment: str, revision: int) -> int:
    """Return how many items planned up to `revision` have no final answer."""
    return int(tx.value(f"SELECT COUNT(*) FROM item WHERE job_id = ? AND environment = ? AND revision <= ?"
                        f" AND state NOT IN ({_FINAL})", (job_id, environment, revision)))


def newest_item_revision(tx: Tx, job_id: int, environment: str) -> int | None:
    """Return the settled revision that brought the job's newest item, None if it has no items."""
    found: int | None = tx.value("SELECT MAX(revision) FROM item WHERE job_id = ? AND environment = ?",
                                 (job_id, environment))
    return found


def items(tx: Tx, job: Job, states: Iterable[ItemState], limit: int, after: int = 0) -> list[Item]:
    """Return up to `limit` items beyond id `after` of the job and environment in one of `states`, in sending order.

    Raises LeaseLost.
    """
    guard(tx, job, write=False)
    wanted = sorted(states)
    rows = tx.rows(
        f"SELECT {select_instance('n')}, {_ITEM_COLUMNS} FROM item i JOIN instance n ON n.id = i.instance_id"
        f" WHERE i.job_id = ? AND i.environment = ? AND i.state IN ({marks(wanted)}) AND i.item_id > ?"
        " ORDER BY i.item_id LIMIT ?",
        (job.job_id, job.environment, *wanted, after, limit))
    return [_item(row) for row in rows]


def _item(row: Row) -> Item:
    return _item_from(row[_WIDTH:], instance_from(row))


def _item_from(row: Row, instance: Instance) -> Item:
    item_id, job_id, state, sha256, size_bytes, recipe, sends, answer = row
    return Item(item_id=item_id, job_id=job_id, instance=instance, state=ItemState(state), sha256=sha256,
                size_bytes=size_bytes, recipe=json_object(recipe), sends=sends, answer=json_object(answer))


def items_of(tx: Tx, job_id: int, environment: str) -> list[Item]:
    """Return every item of a job in sending order; for people and audits, so without a lease."""
    return [_item(row) for row in tx.rows(
        f"SELECT {select_instance('n')}, {_ITEM_COLUMNS} FROM item i JOIN instance n ON n.id = i.instance_id"
        " WHERE i.job_id = ? AND i.environment = ? ORDER BY i.item_id", (job_id, environment))]


def send_again(tx: Tx, items: Sequence[Item]) -> None:
    """Make items DUE again that have a receipt, because the other side was found not to have them.

    Their frozen bytes stay the same; the receipt is kept inside the answer. Call it with the job reopened in the same
    transaction.
    """
    tx.executemany("UPDATE item SET state = 'due', answer = ? WHERE item_id = ?",
                   [(json_text({"lost_receipt": dict(item.answer)}), item.item_id) for item in items])


def count_items(tx: Tx, job: Job) -> dict[ItemState, int]:
    """Return how many items of the job and its environment are in each state; for people too, so without a lease."""
    return {ItemState(state): count for state, count in tx.rows(
        "SELECT state, COUNT(*) FROM item WHERE job_id = ? AND environment = ? GROUP BY state",
        (job.job_id, job.environment))}


def mark_sent(tx: Tx, job: Job, frozen: Sequence[tuple[Item, str, int, Mapping[str, Any]]]) -> list[Item]:
    """Write down (item, SHA-256, size in bytes, recipe) before the first byte leaves; return the items as they are now.

    Raises LeaseLost, and BytesDamaged when an item that was frozen before would leave with other bytes: nothing is
    written then.
    """
    guard(tx, job)
    wanted = [item.item_id for item, *_ in frozen]
    known: dict[int, str] = {}
    for some in chunks(wanted):
        known |= dict(tx.rows(f"SELECT item_id, sha256 FROM item WHERE job_id = ? AND environment = ?"
                              f" AND item_id IN ({marks(some)})", (job.job_id, job.environment, *some)))
    for item, sha256, _, _ in frozen:
        if known[item.item_id] not in ("", sha256):
            raise BytesDamaged(f"instance {item.instance.header.sop_uid} was sent before with other bytes than now")
    tx.executemany("UPDATE item SET state = 'sent', sha256 = ?, size_bytes = ?, recipe = ?, sends = sends + 1"
                   " WHERE item_id = ?",
                   [(sha256, size, json_text(recipe), item.item_id) for item, sha256, size, recipe in frozen])
    sent: dict[int, Row] = {}
    for some in chunks(wanted):
        sent |= {row[0]: row for row in tx.rows(
            f"SELECT {_ITEM_COLUMNS} FROM item i WHERE i.item_id IN ({marks(some)})", some)}
    return [_item_from(sent[item.item_id], item.instance) for item, *_ in frozen]


def take_back(tx: Tx, job: Job, items: Sequence[Item]) -> None:
    """Undo the `mark_sent` that returned these items, because their requests surely were not carried out: no attempt.

    One that was never sent otherwise is DUE again, with nothing frozen. Needs no lease, since whoever lost it still
    knows what did not leave; what was marked or answered since stays as it is.
    """
    tx.executemany(
        "UPDATE item SET sends = sends - 1, state = CASE WHEN sends > 1 THEN state ELSE 'due' END,"
        " sha256 = CASE WHEN sends > 1 THEN sha256 ELSE '' END,"
        " size_bytes = CASE WHEN sends > 1 THEN size_bytes ELSE 0 END,"
        " recipe = CASE WHEN sends > 1 THEN recipe ELSE '{}' END"
        " WHERE item_id = ? AND job_id = ? AND environment = ? AND state = 'sent' AND sends = ?",
        [(item.item_id, job.job_id, job.environment, item.sends) for item in items])


def settle_items(tx: Tx, job: Job, answers: Sequence[tuple[Item, ItemState, Mapping[str, Any]]]) -> None:
    """Write down the other side's answers; counts as progress. A receipt is never taken back. Raises LeaseLost."""
    guard(tx, job)
    tx.executemany("UPDATE item SET state = ?, answer = ? WHERE item_id = ? AND job_id = ?"
                   " AND environment = ? AND state <> 'stored'",
                   [(str(state), json_text(answer), item.item_id, job.job_id, job.environment)
                    for item, state, answer in answers])
    note_progress(tx, job)


def revise_receipts(tx: Tx, job: Job, answers: Sequence[tuple[Item, ItemState, Mapping[str, Any]]]) -> None:
    """Replace the receipts of STORED items by what the other side says when it is asked to stand by them.

    The one way in which a receipt is taken back: by the word of who gave it. Raises LeaseLost.
    """
    guard(tx, job)
    tx.executemany("UPDATE item SET state = ?, answer = ? WHERE item_id = ? AND job_id = ? AND environment = ?"
                   " AND state = 'stored'",
                   [(str(state), json_text(answer), item.item_id, job.job_id, job.environment)
                    for item, state, answer in answers])
    note_progress(tx, job)


# --- facts ---------------------------------------------------------------------------------------------------------

def facts_of(tx: Tx, job_id: int, environment: str) -> dict[str, Any]:
    """Return what the other side has told us about the job's study in `environment`."""
    text = tx.value("SELECT facts FROM job_facts WHERE job_id = ? AND environment = ?", (job_id, environment))
    return json_object(text) if text else {}


def sibling_facts(tx: Tx, job: Job) -> list[Mapping[str, Any]]:
    """Return the facts of the study's other jobs of the same kind, destination and environment, in a stable order."""
    return [json_object(text) for (text,) in tx.rows(
        "SELECT f.facts FROM job j JOIN job_facts f ON f.job_id = j.job_id AND f.environment = j.environment"
        " WHERE j.study_uid = ? AND j.kind = ? AND j.destination = ? AND j.environment = ? AND j.job_id <> ?"
        " ORDER BY j.job_id", (job.study_uid, job.kind, job.destination, job.environment, job.job_id))]


def record_facts(tx: Tx, job: Job, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Merge JSON values into the facts of the job's environment (None removes a key) and return all of them.

    Counts as progress. Raises LeaseLost.
    """
    guard(tx, job)
    merged = {key: value for key, value in {**facts_of(tx, job.job_id, job.environment), **facts}.items()
              if value is not None}
    tx.execute("INSERT INTO job_facts (job_id, environment, facts) VALUES (?, ?, ?)"
               " ON CONFLICT (job_id, environment) DO UPDATE SET facts = excluded.facts",
               (job.job_id, job.environment, json_text(merged)))
    note_progress(tx, job)
    return merged


def forget_facts(tx: Tx, job_id: int, environment: str, *names: str) -> None:
    """Remove facts of a job that nobody works on, so that its next step finds them out again."""
    kept = {key: value for key, value in facts_of(tx, job_id, environment).items() if key not in names}
    tx.execute("UPDATE job_facts SET facts = ? WHERE job_id = ? AND environment = ?",
               (json_text(kept), job_id, environment))


# --- intents -------------------------------------------------------------------------------------------------------

_INTENT_COLUMNS = "intent_id, job_id, verb, opened_at, deadline_at, answered_at, answer"


def open_intent(tx: Tx, job: Job, verb: str, *, now: int, deadline_at: int, margin_ms: int = 5000) -> Intent:
    """Write down that a non-repeatable request is about to leave and will be over at `deadline_at` (epoch ms).

    The lease is extended where needed, to `margin_ms` beyond the deadline. Send only after the commit.
    Raises LeaseLost.
    """
    guard(tx, job)
    needed = tx.clock_ms(now) + (deadline_at - now) + margin_ms
    tx.execute("UPDATE job SET lease_until = ? WHERE job_id = ? AND lease_until < ?", (needed, job.job_id, needed))
    row = tx.row("INSERT INTO intent (job_id, environment, verb, opened_at, deadline_at) VALUES (?, ?, ?, ?, ?)"
                 f" RETURNING {_INTENT_COLUMNS}", (job.job_id, job.environment, verb, now, deadline_at))
    assert row is not None  # RETURNING of an INSERT
    return _intent(row)


def unanswered_intent(tx: Tx, job: Job, verb: str) -> Intent | None:
    """Return the newest intent of the job's environment whose reply was never read, if any. Raises LeaseLost."""
    guard(tx, job, write=False)
    row = tx.row(f"SELECT {_INTENT_COLUMNS} FROM intent WHERE job_id = ? AND verb = ? AND environment = ?"
                 " AND answered_at IS NULL ORDER BY intent_id DESC LIMIT 1", (job.job_id, verb, job.environment))
    return _intent(row) if row else None


def close_intent(tx: Tx, job: Job, intent: Intent, answer: Mapping[str, Any], now: int) -> None:
    """Write down the answer to `intent`; an answer that came earlier stays. Raises LeaseLost."""
    guard(tx, job)
    tx.execute("UPDATE intent SET answered_at = ?, answer = ? WHERE intent_id = ? AND job_id = ?"
               " AND answered_at IS NULL", (now, json_text(answer), intent.intent_id, job.job_id))


def _intent(row: Row) -> Intent:
    return Intent(intent_id=row[0], job_id=row[1], verb=row[2], opened_at=row[3], deadline_at=row[4],
                  answered_at=row[5], answer=json_object(row[6]))
