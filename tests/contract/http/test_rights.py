"""Every route x method x kind of caller: who gets in is what the route declares, and nothing else is served."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import requests
from fastapi.routing import APIRoute

from interface.http.app import create_app, guarded_routes
from interface.http.rights import Right, rights_of_key, rights_of_role
from internal.users import Role
from tests.contract.http.doors import Doors, Visitor

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
Caller = tuple[Callable[[Doors], Visitor], frozenset[Right], bool]

CALLERS: dict[str, Caller] = {
    "anonymous": (lambda doors: doors.visitor(), frozenset(), False),
    "bad key": (lambda doors: doors.visitor("rk_abc_def"), frozenset(), False),
    **{str(role): (lambda doors, role=role: doors.with_session(role), rights_of_role(role), True) for role in Role},
    **{f"key {word}": (lambda doors, word=word: doors.visitor(doors.key(word)), rights_of_key([word]), True)
       for word in ("view", "operate", "metrics", "orders")},
}


def _path(route: APIRoute) -> str:
    return re.sub(r"\{(\w+)(:path)?\}", "1.2.3", route.path)


def _status(visitor: Visitor, method: str, path: str) -> tuple[int, str]:
    """Return status and what a refusal says; a stream is not read."""
    form = {"csrf": visitor.csrf()} if method in ("POST", "PUT", "PATCH", "DELETE") else None
    with visitor.request(method, path, data=form, stream=True, headers={"Accept": "application/json"}) as reply:
        # A page: the handler's own answer, such as the login form after a wrong password.
        if reply.status_code not in (401, 403) or "json" not in reply.headers.get("content-type", ""):
            return 0, ""
        return reply.status_code, " ".join(map(str, reply.json()["detail"]))


@pytest.mark.attack("S32", "S35", "S56")
@pytest.mark.parametrize("caller", CALLERS)
def test_every_route_lets_in_whom_it_declares(doors: Doors, caller: str) -> None:
    come, rights, is_known = CALLERS[caller]
    routes = list(guarded_routes(create_app(doors.context)))
    checked = 0
    for route in routes:
        for method in route.methods:
            visitor = come(doors)
            status, said = _status(visitor, method, _path(route))
            where = f"{caller}: {method} {route.path} ({route.right})"
            if route.right is Right.OPEN or route.right in rights:
                assert status != 401, where
                assert "needs the right" not in said, where
            elif is_known:
                assert (status, said) == (403, f"this needs the right {route.right}"), where
            else:
                assert status == 401, where
            checked += 1
    assert checked == sum(len(route.methods) for route in routes) >= 10


def test_no_route_answers_a_method_it_does_not_declare(doors: Doors) -> None:
    declared: dict[str, set[str]] = {}
    routes = list(guarded_routes(create_app(doors.context)))
    for route in routes:
        declared.setdefault(_path(route), set()).update(route.methods)
    admin = doors.with_session("admin")
    for path, methods in declared.items():
        # /studies/search is also a /studies/{study_uid}, which says itself that this is no UID.
        others = {method for route in routes if route.path_regex.match(path) for method in route.methods}
        for method in set(METHODS) - methods - others:
            reply = admin.request(method, path, data={"csrf": admin.csrf()}, stream=True)
            assert reply.status_code in (404, 405), (method, path)
            reply.close()


def test_only_what_is_known_to_be_harmless_is_open(doors: Doors) -> None:
    routes = guarded_routes(create_app(doors.context))
    opened = {(method, route.path) for route in routes for method in route.methods if route.right is Right.OPEN}
    assert opened == {
        ("GET", "/health/live"), ("GET", "/health/ready"), ("GET", "/login"), ("POST", "/login"),
        ("GET", "/login/oidc"), ("GET", "/login/oidc/callback"), ("GET", "/static/{name:path}"),
        ("POST", "/preferences"),
    }


def test_a_route_without_a_right_is_refused(doors: Doors) -> None:
    app = create_app(doors.context)


    def forgotten() -> str:
        return ""

    app.add_api_route("/forgotten", forgotten)
    with pytest.raises(ValueError, match="/forgotten declares no right"):
        list(guarded_routes(app))


def test_a_path_that_nobody_serves_is_not_found(doors: Doors) -> None:
    assert doors.visitor().get("/nothing").json()["error"] == "not-found"
    assert requests.get(f"{doors.url}/static/../../security.py", timeout=5).status_code == 404


def test_what_was_given_rights_to_implies_only_what_it_should() -> None:
    assert rights_of_role(Role.VIEWER) == {Right.VIEW, Right.ACCOUNT}
    assert Right.ADMINISTER not in rights_of_role(Role.OPERATOR)
    assert rights_of_key(["account", "open", "nonsense"]) == frozenset()
    assert rights_of_key(["metrics"]) == {Right.METRICS}


def test_settings_are_for_admins_over_the_api_as_on_the_page(doors: Doors) -> None:
    operator = doors.with_session("operator")
    for path in ("", "/lane", "/lane/satusehat/revisions", "/lane/satusehat/revisions/1"):
        assert operator.get(f"/api/v1/settings{path}").status_code == 403, path
