"""The one way out over HTTP: connections kept alive, a deadline for each request, bounded replies, TLS always verified.

Every HTTP destination opens its `Session` here and gets a `Reply` for any answer and a Transient for any fault of the
way; what an answer means is the destination's business. May import internal.errors.
Changes when the rules for talking to any HTTP server change. Source: reliability facts 2.5; dependencies facts 3.
"""

from __future__ import annotations

import email.utils
import errno
import http.client
import io
import ipaddress
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import certifi
import urllib3
from urllib3 import exceptions as u3
from urllib3.connection import HTTPConnection, HTTPSConnection

from internal.errors import BytesDamaged, ConfigurationInvalid, Transient, UnknownOutcome

MAX_REPLY_BYTES = 5 * 1024 * 1024
MAX_RETRY_AFTER_S = 3600.0
CHUNK_BYTES = 128 * 1024
#: Bounded, so that "handed to the socket" is close to "left the machine" on a slow link too.
SEND_BUFFER_BYTES = 256 * 1024
#: For who lets a request stand still long enough: fewer system calls. As much as a send buffer really holds.
LARGE_CHUNK_BYTES = 2 * SEND_BUFFER_BYTES

_UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN)


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How to reach one server; times in seconds. Proxies come from here alone, never from the environment.

    `stall_timeout_s` is how long a request may stand still; `ca_file` is trusted beside the usual authorities;
    `certificate` with its `key` (PEM) is ours, shown to a server that asks for one.
    """

    user_agent: str = "satusehat-dicom-router/2.0"
    connect_timeout_s: float = 10.0
    stall_timeout_s: float = 60.0
    connections: int = 16
    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    proxy_url: str | None = field(default=None, repr=False)


class Deadline:
    """The moment at which one request is over, whatever state it is in; remembers how far the request came."""

    __slots__ = ("_end", "_monotonic_s", "sent", "stall_s", "status")

    def __init__(self, total_s: float, stall_s: float, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._end = monotonic_s() + total_s
        self.stall_s = stall_s
        self.sent = False
        self.status: int | None = None

    def remaining_s(self) -> float:
        """Return the seconds that are left; raises TimeoutError when there are none."""
        left = self._end - self._monotonic_s()
        if left <= 0:
            raise TimeoutError("the deadline of the request has passed")
        return left

    def wait_s(self) -> float:
        """Return how long the next read or write may stand still, in seconds; raises TimeoutError past the end."""
        return min(self.remaining_s(), self.stall_s)


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer whose body was read to its end; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        """The media type without parameters, lower case, "" when absent."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def clock_offset_s(self, now_s: float) -> float | None:
        """Return how far the server's Date lies ahead of `now_s` (epoch seconds), None when it says none.

        Source: RFC 9110 6.6.1, in whole seconds; the way there and back adds to it.
        """
        try:
            return email.utils.parsedate_to_datetime(self.headers["date"]).timestamp() - now_s
        except (KeyError, TypeError, ValueError, OverflowError):
            return None

    @property
    def retry_after_s(self) -> float | None:
        """Seconds the server asks us to wait, at most MAX_RETRY_AFTER_S; None when it says nothing usable.

        Source: RFC 9110 10.2.3.
        """
        text = self.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdigit():
            return min(float(text[:9]), MAX_RETRY_AFTER_S)
        try:
            wait = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return None
        return min(max(wait, 0.0), MAX_RETRY_AFTER_S)


class _Chunk(threading.local):
    """One chunk for each thread that sends: a fresh one for each body costs as much as to read it."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(LARGE_CHUNK_BYTES))


_CHUNK = _Chunk()


class FileBody:
    """A request body streamed from a file object: exactly `size_bytes` bytes, never more in memory than a chunk.

    `chunk_bytes`: so many at a time, LARGE_CHUNK_BYTES at most. What `read` returns is good until the same thread reads
    the next. `on_bytes` is told with each chunk how many bytes have been handed over in all. `has_left`: the system has
    taken the last of them, since more was asked for.
    """

    def __init__(
        self, source: BinaryIO, size_bytes: int, on_bytes: Callable[[int], None] | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self._source = source
        self._chunk_bytes = chunk_bytes
        self._on_bytes = on_bytes
        self.size_bytes = size_bytes
        self.handed_over = 0
        self.has_left = False

    def read(self, size: int = -1) -> bytes | memoryview:
        """Return the next bytes; raises BytesDamaged when the file ends early or cannot be read."""
        left = self.size_bytes - self.handed_over
        if left == 0:
            self.has_left = True
            return b""
        try:
            wanted = _CHUNK.view[:min(left, self._chunk_bytes, size if size > 0 else LARGE_CHUNK_BYTES)]
            count = self._source.readinto(wanted)  # type: ignore[attr-defined]
        except OSError:
            raise BytesDamaged("the file could not be read while it was being sent") from None
        if not count:
            raise BytesDamaged("the file ended before the recorded size")
        self.handed_over += count
        if self._on_bytes is not None:
            self._on_bytes(self.handed_over)
        return wanted[:count]


def check_base_url(base_url: str) -> None:
    """Raise ConfigurationInvalid unless `base_url` is https, or http to this very machine."""
    parts = urlsplit(base_url)
    if parts.scheme == "https" and parts.hostname and parts.username is None:
        return
    if parts.scheme == "http" and is_loopback(parts.hostname or ""):
        return
    raise ConfigurationInvalid(f"{parts.scheme}://{parts.hostname} is refused: use https (http only for this machine)")


def is_loopback(host: str) -> bool:
    """Return whether `host` names this machine without asking DNS."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def open_session(base_url: str, options: SessionOptions) -> Session:
    """Return the session for `base_url`; opens no connection yet. Raises ConfigurationInvalid for an unsafe URL."""
    check_base_url(base_url)
    return Session(base_url.rstrip("/"), options)


