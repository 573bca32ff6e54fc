"""SQL for the first question of the day: what has come, what has not arrived and why, how long the disk lasts.

Reads only; asked by pages, API and alerts. Every figure comes from an index over what is open or new today, never from
a count over everything. Layer 3, imports rows, store and tally. Changes when the first page has to say more.
"""
# ruff: noqa: S608 - only numbers of ours are composed into SQL

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from internal import tally
from internal.states import State
from internal.store import Tx
from internal.tally import HOUR_MS

DAY_MS = 24 * HOUR_MS
#: Studies of one day that are looked at one by one; a hospital with more sees those of the latest hours.
MAX_STUDIES_OF_DAY = 20_000

#: What can be said of a whole study when it has no delivery at all.
RECEIVING, NOWHERE = "receiving", "nowhere"
_ORDER = (State.HELD, State.DEFERRED, State.WAITING, State.ACTIVE, State.QUEUED)


@dataclass(frozen=True, slots=True)
class Cause:
    """So many unfinished jobs in one state, for one reason, to one destination; `oldest_at` in epoch ms."""

    kind: str
    state: State
    reason_code: str
    destination: str
    jobs: int
    oldest_at: int


@dataclass(slots=True)
class Share:
    """Studies that came, by what has become of them so far."""

    delivered: int = 0
    moving: int = 0
    waiting: int = 0
    held: int = 0

    @property
    def total(self) -> int:
        """Return all of them."""
        return self.delivered + self.moving + self.waiting + self.held

    def add(self, outcome: str) -> None:
        """Count one study of this outcome (see `outcome_of`)."""
        match outcome:
            case State.DONE | State.CANCELLED:
                self.delivered += outcome == State.DONE
            case State.HELD:
                self.held += 1
            case State.WAITING | State.DEFERRED:
                self.waiting += 1
            case _:
                self.moving += 1


@dataclass(frozen=True, slots=True)
class Day:
    """The studies that came since `since` (epoch ms): by hour (its first moment), by modality, and in all."""

    since: int
    total: Share
    hours: Mapping[int, Share]
    modalities: Mapping[str, Share]
    delivered_jobs: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """How long the disk lasts if images come as in the last 24 hours and nothing is removed; None: nothing came."""

    bytes_per_day: int
    free_bytes: int

    @property
    def days(self) -> float | None:
        """Return days until it is full."""
        return self.free_bytes / self.bytes_per_day if self.bytes_per_day else None


def outcome_of(states: Collection[str], *, receiving: bool) -> str:
    """Return what a study shows in one word: its most urgent delivery's state, ``receiving`` or ``nowhere``."""
    for state in _ORDER:
        if state in states:
            return str(state)
    if receiving:
        return RECEIVING
    for state in (State.DONE, State.CANCELLED):
        if state in states:
            return str(state)
    return NOWHERE


def causes(tx: Tx) -> list[Cause]:
    """Return everything unfinished, grouped; most jobs first."""
    rows = tx.rows("SELECT kind, state, reason_code, destination, COUNT(*), MIN(opened_at) FROM job"
                   " WHERE state <> 'done' AND state <> 'cancelled' GROUP BY kind, state, reason_code, destination")
    found = [Cause(row[0], State(row[1]), *row[2:]) for row in rows]
    return sorted(found, key=lambda one: (-one.jobs, one.oldest_at))


def deliveries(found: Collection[Cause], *states: State) -> int:
    """Return how many deliveries among `found` are in one of `states`; other work is not counted."""
    return sum(one.jobs for one in found if one.kind == "deliver" and one.state in states)


def queue_ages(tx: Tx, bounds_s: Sequence[int], now: int) -> dict[str, tuple[list[int], float]]:
    """Return by destination how many unfinished jobs are at most as old as each bound (and one more: the rest).

    Not added up from bound to bound. With them the sum of all ages, in seconds.
    """
    slots = "".join(f" WHEN opened_at >= {now - bound * 1000} THEN {number}" for number, bound in enumerate(bounds_s))
    ages: dict[str, tuple[list[int], float]] = {}
    for destination, slot, count, opened in tx.rows(
            f"SELECT destination, slot, COUNT(*), SUM(opened_at) FROM (SELECT destination, opened_at, CASE{slots}"
            f" ELSE {len(bounds_s)} END AS slot FROM job WHERE state <> 'done' AND state <> 'cancelled') AS open_job"
            " GROUP BY destination, slot"):
        counts, sum_s = ages.get(destination, ([0] * (len(bounds_s) + 1), 0.0))
        counts[slot] = count
        ages[destination] = (counts, sum_s + max(0, count * now - int(opened)) / 1000)
    return ages


def count_receiving(tx: Tx) -> int:
    """Return how many studies are still coming in."""
    return int(tx.value("SELECT COUNT(*) FROM study WHERE revision > settled_revision"))


def day(tx: Tx, since: int) -> Day:
    """Return what has become of the studies that came since `since` (epoch ms)."""
    studies = tx.rows("SELECT study_uid, listed_at, revision > settled_revision FROM study WHERE listed_at >= ?"
                      " ORDER BY listed_at DESC, study_uid DESC LIMIT ?", (since, MAX_STUDIES_OF_DAY))
    first = studies[-1][1] if studies else since
    # CROSS JOIN: without statistics SQLite would rather begin with all deliveries than with the studies of a day.
    states: defaultdict[str, set[str]] = defaultdict(set)
    for uid, state in tx.rows("SELECT s.study_uid, j.state FROM study s CROSS JOIN job j"
                              " WHERE s.listed_at >= ? AND j.study_uid = s.study_uid AND j.kind = 'deliver'", (first,)):
        states[uid].add(state)
    modalities: defaultdict[str, list[str]] = defaultdict(list)
    for uid, term in tx.rows("SELECT s.study_uid, t.term FROM study s CROSS JOIN study_term t"
                             " WHERE s.listed_at >= ? AND t.study_uid = s.study_uid AND t.kind = 'modality'", (first,)):
        modalities[uid].append(term)
    total, hours, of = Share(), defaultdict[int, Share](Share), defaultdict[str, Share](Share)
    for uid, at, receiving in studies:
        outcome = outcome_of(states[uid], receiving=bool(receiving))
        for share in (total, hours[at - at % HOUR_MS], *(of[one] for one in modalities[uid] or ["?"])):
            share.add(outcome)
    ranked = sorted(of.items(), key=lambda pair: (-pair[1].total, pair[0]))
    return Day(since, total, dict(hours), dict(ranked), count_delivered(tx, since))


def count_delivered(tx: Tx, since: int) -> int:
    """Return how many deliveries were finished since `since` (epoch ms), of whatever day their images are."""
    return int(tx.value("SELECT COUNT(*) FROM job WHERE state = 'done' AND kind = 'deliver' AND updated_at >= ?",
                        (since,)))


def forecast(tx: Tx, free_bytes: int, now: int) -> Forecast:
    """Return how long `free_bytes` last at the rate of the last 24 hours (whole hours, the present one included)."""
    return Forecast(tally.bytes_since(tx, now - now % HOUR_MS - 23 * HOUR_MS), free_bytes)
