"""SQL for the audit trail: who did what, when, from where, before and after, and who looked at whose data.

Rows are only added; each carries a SHA-256 over the one before and itself, so that `verify` sees a changed, removed or
inserted row, and together with the head kept outside the database (`HeadFile`) a truncated trail. Layer 3, imports
rows and store. Changes when an entry has to say something new. Source: PS3.15 A.5, IHE ATNA (what is worth recording).
"""
# ruff: noqa: S608 - SQL is composed of our own column lists only; every value is bound

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from internal.filelock import Lock
from internal.rows import json_object, json_text
from internal.store import Row, Store, Tx, storable

log = logging.getLogger("router.audit")

VIEW_AGAIN_MS = 600_000
_COLUMNS = "seq, at, author, address, session, action, subject, study_uid, fields, hash"
_MAX_TEXT = 500
_MAX_FIELDS_CHARS = 20_000
_NO_HASH = "0" * 64


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the trail.

    Attributes
    ----------
    seq : 1, 2, 3 ... without gaps. at : UTC epoch ms.
    author : ``user:NAME``, ``key:NAME``, ``cli:ACCOUNT`` or ``system``; address : where from, "" for this machine.
    session : id of the login session or API key, "" for none.
    action : such as ``lane.pause`` or ``patient.view``; subject : what it was done to.
    study_uid : whose data was looked at or changed, "" for none.
    fields : before, after and more; JSON values, never a secret.
    """

    seq: int
    at: int
    author: str
    address: str
    session: str
    action: str
    subject: str
    study_uid: str
    fields: Mapping[str, Any]
    hash: str = field(repr=False)


def append(
    tx: Tx, action: str, *, author: str, now: int, address: str = "", session: str = "", subject: str = "",
    study_uid: str = "", fields: Mapping[str, Any] | None = None,
) -> Entry:
    """Add one entry in the transaction of what it tells; durable with it. Writers take turns by the head row."""
    tx.execute("INSERT INTO audit_head (one, seq, hash) VALUES (1, 0, ?) ON CONFLICT (one) DO NOTHING", (_NO_HASH,))
    head = tx.row(f"SELECT seq, hash FROM audit_head WHERE one = 1{tx.for_update}")
    assert head is not None  # inserted above
    texts = [storable(text[:_MAX_TEXT]) for text in (author, address, session, action, subject, study_uid)]
    body = storable(json_text(dict(fields or {})))
    if len(body) > _MAX_FIELDS_CHARS:
        body = json_text({"too_long": len(body), "sha256": hashlib.sha256(body.encode()).hexdigest()})
    row: Row = (head[0] + 1, now, *texts, body)
    digest = _chained(head[1], row)
    tx.execute(f"INSERT INTO audit ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, digest))
    tx.execute("UPDATE audit_head SET seq = ?, hash = ? WHERE one = 1", (row[0], digest))
    return _entry((*row, digest))


def viewed_lately(tx: Tx, session: str, action: str, subject: str, study_uid: str, now: int) -> bool:
    """Return whether this session already has this entry, not older than ten minutes."""
    return tx.value("SELECT 1 FROM audit WHERE session = ? AND session <> '' AND action = ? AND subject = ?"
                    " AND study_uid = ? AND at > ? LIMIT 1",
                    (session, action, storable(subject[:_MAX_TEXT]), study_uid, now - VIEW_AGAIN_MS)) is not None


def entries(
    tx: Tx, *, before_seq: int | None = None, author: str = "", action: str = "", study_uid: str = "", limit: int = 100,
) -> list[Entry]:
    """Return entries, newest first, below `before_seq`; `action` also finds what begins with it and a dot."""
    conditions, params = ["1 = 1"], list[Any]()
    for condition, value in (("author = ?", author), ("study_uid = ?", study_uid)):
        if value:
            conditions.append(condition)
            params.append(value)
    if action:
        conditions.append("(action = ? OR (action > ? AND action < ?))")
        params += [action, f"{action}.", f"{action}/"]
    if before_seq is not None:
        conditions.append("seq < ?")
        params.append(before_seq)
    return [_entry(row) for row in tx.rows(
        f"SELECT {_COLUMNS} FROM audit WHERE {' AND '.join(conditions)} ORDER BY seq DESC LIMIT ?", (*params, limit))]


def entries_after(tx: Tx, seq: int, limit: int) -> list[Entry]:
    """Return the entries behind `seq`, oldest first: for exports and verification."""
    return [_entry(row) for row in tx.rows(
        f"SELECT {_COLUMNS} FROM audit WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit))]


def head(tx: Tx) -> tuple[int, str]:
    """Return (seq, hash) of the newest entry as the writers know it, (0, zeros) for an empty trail."""
    row = tx.row("SELECT seq, hash FROM audit_head WHERE one = 1")
    return (row[0], row[1]) if row else (0, _NO_HASH)


def faults(tx: Tx, kept: tuple[int, str] | None, batch: int = 1000) -> Iterator[str]:
    """Walk the whole trail and yield a sentence for everything that is wrong with it.

    `kept` is the head that was kept outside the database (HeadFile.read), None for none.
    """
    seq, digest = 0, _NO_HASH
    while rows := tx.rows(f"SELECT {_COLUMNS} FROM audit WHERE seq > ? ORDER BY seq LIMIT ?", (seq, batch)):
        for row in rows:
            if row[0] != seq + 1:
                yield f"entries {seq + 1} to {row[0] - 1} are missing"
            elif _chained(digest, row[:-1]) != row[-1]:
                yield f"entry {row[0]} was changed, or put in later"
            seq, digest = row[0], row[-1]
            if kept is not None and kept[0] == seq and kept[1] != digest:
                yield f"entry {seq} is not the one that was last written from this machine"
    if head(tx) != (seq, digest):
        yield f"the trail ends at entry {seq}, but the database recorded its end as entry {head(tx)[0]}"
    if kept is not None and kept[0] > seq:
        yield f"the trail ends at entry {seq}, but this machine wrote up to entry {kept[0]}: its end was cut off," \
              " or an older backup was restored"


def exported(tx: Tx, name: str) -> int:
    """Return up to which entry the exporter `name` has got, 0 for none."""
    return int(tx.value("SELECT seq FROM audit_export WHERE name = ?", (name,)) or 0)


def claim_export(tx: Tx, name: str, owner: str, now: int, lease_ms: int) -> int | None:
    """Let `owner` export for the next `lease_ms`; return the entry it goes on behind, None while another does it."""
    tx.execute("INSERT INTO audit_export (name, seq) VALUES (?, 0) ON CONFLICT (name) DO NOTHING", (name,))
    changed = tx.execute("UPDATE audit_export SET leased_by = ?, lease_until = ? WHERE name = ?"
                         " AND (leased_by = ? OR lease_until < ?)", (owner, now + lease_ms, name, owner, now))
    return exported(tx, name) if changed else None


def advance_export(tx: Tx, name: str, owner: str, seq: int) -> None:
    """Write down that everything up to `seq` was sent; nothing changes if the lease has gone to somebody else."""
    tx.execute("UPDATE audit_export SET seq = ? WHERE name = ? AND leased_by = ? AND seq < ?", (seq, name, owner, seq))


class HeadFile:
    """data_dir/audit.head: the newest entry this machine has written, kept outside the database."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "audit.head"
        self._is_told = False

    def read(self) -> tuple[int, str] | None:
        """Return (seq, hash), None if there is no file or it is not readable as one."""
        try:
            seq, _, digest = self.path.read_text(encoding="ascii").strip().partition(" ")
            return (int(seq), digest) if len(digest) == 64 else None
        except (OSError, ValueError):
            return None

    def keep(self, entry: Entry, store: Store) -> None:
        """Write down the newest entry after its commit; never goes back.

        A trail that no longer has the kept entry was rewritten: the kept one stays, so that `faults` says so until
        somebody has looked and removed the file. Raises OSError, AlreadyRunning, StorageFailed, Transient.
        """
        with Lock.acquire(self.path.with_name("audit.head.lock"), 5):
            kept = self.read()
            if kept is not None and kept[0] >= entry.seq:
                return
            if kept is not None and not self._holds(store, kept):
                return
            fresh = self.path.with_name("audit.head.new")
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(f"{entry.seq} {entry.hash}\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)

    def _holds(self, store: Store, kept: tuple[int, str]) -> bool:
        """Return whether the trail still has the kept entry; logged once if not."""
        with store.reading() as tx:
            if tx.value("SELECT hash FROM audit WHERE seq = ?", (kept[0],)) == kept[1]:
                return True
        if not self._is_told:
            log.error("the audit trail no longer has entry %d as this machine wrote it: run `audit verify`", kept[0])
            self._is_told = True
        return False


def _chained(before: str, row: Row) -> str:
    names = _COLUMNS.split(", ")[:-1]
    text = json.dumps(dict(zip(names, row, strict=True)), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(before.encode() + text.encode()).hexdigest()


def _entry(row: Row) -> Entry:
    return Entry(row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], json_object(row[8]), row[9])
