"""What an accession number was probably meant to be: pure proposals with their reason; nothing is ever corrected here.

Layer 1, imports identity. The commands show proposals; a rule that a person saved may apply one, and only if `decide`
says so. Changes when modalities spoil accession numbers in another way. Source: issue "accession doctor";
PS3.5 6.2 (SH: 16 characters, no backslash, no control characters).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

from internal.identity import Person, compare

SH_LENGTH = 16
MAX_ACCESSION = 64
MAX_PROPOSALS = 20
CANDIDATE_DAYS = 3

_NOT_SH = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_BLANKS = re.compile(r"\s+")


class Rule(StrEnum):
    """Why a proposal was made, most certain first."""

    ALIAS = "alias"  #: the table says so
    BLANKS = "blanks"  #: blanks, NULs or characters outside SH
    CASE = "case"
    ZEROS = "zeros"  #: leading zeros more or less
    CUT = "cut"  #: cut after 16 characters by the modality
    CANDIDATE = "candidate"  #: patient, modality and day fit


@dataclass(frozen=True, slots=True)
class Order:
    """An order that is known here; `day` is YYYYMMDD, "" unknown."""

    accession_number: str
    patient: Person
    modality: str = ""
    day: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """What the images say: accession as normalised at receipt, the patients they name, modalities, study day."""

    accession_number: str
    patients: tuple[Person, ...]
    modalities: frozenset[str]
    day: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """One accession it may have been; `orders` are the known ones under it, `is_certain`: a second identifier agrees
    with the only one."""

    accession_number: str
    rule: Rule
    orders: int
    is_certain: bool


def propose(case: Case, orders: Iterable[Order], aliases: Mapping[str, str]) -> list[Proposal]:
    """Return what the accession may have been, most certain rule first, at most 20, each accession once.

    An alias is proposed whether its order is known or not; everything else only if a known order has it.
    """
    known = [order for order in orders if order.accession_number != case.accession_number]
    found: dict[str, Rule] = {}
    alias = aliases.get(case.accession_number)
    if alias and alias != case.accession_number:
        found[alias] = Rule.ALIAS
    for rule in (Rule.BLANKS, Rule.CASE, Rule.ZEROS, Rule.CUT, Rule.CANDIDATE):
        for order in known:
            if _fits(rule, case, order):
                found.setdefault(order.accession_number, rule)
    proposals = [_proposal(case, accession, rule, known) for accession, rule in found.items()]
    return sorted(proposals, key=lambda one: list(Rule).index(one.rule))[:MAX_PROPOSALS]


def decide(proposals: Sequence[Proposal], saved: frozenset[Rule]) -> Proposal | None:
    """Return the proposal that a saved rule may apply by itself, None: a person decides.

    Only if the saved rules propose exactly one accession, with exactly one known order, and name, birth date or MRN of
    it agree with every patient of the images while nothing differs.
    """
    allowed = [one for one in proposals if one.rule in saved]
    if len(allowed) != 1 or not allowed[0].is_certain:
        return None
    return allowed[0]


def check_new(accession_number: str) -> str:
    """Return a corrected accession as it may be sent; raises ValueError with a sentence where it may not.

    More than 16 characters are allowed: it goes into the ImagingStudy, (0008,0050) stays as received.
    """
    value = accession_number.strip(" \0")
    if not value:
        raise ValueError("an accession number must not be empty")
    if len(value) > MAX_ACCESSION or _NOT_SH.search(value) or not value.isprintable():
        raise ValueError(f"an accession number has at most {MAX_ACCESSION} printable characters and no backslash")
    return value


def days_around(day: str) -> tuple[str, str] | None:
    """Return the first and last day (YYYYMMDD) on which an order of a study of `day` is looked for, None: no day."""
    try:
        middle = date(int(day[:4]), int(day[4:6]), int(day[6:8]))
        first, last = middle - timedelta(CANDIDATE_DAYS), middle + timedelta(CANDIDATE_DAYS)
    except (ValueError, OverflowError):
        return None
    return f"{first:%Y%m%d}", f"{last:%Y%m%d}"


def _proposal(case: Case, accession: str, rule: Rule, known: Sequence[Order]) -> Proposal:
    under = [order for order in known if order.accession_number == accession]
    certain = len(under) == 1 and bool(case.patients) and all(
        compare(patient, under[0].patient).has_second_identifier for patient in case.patients)
    return Proposal(accession, rule, len(under), certain)


def _fits(rule: Rule, case: Case, order: Order) -> bool:
    sent, meant = case.accession_number, order.accession_number
    match rule:
        case Rule.BLANKS:
            return bool(clean(sent)) and clean(sent) == clean(meant)
        case Rule.CASE:
            return bool(clean(sent)) and clean(sent).casefold() == clean(meant).casefold()
        case Rule.ZEROS:
            return _without_zeros(sent) != "" and _without_zeros(sent) == _without_zeros(meant)
        case Rule.CUT:
            return len(sent) == SH_LENGTH and len(meant) > SH_LENGTH and meant.startswith(sent)
        case Rule.CANDIDATE:
            return _is_candidate(case, order)
        case _:
            return False


def clean(accession_number: str) -> str:
    """Return an accession without blanks, NULs and characters outside SH, in one Unicode form."""
    normal = unicodedata.normalize("NFKC", accession_number[:MAX_ACCESSION * 4])
    return _BLANKS.sub("", _NOT_SH.sub("", normal))


def _without_zeros(accession_number: str) -> str:
    return clean(accession_number).casefold().lstrip("0")


def _is_candidate(case: Case, order: Order) -> bool:
    window = days_around(case.day)
    return (
        window is not None and window[0] <= order.day <= window[1]
        and (not order.modality or not case.modalities or order.modality in case.modalities)
        and bool(case.patients)
        and all(compare(patient, order.patient).has_second_identifier for patient in case.patients)
    )
