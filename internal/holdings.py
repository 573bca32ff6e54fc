"""SQL for retention: which bytes may go, which are going, which are gone; rows and receipts stay for ever.

Called by `retain` alone, inside its transactions. Layer 3, imports decisions and store. Changes when "confirmed" or
"kept" means something new. Source: the map, section 6 "Retention".
"""
# ruff: noqa: S608 - conditions are composed of constants of this module; every value is bound

from __future__ import annotations

from dataclasses import dataclass

from internal.decisions import Kind
from internal.store import Tx

# Nothing of this study is on its way or disputed: settled, without conflict, every delivery done with its last
# revision, and no other job that still wants bytes.
_STUDY_AT_REST = (
    "s.conflict = 0 AND s.revision = s.settled_revision"
    " AND EXISTS (SELECT 1 FROM job j WHERE j.study_uid = s.study_uid AND j.kind = 'deliver')"
    " AND NOT EXISTS (SELECT 1 FROM job j WHERE j.study_uid = s.study_uid AND j.kind = 'deliver'"
    " AND (j.state <> 'done' OR j.done_revision < j.settled_revision OR j.done_revision < s.settled_revision))"
    " AND NOT EXISTS (SELECT 1 FROM job j WHERE j.study_uid = s.study_uid AND j.kind NOT IN ('deliver', 'notify')"
    " AND j.state NOT IN ('done', 'held', 'cancelled'))")
# This very image was there when its study was discarded, long enough ago, and nothing of the study was taken up again.
_DISCARDED = ("EXISTS (SELECT 1 FROM decision d WHERE d.study_uid = n.study_uid AND d.kind = 'discard'"
              " AND d.revoked_at IS NULL AND d.at < ? AND n.arrived_at <= d.at) AND NOT EXISTS (SELECT 1 FROM job j"
              " WHERE j.study_uid = n.study_uid AND j.kind = 'deliver' AND j.state NOT IN ('held', 'cancelled'))")
_HELD = "n.purged_at IS NULL AND n.purging_at IS NULL AND n.location LIKE ?"


@dataclass(frozen=True, slots=True)
class Rules:
    """What may go: older than `confirmed_before` and confirmed, or discarded before `discarded_before` (epoch ms).

    `receipts` are the item states that count as confirmed. What a modality was promised later than `committed_before`
    to be kept is never "confirmed" yet.
    """

    confirmed_before: int
    discarded_before: int
    receipts: tuple[str, ...]
    committed_before: int = 0


def _confirmed(rules: Rules) -> str:
    """Return the condition on instance `n` that each item of it has a receipt that counts, and that it has one."""
    listed = ", ".join(f"'{state}'" for state in rules.receipts)
    return (f"n.is_current = 1 AND (n.committed_at IS NULL OR n.committed_at < {rules.committed_before})"
            " AND EXISTS (SELECT 1 FROM item i WHERE i.instance_id = n.id)"
            " AND NOT EXISTS (SELECT 1 FROM item i JOIN job j ON j.job_id = i.job_id WHERE i.instance_id = n.id"
            f" AND j.kind = 'deliver' AND i.environment = j.environment AND i.state NOT IN ({listed}))")


def studies_to_purge(tx: Tx, rules: Rules, node: str, limit: int) -> list[str]:
    """Return studies with bytes on `node` that may go, longest without a new image first."""
    ours = f"spool:{node}/%"
    held = f"EXISTS (SELECT 1 FROM instance n WHERE n.study_uid = s.study_uid AND {_HELD} AND"
    rows = tx.rows(
        f"SELECT study_uid FROM study s WHERE s.purged = 0 AND s.last_arrived_at < ? AND {_STUDY_AT_REST}"
        f" AND {held} {_confirmed(rules)}) ORDER BY s.last_arrived_at, s.study_uid LIMIT ?",
        (rules.confirmed_before, ours, limit))
    rows += tx.rows(
        "SELECT study_uid FROM study s WHERE s.purged = 0 AND s.study_uid IN (SELECT study_uid FROM decision"
        f" WHERE kind = 'discard' AND revoked_at IS NULL) AND {held} {_DISCARDED}) ORDER BY s.study_uid LIMIT ?",
        (ours, rules.discarded_before, limit))
    return [uid for (uid,) in rows]


def mark_purging(tx: Tx, study_uid: str, rules: Rules, node: str, now: int, limit: int) -> int:
    """Mark up to `limit` instances of a study whose bytes may go; return how many. Locks the study's row first."""
    tx.row(f"SELECT 1 FROM study WHERE study_uid = ?{tx.for_update}", (study_uid,))
    at_rest = tx.row(f"SELECT 1 FROM study s WHERE s.study_uid = ? AND s.last_arrived_at < ? AND {_STUDY_AT_REST}",
                     (study_uid, rules.confirmed_before))
    condition, params = (_confirmed(rules), []) if at_rest else (_DISCARDED, [rules.discarded_before])
    return tx.execute(
        "UPDATE instance SET purging_at = ? WHERE id IN (SELECT n.id FROM instance n WHERE n.study_uid = ?"
        f" AND {_HELD} AND {condition} LIMIT ?)", (now, study_uid, f"spool:{node}/%", *params, limit))


