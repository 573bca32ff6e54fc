"""The limits of a lane: a minute's calls, the share of polls, places for pushes, pauses for everybody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interface.outbound import CHUNK_BYTES, LARGE_CHUNK_BYTES
from interface.satusehat.governor import MAX_WAIT_S, Governor, Limits
from internal.errors import Transient


class Hand:
    """Seconds that pass only when told to; a wait passes them at once."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def govern(self, **limits: int) -> Governor:
        return Governor(Limits(**limits), self, self.sleep)

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def hand() -> Hand:
    return Hand()


def call_times(governor: Governor, hand: Hand, count: int) -> list[float]:
    times = []
    for _ in range(count):
        governor.admit_call()
        times.append(hand.now_s)
    return times


def most_in_a_minute(times: list[float]) -> int:
    return max(sum(start <= one < start + 60 for one in times) for start in times)


def test_no_minute_has_more_calls_than_allowed(hand: Hand) -> None:
    times = call_times(hand.govern(fhir_per_minute=120), hand, 400)
    assert most_in_a_minute(times) <= 120
    assert times[-1] - times[0] < 400 / 120 * 60 * 1.4


@given(st.lists(st.floats(0, 90), max_size=60))
def test_no_minute_has_more_calls_than_allowed_however_they_come(gaps: list[float]) -> None:
    hand = Hand()
    governor = hand.govern(fhir_per_minute=20)
    times = []
    for gap in gaps:
        hand.now_s += gap
        governor.admit_call()
        times.append(hand.now_s)
    assert not times or most_in_a_minute(times) <= 20


def test_polls_never_take_more_than_a_fifth(hand: Hand) -> None:
    governor = hand.govern(fhir_per_minute=120)
    polls = 0
    end_s = hand.now_s + 600
    while hand.now_s < end_s:
        if governor.may_poll():
            governor.admit_call(poll=True)
            polls += 1
        hand.now_s += 0.25
    assert 0.1 * 1200 < polls <= 0.2 * 1200


def test_a_429_stops_everybody_for_as_long_as_it_says(hand: Hand) -> None:
    governor = hand.govern()
    assert governor.throttled(5.0) == 5.0
    assert not governor.may_poll()
    began_s = hand.now_s
    governor.admit_call()
    assert hand.now_s - began_s >= 5.0
    governor.throttled(MAX_WAIT_S + 20)
    for ask in (governor.admit_call, lambda: governor.push_slot().__enter__()):
        with pytest.raises(Transient) as raised:
            ask()
        assert raised.value.blame_lane and raised.value.code == "http-429"
        assert raised.value.retry_after_s == pytest.approx(MAX_WAIT_S + 20)


def test_places_are_halved_by_429_and_come_back_one_by_one(hand: Hand) -> None:
    governor = hand.govern(pushes=16)
    assert governor.report()["push_window"] == 16
    governor.throttled(0.0)
    governor.throttled(0.0)
    assert governor.report()["push_window"] == 8
    hand.now_s += 2
    governor.throttled(0.0)
    assert governor.report()["push_window"] == 4
    for _ in range(4):
        governor.passed()
    assert governor.report()["push_window"] == 5
    for _ in range(1000):
        governor.passed()
    assert governor.report() == {"push_window": 16, "pushes_in_flight": 0, "throttled": 3}


def test_silent_429s_pause_longer_and_longer(hand: Hand) -> None:
    governor = hand.govern()
    pauses = []
    for _ in range(4):
        pauses.append(governor.throttled(None))
        hand.now_s += pauses[-1] + 1
    assert pauses == [1, 2, 4, 8]
    governor.passed()
    assert governor.throttled(None) == 1


def test_bytes_leave_no_faster_than_allowed(hand: Hand) -> None:
    governor = hand.govern(bytes_per_s=1_000_000)
    began_s = hand.now_s
    for _ in range(100):
        governor.pace(128 * 1024)
    assert 100 * 128 * 1024 / (hand.now_s - began_s + 0.25) <= 1_000_000 * 1.01
    assert governor.report()["push_window"] == 7


def test_the_bandwidth_can_be_changed_while_bytes_move(hand: Hand) -> None:
    governor = hand.govern(pushes=16)
    governor.pace(100_000_000)
    assert hand.now_s == 1000.0, "no limit"
    governor.limit_bandwidth(1024**2)
    began_s = hand.now_s
    for _ in range(100):
        governor.pace(1024**2)
    assert 95 <= hand.now_s - began_s <= 105
    assert governor.report()["push_window"] < 16
    governor.limit_bandwidth(0)
    began_s = hand.now_s
    governor.pace(100_000_000)
    assert hand.now_s == began_s
    assert governor.report()["push_window"] == 16


def test_a_changed_bandwidth_does_not_undo_what_429_taught(hand: Hand) -> None:
    governor = hand.govern(pushes=16)
    governor.throttled(0.0)
    governor.limit_bandwidth(100 * 1024**2)
    assert governor.report()["push_window"] == 8


def test_where_bytes_are_paced_fewer_leave_at_a_time(hand: Hand) -> None:
    governor = hand.govern()
    assert governor.chunk_bytes == LARGE_CHUNK_BYTES > CHUNK_BYTES
    governor.limit_bandwidth(100_000)
    assert governor.chunk_bytes == CHUNK_BYTES
    governor.limit_bandwidth(0)
    assert governor.chunk_bytes == LARGE_CHUNK_BYTES
