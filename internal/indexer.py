"""new/ -> rows -> cur/: turns accepted files into index rows, in batches.

Layer 4: reads the spool, writes the index. It never decides whether an image was accepted (the file says so) nor
where it goes (assemble). A crash between commit and rename is harmless: the same id is indexed again as a no-op.
Changes when something new must be known of an image the moment it is first read.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from internal import commitments, content, dicomfile, index, scan, set_aside
from internal.commitments import CommitAnswer, CommitRequest
from internal.errors import SHORTAGES, BytesMissing, NotDicom
from internal.model import Arrival, Instance
from internal.ports import Clock
from internal.rows import node_of
from internal.spool import Entry, EntryKind, Spool
from internal.store import Store, Tx, storable

log = logging.getLogger("router.index")

#: Rows of one transaction; keeps it well below 20 ms so that other writers are not held up.
BATCH_ROWS = 100
#: Entries of one listing: after an outage a listing of new/ costs more than a batch.
_LISTED_ENTRIES = 10_000
_HEAD_BYTES = 256 * 1024
#: Size of the buffer that read_instance wants.
READ_BYTES = 1024 * 1024
#: A batch ends where looking into what is repeated in other bytes has taken so long: other duties wait for it.
_COMPARE_S = 2.0
#: Once in a batch and once alone: an entry whose reading ended the process twice is set aside.
_STARTS_BEFORE_ASIDE = 2


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass did. `watermark_at`: everything that arrived before this moment is indexed."""

    indexed: int
    set_aside: int
    more: bool
    watermark_at: int


@dataclass(slots=True)
class _Batch:
    instances: list[Instance]
    records: list[dict[str, Any]]
    requests: list[tuple[Entry, CommitRequest | CommitAnswer]]
    done: list[Entry]
    bad: list[_Bad]
    gone: list[Entry]


@dataclass(frozen=True, slots=True)
class _Bad:
    """An entry to set aside; `association_id` is "" where its file meta does not tell who brought it."""

    entry: Entry
    reason: str
    association_id: str = ""


