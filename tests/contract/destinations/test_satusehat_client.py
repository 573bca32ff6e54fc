"""Token life and searches over several pages, against the real sandbox process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from interface.outbound import Session, SessionOptions, open_session
from interface.satusehat.client import Client
from interface.satusehat.governor import Governor, Limits
from interface.satusehat.oauth2 import Credentials, TokenSource
from internal.errors import CredentialsRefused, Transient
from internal.states import Refuse
from tests.contract.destinations.conftest import Case, make_options
from tests.contract.sandbox.sandbox_client import Sandbox

CREDENTIALS = Credentials(lambda: "sandbox-client", lambda: "sandbox-secret")


class HandClock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def session(platform: Sandbox) -> Iterator[Session]:
    opened = open_session(platform.url, SessionOptions())
    yield opened
    opened.close()


def asked(platform: Sandbox) -> int:
    return int(platform.control("GET", "/counts")["requests"].get("POST /oauth2/v1/accesstoken", 0))


def test_a_token_is_kept_for_four_fifths_of_its_life(platform: Sandbox, session: Session) -> None:
    clock = HandClock()
    tokens = TokenSource(session, CREDENTIALS, monotonic_s=clock)
    before = asked(platform)
    first = tokens.fetch_token(session.open_deadline(5))
    clock.now_s += 0.79 * 3599
    assert tokens.fetch_token(session.open_deadline(5)) == first and asked(platform) == before + 1
    clock.now_s += 0.02 * 3599
    assert tokens.fetch_token(session.open_deadline(5)) != first and asked(platform) == before + 2


def test_a_token_that_still_lives_bridges_a_token_service_that_is_down(platform: Sandbox, session: Session) -> None:
    clock = HandClock()
    tokens = TokenSource(session, CREDENTIALS, monotonic_s=clock)
    first = tokens.fetch_token(session.open_deadline(5))
    platform.control("POST", "/faults", [{"path": "/oauth2", "status": 503}])
    clock.now_s += 0.9 * 3599
    assert tokens.fetch_token(session.open_deadline(5)) == first
    clock.now_s += 0.2 * 3599
    with pytest.raises(Transient):
        tokens.fetch_token(session.open_deadline(5))


def test_dropping_an_old_token_keeps_the_new_one(platform: Sandbox, session: Session) -> None:
    tokens = TokenSource(session, CREDENTIALS)
    first = tokens.fetch_token(session.open_deadline(5))
    tokens.drop_token(first)
    second = tokens.fetch_token(session.open_deadline(5))
    before = asked(platform)
    tokens.drop_token(first)
    assert tokens.fetch_token(session.open_deadline(5)) == second and asked(platform) == before


def test_twenty_threads_ask_once(platform: Sandbox, session: Session) -> None:
    tokens = TokenSource(session, CREDENTIALS)
    before, barrier = asked(platform), threading.Barrier(20)

    def fetch(_: int) -> str:
        barrier.wait(10)
        return tokens.fetch_token(session.open_deadline(5))

    with ThreadPoolExecutor(20) as threads:
        assert len(set(threads.map(fetch, range(20)))) == 1
    assert asked(platform) == before + 1


def test_refused_credentials_are_tried_again_after_the_interval(platform: Sandbox, session: Session) -> None:
    clock, secret = HandClock(), ["wrong&=+%"]
    tokens = TokenSource(session, Credentials(lambda: "sandbox-client", lambda: secret[0]), monotonic_s=clock)
    before = asked(platform)
    for _ in range(3):
        with pytest.raises(CredentialsRefused, match="invalid_client"):
            tokens.fetch_token(session.open_deadline(5))
    assert asked(platform) == before + 1
    secret[0] = "sandbox-secret"
    clock.now_s += 301
    assert tokens.fetch_token(session.open_deadline(5)) and asked(platform) == before + 2


def test_every_page_of_a_search_is_read(make_case: Callable[..., Case]) -> None:
    case = make_case(order=False)
    for _ in range(101):
        case.order()
    outcome = case.drive()
    assert isinstance(outcome, Refuse) and outcome.code == "several-orders" and "101 orders" in outcome.reason
    assert len(outcome.detail["candidates"]) == 50


def test_a_next_link_is_followed_on_our_own_host_only(
    make_case: Callable[..., Case], platform: Sandbox, session: Session,
) -> None:
    case = make_case(order=False)
    order = case.order()
    platform.control("POST", "/faults", [{"path": "/fhir-r4/v1/ServiceRequest", "nth": 1, "status": 200, "body": {
        "resourceType": "Bundle", "type": "searchset", "entry": [], "link": [{
            "relation": "next", "url": f"https://healthcare.googleapis.com/v1/x?identifier={case.accession}"}]}}])
    client = Client(make_options(platform.url), session, TokenSource(session, CREDENTIALS), Governor(Limits(0)))
    found = client.fetch_service_requests(case.accession)
    assert [one["id"] for one in found] == [order["service_request_id"]]


def test_pages_without_end_are_no_answer(make_case: Callable[..., Case], platform: Sandbox, session: Session) -> None:
    def page(number: int) -> dict[str, object]:
        return {"resourceType": "Bundle", "link": [{"relation": "next", "url": f"/x?page={number}"}]}

    platform.control("POST", "/faults", [
        {"path": "/fhir-r4/v1/ServiceRequest", "nth": number, "status": 200, "body": page(number)}
        for number in range(1, 30)])
    client = Client(make_options(platform.url), session, TokenSource(session, CREDENTIALS), Governor(Limits(0)))
    with pytest.raises(Transient, match="pages"):
        client.fetch_service_requests("X")


@pytest.mark.parametrize("accession", ["", " ", "\t"])
def test_an_empty_value_is_never_sent(platform: Sandbox, session: Session, accession: str) -> None:
    client = Client(make_options(platform.url), session, TokenSource(session, CREDENTIALS), Governor(Limits(0)))
    client.fetch_service_requests("X")
    before = platform.control("GET", "/counts")["requests"]["GET /fhir-r4/v1/ServiceRequest"]
    with pytest.raises(ValueError, match="empty"):
        client.fetch_service_requests(accession)
    assert platform.control("GET", "/counts")["requests"]["GET /fhir-r4/v1/ServiceRequest"] == before
