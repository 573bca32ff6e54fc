"""The phase `push`: every due instance to the DICOM store, several at a time, each with its own receipt.

Between register and confirm. Bytes are frozen and committed as sent before the first one leaves; answers are written
down after each batch, so that a crash costs at most a batch of repeated pushes of equal bytes.
Imports client, run and internal. Changes when the rules for sending instances change.
Source: satusehat facts 3; reliability facts 2.5 D9-D14, D21, D23, D34.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from interface.logs import DETAIL, PHRASES
from interface.logs import event as log_event
from interface.satusehat.client import NOT_UNDERSTOOD, Client, Pushed, Verdict
from interface.satusehat.run import Run, find_inventory_uids, find_sop_uids
from internal.errors import BytesDamaged, BytesMissing, LeaseLost, RouterError, Transient, UnknownOutcome
from internal.failpoints import hit
from internal.model import Item, ItemState
from internal.ports import Frozen
from internal.states import More, Outcome, Refuse

BATCH_PER_THREAD = 4
BATCH_BYTES = 256 * 1024 * 1024
RENEW_EVERY_S = 5.0
MAX_SET_ASIDE = 16
MAX_UNREADABLE_SENDS = 3

log = logging.getLogger("router.satusehat")

Result = Pushed | RouterError


@dataclass
class _Tour:
    """One walk over the items of a job: those that failed for themselves wait for the next step."""

    set_aside: set[int] = field(default_factory=set)
    fault: RouterError | None = None

    def put_aside(self, item: Item, fault: RouterError) -> None:
        self.set_aside.add(item.item_id)
        self.fault = self.fault or fault


class Pushing:
    """Pushes the items of one job after another; the threads are shared by all workers of the lane."""

    def __init__(self, client: Client, parallel: int) -> None:
        self._client = client
        self._batch = BATCH_PER_THREAD * parallel
        self._threads = ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="push")

    def close(self) -> None:
        """Let pushes in flight end and start no more."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def push(self, run: Run) -> Outcome | None:
        """Push what is due or of unknown outcome; None: nothing is left.

        Raises the fault that stopped it; every answer that came before is written down.
        """
        tour = _Tour()
        announced = False
        while True:
            batch = self._find_batch(run, tour)
            if not batch:
                break
            listed = find_sop_uids(run.resource or {})
            ready = [item for item in batch if item.instance.header.sop_uid in listed]
            if not ready:
                return self._find_unlisted(run, batch)
            if not announced:
                run.work.event("push", PHRASES["push_started"])
                announced = True
            self._push_batch(run, ready, tour)
            if run.work.should_yield():
                return More()
        if tour.fault is not None:
            raise tour.fault
        return None

    def _find_batch(self, run: Run, tour: _Tour) -> list[Item]:
        if len(tour.set_aside) >= MAX_SET_ASIDE:
            return []
        found = run.work.items((ItemState.SENT, ItemState.DUE), self._batch + len(tour.set_aside))
        batch: list[Item] = []
        size = 0
        for item in [item for item in found if item.item_id not in tour.set_aside][: self._batch]:
            size += item.instance.dataset_bytes
            if batch and size > BATCH_BYTES:
                break
            batch.append(item)
        return batch

    def _find_unlisted(self, run: Run, batch: Sequence[Item]) -> Outcome:
        """Return what to do about items that the ImagingStudy does not list: newer than it, or dropped by somebody."""
        known = find_inventory_uids(run.work.inventory())
        strangers = [item.instance.header.sop_uid for item in batch if item.instance.header.sop_uid not in known]
        if strangers:
            return Refuse("not-in-inventory", "instances to send are not part of the study", {"sop_uids": strangers})
        run.work.record_facts(registered_revision=None)
        return More()

    def _push_batch(self, run: Run, items: Sequence[Item], tour: _Tour) -> None:
        before = {item.item_id: item for item in items}
        frozen = self._freeze(run, items, tour)
        hit("push.mid")
        results = self._send(run, frozen)
        answers: list[tuple[Item, ItemState, dict[str, Any]]] = []
        for one, result in zip(frozen, results, strict=True):
            state = _judge(before[one.item.item_id], one, result)
            if state is None:
                assert isinstance(result, RouterError)
                tour.put_aside(one.item, result)
                continue
            answers.append((one.item, state, _describe(run, result)))
            self._tell(run, one.item, state, result)
        if answers:
            run.work.settle_items(answers)
        for result in results:
            if isinstance(result, RouterError) and _stops_the_step(result):
                raise result

    def _freeze(self, run: Run, items: Sequence[Item], tour: _Tour) -> list[Frozen]:
        """Freeze the batch; where a file is missing or damaged, freeze the others one by one."""
        try:
            return run.work.freeze(items)
        except (BytesMissing, BytesDamaged) as fault:
            if len(items) == 1:
                tour.put_aside(items[0], fault)
                return []
        return [frozen for item in items for frozen in self._freeze(run, [item], tour)]

    def _send(self, run: Run, batch: Sequence[Frozen]) -> list[Result]:
        stop = threading.Event()
        imaging_study_id = run.fact("imaging_study_id")
        futures = [self._threads.submit(self._push_one, one, imaging_study_id, stop) for one in batch]
        try:
            self._await(run, futures)
        except BaseException:
            stop.set()
            for future in futures:
                future.cancel()
            raise
        return [future.result() for future in futures]

    def _await(self, run: Run, futures: Sequence[Future[Result]]) -> None:
        """Wait for all pushes under a renewed lease: each push ends by its own deadline, which is a floor rate."""
        pending = set(futures)
        while pending:
            _, pending = wait(pending, timeout=RENEW_EVERY_S)
            if pending:
                run.work.renew()

    def _push_one(self, frozen: Frozen, imaging_study_id: str, stop: threading.Event) -> Result:
        def on_bytes(_: int) -> None:
            if stop.is_set():
                raise LeaseLost

        try:
            return self._client.push_instance(frozen, imaging_study_id, on_bytes)
        except RouterError as fault:
            return fault

    def _tell(self, run: Run, item: Item, state: ItemState, result: Result) -> None:
        header = item.instance.header
        if state is ItemState.REFUSED:
            phrase = PHRASES["instance_failed"].format(sop_uid=header.sop_uid)
            run.work.event("instance-refused", f"{phrase}: {result_text(result)}", sop_uid=header.sop_uid)
        else:
            phrase = PHRASES["instance_sent"].format(series_uid=header.series_uid, sop_uid=header.sop_uid)
            log_event(log, DETAIL, phrase, study=header.study_uid, job=run.work.job.job_id, receipt=str(state))


