"""Storage commitment on our side: requests become jobs of kind "commit", and each instance asked for gets a verdict.

Layer 3, over jobs and spool. The receiver keeps a request as a spool entry; the indexer turns it into a job here; the
destination "commit" asks for the verdicts and reports them. Changes when another proof is asked for before we commit.
Source: PS3.4 J.3, PS3.3 C.14.1.1 (Failure Reason).
"""
# ruff: noqa: S608 - SQL is composed of placeholders only; every value is bound

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from internal import jobs
from internal.errors import SHORTAGES, BytesDamaged, BytesMissing, NotDicom, Transient
from internal.model import COMMITMENT_ANSWER, COMMITMENT_REQUEST
from internal.rows import chunks, json_object, json_text, marks, node_of
from internal.spool import Entry, EntryKind, Spool
from internal.spool_entry import arrived_at_of
from internal.store import Store, Tx, storable

KIND = "commit"

PROCESSING_FAILURE = 0x0110
NO_SUCH_OBJECT_INSTANCE = 0x0112
CLASS_INSTANCE_CONFLICT = 0x0119
DUPLICATE_TRANSACTION_UID = 0x0131
RESOURCE_LIMITATION = 0x0213

Policy = Literal["stored", "delivered"]


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """What a caller asked for; `references` are (SOP Class UID, SOP Instance UID), `arrived_at` in epoch ms."""

    transaction_uid: str
    calling_aet: str
    called_aet: str
    arrived_at: int
    references: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Failure Reason by SOP Instance UID (0: committed), and how many have still to be confirmed by SATUSEHAT.

    `damaged` are the SOP Instance UIDs by study of files that are missing, cut or altered.
    """

    reasons: Mapping[str, int]
    waiting: int = 0
    damaged: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Held:
    """What the index knows of one instance that somebody asks for."""

    entry_id: str
    study_uid: str
    sop_class_uid: str
    location: str
    gone_at: int | None
    dataset_offset: int
    dataset_bytes: int
    sha256: str


def lane_of(calling_aet: str) -> str:
    """Return the lane (and environment) of the reports to one caller."""
    return f"commit:{calling_aet}"


def parse_request(payload: bytes) -> CommitRequest:
    """Return the request in a spool entry; raises NotDicom if it is none."""
    try:
        document = json.loads(payload)
        if document["request"] != COMMITMENT_REQUEST:
            raise NotDicom("no service for this request is enabled")
        return CommitRequest(
            transaction_uid=str(document["transaction_uid"]), calling_aet=str(document["calling_aet"]),
            called_aet=str(document["called_aet"]), arrived_at=int(document["arrived_at"]),
            references=tuple((str(class_uid), str(uid)) for class_uid, uid in document["references"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise NotDicom("this request is not readable") from error


@dataclass(frozen=True, slots=True)
class CommitAnswer:
    """What a node says to a request of ours: Failure Reason by SOP Instance UID, 0 for what it commits to."""

    transaction_uid: str
    calling_aet: str
    arrived_at: int
    reasons: Mapping[str, int]


def parse_entry(payload: bytes) -> CommitRequest | CommitAnswer:
    """Return what a request entry of the spool holds; raises NotDicom if it is neither."""
    try:
        document = json.loads(payload)
        if document["request"] != COMMITMENT_ANSWER:
            return parse_request(payload)
        return CommitAnswer(
            transaction_uid=str(document["transaction_uid"]), calling_aet=str(document["calling_aet"]),
            arrived_at=int(document["arrived_at"]),
            reasons={str(uid): int(reason) for uid, reason in document["reasons"].items()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotDicom("this request is not readable") from error


def add_answer(tx: Tx, answer: CommitAnswer) -> None:
    """File an answer under its transaction; the same again, or an answer in parts, adds what is new."""
    known = find_answer(tx, answer.transaction_uid) or {}
    tx.execute("INSERT INTO commitment_answer (transaction_uid, calling_aet, arrived_at, reasons) VALUES (?, ?, ?, ?)"
               " ON CONFLICT (transaction_uid) DO UPDATE SET reasons = excluded.reasons",
               (answer.transaction_uid, storable(answer.calling_aet), answer.arrived_at,
                json_text({**known, **answer.reasons})))


def find_answer(tx: Tx, transaction_uid: str) -> dict[str, int] | None:
    """Return the reasons that came in under a transaction, None if nothing did."""
    found = tx.value("SELECT reasons FROM commitment_answer WHERE transaction_uid = ?", (transaction_uid,))
    return None if found is None else json_object(found)


def add_request(tx: Tx, request: CommitRequest, entry: Entry, node: str, now: int) -> None:
    """Plan the report on a request; the same entry again changes nothing, an equal request is reported once more.

    A transaction UID that another request of the caller still uses gets a job that answers "duplicate".
    """
    digest = hashlib.sha256(json.dumps(request.references).encode()).hexdigest()
    facts: dict[str, Any] = {"entry": entry.id, "digest": digest}
    part = request.transaction_uid
    known = jobs.find_request(tx, KIND, lane_of(request.calling_aet), part)
    if known is not None and known.facts.get("digest") != digest:
        part = f"{part}#{entry.id}"
        facts["duplicate"] = known.state not in jobs.ENDED
    jobs.plan_request(tx, kind=KIND, lane=lane_of(request.calling_aet), part=part, facts=facts, node=node, now=now)


class Commitments:
    """The index and the spool as the reporter of commitments needs them."""

    def __init__(self, store: Store, spool: Spool, policy: Policy) -> None:
        self._store = store
        self._spool = spool
        self._policy = policy

    def request(self, entry_id: str) -> CommitRequest:
        """Return the request that the spool keeps under `entry_id`; raises BytesMissing, BytesDamaged."""
        try:
            return parse_request(self._spool.read(Entry(entry_id, EntryKind.REQUEST, arrived_at_of(entry_id))))
        except NotDicom as error:
            raise BytesDamaged(f"the request {entry_id}: {error}") from None

    def is_indexed(self, request: CommitRequest) -> bool:
        """Return whether everything that was received before the request is in the index."""
        oldest = self._spool.oldest_new_at()
        return oldest is None or oldest > request.arrived_at

    def judge(
        self, references: Sequence[tuple[str, str]], now: int, alive: Callable[[], None] = lambda: None
    ) -> Verdicts:
        """Give each instance its verdict; on return those with 0 are marked as committed, which retention keeps to.

        Every file is read and its SHA-256 compared before that; `alive` is called after each. Under the policy
        "delivered" nothing is read or marked while `waiting` is not 0.
        """
        class_of = {uid: class_uid for class_uid, uid in references}
        reasons: dict[str, int] = {}
        promised: dict[str, _Held] = {}
        waiting = 0
        for some in chunks(sorted(class_of)):
            with self._store.reading() as tx:
                held = _held(tx, some)
                received = _receipts(tx, [row.entry_id for row in held.values()]) if self._policy == "delivered" else {}
            for uid in some:
                row = held.get(uid)
                reason = self._judge(row, class_of[uid])
                if row is not None and reason == 0 and self._policy == "delivered":
                    receipt = received.get(row.entry_id, "")
                    waiting += receipt == "waits"
                    reason = 0 if receipt in ("confirmed", "waits") else PROCESSING_FAILURE
                reasons[uid] = reason
                if row is not None and reason == 0:
                    promised[uid] = row
        if waiting:
            return Verdicts(reasons, waiting)
        damaged: dict[str, list[str]] = {}
        for uid, row in promised.items():
            reasons[uid] = self._check_bytes(row)
            if reasons[uid] == PROCESSING_FAILURE:
                damaged.setdefault(row.study_uid, []).append(uid)
            alive()
        self._mark([row.entry_id for uid, row in promised.items() if reasons[uid] == 0], now)
        return Verdicts(reasons, 0, damaged)

    def _judge(self, row: _Held | None, class_uid: str) -> int:
        if row is None:
            return NO_SUCH_OBJECT_INSTANCE
        if row.sop_class_uid != class_uid:
            return CLASS_INSTANCE_CONFLICT
        if row.gone_at is not None and self._policy == "stored":
            return NO_SUCH_OBJECT_INSTANCE
        return 0

    def _check_bytes(self, row: _Held) -> int:
        """Return 0 if the bytes are those that were accepted, as far as this node holds them, else the reason.

        RESOURCE_LIMITATION: they cannot be looked at now, which says nothing about them.
        """
        if row.gone_at is not None or node_of(row.location) != self._spool.node:
            return 0
        try:
            with self._spool.open_entry(row.entry_id) as file:
                if file.seek(0, 2) != row.dataset_offset + row.dataset_bytes:
                    return PROCESSING_FAILURE
                file.seek(row.dataset_offset)
                same = hashlib.file_digest(file, "sha256").hexdigest() == row.sha256  # type: ignore[arg-type]
        except BytesMissing:
            return PROCESSING_FAILURE
        except OSError as fault:
            return RESOURCE_LIMITATION if fault.errno in SHORTAGES else PROCESSING_FAILURE
        return 0 if same else PROCESSING_FAILURE

    def flag(self, damaged: Mapping[str, Sequence[str]], now: int) -> None:
        """Tell people which studies have files that are no longer what was accepted; hold what is still to be sent."""
        for study_uid, uids in damaged.items():
            reason = f"{len(uids)} images on this disk are no longer what was received; send them again from the device"
            with self._store.transaction() as tx:
                jobs.add_event(tx, now, "bytes-damaged", reason, study_uid=study_uid, fields={"images": len(uids)})
                for (job_id,) in tx.rows("SELECT job_id FROM job WHERE study_uid = ? AND kind = 'deliver'"
                                         " AND state <> 'held' ORDER BY job_id", (study_uid,)):
                    jobs.hold_for_person(tx, job_id, "bytes-damaged", reason, now)

    def _mark(self, ids: Sequence[str], now: int) -> None:
        for some in chunks(ids):
            with self._store.transaction() as tx:
                marked = tx.execute("UPDATE instance SET committed_at = ? WHERE purging_at IS NULL"
                                    f" AND id IN ({marks(some)})", (now, *some))
                if marked != len(some) and self._policy == "stored":
                    raise Transient("retention has just begun to remove one of these images", blame_lane=False)


def _held(tx: Tx, sop_uids: Sequence[str]) -> dict[str, _Held]:
    rows = tx.rows("SELECT sop_uid, id, study_uid, sop_class_uid, location, COALESCE(purged_at, purging_at),"
                   " dataset_offset, dataset_bytes, sha256"
                   f" FROM instance WHERE is_current = 1 AND sop_uid IN ({marks(sop_uids)})", sop_uids)
    return {row[0]: _Held(*row[1:]) for row in rows}


def _receipts(tx: Tx, ids: Sequence[str]) -> dict[str, str]:
    """Return "confirmed", "waits" (also before it is planned) or "failed" for what has to go to SATUSEHAT."""
    found = dict.fromkeys(ids, "waits")
    if not ids:
        return found
    for instance_id, state, is_confirmed in tx.rows(
            "SELECT i.instance_id, i.state, CASE WHEN j.done_revision >= i.revision THEN 1 ELSE 0 END FROM item i"
            " JOIN job j ON j.job_id = i.job_id AND j.environment = i.environment WHERE j.destination = 'satusehat'"
            f" AND i.instance_id IN ({marks(ids)})", ids):
        if state == "stored":
            found[instance_id] = "confirmed" if is_confirmed else "waits"
        elif state in ("refused", "conflict", "waived", "unverified", "unread", "skipped"):
            found[instance_id] = "failed"
    return found
