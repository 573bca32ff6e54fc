"""A rewrite under way: the data set as changed so far, what may be looked up, and the record of what was there before.

Imports elements, facts, paths. Actions work on an `Edits`; `finish` adds Original Attributes. Everything is a function
of the bytes received, the rules, the keys and what was looked up (`found`, kept in the recipe), so that the same bytes
leave at every attempt. Changes when a rewrite has to carry more from action to action.
Source: PS3.3 C.12.1.1.9 (Original Attributes).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter
from typing import Final, Protocol

from internal import dictionary
from internal.elements import DataSet, Element
from internal.rules import paths
from internal.rules.facts import Facts
from internal.rules.failures import EditFailed, PatternTooSlow, SkipRule

__all__ = ["EditFailed", "Edits", "Keys", "LookUp", "Mask", "PatternTooSlow", "SkipRule"]

MODIFYING_SYSTEM: Final = "SATUSEHAT_ROUTER"
_ORIGINAL_ATTRIBUTES: Final = 0x04000561
_MODIFIED_ATTRIBUTES: Final = 0x04000550
_PATIENT_ID: Final = 0x00100020
_ISSUER: Final = 0x00100021


@dataclass(frozen=True, slots=True)
class LookUp:
    """What is looked up where: `kind` is "table" or "lookup", `name` the table or the section [lookup:NAME]."""

    kind: str
    name: str


Find = Callable[[LookUp, str], str | None]


class Keys(Protocol):
    """Secrets that make new identities: the same in, the same out, on every day."""

    def digest(self, purpose: str, text: str) -> bytes:
        """Return 32 bytes that nobody can guess without the key."""


@dataclass(frozen=True, slots=True)
class KeyBytes:
    """Keys over one secret. Source: RFC 2104."""

    secret: bytes = field(repr=False)

    def digest(self, purpose: str, text: str) -> bytes:
        """Return HMAC-SHA-256 of purpose and text."""
        return hmac.new(self.secret, f"{purpose}\0{text}".encode(), hashlib.sha256).digest()


@dataclass(frozen=True, slots=True)
class Mask:
    """A rectangle of every frame that is blacked out, in pixels from the upper left corner."""

    left: int
    top: int
    width: int
    height: int


@dataclass(slots=True)
class Edits:
    """One instance being rewritten for one destination.

    `found` starts with what an earlier attempt looked up, and gains what this one does. `pseudonyms` are (pseudonym,
    original) pairs to be kept. `masks` and `accepts_burned_in` say what is done about text in pixels.
    """

    dataset: DataSet
    facts: Facts
    find: Find
    keys: Keys
    found: dict[str, str | None] = field(default_factory=dict)
    pseudonyms: dict[str, str] = field(default_factory=dict)
    masks: list[Mask] = field(default_factory=list)
    is_deidentified: bool = False
    changed: list[str] = field(default_factory=list)

    def look_up(self, source: LookUp, key: str) -> str | None:
        """Return what a table or a look-up has under `key`; asked once and then kept. Raises Transient."""
        name = f"{source.kind}:{source.name}:{key}"
        if name not in self.found:
            self.found[name] = self.find(source, key)
        return self.found[name]

    def text(self, path: paths.Path) -> str:
        r"""Return the attribute as it is now, several values separated by ``\``; "" if it is missing or empty."""
        found = path.texts(self.dataset)
        return found[0] if found else ""

    def put(self, path: paths.Path, text: str) -> None:
        """Write an attribute; what is missing on the way to it is made. Raises EditFailed."""
        def act(dataset: DataSet, tag: int, used: str) -> bool:
            paths.put_text(dataset, tag, path.vr, path.vm, text, used)
            return True

        with_name(path, lambda: path.change(self.dataset, act, make=True))

    def rewrite(self, path: paths.Path, change: Callable[[str], str]) -> None:
        """Replace every value there is of an attribute; a missing one stays missing. Raises EditFailed."""
        def act(dataset: DataSet, tag: int, used: str) -> bool:
            before = paths.text_at(dataset, tag, used)
            if before is None:
                raise EditFailed("it has no text that could be changed")
            after = change(before)
            if after != before:
                paths.put_text(dataset, tag, path.vr, path.vm, after, used)
            return after != before

        with_name(path, lambda: path.change(self.dataset, act))

    def patient_key(self) -> str:
        """Return what new identities of this patient are made from: the Patient ID as it is now, and its issuer.

        Written as in HL7 (``ID^^^issuer``). Raises EditFailed where there is no Patient ID.
        """
        used = paths.charset_of(self.dataset, "")
        patient_id, issuer = ((paths.text_at(self.dataset, tag, used) or "").strip() for tag in (_PATIENT_ID, _ISSUER))
        if not patient_id:
            raise EditFailed("PatientID is empty: nothing says whose images these are", "source-empty")
        return f"{patient_id}^^^{issuer}" if issuer else patient_id

    def try_rule(self, act: Callable[[], None]) -> bool:
        """Do all that a rule does; False, and nothing done, where it says that it is to be skipped."""
        before = self.dataset.copy(), list(self.masks), self.is_deidentified
        try:
            act()
        except SkipRule:
            self.dataset, self.masks, self.is_deidentified = before
            return False
        return True

    def finish(self, received: DataSet) -> None:
        """Drop what is no change, drop group lengths, and write down the values before in (0400,0561)."""
        before: list[Element] = []
        for tag in sorted(self.dataset.touched):
            element = received.find(tag)
            if element is not None and _equal(element, received, self.dataset):
                self.dataset.put_back(element)
            elif element is not None:
                before.append(element)
            elif tag not in self.dataset:
                self.dataset.touched.discard(tag)  # it came and went again
        self.changed = [dictionary.name_of(tag) for tag in sorted(self.dataset.touched)]
        if self.changed:
            for tag in [tag for tag in self.dataset.tags if not tag & 0xFFFF]:
                self.dataset.remove(tag)
        if before and not self.is_deidentified:
            self._note_originals(received, before)

    def _note_originals(self, received: DataSet, before: Sequence[Element]) -> None:
        blocks = {one.tag & 0xFFFF0000 | (one.tag & 0xFFFF) >> 8 for one in before
                  if one.tag >> 16 & 1 and one.tag & 0xFFFF > 0xFF}
        creators = [one for tag in blocks if (one := received.find(tag)) is not None]
        kept = {one.tag: one for one in sorted({*before, *creators}, key=attrgetter("start"))}
        kept.pop(_ORIGINAL_ATTRIBUTES, None)
        inner = DataSet(received.source, self.dataset.encoding, kept)
        item = self.dataset.new_item(_ORIGINAL_ATTRIBUTES)
        if item.encoding != inner.encoding:
            raise EditFailed("(0400,0561) came in an encoding that cannot be added to")
        arrived = datetime.fromtimestamp(self.facts.arrival.arrived_at / 1000, UTC)
        item.put_items(_MODIFIED_ATTRIBUTES, [inner])
        for tag, vr, value in ((0x04000562, "DT", f"{arrived:%Y%m%d%H%M%S.%f}+0000".encode()),
                               (0x04000563, "LO", MODIFYING_SYSTEM.encode()), (0x04000564, "LO", b""),
                               (0x04000565, "CS", b"COERCE")):
            item.put(tag, vr, value + b" " * (len(value) % 2))
        self.dataset.put_items(_ORIGINAL_ATTRIBUTES, [*self.dataset.items(_ORIGINAL_ATTRIBUTES), item])


def with_name(path: paths.Path, act: Callable[[], object]) -> None:
    """Call `act`; what fails says which attribute it was about."""
    try:
        act()
    except EditFailed as error:
        raise type(error)(f"{path.text}: {error}", error.code) from None


def _equal(one: Element, received: DataSet, now: DataSet) -> bool:
    two = now.find(one.tag)
    return two is not None and two.value is not None and one.vr == two.vr and received.raw(one.tag) == two.value
