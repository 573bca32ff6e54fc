"""Settings as rows: revisions, who and when, what changed, the way back, on both engines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internal import catalogue, corrections, devices, index, jobs, lane_settings, lanes, settings_rows
from internal.catalogue import Difference
from internal.devices import Verdict
from internal.errors import NotAllowed, NotFound
from internal.settings_rows import Ground
from internal.states import State
from internal.store import Store
from tests.contract.conftest import OpenStore
from tests.contract.store.samples import LANE, STUDY, add, instance, settle_study
from tests.contract.store.test_races import together

GROUND = Ground(lanes=("satusehat", "pacs"), throttled=("satusehat",))


def change(store: Store, kind: str, name: str, body: dict[str, Any] | None, *, ground: Ground = GROUND,
           now: int = 1) -> int:
    with store.transaction() as tx:
        return settings_rows.change(tx, kind, name, body, ground, who="user:budi", now=now).revision


def rollback(store: Store, kind: str, name: str, number: int, *, ground: Ground = GROUND) -> int:
    with store.transaction() as tx:
        return settings_rows.rollback(tx, kind, name, number, ground, who="user:rina", now=9).revision


def test_every_change_is_a_revision_and_none_is_lost(store: Store) -> None:
    for number, to in enumerate(("RAD1", "RAD2", "RAD2"), start=1):
        change(store, "alias", "X1", {"to": to}, now=number)
    assert change(store, "alias", "X1", None, now=7) == 3
    with store.reading() as tx:
        found = catalogue.history(tx, "alias", "X1")
        assert [(one.revision, one.body, one.at, one.author) for one in found] == [
            (3, None, 7, "user:budi"), (2, {"to": "RAD2"}, 2, "user:budi"), (1, {"to": "RAD1"}, 1, "user:budi")]
        assert catalogue.current(tx, "alias") == {}
        assert [one.revision for one in catalogue.history(tx, "alias", "X1", limit=1, before=3)] == [2]


def test_a_rollback_is_a_new_revision_that_says_which_it_brought_back(store: Store) -> None:
    for to in ("RAD1", "RAD2"):
        change(store, "alias", "X1", {"to": to})
    assert rollback(store, "alias", "X1", 1) == 3
    assert rollback(store, "alias", "X1", 1) == 3, "the same again changes nothing"
    with store.reading() as tx:
        newest = catalogue.newest(tx, "alias", "X1")
        assert corrections.aliases(tx) == {"X1": "RAD1"}
        assert settings_rows.compared(tx, "alias", "X1", 3) == [Difference("to", "RAD2", "RAD1")]
        assert settings_rows.compared(tx, "alias", "X1", 3, to=1) == []
        assert settings_rows.compared(tx, "alias", "X1", 1) == [Difference("to", None, "RAD1")]
    assert newest is not None and (newest.restores, newest.author) == (1, "user:rina")
    with pytest.raises(NotFound):
        rollback(store, "alias", "X1", 99)


def test_taking_a_device_back_to_admitted_lets_its_studies_go(store: Store) -> None:
    add(store, instance(1))
    with store.transaction() as tx:
        tx.execute("UPDATE instance SET source = 'dimse'")
    settle_study(store)
    change(store, "device", "CT1@", {"aet": "CT1", "address": "", "verdict": "accept"})
    change(store, "device", "CT1@", {"aet": "CT1", "address": "", "verdict": "hold"})
    with store.transaction() as tx:
        tx.execute("UPDATE job SET state = 'held', reason_code = 'caller-not-admitted'")
        assert devices.unadmitted(tx, STUDY, Verdict.ACCEPT)
    rollback(store, "device", "CT1@", 1)
    with store.reading() as tx:
        assert not devices.unadmitted(tx, STUDY, Verdict.ACCEPT)
        assert [row.state for row in jobs.jobs_of(tx, STUDY)] == [State.QUEUED]


def test_a_lane_follows_its_row(store: Store) -> None:
    with store.transaction() as tx:
        lane_settings.change(tx, LANE, who="cli", now=5, paused=True, reason="repairs")
        assert lanes.lane(tx, LANE).paused_until > 10**12 and lanes.lane(tx, LANE).reason == "repairs"
        lane_settings.change(tx, LANE, who="cli", now=6, bandwidth=1024**2)
        assert lane_settings.in_force(tx, LANE).paused, "what was not named stays"
        lane_settings.resume(tx, LANE, who="cli", now=7)
        assert lanes.lane(tx, LANE).paused_until == 0
        assert lane_settings.in_force(tx, LANE) == lane_settings.LaneSettings(bandwidth=1024**2)
    rollback(store, "lane", LANE, 1)
    with store.reading() as tx:
        assert lanes.lane(tx, LANE).paused_until > 10**12


def test_resuming_also_ends_the_breakers_pause(store: Store) -> None:
    with store.transaction() as tx:
        lanes.pause_lane(tx, LANE, 10**13, "dns", "no such host", 5)
        lanes.alert_lane(tx, LANE, "odd", "odd replies", 5)
        lane_settings.resume(tx, LANE, who="cli", now=6)
        assert (lanes.lane(tx, LANE).paused_until, lanes.lane(tx, LANE).alert_code) == (0, "")
        assert catalogue.newest(tx, "lane", LANE) is None, "nobody had set anything"


@pytest.mark.parametrize(("kind", "name", "body"), [
    ("lane", "nowhere", {"paused": True}), ("lane", LANE, {"speed": 1}), ("lane", LANE, {"bandwidth": -1}),
    ("lane", LANE, {"bandwidth": True}), ("lane", LANE, {"bandwidth": 10}), ("lane", LANE, {"send_hours": "25:00-1"}),
    ("lane", LANE, {"paused": "yes"}), ("lane", "pacs", {"bandwidth": 10**6}), ("lane", LANE, {"send_hours": 7}),
    ("device", "CT1", {"verdict": "accept"}), ("device", "CT1@nowhere", {"verdict": "accept"}),
    ("device", "CT1@", {"verdict": "maybe"}), ("device", "CT1@", {}), ("device", "@", {"verdict": "accept"}),
    ("alias", "X1", {"to": "A" * 65}), ("alias", "X1", {}), ("alias", "X\\1", {"to": "A"}),
])
def test_what_is_not_valid_is_refused(store: Store, kind: str, name: str, body: dict[str, Any]) -> None:
    with pytest.raises((NotAllowed, NotFound)):
        change(store, kind, name, body)
    with store.reading() as tx:
        assert tx.value("SELECT COUNT(*) FROM catalogue") == 0


def test_what_stands_in_the_file_is_not_changed_here_and_is_an_error_in_both(store: Store) -> None:
    in_file = Ground(lanes=(LANE,), throttled=(LANE,), in_file={"alias": ["X1"], "lane": [f"{LANE}.bandwidth"]})
    with pytest.raises(NotAllowed, match="alias_file"):
        change(store, "alias", "X1", {"to": "A"}, ground=in_file)
    with pytest.raises(NotAllowed, match="configuration file"):
        change(store, "lane", LANE, {"bandwidth": 10**6}, ground=in_file)
    change(store, "lane", LANE, {"paused": True}, ground=in_file)
    with store.reading() as tx:
        assert settings_rows.conflicts(tx, in_file) == []
    change(store, "alias", "X1", {"to": "A"})
    change(store, "lane", LANE, {"bandwidth": 10**6})
    with store.reading() as tx:
        assert [one.partition(" is ")[0] for one in settings_rows.conflicts(tx, in_file)] == [
            "alias X1", f"lane {LANE}: bandwidth"]
        assert catalogue.shadowed(tx, "alias", ["X1", "X2"]) == ["X1"]


@pytest.mark.parametrize("key", ["password", "smtp_password", "client_secret", "token", "api_key", "privateKey"])
def test_rows_name_secrets_and_never_hold_them(store: Store, key: str) -> None:
    with store.transaction() as tx:
        with pytest.raises(NotAllowed):
            catalogue.record(tx, "rule", "r", {"to": [{key: "hunter2"}]}, author="a", now=1)
        assert catalogue.record(tx, "rule", "r", {"to": [{f"{key}_name": "pacs"}]}, author="a", now=1) == 1
        with pytest.raises(NotAllowed):
            catalogue.record(tx, "rule", "r", {"text": "x" * 300_000}, author="a", now=1)


def test_two_who_write_at_once_get_two_revisions(store: Store, open_store: OpenStore) -> None:
    other = open_store()
    for turn in range(20):
        def write(at: Store, who: str, turn: int = turn) -> int:
            with at.transaction() as tx:
                return catalogue.record(tx, "rule", f"r{turn}", {"by": who}, author=who, now=1)

        assert sorted(together(lambda: write(store, "a"), lambda: write(other, "b"))) == [1, 2]


VALUES = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
                      lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=3), part, max_size=3),
                      max_leaves=8)
BODIES = st.dictionaries(st.text(max_size=4), VALUES, max_size=4)


@given(BODIES, BODIES)
def test_differences_lead_from_one_to_the_other(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert catalogue.differences(one, one) == []
    there, back = catalogue.differences(one, other), catalogue.differences(other, one)
    assert [(two.path, two.after, two.before) for two in there] == [(two.path, two.before, two.after) for two in back]
    assert all(json.dumps(two.before) != json.dumps(two.after) for two in there)


def test_index_is_untouched_by_settings(store: Store) -> None:
    add(store, instance(1))
    change(store, "lane", LANE, {"paused": True})
    with store.reading() as tx:
        assert index.find_studies(tx, STUDY) == [STUDY]
