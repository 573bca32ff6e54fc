"""The handle that a destination's step works with: one leased job, every write committed on return.

Layer 4, implements ports.Work over the store and the spool. Changes with the verbs of that protocol.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO

from internal import commitments, decisions, index, jobs
from internal.ahead import Ahead
from internal.failpoints import hit
from internal.frozen import READ_BYTES, FrozenItem, NewForm, freeze
from internal.identity import Person
from internal.items import revise_receipts
from internal.model import Intent, Inventory, Item, ItemState, Job
from internal.ports import Clock, Following, Frozen
from internal.rulebook import ItemRewriter, RuleBook
from internal.spool import Spool
from internal.store import Store

log = logging.getLogger("router.delivery")

#: Below this rate a transfer no longer keeps its lease alive: it is stuck.
FLOOR_BYTES_PER_S = 1024
_REHEARSED = 100
#: What rehearsing keeps for freezing: so much in all, each form counted with what stands around its bytes.
_FORMS_BYTES = 16 * 1024 * 1024
_FORM_BYTES = 2048


class _NotMade:
    """No form, as opposed to None: as it came."""


_NOT_MADE = _NotMade()


@dataclass(frozen=True, slots=True)
class _Rehearsed:
    """Rewrites items; what was made of one while rehearsing is not made a second time."""

    rewriter: ItemRewriter
    forms: dict[int, NewForm | None]

    @property
    def edits(self) -> bool:
        return self.rewriter.edits

    def rewrite(self, file: BinaryIO, item: Item) -> NewForm | None:
        known = _NOT_MADE if item.recipe else self.forms.pop(item.item_id, _NOT_MADE)  # by two threads: in one step
        return self.rewriter.rewrite(file, item) if isinstance(known, _NotMade) else known


class LeasedWork:
    """One claimed job with its lease; see ports.Work for what each verb promises."""

    def __init__(
        self, job: Job, store: Store, spool: Spool, clock: Clock, lease_ms: int, step_s: float,
        stopping: Callable[[], bool], *, by_accession: bool = True, via: str = "", book: RuleBook | None = None,
    ) -> None:
        self.job = job
        self.clock = clock
        self._store = store
        self._spool = spool
        self._lease_ms = lease_ms
        self._stopping = stopping
        self._via = via
        self._part = job.part if by_accession else None
        self._book = book
        self._yield_at_s = clock.monotonic_s() + step_s
        self._renewed_s = clock.monotonic_s()
        self._bytes_since_renewal = 0
        self._forms: dict[int, NewForm | None] = {}
        self._ahead = Ahead()
        self._of_thread = threading.local()

    def close(self) -> None:
        """End what is done ahead of the step; call it when the step is over."""
        self._ahead.close()

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the other side has told us about this study in this environment."""
        return self.job.facts

    def record_facts(self, **facts: Any) -> None:
        """Merge `facts` into the job's and commit; None removes a key."""
        json.dumps(facts)
        with self._store.transaction() as tx:
            merged = jobs.record_facts(tx, self.job, facts)
        self.job = replace(self.job, facts=merged)

    def inventory(self) -> Inventory:
        """Return every instance ever accepted for the study and part, as of its settled revision."""
        with self._store.reading() as tx:
            return index.inventory(tx, self.job.study_uid, self._part)

    def patients(self) -> list[Person]:
        """Return the distinct patients that the images of the whole study name."""
        with self._store.reading() as tx:
            return decisions.patients_of(tx, self.job.study_uid)

    def ordered_patients(self, accession_number: str) -> list[Person]:
        """Return the patients of the orders that reached us directly under this accession number."""
        with self._store.reading() as tx:
            return [order.patient for order in decisions.orders_under(tx, accession_number)]

    def is_same_patient(self, sides: str) -> bool:
        """Return whether a person has decided that these sides are one patient."""
        with self._store.reading() as tx:
            decision = decisions.find_decision(tx, decisions.Kind.PATIENT, self.job.study_uid, self.job.part)
        return decision is not None and decision.body.get("sides") == sides

    def siblings(self) -> list[Mapping[str, Any]]:
        """Return the facts of this study's other jobs of the same kind, destination and environment."""
        with self._store.reading() as tx:
            return jobs.sibling_facts(tx, self.job)

    def items(self, states: Iterable[ItemState], limit: int, after: int = 0) -> list[Item]:
        """Return up to `limit` items in one of `states` beyond the id `after`, in sending order."""
        with self._store.reading() as tx:
            return jobs.items(tx, self.job, list(states), limit, after)

    def count_items(self) -> dict[ItemState, int]:
        """Return how many items are in each state."""
        with self._store.reading() as tx:
            return jobs.count_items(tx, self.job)

    def _rewriter(self) -> _Rehearsed | None:
        if self._book is None:
            return None
        return _Rehearsed(self._book.rewriter(self._store, self.job.destination, self.job.rules), self._forms)

    def rehearse(self) -> None:
        """Make the new header of every item that was never frozen; the first 16 MB of them are kept for `freeze`.

        Their bytes are checked meanwhile in another thread.
        """
        rewriter = self._rewriter()
        last, left_bytes = 0, _FORMS_BYTES
        self._forms.clear()
        while rewriter is not None and rewriter.edits and (some := self.items((ItemState.DUE,), _REHEARSED, last)):
            for item in some:
                if not item.recipe:
                    with self._spool.open_entry(item.instance.id) as file:
                        form = rewriter.rewrite(file, item)
                    left_bytes -= _FORM_BYTES + (form.new_bytes if form else 0)
                    if left_bytes > 0:
                        self._forms[item.item_id] = form
                        self._ahead.add(item, partial(self._fix, rewriter))
                    self.renew()
            last = some[-1].item_id

    def freeze(self, items: Sequence[Item], following: Following | None = None) -> list[Frozen]:
        """Fix and check the bytes of `items`, then commit them as SENT in one transaction; `following` come next."""
        fix = partial(self._fix, self._rewriter())
        if following is not None and len(self._ahead) <= len(items):
            for item in (*items, *following()):
                self._ahead.add(item, fix)
        frozen: list[FrozenItem] = [self._ahead.take(item) or fix(item) for item in items]
        with self._store.transaction() as tx:
            if self._book is not None and (made := {k: v for one in frozen for k, v in one.pseudonyms.items()}):
                self._book.vault.keep(tx, made, self.clock.now_ms())
            sent = jobs.mark_sent(tx, self.job, [(f.item, f.sha256, f.size_bytes, f.item.recipe) for f in frozen])
        hit("push.marked_sent")
        return [replace(one, item=item) for one, item in zip(frozen, sent, strict=True)]

    def _fix(self, rewriter: _Rehearsed | None, item: Item) -> FrozenItem:
        wanted_bytes = min(item.instance.dataset_bytes + 1, READ_BYTES)
        buffer: memoryview | None = getattr(self._of_thread, "buffer", None)
        if buffer is None or len(buffer) < wanted_bytes:
            buffer = self._of_thread.buffer = memoryview(bytearray(wanted_bytes))
        return freeze(self._spool, item, buffer, self._on_read, rewriter)

    def take_back(self, items: Sequence[Item]) -> None:
        """Undo the freeze of items whose request surely was not carried out."""
        with self._store.transaction() as tx:
            jobs.take_back(tx, self.job, items)

    def settle_items(self, answers: Sequence[tuple[Item, ItemState, Mapping[str, Any]]]) -> None:
        """Write down the answers to `items` in one transaction."""
        if self._via:
            answers = [(item, state, {**answer, "via": self._via}) for item, state, answer in answers]
        with self._store.transaction() as tx:
            jobs.settle_items(tx, self.job, answers)

    def commitment_answer(self, transaction_uid: str) -> Mapping[str, int] | None:
        """Return what came in under this transaction, None if nothing did."""
        with self._store.reading() as tx:
            return commitments.find_answer(tx, transaction_uid)

    def file_commitment_answer(self, transaction_uid: str, reasons: Mapping[str, int]) -> None:
        """Commit an answer that came on the very association of the request."""
        with self._store.transaction() as tx:
            commitments.add_answer(tx, commitments.CommitAnswer(transaction_uid, "", self.clock.now_ms(), reasons))

    def revise_receipts(self, answers: Sequence[tuple[Item, ItemState, Mapping[str, Any]]]) -> None:
        """Replace receipts of STORED items in one transaction."""
        with self._store.transaction() as tx:
            revise_receipts(tx, self.job, answers)

    def open_intent(self, verb: str, deadline_s: float) -> Intent:
        """Commit that `verb` is about to leave, with a lease that outlives its deadline."""
        now = self.clock.now_ms()
        with self._store.transaction() as tx:
            return jobs.open_intent(tx, self.job, verb, now=now, deadline_at=now + int(deadline_s * 1000))

    def unanswered_intent(self, verb: str) -> Intent | None:
        """Return the newest intent `verb` without an answer."""
        with self._store.reading() as tx:
            return jobs.unanswered_intent(tx, self.job, verb)

    def close_intent(self, intent: Intent, answer: Mapping[str, Any]) -> None:
        """Commit the answer to `intent`."""
        with self._store.transaction() as tx:
            jobs.close_intent(tx, self.job, intent, answer, self.clock.now_ms())

    def renew(self) -> None:
        """Extend the lease if a third of it has passed; cheap to call often."""
        if self.clock.monotonic_s() - self._renewed_s < self._lease_ms / 3000:
            return
        with self._store.transaction() as tx:
            self.job = jobs.renew(tx, self.job, now=self.clock.now_ms(), lease_ms=self._lease_ms)
        self._renewed_s = self.clock.monotonic_s()
        self._bytes_since_renewal = 0

    def should_yield(self) -> bool:
        """Return True once the step has used its time or the process is stopping."""
        return self._stopping() or self.clock.monotonic_s() >= self._yield_at_s

    def event(self, code: str, text: str, **fields: Any) -> None:
        """Add a line to the study's timeline and to the log."""
        with self._store.transaction() as tx:
            jobs.add_event(
                tx, self.clock.now_ms(), code, text, study_uid=self.job.study_uid, job_id=self.job.job_id,
                fields=fields,
            )
        log.info(text, extra={"fields": {"job": self.job.job_id, "study": self.job.study_uid} | fields})

    def alert(self, code: str, text: str) -> None:
        """Show `text` with the lane and in the timeline, once for each code until a person opens the lane."""
        with self._store.transaction() as tx:
            if not jobs.alert_lane(tx, self.job.destination, code, text, self.clock.now_ms()):
                return
            jobs.add_event(tx, self.clock.now_ms(), "lane-alert", text, study_uid=self.job.study_uid,
                           job_id=self.job.job_id, fields={"lane": self.job.destination, "reason_code": code})
        log.error(text, extra={"fields": {"lane": self.job.destination, "code": code}})

    def _on_read(self, count: int) -> None:
        """Keep the lease while bytes of a push leave faster than the floor rate."""
        self._bytes_since_renewal += count
        elapsed_s = self.clock.monotonic_s() - self._renewed_s
        if elapsed_s > self._lease_ms / 3000 and self._bytes_since_renewal >= elapsed_s * FLOOR_BYTES_PER_S:
            self.renew()