class Indexer:
    """Indexes what lies in the spool's new/; one per spool, in the deliver role only."""

    def __init__(self, spool: Spool, store: Store, clock: Clock) -> None:
        self._spool = spool
        self._store = store
        self._clock = clock
        self._suspects = self._crash_suspects()
        self._starts: dict[str, int] = {}
        self._listed: list[Entry] = []
        self._noted: set[str] = set()
        self._buffer = memoryview(bytearray(READ_BYTES))  # one for all: a fresh megabyte for each image costs time

    def _crash_suspects(self) -> set[str]:
        """Return the ids that were being parsed when this role last died; they are read one at a time."""
        with self._store.reading() as tx:
            return set(set_aside.parsing_interrupted(tx))

    def run_once(self) -> Pass:
        """Index one batch; on return its rows are committed and its files lie in cur/ (or bad/)."""
        started_at = self._clock.now_ms()
        if not self._listed:
            self._listed = self._spool.scan_new(limit=_LISTED_ENTRIES)
        entries = self._listed[:BATCH_ROWS]
        if not entries:
            return Pass(0, 0, False, started_at)
        if self._suspects:
            entries = self._single_out(entries)
        starts = self._note_parsing(entries)
        if self._suspects:
            self._note_study(entries[0], starts)
        batch = self._read(entries, starts)
        same_as, judged = self._repeats(batch.instances)
        if judged < len(batch.instances):
            first_left = batch.instances[judged].id
            entries = entries[: [entry.id for entry in entries].index(first_left)]
            batch = self._read(entries, starts)
        with self._store.transaction() as tx:
            self._write(tx, batch, same_as)
        self._spool.to_cur(batch.done)
        for bad in batch.bad:
            self._spool.set_aside(bad.entry, bad.reason)
            log.warning("Entry set aside", extra={"fields": {"entry": bad.entry.id, "reason": bad.reason}})
        handled = {entry.id for entry in entries}
        self._listed = [entry for entry in self._listed if entry.id not in handled]
        self._suspects -= handled
        for entry_id in handled:
            self._starts.pop(entry_id, None)
        oldest = self._listed[0].arrived_at if self._listed else self._spool.oldest_new_at()
        return Pass(len(batch.done), len(batch.bad), oldest is not None, started_at if oldest is None else oldest)

    def note_bad(self) -> int:
        """Write down what lies in bad/ and is not listed: torn files that a dead receiver left. Return how many.

        Their study is not held for them: whoever sent one had no answer yet and sends it again.
        """
        found = self._spool.scan_bad(self._noted)
        if not found:
            return 0
        now = self._clock.now_ms()
        with self._store.transaction() as tx:
            added = sum(set_aside.note_bad(tx, storable(name), storable(reason), now) for name, reason in found)
        self._noted.update(name for name, _ in found)
        return added

    def _single_out(self, entries: list[Entry]) -> list[Entry]:
        for entry in entries:
            if entry.id in self._suspects:
                return [entry]
        self._suspects.clear()
        return entries

    def _note_parsing(self, entries: Sequence[Entry]) -> dict[str, int]:
        """Commit which ids are about to be parsed, so that one that kills the process is recognised; return starts.

        Counted once per process: a batch that is read again because the database failed has ended no process.
        """
        fresh = [entry.id for entry in entries if entry.id not in self._starts]
        if fresh:
            with self._store.transaction() as tx:
                started = set_aside.parsing_started(tx, fresh)
            self._starts |= started
        return self._starts

    def _note_study(self, suspect: Entry, starts: Mapping[str, int]) -> None:
        """Commit the study of an entry that has ended the process before it is read once more, to know who lacks it."""
        if suspect.kind is not EntryKind.INSTANCE or starts[suspect.id] > _STARTS_BEFORE_ASIDE:
            return
        try:
            study_uid = read_study_uid(self._spool, suspect)
        except (NotDicom, BytesMissing):
            return  # reading it in full says why
        with self._store.transaction() as tx:
            set_aside.parsing_belongs(tx, suspect.id, storable(study_uid))

    def _read(self, entries: Sequence[Entry], starts: Mapping[str, int]) -> _Batch:
        batch = _Batch([], [], [], [], [], [])
        for entry in entries:
            try:
                if starts[entry.id] > _STARTS_BEFORE_ASIDE:
                    batch.bad.append(_Bad(entry, "reading it ended the process twice"))
                elif entry.kind is EntryKind.INSTANCE:
                    batch.instances.append(read_instance(self._spool, entry, self._buffer))
                    batch.done.append(entry)
                elif entry.kind is EntryKind.ASSOCIATION:
                    batch.records.append(read_record(self._spool, entry))
                    batch.done.append(entry)
                else:
                    batch.requests.append((entry, commitments.parse_entry(self._spool.read(entry))))
                    batch.done.append(entry)
            except BytesMissing:
                # Another pass (or a person) moved it; a full scan will see it again if it is still there.
                batch.gone.append(entry)
            except NotDicom as refusal:
                batch.bad.append(_Bad(entry, str(refusal), _association_of(self._spool, entry)))
            except OSError as fault:
                if fault.errno in SHORTAGES:
                    raise
                # One file that cannot be read must not keep all others from being indexed.
                reason = f"the disk does not give it back ({os.strerror(fault.errno or errno.EIO)})"
                batch.bad.append(_Bad(entry, reason))
        return batch

    def _repeats(self, instances: Sequence[Instance]) -> tuple[dict[str, str], int]:
        """Return which entries bring, in other bytes, the content that counts under their UID: entry to held entry;
        and how many of the instances were judged, from the first on, before the time for it was over.

        Looked up in the files, so only where those of both lie here; before the transaction, which is kept short.
        """
        until_s = self._clock.monotonic_s() + _COMPARE_S
        uids = {one.id: storable(one.header.sop_uid) for one in instances}
        with self._store.reading() as tx:
            held = index.current_of(tx, sorted(set(uids.values())))
        found: dict[str, str] = {}
        for judged, one in enumerate(instances):
            first = held.setdefault(uids[one.id], one)
            if one.sha256 == first.sha256:
                continue
            if judged and self._clock.monotonic_s() > until_s:
                return found, judged
            if self._same_content(one, first):
                found[one.id] = first.id
        return found, len(instances)

    def _same_content(self, one: Instance, first: Instance) -> bool:
        if first.purged_at is not None or node_of(first.location) != self._spool.node:
            return False
        try:
            with self._spool.open_entry(one.id) as file, self._spool.open_entry(first.id) as first_file:
                return content.same(_written(file, one), _written(first_file, first)) and self._is_whole(
                    first_file, first)
        except BytesMissing:
            return False
        except OSError as fault:
            if fault.errno in SHORTAGES:
                raise
            return False

    def _is_whole(self, file: BinaryIO, instance: Instance) -> bool:
        """Return whether the held data set is still what came: what repeats a damaged one is kept beside it."""
        file.seek(instance.dataset_offset)
        digest, left = hashlib.sha256(), instance.dataset_bytes
        while left and (part := file.read(min(len(self._buffer), left))):
            digest.update(part)
            left -= len(part)
        return not left and digest.hexdigest() == instance.sha256

    def _write(self, tx: Tx, batch: _Batch, same_as: Mapping[str, str]) -> None:
        now = self._clock.now_ms()
        outcomes = index.add_instances(tx, batch.instances, now, same_as)
        for instance, outcome in zip(batch.instances, outcomes, strict=True):
            if outcome is index.Added.CONFLICT:
                log.warning(
                    "Same SOP Instance UID with other content: both kept",
                    extra={"fields": {"study": instance.header.study_uid, "sop": instance.header.sop_uid}},
                )
        for bad in batch.bad:
            set_aside.note_bad(tx, bad.entry.id, bad.reason, now, association_id=bad.association_id)
        for record in batch.records:  # after what was set aside: it may tell which study lacks that
            index.add_association(tx, record, node=self._spool.node)
        for entry, request in batch.requests:
            if isinstance(request, CommitAnswer):
                commitments.add_answer(tx, request)
            else:
                commitments.add_request(tx, request, entry, self._spool.node, now)
        over = [*batch.done, *batch.gone, *(bad.entry for bad in batch.bad)]
        set_aside.parsing_done(tx, [entry.id for entry in over])


