"""Accounts, sessions, keys and failed logins on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from internal import sessions, users
from internal.errors import NotAllowed, NotFound
from internal.store import Store
from internal.users import Role
from tests.contract.conftest import OpenStore

LIMITS = {"idle_ms": 1000, "longest_ms": 5000}


def test_a_session_lives_within_its_limits(store: Store) -> None:
    with store.transaction() as tx:
        users.add_user(tx, "budi", Role.OPERATOR, "", author="test", now=0)
        token, session_id = sessions.start_session(tx, "budi", "192.0.2.1", 1000)
        found = sessions.find_session(tx, token, now=2000, **LIMITS)
        assert found is not None and (found.session_id, found.user.name, found.address) == (
            session_id, "budi", "192.0.2.1")
        assert sessions.find_session(tx, token, now=2001, **LIMITS) is None
        sessions.touch_session(tx, session_id, 2500)
        sessions.touch_session(tx, session_id, 2400)
        assert sessions.find_session(tx, token, now=3500, **LIMITS) is not None
        sessions.touch_session(tx, session_id, 6000)
        assert sessions.find_session(tx, token, now=6001, **LIMITS) is None, "the absolute limit"
        assert sessions.forget_old_sessions(tx, now=6001, **LIMITS) == 1


def test_at_most_twenty_sessions_each(store: Store) -> None:
    with store.transaction() as tx:
        users.add_user(tx, "budi", Role.OPERATOR, "", author="test", now=0)
        tokens = [sessions.start_session(tx, "budi", "", now)[0] for now in range(25)]
        alive = [sessions.find_session(tx, token, now=25, **LIMITS) is not None for token in tokens]
    assert alive == [False] * 5 + [True] * 20


def test_disabled_accounts_come_back_with_nothing_but_their_name(store: Store) -> None:
    with store.transaction() as tx:
        users.add_user(tx, "a", Role.ADMIN, "h", author="test", now=0)
        users.add_user(tx, "b", Role.ADMIN, "h", author="test", now=0)
        users.set_disabled(tx, "b", 5)
        assert users.password_hash_of(tx, "b") == "" and users.password_hash_of(tx, "A ") == "h"
        with pytest.raises(NotAllowed, match="last admin"):
            users.set_disabled(tx, "a", 5)
        with pytest.raises(NotFound):
            users.set_role(tx, "c", Role.VIEWER)
        users.set_disabled(tx, "b", None)
        users.set_role(tx, "a", Role.VIEWER)
        assert [(user.name, user.role) for user in users.list_users(tx)] == [("a", Role.VIEWER), ("b", Role.ADMIN)]


def test_two_admins_do_not_take_each_other_away(open_store: OpenStore) -> None:
    stores = [open_store(), open_store()]
    with stores[0].transaction() as tx:
        for name in ("a", "b"):
            users.add_user(tx, name, Role.ADMIN, "", author="test", now=0)

    def demote(number: int) -> bool:
        try:
            with stores[number].transaction() as tx:
                users.set_role(tx, "ab"[number], Role.VIEWER)
        except NotAllowed:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(demote, range(2))) == [False, True]


def test_keys_are_found_by_their_secret_alone(store: Store) -> None:
    with store.transaction() as tx:
        text, key = sessions.issue_key(tx, " SIMRS  utama ", ["view", "orders"], author="user:a", now=10,
                                       expires_at=100)
        assert (key.name, key.rights) == ("SIMRS utama", ("orders", "view"))
        assert sessions.check_key(tx, text, 99) == key
        assert sessions.check_key(tx, text, 100) is None
        for wrong in (text[:-1], text + "x", text.upper(), "", "rk", "rk__", f"rk_{key.key_id}_", "x" * 5000):
            assert sessions.check_key(tx, wrong, 50) is None
        sessions.touch_key(tx, key.key_id, 50)
        assert sessions.list_keys(tx)[0].used_at == 50
        assert sessions.revoke_key(tx, key.key_id, 60).revoked_at == 60
        assert sessions.revoke_key(tx, key.key_id, 70).revoked_at == 60
        assert sessions.check_key(tx, text, 61) is None
        with pytest.raises(NotFound):
            sessions.revoke_key(tx, "nothing", 1)
        with pytest.raises(NotAllowed):
            sessions.issue_key(tx, "  ", ["view"], author="x", now=1)


def test_pauses_double_and_end(store: Store) -> None:
    pauses = []
    with store.transaction() as tx:
        for _ in range(9):
            sessions.note_login_failure(tx, "Budi", "192.0.2.1", 1000)
            pauses.append(sessions.login_pause_ms(tx, "budi ", "192.0.2.1", 1000))
        assert pauses == [0, 0, 0, 0, 2000, 4000, 8000, 16000, 32000]
        assert sessions.login_pause_ms(tx, "budi", "192.0.2.1", 33_000) == 0
        sessions.forget_login_failures(tx, "budi", "192.0.2.1")
        assert sessions.login_pause_ms(tx, "budi", "192.0.2.1", 1000) == 0
        assert "budi" not in str(tx.rows("SELECT * FROM login_failure")).lower(), "a name may be a password"


def test_now_and_then_a_typo_does_not_lock_an_address_but_a_flood_does(store: Store) -> None:
    with store.transaction() as tx:
        for number in range(100):
            sessions.note_login_failure(tx, f"person{number}", "192.0.2.1", number * 3_600_000)
            assert sessions.login_pause_ms(tx, "anybody", "192.0.2.1", number * 3_600_000) == 0
        for number in range(31):
            sessions.note_login_failure(tx, f"guess{number}", "192.0.2.2", 1000)
        assert sessions.login_pause_ms(tx, "anybody", "192.0.2.2", 1000) == 900_000


def test_a_reading_that_takes_too_long_ends(database_url: str) -> None:
    from internal.errors import Transient

    limited = Store.open(database_url, read_limit_s=0.2)
    endless = ("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000000)"
               " SELECT COUNT(*) FROM n")
    try:
        with pytest.raises(Transient), limited.reading() as tx:
            tx.value(endless)
        with limited.reading() as tx:
            assert tx.value("SELECT 1") == 1
    finally:
        limited.close()
