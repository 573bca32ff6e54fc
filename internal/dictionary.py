"""The DICOM data dictionary as the rules need it: keyword, tag, value representation, and likely misspellings.

Layer 1, imports errors. Reads the table that comes with pydicom and nothing else of it. Changes when rules have to
know more about an attribute than its name, VR and multiplicity. Source: PS3.6 6 and 7.
"""

from __future__ import annotations

import difflib
from functools import cache, lru_cache
from typing import Any

UNKNOWN_VR = "UN"


@cache
def _pydicom() -> Any:
    """Return pydicom's table; loaded when a rule first needs it, so that indexing never loads anything of pydicom."""
    from pydicom import datadict

    return datadict


@cache
def _tags() -> dict[str, int]:
    return {row[4]: tag for tag, row in _pydicom().DicomDictionary.items() if row[4]}


@cache
def _lower() -> dict[str, str]:
    return {keyword.lower(): keyword for keyword in _tags()}


def tag_of(keyword: str) -> int | None:
    """Return the tag of a keyword, None if there is no such attribute."""
    return _tags().get(keyword)


@lru_cache(maxsize=4096)
def vr_of(tag: int) -> str:
    """Return the first VR of a tag; "UN" for private and unknown ones, "UL" for group lengths, "LO" for creators."""
    group, number = tag >> 16, tag & 0xFFFF
    if number == 0:
        return "UL"
    if group % 2:
        return "LO" if 0x10 <= number <= 0xFF else UNKNOWN_VR
    row = _row(tag)
    return row[0].split(" or ")[0] if row else UNKNOWN_VR


def vm_of(tag: int) -> str:
    """Return the value multiplicity such as "1" or "1-n"; "1-n" where it is not known."""
    row = _row(tag)
    return row[1] if row else "1-n"


@lru_cache(maxsize=4096)
def name_of(tag: int) -> str:
    """Return the keyword of a tag, or ``(gggg,eeee)`` where it has none."""
    row = _row(tag)
    return row[4] if row and row[4] else f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def likely_keyword(word: str) -> str:
    """Return the keyword that was probably meant by a word that is none, "" if nothing is near."""
    lower = word.lower()[:64]
    if lower in _lower():
        return _lower()[lower]
    near = difflib.get_close_matches(lower, _lower(), n=1, cutoff=0.75)
    return _lower()[near[0]] if near else ""


def _row(tag: int) -> tuple[str, str, str, str, str] | None:
    row: tuple[str, str, str, str, str] | None = _pydicom().DicomDictionary.get(tag)
    if row is None and (tag >> 24) in (0x50, 0x60, 0x10, 0x20, 0x00, 0x7F):
        mask = _pydicom().mask_match(tag)
        row = _pydicom().RepeatersDictionary.get(mask) if mask else None
    return row
