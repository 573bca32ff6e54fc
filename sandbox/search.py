"""Search: which values of a resource can be found, and what a query string asks for.

Pure functions between the FHIR verbs and `resources`. Imports `catalogue`. Changes when a search parameter is
added. Unknown parameters are ignored, as Google's store does without `Prefer: handling=strict`.
Source: FHIR R4 search, fact sheet satusehat.md sections 2.2 and 2.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sandbox.catalogue import values_at
from sandbox.http11 import HttpRefused

DEFAULT_COUNT = 100
MAX_COUNT = 1000
VALUE_LIMIT = 100

TOKEN, REFERENCE, STRING = "token", "reference", "string"

PARAMETERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "_id": (TOKEN, ("id",)),
    "identifier": (TOKEN, ("identifier",)),
    "status": (TOKEN, ("status",)),
    "code": (TOKEN, ("code.coding",)),
    "category": (TOKEN, ("category.coding",)),
    "modality": (TOKEN, ("modality", "series.modality")),
    "class": (TOKEN, ("class",)),
    "gender": (TOKEN, ("gender",)),
    "birthdate": (TOKEN, ("birthDate",)),
    "subject": (REFERENCE, ("subject",)),
    "encounter": (REFERENCE, ("encounter",)),
    "basedon": (REFERENCE, ("basedOn",)),
    "performer": (REFERENCE, ("performer", "series.performer.actor")),
    "requester": (REFERENCE, ("requester",)),
    "participant": (REFERENCE, ("participant.individual",)),
    "specimen": (REFERENCE, ("specimen",)),
    "result": (REFERENCE, ("result",)),
    "derived-from": (REFERENCE, ("derivedFrom",)),
    "imaging-study": (REFERENCE, ("imagingStudy",)),
    "organization": (REFERENCE, ("managingOrganization",)),
    "service-provider": (REFERENCE, ("serviceProvider",)),
    "partof": (REFERENCE, ("partOf",)),
    "name": (STRING, ("name.text", "name.family", "name.given", "name")),
}
ALIASES = {"basedOn": "basedon", "based-on": "basedon", "patient": "subject", "imagingStudy": "imaging-study"}

_REFERENCE = re.compile(r"(?:.*/)?([A-Za-z]{1,64})/([A-Za-z0-9.-]{1,64})(?:/_history/.*)?\Z", re.ASCII)
_COMMA = re.compile(r"(?<!\\),")

Term = tuple[str, str, str]


def extract_terms(resource: dict[str, Any]) -> set[Term]:
    """Everything a search can find this resource by: (parameter, system or target type, value)."""
    terms: set[Term] = set()
    for name, (kind, paths) in PARAMETERS.items():
        for path in paths:
            for _, value in values_at(resource, path):
                terms.update((name, *pair) for pair in _pairs(kind, value))
    return terms


def _pairs(kind: str, value: object) -> Iterator[tuple[str, str]]:
    if kind == REFERENCE:
        reference = value.get("reference") if isinstance(value, dict) else None
        match = _REFERENCE.match(reference) if isinstance(reference, str) else None
        if match:
            yield match[1], match[2]
    elif isinstance(value, str):
        yield "", value.casefold() if kind == STRING else value
    elif kind == TOKEN and isinstance(value, dict):
        system, code = value.get("system", ""), value.get("value", value.get("code", ""))
        if isinstance(system, str) and isinstance(code, str):
            yield system, code


@dataclass(slots=True)
class Query:
    """A parsed search: `criteria` are SQL conditions on one term each (all must hold), with their values."""

    criteria: list[tuple[str, str, list[str]]] = field(default_factory=list)
    used: list[tuple[str, str]] = field(default_factory=list)
    count: int = DEFAULT_COUNT
    offset: int = 0
    newest_first: bool = True


def parse_query(pairs: list[tuple[str, str]]) -> Query:
    """Turn query parameters into a Query; raises HttpRefused 400 for a bad `_count` or too many values."""
    query = Query()
    for name, value in pairs:
        if name == "_count":
            query.count = min(_whole(name, value), MAX_COUNT)
        elif name == "_page_token":
            query.offset = _whole(name, value)
        elif name == "_sort":
            query.newest_first = value != "_lastUpdated"
        else:
            _add_criterion(query, name, value)
            continue
        query.used.append((name, value))
    return query


def _add_criterion(query: Query, name: str, value: str) -> None:
    parameter = ALIASES.get(name, name)
    if parameter not in PARAMETERS:
        return
    alternatives = _COMMA.split(value)
    if len(alternatives) > VALUE_LIMIT:
        raise HttpRefused(400, f"more than {VALUE_LIMIT} values in {parameter}")
    clauses, values = [], []
    for alternative in alternatives:
        clause, arguments = _clause(PARAMETERS[parameter][0], alternative.replace("\\,", ","))
        clauses.append(clause)
        values += arguments
    query.criteria.append((parameter, " OR ".join(clauses), values))
    query.used.append((name, value))


def _whole(name: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 9:
        raise HttpRefused(400, f"{name} must be a whole number")
    return int(value)


def _clause(kind: str, value: str) -> tuple[str, list[str]]:
    if kind == REFERENCE:
        match = _REFERENCE.match(value)
        return ("(system = ? AND value = ?)", [match[1], match[2]]) if match else ("value = ?", [value])
    if kind == STRING:
        return "substr(value, 1, ?) = ?", [str(len(value)), value.casefold()]
    system, bar, code = value.partition("|")
    if not bar:
        return "value = ?", [value]
    if not code:
        # The trap of fact sheet section 2.3: an empty code matches every resource that has the system.
        return "system = ?", [system]
    return "(system = ? AND value = ?)", [system, code]
