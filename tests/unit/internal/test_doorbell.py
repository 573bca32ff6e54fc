"""When new/ is looked through: soon after a lone image, every 2 s in a burst, and now and then without a reason."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from internal.doorbell import FULL_SCAN_S, GATHER_S, LULL_S, Doorbell


def passes(rings_s: list[float], until_s: float, step_s: float = 0.01) -> list[float]:
    """Look every `step_s`; the bell's value changes at each of `rings_s`. Return when passes were due."""
    bell, found = Doorbell(), []
    for tick in range(round(until_s / step_s)):
        now_s = tick * step_s
        if bell.is_due(sum(ring_s <= now_s for ring_s in rings_s), now_s):
            found.append(now_s)
    return found


def test_a_lone_image_is_looked_at_after_a_lull() -> None:
    first, alone, *_ = passes([2.0], 4.0)
    assert first == 0.0
    assert 2.0 + LULL_S - 0.001 <= alone <= 2.0 + LULL_S + 0.02


def test_a_burst_is_gathered_and_looked_at_every_two_seconds() -> None:
    found = passes([1.0 + number * 0.02 for number in range(400)], 9.5)[1:]
    assert [round(later - earlier, 1) for earlier, later in itertools.pairwise(found)][:3] == [GATHER_S] * 3
    assert found[-1] >= 9.0 - 0.02  # what came last is looked at too


@given(st.lists(st.floats(0, 20), max_size=60))
def test_nothing_waits_longer_than_the_gathering(rings_s: list[float]) -> None:
    found = passes(rings_s, 22.0)
    for ring_s in rings_s:
        assert any(ring_s <= at_s <= ring_s + GATHER_S + LULL_S + 0.03 for at_s in found)


@given(st.lists(st.floats(0, 20), max_size=60))
def test_new_is_looked_through_now_and_then_whatever_the_bell_says(rings_s: list[float]) -> None:
    found = [*passes(rings_s, 22.0), 22.0]
    assert all(later - earlier <= FULL_SCAN_S + 0.02 for earlier, later in itertools.pairwise(found))


def test_the_bell_is_looked_at_less_often_when_nothing_rings() -> None:
    bell = Doorbell()
    bell.is_due(1, 0.0)
    assert bell.listen_s(1.0) < bell.listen_s(60.0)
