"""Coming in, staying in, going out."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from interface.http.actor import Actor
from interface.http.auth import accounts, first_admin
from interface.http.auth.first_admin import ensure_first_admin
from interface.http.auth.login import safe_next
from interface.http.context import WebContext
from interface.http.rights import Right, rights_of_role
from internal import passwords, sessions, users
from internal.errors import NotAllowed, StorageFull
from internal.users import Role
from tests.contract.http.doors import CHEAP, PASSWORD, Doors, now_ms

ADMIN = Actor("user:admin", "admin", rights_of_role(Role.ADMIN), "192.0.2.1")


def test_a_person_logs_in_sees_the_first_page_and_logs_out(doors: Doors) -> None:
    visitor = doors.logged_in("Viewer")
    assert visitor.get("/").status_code == 200
    old = visitor.token
    assert visitor.post("/logout").status_code == 303
    visitor.session.cookies.set("router", old)
    assert visitor.get("/", headers={"Accept": "text/html"}).headers["location"].startswith("/login")
    assert [entry.action for entry in doors.audit()] == ["logout", "login"]


@pytest.mark.parametrize("name", ["viewer", "nobody", ""])
def test_a_wrong_password_is_answered_alike_whoever_it_is(doors: Doors, name: str) -> None:
    reply = doors.visitor().login(name, "wrong password")
    assert reply.status_code == 401
    assert doors.audit()[0].action == "login.failed"
    assert doors.audit()[0].subject == (name if name == "viewer" else "")


def test_whoever_has_a_given_password_can_only_change_it(doors: Doors) -> None:
    doors.add_user("new", Role.ADMIN, must_change=True)
    visitor = doors.visitor()
    assert visitor.login("new", PASSWORD).headers["location"] == "/password"
    assert visitor.get("/").json()["error"] == "password-change"
    assert visitor.get("/", headers={"Accept": "text/html"}).headers["location"] == "/password"
    form = {"current": PASSWORD, "new": "another horse battery", "again": "another horse battery"}
    token = visitor.token
    assert visitor.post("/password", form).status_code == 303
    assert visitor.token != token
    assert visitor.get("/").status_code == 200


@pytest.mark.parametrize(("current", "new", "again"), [
    ("not the password", "another horse battery", "another horse battery"), (PASSWORD, "short", "short"),
    (PASSWORD, "another horse battery", "another horse batteri"), (PASSWORD, PASSWORD, PASSWORD),
    (PASSWORD, "aaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaa"), (PASSWORD, "xx-viewer-xx-xx", "xx-viewer-xx-xx"),
])
def test_a_password_that_will_not_do_is_refused(doors: Doors, current: str, new: str, again: str) -> None:
    visitor = doors.with_session("viewer")
    reply = visitor.post("/password", {"current": current, "new": new, "again": again})
    assert reply.status_code == 422
    assert doors.visitor().login("viewer", PASSWORD).status_code == 303


def test_changing_the_password_ends_every_other_session(doors: Doors) -> None:
    elsewhere, here = doors.with_session("viewer"), doors.with_session("viewer")
    form = {"current": PASSWORD, "new": "another horse battery", "again": "another horse battery"}
    assert here.post("/password", form).status_code == 303
    assert here.get("/").status_code == 200
    assert elsewhere.get("/").status_code == 401


@pytest.mark.attack("S58")
def test_only_the_hash_of_a_session_is_kept(doors: Doors) -> None:
    visitor = doors.logged_in("viewer")
    with doors.store.reading() as tx:
        rows = tx.rows("SELECT * FROM web_session")
        assert tx.value("SELECT password FROM account WHERE name = 'viewer'").startswith("scrypt$")
    assert len(rows) == 1 and visitor.token not in str(rows)


@pytest.mark.attack("S50")
@pytest.mark.parametrize(("idle", "longest", "alive"), [(0, 0, True), (61_000, 0, False), (0, 601_000, False)])
def test_a_session_ends_by_itself(
    open_doors: Callable[..., Doors], idle: int, longest: int, alive: bool,
) -> None:
    doors = open_doors(http__session_idle="1m", http__session_max="10m")
    doors.add_user("viewer", Role.VIEWER)
    visitor = doors.with_session("viewer")
    with doors.store.transaction() as tx:
        tx.execute("UPDATE web_session SET seen_at = seen_at - ?, started_at = started_at - ?", (idle, longest))
    assert (visitor.get("/").status_code == 200) is alive


def test_using_a_session_keeps_it(doors: Doors) -> None:
    visitor = doors.with_session("viewer")
    with doors.store.transaction() as tx:
        tx.execute("UPDATE web_session SET seen_at = seen_at - 120000")
    visitor.get("/")
    with doors.store.reading() as tx:
        assert tx.value("SELECT seen_at FROM web_session") > now_ms() - 60_000


@pytest.mark.attack("S35", "S69")
def test_a_role_taken_away_is_gone_at_the_next_request(doors: Doors) -> None:
    doors.add_user("second", Role.ADMIN)
    visitor = doors.with_session("second")
    accounts.set_role(doors.context, ADMIN, "second", Role.VIEWER)
    assert visitor.get("/").status_code == 401
    assert doors.with_session("second").get("/").status_code == 200
    accounts.set_disabled(doors.context, ADMIN, "second", disabled=True)
    assert doors.with_session("second").get("/").status_code == 401
    assert doors.visitor().login("second", PASSWORD).status_code == 401
    entry = doors.audit("user.role")[0]
    assert entry.fields == {"before": {"role": "admin"}, "after": {"role": "viewer"}}


@pytest.mark.attack("S35", "S69")
def test_a_key_never_outlives_what_its_maker_may_do(doors: Doors) -> None:
    doors.add_user("second", Role.ADMIN)
    second = Actor("user:second", "second", ADMIN.rights, "")
    key, text = accounts.issue_key(doors.context, second, "own", [Right.ADMINISTER])
    _, text_2 = accounts.issue_key(
        doors.context, Actor(f"key:{key.key_id}", "own", ADMIN.rights, ""), "own too", [Right.VIEW, Right.ADMINISTER])
    keys = [doors.visitor(text), doors.visitor(text_2)]
    assert [one.get("/api/v1/users").status_code for one in keys] == [200, 200]
    accounts.set_role(doors.context, ADMIN, "second", Role.VIEWER)
    assert [one.get("/api/v1/users").status_code for one in keys] == [403, 403]
    assert [one.get("/api/v1/lanes").status_code for one in keys] == [200, 200]
    accounts.set_disabled(doors.context, ADMIN, "second", disabled=True)
    assert [one.get("/api/v1/lanes").status_code for one in keys] == [401, 401]


def test_the_last_admin_stays(doors: Doors) -> None:
    for change in (lambda: accounts.set_role(doors.context, ADMIN, "admin", Role.VIEWER),
                   lambda: accounts.set_disabled(doors.context, Actor("key:x", "x", ADMIN.rights, ""), "admin",
                                                 disabled=True)):
        with pytest.raises(NotAllowed, match="last admin"):
            change()


def test_an_account_made_by_an_admin_comes_in_with_the_password_shown_once(doors: Doors) -> None:
    user, password = accounts.add(doors.context, ADMIN, "Siti", Role.OPERATOR)
    assert (user.name, user.must_change) == ("siti", True)
    assert doors.visitor().login("siti", password).headers["location"] == "/password"
    again = accounts.reset_password(doors.context, ADMIN, "siti")
    assert doors.visitor().login("siti", password).status_code == 401
    assert doors.visitor().login("siti", again).status_code == 303
    assert password not in str(doors.audit()) and again not in str(doors.audit())


@pytest.mark.attack("S33", "S58")
def test_the_first_admin_is_made_once_and_the_file_goes_at_the_first_login(
    open_doors: Callable[..., Doors], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
) -> None:
    doors = open_doors()
    caplog.set_level("DEBUG")
    barrier = threading.Barrier(4)

    def start(_: int) -> bool:
        barrier.wait()
        return ensure_first_admin(doors.context)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(start, range(4))) == [False, False, False, True]
    path = doors.settings.data_dir / "first-login.txt"
    name, password = path.read_text().split()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert password not in caplog.text + "".join(capfd.readouterr())
    assert str(path) in caplog.text
    assert doors.visitor().login(name, password).headers["location"] == "/password"
    assert not path.exists()
    assert ensure_first_admin(doors.context) is False
    assert not path.exists()


@pytest.mark.parametrize("fault", [None, StorageFull()], ids=["no file", "full"])
def test_the_first_admin_is_made_when_the_disk_takes_it_again(
    open_doors: Callable[..., Doors], monkeypatch: pytest.MonkeyPatch, fault: Exception | None,
) -> None:
    doors, ended, tried = open_doors(), threading.Event(), threading.Event()
    way_blocked = doors.settings.data_dir / "first-login.txt"
    way_blocked.mkdir()

    def ensure(context: WebContext) -> bool:
        try:
            return ensure_first_admin(context)
        except OSError:
            tried.set()
            if fault:
                raise fault from None
            raise

    monkeypatch.setattr(first_admin, "ensure_first_admin", ensure)
    thread = threading.Thread(target=first_admin.await_first_admin, args=(doors.context, ended))
    thread.start()
    try:
        assert tried.wait(20)
        way_blocked.rmdir()
        thread.join(20)
    finally:
        ended.set()
        thread.join()
    with doors.store.reading() as tx:
        assert users.has_users(tx)


@pytest.mark.attack("S52")
@pytest.mark.parametrize("target", [
    "//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil", "javascript:alert(1)", "/a\nb", "x" * 600,
    "", "evil", "/%0d%0aSet-Cookie:x",
])
def test_login_leads_nowhere_else(target: str) -> None:
    assert safe_next(target) in ("/", "/%0d%0aSet-Cookie:x")


def test_login_goes_on_to_where_one_wanted_to_go(doors: Doors) -> None:
    assert doors.visitor().login("viewer", PASSWORD, next="/studies?page=2").headers["location"] == "/studies?page=2"


@pytest.mark.attack("S50", "S58")
def test_keys_are_kept_as_hashes_expire_and_are_revoked(doors: Doors) -> None:
    key, text = accounts.issue_key(doors.context, ADMIN, "SIMRS", [Right.VIEW], expires_at=now_ms() + 3_600_000)
    visitor = doors.visitor(text)
    assert visitor.get("/").status_code == 200
    with doors.store.reading() as tx:
        assert text.split("_", 2)[2] not in str(tx.rows("SELECT * FROM api_key"))
        found = sessions.list_keys(tx)[0]
    assert found.used_at is not None and found.created_by == "user:admin"
    with doors.store.transaction() as tx:
        tx.execute("UPDATE api_key SET expires_at = ?", (now_ms() - 1,))
    assert visitor.get("/").status_code == 401
    other, text = accounts.issue_key(doors.context, ADMIN, "SIMRS 2", [Right.VIEW])
    assert doors.visitor(text).get("/").status_code == 200
    accounts.revoke_key(doors.context, ADMIN, other.key_id)
    assert doors.visitor(text).get("/").status_code == 401
    assert doors.visitor(f"rk_{key.key_id}_{'x' * 43}").get("/").status_code == 401
    assert [entry.subject for entry in doors.audit("key")] == [other.key_id, other.key_id, key.key_id]


@pytest.mark.attack("S35")
def test_nobody_makes_a_key_that_may_more_than_they_do(doors: Doors) -> None:
    operator = Actor("user:operator", "operator", rights_of_role(Role.OPERATOR), "")
    for rights in ([Right.ADMINISTER], [Right.ACCOUNT], []):
        with pytest.raises(NotAllowed):
            accounts.issue_key(doors.context, operator, "x", rights)


def test_hashes_carry_their_parameters_and_old_ones_stay_good() -> None:
    hashed = passwords.hash_password(PASSWORD, CHEAP)
    assert hashed.startswith("scrypt$16$1$1$")
    assert passwords.password_matches(PASSWORD, hashed)
    assert not passwords.password_matches(PASSWORD + "x", hashed)
    assert not passwords.password_matches("", "")
    assert len({passwords.random_password() for _ in range(50)}) == 50


def test_user_names_are_one_whatever_their_case(doors: Doors) -> None:
    with doors.store.transaction() as tx, pytest.raises(NotAllowed):
        users.add_user(tx, " VIEWER ", Role.ADMIN, "", author="test", now=0)
    for name in ("", "-x", "a b", "x" * 65, "é", "a/b"):
        with pytest.raises(NotAllowed):
            users.parse_name(name)