def _stops_the_step(fault: RouterError) -> bool:
    """Return whether `fault` would meet every other instance too."""
    if isinstance(fault, Transient):
        return fault.blame_lane
    return not isinstance(fault, BytesMissing | BytesDamaged)


def _judge(before: Item, frozen: Frozen, result: Result) -> ItemState | None:
    """Return the state that `result` gives the item, None when it is not known yet.

    409 "already exists" is a receipt for bytes that we have sent before; else what is there is not known to be ours.
    """
    sent_before = before.sends > 0 and before.sha256 == frozen.sha256
    if isinstance(result, Pushed):
        if result.verdict is Verdict.EXISTS:
            return ItemState.STORED if sent_before else ItemState.UNVERIFIED
        return ItemState.STORED if result.verdict is Verdict.STORED else ItemState.REFUSED
    unreadable = isinstance(result, UnknownOutcome) and result.code == NOT_UNDERSTOOD
    return ItemState.UNVERIFIED if unreadable and before.sends + 1 >= MAX_UNREADABLE_SENDS else None


def _describe(run: Run, result: Result) -> dict[str, Any]:
    answer: dict[str, Any] = {"at": run.work.clock.now_ms(), "text": result_text(result)}
    if isinstance(result, Pushed):
        answer |= {"status": result.status, "code": result.code}
    return answer


def result_text(result: Result) -> str:
    """Return the platform's words, or what is known in their place."""
    return result.text if isinstance(result, Pushed) else f"accepted, reply not understood: {result}"
