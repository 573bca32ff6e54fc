"""Retention, the only deleter: removes bytes that are confirmed everywhere, never rows, in two steps.

Layer 4, run by the deliver role. One pass marks what may go; a later one looks again, unlinks and writes that down, so
that a reader which had the row could still open the file, and a crash in between only repeats an unlink.
Changes when bytes may go for another reason. Source: the map, section 6 "Retention".
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from internal import events, holdings
from internal.failpoints import hit
from internal.holdings import Rules
from internal.ports import Clock
from internal.spool import Spool
from internal.store import Store, Tx

log = logging.getLogger("router.retain")

_STUDIES_PER_PASS = 20
#: Marked or removed in one transaction.
BATCH = 100
_INSTANCES_PER_PASS = 2000
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long bytes are kept; milliseconds and bytes.

    `keep_ms` after the last image of a confirmed study; with less than `low_space_bytes` free, confirmed studies go
    before that, oldest first. `unverified_counts`: a receipt without proof of content counts as confirmed.
    `recycle_ms`: how long a discarded study can be brought back. `grace_ms`: between marking and unlinking.
    `purge` False: only what was discarded ever goes. `commit_keep_ms` after a storage commitment.
    """

    keep_ms: int = 30 * _DAY_MS
    low_space_bytes: int = 0
    unverified_counts: bool = False
    recycle_ms: int = 30 * _DAY_MS
    grace_ms: int = 60_000
    purge: bool = True
    commit_keep_ms: int = 90 * _DAY_MS


class Retainer:
    """Purges the bytes of one node; one per spool, in the deliver role only."""

    def __init__(
        self, store: Store, spool: Spool, clock: Clock, policy: RetentionPolicy,
        free_bytes: Callable[[], int] | None = None,
    ) -> None:
        self._store = store
        self._spool = spool
        self._clock = clock
        self._policy = policy
        self._free_bytes = free_bytes or spool.free_bytes

    def run_once(self) -> int:
        """Unlink what an earlier pass marked, then mark more; return how many instances lost their bytes."""
        removed = self._unlink()
        self._mark()
        return removed

    def _rules(self) -> Rules:
        now, policy = self._clock.now_ms(), self._policy
        pressed = self._free_bytes() < policy.low_space_bytes
        before = -1 if not policy.purge else now if pressed else now - policy.keep_ms
        return Rules(before, now - policy.recycle_ms,
                     ("stored", "unverified") if policy.unverified_counts else ("stored",),
                     committed_before=now - policy.commit_keep_ms)

    def _mark(self) -> None:
        rules, now = self._rules(), self._clock.now_ms()
        with self._store.reading() as tx:
            studies = holdings.studies_to_purge(tx, rules, self._spool.node, _STUDIES_PER_PASS)
        marked = 0
        for study_uid in studies:
            while marked < _INSTANCES_PER_PASS:
                with self._store.transaction() as tx:
                    count = holdings.mark_purging(tx, study_uid, rules, self._spool.node, now, BATCH)
                marked += count
                if count < BATCH:
                    break

    def _unlink(self) -> int:
        now = self._clock.now_ms()
        before = now - self._policy.grace_ms + 1
        rules = self._rules()
        with self._store.reading() as tx:
            strays = holdings.strays(tx, rules, self._spool.node, BATCH)
        if strays:
            with self._store.transaction() as tx:
                holdings.unmark(tx, strays)
        removed = 0
        while removed < _INSTANCES_PER_PASS:
            with self._store.reading() as tx:
                going = holdings.purging(tx, rules, self._spool.node, before, BATCH)
                entries = [id_ for one, _, _ in going for id_ in (one, *holdings.duplicates_of(tx, one))]
            if not going:
                break
            self._spool.remove(entries)
            hit("retain.unlinked")
            with self._store.transaction() as tx:
                for study_uid in sorted({study for _, study, _ in going}):
                    holdings.mark_purged(tx, [one for one, study, _ in going if study == study_uid], now)
                self._tell(tx, going, now)
            removed += len(going)
        if removed:
            log.info("Bytes removed after confirmed delivery; rows and receipts stay",
                     extra={"fields": {"instances": removed}})
        return removed

    def _tell(self, tx: Tx, going: list[tuple[str, str, int]], now: int) -> None:
        for study_uid in sorted({study for _, study, _ in going}):
            sizes = [size for _, study, size in going if study == study_uid]
            events.add_event(tx, now, "purged", f"the bytes of {len(sizes)} images were removed, rows stay",
                             study_uid=study_uid, fields={"instances": len(sizes), "bytes": sum(sizes)})
