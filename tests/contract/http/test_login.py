"""Coming in, staying in, going out."""

from __future__ import annotations

import pytest

from internal.users import Role
from tests.contract.http.doors import PASSWORD, Doors


def test_a_person_logs_in_sees_the_first_page_and_logs_out(doors: Doors) -> None:
    visitor = doors.logged_in("viewer")
    assert visitor.get("/").status_code == 200
    old = visitor.token
    assert visitor.post("/logout").status_code == 303
    visitor.session.cookies.set("router", old)
    assert visitor.get("/", headers={"Accept": "text/html"}).headers["location"].startswith("/login")
    assert [entry.action for entry in doors.audit()] == ["logout", "login"]


@pytest.mark.parametrize("name", ["viewer", "nobody", "", "x" * 200])
def test_a_wrong_password_is_answered_alike_whoever_it_is(doors: Doors, name: str) -> None:
    reply = doors.visitor().login(name, "wrong password")
    assert reply.status_code == 401
    assert doors.audit()[0].action == "login.failed"
    assert doors.audit()[0].subject == (name if name == "viewer" else "")


def test_whoever_has_a_given_password_can_only_change_it(doors: Doors) -> None:
    doors.add_user("new", Role.ADMIN, must_change=True)
    visitor = doors.visitor()
    assert visitor.login("new", PASSWORD).headers["location"] == "/password"
    assert visitor.get("/").status_code == 403
    form = {"current": PASSWORD, "new": "another horse battery", "again": "another horse battery"}
    token = visitor.token
    assert visitor.post("/password", form).status_code == 303
    assert visitor.token != token
    assert visitor.get("/").status_code == 200