def build_tls_context(ca_file: Path | None, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Return a context that verifies certificate and host name, TLS 1.2 or later. Source: RFC 9325."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=certifi.where())
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=str(ca_file))
        except OSError:
            raise ConfigurationInvalid(f"{ca_file} is no readable file of certificates") from None
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key)
        except OSError:
            raise ConfigurationInvalid(f"{certificate} or its key cannot be used") from None
    return context


class Session:
    """Connections to one server, kept alive and shared by threads. Redirects are answers: they are never followed.

    `clock_offset_s`: how far its clock was ahead of ours at the last answer, None before the first.
    """

    def __init__(self, base_url: str, options: SessionOptions) -> None:
        self.base_url = base_url
        self.options = options
        self.clock_offset_s: float | None = None
        settings: dict[str, Any] = {
            "num_pools": 2, "maxsize": options.connections, "blocksize": LARGE_CHUNK_BYTES, "retries": False,
            "socket_options": [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
                               (socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)],
        }
        if base_url.startswith("https:"):
            context = build_tls_context(options.ca_file, options.certificate, options.key)
            context.sslsocket_class = _TlsSocket
            settings["ssl_context"] = context
        if options.proxy_url and not is_loopback(urlsplit(base_url).hostname or ""):
            self._manager: urllib3.PoolManager = urllib3.ProxyManager(options.proxy_url, **settings)
        else:
            self._manager = urllib3.PoolManager(**settings)
        self._manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def open_deadline(self, total_s: float, stall_s: float = 0.0) -> Deadline:
        """Return a deadline `total_s` seconds from now; `stall_s` lengthens how long the request may stand still."""
        return Deadline(total_s, max(self.options.stall_timeout_s, stall_s))

    def exchange(
        self, method: str, target: str, *, deadline: Deadline, headers: Mapping[str, str] | None = None,
        body: bytes | FileBody | None = None, limit_bytes: int = MAX_REPLY_BYTES,
        sink: Callable[[bytes], None] | None = None,
    ) -> Reply:
        """Send one request to `target` (path and query, already encoded) and return the whole answer.

        Raises Transient when the request surely did not leave, UnknownOutcome when it may have been carried out
        (codes dns, connect, tls, proxy, timeout, reset, truncated, reply-too-large), BytesDamaged from the body.
        No exception text carries a header, a body or a query. The body of a 200 goes to `sink`, where there is one.
        """
        sent_headers = {"User-Agent": self.options.user_agent, "Accept-Encoding": "identity", **(headers or {})}
        if body is not None:
            sent_headers["Content-Length"] = str(body.size_bytes if isinstance(body, FileBody) else len(body))
        token = _DEADLINE.set(deadline)
        try:
            reply = self._exchange(method, target, sent_headers, body, limit_bytes, deadline, sink)
        except (u3.HTTPError, OSError, http.client.HTTPException) as fault:
            raise _explain(fault, deadline, urlsplit(self.base_url).hostname or "") from None
        finally:
            _DEADLINE.reset(token)
        offset_s = reply.clock_offset_s(time.time())
        if offset_s is not None:
            self.clock_offset_s = offset_s
        return reply

    def _exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | FileBody | None, limit_bytes: int,
        deadline: Deadline, sink: Callable[[bytes], None] | None,
    ) -> Reply:
        deadline.status = None
        connect_s = min(self.options.connect_timeout_s, deadline.remaining_s())
        response = self._manager.urlopen(
            method, self.base_url + target, body=body, headers=headers, redirect=False, retries=False,
            preload_content=False, decode_content=False,
            timeout=urllib3.Timeout(connect=connect_s, read=deadline.wait_s()),
        )
        deadline.status = response.status
        try:
            raw = _read_bounded(response, limit_bytes, sink if response.status == 200 else None)
        except BaseException:
            response.close()
            raise
        found = {name.lower(): value for name, value in response.headers.items()}
        return Reply(response.status, found, _decode(raw, found.get("content-encoding", ""), limit_bytes))

    def close(self) -> None:
        """Close every idle connection."""
        self._manager.clear()


