"""The SATUSEHAT destination while the platform misbehaves: nothing lost, nothing twice, no receipt without a reply."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from interface.satusehat.delivery import Satusehat
from internal.model import ItemState
from internal.states import Finish, Later, NotYet, Outcome, Refuse, State
from tests.contract.destinations.conftest import Case
from tests.contract.destinations.memory_work import step_once
from tests.contract.destinations.test_satusehat_delivery import assert_delivered
from tests.contract.sandbox.sandbox_client import Sandbox

MakeCase = Callable[..., Case]

TOKEN = {"method": "POST", "path": "/oauth2"}
SEARCH_ORDER = {"method": "GET", "path": "/fhir-r4/v1/ServiceRequest"}
SEARCH_STUDY = {"method": "GET", "path": "/fhir-r4/v1/ImagingStudy", "query_contains": "identifier"}
CREATE = {"method": "POST", "path": "/fhir-r4/v1/ImagingStudy"}
UPDATE = {"method": "PUT", "path": "/fhir-r4/v1/ImagingStudy"}
READ = {"method": "GET", "path": "/fhir-r4/v1/ImagingStudy/"}
PUSH = {"method": "POST", "path": "/dicom"}

FAULTS: list[dict[str, Any]] = [
    {"status": 401}, {"status": 403}, {"status": 404, "body": ""}, {"status": 429, "headers": {"Retry-After": "0"}},
    {"status": 500}, {"status": 502}, {"status": 503}, {"status": 504}, {"reset": True}, {"status": 302,
     "headers": {"Location": "http://127.0.0.1:9/"}},
    {"status": 200, "body": "{garbage"}, {"status": 200, "body": ""}, {"status": 200, "body": "<html>ok</html>"},
    {"status": 200, "body": {"unexpected": True}}, {"status": 200, "body": {"resourceType": "Patient", "id": "x"}},
    {"status": 200, "body": {"resourceType": "OperationOutcome", "issue": [{"severity": "information",
     "code": "suppressed", "details": {"text": "The operation did not return any information due to consent"}}]}},
]


ANOTHER = {"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2.3"]}}]}}
FAULTS.append({"status": 200, "body": ANOTHER})


def name(fault: dict[str, Any]) -> str:
    return str(fault.get("status", "reset")) + str(fault.get("body", ""))[:12]


def requests_of(sandbox: Sandbox) -> dict[str, int]:
    counts: dict[str, int] = sandbox.control("GET", "/counts")["requests"]
    return counts


VERBS = {"order": SEARCH_ORDER, "search": SEARCH_STUDY, "create": CREATE, "read": READ, "push": PUSH}
#: Of the other verbs, one fault of each kind in every run: refused, failed, broken off, not understood.
SAMPLE = ("401", "503", "reset", "200{garbage", "200{'resourceTy")


def each_verb_and_fault() -> list[Any]:
    found = []
    for verb, fault in itertools.product(VERBS, FAULTS):
        quick = verb in ("create", "push") or name(fault).startswith(SAMPLE)
        found.append(pytest.param(VERBS[verb], fault, id=f"{verb}-{name(fault)}",
                                  marks=[] if quick else [pytest.mark.long(seconds=0.5)]))
    return found


@pytest.mark.parametrize(("verb", "fault"), each_verb_and_fault())
def test_a_passing_fault_costs_nothing(
    make_case: MakeCase, platform: Sandbox, verb: dict[str, Any], fault: dict[str, Any],
) -> None:
    case = make_case(instances=3, request_timeout_s=0.4, index_lag_s=0.1)
    platform.control("POST", "/faults", [{**verb, **fault, "count": 1 if verb is CREATE else 2}])
    assert isinstance(case.drive(), Finish)
    platform.control("DELETE", "/faults")
    assert_delivered(case)
    assert case.ledger.count() == {ItemState.STORED: 3}


@pytest.mark.parametrize("fault", FAULTS, ids=name)
def test_a_passing_fault_of_an_update_costs_nothing(
    make_case: MakeCase, platform: Sandbox, fault: dict[str, Any],
) -> None:
    case = make_case(instances=2)
    case.drive()
    case.add(3)
    platform.control("POST", "/faults", [{**UPDATE, **fault, "count": 2}])
    assert isinstance(case.drive(), Finish)
    assert_delivered(case)


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.get("status") != 429], ids=name)
def test_no_fault_that_stays_ever_counts_as_success(
    make_case: MakeCase, platform: Sandbox, fault: dict[str, Any],
) -> None:
    case = make_case(instances=2)
    platform.control("POST", "/faults", [{**PUSH, **fault}])
    for _ in range(2):
        outcome = step_once(case.destination, case.ledger, case.clock)
        assert isinstance(outcome, Later), outcome
    assert case.ledger.count()[ItemState.STORED] == 0
    assert case.stored() == {}


def test_a_reply_that_stays_unreadable_ends_as_a_receipt_of_its_own(make_case: MakeCase, platform: Sandbox) -> None:
    case = make_case(instances=1)
    platform.control("POST", "/faults", [{**PUSH, "status": 200, "body": {"new": "format"}}])
    outcome = case.drive()
    assert isinstance(outcome, Finish) and "1 accepted, reply not understood" in outcome.note
    assert case.ledger.items[1].state is ItemState.UNREAD and case.ledger.items[1].sends == 3
    assert "reply not understood" in case.ledger.items[1].answer["text"]
    assert list(case.ledger.alerts) == ["reply-not-understood"]
    assert requests_of(platform)["POST /dicom/v1/dicomWeb/studies"] >= 3


@pytest.mark.parametrize(("fault", "blame", "code"), [
    ({"status": 403}, "lane", "http-403"), ({"status": 404, "body": ""}, "lane", "http-404"),
    ({"status": 429, "headers": {"Retry-After": "7"}}, "lane", "http-429"), ({"status": 503}, "lane", "http-503"),
    ({"status": 500}, "job", "http-500"), ({"status": 200, "body": "x"}, "job", "reply-not-understood"),
    ({"reset": True}, "lane", "reset"),
])
def test_who_is_to_blame_and_when_to_come_back(
    make_case: MakeCase, platform: Sandbox, fault: dict[str, Any], blame: str, code: str,
) -> None:
    case = make_case()
    platform.control("POST", "/faults", [{**SEARCH_ORDER, **fault}])
    outcome = step_once(case.destination, case.ledger, case.clock)
    assert isinstance(outcome, Later) and (outcome.blame, outcome.code) == (blame, code)
    if "headers" in fault:
        assert outcome.retry_after_s == 7.0


def test_a_rule_number_reaches_the_operator(make_case: MakeCase, platform: Sandbox) -> None:
    case = make_case()
    platform.control("POST", "/faults", [{**CREATE, "status": 400, "body": {
        "resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "value", "details": {
            "text": "Reference is mandatory : ImagingStudy.basedOn (RuleNumber: 10154) Patient/P01234567890"},
            "expression": ["ImagingStudy.basedOn"]}]}}])
    outcome = case.drive()
    assert isinstance(outcome, Refuse) and outcome.code == "rule-10154"
    assert "ImagingStudy.basedOn" in outcome.reason and "P01234567890" not in outcome.reason
    assert case.ledger.intents[0].answered_at is not None


def test_a_token_that_expires_in_mid_study(make_case: MakeCase, platform: Sandbox) -> None:
    case = make_case(instances=30)
    platform.control("POST", "/faults", [{**PUSH, "nth": 9, "status": 401}, {**PUSH, "nth": 17, "status": 401}])
    assert isinstance(case.drive(), Finish)
    assert_delivered(case)


def test_revoked_tokens_cost_one_new_token_however_many_workers(
    make_case: MakeCase, platform: Sandbox, make_destination: Callable[..., Satusehat],
) -> None:
    shared = make_destination(platform.url, push_parallel=8)
    cases = [make_case(destination=shared, instances=4) for _ in range(8)]
    make_case(destination=shared).drive()
    platform.control("POST", "/tokens/revoke")
    before = requests_of(platform)["POST /oauth2/v1/accesstoken"]
    with ThreadPoolExecutor(8) as threads:
        assert all(isinstance(outcome, Finish) for outcome in threads.map(lambda case: case.drive(), cases))
    assert requests_of(platform)["POST /oauth2/v1/accesstoken"] == before + 1
    for case in cases:
        assert_delivered(case)


@pytest.mark.parametrize("credentials", [
    {"secret": lambda: "wrong & secret"}, {"client_key": lambda: "nobody"},
])
def test_wrong_credentials_are_tried_once_in_the_interval(
    make_case: MakeCase, platform: Sandbox, credentials: dict[str, Any],
) -> None:
    case = make_case(**credentials)
    before = requests_of(platform).get("POST /oauth2/v1/accesstoken", 0)
    for _ in range(5):
        outcome = step_once(case.destination, case.ledger, case.clock)
        assert isinstance(outcome, Later) and outcome.blame == "lane" and outcome.code == "credentials-refused"
        assert "invalid_client" in outcome.reason and "wrong & secret" not in outcome.reason
    assert requests_of(platform)["POST /oauth2/v1/accesstoken"] == before + 1
    assert case.ledger.count() == {ItemState.DUE: 2}


def test_a_client_without_the_api_product_does_not_loop(make_case: MakeCase, platform: Sandbox) -> None:
    case = make_case()
    platform.control("POST", "/faults", [{**SEARCH_ORDER, "status": 401, "body": {"fault": {
        "faultstring": "Invalid API call as no apiproduct match found",
        "detail": {"errorcode": "keymanagement.service.InvalidAPICallAsNoApiProductMatchFound"}}}}])
    outcome = step_once(case.destination, case.ledger, case.clock)
    assert isinstance(outcome, Later) and outcome.code == "no-api-product" and outcome.blame == "lane"
    assert platform.control("GET", "/faults")[0]["hits"] == 1


@pytest.mark.parametrize("fault", [
    {"status": 500}, {"status": 503}, {"status": 403}, {"status": 200, "body": "<html>login</html>"}, {"reset": True},
    {"status": 200, "body": {"access_token": "two words", "expires_in": "3599"}}, {"status": 429},
], ids=name)
def test_a_token_service_that_stumbles(make_case: MakeCase, platform: Sandbox, fault: dict[str, Any]) -> None:
    case = make_case()
    platform.control("POST", "/faults", [{**TOKEN, **fault, "count": 2}])
    outcome = step_once(case.destination, case.ledger, case.clock)
    assert isinstance(outcome, Later) and outcome.blame == "lane"
    assert isinstance(case.drive(), Finish)


@pytest.fixture(scope="module")
def lagging_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Sandbox]]:
    """Two platforms whose index lags and who would take a second ImagingStudy without a word."""
    options = ("--index-delay", "2", "--allow-duplicates")
    pair = [Sandbox(tmp_path_factory.mktemp("lagging") / "data", *options) for _ in range(2)]
    yield pair
    assert [sandbox.stop() for sandbox in pair] == [0, 0]


@pytest.fixture
def lagging(lagging_pair: list[Sandbox]) -> Iterator[Sandbox]:
    yield lagging_pair[0]
    lagging_pair[0].control("DELETE", "/faults")


def deliver_all(cases: list[Case]) -> list[Outcome]:
    with ThreadPoolExecutor(len(cases)) as threads:
        return list(threads.map(lambda case: case.drive(timeout_s=40), cases))


@pytest.mark.timeout(90)
def test_a_crash_at_any_commit_never_makes_two_imaging_studies(
    make_case: MakeCase, lagging_pair: list[Sandbox], make_destination: Callable[..., Satusehat],
) -> None:
    """Only facts and intent keep the router from creating a second one; the second platform also loses replies."""
    cases = []
    for sandbox in lagging_pair:
        to = make_destination(sandbox.url, index_lag_s=2.5, request_timeout_s=1.0, push_parallel=16)
        plain = make_case(sandbox=sandbox, destination=to)
        assert isinstance(plain.drive(timeout_s=20), Finish)
        for at, before in itertools.product(range(1, len(plain.ledger.journal) + 1), (True, False)):
            case = make_case(sandbox=sandbox, destination=to)
            case.ledger.crash_at, case.ledger.crash_before = at, before
            cases.append(case)
    lagging_pair[1].control("POST", "/faults", [{**CREATE, "probability": 0.5, "seed": 7, "store_then_reset": True}])
    assert all(isinstance(outcome, Finish) for outcome in deliver_all(cases))
    lagging_pair[1].control("DELETE", "/faults")
    assert all(case.ledger.crashes == 1 for case in cases)
    for case in cases:
        assert_delivered(case)


@pytest.mark.timeout(60)
def test_a_lost_reply_is_searched_for_and_a_lost_request_is_repeated(
    make_case: MakeCase, lagging: Sandbox, make_destination: Callable[..., Satusehat],
) -> None:
    to = make_destination(lagging.url, index_lag_s=2.5, request_timeout_s=1.0)
    stored = make_case(sandbox=lagging, destination=to)
    lagging.control("POST", "/faults", [{**CREATE, "nth": 1, "store_then_reset": True}])
    outcome = step_once(to, stored.ledger, stored.clock)
    assert isinstance(outcome, NotYet) and outcome.code == "index-lag" and outcome.retry_after_s == 1.0
    assert len(stored.imaging_studies()) == 1
    lost = make_case(sandbox=lagging, destination=to)
    lagging.control("POST", "/faults", [{**CREATE, "nth": 1, "reset": True}])
    outcome = step_once(to, lost.ledger, lost.clock)
    assert isinstance(outcome, NotYet) and outcome.code == "index-lag"
    assert lost.imaging_studies() == []
    assert all(isinstance(outcome, Finish) for outcome in deliver_all([stored, lost]))
    for case in (stored, lost):
        assert_delivered(case)
    assert [intent.answer.get("found_by") for intent in stored.ledger.intents] == ["search"]
    assert len(lost.ledger.intents) == 2


def test_a_duplicate_that_no_search_finds_is_held_after_the_lag(make_case: MakeCase, platform: Sandbox) -> None:
    case = make_case(index_lag_s=0.3)
    platform.control("POST", "/faults", [{**CREATE, "status": 400, "body": {
        "resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "duplicate", "details": {
            "text": "Found duplicate resource: ImagingStudy (RuleNumber: 20002)"}}]}}])
    outcome = case.drive()
    assert isinstance(outcome, Refuse) and outcome.code == "duplicate" and "20002" in outcome.reason
    assert [o["hits"] for o in platform.control("GET", "/faults")] == [2]


def test_privacy_that_hides_the_order_means_waiting(make_case: MakeCase, platform: Sandbox) -> None:
    case = make_case(order=False)
    order = case.order()
    platform.control("POST", "/privacy", {"patient_id": order["patient_id"], "mode": "suppressed"})
    outcome = step_once(case.destination, case.ledger, case.clock)
    assert isinstance(outcome, NotYet)
    assert case.ledger.state is State.WAITING


def test_a_sandbox_that_is_down_says_so_and_is_used_again(
    make_case: MakeCase, make_destination: Callable[..., Satusehat],
) -> None:
    to = make_destination("http://127.0.0.1:9")
    case = make_case(order=False, destination=to)
    outcome = step_once(to, case.ledger, case.clock)
    assert isinstance(outcome, Later) and (outcome.code, outcome.blame) == ("connect", "lane")
    assert [line.ok for line in to.probe()] == [True, False]


def test_no_secret_token_or_patient_in_anything_that_is_told(
    make_case: MakeCase, platform: Sandbox, caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(0)
    case = make_case(instances=2)
    platform.control("POST", "/faults", [{**SEARCH_ORDER, "nth": 1, "status": 500,
                                          "body": "Bearer abcdefgh12345678 for P01234567890 3171010101010001"}])
    outcome = step_once(case.destination, case.ledger, case.clock)
    assert isinstance(outcome, Later)
    case.drive()
    told = json.dumps([case.ledger.events, outcome.reason, [r.getMessage() for r in caplog.records]])
    for secret in ("abcdefgh12345678", "P01234567890", "3171010101010001", "sandbox-secret", "CONTOH", "Bearer ey"):
        assert secret not in told
