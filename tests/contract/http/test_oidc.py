"""Single sign-on against a provider that speaks the real protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from joserfc.jwk import OctKey, RSAKey

from internal import users
from internal.config import load
from internal.errors import ConfigurationInvalid
from internal.users import Role
from tests.contract.http.doors import PASSWORD, Doors, Visitor
from tests.contract.http.oidc_provider import CLIENT, SECRET, Provider

#: The router is asked under this name; the test takes the browser's way back to the real port.
PUBLIC = "http://127.0.0.1:8080"


@pytest.fixture
def provider() -> Iterator[Provider]:
    running = Provider()
    yield running
    running.close()


@pytest.fixture
def hospital(open_doors: Callable[..., Doors], provider: Provider) -> Doors:
    return open_doors(
        oidc__issuer=provider.issuer, oidc__client_id=CLIENT, oidc__client_secret=SECRET, oidc__public_url=PUBLIC,
        oidc__viewer_groups="ward, clinic", oidc__operator_groups="radiology", oidc__admin_groups="it admins")


def sign_in(doors: Doors, *, visitor: Visitor | None = None, **query: str) -> requests.Response:
    """Do what a browser does, and return the answer to the callback."""
    visitor = visitor or doors.visitor()
    begun = visitor.get("/login/oidc", params={"next": "/studies"})
    assert begun.status_code == 303, begun.text
    there = requests.get(begun.headers["location"], allow_redirects=False, timeout=10)
    back = urlsplit(there.headers["location"])
    given = {key: values[0] for key, values in parse_qs(back.query).items()} | query
    return visitor.get(back.path, params=given)


def test_a_person_comes_in_with_the_role_of_their_groups(hospital: Doors, provider: Provider) -> None:
    visitor = hospital.visitor()
    reply = sign_in(hospital, visitor=visitor)
    assert reply.status_code == 200 and 'content="0;url=/studies"' in reply.text
    assert "SameSite=strict" in reply.headers["set-cookie"]
    assert visitor.get("/").status_code == 200
    with hospital.store.reading() as tx:
        user = users.get_user(tx, "budi.s")
    assert (user.role, user.subject, user.has_password) == (Role.OPERATOR, f"{provider.issuer} u-1", False)
    assert [entry.action for entry in hospital.audit()] == ["login", "user.add"]
    assert hospital.visitor().login("budi.s", "").status_code == 401

    provider.claims["groups"] = ["it admins", "ward"]
    assert sign_in(hospital).status_code == 200
    assert visitor.get("/").status_code == 401, "the old session had the old role"
    with hospital.store.reading() as tx:
        assert users.get_user(tx, "budi.s").role is Role.ADMIN
        assert len(users.list_users(tx)) == 1


@pytest.mark.attack("S50")
@pytest.mark.parametrize("spoil", [
    {"nonce": "another"}, {"nonce": None}, {"iss": "https://evil.example"}, {"aud": "other"}, {"aud": ["router", "x"]},
    {"exp": 1000}, {"exp": None}, {"iat": 99999999999}, {"sub": None}, {"groups": []}, {"groups": None},
    {"groups": "nobody"}, {"groups": {"a": 1}},
], ids=str)
def test_a_token_that_is_not_right_lets_nobody_in(
    hospital: Doors, provider: Provider, spoil: dict[str, object],
) -> None:
    provider.spoil = spoil
    visitor = hospital.visitor()
    assert sign_in(hospital, visitor=visitor).status_code == 403
    assert visitor.token == ""
    assert [entry.action for entry in hospital.audit()] == ["login.failed"]


@pytest.mark.attack("S50")
def test_a_token_signed_by_somebody_else_lets_nobody_in(hospital: Doors, provider: Provider) -> None:
    provider.signing_key = RSAKey.generate_key(2048, {"kid": "k1"}, private=True)
    assert sign_in(hospital).status_code == 403
    provider.signing_key, provider.algorithm = OctKey.import_key(SECRET * 2), "HS256"
    assert sign_in(hospital).status_code == 403


@pytest.mark.attack("S50")
def test_an_answer_that_belongs_to_another_login_lets_nobody_in(hospital: Doors) -> None:
    assert sign_in(hospital, state="chosen-by-an-attacker").status_code == 403
    assert sign_in(hospital, code="stolen").status_code == 403
    assert sign_in(hospital, code="").status_code == 403
    victim = hospital.visitor()
    assert victim.get("/login/oidc/callback", params={"code": "c", "state": "s"}).status_code == 403
    for cookie in ("x", "e30=", "bm90IGpzb24="):
        assert victim.get("/login/oidc/callback", params={"code": "c", "state": "s"},
                          headers={"Cookie": f"router-oidc={cookie}"}).status_code == 403


@pytest.mark.attack("S50")
def test_a_callback_that_nobody_began_is_no_failed_login(hospital: Doors) -> None:
    for cookie in ("", "router-oidc=x"):
        assert hospital.visitor().get("/login/oidc/callback", params={"code": "c", "state": "s"},
                                      headers={"Cookie": cookie}).status_code == 403
    assert hospital.audit() == []
    with hospital.store.reading() as tx:
        assert tx.value("SELECT COUNT(*) FROM login_failure") == 0


@pytest.mark.attack("S42")
def test_the_provider_is_asked_once_for_its_description(hospital: Doors, provider: Provider) -> None:
    for _ in range(3):
        assert hospital.visitor().get("/login/oidc").status_code == 303
    assert provider.requests == ["GET /.well-known/openid-configuration"]


@pytest.mark.attack("S35")
def test_an_account_made_here_is_not_taken_over(hospital: Doors, provider: Provider) -> None:
    hospital.add_user("admin", Role.ADMIN)
    provider.claims["preferred_username"] = "admin"
    assert sign_in(hospital).status_code == 200
    with hospital.store.reading() as tx:
        assert users.get_user(tx, "admin").subject == ""
        assert users.get_user(tx, "admin-2").role is Role.OPERATOR
    assert hospital.visitor().login("admin", PASSWORD).status_code == 303
    with hospital.store.transaction() as tx:
        users.set_disabled(tx, "admin-2", 1)
    assert sign_in(hospital).status_code == 403


@pytest.mark.attack("S40", "S61")
@pytest.mark.parametrize("description", [
    {"issuer": "https://evil.example"}, {"token_endpoint": "http://169.254.169.254/latest"},
    {"jwks_uri": "file:///etc/passwd"}, {"authorization_endpoint": "javascript:alert(1)"},
    {"authorization_endpoint": "http://evil.example/x"},
], ids=str)
def test_a_provider_that_points_elsewhere_is_not_followed(
    hospital: Doors, provider: Provider, description: dict[str, str],
) -> None:
    provider.description = description
    visitor = hospital.visitor()
    begun = visitor.get("/login/oidc")
    if begun.status_code == 303:
        assert sign_in(hospital, visitor=visitor).status_code in (403, 422)
    else:
        assert begun.status_code == 422
    assert visitor.token == ""


def test_a_provider_that_is_away_is_said_so(open_doors: Callable[..., Doors]) -> None:
    doors = open_doors(oidc__issuer="http://127.0.0.1:9", oidc__client_id="x", oidc__client_secret=SECRET,
                       oidc__public_url=PUBLIC)
    assert doors.visitor().get("/login/oidc").status_code == 503
    assert "/login/oidc" in doors.visitor().get("/login").text


def test_without_a_provider_there_is_no_such_page(doors: Doors) -> None:
    assert doors.visitor().get("/login/oidc").status_code == 404
    assert doors.visitor().get("/login/oidc/callback").status_code == 404
    assert "/login/oidc" not in doors.visitor().get("/login").text


@pytest.mark.attack("S61")
def test_half_a_configuration_is_refused() -> None:
    with pytest.raises(ConfigurationInvalid) as raised:
        load(None, {}, {"oidc.issuer": "https://id.rs.example"}, require_platform=False)
    assert [problem.setting for problem in raised.value.problems] == [
        "[oidc] client_id", "[oidc] client_secret", "[oidc] public_url"]
    with pytest.raises(ConfigurationInvalid, match="must begin with https"):
        load(None, {}, {"oidc.issuer": "http://id.rs.example"}, require_platform=False)
