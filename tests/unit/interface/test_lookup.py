"""Look-ups against a real HTTP service: what is asked, what an answer means, what is used again."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from interface.lookup import HttpLookups
from internal.config import Secret
from internal.config.lookups import LookupSettings
from internal.errors import Transient
from internal.rules import EditFailed, LookUp

NIK = LookUp("lookup", "nik")


class Service:
    """Answers with `status` and `body`; keeps what it was asked."""

    def __init__(self) -> None:
        self.status, self.body = 200, b'{"value": "3171"}'
        self.asked: list[tuple[str, str, object]] = []


@contextmanager
def serving(service: Service) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            asked = json.loads(self.rfile.read(length))
            service.asked.append((self.path, self.headers.get("Authorization", ""), asked))
            self.send_response(service.status)
            self.send_header("Content-Length", str(len(service.body)))
            self.end_headers()
            self.wfile.write(service.body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/lookup/nik"
    finally:
        server.shutdown()
        server.server_close()


def lookups(url: str, **more: object) -> HttpLookups:
    return HttpLookups({"nik": LookupSettings(url=url, token=Secret("s3cret"), **more)})  # type: ignore[arg-type]


def test_the_key_travels_in_the_body_and_an_answer_is_used_again() -> None:
    service = Service()
    with serving(service) as url:
        found = lookups(url)
        assert [found.find(NIK, "P1"), found.find(NIK, "P1")] == ["3171", "3171"]
        assert service.asked == [("/lookup/nik", "Bearer s3cret", {"key": "P1"})]
        fresh = lookups(url, cache=0.0)
        fresh.find(NIK, "P1")
        fresh.find(NIK, "P1")
        assert len(service.asked) == 3


@pytest.mark.parametrize(("status", "body", "value"), [
    (404, b"", None), (200, b'{"value": null}', None), (200, b'{"value": ""}', None), (200, b'{"value": 7}', "7"),
])
def test_what_an_answer_means(status: int, body: bytes, value: str | None) -> None:
    service = Service()
    service.status, service.body = status, body
    with serving(service) as url:
        assert lookups(url).find(NIK, "P1") == value


@pytest.mark.parametrize("body", [
    b"nonsense", b"[]", b'{"value": [1]}', b'{"valu": "x"}', b'{"value": "' + b"x" * 2000 + b'"}', b"[" * 100_000,
])
def test_an_answer_that_is_none_holds_the_study(body: bytes) -> None:
    service = Service()
    service.body = body
    with serving(service) as url, pytest.raises((EditFailed, Transient)) as caught:
        lookups(url).find(NIK, "P-SECRET")
    assert "P-SECRET" not in str(caught.value)


def test_a_service_that_is_away_only_delays() -> None:
    service = Service()
    service.status = 503
    with serving(service) as url:
        with pytest.raises(Transient) as caught:
            lookups(url).find(NIK, "P-SECRET")
        assert (caught.value.code, caught.value.blame_lane) == ("lookup-503", False)
    with pytest.raises(Transient) as caught:
        lookups(url).find(NIK, "P-SECRET")
    assert caught.value.code.startswith("lookup-")
    assert "P-SECRET" not in str(caught.value)


def test_a_look_up_without_a_section_is_said() -> None:
    with pytest.raises(EditFailed, match="no section"):
        lookups("http://127.0.0.1:1/").find(LookUp("lookup", "other"), "x")
