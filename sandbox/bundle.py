"""The transaction Bundle: all entries are stored, or none.

Sits on top of the FHIR verbs. Imports `fhir`, `outcome`, `resources`. Changes when the platform's rules for
Bundles change. Source: fact sheet satusehat.md section 2.4, rules 20011 and 20017 to 20021.
"""

from __future__ import annotations

import dataclasses
import json
import re
import uuid
from dataclasses import dataclass
from typing import Any

from sandbox.catalogue import Catalogue
from sandbox.database import Database, format_last_updated, format_version_id
from sandbox.fhir import FHIR_PATH, Fhir, FhirRefused, new_id, parse_resource, read_json
from sandbox.http11 import Reply, Request
from sandbox.outcome import Issue, build_outcome, rule_text
from sandbox.resources import ResourceTable, Stored

ENTRY_LIMIT = 500
_PREFIX = "urn:uuid:"
_URL = re.compile(r"/?([A-Za-z]{1,64})(?:/([A-Za-z0-9.-]{1,64}))?/?\Z", re.ASCII)


@dataclass(slots=True)
class Entry:
    """One entry of a transaction: what to write under which id."""

    method: str
    type_name: str
    id: str
    resource: dict[str, Any]


class Transaction:
    """Executes transaction Bundles over the FHIR verbs."""

    def __init__(self, fhir: Fhir, database: Database, resources: ResourceTable, catalogue: Catalogue) -> None:
        self._fhir = fhir
        self._database = database
        self._resources = resources
        self._catalogue = catalogue

    def answer(self, request: Request, base_url: str) -> Reply:
        """POST of a Bundle: 200 with one response per entry, or 400 with all problems and nothing stored."""
        bundle = parse_resource(read_json(request), "Bundle")
        listed = bundle.get("entry")
        if bundle.get("type") != "transaction" or not isinstance(listed, list) or not 0 < len(listed) <= ENTRY_LIMIT:
            text = f"expected a transaction with 1 to {ENTRY_LIMIT} entries"
            return build_outcome([Issue("structure", "unparseable_resource", "Bundle", text, of_store=True)])
        entries, targets = self._parse(listed)
        known = {(entry.type_name, entry.id) for entry in entries}

        def exists(type_name: str, id_: str) -> bool:
            return (type_name, id_) in known or self._resources.exists(type_name, id_)

        issues = []
        for position, entry in enumerate(entries):
            entry.resource = _resolve(entry.resource, targets)
            found = self._fhir.writing_issues(entry.resource) or self._fhir.validate(entry.resource, exists)
            issues += [dataclasses.replace(issue, expression=f"Bundle.entry[{position}].resource.{issue.expression}")
                       for issue in found]
        if issues:
            return build_outcome(issues)
        with self._database.transaction():
            stored = [(entry, self._store(entry)) for entry in entries]
        response = [_build_response(entry, one, base_url) for entry, one in stored]
        text = json.dumps({"entry": response, "resourceType": "Bundle", "total": len(response),
                           "type": "transaction-response"}, sort_keys=True, separators=(",", ":"))
        return Reply(200, text.encode(), "application/json")

    def _parse(self, listed: list[object]) -> tuple[list[Entry], dict[str, str]]:
        entries: list[Entry] = []
        targets: dict[str, str] = {}
        issues: list[Issue] = []
        for position, given in enumerate(listed):
            where = f"Bundle.entry[{position}]"
            entry = self._parse_entry(given)
            if isinstance(entry, str):
                issues.append(Issue("structure", entry, where))
                continue
            full_url = given.get("fullUrl") if isinstance(given, dict) else None
            problem = _full_url_problem(full_url, entry.type_name, targets)
            if problem:
                issues.append(Issue("value", problem, f"{where}.fullUrl"))
            else:
                targets[str(full_url)] = f"{entry.type_name}/{entry.id}"
            entries.append(entry)
        if issues:
            raise FhirRefused(build_outcome(issues))
        return entries, targets

    def _parse_entry(self, given: object) -> Entry | str:
        """The entry, or the text of what is wrong with it."""
        resource = given.get("resource") if isinstance(given, dict) else None
        wanted = given.get("request") if isinstance(given, dict) else None
        if not isinstance(resource, dict) or not isinstance(wanted, dict):
            return rule_text("Failed to unmarshal request payload", 20008)
        type_name = resource.get("resourceType")
        if type_name == "Bundle":
            return rule_text("Forbidden nested bundle", 20011)
        match = _URL.match(wanted["url"]) if isinstance(wanted.get("url"), str) else None
        if not match or match[1] != type_name or match[1] not in self._catalogue.types:
            return rule_text("Failed to unmarshal request payload", 20008)
        method = wanted.get("method")
        if method == "POST" and not match[2]:
            return Entry("POST", match[1], new_id(match[1]), resource)
        if method == "PUT" and match[2] and match[2] == resource.get("id"):
            return Entry("PUT", match[1], match[2], resource)
        return "request.method must be POST to a type, or PUT to the id of the resource"

    def _store(self, entry: Entry) -> Stored:
        if entry.method == "POST":
            return self._fhir.store_new(entry.resource, entry.id)
        return self._fhir.store_again(entry.resource, entry.id)


def _full_url_problem(full_url: object, type_name: str, targets: dict[str, str]) -> str:
    if full_url is None:
        return rule_text(f"Invalid resource {type_name} due to missing fullUrl element", 20021)
    start = f"Invalid element {type_name}.fullUrl due to "
    if not isinstance(full_url, str) or not full_url.startswith(_PREFIX):
        return rule_text(f"{start}invalid fullUrl format. It must begin with 'urn:uuid'", 20018)
    try:
        uuid.UUID(full_url[len(_PREFIX):])
    except ValueError:
        return rule_text(f"{start}invalid UUID format", 20019)
    if full_url in targets:
        return rule_text(f"{start}duplicate fullUrl: {full_url[:64]}", 20020)
    return ""


def _resolve(value: Any, targets: dict[str, str]) -> Any:
    """A copy of `value` in which references to entries of the Bundle name the ids they get."""
    if isinstance(value, list):
        return [_resolve(item, targets) for item in value]
    if isinstance(value, dict):
        return {key: targets.get(item, item) if key == "reference" and isinstance(item, str)
                else _resolve(item, targets) for key, item in value.items()}
    return value


def _build_response(entry: Entry, stored: Stored, base_url: str) -> dict[str, object]:
    version_id = format_version_id(stored.version_ns)
    return {"response": {
        "etag": f'W/"{version_id}"', "lastModified": format_last_updated(stored.version_ns),
        "location": f"{base_url}{FHIR_PATH}/{entry.type_name}/{entry.id}/_history/{version_id}",
        "status": "201 Created" if entry.method == "POST" else "200 OK",
        "resourceType": entry.type_name, "resourceID": entry.id}}
