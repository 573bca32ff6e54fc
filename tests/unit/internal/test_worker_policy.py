"""How lanes wait, and what each error means for a job."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internal.errors import (
    BytesDamaged,
    BytesMissing,
    CredentialsRefused,
    NotFound,
    Refused,
    RouterError,
    Transient,
    UnknownOutcome,
)
from internal.states import Later, Refuse
from internal.worker import CREDENTIALS_PAUSE_S, LanePolicy, outcome_of

POLICY = LanePolicy(retry_min_ms=5_000, retry_max_ms=900_000, order_poll_min_ms=30_000, order_poll_max_ms=900_000)


@given(attempts=st.integers(0, 10_000), jitter=st.floats(0, 1, exclude_max=True))
def test_backoff_stays_within_its_limits(attempts: int, jitter: float) -> None:
    assert 4_000 <= POLICY.backoff_ms(attempts, jitter) <= 1_080_000


def test_backoff_doubles() -> None:
    assert [POLICY.backoff_ms(n, 0.5) for n in (1, 2, 3, 4)] == [5_000, 10_000, 20_000, 40_000]


def test_a_worker_that_cannot_read_its_queue_rests_longer_each_time() -> None:
    assert [POLICY.rest_s(n, 0.0) for n in (0, 1, 2, 3, 7, 10**9)] == [0.25, 0.5, 1.0, 2.0, 30.0, 30.0]


def test_a_lane_that_has_had_nothing_to_do_for_a_while_looks_less_often() -> None:
    assert [POLICY.rest_s(0, quiet_for_s) for quiet_for_s in (4.9, 5.0, 10.0**9)] == [0.25, 1.0, 1.0]
    assert POLICY.rest_s(1, 10.0**9) == 0.5, "after a fault it is the fault that counts"


@given(age_ms=st.integers(0, 10**12))
def test_waiting_room_slows_down_but_never_stops(age_ms: int) -> None:
    assert 30_000 <= POLICY.poll_ms(age_ms) <= 900_000
    assert POLICY.poll_ms(age_ms) <= POLICY.poll_ms(age_ms + 1)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Transient("x", code="http-503"), Later("http-503", "x", None, "lane")),
        (Transient("x", code="c", retry_after_s=7, blame_lane=False), Later("c", "x", 7, "job")),
        (UnknownOutcome("x", code="reset"), Later("reset", "x", None, "lane")),
        (CredentialsRefused("no"), Later("credentials-refused", "no", CREDENTIALS_PAUSE_S, "lane")),
        (Refused("bad", code="rule-10154"), Refuse("rule-10154", "bad")),
        (BytesMissing("gone"), Refuse("bytes-missing", "gone")),
        (BytesDamaged("broken"), Refuse("bytes-damaged", "broken")),
        (NotFound("what"), Later("NotFound", "what", None, "job")),
        (RouterError("what"), Later("RouterError", "what", None, "job")),
    ],
)
def test_outcome_of_each_error(error: RouterError, expected: object) -> None:
    assert outcome_of(error) == expected
