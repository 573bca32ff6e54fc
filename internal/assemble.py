"""Settled studies -> jobs and items: decides when a study has been quiet for long enough, and what must go where.

Layer 4: reads the index, writes settled_revision, jobs and items in one transaction per study. It looks at arrival
times only, and only up to the index's watermark: a backlog must not look like silence. Deciding too early costs one
more PUT, never an image. Changes when "complete" means something new.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from internal import decisions, devices, index, jobs, late, rule_rows
from internal.devices import Verdict
from internal.late import LatePolicy
from internal.model import Instance, Inventory
from internal.ports import Clock
from internal.rulebook import Plan
from internal.rules import Routing
from internal.store import Store, Tx

log = logging.getLogger("router.assemble")

_SINGLE_SHOT_MODALITIES = frozenset({"CR", "DX", "DR", "PX", "IO"})
_STUDIES_PER_PASS = 200
_CALLERS_SHOWN = 5
_STUDIES_AT_START = 100_000


@dataclass(frozen=True, slots=True)
class SettlePolicy:
    """How long a study must be quiet; all in milliseconds.

    `settle_ms` for most, `settle_cr_dx_ms` where every series is projection radiography, at least
    `release_min_ms` after every association that carried it was released, `settle_max_ms` at most.
    """

    settle_ms: int = 60_000
    settle_cr_dx_ms: int = 20_000
    release_min_ms: int = 10_000
    settle_max_ms: int = 30 * 60_000

    def quiet_ms(self, settling: index.Settling) -> int:
        """Return how long this study must have been quiet."""
        single_shot = bool(settling.modalities) and settling.modalities <= _SINGLE_SHOT_MODALITIES
        quiet = min(self.settle_cr_dx_ms, self.settle_ms) if single_shot else self.settle_ms
        if settling.released_at is not None and settling.released_at >= settling.last_arrived_at:
            quiet = min(quiet, self.release_min_ms)
        return quiet

    def is_settled(self, settling: index.Settling, watermark_at: int) -> bool:
        """Return whether the study counts as complete as of `watermark_at`, up to which everything is indexed."""
        if settling.requested:
            return True
        if watermark_at - settling.first_unsettled_at >= self.settle_max_ms:
            return True
        if settling.has_open_association:
            return False
        return watermark_at - settling.last_arrived_at >= self.quiet_ms(settling)


_ALWAYS_NEW = LatePolicy()


@dataclass(frozen=True, slots=True)
class Lane:
    """What assemble must know of a destination: its name, what its receipts are keyed by, one job per accession or not,
    and what it does with late images.
    """

    name: str
    environment: str
    by_accession: bool
    late: LatePolicy = _ALWAYS_NEW


class Assembler:
    """Plans jobs for settled studies; one per index, in the deliver role only."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        policy: SettlePolicy,
        lanes: Sequence[Lane],
        route: Callable[[Inventory], Plan],
        unknown_callers: Verdict = Verdict.ACCEPT,
    ) -> None:
        self._store = store
        self._clock = clock
        self._policy = policy
        self._lanes: Mapping[str, Lane] = {lane.name: lane for lane in lanes}
        self._route = route
        self._unknown_callers = unknown_callers

    def recover(self) -> int:
        """Compare every finished job with its study once, as after a restore; return how many were planned again."""
        with self._store.reading() as tx:
            behind = jobs.jobs_behind(tx, _STUDIES_AT_START, thorough=True)
        return self._plan_again(behind)

    def run_once(self, watermark_at: int) -> int:
        """Settle what is quiet, repeat the comparison for every job that is behind; return how many were planned."""
        with self._store.reading() as tx:
            settling = index.studies_to_settle(tx, _STUDIES_PER_PASS)
            behind = jobs.jobs_behind(tx, _STUDIES_PER_PASS)
        due = [study for study in settling if self._policy.is_settled(study, watermark_at)]
        for study in due:
            self._settle(study)
        return len(due) + self._plan_again(behind)

    def _plan_again(self, behind: Sequence[jobs.Behind]) -> int:
        for study_uid in dict.fromkeys(job.study_uid for job in behind):
            plan = self._decide(study_uid)
            if plan is None:
                continue
            with self._store.transaction() as tx:
                self._plan(tx, study_uid, plan)
        return len(behind)

    def _settle(self, study: index.Settling) -> None:
        plan = self._decide(study.study_uid)
        if plan is None:
            return
        with self._store.transaction() as tx:
            if not index.mark_settled(tx, study.study_uid, study.revision, self._clock.now_ms()):
                return
            planned = self._plan(tx, study.study_uid, plan)
        log.info(
            "Processing DICOM start",
            extra={"fields": {"study": study.study_uid, "revision": study.revision, "jobs": planned}},
        )

    def _decide(self, study_uid: str) -> Plan | None:
        """Ask the rules, outside any transaction: they may read headers. What comes meanwhile settles again.

        None when a header cannot be read now: this study is looked at again, the others go on.
        """
        with self._store.reading() as tx:
            inventory = index.inventory(tx, study_uid)
        try:
            return self._route(inventory)
        except OSError as fault:
            log.warning("A study cannot be planned now: a file of it cannot be read",
                        extra={"fields": {"study": study_uid, "fault": fault.strerror or type(fault).__name__}})
            return None

    def _plan(self, tx: Tx, study_uid: str, plan: Plan) -> int:
        """Create or extend the jobs of a settled study; the caller's transaction makes it one decision."""
        study = index.study(tx, study_uid)
        assert study is not None
        whole = index.inventory(tx, study_uid)
        parts = [index.inventory(tx, study_uid, part) for part in index.parts_of(tx, study_uid)]
        for inventory in parts:
            log.info("Accession Number: %s", inventory.part, extra={"fields": {"study": study_uid}})
        unadmitted = devices.unadmitted(tx, study_uid, self._unknown_callers)
        self._note_routing(tx, study_uid, plan)
        planned = 0
        for name, chosen in plan.instances.items():
            lane = self._lanes.get(name)
            wanted = frozenset(one.id for one in chosen)
            for inventory in (parts if lane.by_accession else [whole]) if lane is not None else ():
                instances = [one for one in inventory.instances if one.id in wanted]
                if lane is not None and instances:
                    self._plan_job(tx, lane, inventory, instances, plan, conflict=study.conflict, unadmitted=unadmitted)
                    planned += 1
        return planned

    def _note_routing(self, tx: Tx, study_uid: str, plan: Plan) -> None:
        """Write down what the rules said; a study that goes nowhere is told, never silent."""
        if plan.routing is None and plan.instances:
            return
        routing = plan.routing or Routing({})
        now = self._clock.now_ms()
        if rule_rows.note_routing(tx, study_uid, plan.rules, routing, now) and not plan.instances:
            why = f"rule {routing.kept_by} keeps it here" if routing.kept_by else "no rule and no default sends it"
            jobs.add_event(tx, now, "routed-nowhere", f"goes nowhere: {why}", study_uid=study_uid)
            log.warning("A study goes nowhere", extra={"fields": {"study": study_uid, "why": why}})

    def _plan_job(
        self, tx: Tx, lane: Lane, inventory: Inventory, instances: Sequence[Instance], by: Plan, *, conflict: bool,
        unadmitted: Sequence[tuple[str, str]],
    ) -> None:
        now = self._clock.now_ms()
        urgent = index.is_urgent(tx, inventory.study_uid) or decisions.is_urgent(tx, inventory.part)
        plan = jobs.plan(
            tx, kind="deliver", destination=lane.name, environment=lane.environment, study_uid=inventory.study_uid,
            part=inventory.part, instances=instances, settled_revision=inventory.revision, now=now,
            due_at=now, priority=jobs.URGENT if urgent else jobs.NORMAL, rules=by.rules,
        )
        if plan.new_items:
            late.apply(tx, plan.job_id, lane.late, inventory.revision, now)
            if by.hold is not None:
                jobs.hold_for_person(tx, plan.job_id, by.hold.code, by.hold.reason, now, reopen=True)
        if decisions.is_withdrawn(tx, inventory.study_uid, lane.name):
            jobs.hold_for_person(tx, plan.job_id, "withdrawn", "it was taken back; it is never sent again", now)
        if conflict:
            jobs.hold_for_person(
                tx, plan.job_id, "conflict", "one image came twice with different content; choose which one counts",
                now, reopen=True,
            )
        elif unadmitted:
            callers = ", ".join(f"{aet!r} at {address}" for aet, address in unadmitted[:_CALLERS_SHOWN])
            reason = f"brought by callers that nobody has admitted: {callers}"
            jobs.hold_for_person(tx, plan.job_id, jobs.CALLER_NOT_ADMITTED, reason, now, reopen=True)
