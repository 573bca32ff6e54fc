"""The accession doctor at work: applies what a rule that a person saved proves, one study at a time.

Layer 4, run by the deliver role while rules are saved. Everything it does is a decision with before and after.
Changes when rules may act on more than waiting deliveries.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from internal import corrections, jobs
from internal.accession import Rule, decide
from internal.errors import NotAllowed
from internal.ports import Clock
from internal.store import Store

log = logging.getLogger("router.doctor")

_JOBS_PER_PASS = 100


class Doctor:
    """Looks at deliveries that wait for an order, some at each pass, round and round."""

    def __init__(self, store: Store, clock: Clock, rules: frozenset[Rule], alias_file: Path | None, lane: str) -> None:
        self._store = store
        self._clock = clock
        self._rules = rules
        self._alias_file = alias_file
        self._lane = lane
        self._after = 0

    def run_once(self) -> int:
        """Correct what is proven among the next waiting deliveries; return how many."""
        if not self._rules:
            return 0
        table = self._read_aliases()
        with self._store.reading() as tx:
            table = corrections.aliases(tx) | table
            waiting = corrections.waiting_for_an_order(tx, self._lane, self._after, _JOBS_PER_PASS)
        self._after = waiting[-1] if len(waiting) == _JOBS_PER_PASS else 0
        return sum(self._look_at(job_id, table) for job_id in waiting)

    def _look_at(self, job_id: int, table: Mapping[str, str]) -> bool:
        with self._store.reading() as tx:
            proposal = decide(corrections.proposals(tx, jobs.job(tx, job_id), table), self._rules)
        if proposal is None:
            return False
        try:
            with self._store.transaction() as tx:
                corrections.correct(
                    tx, job_id, proposal.accession_number, reason="exactly one order, a second identifier agrees",
                    who=f"rule:{proposal.rule}", now=self._clock.now_ms())
        except NotAllowed:
            return False
        log.info("Accession number corrected by rule", extra={"fields": {"job": job_id, "rule": str(proposal.rule)}})
        return True

    def _read_aliases(self) -> dict[str, str]:
        return read_alias_file(self._alias_file)


def read_alias_file(path: Path | None) -> dict[str, str]:
    """Return the alias file's table; one that is missing or wrong counts as empty and is said in the log."""
    if path is None:
        return {}
    try:
        return corrections.parse_aliases(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as fault:
        log.warning("The alias file cannot be used", extra={"fields": {"why": str(fault)}})
        return {}
