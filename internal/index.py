"""SQL for studies, series, instances and associations: what we hold and ever held.

Between `indexer` and `assemble`, which call it, and `store`; every function works inside the caller's transaction.
Imports model, rows, store and associations. Changes when the index has to remember or answer something new.
"""
# ruff: noqa: S608 - SQL is composed of our own column lists and placeholders only; every value is bound

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from internal.associations import add_association, end_associations_of_slot, note_associations, open_associations_of
from internal.errors import NotFound
from internal.model import Instance, Inventory, Series, Study
from internal.rows import INSTANCE_COLUMNS, chunks, instance_from, instance_values, marks, select_instance
from internal.store import Tx, storable
from internal.study_terms import note_terms
from internal.tally import count_arrivals

__all__ = [
    "Added", "Settling", "add_association", "add_instances", "current_of", "end_associations_of_slot", "find_studies",
    "instance", "inventory", "mark_settled", "normalise_accession", "open_associations_of", "parts_of",
    "studies_to_settle", "study",
]

_INSERT_INSTANCE = f"INSERT INTO instance ({', '.join(INSTANCE_COLUMNS)}) VALUES ({marks(INSTANCE_COLUMNS)})"
_INTEGER = re.compile(r"[+-]?\d{1,12}")
_NO_NUMBER = 1 << 62


class Added(StrEnum):
    """What became of one entry of a batch."""

    NEW = "new"
    REPLAY = "replay"  #: this entry was indexed before (a crash between commit and rename)
    DUPLICATE = "duplicate"  #: the same SOP Instance UID with the same content: the first bytes stay
    CONFLICT = "conflict"  #: the same SOP Instance UID with other content: kept beside, not current


@dataclass(frozen=True, slots=True)
class Settling:
    """A study with instances after its settled revision, and what decides whether it is quiet; times in epoch ms.

    `first_unsettled_at` is the arrival of the first such instance. `released_at` is the end of the last association
    that carried the study, None while one is open or if none did. `registrations` counts how often it settled before.
    `requested`: a person wants it to be sent without waiting.
    """

    study_uid: str
    revision: int
    settled_revision: int
    first_arrived_at: int
    last_arrived_at: int
    first_unsettled_at: int
    registrations: int
    conflict: bool
    modalities: frozenset[str]
    has_open_association: bool
    released_at: int | None
    requested: bool = False


def normalise_accession(raw: str) -> str:
    """Return `raw` without the blanks and NULs around it, and nothing else: case and inner blanks are the hospital's.

    Source: PS3.5 6.2 (SH: leading and trailing spaces are not significant).
    """
    return raw.strip(" \0")


# --- adding --------------------------------------------------------------------------------------------------------

@dataclass(slots=True)
class _Known:
    """What the database and the batch so far hold under one SOP Instance UID."""

    study_uid: str
    version_of: dict[str, str]  # sha256 -> id


