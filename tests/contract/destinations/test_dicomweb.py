"""The dicomweb destination against servers that answer in every way: per image, XML, nonsense, refusals, logins."""

from __future__ import annotations

import base64
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from interface.dicomweb_client import Dicomweb, DicomwebOptions
from interface.outbound import Session, SessionOptions
from interface.web_auth import ClientCredentials, Fixed, Login, basic, bearer
from internal.model import ItemState
from internal.states import Finish, Later, Refuse
from tests.contract.destinations.images import make_instance, new_study_uid
from tests.contract.destinations.memory_work import Ledger, SkewClock, drive, step_once
from tests.contract.destinations.peers import running
from tests.contract.destinations.stow_server import Reply, StowServer, json_reply, xml_reply

Make = Callable[..., Dicomweb]


@pytest.fixture
def server() -> Iterator[StowServer]:
    with running(StowServer()) as made:
        yield made


@pytest.fixture
def make(server: StowServer) -> Make:
    def build(login: Login | None = None, url: str = "", options: SessionOptions | None = None,
              **changes: Any) -> Dicomweb:
        session = Session(url or server.url, options or SessionOptions(stall_timeout_s=5.0))
        return Dicomweb(DicomwebOptions("web", session, login or Fixed(), **changes))

    return build


def study(destination: Dicomweb, instances: int = 4) -> Ledger:
    ledger = Ledger(new_study_uid(), "A1", destination.environment)
    ledger.add(make_instance(ledger.study_uid, number, "A1") for number in range(1, instances + 1))
    return ledger


def uid_of(ledger: Ledger, number: int) -> str:
    return ledger.items[number].instance.header.sop_uid


def test_batches_by_count_and_by_size(server: StowServer, make: Make) -> None:
    to = make(batch=5)
    assert isinstance(drive(to, study(to, 12), SkewClock()), Finish)
    assert [len(one) for one in server.batches] == [5, 5, 2]
    server.batches.clear()
    small = make(batch_bytes=2500)  # two images of about 1 KB
    ledger = study(small, 7)
    assert isinstance(drive(small, ledger, SkewClock()), Finish)
    assert max(len(one) for one in server.batches) == 2 and sum(map(len, server.batches)) == 7


def test_an_answer_in_xml(server: StowServer, make: Make) -> None:
    server.answer = xml_reply
    to = make()
    assert isinstance(drive(to, study(to), SkewClock()), Finish)


@pytest.mark.parametrize(("reason", "state"), [
    (0x0111, ItemState.UNVERIFIED), (0xA900, ItemState.REFUSED), (0xC000, ItemState.REFUSED),
    (0x0122, ItemState.REFUSED), (0x0110, ItemState.REFUSED),
])
def test_every_image_has_its_own_answer(server: StowServer, make: Make, reason: int, state: ItemState) -> None:
    to = make()
    ledger = study(to)
    bad = uid_of(ledger, 2)
    server.answer = lambda uids: json_reply(uids, {bad: reason} if bad in uids else None)
    outcome = drive(to, ledger, SkewClock())
    assert ledger.items[2].state is state and ledger.count()[ItemState.STORED] == 3
    assert isinstance(outcome, Refuse if state is ItemState.REFUSED else Finish)


def test_out_of_resources_for_one_image_pauses_the_lane(server: StowServer, make: Make) -> None:
    to = make()
    ledger = study(to)
    server.answer = lambda uids: json_reply(uids, {uid_of(ledger, 3): 0xA700})
    outcome = step_once(to, ledger, SkewClock())
    assert isinstance(outcome, Later) and (outcome.code, outcome.blame) == ("dimse-a700", "lane")
    assert ledger.count() == {ItemState.STORED: 2, ItemState.SENT: 2}
    server.answer = json_reply
    assert isinstance(drive(to, ledger, SkewClock()), Finish)


@pytest.mark.parametrize("reply", [
    (200, "text/html", b"<html>welcome</html>"), (200, "application/dicom+json", b"{"), (200, "", b""),
    (200, "application/dicom+xml", b"<!DOCTYPE a [<!ENTITY b 'c'>]><NativeDicomModel/>"),
    (204, "", b""), (200, "application/dicom+json", b'{"00081199": {"Value": "no"}}'),
])
def test_an_unreadable_success_ends_as_a_receipt_of_its_own(server: StowServer, make: Make, reply: Reply) -> None:
    server.answer = lambda uids: reply
    to = make()
    ledger = study(to, 2)
    outcome = drive(to, ledger, SkewClock())
    assert isinstance(outcome, Finish) and "2 accepted, reply not understood" in outcome.note
    assert ledger.count() == {ItemState.UNREAD: 2} and ledger.items[1].sends == 3
    assert list(ledger.alerts) == ["reply-not-understood"]


