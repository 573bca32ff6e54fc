"""`rules.json` as typed tables: which elements exist, which codes, which rule guards which element.

Below the validation. Imports the standard library. Changes when the form of rules.json changes; the rules
themselves live in rules.json. Source: fact sheet satusehat.md section 2.6, FHIR R4 resource definitions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True)
class Element:
    """Type of one element; `many` for arrays, `needed` when its parent may not be without it."""

    type_name: str
    many: bool
    needed: bool


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the validation dictionary; `number` is its RuleNumber, None where none is known."""

    number: int | None
    path: str
    need: bool = False
    coded: bool = False
    moment: bool = False
    each_of: str = ""
    codes: str = ""
    one_of: str = ""
    systems: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    identifiers: tuple[str, ...] = ()


class Catalogue:
    """All tables; immutable after construction."""

    def __init__(self) -> None:
        data: dict[str, Any] = json.loads(files("sandbox").joinpath("rules.json").read_text("utf-8"))
        self.types = frozenset(data["types"])
        self.read_only_types = frozenset(data["read_only_types"])
        self.not_updatable_types = frozenset(data["not_updatable_types"])
        self.unique_types = frozenset(data["unique_types"])
        self.creator_types = frozenset(data["creator_types"])
        self.codes = {system: frozenset(codes.split()) for system, codes in data["codes"].items()}
        self.elements = {name: _parse_elements(line) for name, line in data["elements"].items()}
        self.rules = {name: tuple(_parse_rule(rule) for rule in rules) for name, rules in data["rules"].items()}
        self._numbers = {(name, rule.path): rule.number
                         for name, rules in self.rules.items() for rule in rules if rule.number}

    def rule_number(self, type_name: str, path: str) -> int | None:
        """The RuleNumber of the element at `path`, or of the nearest element around it."""
        while path:
            if found := self._numbers.get((type_name, path)):
                return found
            path = path.rpartition(".")[0]
        return None


def _parse_elements(line: str) -> dict[str, Element]:
    found = {}
    for word in line.split():
        name, _, kind = word.partition(":")
        found[name] = Element(kind.rstrip("*!"), "*" in kind, "!" in kind)
    return found


def _parse_rule(data: dict[str, Any]) -> Rule:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value
                              for key, value in data.items() if key != "rule"}
    return Rule(number=data["rule"], **values)


def values_at(value: object, path: str, expression: str = "") -> Iterator[tuple[str, object]]:
    """Every value at a dotted path with its FHIRPath expression; arrays are walked, what does not fit is skipped."""
    if isinstance(value, list):
        for position, item in enumerate(value):
            yield from values_at(item, path, f"{expression}[{position}]")
    elif not path:
        yield expression, value
    elif isinstance(value, dict):
        name, _, rest = path.partition(".")
        if name in value:
            yield from values_at(value[name], rest, f"{expression}.{name}" if expression else name)
