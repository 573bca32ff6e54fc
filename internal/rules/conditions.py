"""Conditions: ``Modality in (CT, MR) and not PatientID missing and calling = CT1``.

Imports syntax, facts, pattern. A condition always looks at what was received, never at what a rule has changed.
Changes when a condition can ask something new: one function, one line in TESTS or ENVELOPE.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final, Protocol

from internal import dictionary
from internal.peers import host_of
from internal.rules.facts import Facts
from internal.rules.failures import SyntaxProblem
from internal.rules.paths import Path
from internal.rules.pattern import Pattern
from internal.rules.syntax import Cursor, likely

_MAX_DEPTH: Final = 50
_OPERATORS: Final = ("matches", "in", "present", "missing", "not")
_MAX_SHOWN: Final = 60
_TIME = re.compile(r"([01]?\d|2[0-3])[:.]([0-5]\d)\s*-\s*([01]?\d|2[0-3])[:.]([0-5]\d)")


@dataclass(frozen=True, slots=True)
class Seen:
    """One test of a condition on one instance: its text, whether it held, what it saw (a value: for people only)."""

    text: str
    held: bool
    saw: str


Trace = list[Seen]


class Condition(Protocol):
    """Something that is true or false of an instance."""

    def holds(self, facts: Facts, trace: Trace | None = None) -> bool:
        """Return whether it is true; with `trace` every test is made and written down. Raises PatternTooSlow."""


@dataclass(frozen=True, slots=True)
class Both:
    """All (`every`) or at least one of its parts."""

    every: bool
    parts: tuple[Condition, ...]

    def holds(self, facts: Facts, trace: Trace | None = None) -> bool:
        """Return whether all, or one, of the parts hold."""
        if trace is not None:
            held = [part.holds(facts, trace) for part in self.parts]
            return all(held) if self.every else any(held)
        for part in self.parts:
            if part.holds(facts) is not self.every:
                return not self.every
        return self.every


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of its part."""

    part: Condition

    def holds(self, facts: Facts, trace: Trace | None = None) -> bool:
        """Return whether the part does not hold."""
        return not self.part.holds(facts, trace)


@dataclass(frozen=True, slots=True)
class Test:
    """One question: what it looks at, what it asks of what it finds; `text` as written."""

    text: str
    look: Callable[[Facts], Sequence[str]]
    ask: Callable[[Sequence[str]], bool]

    def holds(self, facts: Facts, trace: Trace | None = None) -> bool:
        """Return whether one of the values found does what is asked."""
        values = self.look(facts)
        held = self.ask(values)
        if trace is not None:
            shown = ", ".join(values[:5])
            trace.append(Seen(self.text, held, shown[:_MAX_SHOWN] + ("..." if len(shown) > _MAX_SHOWN else "")))
        return held


ALWAYS: Final = Both(every=True, parts=())


def parse_condition(text: str) -> Condition:
    """Return the condition that `text` says; an empty one always holds. Raises SyntaxProblem."""
    cursor = Cursor(text)
    if cursor.at_end:
        return ALWAYS
    condition = _either(cursor, 0)
    cursor.need_end()
    return condition


def _either(cursor: Cursor, depth: int) -> Condition:
    if depth > _MAX_DEPTH:
        raise cursor.problem("has too many brackets in each other")
    parts = [_all(cursor, depth)]
    while cursor.take_word("or"):
        parts.append(_all(cursor, depth))
    return parts[0] if len(parts) == 1 else Both(every=False, parts=tuple(parts))


def _all(cursor: Cursor, depth: int) -> Condition:
    parts = [_one(cursor, depth)]
    while cursor.take_word("and"):
        parts.append(_one(cursor, depth))
    return parts[0] if len(parts) == 1 else Both(every=True, parts=tuple(parts))


def _one(cursor: Cursor, depth: int) -> Condition:
    if depth > _MAX_DEPTH:
        raise cursor.problem("has too many brackets in each other")
    if cursor.take_word("not"):
        return Not(_one(cursor, depth + 1))
    if not re.match(r'\(\s*[0-9A-Fa-f]{4}\s*,', cursor.text[cursor.position :]) and cursor.take_mark("("):
        inner = _either(cursor, depth + 1)
        cursor.need_mark(")")
        return inner
    return _test(cursor)


def _test(cursor: Cursor) -> Condition:
    begin = cursor.position
    word = cursor.peek_word()
    if word in ENVELOPE:
        cursor.take_word(word)
        return ENVELOPE[word](cursor, begin)
    if word and dictionary.tag_of(word) is None and (hint := likely(word, ENVELOPE)) and not \
            dictionary.likely_keyword(word):
        raise cursor.problem(f"{word} is no DICOM keyword", hint)
    path = cursor.need_path()
    if cursor.take_word("present"):
        return _presence(cursor, begin, path, wanted=True)
    if cursor.take_word("missing"):
        return _presence(cursor, begin, path, wanted=False)
    ask = _question(cursor, path)
    return Test(_text(cursor, begin), lambda facts: facts.texts(path), ask)


