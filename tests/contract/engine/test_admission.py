"""Callers are learned, and with unknown_callers = hold their studies wait until a person admits them."""

from __future__ import annotations

import json

import pytest

from interface.dimse.policy import Policy, parse_policy
from interface.dimse.settings import ReceiveSettings
from internal import admission, devices, index, jobs
from internal.devices import Caller, Verdict, host_of
from internal.errors import NotAllowed
from internal.model import ItemState
from internal.ports import Work
from internal.spool import POLICY_NAME, EntryKind
from internal.states import Event, Outcome, State
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
    holding.receive(STUDY, association="0.b.1", peer="2001:db8::7:5000")
    holding.settle()
    assert holding.states() == [State.QUEUED]
    say(holding, "CT1", "", None)
    holding.receive(STUDY, association="0.b.2", peer="2001:db8::7:5001")
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


def test_hosts_of_peers() -> None:
    assert [host_of(peer) for peer in ("192.0.2.7:104", "::1:104", "192.0.2.7", "")] == [
        "192.0.2.7", "::1", "192.0.2.7", ""]


def test_images_that_no_device_sent_need_no_admission(holding: Engine) -> None:
    holding.receive(STUDY, source="upload")
    holding.settle()
    assert holding.states() == [State.QUEUED]
    with holding.store.reading() as tx:
        assert devices.list_devices(tx) == []
        assert index.study(tx, STUDY)
