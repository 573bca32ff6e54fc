"""The deliver role: index, assemble and lanes of one node in one process, at a lower priority than receive.

Composition of internal/ parts; the only process that indexes, migrates and checkpoints. Changes when a background
duty is added to the node.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from interface.alerts import build_alerts, build_rules
from interface.destinations import (
    PLATFORM,
    build,
    build_mroc,
    build_standbys,
    build_watches,
    build_webhook,
    late_of,
    workers_of,
)
from interface.dimse.commitment_report import CommitmentPeer, CommitmentReport
from interface.lane_control import LaneControl
from interface.roles import (
    StatusFile,
    SystemClock,
    lock_wait_s,
    open_spool,
    open_store,
    stop_on_signals,
    stop_with_parent,
)
from interface.rule_book import build_book
from interface.watch import Watching
from internal import admission, alerts, jobs, notices
from internal.accession import Rule
from internal.assemble import Assembler, SettlePolicy
from internal.assemble import Lane as PlannedLane
from internal.commitments import Commitments
from internal.conditions import Vitals
from internal.config import Settings
from internal.config.values import split_commitment_caller
from internal.describe import Describer
from internal.devices import Verdict
from internal.doctor import Doctor
from internal.doorbell import Doorbell
from internal.errors import StorageFailed, StorageFull, Transient
from internal.failpoints import hit
from internal.fhir import dates
from internal.hours import parse_hours
from internal.indexer import BATCH_ROWS, Indexer, Pass
from internal.parser import Parser
from internal.ports import Destination
from internal.retain import Retainer, RetentionPolicy
from internal.spool import Spool
from internal.store import Store
from internal.watcher import Watcher
from internal.worker import Lane, LanePolicy

log = logging.getLogger("router.deliver")

_DRAIN_S = 20.0
_ASSEMBLE_S = 0.5
_HOUSEKEEPING_S = 10.0
#: A pause after each batch lets other processes' one-row commits through (the map, section 6).
_YIELD_S = 0.005
_SLOW_DUTIES_S = 60.0
_NICE = 10
_OUTBOX_WORKERS = 2
#: Alerts wake their lane; an idle look at the queue is only for what waits to be tried again.
_ALERTS_IDLE_S = 5.0
_FAULT_PAUSE_S = 2.0
_FAULT_PAUSE_MAX_S = 30.0
#: What should pass without anybody starting the role again: a database that is away, busy, full or broken, a disk that
#: refuses for now.
_PASSING = (Transient, StorageFull, StorageFailed, OSError)


class Deliver:
    """Everything the deliver role does between start and stop."""

    def __init__(
        self, settings: Settings, spool: Spool, store: Store, destinations: Sequence[Destination],
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._store = store
        self._clock = SystemClock()
        self._destinations = destinations
        self._unknown_callers = Verdict(settings.dicom.unknown_callers)
        self._stop = stop
        self._book = build_book(settings)
        self._indexer = Indexer(spool, store, self._clock)
        self._assembler = Assembler(
            store, self._clock, settle_policy(settings),
            [PlannedLane(d.name, d.environment, d.by_accession, late_of(settings, d.name))
             for d in self._destinations],
            self._book.plan_from(spool),
            self._unknown_callers,
        )
        standbys = build_standbys(settings, destinations)
        self._lanes = [
            Lane(d, store, spool, self._clock, lane_policy(settings, d.kind, d.name), standby=standbys.get(d.name),
                 book=self._book)
            for d in self._destinations
        ] + [
            Lane(report, store, spool, self._clock, replace(lane_policy(settings, report.kind), workers=1))
            for report in self._commitment_reports()
        ]
        self._webhook = build_webhook(settings)
        if self._webhook is not None:
            policy = replace(lane_policy(settings, self._webhook.kind), workers=_OUTBOX_WORKERS)
            self._lanes.append(Lane(self._webhook, store, spool, self._clock, policy))
        self._mroc = build_mroc(settings, self._destinations)
        if self._mroc is not None:
            policy = replace(lane_policy(settings, self._mroc.kind), workers=1)
            self._lanes.append(Lane(self._mroc, store, spool, self._clock, policy))
        self._watching = Watching(build_watches(settings), store, spool, self._clock)
        self._control = LaneControl(settings, store, self._lanes, self._destinations)
        self._alerts = Lane(build_alerts(settings), store, spool, self._clock, replace(
            lane_policy(settings, alerts.KIND), workers=_OUTBOX_WORKERS, idle_s=_ALERTS_IDLE_S))
        self._lanes.append(self._alerts)
        self._watcher = Watcher(store, self._clock, build_rules(settings), self._vitals)
        self._parser = Parser()
        self._describer = Describer(store, spool, self._clock, self._parser, stop)
        self._describing = threading.Thread(target=self._describer.run, name="describe", daemon=True)
        self._retainer = Retainer(store, spool, self._clock, retention_policy(settings))
        alias_file = settings.satusehat.alias_file
        self._doctor = Doctor(
            store, self._clock, frozenset(map(Rule, settings.satusehat.accession_rules)),
            alias_file if alias_file != Path() else None, PLATFORM)
        self._slow_duties_s = time.monotonic()
        self._counters = {"indexed": 0, "set_aside": 0, "planned": 0, "purged": 0}
        self._status = StatusFile(spool, "deliver", self._report)

    def _commitment_reports(self) -> list[CommitmentReport]:
        """One destination for each caller that may ask for storage commitment."""
        dicom = self._settings.dicom
        commitments = Commitments(
            self._store, self._spool, "delivered" if dicom.commitment_policy == "delivered" else "stored")
        return [CommitmentReport(CommitmentPeer(*split_commitment_caller(text)), self._settings.satusehat.ae_title,
                                 commitments, self._spool.reports) for text in dicom.commitment_callers]

    def _vitals(self) -> Vitals:
        """Return what alerts need to know of this process."""
        offsets = {lane.name: lane.report().get("clock_offset_s") for lane in self._lanes}
        return Vitals(self._spool.node, self._spool.free_bytes(), self._settings.spool.min_free,
                      dates.zone(self._settings.satusehat.tz_name),
                      {name: offset for name, offset in offsets.items() if offset is not None})

    def _report(self) -> dict[str, Any]:
        return self._counters | {"rule_problems": len(self._book.problems),
                                 "described": self._describer.described, "unparsed": self._describer.unparsed,
                                 "steps": sum(lane.steps for lane in self._lanes),
                                 "lanes": {lane.name: lane.report() for lane in self._lanes},
                                 "watched": self._watching.report()}

    def run(self) -> bool:
        """Work until told to stop; return whether every lane had ended in time.

        Leases still held are released by the next start.
        """
        for lane in self._lanes:
            lane.start()
        self._watching.start()
        if self._settings.router.parse_metadata:
            self._describing.start()
        wait_s = _FAULT_PAUSE_S
        while not self._stop.is_set():
            began_s = time.monotonic()
            try:
                self._loop()
            except _PASSING as fault:
                if time.monotonic() - began_s > _FAULT_PAUSE_MAX_S:
                    wait_s = _FAULT_PAUSE_S
                pause(self._stop, fault, wait_s)
                wait_s = min(wait_s * 2, _FAULT_PAUSE_MAX_S)
        self._parser.stop()
        for lane in self._lanes:
            lane.stop_soon()
        self._watching.stop_soon()
        deadline_s = time.monotonic() + _DRAIN_S
        left = [lane.name for lane in self._lanes if not lane.stop(max(0.0, deadline_s - time.monotonic()))]
        if not self._watching.stop(max(0.0, deadline_s - time.monotonic())):
            left.append("watch")
        if self._describing.is_alive():
            self._describing.join(max(0.0, deadline_s - time.monotonic()))
        log.info("Deliver role stopped", extra={"fields": {"unfinished_lanes": left}})
        return not left

    def recover(self) -> None:
        """Continue where the last run ended: leases of this node are free again, other environments' jobs wait."""
        now = self._clock.now_ms()
        with self._store.transaction() as tx:
            released = jobs.release_leases(tx, self._spool.node, now)
            displaced = sum(
                jobs.displace(tx, d.name, d.environment, now) for d in self._destinations
            )
            admission.release(tx, self._unknown_callers, who="configuration", now=now)
        self._book.reload(self._store, now)
        hit("recover.mid")
        self._assembler.recover()
        self._control.apply()
        log.info("Deliver role started", extra={"fields": {"resumed": len(released), "displaced": displaced}})

    def _loop(self) -> None:
        bell, more, assembled_s, kept_house_s = Doorbell(), False, 0.0, 0.0
        while not self._stop.is_set():
            now_s = time.monotonic()
            if bell.is_due(self._spool.doorbell(), now_s) or more:
                more = self._index()
            if now_s - assembled_s >= _ASSEMBLE_S:
                assembled_s = now_s
                self._assemble()
            if now_s - kept_house_s >= _HOUSEKEEPING_S:
                kept_house_s = now_s
                self._keep_house()
            self._status.publish()
            self._stop.wait(_YIELD_S if more else bell.listen_s(now_s))

    def _index(self) -> bool:
        """Index what lies in new/, batch by batch, until the next duty is due; return whether more is left."""
        until_s = time.monotonic() + _ASSEMBLE_S
        while not self._stop.is_set():
            result: Pass = self._indexer.run_once()
            self._counters["indexed"] += result.indexed
            self._counters["set_aside"] += result.set_aside
            if not result.more or result.indexed + result.set_aside < BATCH_ROWS:
                return False
            if time.monotonic() >= until_s:
                return True
            self._stop.wait(_YIELD_S)
        return False

    def _assemble(self) -> None:
        now = self._clock.now_ms()  # before looking: what comes in meanwhile is not indexed
        oldest = self._spool.oldest_new_at()
        watermark_at = now if oldest is None else oldest
        self._book.reload(self._store, now)
        settled = self._assembler.run_once(watermark_at) if self._book.in_force is not None else 0
        planned = settled + self._plan_notices()
        if planned:
            self._counters["planned"] += planned
            for lane in self._lanes:
                lane.wake()

    def _plan_notices(self) -> int:
        """Hand what became of deliveries to the outbox; one short transaction each."""
        with self._store.reading() as tx:
            pending = notices.pending(tx)
        if not pending:
            return 0
        to = self._webhook.name if self._webhook else None
        now = self._clock.now_ms()
        planned: list[int | None] = []
        for news in pending:
            with self._store.transaction() as tx:
                planned.append(notices.plan(tx, news, of=PLATFORM, to=to, now=now))
                if self._mroc is not None:
                    planned.append(notices.plan_sidecar(tx, news, of=PLATFORM, to=self._mroc.name,
                                                        environment=self._mroc.environment, now=now))
        return sum(job_id is not None for job_id in planned)

    def _keep_house(self) -> None:
        now = self._clock.now_ms()
        self._control.apply()
        with self._store.transaction() as tx:
            jobs.expire_leases(tx, now)
            jobs.give_up_expired(tx, int(self._settings.router.patience * 1000), now)
            notices.escalate(tx, int(self._settings.router.escalate * 1000), now)
            if self._webhook is not None:
                notices.reopen_behind(tx, self._webhook.name, now)
            notices.reopen_behind(tx, alerts.LANE, now, kind=alerts.KIND)
        if time.monotonic() - self._slow_duties_s >= _SLOW_DUTIES_S:
            self._counters["purged"] += self._retainer.run_once()
            self._counters["set_aside"] += self._indexer.note_bad()
            self._doctor.run_once()
            if self._watcher.run_once():
                self._alerts.wake()
            self._slow_duties_s = time.monotonic()
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


