"""When a study counts as complete: arrival times against the watermark, releases, open associations, the maximum."""

from __future__ import annotations

from dataclasses import replace

import pytest

from internal.assemble import SettlePolicy
from internal.index import Settling

POLICY = SettlePolicy(settle_ms=60_000, settle_cr_dx_ms=20_000, release_min_ms=10_000, settle_max_ms=1_800_000)
BASE = Settling(
    study_uid="1.2.3",
    revision=1,
    settled_revision=0,
    conflict=False,
    first_arrived_at=0,
    last_arrived_at=100_000,
    first_unsettled_at=0,
    modalities=frozenset({"CT"}),
    has_open_association=False,
    released_at=None,
    registrations=0,
    requested=False,
)


@pytest.mark.parametrize(
    ("change", "watermark_at", "settled"),
    [
        ({}, 159_999, False),
        ({}, 160_000, True),
        ({"modalities": frozenset({"CR"})}, 119_999, False),
        ({"modalities": frozenset({"CR", "DX"})}, 120_000, True),
        ({"modalities": frozenset({"CR", "CT"})}, 120_000, False),
        ({"modalities": frozenset()}, 120_000, False),
        ({"released_at": 100_500}, 109_999, False),
        ({"released_at": 100_500}, 110_000, True),
        # A release from before the newest image says nothing about that image.
        ({"released_at": 99_000}, 110_000, False),
        ({"has_open_association": True}, 500_000, False),
        ({"has_open_association": True}, 1_800_000, True),
        ({"requested": True}, 100_000, True),
        # A backlog: the newest image lies beyond what is indexed.
        ({"last_arrived_at": 300_000}, 200_000, False),
    ],
)
def test_settled(change: dict[str, object], watermark_at: int, settled: bool) -> None:
    assert POLICY.is_settled(replace(BASE, **change), watermark_at) is settled


def test_release_never_lengthens_a_short_settle_time() -> None:
    quick = SettlePolicy(settle_ms=2_000, settle_cr_dx_ms=2_000, release_min_ms=10_000, settle_max_ms=3_600_000)
    released = replace(BASE, released_at=100_000)
    assert quick.is_settled(released, 102_000)
    assert not quick.is_settled(released, 101_999)
