"""The phase `push`: every due instance to the DICOM store, several at a time, each with its own receipt.

Between register and confirm. Bytes are frozen and committed as sent before the first one leaves; while some are under
way the next are frozen and answers are written down, so that the line never waits for the disk and a crash costs at
most a few repeated pushes of equal bytes. Imports client, receipts, run and internal.
Changes when the order or the number of pushes changes. Source: reliability facts 2.5 D9-D14, D21, D23, D34.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress

from interface.logs import PHRASES
from interface.satusehat.client import Client
from interface.satusehat.effects import NOT_UNDERSTOOD
from interface.satusehat.governor import MAX_WAIT_S
from interface.satusehat.receipts import Answered, Result, count_unread, judge, tell
from interface.satusehat.run import Run, find_inventory_uids, find_sop_uids
from internal.errors import (
    BytesDamaged,
    BytesMissing,
    CredentialsRefused,
    LeaseLost,
    RouterError,
    Transient,
    UnknownOutcome,
)
from internal.failpoints import hit
from internal.model import Item, ItemState
from internal.ports import Frozen
from internal.states import More, Outcome, Refuse

#: Frozen and written down together: one commit each.
BATCH = 16
RENEW_EVERY_S = 5.0
#: So many failures of single instances end the step: something else is wrong.
MAX_SET_ASIDE = 16
MAX_UNREAD = 3


class Pushing:
    """Pushes the items of one job after another; the threads are shared by all workers of the lane."""

    def __init__(self, client: Client, parallel: int) -> None:
        self.client = client
        self.parallel = parallel
        self.threads = ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="push")

    def close(self) -> None:
        """Let pushes in flight end and start no more."""
        self.threads.shutdown(wait=True, cancel_futures=True)

    def push(self, run: Run) -> Outcome | None:
        """Push what is due or of unknown outcome; None: nothing is left.

        Raises the fault that stopped it; every answer that came before is written down.
        """
        return _Tour(self, run).walk()


class _Tour:
    """One walk over the items of a job, in sending order; those that failed for themselves wait for the next step."""

    def __init__(self, pushing: Pushing, run: Run) -> None:
        self._pushing = pushing
        self._run = run
        self._listed = find_sop_uids(run.resource or {})
        self._stop = threading.Event()
        self._flying: dict[Future[Result], tuple[Item, Frozen]] = {}
        self._ready: deque[tuple[Item, Frozen]] = deque()
        self._again: list[Item] = []
        self._untaken: list[Item] = []
        self._after = 0
        self._at_end = False
        self._unlisted: list[Item] = []
        self._set_aside = 0
        self._understood = self._changed = False
        self._answered: list[Answered] = []
        self._fault: RouterError | None = None
        self._stopped: RouterError | None = None
        self._yielding = False
        self._announced = False
        self._renewed_s = run.work.clock.monotonic_s()

    def walk(self) -> Outcome | None:
        """Keep the line full until nothing is left, the time is up or a fault stops the step."""
        try:
            while self._launch():
                self._collect()
        except BaseException as fault:
            self._stop.set()
            idle = [frozen.item for future, (_, frozen) in self._flying.items() if future.cancel()]
            if isinstance(fault, Exception):
                with suppress(RouterError):  # a database that is away: they stay on record as attempts
                    self._take_back(idle)
            raise
        self._take_back([])
        if self._stopped is not None:
            raise self._stopped
        if self._unlisted:
            return self._explain_unlisted()
        if self._fault is not None:
            raise self._fault
        return More() if self._yielding or not self._at_end or self._again else None

    def _take_back(self, idle: Sequence[Item]) -> None:
        """Take back what was marked as sent and will not leave in this step."""
        self._untaken += [*idle, *(frozen.item for _, frozen in self._ready)]
        self._write_untaken()

    def _launch(self) -> bool:
        """Start pushes while there is room for them; return whether any is under way."""
        room = 2 * self._pushing.parallel
        while self._stopped is None and len(self._flying) < room and (self._ready or self._freeze_more()):
            if self._ready:
                item, frozen = self._ready.popleft()
                future = self._pushing.threads.submit(self._push_one, frozen, self._run.fact("imaging_study_id"))
                self._flying[future] = (item, frozen)
        return bool(self._flying)

    def _freeze_more(self) -> bool:
        """Freeze the next few items; False when there are none, or when this step is to begin no more."""
        if self._yielding or self._set_aside >= MAX_SET_ASIDE:
            return False
        items = self._again or self._find_next()
        self._again = []
        listed = [item for item in items if item.instance.header.sop_uid in self._listed]
        self._unlisted += [item for item in items if item.instance.header.sop_uid not in self._listed]
        if listed and not self._announced:
            self._run.work.event("push", PHRASES["push_started"])
            self._announced = True
        self._freeze(listed)
        return bool(items)

    def _find_next(self) -> list[Item]:
        if self._at_end:
            return []
        found = self._run.work.items((ItemState.SENT, ItemState.DUE), BATCH, self._after)
        if found:
            self._after = found[-1].item_id
        self._at_end = len(found) < BATCH
        return found

    def _freeze(self, items: Sequence[Item]) -> None:
        """Freeze together and have them ready; where a file is missing or damaged, one by one."""
        if not items:
            return
        try:
            self._ready.extend(zip(items, self._run.work.freeze(items), strict=True))
        except (BytesMissing, BytesDamaged) as fault:
            if len(items) == 1:
                self._put_aside(fault)
                return
            for item in items:
                self._freeze([item])

    def _push_one(self, frozen: Frozen, imaging_study_id: str) -> Result:
        handed_over = 0
        governor = self._pushing.client.governor

        def on_bytes(total: int) -> None:
            nonlocal handed_over
            if total <= handed_over:
                handed_over = 0  # from the beginning, with another token
            if handed_over == 0:
                hit("push.mid")
            if self._stop.is_set():
                raise LeaseLost
            governor.pace(total - handed_over)
            handed_over = total

        try:
            return self._pushing.client.push_instance(frozen, imaging_study_id, on_bytes)
        except RouterError as fault:
            return fault

    def _collect(self) -> None:
        """Wait for an answer, take every one that is there, and write them down."""
        done, _ = wait(self._flying, timeout=RENEW_EVERY_S, return_when=FIRST_COMPLETED)
        for future in done:
            item, frozen = self._flying.pop(future)
            self._take(item, frozen, future.result())
        full = len(self._answered) >= BATCH
        if self._answered and (full or not self._flying or self._stopped is not None):
            self._write()
        self._write_untaken()
        self._renew()
        self._yielding = self._yielding or self._run.work.should_yield()

    def _take(self, before: Item, frozen: Frozen, result: Result) -> None:
        state = judge(frozen, result)
        if state is not None:
            self._understood = True
            self._answered.append(Answered(frozen.item, state, result))
            return
        assert isinstance(result, RouterError)
        if _was_not_carried_out(result):
            self._untaken.append(frozen.item)
        if isinstance(result, Transient) and result.code == NOT_UNDERSTOOD:
            self._take_unread(before, frozen, result)
        elif _is_short_pause(result):
            self._again.append(before)
        else:
            self._put_aside(result)

    def _take_unread(self, before: Item, frozen: Frozen, result: Transient) -> None:
        """Same bytes again in a later step, at most twice; then a receipt of its own, and the lane says so.

        Where nothing but such replies has come, and one instance has been through all three, the others need not.
        """
        unread = count_unread(before) + 1
        if unread >= MAX_UNREAD or (self._changed and not self._understood):
            self._changed = True
            self._answered.append(Answered(frozen.item, ItemState.UNREAD, result, unread))
        else:
            self._answered.append(Answered(frozen.item, ItemState.SENT, result, unread))
            self._put_aside(result)

    def _put_aside(self, fault: RouterError) -> None:
        self._set_aside += 1
        self._fault = self._fault or fault
        if _stops_the_step(fault):
            self._stopped = self._stopped or fault

    def _write(self) -> None:
        hit("push.after_answer")
        work = self._run.work
        now = work.clock.now_ms()
        work.settle_items([(one.item, one.state, one.describe(now)) for one in self._answered])
        for one in self._answered:
            tell(self._run, one)
        self._answered = []

    def _write_untaken(self) -> None:
        """Take back what surely was not carried out, so that a later "exists" is not taken for our own doing."""
        if self._untaken:
            self._run.work.take_back(self._untaken)
            self._untaken = []

    def _renew(self) -> None:
        """Keep the lease: each push ends by its own deadline, which is a floor rate."""
        now_s = self._run.work.clock.monotonic_s()
        if now_s - self._renewed_s >= RENEW_EVERY_S:
            self._renewed_s = now_s
            self._run.work.renew()

    def _explain_unlisted(self) -> Outcome:
        """Return what to do about items that the ImagingStudy does not list: newer than it, or dropped by somebody."""
        known = find_inventory_uids(self._run.inventory())
        strangers = [item.instance.header.sop_uid for item in self._unlisted
                     if item.instance.header.sop_uid not in known]
        if strangers:
            return Refuse("not-in-inventory", "instances to send are not part of the study", {"sop_uids": strangers})
        self._run.work.record_facts(registered_revision=None)
        return More()


def _was_not_carried_out(fault: RouterError) -> bool:
    """Return whether the request surely had no effect: it did not leave as a whole, or was turned away unread."""
    return (isinstance(fault, Transient | CredentialsRefused | BytesMissing | BytesDamaged)
            and not isinstance(fault, UnknownOutcome))


def _is_short_pause(fault: RouterError) -> bool:
    """Return whether the platform asks for a pause that this step can wait for itself."""
    return (isinstance(fault, Transient) and fault.code == "http-429"
            and fault.retry_after_s is not None and fault.retry_after_s <= MAX_WAIT_S)


def _stops_the_step(fault: RouterError) -> bool:
    """Return whether `fault` would meet every other instance too."""
    if isinstance(fault, Transient):
        return fault.blame_lane
    return not isinstance(fault, BytesMissing | BytesDamaged)
