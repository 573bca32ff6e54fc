"""The platform's business rules: mandatory elements, code systems, identifiers, references, plausible dates.

Second half of the validation; collects every problem. Imports `catalogue`, `moments`, `options`, `outcome`,
`structure`. Changes when a kind of rule is added; single rules are lines of rules.json.
Source: fact sheet satusehat.md section 2.6 (official validation dictionary).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sandbox.catalogue import Catalogue, Rule, values_at
from sandbox.moments import is_before, is_future, parse_moment
from sandbox.options import ORGANIZATION_ID, Options
from sandbox.outcome import Issue, rule_text
from sandbox.structure import Findings, StructureCheck

LOINC = "http://loinc.org"

_ORGANIZATION = re.compile(r"https?://sys-ids\.kemkes\.go\.id/[a-z_-]+/([^/]+)")
_REFERENCE = re.compile(r"([A-Za-z]{1,64})/([A-Za-z0-9.-]{1,64})\Z", re.ASCII)
_LOINC_CODE = re.compile(r"(\d{1,7})-(\d)\Z", re.ASCII)

Exists = Callable[[str, str], bool]


def is_loinc_code(code: str) -> bool:
    """True when the check digit is right (mod 10), which stands in for a copy of LOINC."""
    match = _LOINC_CODE.match(code)
    if not match:
        return False
    total = 0
    for position, digit in enumerate(reversed(match[1])):
        product = int(digit) * (2 if position % 2 == 0 else 1)
        total += product // 10 + product % 10
    return (10 - total % 10) % 10 == int(match[2])


class Validator:
    """Checks resources against everything the platform is known to refuse."""

    def __init__(self, catalogue: Catalogue, options: Options) -> None:
        self._catalogue = catalogue
        self._options = options

    def check(self, resource: dict[str, Any], type_name: str, exists: Exists) -> list[Issue]:
        """All problems of one resource, none if it may be stored; `exists` tells whether a reference has a target."""
        findings = StructureCheck(self._catalogue, type_name).run(resource)
        issues = findings.issues
        for rule in self._catalogue.rules.get(type_name, ()):
            issues += self._rule(resource, type_name, rule)
        issues += self._codings(findings, type_name)
        issues += self._references(findings, type_name, exists)
        issues += _identifiers(resource, type_name, self._catalogue.rule_number(type_name, "identifier"))
        if type_name == "Encounter":
            issues += _encounter(resource)
        return list(dict.fromkeys(issues))

    def _rule(self, resource: dict[str, Any], type_name: str, rule: Rule) -> list[Issue]:
        found = [(f"{type_name}.{where}", value) for where, value in values_at(resource, rule.path)]
        issues = _missing(found, type_name, rule)
        for where, value in found:
            if rule.codes and isinstance(value, str) and value not in self._catalogue.codes[rule.codes]:
                issues.append(_code_not_found(where, value, rule.codes, rule.number))
            if rule.systems:
                issues += _systems(where, value, rule)
            if rule.targets:
                issues += _target(where, value, rule)
            if rule.identifiers:
                issues += _identifier_system(where, value, rule)
            if rule.moment and isinstance(value, str):
                issues += self._moment(where, value, rule)
        return issues

    def _moment(self, where: str, value: str, rule: Rule) -> list[Issue]:
        moment = parse_moment(value, "dateTime")
        if moment is None:
            return []
        if is_future(moment):
            return [Issue("value", rule_text("Invalid date time value. It must not be in the future", rule.number),
                          where)]
        if is_before(value, self._options.date_floor):
            text = f"Invalid date time value. It must not be before {self._options.date_floor.isoformat()}"
            return [Issue("value", rule_text(text, rule.number), where)]
        return []

    def _codings(self, findings: Findings, type_name: str) -> list[Issue]:
        issues = []
        for where, path, coding in findings.codings:
            system, code = coding.get("system"), coding.get("code", "")
            if not isinstance(system, str) or not isinstance(code, str):
                continue
            known = self._catalogue.codes.get(system)
            if (known is not None and code not in known) or (system == LOINC and not is_loinc_code(code)):
                issues.append(_code_not_found(f"{where}.code", code, system,
                                              self._catalogue.rule_number(type_name, path)))
        return issues

    def _references(self, findings: Findings, type_name: str, exists: Exists) -> list[Issue]:
        issues, seen = [], {}
        for where, path, reference in findings.references:
            match = _REFERENCE.match(reference)
            if reference.startswith("#"):
                continue
            if not match or match[1] not in self._catalogue.types:
                number = self._catalogue.rule_number(type_name, path)
                issues.append(Issue("value", rule_text(f"Invalid reference : {type_name}.{path}", number), where))
                continue
            if reference not in seen:
                seen[reference] = exists(match[1], match[2])
            if not seen[reference]:
                issues.append(Issue("value", rule_text(f"Resource not found {reference}", 20007), where))
        return issues


def _missing(found: list[tuple[str, object]], type_name: str, rule: Rule) -> list[Issue]:
    name = f"{type_name}.{rule.path}"
    if rule.need and not [value for _, value in found if value not in (None, "", [], {})]:
        text = f"Reference is mandatory : {name}" if rule.targets else f"Element not found : {name} must not be empty"
        return [Issue("value", rule_text(text, rule.number), name)]
    if rule.coded and not any(_codings_of(value) for _, value in found):
        return [Issue("value", rule_text(f"Element not found : {name}.coding must not be empty", rule.number), name)]
    if rule.one_of and not any(_reference_of(value).startswith(rule.one_of + "/") for _, value in found):
        return [Issue("value", rule_text(f"Reference is mandatory : {name} -> {rule.one_of}", rule.number), name)]
    return []


def _codings_of(value: object) -> list[dict[str, Any]]:
    """The codings of a CodeableConcept, or a Coding itself as the only one."""
    if not isinstance(value, dict):
        return []
    codings = value.get("coding", [] if "text" in value and "system" not in value else [value])
    return [coding for coding in codings if isinstance(coding, dict)] if isinstance(codings, list) else []


def _reference_of(value: object) -> str:
    reference = value.get("reference") if isinstance(value, dict) else None
    return reference if isinstance(reference, str) else ""


def _code_not_found(where: str, code: str, system: str, number: int | None) -> Issue:
    return Issue("value", rule_text(f"Code not found: '{code[:64]}' in system: {system}", number), where)


def _systems(where: str, value: object, rule: Rule) -> list[Issue]:
    issues = []
    for coding in _codings_of(value):
        system = coding.get("system", "")
        if not isinstance(system, str) or not any(
                system == allowed or system.startswith(allowed + "/") for allowed in rule.systems):
            issues.append(Issue("value", rule_text(f"Invalid coding system: '{str(system)[:128]}'", rule.number),
                                where))
    return issues


def _target(where: str, value: object, rule: Rule) -> list[Issue]:
    reference = _reference_of(value)
    if not reference:
        return [Issue("value", rule_text(f"Reference is mandatory : {where}", rule.number), where)]
    if reference.partition("/")[0] not in rule.targets:
        text = f"Invalid reference : {where} must be a {' or '.join(rule.targets)}"
        return [Issue("value", rule_text(text, rule.number), where)]
    return []


def _identifier_system(where: str, value: object, rule: Rule) -> list[Issue]:
    system = value.get("system") if isinstance(value, dict) else None
    allowed = [pattern.replace("{org}", ORGANIZATION_ID) for pattern in rule.identifiers]
    if isinstance(system, str) and system not in allowed and not _foreign(system):
        return [Issue("value", rule_text("Invalid identifier system", rule.number), f"{where}.system")]
    return []


def _foreign(system: str) -> bool:
    match = _ORGANIZATION.match(system)
    return match is not None and match[1] != ORGANIZATION_ID


def _identifiers(resource: dict[str, Any], type_name: str, number: int | None) -> list[Issue]:
    """Every identifier needs system and value, and may name no other organisation (rule 10200)."""
    issues = []
    for found_at, identifier in values_at(resource, "identifier"):
        where = f"{type_name}.{found_at}"
        if not isinstance(identifier, dict):
            continue
        for name in ("system", "value"):
            if name not in identifier:
                issues.append(Issue("value", rule_text(f"Element not found : {where}.{name} must not be empty",
                                                       number), where))
        system, value = identifier.get("system"), identifier.get("value")
        if isinstance(system, str) and _foreign(system):
            issues.append(Issue("value", rule_text("wrong organization ID provided by system URL", 10200),
                                f"{where}.system"))
        if system == "urn:dicom:uid" and isinstance(value, str) and not value.startswith("urn:oid:"):
            issues.append(Issue("value", rule_text("Invalid identifier value : expected urn:oid:{uid}", number), where))
    return issues


def _encounter(resource: dict[str, Any]) -> list[Issue]:
    """Rules that span elements: closed history entries, and what a finished encounter needs."""
    issues = []
    history = resource.get("statusHistory")
    for position, entry in enumerate(history if isinstance(history, list) else []):
        period = entry.get("period") if isinstance(entry, dict) else None
        if not isinstance(period, dict) or "start" not in period or "end" not in period:
            issues.append(Issue("value", rule_text("Element not found : start and end of every statusHistory.period",
                                                   10122), f"Encounter.statusHistory[{position}].period"))
    if resource.get("status") == "finished":
        if not list(values_at(resource, "period.end")):
            issues.append(Issue("value", rule_text("Element not found : Encounter.period.end of a finished encounter",
                                                   10121), "Encounter.period"))
        if not list(values_at(resource, "diagnosis.condition")):
            issues.append(Issue("value", rule_text("Reference is mandatory : Encounter.diagnosis.condition", 10457),
                                "Encounter.diagnosis"))
    if not ends_after(resource, resource):
        issues.append(Issue("structure", "fhirpath-constraint-violation-Encounter.period",
                            "Encounter.period", "end must be after start", of_store=True))
    return issues


def ends_after(first: dict[str, Any], later: dict[str, Any]) -> bool:
    """False when the period of `later` ends before or at the start of the period of `first`."""
    start = next((value for _, value in values_at(first, "period.start")), None)
    end = next((value for _, value in values_at(later, "period.end")), None)
    if not isinstance(start, str) or not isinstance(end, str):
        return True
    begins, ends = parse_moment(start, "dateTime"), parse_moment(end, "dateTime")
    return begins is None or ends is None or ends > begins
