"""Is this JSON a FHIR resource at all: known elements, right JSON types, nothing empty, real dates.

First half of the validation; collects every problem instead of stopping at the first. Imports `catalogue`,
`moments`, `outcome`. Changes when the FHIR store's structural checks change.
Source: FHIR R4 JSON format, fact sheet satusehat.md sections 2.5 and 2.6.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from sandbox.catalogue import Catalogue, Element
from sandbox.moments import parse_moment
from sandbox.outcome import Issue, rule_text

DEPTH_LIMIT = 40
DATE_FORMAT_TEXT = "Invalid date time format. Format allowed : YYYY-MM-DDThh:mm:ss+00:00"

_ID = re.compile(r"[A-Za-z0-9.-]{1,64}\Z", re.ASCII)
_CODE = re.compile(r"\S+( \S+)*\Z")
_DIGITS = re.compile(r"-?\d+\Z", re.ASCII)
_MOMENTS = frozenset({"date", "dateTime", "instant"})
_INTEGERS = {"integer": -(2**31), "unsignedInt": 0, "positiveInt": 1}
_TEXTS = frozenset({"string", "code", "uri", "id"})


@dataclass(slots=True)
class Findings:
    """What the walk saw: problems, references and codings, each with its expression and plain path."""

    issues: list[Issue] = field(default_factory=list)
    references: list[tuple[str, str, str]] = field(default_factory=list)
    codings: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)


class StructureCheck:
    """One walk over one resource of type `type_name`."""

    def __init__(self, catalogue: Catalogue, type_name: str) -> None:
        self._catalogue = catalogue
        self._type_name = type_name
        self.findings = Findings()

    def run(self, resource: dict[str, Any]) -> Findings:
        """Walk the whole resource; types without an element table are checked for empties and references only."""
        self._object(resource, self._type_name, self._type_name, "", 0)
        return self.findings

    def _wrong(self, expression: str, path: str, text: str, code: str = "structure") -> None:
        number = self._catalogue.rule_number(self._type_name, path)
        self.findings.issues.append(Issue(code, rule_text(text, number), expression))

    def _unparseable(self, expression: str, diagnostics: str) -> None:
        self.findings.issues.append(
            Issue("structure", "unparseable_resource", expression, diagnostics, of_store=True))

    def _object(self, value: object, type_name: str, expression: str, path: str, depth: int) -> None:
        if not isinstance(value, dict) or not value:
            self._unparseable(expression, f"invalid value (expected a {type_name} object)"
                                          + (": {}" if value == {} else ": []" if value == [] else ""))
            return
        known = self._catalogue.elements.get(type_name)
        if known is None or depth > DEPTH_LIMIT:
            self._any(value, expression, path, depth)
            return
        self._collect(value, type_name, expression, path)
        common = self._catalogue.elements["Resource"] if type_name == self._type_name else {}
        for name, item in value.items():
            below = f"{path}.{name}" if path else name
            element = known.get(name) or common.get(name)
            if element is not None:
                self._element(item, element, f"{expression}.{name}", below, depth)
            elif name in ("id", "extension", "modifierExtension") or name.startswith("_"):
                self._any(item, f"{expression}.{name}", below, depth)
            else:
                self._unparseable(f"{expression}.{name[:64]}", f'unknown field "{name[:64]}"')
        for name, element in known.items():
            if element.needed and name not in value:
                self._unparseable(expression, f'missing required field "{name}"')

    def _collect(self, value: dict[str, Any], type_name: str, expression: str, path: str) -> None:
        if type_name == "Reference" and isinstance(value.get("reference"), str):
            self.findings.references.append((expression, path, value["reference"]))
        elif type_name == "Coding":
            self.findings.codings.append((expression, path, value))

    def _element(self, value: object, element: Element, expression: str, path: str, depth: int) -> None:
        if element.many:
            # The server itself answers `"identifier": []` on an Observation: it must come back unharmed.
            if value == [] and (self._type_name, path) == ("Observation", "identifier"):
                return
            if not isinstance(value, list) or not value:
                self._unparseable(expression, f"invalid value (expected an array of {element.type_name})"
                                              + (": []" if value == [] else ""))
                return
            for position, item in enumerate(value):
                self._single(item, element.type_name, f"{expression}[{position}]", path, depth + 1)
        else:
            self._single(value, element.type_name, expression, path, depth + 1)

    def _single(self, value: object, type_name: str, expression: str, path: str, depth: int) -> None:
        if type_name == "any":
            self._any(value, expression, path, depth)
        elif type_name in self._catalogue.elements:
            self._object(value, type_name, expression, path, depth)
        else:
            self._primitive(value, type_name, expression, path)

    def _any(self, value: object, expression: str, path: str, depth: int) -> None:
        if value is None or value in ("", [], {}) or (isinstance(value, float) and not math.isfinite(value)):
            self._unparseable(expression, "invalid value: null, empty or not finite")
        elif depth > DEPTH_LIMIT:
            self._unparseable(expression, f"nested deeper than {DEPTH_LIMIT} levels")
        elif isinstance(value, list):
            for position, item in enumerate(value):
                self._any(item, f"{expression}[{position}]", path, depth + 1)
        elif isinstance(value, dict):
            if isinstance(value.get("reference"), str):
                self.findings.references.append((expression, path, value["reference"]))
            for name, item in value.items():
                self._any(item, f"{expression}.{name[:64]}", f"{path}.{name}" if path else name, depth + 1)

    def _primitive(self, value: object, type_name: str, expression: str, path: str) -> None:
        if value is None or isinstance(value, (list, dict)):
            self._unparseable(expression, f"invalid value (expected a {type_name})")
        elif type_name == "boolean":
            if not isinstance(value, bool):
                self._wrong(expression, path, f"Invalid boolean : {path}", "value")
        elif type_name in _INTEGERS or type_name == "decimal":
            self._number(value, type_name, expression, path)
        elif not isinstance(value, str):
            self._wrong(expression, path, rule_text(f"Failed to unmarshal request payload : {path}", 20008))
        elif type_name in _MOMENTS:
            if parse_moment(value, type_name) is None:
                self._wrong(expression, path, DATE_FORMAT_TEXT, "format")
        elif type_name in _TEXTS:
            self._text(value, type_name, expression, path)

    def _number(self, value: object, type_name: str, expression: str, path: str) -> None:
        if isinstance(value, str):
            known = "Integer formatted as a string" if _DIGITS.match(value) else "Invalid decimal/integer"
            self._wrong(expression, path, f"{known} : {path}", "value")
        elif not _is_number(value, type_name):
            self._wrong(expression, path, f"Invalid decimal/integer : {path}", "value")

    def _text(self, value: str, type_name: str, expression: str, path: str) -> None:
        if not value.strip():
            self._wrong(expression, path, f"Element not found : {self._type_name}.{path} must not be empty", "value")
        elif (type_name == "id" and not _ID.match(value)) or (type_name == "code" and not _CODE.match(value)):
            self._wrong(expression, path, f"Invalid {type_name} : {self._type_name}.{path}", "value")
        elif type_name == "uri" and (" " in value or "\n" in value):
            self._wrong(expression, path, f"Invalid uri : {self._type_name}.{path}", "value")


def _is_number(value: object, type_name: str) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    if type_name == "decimal":
        return isinstance(value, int) or math.isfinite(value)
    return isinstance(value, int) and _INTEGERS[type_name] <= value < 2**31
