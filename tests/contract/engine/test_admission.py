"""Callers are learned, and with unknown_callers = hold their studies wait until a person admits them."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator

import pytest

from interface.cli_devices import parse_caller
from interface.dimse.policy import Policy, parse_policy
from interface.dimse.settings import ReceiveSettings
from internal import admission, associations, devices, index, jobs
from internal.devices import Caller, Verdict
from internal.errors import NotAllowed
from internal.model import ItemState
from internal.ports import Work
from internal.spool import POLICY_NAME, EntryKind
from internal.states import Event, Outcome, State
from tests.contract.dimse.role import Role
from tests.contract.dimse.wire import Wire, associate_rq, context, data_set
from tests.contract.engine.conftest import Engine, deliver_all

STUDY = "1.2.826.0.1.8"


@pytest.fixture
def holding(engine: Engine) -> Engine:
    engine.assembler._unknown_callers = Verdict.HOLD
    return engine


def say(engine: Engine, aet: str, address: str, verdict: Verdict | None, default: Verdict = Verdict.HOLD) -> list[int]:
    with engine.store.transaction() as tx:
        return admission.decide(tx, aet, address, verdict, default=default, who="ward", now=engine.clock.ms)


def policy_of(engine: Engine) -> Policy:
    data = engine.spool.read_published(POLICY_NAME)
    assert data is not None
    return parse_policy(ReceiveSettings(), data)


def test_an_unknown_caller_is_received_listed_and_held_until_it_is_admitted(holding: Engine) -> None:
    holding.receive(STUDY, association="0.b.1", peer="192.0.2.7:5000")
    holding.settle()
    assert (holding.job().state, holding.job().reason_code) == (State.HELD, "caller-not-admitted")
    with holding.store.transaction() as tx:
        (known,) = devices.list_devices(tx)
        assert (known.aet, known.address, known.verdict) == ("CT1", "192.0.2.7", "")
        assert known.first_seen_at == known.last_seen_at
        retried = jobs.act(tx, [1], Event.RETRY, who="ward", now=1)
    assert not retried.moved and "admitted first" in retried.refused[0][1]
    assert say(holding, "CT1", "192.0.2.8", Verdict.ACCEPT) == []  # the same title elsewhere
    assert not holding.work()
    assert say(holding, "CT1", "192.0.2.7", Verdict.ACCEPT) == [1]
    assert holding.work()
    assert holding.states() == [State.DONE]
    holding.receive(STUDY, association="0.b.2", peer="192.0.2.7:5001")
    holding.settle()
    assert holding.states() == [State.QUEUED]


@pytest.mark.parametrize(("aet", "address"), [
    ("A" * 5000, ""), ("A" * 17, ""), ("R\u00d6NTGEN", ""), ("CT\\1", ""), ("CT\n1", ""), ("", ""), (" ", ""),
    ("CT1 ", ""),
    ("CT1", "ward 3"), ("CT1", "192.0.2.7:104")])
def test_what_can_be_no_caller_is_not_decided_upon(holding: Engine, aet: str, address: str) -> None:
    with pytest.raises(NotAllowed):
        say(holding, aet, address, Verdict.REFUSE)
    say(holding, aet, address, None)  # an old word of this kind can be taken back


def test_a_word_on_the_title_counts_everywhere_and_can_be_taken_back(holding: Engine) -> None:
    say(holding, "CT1", "", Verdict.ACCEPT)
    holding.receive(STUDY, association="0.b.1", peer="[2001:db8::7]:5000")
    holding.settle()
    assert holding.states() == [State.QUEUED]
    say(holding, "CT1", "", None)
    holding.receive(STUDY, association="0.b.2", peer="[2001:db8::7]:5001")
    holding.settle()
    assert holding.states() == [State.HELD]


def test_under_accept_only_who_is_held_by_name_is_held(engine: Engine) -> None:
    say(engine, "CT1", "192.0.2.7", Verdict.HOLD, Verdict.ACCEPT)
    engine.receive(STUDY, association="0.b.1", peer="192.0.2.7:5000")
    engine.receive(f"{STUDY}.2", association="0.b.2", peer="192.0.2.8:5000")
    engine.settle()
    assert sorted(engine.states()) == [State.HELD, State.QUEUED]
    assert say(engine, "CT1", "192.0.2.7", None, Verdict.ACCEPT) != []


def test_an_image_of_an_unknown_caller_stops_a_study_that_is_being_sent(holding: Engine) -> None:
    say(holding, "CT1", "192.0.2.7", Verdict.ACCEPT)
    holding.receive(STUDY, association="0.b.1", peer="192.0.2.7:5000")
    holding.settle()

    def interrupted(work: Work) -> Outcome:
        holding.receive(STUDY, association="0.b.2", peer="203.0.113.9:5000")
        holding.settle()
        return deliver_all(work)

    holding.destination.script = interrupted
    assert holding.work()
    job = holding.job()
    assert (job.state, job.reason_code) == (State.HELD, "caller-not-admitted")
    with holding.store.reading() as tx:
        assert jobs.count_items(tx, job) == {ItemState.DUE: 2}


def test_what_the_receiver_is_told(engine: Engine) -> None:
    assert admission.publish(engine.store, engine.spool)
    assert not admission.publish(engine.store, engine.spool)
    say(engine, "CT1", "", Verdict.REFUSE)
    say(engine, "CT2", "192.0.2.7", Verdict.HOLD)
    say(engine, "CT3", "", Verdict.ACCEPT)
    say(engine, "CT3", "", None)
    assert admission.publish(engine.store, engine.spool)
    assert policy_of(engine).callers == {("CT1", ""): "refuse", ("CT2", "192.0.2.7"): "accept"}


def test_refused_callers_are_learned_too(engine: Engine) -> None:
    refusal = {"peer": "192.0.2.7", "calling_aet": "CT9", "called_aet": "X", "reason": "1/1/3", "count": 2,
               "started_at": 5, "ended_at": 9}
    nameless = {**refusal, "calling_aet": ""}
    engine.writer.add_record(
        EntryKind.ASSOCIATION, json.dumps({"how": "refused", "refusals": [refusal, nameless, 7]}).encode())
    engine.index()
    with engine.store.reading() as tx:
        assert [(one.aet, one.address, one.last_seen_at) for one in devices.list_devices(tx)] == [
            ("CT9", "192.0.2.7", 9)]


def test_a_flood_of_invented_titles_is_bounded(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "MAX_LEARNED", 3)
    with engine.store.transaction() as tx:
        devices.learn(tx, [Caller(f"X{number}", "192.0.2.7", number) for number in range(10)])
        devices.learn(tx, [Caller("X0", "192.0.2.7", 99)])
        known = {one.aet: one.last_seen_at for one in devices.list_devices(tx)}
    assert known == {"X0": 99, "X1": 1, "X2": 2}


@pytest.mark.parametrize("written", ["2001:db8::7", "[2001:db8::7]", "2001:DB8:0::7"])
def test_an_ipv6_caller_is_admitted_however_its_address_is_written(holding: Engine, written: str) -> None:
    holding.receive(STUDY, association="0.b.1", peer="[2001:db8::7]:5000")
    holding.settle()
    job = holding.job()
    assert job.reason_code == "caller-not-admitted" and "'CT1' at 2001:db8::7" in job.reason
    assert say(holding, *parse_caller(f"CT1@{written}"), Verdict.ACCEPT) == [1]
    assert say(holding, "CT1", written, None) == []  # takes back the same word
    with holding.store.reading() as tx:
        assert [(one.aet, one.address, one.verdict) for one in devices.list_devices(tx)] == [("CT1", "2001:db8::7", "")]
        (came,) = associations.receptions_of(tx, STUDY)
    assert came.host == "2001:db8::7"


def _no_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return True
    return False


@pytest.fixture
def start_role(engine: Engine) -> Iterator[Callable[..., Role]]:
    started: list[Role] = []

    def start(**settings: str) -> Role:
        started.append(Role(engine.root / "spool", bind=["::1"], **settings))
        return started[-1]

    yield start
    for role in started:
        assert role.stop() == 0
        assert "Traceback" not in role.log()


@pytest.mark.skipif(_no_ipv6_loopback(), reason="this machine has no IPv6 loopback address")
def test_a_study_that_came_over_ipv6_is_held_until_its_caller_is_admitted(
    holding: Engine, start_role: Callable[..., Role],
) -> None:
    role = start_role(unknown_callers="hold")
    with Wire(role.port, host="::1") as wire:
        wire.associate(calling="CT1")
        assert wire.store(1, "1.2.3.1", data_set("1.2.3.1", study=STUDY)).status == 0
        wire.release()
    holding.settle()
    assert (holding.job().state, holding.job().reason_code) == (State.HELD, "caller-not-admitted")
    with holding.store.reading() as tx:
        (known,) = devices.list_devices(tx)
    assert (known.aet, known.address) == ("CT1", "::1")
    assert say(holding, *parse_caller(f"CT1@{known.address}"), Verdict.ACCEPT) == [1]
    assert holding.work()
    assert holding.states() == [State.DONE]


@pytest.mark.skipif(_no_ipv6_loopback(), reason="this machine has no IPv6 loopback address")
def test_a_refused_ipv6_caller_is_learned_and_let_in_when_it_is_admitted(
    holding: Engine, start_role: Callable[..., Role],
) -> None:
    role = start_role(unknown_callers="refuse")
    with Wire(role.port, host="::1") as wire:
        wire.send(associate_rq(context(1, "1.2.840.10008.1.1", "1.2.840.10008.1.2"), calling="CT1"))
        kind, body = wire.read_pdu()
        assert (kind, body[1:4]) == (3, b"\1\1\3")
    role.stop()  # writes down whom it refused
    holding.index()
    with holding.store.reading() as tx:
        assert [(one.aet, one.address) for one in devices.list_devices(tx)] == [("CT1", "::1")]
    say(holding, *parse_caller("CT1@[::1]"), Verdict.ACCEPT)
    admission.publish(holding.store, holding.spool)
    with Wire(start_role(unknown_callers="refuse").port, host="::1") as wire:
        wire.associate(calling="CT1")
        wire.release()


def test_images_that_no_device_sent_need_no_admission(holding: Engine) -> None:
    holding.receive(STUDY, source="upload")
    holding.settle()
    assert holding.states() == [State.QUEUED]
    with holding.store.reading() as tx:
        assert devices.list_devices(tx) == []
        assert index.study(tx, STUDY)