def retention_policy(settings: Settings) -> RetentionPolicy:
    """Return how long images are kept according to `settings`."""
    spool = settings.spool
    return RetentionPolicy(keep_ms=int(spool.keep * 1000), low_space_bytes=spool.low_space,
                           unverified_counts=spool.purge_unverified, purge=spool.purge == "confirmed",
                           commit_keep_ms=int(settings.dicom.commit_keep * 1000))


def lane_policy(settings: Settings, kind: str, name: str = "") -> LanePolicy:
    """Return how the lane of the destination `name` of this kind works and waits according to `settings`."""
    router, platform = settings.router, settings.satusehat
    section = settings.section(f"{kind}:{name}") if name in settings.destinations else None
    return LanePolicy(
        hours=parse_hours(platform.send_hours, dates.zone(platform.tz_name)) if kind == PLATFORM else None,
        workers=workers_of(settings, kind, name),
        failover_ms=int(section.failover_after * 1000) if section else 0,
        retry_min_ms=int(router.retry_min * 1000),
        retry_max_ms=int(router.retry_max * 1000),
        order_poll_min_ms=int(router.order_poll_min * 1000),
        order_poll_max_ms=int(router.order_poll_max * 1000),
    )


def pause(stop: threading.Event, fault: Exception, wait_s: float) -> None:
    """Say that the index does not work now, and wait: images are accepted all the while."""
    log.warning("Index cannot be used now; images stay safe in new/",
                extra={"fields": {"why": str(fault), "next_try_in_s": wait_s}})
    stop.wait(wait_s)


