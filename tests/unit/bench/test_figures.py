"""What counts as a queue that grows without bound."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from bench.figures import Figure, growth_percent
from bench.receive_costs import GROWTH_BAR_PERCENT

ARRIVING_PER_S = 1_200.0


def queue(lost_percent: float = 0.0, stall: Callable[[float], float] = lambda _: 0.0, seed: int = 1) -> float:
    """The growth seen in five minutes of a queue that is emptied every two seconds, when it has room for it.

    `lost_percent` of what arrives is never taken out; `stall` is what waits in addition at a moment.
    """
    chance = random.Random(seed)
    at_s, waiting, now_s = [], [], 0.0
    while now_s < 300:
        now_s += chance.uniform(0.5, 1.5)
        teeth = (now_s % 2.03) * ARRIVING_PER_S + chance.uniform(0, 2_500)
        at_s.append(now_s)
        waiting.append(int(teeth + stall(now_s) + lost_percent / 100 * ARRIVING_PER_S * now_s))
    return growth_percent(at_s, waiting, ARRIVING_PER_S)


@pytest.mark.parametrize("seed", range(5))
def test_ups_and_downs_are_no_growth(seed: int) -> None:
    assert abs(queue(seed=seed)) < 0.5


@pytest.mark.parametrize("seed", range(5))
def test_two_percent_that_are_never_taken_out_are_seen(seed: int) -> None:
    assert queue(2, seed=seed) > 1.5 * GROWTH_BAR_PERCENT


@pytest.mark.parametrize("begin_s", [0, 60, 140, 200, 240])
def test_waiting_for_others_is_no_growth_whenever_it_comes(begin_s: float) -> None:
    def stall(now_s: float) -> float:
        """A third of what arrives is left for a minute, and worked off in the next one."""
        since_s = now_s - begin_s
        return ARRIVING_PER_S / 3 * max(0.0, min(since_s, 120 - since_s))

    assert queue(stall=stall) < GROWTH_BAR_PERCENT


def test_a_queue_that_falls_behind_more_and_more_is_seen() -> None:
    # From nothing to 4 % of what arrives: an index that becomes slower as it becomes larger.
    assert queue(stall=lambda now_s: 0.04 / 300 / 2 * ARRIVING_PER_S * now_s**2) > 1.1


def test_growth_is_seen_behind_any_ups_and_downs() -> None:
    assert queue(3, stall=lambda now_s: 15_000 * (now_s % 40 > 20)) > 2.5


def test_a_queue_that_shrinks_grows_by_less_than_nothing() -> None:
    assert growth_percent([0, 1, 2, 3], [40, 30, 20, 10], 100) == -10


def test_a_figure_holds_by_its_median() -> None:
    assert Figure("", "", [1, 2, 9], ">=", 2).holds is True
    assert Figure("", "", [1, 2, 9], "<", 2).holds is False
    assert Figure("", "", [1]).holds is None
