"""What callers ask for: ids of others, UIDs that are no UIDs, wildcards, pages and pictures without measure."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interface.http.pages.render import segment
from interface.http.tasks import Task
from interface.outbound import SessionOptions, open_session
from interface.satusehat.client import Client
from interface.satusehat.governor import Governor, Limits
from interface.satusehat.oauth2 import Credentials, TokenSource
from internal import jobs, study_list
from internal.config import load
from internal.model import Header
from internal.study_list import Search
from tests.browser.stage import end, receive, uid_of
from tests.contract.destinations.conftest import make_options
from tests.contract.http.doors import Doors
from tests.contract.store.samples import CT, EXPLICIT, add, instance
from tests.examples import examples

#: What a device may write where a UID belongs.
UIDS = ("../../users/keys/1/revoke", "..", ".", "1.2?x=/users", "1.2#x", "//evil.example", "1.2/../../aets", "\\..\\x",
        "%2e%2e/x", "1.2 HTTP/1.1\r\nX: y", "javascript:alert(1)")


@pytest.fixture
def two(doors: Doors) -> list[int]:
    """Two studies with a delivery each; return the jobs' numbers."""
    for number in (1, 2):
        receive(doors.store, number)
        end(doors.store, number, None)
    with doors.store.reading() as tx:
        return [row.job_id for number in (1, 2) for row in jobs.jobs_of(tx, uid_of(number))]


# --- ids of others -------------------------------------------------------------------------------------------------

@pytest.mark.attack("S34")
def test_a_job_or_image_of_another_study_is_not_found(doors: Doors, two: list[int]) -> None:
    operator = doors.logged_in("operator")
    other = f"/studies/{uid_of(1)}/jobs/{two[1]}"
    for path in ("", "/accession", "/same-patient", "/withdraw"):
        reply = operator.post(f"{other}{path}", {"verb": "cancel", "new": "X1", "reason": "x"})
        assert reply.status_code == 404, path
    assert operator.get(f"{other}/receipt").status_code == 404
    assert operator.get(f"/studies/{uid_of(1)}/instances/{uid_of(2)}.1.1/preview").status_code == 404
    with doors.store.reading() as tx:
        assert {jobs.job(tx, job_id).state for job_id in two} == {"queued"}
    assert not [one for one in doors.audit() if one.action.startswith("study.")]


@pytest.mark.attack("S34")
def test_what_belongs_to_one_person_is_not_found_by_another(doors: Doors) -> None:
    task = doors.context.tasks.start(Task("x", "user:operator", "/held"), lambda _: None)
    assert doors.logged_in("operator").get(f"/progress/{task.task_id}").status_code == 200
    admin = doors.logged_in("admin")
    assert admin.get(f"/progress/{task.task_id}").status_code == 404
    assert admin.get(f"/progress/{task.task_id}/live").status_code == 404
    body, again = {"name": "one", "rights": ["view"]}, {"Idempotency-Key": "same-word"}
    made = [doors.visitor(doors.key("administer")).request("POST", "/api/v1/keys", json=body, headers=again)
            for _ in range(2)]
    assert [one.status_code for one in made] == [200, 200]
    assert made[0].json()["key"] != made[1].json()["key"], "the word of one caller gave the answer of another"


# --- UIDs that are none --------------------------------------------------------------------------------------------

@pytest.mark.attack("S41")
@given(st.one_of(st.sampled_from(UIDS), st.text(max_size=70)))
def test_a_uid_is_one_piece_of_an_address(uid: str) -> None:
    written = segment(uid.encode("utf-8", "replace").decode())
    assert re.fullmatch(r"[A-Za-z0-9._~%-]*", written) and written not in (".", "..")


