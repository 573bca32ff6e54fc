"""The standard's own table of what identifies a patient: what the Basic Profile does with each attribute.

Imports nothing of ours. The table is data (confidentiality.csv); a new edition is a new file. Changes when the table
has to answer something new. Source: PS3.15 table E.1-1, edition 2026c.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

EDITION: Final = "PS3.15 2026c"
_FILE: Final = Path(__file__).with_name("confidentiality.csv")


@dataclass(frozen=True, slots=True)
class Row:
    """What happens to one attribute: D dummy, Z empty or dummy, X remove, U new UID, or several with / between.

    `options` name what retains it: uids, dates, device, institution.
    """

    action: str
    keyword: str
    options: frozenset[str]

    @property
    def strictest(self) -> str:
        """Return the action that is right whatever the attribute's type is in the object: D before Z before X."""
        choices = self.action.split("/")
        return next(one for one in ("D", "U", "U*", "Z", "X") if one in choices)


@cache
def _table() -> dict[str, Row]:
    rows = {}
    for line in _FILE.read_text(encoding="ascii").splitlines():
        if not line.startswith("#"):
            tag, action, keyword, options = line.split(",")
            rows[tag] = Row(action, keyword, frozenset(options.split()))
    return rows


@cache
def _by_tag() -> dict[int, Row]:
    return {int(tag, 16): row for tag, row in _table().items() if "x" not in tag}


def row_of(tag: int) -> Row | None:
    """Return what the table says of a tag, None if it is not in it; private ones are removed without a row."""
    row = _by_tag().get(tag)
    if row is None and tag >> 24 in (0x50, 0x60):
        text = f"{tag:08X}"
        row = _table().get(f"60xx{text[4:]}" if text.startswith("60") else "50xxxxxx")
    return row
