"""SQL for what people change while the router runs: each change a revision with its author, older ones kept.

Used by `devices` and `rule_rows`; imports rows and store. Changes when a change has to carry more than who,
when and what.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from internal.errors import NotFound
from internal.rows import json_object, json_text
from internal.store import Tx


def record(tx: Tx, kind: str, name: str, body: Mapping[str, Any] | None, *, author: str, now: int) -> int:
    """Write a new revision of (kind, name) and return its number; `body` None takes the name out."""
    revision = 1 + int(tx.value("SELECT COALESCE(MAX(revision), 0) FROM catalogue WHERE kind = ? AND name = ?",
                                (kind, name)))
    tx.execute("INSERT INTO catalogue (kind, name, revision, author, at, body) VALUES (?, ?, ?, ?, ?, ?)",
               (kind, name, revision, author, now, None if body is None else json_text(body)))
    return revision


def current(tx: Tx, kind: str) -> dict[str, Mapping[str, Any]]:
    """Return the newest body of every name of this kind that has one."""
    rows = tx.rows("SELECT c.name, c.body FROM catalogue c WHERE c.kind = ? AND c.body IS NOT NULL AND c.revision ="
                   " (SELECT MAX(o.revision) FROM catalogue o WHERE o.kind = c.kind AND o.name = c.name)"
                   " ORDER BY c.name", (kind,))
    return {name: json_object(body) for name, body in rows}


@dataclass(frozen=True, slots=True)
class Change:
    """One revision: who wrote what and when (epoch ms); `body` None: taken out."""

    revision: int
    author: str
    at: int
    body: Mapping[str, Any] | None
    restored_revision: int | None


def history(tx: Tx, kind: str, name: str) -> list[Change]:
    """Return every revision of a name, newest first."""
    return [Change(revision, author, at, None if body is None else json_object(body), restored)
            for revision, author, at, body, restored in tx.rows(
                "SELECT revision, author, at, body, restored_revision FROM catalogue WHERE kind = ? AND name = ?"
                " ORDER BY revision DESC", (kind, name))]


def restore(tx: Tx, kind: str, name: str, revision: int, *, author: str, now: int) -> int:
    """Write the body of an earlier revision as a new one and return its number. Raises NotFound."""
    row = tx.row("SELECT body FROM catalogue WHERE kind = ? AND name = ? AND revision = ?", (kind, name, revision))
    if row is None:
        raise NotFound(f"{kind} {name} has no revision {revision}")
    body = None if row[0] is None else json_object(row[0])
    written = record(tx, kind, name, body, author=author, now=now)
    tx.execute("UPDATE catalogue SET restored_revision = ? WHERE kind = ? AND name = ? AND revision = ?",
               (revision, kind, name, written))
    return written


def token(tx: Tx, kind: str) -> int:
    """Return a number that grows with every change of this kind."""
    return int(tx.value("SELECT COUNT(*) FROM catalogue WHERE kind = ?", (kind,)))
