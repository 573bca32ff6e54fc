"""The HTTP session against servers that misbehave below HTTP: cut, drip, flood, reset, lie, and speak bad TLS."""

from __future__ import annotations

import datetime
import gzip
import io
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interface.cli_tls import make_certificate
from interface.outbound import FileBody, Reply, Session, SessionOptions, check_base_url, is_loopback, open_session
from internal.errors import BytesDamaged, ConfigurationInvalid, Transient, UnknownOutcome
from tests.contract.outbound.raw_server import RawServer, Script, reset

Serve = Callable[[Script], RawServer]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
def serve() -> Iterator[Callable[..., RawServer]]:
    started: list[RawServer] = []

    def begin(script: Script, context: ssl.SSLContext | None = None) -> RawServer:
        started.append(RawServer(script, context))
        return started[-1]

    yield begin
    for one in started:
        one.close()


def session_to(server: RawServer, scheme: str = "http", **options: object) -> Session:
    given = {"stall_timeout_s": 5.0, "connect_timeout_s": 2.0} | options
    return open_session(f"{scheme}://127.0.0.1:{server.port}", SessionOptions(**given))  # type: ignore[arg-type]


def ask(session: Session, total_s: float = 5.0, **changes: object) -> Reply:
    try:
        return session.exchange("GET", "/x?q=secret-query", deadline=session.open_deadline(total_s), **changes)  # type: ignore[arg-type]
    finally:
        session.close()


def answering(data: bytes) -> Callable[[list[RawServer]], Script]:
    def make(holder: list[RawServer]) -> Script:
        def script(connection: socket.socket) -> None:
            holder[0].read_head(connection)
            connection.sendall(data)

        return script

    return make


def start(serve: Serve, make: Callable[[list[RawServer]], Script]) -> RawServer:
    holder: list[RawServer] = []
    holder.append(serve(make(holder)))
    return holder[0]