@pytest.mark.attack("S41")
def test_links_and_forms_of_a_strange_study_stay_with_it(doors: Doors) -> None:
    for number, uid in enumerate(UIDS, 1):
        add(doors.store, instance(number, study=uid, sop=f"2.25.{number}", patient_name="ANEH"))
    text = doors.logged_in("admin").post("/studies", {"text": "aneh"}).text
    links = re.findall(r'<th scope="row"><a href="([^"]+)"', text)
    assert len(links) == len(UIDS)
    for link in links:
        assert re.fullmatch(r"/studies/[A-Za-z0-9._~%-]+", link) and not link.endswith(("/.", "/..")), link


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """A platform that gives out tokens and writes down which path was asked for."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            asked.append(self.path)
            body = json.dumps({"access_token": "t", "expires_in": "3599"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.wfile.write(body)

        do_HEAD = do_GET = do_POST = _answer  # noqa: N815 - the library's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.attack("S41")
def test_a_strange_uid_asks_the_platform_for_nothing_else(listener: tuple[str, list[str]]) -> None:
    url, asked = listener
    session = open_session(url, SessionOptions())
    tokens = TokenSource(session, Credentials(lambda: "client", lambda: "secret"))
    options = make_options(url)
    client = Client(options, session, tokens, Governor(Limits(0)))
    for uid in UIDS:
        client.look_for(Header(CT, uid, uid, uid, EXPLICIT))
    session.close()
    paths = [path for path in asked if "accesstoken" not in path]
    assert len(paths) == len(UIDS)
    for path in paths:
        pieces = path.removeprefix(options.dicom_path).split("/")
        assert len(pieces) == 6 and pieces[2] == "series" and pieces[4] == "instances", path
        assert not {".", "..", ""} & set(pieces[1:]) and "?" not in path and "#" not in path, path


# --- without measure -----------------------------------------------------------------------------------------------

@pytest.mark.attack("S44")
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.text(alphabet="*?%_^$([{\\+.|", min_size=1, max_size=200),
                 st.sampled_from(["*" * 60, "%" * 200, "(a+)+$", "_" * 200, "[a-z]*" * 30])))
def test_wildcards_and_patterns_are_letters_like_others(doors: Doors, two: list[int], text: str) -> None:
    with doors.store.reading() as tx:
        assert study_list.find(tx, Search(text=text)).studies == ()
        assert study_list.find(tx, Search(modality=text)).studies == ()


@pytest.mark.attack("S44", "S45")
def test_a_search_is_bounded(doors: Doors, two: list[int]) -> None:
    viewer, key = doors.logged_in("viewer"), doors.visitor(doors.key("view"))
    assert viewer.post("/studies", {"text": "x" * 201}).status_code == 422
    assert viewer.post("/studies", {"after": f"{10**30}-1.2"}).status_code == 422
    assert doors.logged_in("operator").post("/held", {"verb": "retry", "job": str(10**30)}).status_code == 422
    for body in ({"text": "*" * 201}, {"after": "9" * 19 + "-1.2"}, {"limit": 10**9}, {"limit": 0}, {"limit": -1},
                 {"after": "-1"}, {"x": "all"}, {"text": ["*"] * 1000}):
        assert key.request("POST", "/api/v1/studies/search", json=body).status_code == 422, body
    found = key.request("POST", "/api/v1/studies/search", json={"limit": 1}).json()
    assert len(found["studies"]) == 1 and found["after"]


@pytest.mark.attack("S45")
@pytest.mark.parametrize("query", [
    "limit=1000000000", "limit=0", "limit=-1", "after=-1", f"after={10**40}", "limit=1e3", "state=all",
    "limit=x&" + "includefield=all&" * 1000,
])
def test_pages_of_lists_are_bounded(doors: Doors, query: str) -> None:
    assert doors.visitor(doors.key("view")).get(f"/api/v1/jobs?{query}").status_code == 422


@pytest.mark.attack("S45")
@pytest.mark.parametrize("path", [
    "/audit?before=-1", "/audit?before=x", f"/audit?before={10**30}", f"/held?after={10**30}-1",
    f"/waiting?after=1-{10**30}", f"/studies/1.2/jobs/{10**30}/receipt", "/held?after=-1", "/waiting?after=1-x",
    "/devices/echo?device=" + "x" * 9000])
def test_pages_for_people_are_bounded(doors: Doors, path: str) -> None:
    assert doors.logged_in("admin").get(path).status_code in (200, 404, 422)


@pytest.mark.attack("S47")
@pytest.mark.parametrize("query", ["edge=1000000", "edge=0", "edge=-1", "frame=0", "frame=1000001", "frame=1,2,3",
                                   "frame=" + "1," * 4000, "edge=1e9", "edge=NaN"])
def test_pictures_without_measure_are_refused(doors: Doors, two: list[int], query: str) -> None:
    path = f"/studies/{uid_of(1)}/instances/{uid_of(1)}.1.1/preview?{query}"
    assert doors.logged_in("viewer").get(path).status_code == 422


@pytest.mark.attack("S47")
def test_ranges_are_not_cut_out(doors: Doors) -> None:
    whole = doors.visitor().get("/static/router.css")
    many = ",".join(f"{at}-{at + 1}" for at in range(0, 4000, 2))
    reply = doors.visitor().get("/static/router.css", headers={"Range": f"bytes={many}"})
    assert (reply.status_code, len(reply.content)) == (200, len(whole.content))


# --- settings ------------------------------------------------------------------------------------------------------

@pytest.mark.attack("S62")
@pytest.mark.parametrize("value", ["%(secret_key)s", "${secret_key}", "a$SECRET", "%%", "$(id)", "`id`", "~root",
                                   "!include /etc/passwd", "{{ secret_key }}", "${env:HOME}"])
def test_a_value_of_router_conf_is_only_a_value(tmp_path: Path, value: str) -> None:
    path = tmp_path / "router.conf"
    path.write_text(f"[satusehat]\norganization_id = 1\nclient_key = {value}\nsecret_key = very-secret\n")
    path.chmod(0o600)
    found = load(path, {"SECRET": "of the environment", "HOME": "/root"})
    assert found.satusehat.client_key.reveal() == value


@pytest.mark.attack("S62")
@pytest.mark.parametrize("line", ["include = /etc/passwd", "!include /etc/passwd", "%include /etc/passwd"])
def test_no_other_file_is_read_from_router_conf(tmp_path: Path, line: str) -> None:
    path = tmp_path / "router.conf"
    path.write_text(f"[satusehat]\norganization_id = 1\nclient_key = a\nsecret_key = b\n[router]\n{line}\n")
    path.chmod(0o600)
    try:
        found = load(path, {})
    except Exception as fault:
        assert "root:" not in str(fault)
    else:
        assert "root:" not in repr(found)
