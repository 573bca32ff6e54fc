"""SQL for associations: who brought which study, and whether somebody is still bringing it.

Called by `index` (which notes who carried an instance) and by `indexer` (for association records); imports model, rows
and store. Changes when the receiver tells more about an association.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from internal.devices import Caller, learn
from internal.model import Instance
from internal.peers import host_of
from internal.rows import json_text, node_of
from internal.set_aside import claim_of_association
from internal.store import Tx

_INSERT_ASSOCIATION = """
    INSERT INTO association (association_id, node, slot, boot, calling_aet, called_aet, peer_address, started_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (association_id) DO NOTHING"""
_UPSERT_ASSOCIATION_STUDY = """
    INSERT INTO association_study (study_uid, association_id, last_at) VALUES (?, ?, ?)
    ON CONFLICT (study_uid, association_id) DO UPDATE SET last_at =
        CASE WHEN association_study.last_at > excluded.last_at
             THEN association_study.last_at ELSE excluded.last_at END"""


def note_associations(tx: Tx, batch: Sequence[Instance]) -> None:
    """Remember which associations carried which studies of a batch; each is open until its record comes."""
    opened: dict[str, Instance] = {}
    last_at: dict[tuple[str, str], int] = {}
    for instance in batch:
        association_id, at = instance.arrival.association_id, instance.arrival.arrived_at
        if association_id:
            opened.setdefault(association_id, instance)
            key = (instance.header.study_uid, association_id)
            last_at[key] = max(at, last_at.get(key, at))
    tx.executemany(_INSERT_ASSOCIATION, [_association_values(*pair) for pair in sorted(opened.items())])
    learn(tx, [Caller(one.arrival.calling_aet, host_of(one.arrival.peer_address), one.arrival.arrived_at)
               for one in opened.values() if one.arrival.source == "dimse"], with_images=True)
    tx.executemany(_UPSERT_ASSOCIATION_STUDY, [(*key, at) for key, at in sorted(last_at.items())])


def _association_values(association_id: str, first: Instance) -> list[Any]:
    arrival = first.arrival
    return [association_id, node_of(first.location), *slot_and_boot(association_id), arrival.calling_aet,
            arrival.called_aet, arrival.peer_address, arrival.arrived_at]


def slot_and_boot(association_id: str) -> tuple[str, str]:
    """Return slot and boot of ``<slot>.<boot>.<n>``; ("", "") for an id of another shape."""
    parts = association_id.rsplit(".", 2)
    return (parts[0], parts[1]) if len(parts) == 3 else ("", "")


def add_association(tx: Tx, record: Mapping[str, Any], *, node: str = "") -> None:
    """Index an association record; adding it again changes nothing more.

    With association_id: it has ended, and carried these studies (calling_aet, called_aet, peer, started_at, ended_at,
    how, studies {UID: count}, refused {status: count}). How "slot-restarted" ends what earlier boots of the slot left
    open. How "refused" sums associations that were refused, as refusals [{peer, calling_aet, called_aet, reason, count,
    started_at, ended_at}]; each is kept under its digest, and its caller is learned. A missing or unreadable field
    counts as empty: a record of a newer receiver must not stop the index.
    """
    ended_at, how = _integer(record.get("ended_at")), _text(record.get("how"))
    if how == "slot-restarted":
        end_associations_of_slot(tx, _text(record.get("slot")), _text(record.get("boot")), ended_at, node=node)
        return
    if how == "refused":
        _add_refusals(tx, record, node)
        return
    digest = hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()
    association_id = _text(record.get("association_id")) or f"record:{digest[:32]}"
    studies, refused = _counts(record.get("studies")), _counts(record.get("refused"))
    started_at = _integer(record.get("started_at")) or ended_at
    peers = [_text(record.get(key)) for key in ("calling_aet", "called_aet", "peer")]
    tx.execute(_INSERT_ASSOCIATION, [association_id, node, *slot_and_boot(association_id), *peers, started_at])
    tx.execute("UPDATE association SET started_at = ?, ended_at = ?, how = ?, studies = ?, refused = ?"
               " WHERE association_id = ?",
               (started_at, ended_at, how, json_text(studies), json_text(refused), association_id))
    tx.executemany(_UPSERT_ASSOCIATION_STUDY, [(uid, association_id, started_at) for uid in sorted(studies)])
    claim_of_association(tx, association_id, studies, ended_at)


def _add_refusals(tx: Tx, record: Mapping[str, Any], node: str) -> None:
    listed = record.get("refusals")
    digest = hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()[:32]
    callers: list[Caller] = []
    for number, refusal in enumerate(listed if isinstance(listed, list) else []):
        if not isinstance(refusal, dict):
            continue
        association_id = f"record:{digest}.{number}"
        peer, calling_aet, called_aet, reason = (
            _text(refusal.get(key)) for key in ("peer", "calling_aet", "called_aet", "reason"))
        started_at, ended_at = _integer(refusal.get("started_at")), _integer(refusal.get("ended_at"))
        tx.execute(_INSERT_ASSOCIATION, [association_id, node, _text(record.get("slot")), "", calling_aet,
                                         called_aet, peer, started_at])
        tx.execute("UPDATE association SET ended_at = ?, how = 'refused', refused = ? WHERE association_id = ?",
                   (ended_at, json_text({reason: _integer(refusal.get("count"))}), association_id))
        if calling_aet:  # a connection over the caps has said no name yet
            callers.append(Caller(calling_aet, host_of(peer), ended_at))
    learn(tx, callers)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _integer(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 62 else 0


def _counts(value: object) -> dict[str, int]:
    return {_text(key): _integer(count) for key, count in value.items()} if isinstance(value, dict) else {}


def end_associations_of_slot(tx: Tx, slot: str, boot: str, now: int, *, node: str = "") -> int:
    """End every open association that an earlier boot of this slot left behind; return how many.

    `boot` is the one that has just started ("" ends all of the slot), `node` "" means any node.
    """
    return tx.execute("UPDATE association SET ended_at = ?, how = 'lost' WHERE ended_at IS NULL AND slot = ?"
                      " AND boot <> ? AND (? = '' OR node = ?)", (now, slot, boot, node, node))


def open_associations_of(tx: Tx, study_uid: str) -> bool:
    """Return whether an association that carried the study is still open."""
    return tx.row("SELECT 1 FROM association_study s JOIN association a ON a.association_id = s.association_id"
                  " WHERE s.study_uid = ? AND a.ended_at IS NULL LIMIT 1", (study_uid,)) is not None


@dataclass(frozen=True, slots=True)
class Reception:
    """What one device brought of a study: images in so many associations, first and last arrival in epoch ms."""

    calling_aet: str
    host: str
    images: int
    associations: int
    first_at: int
    last_at: int


def receptions_of(tx: Tx, study_uid: str) -> list[Reception]:
    """Return who brought the study, the earliest first; images that came again with equal bytes are not counted."""
    found: dict[tuple[str, str], Reception] = {}
    for calling_aet, peer, images, first_at, last_at in tx.rows(
            "SELECT calling_aet, peer_address, COUNT(*), MIN(arrived_at), MAX(arrived_at) FROM instance"
            " WHERE study_uid = ? GROUP BY association_id, calling_aet, peer_address ORDER BY MIN(arrived_at)",
            (study_uid,)):
        host = host_of(peer)
        before = found.get((calling_aet, host), Reception(calling_aet, host, 0, 0, first_at, last_at))
        found[calling_aet, host] = replace(
            before, images=before.images + images, associations=before.associations + 1,
            last_at=max(before.last_at, last_at))
    return list(found.values())
