"""What the status of a C-STORE response means for the image that was sent: one table for the destination "dimse".

Pure. Changes when a status should be taken in another way. Source: PS3.4 table B.2-1, PS3.7 annex C.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from interface.dimse import messages

_WARNINGS: Final = frozenset({0x0001, 0x0107, 0x0116, 0xB000, 0xB006, 0xB007})
#: Refused for a reason that lies in the node, not in the image: out of resources, not authorised, resource limitation.
_LATER: Final = frozenset({0x0124, messages.RESOURCE_LIMITATION})
_PUZZLING: Final = frozenset({messages.PROCESSING_FAILURE, 0x0211, 0xFE00})
_WORDS: Final = {
    0x0110: "processing failure", 0x0111: "it has an image of this UID already", 0x0115: "invalid argument value",
    0x0117: "invalid object instance", 0x0118: "no such SOP class", 0x0122: "SOP class not supported",
    0x0124: "not authorised", 0x0211: "unrecognised operation", 0x0213: "resource limitation",
}  # fmt: skip


class Meaning(StrEnum):
    """What to make of a status."""

    STORED = "stored"
    KNOWN = "known"  #: it has an image of this UID; whether with our bytes is not known
    LATER = "later"  #: the node cannot take anything now
    AGAIN = "again"  #: it failed; it may be the image, it may be the node
    REFUSED = "refused"  #: this very image, whenever it comes


def meaning_of(status: int) -> Meaning:
    """Return what a C-STORE status means; an unknown one is a refusal of the image."""
    if status == messages.SUCCESS or status in _WARNINGS:
        return Meaning.STORED
    if status == 0x0111:
        return Meaning.KNOWN
    if status & 0xFF00 == messages.OUT_OF_RESOURCES or status in _LATER:
        return Meaning.LATER
    return Meaning.AGAIN if status in _PUZZLING else Meaning.REFUSED


def describe(status: int) -> str:
    """Return a status in words, with its number."""
    words = _WORDS.get(status)
    if words is None:
        families = {0xA700: "out of resources", 0xA900: "data set does not match SOP class", 0xB000: "warning"}
        fallback = "cannot understand" if status & 0xF000 == 0xC000 else "unknown status"
        words = families.get(status & 0xFF00, fallback)
    return f"{words} (0x{status:04X})" if status else "success"
