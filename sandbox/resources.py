"""FHIR resources in SQLite: write, read, find, with an index that may lag behind.

Between the FHIR verbs and `database`. Imports `database`, `search`. Changes when the storing of resources changes.
A written resource can be read at once; its values are found by search `index_delay_s` later, and until then
the values it had before are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sandbox.database import Database, format_last_updated, format_version_id, now_ms
from sandbox.search import Query, extract_terms

FOREVER = 2**62
CREATOR_SYSTEM = "http://sys-ids.kemkes.go.id/creator"


@dataclass(frozen=True, slots=True)
class Stored:
    """One resource as kept: `body` is its JSON with sorted keys."""

    type_name: str
    id: str
    body: str
    version_ns: int

    def resource(self) -> dict[str, Any]:
        """The resource, parsed."""
        found: dict[str, Any] = json.loads(self.body)
        return found


class ResourceTable:
    """All resources; writes must happen inside `database.transaction()`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, resource: dict[str, Any], id_: str, *, index_delay_s: float, is_base: bool = False) -> Stored:
        """Create or replace the resource with this id, stamping id and meta; durable at the commit."""
        type_name = str(resource["resourceType"])
        version_ns = self._database.next_version_ns()
        meta = resource.get("meta") if isinstance(resource.get("meta"), dict) else {}
        stamped = {**resource, "id": id_, "meta": {
            **(meta or {}), "versionId": format_version_id(version_ns), "lastUpdated": format_last_updated(version_ns)}}
        body = json.dumps(stamped, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        self._database.query(
            "INSERT INTO resource (type, id, body, version_ns, created_at, writes, is_base) VALUES (?,?,?,?,?,1,?) "
            "ON CONFLICT (type, id) DO UPDATE SET body = excluded.body, version_ns = excluded.version_ns, "
            "writes = writes + 1", (type_name, id_, body, version_ns, now_ms(), int(is_base)))
        self._index(stamped, type_name, id_, index_delay_s)
        return Stored(type_name, id_, body, version_ns)

    def _index(self, resource: dict[str, Any], type_name: str, id_: str, delay_s: float) -> None:
        now = now_ms()
        visible_at = now + int(delay_s * 1000)
        self._database.query("DELETE FROM term WHERE type=? AND id=? AND (hidden_at<=? OR visible_at>?)",
                             (type_name, id_, now, visible_at))
        self._database.query("UPDATE term SET hidden_at=? WHERE type=? AND id=? AND hidden_at>?",
                             (visible_at, type_name, id_, visible_at))
        rows = [(type_name, id_, *term, visible_at, FOREVER) for term in extract_terms(resource)]
        self._database.write_many("INSERT INTO term VALUES (?,?,?,?,?,?,?)", rows)

    def read(self, type_name: str, id_: str) -> Stored | None:
        """The present version, whatever the index knows of it."""
        rows = self._database.query("SELECT body, version_ns FROM resource WHERE type=? AND id=?", (type_name, id_))
        return Stored(type_name, id_, rows[0][0], rows[0][1]) if rows else None

    def version_ns(self, type_name: str, id_: str) -> int | None:
        """The present version's number, without reading the body."""
        rows = self._database.query("SELECT version_ns FROM resource WHERE type=? AND id=?", (type_name, id_))
        return int(rows[0][0]) if rows else None

    def exists(self, type_name: str, id_: str) -> bool:
        """True when a reference to this resource has a target."""
        return self.version_ns(type_name, id_) is not None

    def find(self, type_name: str, query: Query) -> tuple[int, list[Stored]]:
        """Total number of matches and the page asked for, as far as the index knows by now."""
        now = now_ms()
        where = "type=?"
        values: list[object] = [type_name]
        for parameter, clause, arguments in query.criteria or [("_id", "1", [])]:
            # `clause` is built from constants in search.py; every value is bound.
            where += (f" AND id IN (SELECT id FROM term WHERE type=? AND param=? AND ({clause})"  # noqa: S608
                      " AND visible_at<=? AND hidden_at>?)")
            values += [type_name, parameter, *arguments, now, now]
        order = "DESC" if query.newest_first else "ASC"
        total = self._database.query(f"SELECT count(*) FROM resource WHERE {where}", values)[0][0]  # noqa: S608
        rows = self._database.query(
            f"SELECT id, body, version_ns FROM resource WHERE {where} ORDER BY version_ns {order} "  # noqa: S608
            "LIMIT ? OFFSET ?", [*values, query.count, query.offset])
        return int(total), [Stored(type_name, *row) for row in rows]

    def duplicate_of(self, resource: dict[str, Any], own_id: str | None) -> str | None:
        """Id of another resource of this type with one of its identifiers, indexed yet or not."""
        for param, system, value in extract_terms(resource):
            if param != "identifier" or system == CREATOR_SYSTEM:
                continue
            rows = self._database.query(
                "SELECT id FROM term WHERE type=? AND param='identifier' AND value=? AND system=? AND hidden_at=? "
                "AND id IS NOT ? LIMIT 1", (resource["resourceType"], value, system, FOREVER, own_id))
            if rows:
                return str(rows[0][0])
        return None

    def bodies_by_type(self) -> dict[str, list[str]]:
        """JSON texts of everything written through the platform or the control interface, oldest first."""
        found: dict[str, list[str]] = {}
        for type_name, body in self._database.query(
                "SELECT type, body FROM resource WHERE NOT is_base ORDER BY number"):
            found.setdefault(type_name, []).append(body)
        return found

    def created(self) -> list[dict[str, object]]:
        """When each of them was created and how often it was written (times in UTC epoch milliseconds)."""
        return [{"resourceType": row[0], "id": row[1], "created_at": row[2], "updated_at": row[3] // 1_000_000,
                 "writes": row[4]} for row in self._database.query(
            "SELECT type, id, created_at, version_ns, writes FROM resource WHERE NOT is_base ORDER BY number")]

    def counts(self) -> dict[str, int]:
        """Number of resources per type, base resources left out."""
        return dict(self._database.query("SELECT type, count(*) FROM resource WHERE NOT is_base GROUP BY type"))

    def delete_all(self) -> None:
        """Forget everything except the base resources."""
        self._database.query("DELETE FROM term WHERE (type, id) IN (SELECT type, id FROM resource WHERE NOT is_base)")
        self._database.query("DELETE FROM resource WHERE NOT is_base")
