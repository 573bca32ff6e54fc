"""Lanes: workers that take jobs one by one, let the destination go one step, and write down what comes next.

Layer 4: leases, backoff, the circuit breaker and the mapping of every error to an outcome live here; what a step does
lives in the destination. Changes when jobs are scheduled or retried in another way.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from internal import jobs
from internal.claims import PRIORITIES, URGENT, Poll
from internal.errors import (
    BytesDamaged,
    BytesMissing,
    CredentialsRefused,
    LeaseLost,
    Refused,
    RouterError,
    Transient,
)
from internal.failpoints import hit
from internal.hours import Hours
from internal.lanes import BREAKER
from internal.model import Job
from internal.ports import Clock, Destination
from internal.rulebook import RuleBook
from internal.spool import Spool
from internal.states import Finish, Later, More, NotYet, Outcome, Refuse
from internal.store import Store, Tx
from internal.work import LeasedWork

log = logging.getLogger("router.worker")

#: One attempt in this time while the platform refuses our credentials: no storm on a token endpoint.
CREDENTIALS_PAUSE_S = 300.0
#: The longest rest of a worker that cannot read its queue.
REST_MAX_S = 30.0
#: How often a lane that has had no job for QUIET_AFTER_S looks for what another process or node has put there.
QUIET_REST_S = 1.0
QUIET_AFTER_S = 5.0
#: The longest Retry-After that is believed.
RETRY_AFTER_MAX_S = 3600.0
#: Every so many looks of the waiting room go to the study that was not looked at for longest, not to the newest.
POLL_LONGEST_EVERY = 4
_PAUSE_CHECK_S = 1.0


@dataclass(frozen=True, slots=True)
class LanePolicy:
    """How a lane works and waits; milliseconds unless named otherwise.

    Deferred jobs wait `retry_min_ms` doubled at each attempt, up to `retry_max_ms`, with 20 % jitter. Waiting jobs are
    looked at every `order_poll_min_ms`, slowing down with their age to `order_poll_max_ms`. Outside of `hours` only
    urgent jobs are taken. A stand-in takes over after the lane has failed for `failover_ms`.
    """

    workers: int = 4
    lease_ms: int = 120_000
    step_s: float = 30.0
    retry_min_ms: int = 5_000
    retry_max_ms: int = 900_000
    order_poll_min_ms: int = 30_000
    order_poll_max_ms: int = 900_000
    idle_s: float = 0.25
    hours: Hours | None = None
    failover_ms: int = 0

    def backoff_ms(self, attempts: int, jitter: float) -> int:
        """Return how long to wait after `attempts` failures; `jitter` in [0, 1) spreads it by 20 %."""
        base = min(self.retry_min_ms * 2 ** min(max(attempts - 1, 0), 20), self.retry_max_ms)
        return int(base * (0.8 + 0.4 * jitter))

    def rest_s(self, faults: int, quiet_for_s: float) -> float:
        """Return how long an idle worker rests: longer after each of its own faults in a row, the database's mostly,
        and where the lane has had nothing to do for a while (what is planned here wakes it at once).
        """
        if faults:
            return min(self.idle_s * 2.0 ** min(faults, 20), REST_MAX_S)
        return max(QUIET_REST_S, self.idle_s) if quiet_for_s >= QUIET_AFTER_S else self.idle_s

    def poll_ms(self, age_ms: int) -> int:
        """Return how long to wait before looking again for something that has been missing for `age_ms`."""
        return max(self.order_poll_min_ms, min(self.order_poll_max_ms, age_ms // 5))


def outcome_of(error: RouterError) -> Outcome:
    """Return what an error raised by a step means for the job and the lane: the one mapping table of this edge."""
    match error:
        case CredentialsRefused():
            return Later(error.code, str(error), retry_after_s=CREDENTIALS_PAUSE_S, blame="lane")
        case Transient():
            return Later(error.code, str(error), error.retry_after_s, "lane" if error.blame_lane else "job")
        case Refused():
            return Refuse(error.code, str(error))
        case BytesMissing():
            return Refuse("bytes-missing", str(error))
        case BytesDamaged():
            return Refuse("bytes-damaged", str(error))
        case _:
            return Later(type(error).__name__, str(error), blame="job")


class Lane:
    """The queue of one destination with its workers; start() returns at once, stop() after the last step."""

    def __init__(
        self,
        destination: Destination,
        store: Store,
        spool: Spool,
        clock: Clock,
        policy: LanePolicy,
        jitter: Callable[[], float] = random.random,
        book: RuleBook | None = None,
        standby: Destination | None = None,
    ) -> None:
        self._book = book
        self._destination = destination
        self._store = store
        self._spool = spool
        self._clock = clock
        self._policy = policy
        self._jitter = jitter
        self._standby = standby
        self._stop = threading.Event()
        self._wake = threading.Condition()
        self._watched = False
        self._probing = threading.Lock()
        self._prober = 0
        self._threads: list[threading.Thread] = []
        self._polls = 0
        self._checked_s = -_PAUSE_CHECK_S
        self._worked_s = clock.monotonic_s()
        self._shut = False
        self.steps = 0

    def start(self) -> None:
        """Start the workers."""
        for number in range(self._policy.workers):
            thread = threading.Thread(target=self._run, name=f"{self._destination.name}-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def keep_hours(self, hours: Hours | None) -> None:
        """Take jobs only within these hours from now on, urgent ones always; None: at any time."""
        self._policy = replace(self._policy, hours=hours)

    def stop_soon(self) -> None:
        """Ask every worker to stop at its next boundary."""
        self._stop.set()
        self.wake()

    def stop(self, wait_s: float) -> bool:
        """Stop and wait; return whether every worker had ended within `wait_s` seconds."""
        self.stop_soon()
        deadline = self._clock.monotonic_s() + wait_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - self._clock.monotonic_s()))
        return not any(thread.is_alive() for thread in self._threads)

    def wake(self) -> None:
        """Tell idle workers that there may be something to do."""
        with self._wake:
            self._wake.notify_all()

    def _run(self) -> None:
        job: Job | None = None
        faults = 0
        while not self._stop.is_set():
            try:
                if job:
                    job = self._advance(job, follow=True)
                elif job := self._take():
                    self._hand_over_watch()
                faults = 0
            except Exception as fault:
                job, faults = None, faults + 1
                # A database that is away is no news each time, and says all in one sentence.
                log.error("Worker could not go on; it tries again", exc_info=not isinstance(fault, RouterError),
                          extra={"fields": {"lane": self.name, "why": _words(fault), "in_a_row": faults}})
            if job is None:
                self._rest(self._policy.rest_s(faults, self._clock.monotonic_s() - self._worked_s))
            else:
                self._worked_s = self._clock.monotonic_s()

    def _rest(self, wait_s: float) -> None:
        """Wait until somebody wakes the lane, at most `wait_s` seconds. One idle worker looks again for all of them."""
        with self._wake:
            if self._stop.is_set():
                return
            if self._watched:
                self._wake.wait(REST_MAX_S)
                return
            self._watched = True
            try:
                self._wake.wait(wait_s)
            finally:
                self._watched = False

    def _hand_over_watch(self) -> None:
        """Let another idle worker look: this one has a job now, and there may be more."""
        with self._wake:
            self._wake.notify()

    @property
    def name(self) -> str:
        """The destination's name."""
        return self._destination.name

    def report(self) -> dict[str, Any]:
        """Return what the status file says about this lane."""
        return {"steps": self.steps, **self._destination.report()}

    def _once(self) -> bool:
        """Take one job one step further; return False when there is nothing to do now."""
        job = self._take()
        if job is not None:
            self._advance(job, follow=False)
        return job is not None

    def _take(self) -> Job | None:
        """Claim a job if the lane is open and one is due; None otherwise. Half open: only one worker has a job."""
        now = self._clock.now_ms()
        with self._store.reading() as tx:
            lane = jobs.lane(tx, self.name)
            if lane.paused_until > now or not jobs.is_due(
                    tx, destination=self.name, environment=self._destination.environment, now=now,
                    priorities=self._priorities(now), poll=self._destination.may_poll()):
                return None
        if lane.failures and lane.standby_until <= now:
            if not self._probing.acquire(blocking=False):
                return None
            self._prober = threading.get_ident()
        job = None
        try:
            with self._store.transaction() as tx:
                job = self._claim(tx, now)
        finally:
            if job is None:
                self._let_others_in()
        return job

    def _let_others_in(self) -> None:
        """End this worker's being the only one, if it is."""
        if self._prober == threading.get_ident():
            self._prober = 0
            self._probing.release()

    def _priorities(self, now: int) -> tuple[int, ...]:
        hours = self._policy.hours
        return PRIORITIES if hours is None or hours.is_open(now) else (URGENT,)

    def _claim(self, tx: Tx, now: int) -> Job | None:
        poll = Poll.NONE
        if self._destination.may_poll():
            poll = Poll.NEWEST if (self._polls + 1) % POLL_LONGEST_EVERY else Poll.LONGEST
        job = jobs.claim(
            tx, destination=self.name, environment=self._destination.environment, node=self._spool.node, now=now,
            lease_ms=self._policy.lease_ms, priorities=self._priorities(now), poll=poll)
        if job is not None and job.waiting_since is not None:
            self._polls += 1
        return job

    def _advance(self, job: Job, *, follow: bool) -> Job | None:
        """Take `job` one step further and settle it; with `follow` claim the next one in the same transaction."""
        hit("job.claimed")
        standby = self._find_standby()
        work = LeasedWork(job, self._store, self._spool, self._clock, self._policy.lease_ms, self._policy.step_s,
                          self._should_stop, by_accession=self._destination.by_accession, book=self._book,
                          via=standby.name if standby else "")
        try:
            outcome = self._step(standby or self._destination, work)
            self.steps += 1
            if outcome is None:
                return None
            return self._settle(work.job, outcome, follow=follow, stands_in=standby is not None)
        finally:
            work.close()
            self._let_others_in()

    def _find_standby(self) -> Destination | None:
        """Return who takes the studies now instead of the lane's own destination, None while that one does."""
        if self._standby is None:
            return None
        with self._store.reading() as tx:
            lane = jobs.lane(tx, self.name)
        return self._standby if lane.standby_until > self._clock.now_ms() else None

    def _should_stop(self) -> bool:
        """Return whether a running step shall end at its next boundary: the role stops, or a person paused the lane."""
        now_s = self._clock.monotonic_s()
        if now_s - self._checked_s >= _PAUSE_CHECK_S:
            self._checked_s = now_s
            with self._store.reading() as tx:
                lane = jobs.lane(tx, self.name)
            self._shut = lane.paused_until > self._clock.now_ms() and lane.paused_by != BREAKER
        return self._shut or self._stop.is_set()

    def _step(self, destination: Destination, work: LeasedWork) -> Outcome | None:
        try:
            return destination.step(work)
        except LeaseLost:
            log.warning("Lease lost; another worker goes on", extra={"fields": _fields(work.job)})
            return None
        except RouterError as error:
            return outcome_of(error)
        except Exception as error:
            log.exception("Step failed unexpectedly; the job is tried again", extra={"fields": _fields(work.job)})
            return Later("unexpected", f"unexpected fault in the router ({type(error).__name__}); see the log")

    def _settle(self, job: Job, outcome: Outcome, *, follow: bool, stands_in: bool) -> Job | None:
        """Write the outcome; return the next job if this worker goes on with one at once."""
        now = self._clock.now_ms()
        following = None
        with self._store.transaction() as tx:
            lane = jobs.lane(tx, self.name)
            due_at = now + self._delay_ms(job, outcome, lane.failures, now)
            take_over_at = self._take_over_at(lane, outcome, now) if not stands_in else None
            standby_until, due_at = due_at, min(due_at, take_over_at or due_at)
            try:
                state = jobs.settle(tx, job, outcome, now=now, due_at=due_at)
            except LeaseLost:
                log.warning("Lease lost before the outcome was written", extra={"fields": _fields(job)})
                return None
            if isinstance(outcome, Later) and outcome.blame == "lane":
                jobs.pause_lane(tx, self.name, due_at, outcome.code, outcome.reason, now)
                if take_over_at is not None and take_over_at <= now:
                    self._stand_in(tx, lane, standby_until, now)
            elif lane.failures and not stands_in:
                jobs.resume_lane(tx, self.name, now)
                if lane.standby:
                    jobs.add_event(tx, now, "failover-ended", f"{self.name} works again", fields={"lane": self.name})
            elif follow and not self._stop.is_set() and lane.paused_until <= now:
                following = self._claim(tx, now)
        _log_outcome(job, outcome, str(state), due_at)
        return following

    def _take_over_at(self, lane: jobs.Lane, outcome: Outcome, now: int) -> int | None:
        """Return when the stand-in takes over because of this outcome, None if it is no matter for it."""
        if self._standby is None or not (isinstance(outcome, Later) and outcome.blame == "lane"):
            return None
        return max((lane.down_since or now) + self._policy.failover_ms, now)

    def _stand_in(self, tx: Tx, lane: jobs.Lane, until: int, now: int) -> None:
        assert self._standby is not None  # _take_over_at
        jobs.stand_in(tx, self.name, self._standby.name, until, now)
        if lane.standby != self._standby.name:
            words = f"{self._standby.name} takes the studies of {self.name}, which does not work"
            jobs.add_event(tx, now, "failover", words, fields={"lane": self.name, "to": self._standby.name})
            log.warning(words)

    def _delay_ms(self, job: Job, outcome: Outcome, lane_failures: int, now: int) -> int:
        match outcome:
            case Later(retry_after_s=float() | int() as seconds):
                return int(min(max(seconds, 0.0), RETRY_AFTER_MAX_S) * 1000)
            case Later(blame="lane"):
                return self._policy.backoff_ms(lane_failures + 1, self._jitter())
            case Later():
                return self._policy.backoff_ms(job.attempts + 1, self._jitter())
            case NotYet(retry_after_s=float() | int() as seconds):
                return int(max(seconds, 0.0) * 1000)
            case NotYet():
                return self._policy.poll_ms(now - (job.waiting_since or now))
            case _:
                return 0


def _words(fault: Exception) -> str:
    """Return our own words; those of a library may quote data, and are left to the log's own care."""
    return str(fault) if isinstance(fault, RouterError) else type(fault).__name__


def _fields(job: Job) -> dict[str, object]:
    return {"job": job.job_id, "study": job.study_uid, "lane": job.destination}


def _log_outcome(job: Job, outcome: Outcome, state: str, due_at: int) -> None:
    fields = _fields(job) | {"state": state}
    match outcome:
        case Finish(note=note):
            log.info("Study delivered", extra={"fields": fields | {"note": note}})
        case More():
            log.debug("Step ended at an instance boundary", extra={"fields": fields})
        case Refuse(code=code, reason=reason):
            log.warning("Study held", extra={"fields": fields | {"code": code, "reason": reason}})
        case Later(code=code, reason=reason) | NotYet(code=code, reason=reason):
            log.info("Study not delivered yet", extra={"fields": fields | {"code": code, "reason": reason,
                                                                          "next_try_at": due_at}})