def add_instances(
    tx: Tx, batch: Sequence[Instance], now: int, same_as: Mapping[str, str] = MappingProxyType({}),
) -> list[Added]:
    """Index a batch (at most a few hundred) and return what each entry was, in the order of the batch.

    Equal bytes are the same content; other bytes are too where `same_as` says of an entry whose content it brings.
    Locks the study rows in sorted order first. Each study that gained NEW or CONFLICT instances gets revision + 1 once.
    A DUPLICATE writes no instance row but is remembered, so that it is a REPLAY when it comes again. A SOP Instance UID
    known from another study is a CONFLICT that marks both studies. `current` of the given instances is ignored.
    Raises Transient on PostgreSQL when another process added the same SOP Instance UID at the same moment.
    """
    batch = [_with_storable_keys(instance) for instance in batch]
    _lock_studies(tx, batch)
    replayed = _replayed(tx, [instance.id for instance in batch])
    known = _known_sops(tx, sorted({instance.header.sop_uid for instance in batch}))
    results: list[Added] = []
    fresh: list[Instance] = []
    duplicates: list[tuple[str, str, int]] = []
    in_conflict: set[str] = set()
    for instance in batch:
        added, other = _classify(instance, replayed, known, same_as.get(instance.id, ""))
        results.append(added)
        replayed.add(instance.id)
        if added is Added.DUPLICATE and other:
            duplicates.append((instance.id, other.version_of[instance.sha256], instance.arrival.arrived_at))
        elif added is Added.NEW:
            fresh.append(replace(instance, current=True))
        elif added is Added.CONFLICT and other:
            fresh.append(replace(instance, current=False))
            in_conflict |= {instance.header.study_uid, other.study_uid}
    _insert(tx, fresh)
    if duplicates:
        tx.executemany("INSERT INTO duplicate (id, of_id, arrived_at) VALUES (?, ?, ?)", duplicates)
    if in_conflict:
        tx.executemany("UPDATE study SET conflict = 1 WHERE study_uid = ?", [(uid,) for uid in sorted(in_conflict)])
    note_associations(tx, batch)
    note_terms(tx, fresh)
    count_arrivals(tx, fresh)
    return results


def _with_storable_keys(instance: Instance) -> Instance:
    header = instance.header
    keys = (instance.id, instance.part, header.sop_uid, header.study_uid, header.series_uid)
    if all(key.isascii() and "\0" not in key for key in keys):
        return instance
    header = replace(header, sop_uid=storable(header.sop_uid), study_uid=storable(header.study_uid),
                     series_uid=storable(header.series_uid))
    return replace(instance, id=storable(instance.id), part=storable(instance.part), header=header)


def _lock_studies(tx: Tx, batch: Sequence[Instance]) -> None:
    first_at: dict[str, int] = {}
    for instance in batch:
        uid, at = instance.header.study_uid, instance.arrival.arrived_at
        first_at[uid] = min(at, first_at.get(uid, at))
    tx.executemany("INSERT INTO study (study_uid, first_arrived_at, last_arrived_at, listed_at)"
                   " VALUES (?, ?, ?, ?) ON CONFLICT (study_uid) DO NOTHING",
                   [(uid, at, at, at) for uid, at in sorted(first_at.items())])
    for some in chunks(sorted(first_at)):
        tx.rows(f"SELECT 1 FROM study WHERE study_uid IN ({marks(some)}) ORDER BY study_uid{tx.for_update}", some)


