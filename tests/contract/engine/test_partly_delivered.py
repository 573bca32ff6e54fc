"""A study that lacks an image is never done by itself: damaged files, refusals, and a person who accepts that."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from internal import jobs, set_aside
from internal.indexer import Indexer
from internal.model import ItemState
from internal.ports import Work
from internal.spool import Entry, EntryKind
from internal.states import Finish, Outcome, State
from tests.contract.engine.conftest import Engine

STUDY = "1.2.826.0.1.7"


def path_of(engine: Engine, entry: Entry) -> Path:
    return engine.spool._root / "new" / entry.file_name


def garble_data_set(engine: Engine, entry: Entry) -> None:
    """What a failing disk may do: the data set is garbage, the file meta before it still readable."""
    data = path_of(engine, entry).read_bytes()
    start = data.index(b"\x08\x00\x16\x00")
    path_of(engine, entry).write_bytes(data[:start] + b"\xff" * (len(data) - start))


def end_association(engine: Engine, **studies: int) -> None:
    record = '{"association_id": "0.b.1", "how": "released", "ended_at": 9, "started_at": 1, "studies": {%s}}'
    counts = ", ".join(f'"{uid}": {count}' for uid, count in studies.items())
    engine.writer.add_record(EntryKind.ASSOCIATION, (record % counts).encode())


def listed(engine: Engine) -> list[tuple[str, str]]:
    with engine.store.reading() as tx:
        return [(one.entry_id, one.study_uid) for one in set_aside.list_set_aside(tx)]


def test_the_others_are_delivered_and_then_the_study_is_held(engine: Engine) -> None:
    entries = [engine.receive(STUDY, association="0.b.1") for _ in range(3)]
    garble_data_set(engine, entries[1])
    engine.settle()
    assert listed(engine) == [(entries[1].id, STUDY)]
    assert engine.work()
    job = engine.job()
    assert (job.state, job.reason_code) == (State.HELD, "partly-delivered")
    assert job.reason.startswith("partly delivered 2/3")
    with engine.store.reading() as tx:
        assert jobs.count_items(tx, job) == {ItemState.STORED: 2}
    assert not engine.work()


def test_a_person_accepts_and_a_later_loss_asks_again(engine: Engine) -> None:
    entries = [engine.receive(STUDY, association="0.b.1") for _ in range(2)]
    garble_data_set(engine, entries[0])
    engine.settle()
    engine.work()
    with engine.store.transaction() as tx:
        assert jobs.accept_partial(tx, STUDY, who="ward", now=engine.clock.ms).moved == [(1, State.QUEUED)]
    engine.work()
    assert engine.states() == [State.DONE]
    with engine.store.transaction() as tx:
        acted = jobs.accept_partial(tx, STUDY, who="ward", now=engine.clock.ms)
    assert not acted.moved and acted.refused
    garble_data_set(engine, engine.receive(STUDY, association="0.b.1"))
    engine.settle()
    assert engine.states() == [State.QUEUED]
    engine.work()
    assert engine.job().reason.startswith("partly delivered 1/2")


def test_an_image_that_comes_later_is_delivered_though_the_study_is_held(engine: Engine) -> None:
    entries = [engine.receive(STUDY, association="0.b.1") for _ in range(2)]
    garble_data_set(engine, entries[0])
    engine.settle()
    engine.work()
    engine.receive(STUDY)
    engine.settle()
    assert engine.work()
    assert engine.job().reason.startswith("partly delivered 2/3")


def test_a_file_that_nobody_can_place_is_only_listed(engine: Engine) -> None:
    good, lost = engine.receive(STUDY), engine.receive(STUDY)
    path_of(engine, lost).write_bytes(b"\0" * 4096)
    engine.settle()
    engine.work()
    assert engine.states() == [State.DONE]
    assert listed(engine) == [(lost.id, "")]
    assert good.id != lost.id


@pytest.mark.skipif(sys.platform != "linux", reason="marks are Linux's")
def test_what_a_receiver_has_left_torn_is_listed_once_and_holds_no_study(engine: Engine) -> None:
    engine.receive(STUDY)
    other = engine.spool.writer("1")
    other.prepare()
    incoming = other.begin()
    incoming.write(b"x" * 10_000)
    torn = incoming.seal()
    Path(incoming._path).write_bytes(b"y" * 10_000)
    other._lock.release()  # as when its process dies
    engine.spool.writer("1").close()
    assert [engine.indexer.note_bad() for _ in range(2)] == [1, 0]
    assert Indexer(engine.spool, engine.store, engine.clock).note_bad() == 0
    with engine.store.reading() as tx:
        found = set_aside.list_set_aside(tx)
    assert [(one.entry_id, one.study_uid) for one in found] == [(torn.id, "")]
    assert found[0].reason.startswith("The file was marked as whole but is not what was marked")
    engine.settle()
    engine.work()
    assert engine.states() == [State.DONE]


@pytest.mark.parametrize("several", [False, True])
def test_the_association_record_tells_the_study_if_it_carried_only_one(engine: Engine, several: bool) -> None:
    garble_data_set(engine, engine.receive(STUDY, association="0.b.1"))
    engine.index()
    assert [study for _, study in listed(engine)] == [""]
    end_association(engine, **{STUDY: 1}, **({"1.2.3": 1} if several else {}))
    engine.index()
    assert [study for _, study in listed(engine)] == ["" if several else STUDY]


@pytest.mark.parametrize("twice", [False, True])
def test_of_several_studies_of_an_association_the_one_that_lacks_an_image_waits(engine: Engine, twice: bool) -> None:
    engine.receive("1.2.3", association="0.b.1", sop_uid="1.2.3.4")
    if twice:  # counted twice by the receiver, once here: which study lacks an image is not known
        engine.receive("1.2.3", association="0.b.1", sop_uid="1.2.3.4")
    engine.receive(STUDY, association="0.b.1")
    garble_data_set(engine, engine.receive(STUDY, association="0.b.1"))
    end_association(engine, **{"1.2.3": 2 if twice else 1, STUDY: 2})
    engine.settle()
    assert [study for _, study in listed(engine)] == ["" if twice else STUDY]
    while engine.work():
        pass
    assert sorted(engine.states()) == ([State.DONE, State.DONE] if twice else [State.DONE, State.HELD])


def test_the_record_overrules_what_was_thought_of_a_study_without_an_indexed_image(engine: Engine) -> None:
    engine.receive("1.2.3", association="0.b.1")
    garble_data_set(engine, engine.receive(STUDY, association="0.b.1"))
    end_association(engine, **{"1.2.3": 1, STUDY: 1})
    engine.settle()
    assert [study for _, study in listed(engine)] == [STUDY]
    while engine.work():
        pass
    assert engine.states() == [State.DONE]
    engine.receive(STUDY)
    engine.settle()
    while engine.work():
        pass
    assert sorted(engine.states()) == [State.DONE, State.HELD]


def test_an_entry_that_ends_the_process_is_set_aside_with_its_study(engine: Engine) -> None:
    entry = engine.receive(STUDY)
    for _ in range(2):
        starter = Indexer(engine.spool, engine.store, engine.clock)
        starts = starter._note_parsing([entry])  # what a process had committed when the entry ended it
        starter._note_study(entry, starts)
    engine.indexer = Indexer(engine.spool, engine.store, engine.clock)
    engine.index()
    assert listed(engine) == [(entry.id, STUDY)]


def test_refused_items_hold_the_study_whatever_the_destination_says(engine: Engine) -> None:
    for _ in range(3):
        engine.receive(STUDY)
    engine.settle()

    def refuse_one(work: Work) -> Outcome:
        frozen = work.freeze(work.items([ItemState.DUE], 10))
        verdicts = [ItemState.REFUSED] + [ItemState.STORED] * 10
        work.settle_items([(one.item, state, {}) for one, state in zip(frozen, verdicts, strict=False)])
        return Finish()

    engine.destination.script = refuse_one
    engine.work()
    assert engine.job().reason.startswith("partly delivered 2/3: 1 refused")
    with engine.store.transaction() as tx:
        jobs.accept_partial(tx, STUDY, who="ward", now=engine.clock.ms)
    engine.work()
    job = engine.job()
    assert job.state is State.DONE
    with engine.store.reading() as tx:
        assert jobs.count_items(tx, job) == {ItemState.STORED: 2, ItemState.WAIVED: 1}
