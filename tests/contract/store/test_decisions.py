"""What people decide, and orders known before their images, on both engines."""

from __future__ import annotations

import pytest

from internal import decisions
from internal.decisions import Kind, KnownOrder
from internal.identity import Person
from internal.store import Store
from tests.contract.store.samples import STUDY, add, instance


def _decide(store: Store, reason: str = "checked by phone", *, sides: str = "a", now: int = 10) -> decisions.Decision:
    with store.transaction() as tx:
        return decisions.decide(tx, Kind.PATIENT, STUDY, part="ACC1", body={"sides": sides}, reason=reason, who="rina",
                                now=now, text="confirmed")


def test_a_later_decision_replaces_and_both_are_kept(store: Store) -> None:
    _decide(store)
    second = _decide(store, sides="b", now=20)
    with store.reading() as tx:
        assert decisions.find_decision(tx, Kind.PATIENT, STUDY, "ACC1") == second
        kept = decisions.decisions_of(tx, STUDY)
        assert [(one.body["sides"], one.revoked_at) for one in kept] == [("a", 20), ("b", None)]
        assert decisions.find_decision(tx, Kind.PATIENT, STUDY, "OTHER") is None


def test_revoked_is_not_found_any_more(store: Store) -> None:
    _decide(store)
    with store.transaction() as tx:
        assert decisions.revoke(tx, Kind.PATIENT, STUDY, part="ACC1", now=30)
        assert not decisions.revoke(tx, Kind.PATIENT, STUDY, part="ACC1", now=31)
        assert decisions.find_decision(tx, Kind.PATIENT, STUDY, "ACC1") is None


def test_no_decision_without_a_reason(store: Store) -> None:
    with pytest.raises(ValueError, match="reason"):
        _decide(store, " \n ")


def test_patients_of_the_whole_study(store: Store) -> None:
    add(store, instance(1, patient_name="SITI"), instance(2, part="ACC2", patient_name="AGUS"),
        instance(3, patient_name="SITI"))
    with store.reading() as tx:
        assert [one.name for one in decisions.patients_of(tx, STUDY)] == ["AGUS", "SITI"]


def test_orders_are_found_by_accession_and_by_day(store: Store) -> None:
    siti = KnownOrder("api", "1", "A1", Person("SITI", "1980-01-01", "female", "12"), "CT", "20260101")
    with store.transaction() as tx:
        decisions.add_order(tx, siti, 5)
        decisions.add_order(tx, KnownOrder("api", "2", "A2", Person("AGUS"), "MR", "20260105"), 5)
    with store.reading() as tx:
        assert decisions.orders_under(tx, "A1") == [siti]
        assert decisions.orders_under(tx, "") == []
        found = decisions.orders_between(tx, "20260101", "20260104")
        assert [one.order_id for one in found] == ["1"]
