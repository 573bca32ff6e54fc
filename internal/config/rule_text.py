"""A rule as it was written, before anybody has read it: the entries of a section [rule:NAME] with their lines.

Flow: `loading` takes it from router.conf, internal.rules compiles it. Imports: nothing of ours.
Changes when a rule can stand somewhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RuleText:
    """One rule as it was written: its entries by key, the number of each line of each entry, and where it stands.

    `origin` is "file router.conf", or "rule NAME" for one of the catalogue.
    """

    name: str
    entries: Mapping[str, str]
    lines: Mapping[str, Sequence[int]] = field(default_factory=dict)
    origin: str = ""

    def at(self, key: str, position: int = 0) -> str:
        """Return where a character of an entry stands, for messages."""
        line = self.entries.get(key, "").count("\n", 0, position)
        numbers = self.lines.get(key) or next(iter(self.lines.values()), ())
        number = numbers[min(line, len(numbers) - 1)] if numbers else line + 1
        return f"{self.origin} line {number}" if self.origin else f"line {number}"

    def body(self) -> dict[str, Any]:
        """Return the rule as JSON values, as the catalogue and a stored set keep it."""
        return {"name": self.name, "entries": dict(self.entries)}
