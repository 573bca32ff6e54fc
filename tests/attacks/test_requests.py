"""Requests that are too large, too slow, too deep or too many: the attacker gets an answer or a closed socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interface.http.auth.body import BodyGuard
from interface.http.limits import Limits
from interface.http.problems import Problem
from tests.contract.http.doors import Doors
from tests.examples import examples

QUICK = Limits(head_wait_s=0.3, chunk_wait_s=0.3, body_s=0.2, body_bytes_per_s=1e6, head_bytes=8192)


@contextmanager
def connected(doors: Doors) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", doors.port), timeout=10) as sock:
        yield sock


def answer(sock: socket.socket) -> bytes:
    """Return what comes until the other side closes, "" for a reset."""
    parts = []
    try:
        while part := sock.recv(65536):
            parts.append(part)
            if b"\r\n\r\n" in part and b"content-length" in part.lower():
                break
    except ConnectionResetError:
        pass
    return b"".join(parts)


def status(reply: bytes) -> int:
    return int(reply.split(b" ", 2)[1]) if reply else 0


def is_alive(doors: Doors) -> bool:
    return requests.get(f"{doors.url}/health/live", timeout=10).status_code == 200


def head(token: str, *lines: str, path: str = "/logout") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", f"Cookie: router={token}",
                        "Content-Type: application/x-www-form-urlencoded", *lines, "", ""]).encode()


@pytest.mark.attack("S37")
@pytest.mark.parametrize(("line", "body", "expected"), [
    ("Content-Length: 10737418240", b"", 413), ("Content-Length: 999999999999999999999", b"", (400, 413)),
    ("Content-Length: -1", b"", 400), ("Content-Length: 1e3", b"", 400),
    ("Transfer-Encoding: chunked", b"100000\r\n" + b"x" * 0x100000 + b"\r\n" + b"10\r\n" + b"x" * 16 + b"\r\n", 413),
    ("Transfer-Encoding: chunked\r\nContent-Length: 5", b"0\r\n\r\n", (400, 403)),
], ids=["10 GB", "overflow", "negative", "exponent", "endless chunks", "smuggling"])
def test_bodies_that_are_too_large_or_lie(doors: Doors, line: str, body: bytes, expected: int | tuple[int]) -> None:
    token = doors.with_session("viewer").token
    with connected(doors) as sock:
        try:
            sock.sendall(head(token, line) + body)
        except OSError:
            pass
        got = status(answer(sock))
    assert got in (expected if isinstance(expected, tuple) else (expected, 0))
    assert is_alive(doors)


@pytest.mark.attack("S37")
@pytest.mark.parametrize("sent", [
    b"", b"GET / HT", b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX: ", b"\x16\x03\x01\x02",
])
def test_a_head_that_never_ends_is_cut_off(open_doors: Callable[..., Doors], sent: bytes) -> None:
    doors = open_doors(limits=QUICK)
    with connected(doors) as sock:
        sock.sendall(sent)
        assert status(answer(sock)) in (0, 400)
    assert is_alive(doors)


@pytest.mark.attack("S37")
def test_a_head_without_end_is_cut_off(open_doors: Callable[..., Doors]) -> None:
    doors = open_doors(limits=QUICK)
    with connected(doors) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        sent = 0
        try:
            while sent < 1_000_000:
                sent += sock.send(b"X-Filler: " + b"a" * 4000 + b"\r\n")
        except OSError:
            pass
        assert status(answer(sock)) in (0, 400)
    assert is_alive(doors)


@pytest.mark.attack("S37")
def test_a_head_behind_a_request_that_is_being_answered_is_cut_off(doors: Doors) -> None:
    with connected(doors) as sock:
        sock.sendall(b"GET /api/v1/events/stream HTTP/1.1\r\nHost: localhost\r\n"
                     b"Authorization: Bearer " + doors.key("view").encode() + b"\r\n\r\n")
        assert status(sock.recv(65536)) == 200
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Filler: ")
            for _ in range(1000):
                sock.sendall(b"a" * 65536)
    assert is_alive(doors)


@pytest.mark.attack("S37")
@pytest.mark.parametrize("sent", [b"", b"csrf=abc"])
def test_a_body_that_never_ends_is_answered_408(open_doors: Callable[..., Doors], sent: bytes) -> None:
    doors = open_doors(limits=QUICK)
    with connected(doors) as sock:
        sock.sendall(head("", "Content-Length: 500", path="/login") + sent)
        assert status(answer(sock)) == 408


@pytest.mark.attack("S37")
def test_thousands_of_sockets_are_a_bounded_number(open_doors: Callable[..., Doors]) -> None:
    doors = open_doors(http__max_connections="20")
    held: list[socket.socket] = []
    try:
        refused = 0
        for _ in range(60):
            sock = socket.create_connection(("127.0.0.1", doors.port), timeout=10)
            sock.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            held.append(sock)
            refused += answer(sock) == b""
        assert refused == 50  # one address holds half of all
    finally:
        for sock in held:
            sock.close()


@pytest.mark.attack("S37")
def test_too_many_requests_of_one_address_are_answered_429(open_doors: Callable[..., Doors]) -> None:
    doors = open_doors(http__requests_per_minute="60")
    visitor = doors.visitor()
    replies = [visitor.get("/login") for _ in range(45)]
    assert [reply.status_code for reply in replies[:30]] == [200] * 30
    assert replies[-1].status_code == 429
    assert int(replies[-1].headers["retry-after"]) >= 1
    assert visitor.get("/health/live").status_code == 200


@pytest.mark.attack("S38")
@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip", "x"])
def test_compressed_bodies_are_refused(doors: Doors, encoding: str) -> None:
    reply = doors.visitor().request("POST", "/login", data=b"x" * 100, headers={"Content-Encoding": encoding})
    assert reply.status_code == 415


@pytest.mark.attack("S38")
@pytest.mark.parametrize("body", ["[" * 100_000, '{"a":' * 5000, "[" * 33 + "]" * 33])
def test_deep_json_is_refused_before_it_is_parsed(body: str) -> None:
    guarded(body.encode(), expected="too-deep")


def guarded(body: bytes, expected: str = "") -> None:
    """Feed a JSON body to the guard in pieces, as a socket does."""
    import anyio
    from starlette.datastructures import Headers

    pieces = [body[at:at + 7] for at in range(0, len(body), 7)] or [b""]

    async def run() -> None:
        left = list(pieces)

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

        watched = BodyGuard(Headers({"content-type": "application/json"}), 1_000_000, Limits()).watch(receive)
        while left:
            await watched()

    try:
        with ThreadPoolExecutor(1) as other:  # a browser that another test has started keeps the loop of this thread
            other.submit(anyio.run, run).result()
        assert not expected
    except Problem as problem:
        assert problem.code == expected


_JSON = st.recursive(st.none() | st.text(max_size=8) | st.integers(), lambda inner: st.lists(inner, max_size=3) |
                     st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=8)


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_JSON, st.integers(0, 40))
def test_the_depth_is_counted_as_a_parser_would(value: object, wraps: int) -> None:
    for _ in range(wraps):
        value = [value]

    def depth(one: object) -> int:
        inner = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        return 1 + max(map(depth, inner), default=0) if isinstance(one, dict | list) else 0

    guarded(json.dumps(value).encode(), expected="too-deep" if depth(value) > 32 else "")
