"""What the index makes of instances and association records, on both engines."""

from __future__ import annotations

import random

import pytest

from internal import index, set_aside
from internal.errors import NotFound
from internal.index import Added
from internal.model import Instance, Study
from internal.store import Store
from tests.contract.store.samples import STUDY, add, instance, moved, settle_study

OTHER = "2.25.2000"


def study_of(store: Store, uid: str = STUDY) -> Study:
    with store.reading() as tx:
        found = index.study(tx, uid)
    assert found is not None
    return found


def settling_of(store: Store) -> list[index.Settling]:
    with store.reading() as tx:
        return index.studies_to_settle(tx, 100)


def inventory_of(store: Store, part: str | None = "ACC1") -> list[str]:
    with store.reading() as tx:
        return [one.id for one in index.inventory(tx, STUDY, part).instances]


# --- adding --------------------------------------------------------------------------------------------------------

def test_an_instance_comes_back_as_it_was_added(store: Store) -> None:
    one = instance(7, patient_name="Wulandari^Sri=吴", study_description="Kepala\0 \\ 50 % ?", association="0.a.1")
    assert add(store, one) == [Added.NEW]
    with store.reading() as tx:
        kept = index.instance(tx, one.id)
    assert moved(kept, header=moved(kept.header, study_description="")) == \
        moved(one, header=moved(one.header, study_description=""))
    assert kept.header.study_description == "Kepala\ufffd \\ 50 % ?"
    with store.reading() as tx, pytest.raises(NotFound):
        index.instance(tx, "nobody")


def test_a_study_gets_one_revision_per_batch(store: Store) -> None:
    assert add(store, instance(1), instance(2), instance(1, study=OTHER)) == [Added.NEW] * 3
    assert (study_of(store).revision, study_of(store, OTHER).revision) == (1, 1)
    add(store, instance(3))
    assert (study_of(store).revision, study_of(store, OTHER).revision) == (2, 1)
    add(store)
    assert study_of(store).revision == 2


def test_the_same_entry_again_is_a_replay_and_changes_nothing(store: Store) -> None:
    batch = [instance(1), instance(2)]
    add(store, *batch)
    before = study_of(store)
    assert add(store, *batch) == [Added.REPLAY] * 2
    assert add(store, batch[0], batch[0]) == [Added.REPLAY] * 2
    assert study_of(store) == before


def test_the_same_data_set_again_is_a_duplicate_and_known_afterwards(store: Store) -> None:
    add(store, instance(1))
    again = moved(instance(1), id="later")
    assert add(store, again) == [Added.DUPLICATE]
    assert add(store, again) == [Added.REPLAY]
    assert (study_of(store).revision, study_of(store).instances) == (1, 1)
    with store.reading() as tx:
        assert tx.rows("SELECT id, of_id FROM duplicate") == [("later", instance(1).id)]
        with pytest.raises(NotFound):
            index.instance(tx, "later")


def test_other_bytes_under_the_same_uid_are_kept_beside(store: Store) -> None:
    add(store, instance(1))
    other = moved(instance(1, content="other"), id="other")
    assert add(store, other) == [Added.CONFLICT]
    known = study_of(store)
    assert (known.conflict, known.revision, known.instances) == (True, 2, 1)
    assert inventory_of(store) == [instance(1).id]
    with store.reading() as tx:
        assert index.instance(tx, "other").current is False
    # Each of the two versions is recognised when it comes again.
    assert add(store, moved(other, id="third"), moved(instance(1), id="fourth")) == [Added.DUPLICATE] * 2
    assert study_of(store).revision == 2


def test_the_same_content_in_other_bytes_is_a_duplicate(store: Store) -> None:
    first = instance(1)
    padded = moved(instance(1, content="padded"), id="padded")
    assert add(store, first, padded, same_as={"padded": first.id}) == [Added.NEW, Added.DUPLICATE]
    with store.reading() as tx:
        assert index.current_of(tx, [first.header.sop_uid, "1.2.nobody"]) == {first.header.sop_uid: first}
        assert tx.rows("SELECT id, of_id FROM duplicate") == [("padded", first.id)]
    again = [moved(padded, id="later"), moved(padded, id="latest")]
    assert add(store, *again, same_as={"later": first.id}) == [Added.DUPLICATE] * 2
    assert add(store, moved(padded, id="unknown")) == [Added.CONFLICT], "nobody has said so of this one"


