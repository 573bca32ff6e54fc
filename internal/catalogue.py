"""SQL for what people change while the router runs: each change a revision with its author, older ones kept.

Used by `devices`, `corrections` (aliases), `lane_settings` and the rules; imports rows and store. What each kind means
stands with its writer; `settings_rows` is the one way back to an earlier revision. Changes when a change has to carry
more than who, when and what.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from internal.errors import NotAllowed, NotFound, Transient
from internal.rows import json_object, json_text
from internal.store import Tx

_COLUMNS = "kind, name, revision, author, at, body, restored_revision"
_MAX_BODY_CHARS = 200_000
_TRIES = 10
_SECRET = re.compile(r"passw(or)?d|secret|token|credential|(api|private|client|access)[-_ ]?key", re.IGNORECASE)
_NAMED = re.compile(r"_(name|from|env|file|ref)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Revision:
    """One change: `body` None took the name out; `restores`: the earlier revision that it brought back. `at` in ms."""

    kind: str
    name: str
    revision: int
    author: str
    at: int
    body: Mapping[str, Any] | None
    restores: int | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that differs between two revisions; None where there is none. `path` is such as ``when.modality``."""

    path: str
    before: Any
    after: Any


def record(
    tx: Tx, kind: str, name: str, body: Mapping[str, Any] | None, *, author: str, now: int, restores: int | None = None,
) -> int:
    """Write a new revision of (kind, name) and return its number; `body` None takes the name out.

    What is in force already makes no new revision: the number of that one is returned (0: there never was any). Two who
    write at once get two revisions, in the order of their commits. Raises NotAllowed for a body that holds a secret
    (rows name secrets: a key that ends in ``_name``, ``_env`` or ``_file``) or is larger than 200,000 characters.
    """
    text = None if body is None else json_text(body)
    _refuse(body, text)
    for _ in range(_TRIES):
        row = tx.row("SELECT revision, body FROM catalogue WHERE kind = ? AND name = ? ORDER BY revision DESC LIMIT 1",
                     (kind, name))
        newest, before = row if row else (0, None)
        if before == text or (before and text and json_object(before) == json_object(text)):
            return int(newest)
        if tx.execute("INSERT INTO catalogue (kind, name, revision, author, at, body, restored_revision)"
                      " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kind, name, revision) DO NOTHING",
                      (kind, name, newest + 1, author, now, text, restores)):
            return int(newest) + 1
    raise Transient("too many people change this at once", code="busy")


def _refuse(body: Mapping[str, Any] | None, text: str | None) -> None:
    if text is not None and len(text) > _MAX_BODY_CHARS:
        raise NotAllowed("this setting is too large")
    for key, value in _leaves(body or {}):
        last = key.rpartition(".")[2]
        if value and _SECRET.search(last) and not _NAMED.search(last):
            raise NotAllowed(f"{last} would be a secret in the database: name it there, keep it in a file or variable")


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{path}.{number}")
    else:
        yield path, value


def current(tx: Tx, kind: str) -> dict[str, Mapping[str, Any]]:
    """Return the newest body of every name of this kind that has one."""
    return {one.name: one.body for one in in_force(tx, kind) if one.body is not None}


def in_force(tx: Tx, kind: str) -> list[Revision]:
    """Return the newest revision of every name of this kind that has a body, by name."""
    rows = tx.rows(f"SELECT {_COLUMNS} FROM catalogue c WHERE c.kind = ? AND c.body IS NOT NULL AND c.revision ="  # noqa: S608 - our columns
                   " (SELECT MAX(o.revision) FROM catalogue o WHERE o.kind = c.kind AND o.name = c.name)"
                   " ORDER BY c.name", (kind,))
    return [_revision(row) for row in rows]


def newest(tx: Tx, kind: str, name: str) -> Revision | None:
    """Return the newest revision of (kind, name), also one without a body; None if there never was any."""
    found = history(tx, kind, name, limit=1)
    return found[0] if found else None


def history(tx: Tx, kind: str, name: str, *, limit: int = 100, before: int | None = None) -> list[Revision]:
    """Return the revisions of (kind, name), newest first, at most `limit`, only those below number `before`."""
    rows = tx.rows(f"SELECT {_COLUMNS} FROM catalogue WHERE kind = ? AND name = ? AND revision < ?"  # noqa: S608 - our columns
                   " ORDER BY revision DESC LIMIT ?", (kind, name, before or 1 << 31, limit))
    return [_revision(row) for row in rows]


def revision(tx: Tx, kind: str, name: str, number: int) -> Revision:
    """Return one revision; raises NotFound."""
    found = history(tx, kind, name, limit=1, before=number + 1)
    if not found or found[0].revision != number:
        raise NotFound(f"{kind} {name} has no revision {number}")
    return found[0]


def _revision(row: Sequence[Any]) -> Revision:
    kind, name, number, author, at, body, restores = row
    return Revision(kind, name, number, author, at, None if body is None else json_object(body), restores)


def differences(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[Difference]:
    """Return what differs between two bodies, value by value, in the order of their paths."""
    old, new = dict(_leaves(before or {})), dict(_leaves(after or {}))
    return [Difference(path, old.get(path), new.get(path)) for path in sorted(old.keys() | new.keys())
            if json.dumps(old.get(path)) != json.dumps(new.get(path))]


def shadowed(tx: Tx, kind: str, names: Collection[str]) -> list[str]:
    """Return which of `names`, those of the file, are names of rows too: an error at load, whichever came later."""
    return sorted(set(names) & current(tx, kind).keys())


def token(tx: Tx, kind: str) -> int:
    """Return a number that grows with every change of this kind."""
    return int(tx.value("SELECT COUNT(*) FROM catalogue WHERE kind = ?", (kind,)))