@pytest.mark.parametrize("status", [400, 409, 413, 415, 422])
def test_one_image_that_spoils_the_request_is_found(server: StowServer, make: Make, status: int) -> None:
    to = make()
    ledger = study(to, 9)
    bad = uid_of(ledger, 5)
    server.answer = lambda uids: (status, "text/plain", b"") if bad in uids else json_reply(uids)
    outcome = drive(to, ledger, SkewClock())
    assert isinstance(outcome, Refuse) and f"HTTP {status}" in outcome.reason
    assert [n for n, item in ledger.items.items() if item.state is ItemState.REFUSED] == [5]


@pytest.mark.parametrize(("status", "blame"), [
    (403, "lane"), (404, "lane"), (429, "lane"), (500, "job"), (502, "lane"), (503, "lane"), (302, "lane"),
])
def test_a_status_that_is_no_verdict(server: StowServer, make: Make, status: int, blame: str) -> None:
    server.answer = lambda uids: (status, "text/plain", b"")
    to = make()
    ledger = study(to)
    outcome = step_once(to, ledger, SkewClock())
    assert isinstance(outcome, Later) and (outcome.code, outcome.blame) == (f"stow-{status}", blame)
    assert ledger.count() == {ItemState.SENT: 4}


def test_logins(server: StowServer, make: Make) -> None:
    for login, shown in (
        (basic("u", lambda: "p:ä"), "Basic " + base64.b64encode("u:p:ä".encode()).decode()),
        (bearer(lambda: "t0k"), "Bearer t0k"), (Fixed(), ""),
    ):
        to = make(login)
        drive(to, study(to, 1), SkewClock())
        assert server.authorizations[-1] == shown


def test_a_login_that_is_refused_pauses_the_lane(server: StowServer, make: Make) -> None:
    server.accept = lambda _: False
    to = make(basic("u", lambda: "wrong-password"))
    outcome = step_once(to, study(to), SkewClock())
    assert isinstance(outcome, Later) and (outcome.code, outcome.blame) == ("login-refused", "lane")
    assert "wrong-password" not in outcome.reason and len(server.authorizations) == 1


def test_oauth2_fetches_one_token_and_another_when_it_is_refused(server: StowServer, make: Make) -> None:
    token = Session(f"{server.url}/token", SessionOptions())
    to = make(ClientCredentials(token, "router", lambda: "se cret", "stow"), batch=2)
    drive(to, study(to, 6), SkewClock())
    assert server.tokens == [{"grant_type": ["client_credentials"], "scope": ["stow"]}]
    assert base64.b64decode(server.authorizations[0].removeprefix("Basic ")) == b"router:se%20cret"
    assert set(server.authorizations[1:]) == {"Bearer token-1"}
    server.accept = lambda shown: shown != "Bearer token-1"
    assert isinstance(drive(to, study(to, 1), SkewClock()), Finish)
    assert server.authorizations[-1] == "Bearer token-2" and len(server.tokens) == 2


def test_a_server_that_is_off(make: Make) -> None:
    to = make(url="http://127.0.0.1:9")
    outcome = step_once(to, study(to), SkewClock())
    assert isinstance(outcome, Later) and (outcome.code, outcome.blame) == ("connect", "lane")
    assert [line.ok for line in to.probe()] == [False]


def test_a_client_certificate(tmp_path: Path, make: Make) -> None:
    for name in ("server", "client"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                        f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout",
                        str(tmp_path / f"{name}.key"), "-out", str(tmp_path / f"{name}.crt")],
                       check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "client.crt"))
    tls.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    tls.verify_mode = ssl.CERT_REQUIRED
    with running(StowServer(tls)) as secure:
        with_ours = SessionOptions(ca_file=tmp_path / "server.crt", certificate=tmp_path / "client.crt",
                                   key=tmp_path / "client.key")
        to = make(url=secure.url, options=with_ours)
        assert isinstance(drive(to, study(to), SkewClock()), Finish)
        bare = make(url=secure.url, options=SessionOptions(ca_file=tmp_path / "server.crt"))
        assert isinstance(step_once(bare, study(bare), SkewClock()), Later)
        strange = make(url=secure.url)
        outcome = step_once(strange, study(strange), SkewClock())
        assert isinstance(outcome, Later) and outcome.code == "tls"