def _replayed(tx: Tx, ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for some in chunks(ids):
        for table in ("instance", "duplicate"):
            found.update(id_ for (id_,) in tx.rows(f"SELECT id FROM {table} WHERE id IN ({marks(some)})", some))
    return found


def _known_sops(tx: Tx, sop_uids: Sequence[str]) -> dict[str, _Known]:
    known: dict[str, _Known] = {}
    for some in chunks(sop_uids):
        for current in (1, 0):  # the current one first: its study is the one that the UID belongs to
            rows = tx.rows(f"SELECT sop_uid, study_uid, sha256, id FROM instance WHERE is_current = {current}"
                           f" AND sop_uid IN ({marks(some)})", some)
            for sop_uid, study_uid, sha256, id_ in rows:
                known.setdefault(sop_uid, _Known(study_uid, {})).version_of.setdefault(sha256, id_)
    return known


def _classify(
    instance: Instance, replayed: set[str], known: dict[str, _Known], same_as: str,
) -> tuple[Added, _Known | None]:
    if instance.id in replayed:
        return Added.REPLAY, None
    header = instance.header
    other = known.get(header.sop_uid)
    if other is None:
        known[header.sop_uid] = _Known(header.study_uid, {instance.sha256: instance.id})
        return Added.NEW, None
    if same_as in other.version_of.values():
        other.version_of.setdefault(instance.sha256, same_as)
    if instance.sha256 in other.version_of:
        return Added.DUPLICATE, other
    other.version_of[instance.sha256] = instance.id
    return Added.CONFLICT, other


def _insert(tx: Tx, fresh: Sequence[Instance]) -> None:
    if not fresh:
        return
    tx.executemany(_INSERT_INSTANCE, [instance_values(instance) for instance in fresh])
    by_study: dict[str, list[Instance]] = {}
    by_series: dict[tuple[str, str], list[Instance]] = {}
    for instance in fresh:
        header = instance.header
        by_study.setdefault(header.study_uid, []).append(instance)
        by_series.setdefault((header.study_uid, header.series_uid), []).append(instance)
    parts = sorted({(instance.header.study_uid, instance.part) for instance in fresh})
    tx.executemany("INSERT INTO study_part (study_uid, part) VALUES (?, ?)"
                   " ON CONFLICT (study_uid, part) DO NOTHING", parts)
    tx.executemany(_UPSERT_SERIES, [_series_values(some) for _, some in sorted(by_series.items())])
    tx.executemany(_UPDATE_STUDY, [_study_values(uid, some) for uid, some in sorted(by_study.items())])


_UPSERT_SERIES = """
    INSERT INTO series (study_uid, series_uid, modality, series_number, description, body_part, series_date,
                        series_time, instances)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (study_uid, series_uid) DO UPDATE SET instances = series.instances + excluded.instances"""

# Patient and study text is that of the first instance that had any: column of `study` -> field of Header.
_STUDY_TEXT = {
    "patient_id": "patient_id", "patient_name": "patient_name", "patient_birth_date": "patient_birth_date",
    "patient_sex": "patient_sex", "study_date": "study_date", "study_time": "study_time", "study_id": "study_id",
    "description": "study_description",
}
_UPDATE_STUDY = f"""
    UPDATE study SET
        unsettled_since = CASE WHEN revision > settled_revision AND unsettled_since < ? THEN unsettled_since ELSE ? END,
        revision = revision + 1, purged = 0,
        first_arrived_at = CASE WHEN first_arrived_at < ? THEN first_arrived_at ELSE ? END,
        last_arrived_at = CASE WHEN last_arrived_at > ? THEN last_arrived_at ELSE ? END,
        instances = instances + ?,
        {', '.join(f"{column} = CASE WHEN {column} = '' THEN ? ELSE {column} END" for column in _STUDY_TEXT)}
    WHERE study_uid = ?"""


def _series_values(some: Sequence[Instance]) -> list[Any]:
    header = some[0].header
    return [header.study_uid, header.series_uid, header.modality, header.series_number, header.series_description,
            header.body_part, header.series_date, header.series_time, sum(instance.current for instance in some)]


def _study_values(study_uid: str, some: Sequence[Instance]) -> list[Any]:
    first = min(instance.arrival.arrived_at for instance in some)
    last = max(instance.arrival.arrived_at for instance in some)
    texts = [next(filter(None, (getattr(instance.header, name) for instance in some)), "")
             for name in _STUDY_TEXT.values()]
    return [first, first, first, first, last, last, sum(instance.current for instance in some), *texts, study_uid]


# --- settling ------------------------------------------------------------------------------------------------------

def studies_to_settle(tx: Tx, limit: int) -> list[Settling]:
    """Return up to `limit` studies whose revision is beyond the settled one, those that wait longest first."""
    rows = tx.rows(
        "SELECT study_uid, revision, settled_revision, first_arrived_at, last_arrived_at, unsettled_since,"
        " registrations, conflict, settle_requested FROM study WHERE revision > settled_revision"
        " ORDER BY unsettled_since, study_uid LIMIT ?", (limit,))
    uids = [row[0] for row in rows]
    modalities: dict[str, set[str]] = {}
    ends: dict[str, list[int | None]] = {}
    for some in chunks(uids):
        of_studies = f"study_uid IN ({marks(some)})"
        for uid, modality in tx.rows(f"SELECT study_uid, modality FROM series WHERE {of_studies}", some):
            modalities.setdefault(uid, set()).add(modality)
        for uid, ended_at in tx.rows(
                "SELECT s.study_uid, a.ended_at FROM association_study s JOIN association a"
                f" ON a.association_id = s.association_id WHERE s.{of_studies}", some):
            ends.setdefault(uid, []).append(ended_at)
    return [_settling(row, modalities.get(row[0], set()), ends.get(row[0], [])) for row in rows]


def _settling(row: Sequence[Any], modalities: Iterable[str], ends: Sequence[int | None]) -> Settling:
    over = [ended_at for ended_at in ends if ended_at is not None]
    is_open = len(over) < len(ends)
    return Settling(
        study_uid=row[0], revision=row[1], settled_revision=row[2], first_arrived_at=row[3], last_arrived_at=row[4],
        first_unsettled_at=row[5], registrations=row[6], conflict=bool(row[7]), modalities=frozenset(modalities),
        has_open_association=is_open, released_at=max(over) if over and not is_open else None,
        requested=bool(row[8]),
    )


def mark_settled(tx: Tx, study_uid: str, revision: int, now: int) -> bool:
    """Copy `revision` to settled_revision if it is still the study's; False if the row has moved on.

    Locks the study row until the transaction ends: call `jobs.plan` for every destination in the same one.
    """
    return tx.execute("UPDATE study SET settled_revision = revision, settled_at = ?, unsettled_since = NULL,"
                      " settle_requested = 0, registrations = registrations + 1 WHERE study_uid = ? AND revision = ?"
                      " AND settled_revision < revision", (now, study_uid, revision)) == 1


def request_settle(tx: Tx, study_uid: str) -> None:
    """Let the study settle at the next pass, quiet or not, because a person asked for it; no-op if it is settled."""
    tx.execute("UPDATE study SET settle_requested = 1 WHERE study_uid = ? AND revision > settled_revision",
               (study_uid,))


def mark_urgent(tx: Tx, study_uid: str) -> None:
    """Let jobs that are planned for the study from now on be urgent, because a person asked for it."""
    tx.execute("UPDATE study SET urgent = 1 WHERE study_uid = ?", (study_uid,))


def is_urgent(tx: Tx, study_uid: str) -> bool:
    """Return whether a person has called the study urgent."""
    return tx.row("SELECT 1 FROM study WHERE study_uid = ? AND urgent = 1", (study_uid,)) is not None


# --- reading -------------------------------------------------------------------------------------------------------

def parts_of(tx: Tx, study_uid: str) -> list[str]:
    """Return the accessions ("" for none) that the study's current instances came with."""
    return [part for (part,) in tx.rows(
        "SELECT part FROM study_part p WHERE study_uid = ? AND EXISTS (SELECT 1 FROM instance n WHERE n.study_uid ="
        " p.study_uid AND n.part = p.part AND n.is_current = 1) ORDER BY part", (study_uid,))]


def inventory(tx: Tx, study_uid: str, part: str | None = None) -> Inventory:
    """Return every current instance ever accepted for the study and part, purged ones included; `part` None: all parts.

    Series are ordered by (number, UID), instances within by (number, UID); a number that is no integer comes last.
    A series' number is the lowest of its instances. Raises NotFound for an unknown study.
    """
    settled = tx.value("SELECT settled_revision FROM study WHERE study_uid = ?", (study_uid,))
    if settled is None:
        raise NotFound(f"no study {study_uid}")
    of_part, params = ("", [study_uid]) if part is None else (" AND n.part = ?", [study_uid, part])
    rows = tx.rows(f"SELECT {select_instance('n')} FROM instance n WHERE n.study_uid = ?{of_part}"
                   " AND n.is_current = 1", params)
    by_series: dict[str, list[Instance]] = {}
    for row in rows:
        found = instance_from(row)
        by_series.setdefault(found.header.series_uid, []).append(found)
    return Inventory(
        study_uid=study_uid, part=part or "", revision=settled,
        first_arrived_at=min((one.arrival.arrived_at for some in by_series.values() for one in some), default=0),
        series=tuple(Series(uid, tuple(sorted(some, key=_instance_order)))
                     for uid, some in sorted(by_series.items(), key=_series_order)),
    )


def _number(text: str) -> int:
    """Return an Integer String leniently; what is none sorts last."""
    text = text.strip()
    return int(text) if _INTEGER.fullmatch(text) else _NO_NUMBER


def _instance_order(instance: Instance) -> tuple[int, str]:
    return _number(instance.header.instance_number), instance.header.sop_uid


def _series_order(series: tuple[str, list[Instance]]) -> tuple[int, str]:
    return min(_number(one.header.series_number) for one in series[1]), series[0]


def instance(tx: Tx, entry_id: str) -> Instance:
    """Return one accepted set of bytes, current or not. Raises NotFound."""
    row = tx.row(f"SELECT {select_instance('n')} FROM instance n WHERE n.id = ?", (entry_id,))
    if row is None:
        raise NotFound(f"no instance {entry_id}")
    return instance_from(row)


def current_of(tx: Tx, sop_uids: Sequence[str]) -> dict[str, Instance]:
    """Return what counts under each of these SOP Instance UIDs (bounded by the caller), purged or not."""
    found = (instance_from(row) for some in chunks(sop_uids) for row in tx.rows(
        f"SELECT {select_instance('n')} FROM instance n WHERE n.is_current = 1 AND n.sop_uid IN ({marks(some)})", some))
    return {one.header.sop_uid: one for one in found}


def find_studies(tx: Tx, token: str) -> list[str]:
    """Return the study UIDs that a person may mean: by Study Instance UID, or by accession, raw or normalised."""
    accession = normalise_accession(token)
    if not accession:
        return []
    return [uid for (uid,) in tx.rows(
        "SELECT study_uid FROM study WHERE study_uid = ? UNION SELECT study_uid FROM study_part WHERE part = ?"
        " ORDER BY study_uid", (accession, accession))]


def studies_since(tx: Tx, since: int, limit: int) -> list[str]:
    """Return studies whose last image came at `since` (epoch ms) or later and whose bytes are held, newest first."""
    return [uid for (uid,) in tx.rows(
        "SELECT study_uid FROM study WHERE purged = 0 AND last_arrived_at >= ?"
        " ORDER BY last_arrived_at DESC, study_uid LIMIT ?", (since, limit))]


def study(tx: Tx, study_uid: str) -> Study | None:
    """Return a row of `study` with its accessions and modalities, None if we never held one."""
    row = tx.row("SELECT study_uid, revision, settled_revision, first_arrived_at, last_arrived_at, instances,"
                 " study_date, description, conflict FROM study WHERE study_uid = ?", (study_uid,))
    if row is None:
        return None
    parts = tx.rows("SELECT part FROM study_part WHERE study_uid = ? AND part <> '' ORDER BY part", (study_uid,))
    series = tx.rows("SELECT modality FROM series WHERE study_uid = ?", (study_uid,))
    return Study(
        study_uid=row[0], revision=row[1], settled_revision=row[2], first_arrived_at=row[3], last_arrived_at=row[4],
        instances=row[5], series=len(series), accession_numbers=tuple(part for (part,) in parts),
        modalities=tuple(sorted({modality for (modality,) in series if modality})), study_date=row[6],
        description=row[7], conflict=bool(row[8]),
    )


def instances_of(tx: Tx, study_uid: str, *, after: str = "", limit: int) -> list[Instance]:
    """Return instances of a study, those kept beside the first ones included, by id beyond `after`."""
    return [instance_from(row) for row in tx.rows(
        f"SELECT {select_instance('n')} FROM instance n WHERE n.study_uid = ? AND n.id > ? ORDER BY n.id LIMIT ?",
        (study_uid, after, limit))]
