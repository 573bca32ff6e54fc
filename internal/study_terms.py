"""SQL for what a study can be found by: words of the patient's name, Patient ID, modality, calling AE title.

Written by `index` with each new instance, read by `study_list`; imports model and store. Changes when people may search
for something else.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from enum import StrEnum

from internal.model import Instance
from internal.store import Tx, storable

_MAX_WORDS = 8
_MAX_TERM = 64
_WORD = re.compile(r"\w+")
_INSERT = ("INSERT INTO study_term (kind, term, at, study_uid) SELECT ?, ?, listed_at, study_uid FROM study"
           " WHERE study_uid = ? ON CONFLICT (kind, term, at, study_uid) DO NOTHING")


class TermKind(StrEnum):
    """What a term is."""

    NAME = "name"  #: one word of the patient's name, folded
    PATIENT = "patient"  #: Patient ID, folded
    MODALITY = "modality"
    CALLER = "caller"  #: calling AE title


def fold(text: str) -> str:
    """Return text as it is compared: without case, accents and blanks around it, at most 64 characters."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return storable("".join(char for char in plain if not unicodedata.combining(char)).strip())[:_MAX_TERM]


def words(name: str) -> list[str]:
    """Return the first 8 different words of a name, folded, in their order."""
    return list(dict.fromkeys(_WORD.findall(fold(name[:4 * _MAX_TERM]).replace("_", " "))))[:_MAX_WORDS]


def note_terms(tx: Tx, fresh: Sequence[Instance]) -> None:
    """Remember what the studies of new instances can be found by; a term known before changes nothing."""
    found = {(str(kind), term, one.header.study_uid) for one in fresh for kind, term in _terms(one)}
    tx.executemany(_INSERT, sorted(found))


def _terms(one: Instance) -> Iterator[tuple[TermKind, str]]:
    header = one.header
    for word in words(header.patient_name):
        yield TermKind.NAME, word
    for kind, term in ((TermKind.PATIENT, fold(header.patient_id)),
                       (TermKind.MODALITY, storable(header.modality)[:_MAX_TERM]),
                       (TermKind.CALLER, storable(one.arrival.calling_aet)[:_MAX_TERM])):
        if term:
            yield kind, term