@contextmanager
def _started(settings: Settings, spool: Spool, stop: threading.Event) -> Iterator[Deliver | None]:
    """Yield the recovered role once its database works, however long that takes; None if told to stop before."""
    destinations = build(settings)
    wait_s = _FAULT_PAUSE_S
    while not stop.is_set():
        with ExitStack() as opened:
            try:
                store = open_store(settings)
                opened.callback(store.close)
                store.migrate()
                role = Deliver(settings, spool, store, destinations, stop)
                role.recover()
            except _PASSING as fault:
                pause(stop, fault, wait_s)
                wait_s = min(wait_s * 2, _FAULT_PAUSE_MAX_S)
                continue
            yield role
            return
    yield None


def run_deliver(settings: Settings, *, supervised: bool) -> int:
    """Run the deliver role; raises RouterError with one sentence when it cannot start."""
    if hasattr(os, "nice"):
        os.nice(_NICE)
    spool = open_spool(settings)
    with spool.lock("deliver", lock_wait_s(supervised=supervised)):
        stop = threading.Event()
        stop_on_signals(stop)
        if supervised:
            stop_with_parent(stop)
        with _started(settings, spool, stop) as role:
            gc.freeze()  # what was loaded at start stays: it need not be looked through again and again
            if role is not None and not role.run():
                # A request in hand would keep the process, and with it the lock that the next start waits for.
                # Its outcome is looked up then, as after a crash.
                logging.shutdown()
                os._exit(0)
    return 0

