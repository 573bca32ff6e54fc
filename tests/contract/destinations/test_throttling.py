"""429 to pushes: waited for together where it is short, a pause of the lane where it is long, never a second bill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from internal.model import ItemState
from internal.states import Finish, Later
from tests.contract.destinations.conftest import Case
from tests.contract.destinations.memory_work import step_once
from tests.contract.destinations.test_satusehat_delivery import assert_delivered
from tests.contract.sandbox.sandbox_client import Sandbox

MakeCase = Callable[..., Case]
PUSH = {"method": "POST", "path": "/dicom"}


def throttle(platform: Sandbox, retry_after: str, **when: Any) -> None:
    platform.control("POST", "/faults", [{**PUSH, "status": 429, "headers": {"Retry-After": retry_after}, **when}])


def test_a_short_pause_is_waited_for_inside_the_step(make_case: MakeCase, platform: Sandbox) -> None:
    case = make_case(instances=12, push_parallel=4)
    throttle(platform, "1", count=3)
    assert isinstance(step_once(case.destination, case.ledger, case.clock), Finish)
    assert case.ledger.count() == {ItemState.STORED: 12}
    assert_delivered(case)
    report = case.destination.report()
    assert report["throttled"] == 3 and report["pushes_in_flight"] == 0
    assert all(one["times_received"] == 1 for one in case.stored().values())


def test_a_long_pause_stops_the_lane_and_every_other_worker_before_it_sends(
    make_case: MakeCase, platform: Sandbox,
) -> None:
    case = make_case(instances=3, push_parallel=1)
    other = make_case(instances=1, destination=case.destination)
    throttle(platform, "60")
    outcome = step_once(case.destination, case.ledger, case.clock)
    assert isinstance(outcome, Later) and (outcome.code, outcome.blame) == ("http-429", "lane")
    assert outcome.retry_after_s is not None and 50 < outcome.retry_after_s <= 60
    assert platform.control("GET", "/faults")[0]["hits"] == 1
    before = platform.control("GET", "/counts")["requests"]
    outcome = step_once(other.destination, other.ledger, other.clock)
    assert isinstance(outcome, Later) and outcome.code == "http-429"
    assert platform.control("GET", "/counts")["requests"] == before


def test_an_instance_that_was_only_turned_away_is_not_taken_for_ours(make_case: MakeCase, platform: Sandbox) -> None:
    """429 says that nothing was taken: "already exists" afterwards is about somebody else's bytes."""
    case = make_case(instances=1)
    case.ledger.crash_on = "event push"
    step_once(case.destination, case.ledger, case.clock)
    data = case.ledger.files[case.ledger.items[1].instance.id]
    case.sandbox.push(data[:-1] + bytes([data[-1] ^ 1]), case.ledger.facts["imaging_study_id"])
    throttle(platform, "0", count=1)
    assert isinstance(case.drive(), Finish)
    assert case.ledger.items[1].state is ItemState.UNVERIFIED