def test_the_content_of_another_image_counts_for_nothing(store: Store) -> None:
    add(store, instance(1), instance(2))
    other = moved(instance(2, content="other"), id="other")
    assert add(store, other, same_as={"other": instance(1).id}) == [Added.CONFLICT]


def test_within_one_batch_too(store: Store) -> None:
    results = add(store, instance(1), moved(instance(1), id="b"), moved(instance(1, content="x"), id="c"),
                  instance(1), moved(instance(1, content="x"), id="d"))
    assert results == [Added.NEW, Added.DUPLICATE, Added.CONFLICT, Added.REPLAY, Added.DUPLICATE]
    assert study_of(store).revision == 1


def test_a_uid_of_another_study_marks_both(store: Store) -> None:
    add(store, instance(1, sop="2.25.77"))
    assert add(store, instance(1, study=OTHER, sop="2.25.77")) == [Added.CONFLICT]
    assert study_of(store).conflict
    assert study_of(store, OTHER).conflict
    assert study_of(store, OTHER).instances == 0
    with store.reading() as tx:
        assert index.parts_of(tx, STUDY) == ["ACC1"]
        assert index.parts_of(tx, OTHER) == []


def test_keys_that_no_engine_can_store_do_not_break_the_rules(store: Store) -> None:
    odd = instance(1, study="2.25.1\0", sop="2.25.2\0\ud800", part="A\0")
    assert add(store, odd, moved(odd, id="again")) == [Added.NEW, Added.DUPLICATE]
    assert add(store, moved(odd, id="more")) == [Added.DUPLICATE]
    with store.reading() as tx:
        assert index.find_studies(tx, "2.25.1\ufffd") == ["2.25.1\ufffd"]


def test_study_text_is_that_of_the_first_instance_that_had_any(store: Store) -> None:
    add(store, instance(1, study_date="", study_description=""), instance(2, study_date="20260102"))
    add(store, instance(3, study_date="20300101", study_description="Thorax"))
    known = study_of(store)
    assert (known.study_date, known.description) == ("20260102", "Thorax")
    assert known.first_arrived_at == 1001
    assert known.last_arrived_at == 1003


def test_a_batch_of_several_hundred_studies(store: Store) -> None:
    batch = [instance(number, study=f"2.25.{number % 700}") for number in range(1400)]
    random.Random(1).shuffle(batch)
    assert add(store, *batch) == [Added.NEW] * 1400
    assert len(settling_of(store)) == 100
    with store.reading() as tx:
        assert len(index.studies_to_settle(tx, 10_000)) == 700


# --- inventory -----------------------------------------------------------------------------------------------------

def test_inventory_order_does_not_depend_on_arrival(store: Store) -> None:
    batch: list[Instance] = []
    for series, number in (("10", "10"), ("9", "2"), ("1", ""), ("2", "x")):
        batch += [instance(n, series=series, entry=f"{series}/{text or 'none'}/{n}", instance_number=text,
                           sop=f"2.25.{series}.{n}")
                  for n, text in enumerate(["10", "9", "", "+2", "abc", "9" * 40, "-1"])]
        batch = [moved(one, header=moved(one.header, series_number=number))
                 if one.header.series_uid.endswith(f".{series}") else one for one in batch]
    random.Random(2).shuffle(batch)
    for one in batch:
        add(store, one)
    with store.reading() as tx:
        held = index.inventory(tx, STUDY, "ACC1")
    assert [one.series_uid.rpartition(".")[2] for one in held.series] == ["9", "10", "1", "2"]
    for series in held.series:
        assert [one.header.instance_number for one in series.instances] == ["-1", "+2", "9", "10", "", "abc", "9" * 40]
    assert held.first_arrived_at == 1000


