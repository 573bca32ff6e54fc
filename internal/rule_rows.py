"""SQL for rules: those of the catalogue, every set that was in force, where studies were sent, pseudonyms.

Layer 3, imports catalogue, rules, rows and store. Changes when more of a rule or of a routing has to be remembered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from internal import catalogue
from internal.rows import json_object, json_text
from internal.rules import Routing, RuleText
from internal.store import Tx

KIND: Final = "rule"


# --- the catalogue -------------------------------------------------------------------------------------------------

def catalogue_texts(tx: Tx) -> list[RuleText]:
    """Return the rules of the catalogue in their order: by position, then by name."""
    bodies = catalogue.current(tx, KIND)
    ordered = sorted(bodies.items(), key=lambda one: (int(one[1].get("position", 0)), one[0]))
    return [text_of(name, body) for name, body in ordered]


def text_of(name: str, body: Mapping[str, Any]) -> RuleText:
    """Return the text of a rule as the catalogue keeps it."""
    return RuleText(name, {str(key): str(value) for key, value in body["entries"].items()}, origin=f"rule {name}")


def write_rule(
    tx: Tx, name: str, body: Mapping[str, Any] | None, *, author: str, now: int, restores: int | None = None,
) -> int:
    """Write a new revision of a rule and return its number; the caller compiles all rules before it commits.

    `body` has "entries" (text by key) and, for its place among the others, "position"; None takes the rule out. Raises
    ValueError for anything else.
    """
    if not re.fullmatch(r"[a-z0-9_-]{1,32}", name):
        raise ValueError("a rule's name is 1 to 32 of a-z, 0-9, - and _")
    if body is not None:
        body = _checked(body)
    return catalogue.record(tx, KIND, name, body, author=author, now=now, restores=restores)


def _checked(body: Mapping[str, Any]) -> dict[str, Any]:
    entries, position = body.get("entries"), body.get("position", 0)
    if set(body) - {"entries", "position"} or not isinstance(entries, Mapping) or not isinstance(position, int):
        raise ValueError("a rule has entries, and a position that is a whole number")
    if not all(isinstance(key, str) and isinstance(value, str) for key, value in entries.items()):
        raise ValueError("the entries of a rule are texts")
    return {"entries": dict(entries), "position": position}


# --- sets that were in force ---------------------------------------------------------------------------------------

def keep_set(tx: Tx, revision: str, texts: Sequence[RuleText], now: int) -> None:
    """Keep the texts of a set under its revision for ever: recipes name it."""
    body = json.dumps({"rules": [text.body() for text in texts]}, separators=(",", ":"))
    tx.execute("INSERT INTO rule_set (revision, at, body) VALUES (?, ?, ?) ON CONFLICT (revision) DO UPDATE"
               " SET at = excluded.at", (revision, now, body))


def kept_set(tx: Tx, revision: str) -> list[RuleText] | None:
    """Return the texts of a set that was in force, None if it is not known."""
    body = tx.value("SELECT body FROM rule_set WHERE revision = ?", (revision,))
    return None if body is None else _texts(body)


def newest_set(tx: Tx) -> list[RuleText] | None:
    """Return the texts of the set with rules that came into force last, None if there was none."""
    body = tx.value("SELECT body FROM rule_set WHERE revision <> '' ORDER BY at DESC, revision LIMIT 1")
    return None if body is None else _texts(body)


def newest_revision(tx: Tx) -> str | None:
    """Return the revision of the set that came into force last, None if there was none."""
    found: str | None = tx.value("SELECT revision FROM rule_set ORDER BY at DESC, revision DESC LIMIT 1")
    return found


def _texts(body: str) -> list[RuleText]:
    return [RuleText(one["name"], one["entries"], origin=f"rule {one['name']}") for one in json_object(body)["rules"]]


# --- where studies were sent ---------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class Routed:
    """Where a study was sent when it was last planned; `at` in epoch ms. `destinations`: instances by name."""

    study_uid: str
    rules: str
    at: int
    nowhere: bool
    destinations: Mapping[str, int]
    fired: tuple[str, ...]
    holds: tuple[tuple[str, str], ...]
    kept_by: str


def note_routing(tx: Tx, study_uid: str, rules: str, routing: Routing, now: int) -> bool:
    """Write down where a study goes; return whether that is news."""
    body = json_text({"destinations": {name: len(chosen) for name, chosen in routing.destinations.items()},
                      "fired": list(routing.fired), "holds": [list(one) for one in routing.holds],
                      "kept_by": routing.kept_by})
    if tx.value("SELECT body FROM routing WHERE study_uid = ? AND rules = ?", (study_uid, rules)) == body:
        return False
    tx.execute("INSERT INTO routing (study_uid, rules, at, nowhere, body) VALUES (?, ?, ?, ?, ?)"
               " ON CONFLICT (study_uid) DO UPDATE SET rules = excluded.rules, at = excluded.at,"
               " nowhere = excluded.nowhere, body = excluded.body",
               (study_uid, rules, now, int(not routing.destinations), body))
    return True


def routing_of(tx: Tx, study_uid: str) -> Routed | None:
    """Return where a study was sent, None if it was never planned."""
    row = tx.row("SELECT study_uid, rules, at, nowhere, body FROM routing WHERE study_uid = ?", (study_uid,))
    return None if row is None else _routed(row)


def routed_nowhere(tx: Tx, limit: int = 1000) -> list[Routed]:
    """Return the studies that were sent to no destination, newest first."""
    return [_routed(row) for row in tx.rows(
        "SELECT study_uid, rules, at, nowhere, body FROM routing WHERE nowhere = 1 ORDER BY at DESC, study_uid"
        " LIMIT ?", (limit,))]


def _routed(row: Sequence[Any]) -> Routed:
    body = json_object(row[4])
    return Routed(row[0], row[1], row[2], bool(row[3]), body["destinations"], tuple(body["fired"]),
                  tuple((name, reason) for name, reason in body["holds"]), body["kept_by"])


# --- pseudonyms ----------------------------------------------------------------------------------------------------

def keep_pseudonyms(tx: Tx, sealed: Mapping[str, str], key_id: str, now: int) -> None:
    """Keep encrypted originals by pseudonym; one that is known stays as it is."""
    tx.executemany("INSERT INTO pseudonym (pseudonym, key_id, at, body) VALUES (?, ?, ?, ?)"
                   " ON CONFLICT (pseudonym) DO NOTHING",
                   [(pseudonym, key_id, now, body) for pseudonym, body in sorted(sealed.items())])


def sealed_original(tx: Tx, pseudonym: str) -> tuple[str, str] | None:
    """Return (key id, encrypted original) of a pseudonym, None if it never left here."""
    row = tx.row("SELECT key_id, body FROM pseudonym WHERE pseudonym = ?", (pseudonym,))
    return None if row is None else (row[0], row[1])