def read_instance(spool: Spool, entry: Entry, buffer: memoryview) -> Instance:
    """Read one spool file once, through `buffer`: file meta, index fields, SHA-256 and length of its data set.

    Raises NotDicom when the file cannot be an instance, BytesMissing when it is not there. Memory is bounded by a
    megabyte however large the file.
    """
    with spool.open_entry(entry.id) as file:
        begun = file.readinto(buffer)  # type: ignore[attr-defined]
        meta = dicomfile.parse_meta(bytes(buffer[:min(begun, dicomfile.META_BYTES)]))
        head = buffer[meta.dataset_offset:begun]
        digest = hashlib.sha256(head)
        size = len(head)
        if begun < len(buffer):  # all of it
            header = scan.scan(head, meta.transfer_syntax_uid)
        else:
            file.seek(meta.dataset_offset)
            header = scan.scan(file, meta.transfer_syntax_uid)
            file.seek(begun)
        while count := file.readinto(buffer):  # type: ignore[attr-defined]
            digest.update(buffer[:count])
            size += count
    return Instance(
        id=entry.id,
        header=header,
        part=index.normalise_accession(header.accession_number),
        sha256=digest.hexdigest(),
        dataset_offset=meta.dataset_offset,
        dataset_bytes=size,
        location=f"spool:{spool.node}/{entry.id}",
        arrival=meta.arrival or Arrival(arrived_at=entry.arrived_at, source="unknown"),
    )


def _written(file: BinaryIO, instance: Instance) -> content.Written:
    return content.Written(file, instance.dataset_offset, instance.dataset_bytes, instance.header.transfer_syntax_uid)


def read_study_uid(spool: Spool, entry: Entry) -> str:
    """Return the Study Instance UID from the first 256 KB of an instance; raises NotDicom or BytesMissing."""
    with spool.open_entry(entry.id) as file:
        meta = dicomfile.read_meta(file)
        file.seek(meta.dataset_offset)
        head = file.read(_HEAD_BYTES)
    return scan.scan_uids(head, meta.transfer_syntax_uid, whole=len(head) < _HEAD_BYTES).study_uid


def _association_of(spool: Spool, entry: Entry) -> str:
    """Return the association that brought an instance whose data set is not readable, "" if that is not readable."""
    if entry.kind is not EntryKind.INSTANCE:
        return ""
    try:
        with spool.open_entry(entry.id) as file:
            arrival = dicomfile.read_meta(file).arrival
    except (NotDicom, BytesMissing):
        return ""
    return arrival.association_id if arrival else ""


def read_record(spool: Spool, entry: Entry) -> dict[str, Any]:
    """Read one association record; raises NotDicom when it is none, BytesMissing when it is not there."""
    try:
        record = json.loads(spool.read(entry))
    except (ValueError, RecursionError) as error:
        raise NotDicom("this association record is not readable JSON") from error
    if not isinstance(record, dict):
        raise NotDicom("this association record is not a JSON object")
    return record