def test_inventory_by_part_and_whole(store: Store) -> None:
    add(store, instance(1), instance(2, part=""), instance(3, part="ACC2"))
    assert inventory_of(store, "ACC1") == [instance(1).id]
    assert inventory_of(store, "") == [instance(2).id]
    assert len(inventory_of(store, None)) == 3
    assert inventory_of(store, "ACC9") == []
    with store.reading() as tx:
        assert index.parts_of(tx, STUDY) == ["", "ACC1", "ACC2"]
        with pytest.raises(NotFound):
            index.inventory(tx, "2.25.404", None)


def test_purged_instances_stay_in_the_inventory(store: Store) -> None:
    add(store, instance(1), instance(2))
    with store.transaction() as tx:
        tx.execute("UPDATE instance SET purged_at = 9 WHERE id = ?", (instance(1).id,))
        assert [one.purged_at for one in index.inventory(tx, STUDY, "ACC1").instances] == [9, None]


def test_find_studies_by_uid_and_by_accession_raw_or_normalised(store: Store) -> None:
    add(store, instance(1), instance(1, study=OTHER), instance(1, study="2.25.3000", part=""))
    with store.reading() as tx:
        assert index.find_studies(tx, STUDY) == [STUDY]
        assert index.find_studies(tx, " ACC1\0") == [STUDY, OTHER]
        assert index.find_studies(tx, "acc1") == []
        assert index.find_studies(tx, "  ") == []
        assert index.study(tx, "2.25.404") is None


# --- settling ------------------------------------------------------------------------------------------------------

def test_what_settling_looks_at(store: Store) -> None:
    add(store, instance(1, at=500, association="0.a.1"), instance(2, at=900, modality="SR", association="0.a.1"))
    (found,) = settling_of(store)
    assert (found.study_uid, found.revision, found.settled_revision, found.registrations) == (STUDY, 1, 0, 0)
    assert (found.first_arrived_at, found.last_arrived_at, found.first_unsettled_at) == (500, 900, 500)
    assert found.has_open_association
    assert found.released_at is None
    assert not found.conflict


def test_modalities_are_those_of_all_series(store: Store) -> None:
    add(store, instance(1, series="1", modality="CR"), instance(2, series="2", modality="DX"))
    assert settling_of(store)[0].modalities == {"CR", "DX"}
    assert study_of(store).modalities == ("CR", "DX")
    assert study_of(store).series == 2


def test_settled_studies_leave_the_list_until_something_comes(store: Store) -> None:
    add(store, instance(1, at=500))
    settle_study(store)
    assert settling_of(store) == []
    add(store, moved(instance(1), id="duplicate"))
    assert settling_of(store) == []
    add(store, instance(2, at=7000))
    add(store, instance(3, at=6500))
    (found,) = settling_of(store)
    assert (found.first_unsettled_at, found.first_arrived_at, found.registrations) == (6500, 500, 1)
    assert (found.revision, found.settled_revision) == (3, 1)


def test_mark_settled_only_at_the_revision_that_was_looked_at(store: Store) -> None:
    add(store, instance(1))
    with store.transaction() as tx:
        assert not index.mark_settled(tx, STUDY, 0, 9)
        assert not index.mark_settled(tx, STUDY, 2, 9)
        assert not index.mark_settled(tx, "2.25.404", 1, 9)
        assert index.mark_settled(tx, STUDY, 1, 9)
        assert not index.mark_settled(tx, STUDY, 1, 9)
    assert study_of(store).settled_revision == 1


def test_the_study_that_waits_longest_comes_first(store: Store) -> None:
    for number in (3, 1, 2):
        add(store, instance(number, study=f"2.25.{number}", at=number * 100))
    assert [one.study_uid for one in settling_of(store)] == ["2.25.1", "2.25.2", "2.25.3"]


def test_a_person_can_ask_for_it_at_once(store: Store) -> None:
    add(store, instance(1))
    with store.transaction() as tx:
        index.request_settle(tx, STUDY)
    assert settling_of(store)[0].requested
    settle_study(store)
    add(store, instance(2))
    assert not settling_of(store)[0].requested


# --- associations --------------------------------------------------------------------------------------------------

RECORD = {"association_id": "0.a.1", "slot": "0", "boot": "a", "peer": "192.0.2.7", "started_at": 400, "ended_at": 950,
          "how": "released", "studies": {STUDY: 2}, "refused": {"0xA900": 1}}


