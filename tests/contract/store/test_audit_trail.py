"""The audit trail on both databases: chained, and every way of tampering is seen."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from internal import audit_trail
from internal.audit_trail import HeadFile
from internal.store import Store, Tx
from tests.contract.conftest import OpenStore
from tests.examples import examples


def filled(store: Store, count: int = 6) -> tuple[int, str]:
    """Write some entries and return the head, as HeadFile would keep it."""
    for number in range(count):
        with store.transaction() as tx:
            entry = audit_trail.append(tx, "lane.pause", author="user:budi", address="192.0.2.1", session="s1",
                                       now=1000 + number, subject=f"lane{number}", fields={"before": {"n": number}})
    return entry.seq, entry.hash


def faults(store: Store, kept: tuple[int, str] | None = None) -> list[str]:
    with store.reading() as tx:
        return list(audit_trail.faults(tx, kept, batch=2))


def test_entries_come_back_newest_first_and_the_chain_holds(store: Store) -> None:
    kept = filled(store)
    assert faults(store, kept) == []
    with store.reading() as tx:
        found = audit_trail.entries(tx, author="user:budi", action="lane", limit=2)
        assert [entry.seq for entry in found] == [6, 5]
        assert [entry.seq for entry in audit_trail.entries(tx, before_seq=3)] == [2, 1]
        assert audit_trail.entries(tx, action="lan") == []
        assert found[0].fields == {"before": {"n": 5}} and found[0].address == "192.0.2.1"


def _renumber(tx: Tx) -> None:
    tx.execute("DELETE FROM audit WHERE seq = 3")
    for seq in (4, 5, 6):
        tx.execute("UPDATE audit SET seq = ? WHERE seq = ?", (seq - 1, seq))
    tx.execute("UPDATE audit_head SET seq = 5")


@pytest.mark.attack("S68")
@pytest.mark.parametrize(("tamper", "said"), [
    (lambda tx: tx.execute("UPDATE audit SET author = 'user:siti' WHERE seq = 3"), "entry 3 was changed"),
    (lambda tx: tx.execute("UPDATE audit SET fields = '{}' WHERE seq = 6"), "entry 6 was changed"),
    (lambda tx: tx.execute("UPDATE audit SET at = 5 WHERE seq = 1"), "entry 1 was changed"),
    (lambda tx: tx.execute("DELETE FROM audit WHERE seq IN (3, 4)"), "entries 3 to 4 are missing"),
    (lambda tx: tx.execute("DELETE FROM audit WHERE seq = 1"), "entries 1 to 1 are missing"),
    (_renumber, "entry 3 was changed, or put in later"),
    (lambda tx: tx.execute("DELETE FROM audit WHERE seq = 6"), "the trail ends at entry 5, but the database"),
], ids=["author", "fields", "time", "removed", "first removed", "renumbered", "last removed"])
def test_tampering_is_seen(store: Store, tamper: Callable[[Tx], object], said: str) -> None:
    kept = filled(store)
    with store.transaction() as tx:
        tamper(tx)
    assert any(said in fault for fault in faults(store, kept)), faults(store, kept)


@pytest.mark.attack("S68")
def test_a_cut_off_end_is_seen_although_the_database_was_made_to_agree(store: Store) -> None:
    kept = filled(store)
    with store.transaction() as tx:
        tx.execute("DELETE FROM audit WHERE seq > 4")
        tx.execute("UPDATE audit_head SET seq = 4, hash = (SELECT hash FROM audit WHERE seq = 4)")
    assert faults(store) == [], "the database alone cannot know"
    assert "its end was cut off" in faults(store, kept)[0]
    filled(store, 4)  # going on writes other entries under the same numbers
    assert any("entry 6 is not the one that was last written" in fault for fault in faults(store, kept))


@pytest.mark.attack("S68")
def test_a_trail_written_anew_from_the_middle_is_seen(store: Store) -> None:
    kept = filled(store)
    with store.transaction() as tx:
        tx.execute("DELETE FROM audit WHERE seq > 2")
        tx.execute("UPDATE audit_head SET seq = 2, hash = (SELECT hash FROM audit WHERE seq = 2)")
    filled(store, 4)
    assert faults(store) == []
    assert any("entry 6 is not the one" in fault for fault in faults(store, kept))


def test_writers_take_turns(open_store: OpenStore) -> None:
    stores = [open_store() for _ in range(3)]

    def write(store: Store) -> None:
        for number in range(10):
            with store.transaction() as tx:
                audit_trail.append(tx, "x.y", author="a", now=number)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, stores))
    assert faults(stores[0]) == []
    with stores[0].reading() as tx:
        assert audit_trail.head(tx)[0] == 30


def test_an_entry_that_is_rolled_back_leaves_no_gap(store: Store) -> None:
    filled(store, 2)
    with pytest.raises(ZeroDivisionError), store.transaction() as tx:
        audit_trail.append(tx, "x.y", author="a", now=1)
        raise ZeroDivisionError
    filled(store, 1)
    assert faults(store) == []


@settings(max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.text(max_size=600), st.dictionaries(st.text(max_size=20), st.text(max_size=300) |
                st.integers(-2**60, 2**60) | st.none(), max_size=4)), max_size=3))
def test_whatever_is_written_verifies(store: Store, lines: list[tuple[str, dict[str, object]]]) -> None:
    for text, fields in lines:
        with store.transaction() as tx:
            audit_trail.append(tx, text or "x", author=text, now=1, subject=text, study_uid=text, fields=fields)
    assert faults(store) == []


def test_too_much_is_kept_as_its_hash(store: Store) -> None:
    with store.transaction() as tx:
        entry = audit_trail.append(tx, "x.y", author="a", now=1, fields={"after": "x" * 30_000})
    assert set(entry.fields) == {"too_long", "sha256"}
    assert faults(store) == []


def test_the_kept_head_never_goes_back(store: Store, tmp_path: Path) -> None:
    head = HeadFile(tmp_path)
    assert head.read() is None
    with store.transaction() as tx:
        first = audit_trail.append(tx, "x.y", author="a", now=1)
        second = audit_trail.append(tx, "x.y", author="a", now=2)
    head.keep(second, store)
    head.keep(first, store)
    assert head.read() == (second.seq, second.hash)
    assert head.path.stat().st_mode & 0o077 == 0
    for rubbish in (b"", b"\xff\xfe", b"x " + b"0" * 64, b"5 abc"):
        head.path.write_bytes(rubbish)
        assert head.read() is None


def test_a_rewritten_trail_stays_seen_after_more_entries(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    kept = filled(store)
    head = HeadFile(tmp_path)
    head.path.write_text(f"{kept[0]} {kept[1]}\n")
    with store.transaction() as tx:
        tx.execute("DELETE FROM audit")
        tx.execute("DELETE FROM audit_head")
        for number in range(kept[0]):
            audit_trail.append(tx, "lane.resume", author="user:eve", now=number)
    assert faults(store) == []  # the chain itself is whole
    for _ in range(2):
        with store.transaction() as tx:
            entry = audit_trail.append(tx, "x.y", author="a", now=9)
        head.keep(entry, store)
    assert head.read() == kept
    assert any("is not the one that was last written" in one for one in faults(store, head.read()))
    assert [record.levelname for record in caplog.records if record.name == "router.audit"] == ["ERROR"]


def test_one_exporter_at_a_time_goes_on_where_it_was(store: Store) -> None:
    filled(store)
    with store.transaction() as tx:
        assert audit_trail.claim_export(tx, "tls://a:1", "node1", 1000, 500) == 0
        assert audit_trail.claim_export(tx, "tls://a:1", "node2", 1400, 500) is None
        audit_trail.advance_export(tx, "tls://a:1", "node1", 4)
        audit_trail.advance_export(tx, "tls://a:1", "node2", 6)
        audit_trail.advance_export(tx, "tls://a:1", "node1", 3)
        assert audit_trail.exported(tx, "tls://a:1") == 4
        assert audit_trail.claim_export(tx, "tls://a:1", "node2", 1501, 500) == 4
        assert audit_trail.claim_export(tx, "udp://b:1", "node2", 1501, 500) == 0
