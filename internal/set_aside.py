"""SQL for entries that make trouble: those being parsed when the process died, and those that were set aside.

Called by `indexer` (which sets aside), `jobs` (a study that lacks an image is never done), `conditions`, and by pages
and commands for people.
Imports store. Changes when more is known of an image that cannot be indexed.
"""

# ruff: noqa: S608 - only text of ours is composed into SQL

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from internal.store import Tx


@dataclass(frozen=True, slots=True)
class SetAside:
    """One entry of bad/: `study_uid` is "" when nothing tells which study it belongs to; times in epoch ms.

    `accepted_at` is when a person let its study go without it, None while nobody has.
    """

    entry_id: str
    reason: str
    at: int
    study_uid: str
    association_id: str
    accepted_at: int | None


def note_bad(tx: Tx, entry_id: str, reason: str, now: int, *, study_uid: str = "", association_id: str = "") -> bool:
    """Write down that an entry was set aside, why, and the study that lacks it as far as anybody knows; True if new.

    Without `study_uid` the study counts that was noted before parsing, else the only one its association carried. A
    study that loses an image this way gets revision + 1, so that it settles again and its jobs are looked at. Noting
    the same entry again changes nothing.
    """
    study_uid = study_uid or str(tx.value("SELECT study_uid FROM parsing WHERE entry_id = ?", (entry_id,)) or "")
    study_uid = study_uid or _only_study_of(tx, association_id)
    added = tx.execute("INSERT INTO bad (entry_id, reason, at, study_uid, association_id) VALUES (?, ?, ?, ?, ?)"
                       " ON CONFLICT (entry_id) DO NOTHING", (entry_id, reason, now, study_uid, association_id))
    parsing_done(tx, [entry_id])
    if added and study_uid:
        _unsettle(tx, study_uid, now)
    return bool(added)


def _only_study_of(tx: Tx, association_id: str) -> str:
    if not association_id:
        return ""
    rows = tx.rows("SELECT study_uid FROM association_study WHERE association_id = ? LIMIT 2", (association_id,))
    return str(rows[0][0]) if len(rows) == 1 else ""


def _unsettle(tx: Tx, study_uid: str, now: int) -> None:
    tx.execute("UPDATE study SET revision = revision + 1, unsettled_since = COALESCE(unsettled_since, ?)"
               " WHERE study_uid = ?", (now, study_uid))


def claim_of_association(tx: Tx, association_id: str, studies: Mapping[str, int], now: int) -> None:
    """Give entries of an association that has ended to the studies that lack them: `studies` says how many each had.

    That is more certain than what was thought before. No-op where it does not tell: the association carried several
    studies, and these lack more than was set aside (an image that came twice counts once here).
    """
    entries = [(str(entry_id), str(study_uid)) for entry_id, study_uid in tx.rows(
        "SELECT entry_id, study_uid FROM bad WHERE association_id = ? AND accepted_at IS NULL ORDER BY entry_id",
        (association_id,))]
    if not entries:
        return
    lacking = Counter({uid: count - _indexed_of(tx, association_id, uid) for uid, count in studies.items()})
    if len(studies) == 1:
        lacking = Counter({uid: len(entries) for uid in studies})
    if min(lacking.values(), default=0) < 0 or lacking.total() != len(entries):
        return
    astray = []
    for entry_id, study_uid in entries:
        if lacking[study_uid] > 0:
            lacking[study_uid] -= 1
        else:
            astray.append((entry_id, study_uid))
    moves = [(uid, entry_id) for uid, (entry_id, _) in zip(lacking.elements(), astray, strict=True)]
    tx.executemany("UPDATE bad SET study_uid = ? WHERE entry_id = ?", moves)
    for uid in sorted({uid for uid, _ in moves} | {was for _, was in astray if was}):
        _unsettle(tx, uid, now)


def _indexed_of(tx: Tx, association_id: str, study_uid: str) -> int:
    return int(tx.value("SELECT COUNT(*) FROM instance WHERE study_uid = ? AND association_id = ?",
                        (study_uid, association_id)))


def missing(tx: Tx, study_uid: str) -> int:
    """Return how many instances of the study were set aside and not yet accepted as missing by a person."""
    return int(tx.value("SELECT COUNT(*) FROM bad WHERE study_uid = ? AND accepted_at IS NULL", (study_uid,)))


def accept_missing(tx: Tx, study_uid: str, now: int) -> int:
    """Write down that a person lets the study go without its set-aside instances; return how many."""
    return tx.execute("UPDATE bad SET accepted_at = ? WHERE study_uid = ? AND accepted_at IS NULL", (now, study_uid))


def list_set_aside(tx: Tx, limit: int = 1000, *, open_only: bool = False) -> list[SetAside]:
    """Return what lies in bad/, newest first, at most `limit`; with `open_only` what nobody has accepted as missing."""
    only = "WHERE accepted_at IS NULL" if open_only else ""
    return [SetAside(*row) for row in tx.rows(
        f"SELECT entry_id, reason, at, study_uid, association_id, accepted_at FROM bad {only}"
        " ORDER BY at DESC, entry_id DESC LIMIT ?", (limit,))]


def count_open(tx: Tx, since: int = 0) -> tuple[int, int]:
    """Return how many were set aside since `since` and not accepted as missing, and when the first of them was."""
    row = tx.row("SELECT COUNT(*), MIN(at) FROM bad WHERE accepted_at IS NULL AND at >= ?", (since,))
    return (int(row[0]), int(row[1] or 0)) if row else (0, 0)


def parsing_started(tx: Tx, entry_ids: Sequence[str]) -> dict[str, int]:
    """Write down that these entries are about to be parsed; return how often each was started, this time included.

    What `parsing_done` has not removed when the process starts again was being parsed when it died: an entry whose
    count would pass 2 is to be set aside by the caller.
    """
    tx.executemany("INSERT INTO parsing (entry_id, starts) VALUES (?, 1) ON CONFLICT (entry_id) DO UPDATE SET"
                   " starts = parsing.starts + 1", [(entry_id,) for entry_id in entry_ids])
    interrupted = parsing_interrupted(tx)
    return {entry_id: interrupted[entry_id] for entry_id in entry_ids}


def parsing_belongs(tx: Tx, entry_id: str, study_uid: str) -> None:
    """Write down the study of an entry that is being parsed, in case it ends the process once more."""
    tx.execute("UPDATE parsing SET study_uid = ? WHERE entry_id = ?", (study_uid, entry_id))


def parsing_done(tx: Tx, entry_ids: Sequence[str]) -> None:
    """Forget that these entries are being parsed; call it in the transaction that adds them."""
    tx.executemany("DELETE FROM parsing WHERE entry_id = ?", [(entry_id,) for entry_id in entry_ids])


def parsing_interrupted(tx: Tx) -> dict[str, int]:
    """Return the entries whose parsing has not ended, with how often it was started."""
    return dict(tx.rows("SELECT entry_id, starts FROM parsing"))