def test_release_of_every_association_that_carried_it(store: Store) -> None:
    add(store, instance(1, at=500, association="0.a.1"), instance(2, at=900, association="1.b.1"))
    with store.transaction() as tx:
        index.add_association(tx, RECORD)
        assert index.open_associations_of(tx, STUDY)
    assert settling_of(store)[0].has_open_association
    with store.transaction() as tx:
        index.add_association(tx, {**RECORD, "association_id": "1.b.1", "ended_at": 800})
        assert not index.open_associations_of(tx, STUDY)
    (found,) = settling_of(store)
    assert not found.has_open_association
    assert found.released_at == 950


def test_an_association_record_that_comes_before_its_instances(store: Store) -> None:
    with store.transaction() as tx:
        index.add_association(tx, RECORD)
        index.add_association(tx, RECORD)
        assert tx.value("SELECT COUNT(*) FROM association") == 1
    add(store, instance(1, at=500, association="0.a.1"))
    assert settling_of(store)[0].released_at == 950


def test_a_restarted_slot_ends_what_its_earlier_boots_left_open(store: Store) -> None:
    add(store, instance(1, association="0.old.1"), instance(2, study=OTHER, association="0.new.1"),
        instance(3, study="2.25.3", association="1.old.9"),
        instance(4, study="2.25.4", association="0.old.2", node="n2"))
    with store.transaction() as tx:
        index.add_association(tx, {"how": "slot-restarted", "slot": "0", "boot": "new", "ended_at": 2000}, node="node1")
        still_open = [uid for uid in (STUDY, OTHER, "2.25.3", "2.25.4") if index.open_associations_of(tx, uid)]
        assert still_open == [OTHER, "2.25.3", "2.25.4"]
        assert index.end_associations_of_slot(tx, "0", "new", 2000) == 1
        assert index.end_associations_of_slot(tx, "0", "", 2000) == 1


@pytest.mark.parametrize("record", [
    {}, {"how": "refused", "refusals": [3, {"peer": "192.0.2.9", "reason": "1/1/7", "count": 12, "ended_at": 60_000}]},
    {"association_id": 7, "studies": ["no"], "refused": None, "ended_at": "late", "started_at": -1, "how": {}},
    {"association_id": "x", "ended_at": 1 << 80, "studies": {"2.25.1": "many"}},
])
def test_records_of_any_shape_are_taken(store: Store, record: dict[str, object]) -> None:
    with store.transaction() as tx:
        index.add_association(tx, record)
        index.add_association(tx, record)
        assert tx.value("SELECT COUNT(*) FROM association WHERE ended_at IS NOT NULL") == 1


# --- entries that make trouble -------------------------------------------------------------------------------------

def test_what_was_being_parsed_when_the_process_died(store: Store) -> None:
    with store.transaction() as tx:
        assert set_aside.parsing_started(tx, ["a", "b"]) == {"a": 1, "b": 1}
        set_aside.parsing_done(tx, ["b"])
    with store.transaction() as tx:
        assert set_aside.parsing_interrupted(tx) == {"a": 1}
        assert set_aside.parsing_started(tx, ["a", "c"]) == {"a": 2, "c": 1}
        set_aside.note_bad(tx, "a", "reading it ended the process twice", 9)
        set_aside.note_bad(tx, "a", "again", 10)
        assert set_aside.parsing_interrupted(tx) == {"c": 1}
        assert tx.rows("SELECT entry_id, reason, at FROM bad") == [("a", "reading it ended the process twice", 9)]


def test_settling_a_study_is_by_index(store: Store) -> None:
    """The look that assemble repeats all day must not read every study ever held."""
    explain = "EXPLAIN QUERY PLAN " if store.dialect == "sqlite" else "EXPLAIN "
    with store.transaction() as tx:
        if store.dialect == "postgresql":
            tx.execute("SET LOCAL enable_seqscan = off")
        plan = str(tx.rows(f"{explain}SELECT study_uid FROM study WHERE revision > settled_revision"
                           " ORDER BY unsettled_since, study_uid LIMIT 10"))
    assert "study_unsettled" in plan
