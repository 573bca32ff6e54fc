"""The deliver role: index, assemble and lanes of one node in one process, at a lower priority than receive.

Composition of internal/ parts; the only process that indexes, migrates and checkpoints. Changes when a background
duty is added to the node.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import replace

from interface.destinations import build
from interface.dimse.commitment_report import CommitmentPeer, CommitmentReport
from interface.roles import (
    StatusFile,
    SystemClock,
    open_spool,
    open_store,
    stop_on_signals,
    stop_with_parent,
)
from internal import admission, jobs, rules
from internal.assemble import Assembler, SettlePolicy
from internal.assemble import Lane as PlannedLane
from internal.commitments import Commitments
from internal.config import Settings
from internal.config.values import split_commitment_caller
from internal.devices import Verdict
from internal.errors import StorageFailed, StorageFull, Transient
from internal.indexer import Indexer, Pass
from internal.model import Inventory
from internal.spool import Spool
from internal.store import Store
from internal.worker import Lane, LanePolicy

log = logging.getLogger("router.deliver")

_DRAIN_S = 20.0
_DOORBELL_S = 0.05
_FULL_SCAN_S = 5.0
_ASSEMBLE_S = 0.5
_HOUSEKEEPING_S = 10.0
#: A pause after each batch lets other processes' one-row commits through (the map, section 6).
_YIELD_S = 0.005
_NICE = 10
_FAULT_PAUSE_S = 2.0


class Deliver:
    """Everything the deliver role does between start and stop."""

    def __init__(self, settings: Settings, spool: Spool, store: Store) -> None:
        self._settings = settings
        self._spool = spool
        self._store = store
        self._clock = SystemClock()
        self._destinations = build(settings)
        self._unknown_callers = Verdict(settings.dicom.unknown_callers)
        self._stop = threading.Event()
        self._indexer = Indexer(spool, store, self._clock)
        self._assembler = Assembler(
            store, self._clock, settle_policy(settings),
            [PlannedLane(d.name, d.environment, d.by_accession) for d in self._destinations], self._route,
            self._unknown_callers,
        )
        self._lanes = [
            Lane(d, store, spool, self._clock, lane_policy(settings)) for d in self._destinations
        ] + [
            Lane(report, store, spool, self._clock, replace(lane_policy(settings), workers=1))
            for report in self._commitment_reports()
        ]
        self._counters = {"indexed": 0, "set_aside": 0, "planned": 0}
        self._status = StatusFile(spool, "deliver", self._report)
        self._watermark_at = 0

    def _commitment_reports(self) -> list[CommitmentReport]:
        """One destination for each caller that may ask for storage commitment."""
        dicom = self._settings.dicom
        commitments = Commitments(
            self._store, self._spool, "delivered" if dicom.commitment_policy == "delivered" else "stored")
        return [CommitmentReport(CommitmentPeer(*split_commitment_caller(text)), self._settings.satusehat.ae_title,
                                 commitments) for text in dicom.commitment_callers]

    def _route(self, inventory: Inventory) -> tuple[str, ...]:
        return rules.route(inventory, self._settings.router.send_to)

    def _report(self) -> dict[str, int]:
        return self._counters | {"steps": sum(lane.steps for lane in self._lanes)}

    def run(self, *, supervised: bool) -> int:
        """Work until told to stop; return the exit status. Leases still held are released by the next start."""
        stop_on_signals(self._stop)
        if supervised:
            stop_with_parent(self._stop)
        self._recover()
        for lane in self._lanes:
            lane.start()
        self._status.publish(force=True)
        while not self._stop.is_set():
            try:
                self._loop()
            except (Transient, StorageFull, StorageFailed) as fault:
                log.warning("Index cannot be written; images stay safe in new/", extra={"fields": {"why": str(fault)}})
                self._stop.wait(_FAULT_PAUSE_S)
        for lane in self._lanes:
            lane.stop_soon()
        deadline_s = time.monotonic() + _DRAIN_S
        left = [lane.name for lane in self._lanes if not lane.stop(max(0.0, deadline_s - time.monotonic()))]
        log.info("Deliver role stopped", extra={"fields": {"unfinished_lanes": left}})
        return 0

    def _recover(self) -> None:
        """Continue where the last run ended: leases of this node are free again, other environments' jobs wait."""
        now = self._clock.now_ms()
        with self._store.transaction() as tx:
            released = jobs.release_leases(tx, self._spool.node, now)
            displaced = sum(
                jobs.displace(tx, d.name, d.environment, now) for d in self._destinations
            )
            admission.release(tx, self._unknown_callers, who="configuration", now=now)
        self._assembler.recover()
        log.info("Deliver role started", extra={"fields": {"resumed": len(released), "displaced": displaced}})

    def _loop(self) -> None:
        bell, scanned_s, assembled_s, kept_house_s = -1, 0.0, 0.0, 0.0
        while not self._stop.is_set():
            now_s = time.monotonic()
            rang = self._spool.doorbell()
            if rang != bell or now_s - scanned_s >= _FULL_SCAN_S:
                bell, scanned_s = rang, now_s
                self._index()
            if now_s - assembled_s >= _ASSEMBLE_S:
                assembled_s = now_s
                self._assemble()
            if now_s - kept_house_s >= _HOUSEKEEPING_S:
                kept_house_s = now_s
                self._keep_house()
            self._status.publish()
            self._stop.wait(_DOORBELL_S)

    def _index(self) -> None:
        """Index everything that lies in new/, batch by batch, settling in between when it takes long."""
        began_s = time.monotonic()
        while not self._stop.is_set():
            result: Pass = self._indexer.run_once()
            self._watermark_at = result.watermark_at
            self._counters["indexed"] += result.indexed
            self._counters["set_aside"] += result.set_aside
            if not result.more or (result.indexed == 0 and result.set_aside == 0):
                return
            if time.monotonic() - began_s > _ASSEMBLE_S:
                self._assemble()
                self._status.publish()
                began_s = time.monotonic()
            self._stop.wait(_YIELD_S)

    def _assemble(self) -> None:
        oldest = self._spool.oldest_new_at()
        watermark_at = self._clock.now_ms() if oldest is None else oldest
        planned = self._assembler.run_once(watermark_at)
        if planned:
            self._counters["planned"] += planned
            for lane in self._lanes:
                lane.wake()

    def _keep_house(self) -> None:
        now = self._clock.now_ms()
        with self._store.transaction() as tx:
            jobs.expire_leases(tx, now)
            jobs.give_up_expired(tx, int(self._settings.router.patience * 1000), now)
        self._store.checkpoint()
        admission.publish(self._store, self._spool)
        self._spool.refresh_new()