def strays(tx: Tx, rules: Rules, node: str, limit: int) -> list[str]:
    """Return marked instances that must stay after all: somebody asked to send them again between two passes.

    Reads only, and with nothing marked it costs one look at an index.
    """
    return [id_ for (id_,) in tx.rows(
        "SELECT n.id FROM instance n JOIN study s ON s.study_uid = n.study_uid WHERE n.purging_at IS NOT NULL"
        f" AND n.purged_at IS NULL AND n.location LIKE ? AND NOT {_may_go(rules)} LIMIT ?",
        (f"spool:{node}/%", rules.discarded_before, limit))]


def unmark(tx: Tx, instance_ids: list[str]) -> None:
    """Take instances back that were marked and are not gone."""
    tx.executemany("UPDATE instance SET purging_at = NULL WHERE id = ? AND purged_at IS NULL",
                   [(id_,) for id_ in instance_ids])


def _may_go(rules: Rules) -> str:
    """Return the condition on instance `n` of study `s` that it may go, whatever its age; one parameter."""
    return f"(({_STUDY_AT_REST} AND {_confirmed(rules)}) OR ({_DISCARDED}))"


def purging(tx: Tx, rules: Rules, node: str, before: int, limit: int) -> list[tuple[str, str, int]]:
    """Return (id, study, bytes) of instances marked before `before` that may still go.

    A reader that had the row has had its time.
    """
    return [(row[0], row[1], row[2]) for row in tx.rows(
        "SELECT n.id, n.study_uid, n.dataset_bytes FROM instance n JOIN study s ON s.study_uid = n.study_uid"
        " WHERE n.purging_at IS NOT NULL AND n.purging_at < ? AND n.purged_at IS NULL AND n.location LIKE ?"
        f" AND {_may_go(rules)} LIMIT ?", (before, f"spool:{node}/%", rules.discarded_before, limit))]


def duplicates_of(tx: Tx, instance_id: str) -> list[str]:
    """Return the entries that brought the same content again: they go with the first."""
    return [id_ for (id_,) in tx.rows("SELECT id FROM duplicate WHERE of_id = ?", (instance_id,))]


def mark_purged(tx: Tx, instance_ids: list[str], now: int) -> None:
    """Write down that the files are gone; a study of which nothing is left is not looked at again."""
    tx.executemany("UPDATE instance SET purged_at = ? WHERE id = ?", [(now, id_) for id_ in instance_ids])
    tx.executemany(
        "UPDATE study SET purged = 1 WHERE study_uid = (SELECT study_uid FROM instance WHERE id = ?) AND NOT EXISTS"
        " (SELECT 1 FROM instance n WHERE n.study_uid = study.study_uid AND n.purged_at IS NULL)",
        [(id_,) for id_ in instance_ids[-1:]])


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes and instances kept for one reason: ``confirmed``, a state such as ``waiting`` or ``held/no-order``."""

    why: str
    instances: int
    size_bytes: int


def shares(tx: Tx) -> list[Share]:
    """Return what the bytes still held are kept for, largest first; a study counts under its most urgent delivery."""
    rows = tx.rows(
        "SELECT why, SUM(instances), SUM(size) FROM (SELECT COUNT(*) AS instances, SUM(n.dataset_bytes) AS size,"
        " COALESCE((SELECT j.state || CASE WHEN j.reason_code = '' THEN '' ELSE '/' || j.reason_code END FROM job j"
        " WHERE j.study_uid = n.study_uid AND j.kind = 'deliver' ORDER BY CASE j.state WHEN 'held' THEN 0"
        " WHEN 'waiting' THEN 1 WHEN 'done' THEN 9 ELSE 2 END, j.job_id LIMIT 1), 'receiving') AS why"
        " FROM instance n WHERE n.purged_at IS NULL GROUP BY n.study_uid) AS kept GROUP BY why ORDER BY 3 DESC, why")
    return [Share(row[0].replace("done", "delivered"), int(row[1]), int(row[2])) for row in rows]


def is_discarded(tx: Tx, study_uid: str) -> bool:
    """Return whether the study lies in the recycle area or has left it."""
    return tx.row("SELECT 1 FROM decision WHERE study_uid = ? AND kind = ? AND revoked_at IS NULL",
                  (study_uid, str(Kind.DISCARD))) is not None