def _presence(cursor: Cursor, begin: int, path: Path, *, wanted: bool) -> Condition:
    def look(facts: Facts) -> Sequence[str]:
        return facts.texts(path) or (["(a value that is no text)"] if facts.is_present(path) else [])

    return Test(_text(cursor, begin), look, lambda values: bool(values) is wanted)


def _text(cursor: Cursor, begin: int) -> str:
    return " ".join(cursor.text[begin : cursor.position].split())


def _question(cursor: Cursor, path: Path | None = None) -> Callable[[Sequence[str]], bool]:
    """Read operator and operand, and return what is asked of the values found."""
    for sign in ("!=", "<=", ">=", "=", "<", ">"):
        if cursor.take_mark(sign):
            return _comparison(cursor, sign, path)
    negated = bool(cursor.take_word("not"))
    operator = cursor.need_word("matches", "in") if negated else cursor.need_word(*_OPERATORS[:4])
    if operator == "in":
        wanted = frozenset(cursor.need_values())
        return lambda values: any(value in wanted for value in values) is not negated
    if operator == "matches":
        at = cursor.position
        try:
            pattern = Pattern(cursor.need_quoted("a pattern"))
        except ValueError as error:
            raise cursor.problem(str(error), at=at) from None
        return lambda values: any(pattern.finds(value) for value in values) is not negated
    raise cursor.problem(f"{operator} cannot be asked of this")


def _comparison(cursor: Cursor, sign: str, path: Path | None) -> Callable[[Sequence[str]], bool]:
    at = cursor.position
    wanted = cursor.need_value()
    if sign == "=":
        return lambda values: wanted in values
    if sign == "!=":
        return lambda values: wanted not in values
    vr = path.vr if path is not None else "LO"
    if vr not in ("DA", "TM", "DT", "UN") and _decimal(wanted) is None:
        raise cursor.problem(f"{wanted[:40]} is no number to compare with", at=at)
    return lambda values: any(_compare(value, wanted, sign, vr) for value in values)


def _compare(value: str, wanted: str, sign: str, vr: str) -> bool:
    one: Decimal | str | None
    two: Decimal | str | None
    if vr in ("DA", "TM", "DT"):
        one, two = value, wanted
    else:
        one, two = _decimal(value), _decimal(wanted)
    if one is None or two is None:
        return False
    return {"<": one < two, ">": one > two, "<=": one <= two, ">=": one >= two}[sign]  # type: ignore[operator]


def _decimal(text: str) -> Decimal | None:
    if len(text) > 40:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


# --- what is written around the data set ---------------------------------------------------------------------------

def _aet(field: str) -> Callable[[Cursor, int], Condition]:
    def read(cursor: Cursor, begin: int) -> Condition:
        ask = _question(cursor)

        def look(facts: Facts) -> Sequence[str]:
            value = str(getattr(facts.arrival, field)).strip()
            return [value] if value else []

        return Test(_text(cursor, begin), look, ask)

    return read


def _address(cursor: Cursor, begin: int) -> Condition:
    """Read ``address = 10.1.0.0/16`` or ``address in (10.1.2.3, 10.1.3.0/24)``."""
    negated = cursor.take_mark("!=")
    if not negated and not cursor.take_mark("="):
        cursor.need_word("in")
        given = cursor.need_values()
    else:
        given = (cursor.need_value(),)
    try:
        networks = tuple(ipaddress.ip_network(one, strict=False) for one in given)
    except ValueError:
        raise SyntaxProblem("expected IP addresses or networks such as 10.1.0.0/16", begin) from None

    def ask(values: Sequence[str]) -> bool:
        try:
            address = ipaddress.ip_address(values[0]) if values else None
        except ValueError:
            address = None
        return (address is not None and any(address in network for network in networks)) is not negated

    return Test(_text(cursor, begin), lambda facts: [host_of(facts.arrival.peer_address)], ask)


def _time(cursor: Cursor, begin: int) -> Condition:
    """Read ``time in 22:00-06:00``; the end is not included, and the night may lie between."""
    cursor.need_word("in")
    found = cursor.take(_TIME)
    if found is None:
        raise cursor.problem("expected a time of day such as 22:00-06:00")
    first, last = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])

    def look(facts: Facts) -> Sequence[str]:
        return [f"{facts.minute_of_day // 60:02}:{facts.minute_of_day % 60:02}"]

    def ask(values: Sequence[str]) -> bool:
        minute = int(values[0][:2]) * 60 + int(values[0][3:])
        return first <= minute < last if first <= last else minute >= first or minute < last

    return Test(_text(cursor, begin), look, ask)


ENVELOPE: Mapping[str, Callable[[Cursor, int], Condition]] = {
    "calling": _aet("calling_aet"), "called": _aet("called_aet"), "source": _aet("source"), "address": _address,
    "time": _time,
}
