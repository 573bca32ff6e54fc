"""SQL for requests that came with an Idempotency-Key: what was answered, so that a repetition changes nothing.

Written in the transaction of the change itself. Layer 3, imports rows and store. Changes when answers are to be kept
longer. Source: draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from internal.rows import json_object, json_text
from internal.store import Tx

KEPT_MS = 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class Replay:
    """One request: the digest of what was asked, and the answer (a JSON object), None while it is on its way."""

    request_sha256: str
    answer: Mapping[str, Any] | None


def find(tx: Tx, owner: str, key: str, now: int) -> Replay | None:
    """Return what this owner (session or API key) was answered under `key` within the last day, None if nothing."""
    row = tx.row("SELECT request_sha256, answer FROM replay WHERE owner = ? AND replay_key = ? AND at > ?",
                 (owner, key, now - KEPT_MS))
    return Replay(row[0], json_object(row[1]) if row[1] else None) if row else None


def keep(tx: Tx, owner: str, key: str, replay: Replay, now: int) -> bool:
    """Keep an answer for a day; False when another request under the same key was faster: undo what was done.

    Old answers of everybody go at the same time.
    """
    tx.execute("DELETE FROM replay WHERE at <= ?", (now - KEPT_MS,))
    return tx.execute("INSERT INTO replay (owner, replay_key, request_sha256, answer, at) VALUES (?, ?, ?, ?, ?)"
                      " ON CONFLICT (owner, replay_key) DO NOTHING",
                      (owner, key, replay.request_sha256, "" if replay.answer is None else json_text(replay.answer),
                       now)) == 1


def answer(tx: Tx, owner: str, key: str, answered: Mapping[str, Any]) -> None:
    """Keep the answer of a request that was on its way."""
    tx.execute("UPDATE replay SET answer = ? WHERE owner = ? AND replay_key = ?", (json_text(answered), owner, key))


def forget(tx: Tx, owner: str, key: str) -> None:
    """Forget a request that was on its way and changed nothing."""
    tx.execute("DELETE FROM replay WHERE owner = ? AND replay_key = ? AND answer = ''", (owner, key))
