"""One cause for people: what it means, who has to act, what to do next, in both languages.

Imports nothing of ours; `explain` and its parts list the causes. Changes when people have to be told something more.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Explanation:
    """One cause for people: what it means and the next step, in both languages, and who has to act."""

    meaning_id: str
    next_id: str
    meaning_en: str
    next_en: str
    who: str = "router"

    def text(self, language: str) -> str:
        """Return meaning and next step in `language` ("id" or "en")."""
        if language == "en":
            return f"{self.meaning_en} {self.next_en}".strip()
        return f"{self.meaning_id} {self.next_id}".strip()
