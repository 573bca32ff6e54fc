"""Whether two descriptions of a patient can be the same person: pure, and careful about what is not known.

Layer 0, imports nothing of ours. The SATUSEHAT delivery compares the images with the order before anything is
registered; the accession doctor uses the same words as second identifier. Changes when names or masks are written in
another way. Source: issue "waiting room"; PS3.5 6.2 (PN); FHIR R4 Patient; satusehat facts 2.3 (masked replies).
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

#: Words that say who somebody is to others, not who: married, unmarried, child, baby, pilgrim, late, son of, degrees.
TITLES = frozenset((
    "NY", "NYONYA", "TN", "TUAN", "NN", "NONA", "AN", "ANAK", "BY", "BAYI", "SDR", "SDRI", "BPK", "BAPAK", "IBU",
    "KAKEK", "NENEK", "H", "HJ", "HAJI", "HAJJAH", "ALM", "ALMH", "BIN", "BINTI", "DR", "DRG", "DRS", "DRA", "IR",
    "PROF", "MR", "MRS", "MS",
))
_MUHAMMAD = frozenset((
    "MUHAMMAD", "MOHAMMAD", "MOHAMAD", "MUHAMAD", "MOCHAMMAD", "MOCHAMAD", "MUCHAMMAD", "MUCHAMAD", "MUH", "MOH",
    "MHD", "MOCH",
))
_OLD_SPELLING = (("OE", "U"), ("DJ", "J"), ("TJ", "C"))
_NOT_LETTERS = re.compile(r"[\W\d_]+")
_NOT_ID = re.compile(r"[\W_]+")
_DATE = re.compile(r"(\d{4})(?:-?(\d{2})(?:-?(\d{2}))?)?", re.ASCII)
_NO_DATE = frozenset({"1900", "0001"})
_SEXES = {"M": "M", "MALE": "M", "L": "M", "F": "F", "FEMALE": "F", "P": "F"}
_MASK = re.compile(r"[*#•]|X{3,}", re.IGNORECASE)
_MAX_TEXT = 512
_Value = TypeVar("_Value", str, tuple[str, ...])


@dataclass(frozen=True, slots=True)
class Person:
    """One side's word about a patient, as received; "" is unknown. Never goes into a log, a reason or an event."""

    name: str = field(default="", repr=False)
    birth_date: str = field(default="", repr=False)
    sex: str = field(default="", repr=False)
    mrn: str = field(default="", repr=False)

    def shown(self) -> dict[str, str]:
        """Return what `show` puts before an operator: the four values, bounded."""
        return {"name": self.name[:128], "birth_date": self.birth_date[:16], "sex": self.sex[:16],
                "mrn": self.mrn[:64]}


class Verdict(StrEnum):
    """What comparing one element gave."""

    AGREES = "agrees"
    DIFFERS = "differs"
    NOT_COMPARABLE = "not comparable"  #: absent or masked on either side


@dataclass(frozen=True, slots=True)
class Comparison:
    """The verdict on each element; the words themselves stay outside."""

    name: Verdict
    birth_date: Verdict
    sex: Verdict
    mrn: Verdict

    def of(self, verdict: Verdict) -> tuple[str, ...]:
        """Return the names of the elements with this verdict."""
        elements = ("name", "birth_date", "sex", "mrn")
        return tuple(element for element in elements if getattr(self, element) is verdict)

    @property
    def differences(self) -> tuple[str, ...]:
        """Return the elements in which the two cannot be the same person; empty: nothing speaks against it."""
        return self.of(Verdict.DIFFERS)

    @property
    def has_second_identifier(self) -> bool:
        """Return whether nothing differs and name, birth date or MRN agrees: enough for a rule to act by itself."""
        return not self.differences and bool(set(self.of(Verdict.AGREES)) & {"name", "birth_date", "mrn"})


def compare(images: Person, order: Person) -> Comparison:
    """Compare two sides element by element; symmetric, never raises.

    Names agree with one common word (case, accents, titles and order do not count); birth dates are compared as far as
    both are known; only male against female differs. An MRN counts where both have one.
    """
    return Comparison(
        name=_verdict(name_words(images.name), name_words(order.name), _have_common_name),
        birth_date=_verdict(_date(images.birth_date), _date(order.birth_date), _dates_agree),
        sex=_verdict(_sex(images.sex), _sex(order.sex), str.__eq__),
        mrn=_verdict(fold_id(images.mrn), fold_id(order.mrn), str.__eq__),
    )


def find_strangers(people: Sequence[Person]) -> tuple[Person, Person] | None:
    """Return two of `people` who cannot be one patient, None when all can; the first pair in their order."""
    distinct = list(dict.fromkeys(people))
    for number, one in enumerate(distinct):
        for other in distinct[number + 1:]:
            if compare(one, other).differences:
                return one, other
    return None


def fingerprint(people: Iterable[Person]) -> str:
    """Return a short hash of these sides, equal in any order: what a person's word about them is bound to."""
    sides = sorted((one.name, one.birth_date, one.sex, one.mrn) for one in set(people))
    return hashlib.sha256(json.dumps(sides).encode()).hexdigest()[:32]


def is_masked(text: str) -> bool:
    """Return whether a value was hidden by its source (asterisks, number signs, a run of X)."""
    return bool(_MASK.search(text))


def fold_id(mrn: str) -> str:
    """Return a medical record number without case, separators and leading zeros; "" when it is unknown or masked."""
    if is_masked(mrn):
        return ""
    folded = _NOT_ID.sub("", unicodedata.normalize("NFKC", mrn[:_MAX_TEXT])).upper()
    return folded.lstrip("0")


def name_words(name: str) -> tuple[str, ...]:
    """Return the words of a name that count, folded, in order; titles are dropped unless nothing else is left.

    All component groups of a PN count (alphabetic, ideographic, phonetic); "" and masked names have no words.
    """
    if is_masked(name):
        return ()
    decomposed = unicodedata.normalize("NFKD", name[:_MAX_TEXT])
    plain = "".join(char for char in decomposed if not unicodedata.combining(char)).upper()
    words = [word for word in _NOT_LETTERS.split(plain) if word]
    kept = [word for word in words if word not in TITLES] or words
    return tuple(dict.fromkeys(_fold_word(word) for word in kept))


def _fold_word(word: str) -> str:
    if word in _MUHAMMAD:
        return "MUHAMMAD"
    for old, new in _OLD_SPELLING:
        word = word.replace(old, new)
    return word


def _have_common_name(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """One common word is enough; so are the same letters with the blanks elsewhere, and an initial for its word."""
    if set(one) & set(other) or "".join(one) == "".join(other):
        return True
    return any(_is_initial(a, b) or _is_initial(b, a) for a in one for b in other)


def _is_initial(short: str, word: str) -> bool:
    return len(short) == 1 and word.startswith(short)


def _date(text: str) -> str:
    """Return the digits of a DA or a FHIR date that are known; "" for none, a mask or a placeholder."""
    found = _DATE.fullmatch(text.strip(" \0")[:10])
    if found is None or found[1] in _NO_DATE:
        return ""
    return "".join(part for part in found.groups() if part is not None)


def _dates_agree(one: str, other: str) -> bool:
    known = min(len(one), len(other))
    return one[:known] == other[:known]


def _sex(text: str) -> str:
    return _SEXES.get(text.strip(" \0").upper(), "")


def _verdict(one: _Value, other: _Value, agree: Callable[[_Value, _Value], bool]) -> Verdict:
    if not one or not other:
        return Verdict.NOT_COMPARABLE
    return Verdict.AGREES if agree(one, other) else Verdict.DIFFERS
