"""Proof of arrival, asked for afterwards: the ImagingStudy, and each instance where the platform shows them.

`delivery` compares what was there already and asks once for what was pushed; `main.py verify` goes through studies that
count as delivered. Imports client, run and internal. Changes when the platform offers another way to look at what it
holds. Source: PS3.18 10.4 (WADO-RS); satusehat facts 3.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from interface.satusehat.client import Client, Presence
from interface.satusehat.run import Run, find_inventory_uids, find_sop_uids
from internal import dicomfile
from internal.errors import NotDicom, Transient
from internal.model import RECEIPTED, Instance, Inventory, Item, ItemState
from internal.ports import Work
from internal.states import More, Outcome

PARALLEL = 8
COMPARED = "compared_item"
ASKED = "asked_item"
ASKED_TOGETHER = 128
#: Of so many, one at least must be shown before another counts as missing.
WITNESSES = 4
RENEW_EVERY_S = 5.0
_META_BYTES = 132 + 64 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look at one delivered study found.

    `gone`: the ImagingStudy is not there. `unlisted`: SOP Instance UIDs that it does not list. `missing`: items with a
    receipt that the platform does not have. `here`: how many it answered for; 0: it does not answer for instances.
    `skipped`: how many are kept here by the hospital's setting, so that nobody misses them there.
    """

    gone: bool = False
    unlisted: tuple[str, ...] = ()
    missing: tuple[Item, ...] = ()
    here: int = 0
    receipts: int = 0
    skipped: int = 0

    @property
    def ok(self) -> bool:
        """Return whether nothing speaks against the study's being there."""
        return not (self.gone or self.unlisted or self.missing)


class DatasetHash:
    """SHA-256 of the data set of a Part 10 file that arrives piece by piece; the file meta is left out."""

    def __init__(self) -> None:
        self._head: bytes | None = b""
        self._foreign = False
        self._digest = hashlib.sha256()

    def take(self, data: bytes) -> None:
        """Take the next piece."""
        if self._head is None:
            self._digest.update(data)
            return
        self._head += data
        if len(self._head) >= _META_BYTES:
            self._begin()

    def hexdigest(self) -> str:
        """Return the hash after the last piece, "" when this was no DICOM file."""
        if self._head is not None:
            self._begin()
        return "" if self._foreign else self._digest.hexdigest()

    def _begin(self) -> None:
        head, self._head = self._head or b"", None
        try:
            self._digest.update(head[dicomfile.read_meta(io.BytesIO(head)).dataset_offset:])
        except NotDicom:
            self._foreign = True


@dataclass
class Audit:
    """Looks at what the platform holds; asks for several instances at once."""

    client: Client
    parallel: int = field(default=PARALLEL)

    def check(self, imaging_study_id: str, inventory: Inventory, items: Sequence[Item]) -> Finding:
        """Look at one study that was delivered; raises what the client raises."""
        receipted = [item for item in items if item.state in RECEIPTED]
        skipped = {item.instance.header.sop_uid for item in items if item.state is ItemState.SKIPPED}
        expected = find_inventory_uids(inventory) - skipped
        if not expected:
            return Finding(skipped=len(skipped))
        resource = self.client.read_imaging_study(imaging_study_id)
        if resource is None:
            return Finding(gone=True, receipts=len(receipted), skipped=len(skipped))
        unlisted = tuple(sorted(expected - find_sop_uids(resource)))
        with ThreadPoolExecutor(self.parallel) as threads:
            seen = list(threads.map(lambda item: self.client.look_for(item.instance.header), receipted))
        here = seen.count(Presence.HERE)
        # A platform that shows no instances at all answers like one that has none.
        missing = tuple(item for item, presence in zip(receipted, seen, strict=True)
                        if presence is Presence.ABSENT and here)
        return Finding(unlisted=unlisted, missing=missing, here=here, receipts=len(receipted), skipped=len(skipped))

    def ask_for_stored(self, run: Run) -> Outcome | None:
        """Ask once for each image with a full receipt, and make those due again that are not there; None: all asked.

        Where the platform answers for none of the first few, nothing is concluded and the others are left alone.
        """
        work = run.work
        while stored := work.items((ItemState.STORED,), ASKED_TOGETHER, max(run.number(ASKED), 0)):
            seen = self._look_for(work, stored[:WITNESSES])
            answers = Presence.HERE in seen
            if answers:
                seen += self._look_for(work, stored[WITNESSES:])
            missing = [item for item, presence in zip(stored, seen, strict=False)
                       if answers and presence is Presence.ABSENT and item.instance.purged_at is None]
            if missing:
                work.revise_receipts([(item, ItemState.DUE, {"lost_receipt": dict(item.answer)}) for item in missing])
                work.event("images-missing", f"SATUSEHAT does not have {len(missing)} images that it had confirmed: "
                           "they are pushed again")
            work.record_facts(**{ASKED: stored[-1].item_id})  # last: what is missing is never passed over
            if not answers:
                return None
            work.renew()
            if work.should_yield():
                return More()
        return None

    def _look_for(self, work: Work, items: Sequence[Item]) -> list[Presence]:
        """Ask for several at once, and keep the lease meanwhile: each question ends by its own deadline."""
        threads = ThreadPoolExecutor(self.parallel)
        try:
            asked = [threads.submit(self._look_for_one, item) for item in items]
            while wait(asked, RENEW_EVERY_S).not_done:
                work.renew()
        finally:
            threads.shutdown(cancel_futures=True)
        return [one.result() for one in asked]

    def _look_for_one(self, item: Item) -> Presence:
        try:
            return self.client.look_for(item.instance.header)
        except Transient:
            return Presence.UNKNOWN

    def read_status(self, imaging_study_id: str) -> str:
        """Return the status of an ImagingStudy, "" when it does not exist any more; raises what the client raises."""
        resource = self.client.read_imaging_study(imaging_study_id) if imaging_study_id else None
        return str((resource or {}).get("status", ""))[:32]

    def compare_unproven(self, run: Run) -> Outcome | None:
        """Fetch what is there without proof and compare it; equal data sets make a full receipt. None: all looked at.

        Where bytes differ nothing is concluded: the same content can be encoded in several ways.
        """
        work = run.work
        while True:
            unproven = work.items((ItemState.UNVERIFIED, ItemState.UNREAD), 1, max(run.number(COMPARED), 0))
            if not unproven:
                return None
            (item,) = unproven
            sha256 = self._fetch_dataset_sha256(item.instance, work.renew)
            if not sha256:
                return None
            work.record_facts(**{COMPARED: item.item_id})
            equal = sha256 == item.instance.sha256
            note = "what is there has been fetched: " + ("the data sets are equal" if equal else "the bytes differ")
            answer = {**item.answer, "compared_at": work.clock.now_ms(), "compared": note, "held_sha256": sha256}
            work.settle_items([(item, ItemState.STORED if equal else item.state, answer)])
            work.renew()
            if work.should_yield():
                return More()

    def _fetch_dataset_sha256(self, instance: Instance, alive: Callable[[], None]) -> str:
        """Return the hash of the data set that the platform holds, "" for none; `alive` is called meanwhile."""
        digest = DatasetHash()

        def take(data: bytes) -> None:
            digest.take(data)
            alive()

        shown = self.client.fetch_instance(instance.header, take, 2 * instance.dataset_bytes + _META_BYTES)
        return digest.hexdigest() if shown else ""