@pytest.mark.parametrize(("data", "code"), [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", "truncated"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "truncated"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab", "truncated"),
    (b"", "reset"),
    (b"not http at all\r\n\r\n", "reset"),
    (b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 300 + b"\r\n", "reset"),
    (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", "reset"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"a" * 5000, "reply-too-large"),
    (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (
        len(gzip.compress(bytes(10**7))), gzip.compress(bytes(10**7))), "reply-too-large"),
    (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde", "truncated"),
    (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 20\r\n\r\n" + gzip.compress(b"x" * 100)[:20],
     "truncated"),
], ids=["short", "chunk-cut", "chunk-bad", "empty", "no-http", "many-headers", "long-header", "large", "gzip-bomb",
        "gzip-bad", "gzip-cut"])
def test_a_bad_reply_is_an_unknown_outcome(serve: Serve, data: bytes, code: str) -> None:
    server = start(serve, answering(data))
    with pytest.raises(UnknownOutcome) as caught:
        ask(session_to(server), limit_bytes=4000)
    assert caught.value.code == code
    assert caught.value.status == (None if code == "reset" else 200)
    assert "secret-query" not in str(caught.value)


def test_a_good_reply_is_read_whole_and_compressed_ones_too(serve: Serve) -> None:
    assert ask(session_to(start(serve, answering(OK)))).body == b"{}"
    packed = gzip.compress(b"y" * 1000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    assert ask(session_to(start(serve, answering(head + packed))), limit_bytes=1000).body == b"y" * 1000


@pytest.mark.parametrize("part", ["head", "body", "silence"])
def test_neither_a_drip_nor_silence_outlives_the_deadline(serve: Serve, part: str) -> None:
    holder: list[RawServer] = []

    def script(connection: socket.socket) -> None:
        holder[0].read_head(connection)
        if part == "body":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        if part == "head":
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while part != "silence" and not holder[0].stopping.wait(0.02):
            connection.sendall(b"a")
        holder[0].stopping.wait(10)

    holder.append(serve(script))
    with pytest.raises(UnknownOutcome) as caught:
        ask(session_to(holder[0]), total_s=0.4)
    assert caught.value.code == "timeout"


def test_reset_after_the_request(serve: Serve) -> None:
    holder: list[RawServer] = []

    def script(connection: socket.socket) -> None:
        holder[0].read_head(connection)
        reset(connection)

    holder.append(serve(script))
    with pytest.raises(UnknownOutcome) as caught:
        ask(session_to(holder[0]))
    assert caught.value.code == "reset"


def test_what_surely_did_not_leave_is_no_unknown_outcome() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for url, code in ((f"http://127.0.0.1:{port}", "connect"), ("https://no-such-host.invalid", "dns")):
        session = open_session(url, SessionOptions(connect_timeout_s=2))
        with pytest.raises(Transient) as caught:
            ask(session)
        assert not isinstance(caught.value, UnknownOutcome) and caught.value.code == code


def test_connections_are_kept_alive_and_a_stale_one_is_replaced(serve: Serve) -> None:
    holder: list[RawServer] = []

    def script(connection: socket.socket) -> None:
        for _ in range(2):
            holder[0].read_head(connection)
            connection.sendall(OK)

    holder.append(serve(script))
    session = session_to(holder[0])
    for _ in range(2):
        session.exchange("GET", "/", deadline=session.open_deadline(5))
    assert holder[0].connections == 1
    deadline = time.monotonic() + 5
    while holder[0]._threads[1].is_alive() and time.monotonic() < deadline:
        holder[0]._threads[1].join(0.05)
    assert session.exchange("GET", "/", deadline=session.open_deadline(5)).status == 200
    assert holder[0].connections == 2
    session.close()


def test_redirects_are_answers_and_the_token_goes_nowhere_else(serve: Serve) -> None:
    other = start(serve, answering(OK))
    moved = f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{other.port}/\r\nContent-Length: 0\r\n\r\n".encode()
    reply = ask(session_to(start(serve, answering(moved))), headers={"Authorization": "Bearer t"})
    assert reply.status == 302 and other.requests == []


def test_a_file_is_streamed_with_its_length_and_proxies_of_the_environment_are_ignored(
    serve: Serve, monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    holder: list[RawServer] = []
    received = []

    def script(connection: socket.socket) -> None:
        head, _, rest = holder[0].read_head(connection).partition(b"\r\n\r\n")
        size = len(rest)
        while size < 3_000_000:
            size += len(connection.recv(65_536))
        received.append((head, size))
        connection.sendall(OK)

    holder.append(serve(script))
    session = session_to(holder[0])
    seen: list[int] = []
    body = FileBody(io.BytesIO(bytes(5_000_000)), 3_000_000, seen.append)
    reply = session.exchange("POST", "/studies", deadline=session.open_deadline(10), body=body)
    session.close()
    assert reply.status == 200 and received[0][1] == 3_000_000 and seen[-1] == 3_000_000
    assert b"content-length: 3000000" in received[0][0].lower() and b"chunked" not in received[0][0].lower()


def test_a_body_is_handed_over_in_chunks_as_large_as_asked_for() -> None:
    data, seen = bytes(range(256)) * 10, list[int]()
    body = FileBody(io.BytesIO(data + b"more"), len(data), seen.append, chunk_bytes=1000)
    assert b"".join(bytes(part) for part in iter(lambda: body.read(100_000), b"")) == data
    assert seen == [1000, 2000, 2560] and body.has_left


def test_a_file_that_ends_early_is_damaged_and_never_a_success(serve: Serve) -> None:
    server = start(serve, answering(b""))
    session = session_to(server)
    with pytest.raises(BytesDamaged):
        session.exchange("POST", "/", deadline=session.open_deadline(5), body=FileBody(io.BytesIO(b"abc"), 10))
    session.close()


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    for name, pem in zip(("key", "cert"), make_certificate(("localhost",), datetime.datetime.now(datetime.UTC)),
                         strict=True):
        (folder / name).write_bytes(pem)
    return folder / "cert", folder / "key"


def test_tls_is_always_verified(serve: Callable[..., RawServer], self_signed: tuple[Path, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed)
    holder: list[RawServer] = []

    def script(connection: socket.socket) -> None:
        holder[0].read_head(connection)
        connection.sendall(OK)

    holder.append(serve(script, context))
    with pytest.raises(Transient) as caught:
        ask(session_to(holder[0], "https"))
    assert caught.value.code == "tls" and "self-signed" in str(caught.value)
    with pytest.raises(Transient) as caught:
        ask(session_to(holder[0], "https", ca_file=self_signed[0]))
    assert caught.value.code == "tls" and "not valid for" in str(caught.value)
    assert holder[0].requests == []
    trusting = open_session(f"https://localhost:{holder[0].port}", SessionOptions(ca_file=self_signed[0]))
    assert ask(trusting).status == 200


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_silence_on_a_kept_connection_ends_at_the_deadline_of_its_own_request(
    serve: Callable[..., RawServer], self_signed: tuple[Path, Path], scheme: str,
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed)
    holder: list[RawServer] = []

    def script(connection: socket.socket) -> None:
        for _ in range(2):
            holder[0].read_head(connection)
            connection.sendall(OK)
        holder[0].read_head(connection)
        holder[0].stopping.wait(10)

    holder.append(serve(script, context if scheme == "https" else None))
    session = open_session(f"{scheme}://localhost:{holder[0].port}",
                           SessionOptions(ca_file=self_signed[0], stall_timeout_s=5.0, connect_timeout_s=2.0))
    for _ in range(2):
        assert session.exchange("GET", "/", deadline=session.open_deadline(60)).status == 200
    with pytest.raises(UnknownOutcome) as caught:
        session.exchange("GET", "/", deadline=session.open_deadline(0.4))
    session.close()
    assert caught.value.code == "timeout" and holder[0].connections == 1


def test_a_plain_server_on_a_tls_url(serve: Serve) -> None:
    def script(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(OK)

    with pytest.raises(Transient) as caught:
        ask(session_to(serve(script), "https"))
    assert caught.value.code == "tls" and not isinstance(caught.value, UnknownOutcome)


def test_a_server_that_never_finishes_the_handshake(serve: Callable[..., RawServer]) -> None:
    server = serve(lambda connection: connection.recv(10) and server.stopping.wait(10) and None)
    with pytest.raises(Transient) as caught:
        ask(session_to(server, "https", connect_timeout_s=0.3))
    assert caught.value.code in ("connect", "timeout") and not isinstance(caught.value, UnknownOutcome)


@pytest.mark.parametrize("url", [
    "http://api-satusehat.kemkes.go.id", "ftp://127.0.0.1", "http://127.0.0.1.evil.example", "https://", "//x", "",
    "http://10.0.0.1", "https://user:pass@host",
])
def test_unsafe_base_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationInvalid) as caught:
        check_base_url(url)
    assert "pass" not in str(caught.value)


def test_loopback() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("", "localhost.example", "0.0.0.0", "128.0.0.1"))


@pytest.mark.parametrize(("value", "expected"), [
    ("7", 7.0), ("1000000000", 3600.0), ("-1", None), ("soon", None), ("", None), ("99999999999999999999", 3600.0),
    ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("٣", None),
])
def test_retry_after(value: str, expected: float | None) -> None:
    assert Reply(429, {"retry-after": value}, b"").retry_after_s == expected


def test_retry_after_as_a_date_in_the_future() -> None:
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=100)
    wait = Reply(429, {"retry-after": at.strftime("%a, %d %b %Y %H:%M:%S GMT")}, b"").retry_after_s
    assert wait is not None and 50 < wait <= 101
