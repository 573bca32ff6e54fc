"""Items, facts and intents under a lease, on both engines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from internal import jobs
from internal.errors import BytesDamaged, LeaseLost
from internal.model import Item, ItemState, Job
from internal.states import Event, More
from internal.store import Store
from tests.contract.store.samples import add, claim, claimed, instance, settle_study

DUE, SENT, STORED, REFUSED = ItemState.DUE, ItemState.SENT, ItemState.STORED, ItemState.REFUSED


def items(store: Store, job: Job, *states: ItemState, limit: int = 100) -> list[Item]:
    with store.reading() as tx:
        return jobs.items(tx, job, states or list(ItemState), limit)


def send(store: Store, job: Job, *chosen: Item, sha256: str = "aa", size: int = 10) -> list[Item]:
    with store.transaction() as tx:
        return jobs.mark_sent(tx, job, [(one, sha256, size, {"rules": 3}) for one in chosen])


def answer(store: Store, job: Job, *answers: tuple[Item, ItemState]) -> None:
    with store.transaction() as tx:
        jobs.settle_items(tx, job, [(one, state, {"status": 200}) for one, state in answers])


def test_an_item_on_its_way(store: Store) -> None:
    job = claimed(store)
    due = items(store, job, DUE)
    assert [(one.state, one.sha256, one.size_bytes, one.sends) for one in due] == [(DUE, "", 0, 0)] * 3
    assert due[0].instance == instance(1)
    assert items(store, job, DUE, limit=2) == due[:2]
    sent = send(store, job, due[1], due[0])
    assert [(one.item_id, one.state, one.sha256, one.size_bytes, one.sends, one.recipe) for one in sent] == \
        [(due[1].item_id, SENT, "aa", 10, 1, {"rules": 3}), (due[0].item_id, SENT, "aa", 10, 1, {"rules": 3})]
    assert sent == [items(store, job)[1], items(store, job)[0]]
    answer(store, job, (sent[0], STORED), (sent[1], REFUSED))
    assert [one.state for one in items(store, job)] == [REFUSED, STORED, DUE]
    assert items(store, job, STORED)[0].answer == {"status": 200}
    with store.reading() as tx:
        assert jobs.count_items(tx, job) == {DUE: 1, STORED: 1, REFUSED: 1}


def test_an_item_never_leaves_with_other_bytes(store: Store) -> None:
    job = claimed(store)
    first, second, _ = items(store, job)
    send(store, job, first)
    with pytest.raises(BytesDamaged):
        send(store, job, second, first, sha256="bb")
    assert [(one.state, one.sha256, one.sends) for one in items(store, job)[:2]] == [(SENT, "aa", 1), (DUE, "", 0)]
    (again,) = send(store, job, first)
    assert again.sends == 2


def test_a_receipt_is_never_taken_back(store: Store) -> None:
    job = claimed(store)
    (first, *_) = items(store, job)
    (sent,) = send(store, job, first)
    answer(store, job, (sent, STORED))
    answer(store, job, (sent, REFUSED))
    assert items(store, job)[0].state is STORED


def test_a_thousand_items_in_one_step(store: Store) -> None:
    job = claimed(store, *[instance(number) for number in range(1100)])
    due = items(store, job, DUE, limit=5000)
    sent = send(store, job, *due)
    assert [one.item_id for one in sent] == [one.item_id for one in due]
    answer(store, job, *[(one, STORED) for one in sent])
    assert items(store, job, DUE, SENT) == []


def test_items_belong_to_their_job_and_environment(store: Store) -> None:
    job = claimed(store)
    add(store, instance(1, study="2.25.2"))
    settle_study(store, "2.25.2")
    other = claim(store)
    assert other is not None
    (foreign,) = items(store, other)
    with pytest.raises(KeyError):
        send(store, job, foreign)
    answer(store, job, (foreign, STORED))
    assert items(store, other)[0].state is DUE
    assert items(store, replace(job, environment="elsewhere")) == []


def test_every_write_and_every_look_needs_the_lease(store: Store) -> None:
    job = claimed(store)
    (first, *_) = items(store, job)
    with store.transaction() as tx:
        intent = jobs.open_intent(tx, job, "POST ImagingStudy", now=7000, deadline_at=8000)
        jobs.settle(tx, job, More(), now=8000, due_at=8000)
    calls = [
        lambda tx: jobs.items(tx, job, [DUE], 1),
        lambda tx: jobs.mark_sent(tx, job, [(first, "aa", 1, {})]),
        lambda tx: jobs.settle_items(tx, job, [(first, STORED, {})]),
        lambda tx: jobs.record_facts(tx, job, {"a": 1}),
        lambda tx: jobs.open_intent(tx, job, "POST", now=1, deadline_at=2),
        lambda tx: jobs.unanswered_intent(tx, job, "POST"),
        lambda tx: jobs.close_intent(tx, job, intent, {}, 3),
    ]
    for call in calls:
        with pytest.raises(LeaseLost), store.transaction() as tx:
            call(tx)
    again = claim(store, now=8000)
    assert again is not None
    assert [one.state for one in items(store, again)] == [DUE] * 3
    assert again.facts == {}


def test_facts_merge_and_none_removes(store: Store) -> None:
    job = claimed(store)
    with store.transaction() as tx:
        assert jobs.record_facts(tx, job, {"imaging_study_id": "a", "order": {"id": "b"}}) == \
            {"imaging_study_id": "a", "order": {"id": "b"}}
        assert jobs.record_facts(tx, job, {"order": None, "text": "é\0"}) == {"imaging_study_id": "a", "text": "é\0"}
        jobs.settle(tx, job, More(), now=1, due_at=1)
    again = claim(store)
    assert again is not None
    assert again.facts == {"imaging_study_id": "a", "text": "é\0"}


def test_an_intent_stays_open_until_its_answer_is_written(store: Store) -> None:
    job = claimed(store)
    with store.transaction() as tx:
        assert jobs.unanswered_intent(tx, job, "POST") is None
        first = jobs.open_intent(tx, job, "POST", now=7000, deadline_at=9000)
        assert (first.opened_at, first.deadline_at, first.answered_at) == (7000, 9000, None)
        second = jobs.open_intent(tx, job, "POST", now=7100, deadline_at=9100)
        assert jobs.unanswered_intent(tx, job, "POST") == second
        assert jobs.unanswered_intent(tx, job, "PUT") is None
        assert jobs.unanswered_intent(tx, replace(job, environment="elsewhere"), "POST") is None
        jobs.close_intent(tx, job, second, {"status": 201}, 7200)
        assert jobs.unanswered_intent(tx, job, "POST") == first
        jobs.close_intent(tx, job, first, {"found": False}, 7300)
        jobs.close_intent(tx, job, first, {"found": True}, 7400)
        assert jobs.unanswered_intent(tx, job, "POST") is None
        assert tx.rows("SELECT answered_at, answer FROM intent ORDER BY intent_id") == \
            [(7300, '{"found":false}'), (7200, '{"status":201}')]


def test_an_intent_makes_the_lease_outlive_its_deadline(store: Store) -> None:
    job = claimed(store, lease_ms=10)
    with store.transaction() as tx:
        lease_until = tx.value("SELECT lease_until FROM job")
        jobs.open_intent(tx, job, "POST", now=7000, deadline_at=107_000)
        assert tx.value("SELECT lease_until FROM job") >= lease_until + 100_000 - 10
        assert jobs.expire_leases(tx, 100_000) == []
        longest = tx.value("SELECT lease_until FROM job")
        jobs.open_intent(tx, job, "POST", now=7000, deadline_at=7001)
        assert tx.value("SELECT lease_until FROM job") == longest


def test_a_cancelled_job_stops_its_worker(store: Store) -> None:
    job = claimed(store)
    with store.transaction() as tx:
        jobs.act(tx, [job.job_id], Event.CANCEL, who="ani", now=7500)
    with pytest.raises(LeaseLost):
        items(store, job)


def test_an_attempt_that_is_taken_back_leaves_no_trace_but_an_earlier_one_stays(store: Store) -> None:
    job = claimed(store)
    first, second, _ = items(store, job)
    send(store, job, first)
    sent = send(store, job, first, second)
    with store.transaction() as tx:
        jobs.take_back(tx, job, sent)
    assert [(one.state, one.sha256, one.size_bytes, one.sends, one.recipe) for one in items(store, job)[:2]] == \
        [(SENT, "aa", 10, 1, {"rules": 3}), (DUE, "", 0, 0, {})]
    with store.transaction() as tx:
        jobs.take_back(tx, job, sent)  # once more: it is not the attempt that is on record now
    assert [one.sends for one in items(store, job)[:2]] == [1, 0]
    (again,) = send(store, job, second, sha256="bb")
    answer(store, job, (again, STORED))
    with store.transaction() as tx:
        jobs.take_back(tx, job, [again])
    assert [(one.state, one.sends) for one in items(store, job)[:2]] == [(SENT, 1), (STORED, 1)]


def test_who_lost_the_lease_takes_back_its_own_attempt_and_no_other(store: Store) -> None:
    job = claimed(store)
    first, second, _ = items(store, job)
    sent = send(store, job, first, second)
    with store.transaction() as tx:
        jobs.settle(tx, job, More(), now=8000, due_at=8000)
    again = claim(store, now=8000)
    assert again is not None
    send(store, again, first)
    with store.transaction() as tx:
        jobs.take_back(tx, job, sent)
    assert [(one.state, one.sends) for one in items(store, again)[:2]] == [(SENT, 2), (DUE, 0)]