def _read_bounded(
    response: urllib3.BaseHTTPResponse, limit_bytes: int, sink: Callable[[bytes], None] | None,
) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        part = response.read(64 * 1024, decode_content=False)
        if not part:
            return b"".join(parts)
        size += len(part)
        if size > limit_bytes:
            raise _TooLarge
        if sink is None:
            parts.append(part)
        else:
            sink(part)


def _decode(raw: bytes, encoding: str, limit_bytes: int) -> bytes:
    """We ask for no compression; who compresses all the same is decoded within the same bound."""
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return raw
    decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        decoded = decoder.decompress(raw, limit_bytes)
    except zlib.error:
        raise u3.DecodeError("the compressed reply is damaged") from None
    if decoder.unconsumed_tail:
        raise _TooLarge
    if not decoder.eof:
        raise u3.DecodeError("the compressed reply is cut")
    return decoded


class _TooLarge(u3.HTTPError):
    pass


_DEADLINE: ContextVar[Deadline] = ContextVar("deadline")


class _DeadlineReader(io.RawIOBase):
    """Reads a socket so that neither a silent nor a dripping server outlives the request's deadline."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: Deadline) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        self._sock.settimeout(self._deadline.wait_s())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _DeadlineResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        raw = self.fp.detach()
        self.fp = io.BufferedReader(_DeadlineReader(raw, sock, _DEADLINE.get()), 64 * 1024)


class _Socket(socket.socket):
    def settimeout(self, value: float | None) -> None:
        """Set it where it differs: urllib3 and we do it before each read and write, and each time is a system call."""
        if value != self.gettimeout():
            super().settimeout(value)


class _TlsSocket(ssl.SSLSocket):
    def settimeout(self, value: float | None) -> None:
        if value != self.gettimeout():
            super().settimeout(value)


def _begin(connection: Any) -> None:
    """A connection that was kept has no need of the time to connect."""
    if connection.sock is not None:
        connection.timeout = _DEADLINE.get().wait_s()


def _send(connection: Any, data: Any, send: Callable[[Any], None]) -> None:
    deadline = _DEADLINE.get()
    if connection.sock is None:
        connection.connect()
    connection.sock.settimeout(deadline.wait_s())
    deadline.sent = True
    send(data)


class _Connection(HTTPConnection):
    response_class = _DeadlineResponse

    def _new_conn(self) -> socket.socket:
        plain = super()._new_conn()
        timeout_s = plain.gettimeout()
        connected = _Socket(plain.family, plain.type, plain.proto, plain.detach())
        connected.settimeout(timeout_s)
        return connected

    def request(self, *request: Any, **options: Any) -> None:
        _begin(self)
        super().request(*request, **options)

    def send(self, data: Any) -> None:
        _send(self, data, super().send)


class _TlsConnection(HTTPSConnection):
    response_class = _DeadlineResponse

    def request(self, *request: Any, **options: Any) -> None:
        _begin(self)
        super().request(*request, **options)

    def send(self, data: Any) -> None:
        _send(self, data, super().send)


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


def _explain(fault: Exception, deadline: Deadline, host: str) -> Transient:
    code, text = _name(fault, host)
    if deadline.sent:
        lost = UnknownOutcome(text, code=code)
        lost.status = deadline.status
        return lost
    return Transient(text, code=code)


def _name(fault: Exception, host: str) -> tuple[str, str]:
    """Return code and text for a fault; the text is ours, because theirs may quote what we sent."""
    if isinstance(fault, u3.NameResolutionError):
        return "dns", f"DNS does not know {host}"
    if isinstance(fault, u3.ProxyError):
        return "proxy", f"the proxy does not let us through to {host}"
    if isinstance(fault, u3.SSLError | ssl.SSLError):
        return "tls", f"TLS with {host} failed: {_tls_reason(fault)}"
    if isinstance(fault, u3.ConnectTimeoutError):
        return "connect", f"{host} does not accept connections (no answer)"
    if isinstance(fault, u3.NewConnectionError):
        return "connect", f"{host} does not accept connections"
    if isinstance(fault, _TooLarge):
        return "reply-too-large", f"the reply of {host} is larger than allowed"
    if isinstance(fault, u3.TimeoutError | TimeoutError) or isinstance(_cause(fault), TimeoutError):
        return "timeout", f"{host} did not answer in time"
    if isinstance(_cause(fault), http.client.IncompleteRead | u3.IncompleteRead) or isinstance(fault, u3.DecodeError):
        return "truncated", f"the reply of {host} was cut"
    if isinstance(fault, OSError) and fault.errno in _UNREACHABLE:
        return "connect", f"{host} cannot be reached"
    return "reset", f"{host} broke the connection"


def _cause(fault: BaseException) -> BaseException:
    """Return the exception that urllib3 wrapped, the fault itself when it wrapped none."""
    wrapped = next((arg for arg in fault.args if isinstance(arg, BaseException)), None)
    return wrapped or fault.__cause__ or fault


def _tls_reason(fault: Exception) -> str:
    cause: BaseException = fault
    while not isinstance(cause, ssl.SSLError) and _cause(cause) is not cause:
        cause = _cause(cause)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    return str(getattr(cause, "reason", "") or "handshake").replace("_", " ").lower()
