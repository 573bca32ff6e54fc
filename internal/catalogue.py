"""SQL for what people change while the router runs: each change a revision with its author, older ones kept.

Used by `devices`; imports rows and store. Changes when a change has to carry more than who, when and what.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
