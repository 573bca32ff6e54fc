"""Coming in without being let in: guesses, other sites, stolen cookies, foreign hosts, markup."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interface.cli_tls import make_certificate
from interface.http.security import POLICY, is_own_host
from internal import audit_trail, sessions, users
from internal.config import load
from internal.errors import ConfigurationInvalid, NotAllowed
from internal.passwords import check_strength
from internal.users import Role
from tests.contract.http.doors import PASSWORD, Doors, now_ms
from tests.examples import examples

ROOT = Path(__file__).resolve().parents[2]
ASSET = next(path.name for path in (ROOT / "interface/http/pages/static").iterdir() if path.suffix == ".css")
EVIL = "https://evil.example"


@pytest.mark.attack("S33")
def test_there_is_no_password_to_begin_with(open_doors: Callable[..., Doors]) -> None:
    doors = open_doors()
    for name, password in (("admin", "admin"), ("admin", ""), ("orthanc", "orthanc")):
        assert doors.visitor().login(name, password).status_code in (401, 429)


@pytest.mark.attack("S33")
@pytest.mark.parametrize("password", ["", "short", "a" * 20, "adminadmin12", "password" * 2, "x" * 300])
def test_weak_passwords_are_refused(password: str) -> None:
    with pytest.raises(NotAllowed):
        check_strength(password, "admin")


@pytest.mark.attack("S33")
@pytest.mark.parametrize("bind", ["all", "0.0.0.0", "192.0.2.7", "::"])
def test_the_start_is_refused_where_others_could_listen(bind: str) -> None:
    given = {"router.http_bind": bind, "router.send_to": "none"}
    with pytest.raises(ConfigurationInvalid, match=r"http_bind lets other machines .* needs TLS"):
        load(None, {}, given)
    assert load(None, {}, given | {"http.allow_plain_http": "yes"}).http.allow_plain_http
    assert load(None, {}, given | {"http.certificate": "c.pem", "http.key": "k.pem"}).http.key.name == "k.pem"
    with pytest.raises(ConfigurationInvalid, match="certificate and key belong together"):
        load(None, {}, given | {"http.certificate": "c.pem"})


@pytest.mark.attack("S33")
def test_the_role_says_why_it_does_not_start(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), "run", "--role", "web", "--set", f"router.data_dir={tmp_path}",
         "--set", "router.send_to=none", "--set", "router.http_bind=all"],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "http_bind lets other machines reach pages and API, which needs TLS" in done.stderr


@pytest.mark.attack("S35")
def test_fields_that_nobody_asked_for_change_nothing(doors: Doors) -> None:
    visitor = doors.with_session("viewer")
    form = {"current": PASSWORD, "new": "another horse battery", "again": "another horse battery", "role": "admin",
            "name": "admin", "must_change": "0", "subject": "x"}
    assert visitor.post("/password?role=admin", form).status_code == 303
    with doors.store.reading() as tx:
        assert users.get_user(tx, "viewer").role is Role.VIEWER
    assert doors.visitor().login("admin", PASSWORD).status_code == 303


@pytest.mark.attack("S36")
def test_a_thousand_guesses_are_mostly_not_even_tried(doors: Doors) -> None:
    visitor = doors.visitor()
    statuses = [visitor.login("viewer", f"guess {number}").status_code for number in range(1000)]
    assert set(statuses) == {401, 429}
    assert statuses.count(401) <= 10
    assert statuses[-1] == 429
    reply = visitor.login("viewer", PASSWORD)
    assert reply.status_code == 429, "the right password too: nothing is told"
    assert int(reply.headers["retry-after"]) >= 1


@pytest.mark.attack("S36")
def test_the_owner_is_not_locked_out_from_elsewhere_and_a_guesser_cannot_go_on_with_other_names(doors: Doors) -> None:
    now = now_ms()
    with doors.store.transaction() as tx:
        for _ in range(40):
            sessions.note_login_failure(tx, "viewer", "192.0.2.66", now)
    with doors.store.reading() as tx:
        assert sessions.login_pause_ms(tx, "viewer", "192.0.2.66", now) == 900_000
        assert sessions.login_pause_ms(tx, "admin", "192.0.2.66", now) == 900_000
        assert sessions.login_pause_ms(tx, "viewer", "192.0.2.1", now) == 0
    with doors.store.transaction() as tx:
        for number in range(200):
            sessions.note_login_failure(tx, "viewer", f"198.51.100.{number}", now)
    with doors.store.reading() as tx:
        assert 0 < sessions.login_pause_ms(tx, "viewer", "192.0.2.1", now) <= 30_000
        assert sessions.login_pause_ms(tx, "viewer", "192.0.2.1", now + 30_000) == 0
    with doors.store.transaction() as tx:
        sessions.note_login_failure(tx, "x", "192.0.2.9", now + 86_500_000)
        assert tx.value("SELECT COUNT(*) FROM login_failure") == 3, "old ones are forgotten"


_SQL = ["' OR '1'='1", "'; DROP TABLE account; --", "\" OR 1=1 --", "viewer'/*", "%", "_", "\0", "viewer\0", "\ud800",
        "1; SELECT pg_sleep(10)", "NULL", "{{7*7}}", "$(id)", "../../etc/passwd"]


@pytest.mark.attack("S43")
def test_sql_in_names_passwords_and_keys(doors: Doors) -> None:
    with doors.store.reading() as tx:
        before = tx.rows("SELECT * FROM account ORDER BY name")
    for text in _SQL:
        visitor = doors.visitor()
        safe = text.encode("utf-8", "replace").decode()
        if text in _SQL[::4]:  # each takes the time of a password
            assert visitor.login(safe, safe).status_code in (401, 429)
        for key in (f"rk_{safe}_x", f"rk__{safe}"):
            header = key.encode("latin-1", "replace").replace(b"\0", b"")
            reply = requests.get(f"{doors.url}/", headers={b"Authorization": b"Bearer " + header}, timeout=10)
            assert reply.status_code == 401
    with doors.store.reading() as tx:
        assert tx.rows("SELECT * FROM account ORDER BY name") == before


@pytest.mark.attack("S43")
@settings(max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=40) | st.sampled_from(_SQL))
def test_whatever_is_searched_for_is_a_value(doors: Doors, text: str) -> None:
    with doors.store.reading() as tx:
        assert audit_trail.entries(tx, author=text or "x", study_uid=text, action=text or "x") == []
        assert users.find_user(tx, text) is None
        assert sessions.check_key(tx, f"rk_{text}_{text}", 0) is None
        assert sessions.find_session(tx, text, idle_ms=1, longest_ms=1, now=0) is None


_MARKUP = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.mark.attack("S48")
def test_markup_is_shown_as_text(doors: Doors) -> None:
    visitor = doors.visitor()
    pages = [visitor.get("/login", params={"next": f"/{_MARKUP}"}), visitor.login(_MARKUP, _MARKUP, next=_MARKUP),
             visitor.get(f"/{_MARKUP}", headers={"Accept": "text/html"}),
             visitor.get("/login", headers={"Accept-Language": _MARKUP, "Cookie": f"language={_MARKUP[:20]}"})]
    for reply in pages:
        assert "<script>alert" not in reply.text and "<img" not in reply.text
        assert reply.headers["content-security-policy"] == POLICY


@pytest.mark.attack("S48")
def test_no_page_brings_script_or_style_of_its_own() -> None:
    assert "unsafe" not in POLICY and "script-src 'self';" in POLICY
    for path in (ROOT / "interface/http/pages/templates").rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", text), path.name
        assert "|safe" not in text.replace(" ", ""), f"{path.name} switches escaping off"


@pytest.mark.attack("S49")
@pytest.mark.parametrize(("headers", "data"), [
    ({"Origin": EVIL}, None), ({"Origin": "null"}, None), ({"Sec-Fetch-Site": "cross-site"}, None),
    ({"Sec-Fetch-Site": "same-site"}, None), ({"Origin": "http://127.0.0.1:1"}, None), ({}, {"csrf": ""}),
    ({}, {"csrf": "0" * 64}), ({"Content-Type": "text/plain"}, '{"csrf": "x"}'),
    ({"Content-Type": "application/json"}, "{}"), ({"X-CSRF-Token": "0" * 64}, {"a": "b"}),
], ids=str)
def test_what_another_site_sends_is_refused(doors: Doors, headers: dict[str, str], data: object) -> None:
    visitor = doors.with_session("admin")
    given = {"csrf": visitor.csrf()} if data is None else data
    reply = visitor.request("POST", "/logout", data=given, headers=headers)
    assert (reply.status_code, reply.json()["error"]) == (403, "csrf")
    assert visitor.get("/").status_code == 200, "still logged in"


@pytest.mark.attack("S49")
def test_the_token_of_one_session_is_no_good_in_another(doors: Doors) -> None:
    mine, theirs = doors.with_session("admin"), doors.with_session("admin")
    assert mine.request("POST", "/logout", data={"csrf": theirs.csrf()}).status_code == 403
    headers = {"X-CSRF-Token": mine.csrf(), "Origin": doors.url}
    assert mine.request("POST", "/logout", headers=headers).status_code == 303
    assert doors.visitor().request("POST", "/login", data={}, headers={"Origin": EVIL}).status_code == 403


@pytest.mark.attack("S50")
def test_a_session_chosen_by_somebody_else_is_not_taken_up(doors: Doors) -> None:
    visitor = doors.visitor()
    visitor.session.cookies.set("router", "chosen-by-an-attacker")
    assert visitor.get("/").status_code == 401
    visitor.session.cookies.clear()
    first = doors.with_session("viewer")
    old = first.token
    assert first.login("viewer", PASSWORD).status_code == 303
    assert first.token != old
    stolen = doors.visitor()
    stolen.session.cookies.set("router", old)
    assert stolen.get("/").status_code == 401


@pytest.mark.attack("S50")
def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(doors: Doors) -> None:
    cookie = doors.visitor().login("viewer", PASSWORD).headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "path=/" in cookie and "domain" not in cookie


@pytest.mark.attack("S50", "S61")
def test_under_tls_the_cookie_never_travels_in_the_clear(open_doors: Callable[..., Doors], tmp_path: Path) -> None:
    key, certificate = make_certificate(("localhost", "127.0.0.1"), datetime.now(UTC))
    (tmp_path / "k.pem").write_bytes(key)
    (tmp_path / "c.pem").write_bytes(certificate)
    doors = open_doors(http__certificate=str(tmp_path / "c.pem"), http__key=str(tmp_path / "k.pem"))
    doors.add_user("viewer", Role.VIEWER)
    visitor = doors.visitor()
    visitor.session.verify = str(tmp_path / "c.pem")
    reply = visitor.login("viewer", PASSWORD)
    assert reply.headers["set-cookie"].startswith("__Host-router=") and "Secure" in reply.headers["set-cookie"]
    assert "max-age" in reply.headers["strict-transport-security"]
    assert visitor.get("/").status_code == 200
    with socket.create_connection(("127.0.0.1", doors.port), 10) as plain, pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")


@pytest.mark.attack("S61")
def test_a_certificate_that_cannot_be_used_is_said_at_the_start(
    open_doors: Callable[..., Doors], tmp_path: Path,
) -> None:
    (tmp_path / "c.pem").write_text("nothing")
    with pytest.raises(ConfigurationInvalid, match="cannot be used"):
        open_doors(http__certificate=str(tmp_path / "c.pem"), http__key=str(tmp_path / "c.pem"))


@pytest.mark.attack("S52")
def test_no_other_site_may_read_answers(doors: Doors) -> None:
    for method in ("GET", "OPTIONS"):
        reply = doors.with_session("admin").request(
            method, "/", headers={"Origin": EVIL, "Access-Control-Request-Method": "POST"})
        assert not [name for name in reply.headers if name.lower().startswith("access-control")]


@pytest.mark.attack("S52")
@pytest.mark.parametrize(("host", "own"), [
    ("localhost:8080", True), ("127.0.0.1", True), ("[::1]:8080", True), ("192.0.2.7:8080", True), ("server", True),
    ("router.rs.example", True), ("ROUTER.rs.example.", True), ("evil.example", False),
    ("127.0.0.1.evil.example", False),
    ("", False), ("a b", False), ("evil.example:80", False), ("user@server", False), ("x" * 300, False),
])
def test_only_our_own_host_names_are_served(host: str, own: bool) -> None:
    assert is_own_host(host, frozenset({"router.rs.example"})) is own


@pytest.mark.attack("S52")
@pytest.mark.parametrize("host", ["evil.example", "", "a\tb"])
def test_a_foreign_host_header_is_answered_421(doors: Doors, host: str) -> None:
    reply = doors.visitor().get("/login", headers={"Host": host})
    assert reply.status_code in (400, 421)
    assert "evil" not in reply.text


@pytest.mark.attack("S53")
def test_every_answer_carries_the_protective_headers(own_doors: Doors) -> None:
    visitor = own_doors.visitor()
    with own_doors.store.transaction() as tx:
        tx.execute("ALTER TABLE web_session RENAME TO gone")
    broken = own_doors.visitor()
    broken.session.cookies.set("router", "x")
    replies = [visitor.get("/"), visitor.get("/login"), visitor.get("/nothing"), visitor.get(f"/static/{ASSET}"),
               visitor.get("/health/live"), visitor.request("POST", "/login", headers={"Content-Encoding": "gzip"}),
               visitor.request("PUT", "/login"), visitor.get("/login", headers={"Host": "evil.example"}),
               broken.get("/")]
    assert [reply.status_code for reply in replies] == [401, 200, 404, 200, 200, 415, 405, 421, 500]
    for reply in replies:
        headers = reply.headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY" and "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "same-origin" and "camera=()" in headers["permissions-policy"]
        assert headers["cross-origin-resource-policy"] == "same-origin" and "cache-control" in headers
        assert "server" not in headers


@pytest.mark.attack("S55", "S57")
def test_a_failure_shows_a_number_only_and_is_one_line_in_the_log(
    own_doors: Doors, caplog: pytest.LogCaptureFixture,
) -> None:
    with own_doors.store.transaction() as tx:
        tx.execute("ALTER TABLE web_session RENAME TO gone")
    visitor = own_doors.visitor()
    visitor.session.cookies.set("router", "x")
    reply = visitor.get("/%0a%0dFAKE%1b[31m?patient=secret-name")
    assert reply.status_code == 404
    reply = visitor.get("/?patient=secret-name")
    assert reply.status_code == 500
    (number,) = reply.json()["detail"]
    assert re.fullmatch(r"[0-9a-f]{8}", number)
    assert not any(word in reply.text for word in ("Traceback", "sqlite", "web_session", ".py"))
    lines = [record for record in caplog.records if number in record.getMessage()]
    assert len(lines) == 1
    assert "secret-name" not in caplog.text and "FAKE" not in caplog.text
    assert "\n" not in lines[0].getMessage()


@pytest.mark.attack("S57")
@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json", "/api/docs", "/api/swagger.json", "/metrics",
                                  "/debug", "/.git/config", "/router.conf", "/api/v1/settings", "/static/../app.py"])
def test_nothing_is_documented_or_measured_for_strangers(doors: Doors, path: str) -> None:
    assert doors.visitor().get(path).status_code in (401, 404)