def settle_policy(settings: Settings) -> SettlePolicy:
    """Return the settle times of `settings` in milliseconds."""
    router = settings.router
    return SettlePolicy(
        settle_ms=int(router.settle * 1000),
        settle_cr_dx_ms=int(router.settle_cr_dx * 1000),
        release_min_ms=int(router.settle_release_min * 1000),
        settle_max_ms=int(router.settle_max * 1000),
    )


def lane_policy(settings: Settings) -> LanePolicy:
    """Return how lanes work and wait according to `settings`."""
    router = settings.router
    return LanePolicy(
        workers=settings.satusehat.workers,
        retry_min_ms=int(router.retry_min * 1000),
        retry_max_ms=int(router.retry_max * 1000),
        order_poll_min_ms=int(router.order_poll_min * 1000),
        order_poll_max_ms=int(router.order_poll_max * 1000),
    )


def run_deliver(settings: Settings, *, supervised: bool) -> int:
    """Run the deliver role; raises RouterError with one sentence when it cannot start."""
    if hasattr(os, "nice"):
        os.nice(_NICE)
    spool = open_spool(settings)
    with spool.lock("deliver"):
        store = open_store(settings)
        try:
            store.migrate()
            return Deliver(settings, spool, store).run(supervised=supervised)
        finally:
            store.close()

