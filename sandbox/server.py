"""The listening socket: one thread per connection, keep-alive, and replies that can drip or end in a reset.

Sits between the network and `Application`. Imports `http11` only. Changes when the handling of sockets changes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import BinaryIO

from sandbox.http11 import (
    HEAD_LIMIT_BYTES,
    Body,
    Head,
    HttpRefused,
    PeerGone,
    Reply,
    Request,
    Wire,
    body_length,
    build_head,
    parse_head,
)

log = logging.getLogger("sandbox")

MAX_CONNECTIONS = 256
SILENCE_LIMIT_S = 120.0
DRAIN_LIMIT_BYTES = 64 * 1024 * 1024
LINGER_FORMAT = "hh" if sys.platform == "win32" else "ii"


class ResetConnection(Exception):
    """The connection must end with a TCP reset and without a reply (a fault asked for it)."""


class PortUnavailable(Exception):
    """The address cannot be listened on; the text is one sentence for a person."""


Handler = Callable[[Request], Reply]


def open_listener(host: str, port: int) -> socket.socket:
    """A listening TCP socket on host and port (0 = any free one); raises PortUnavailable."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise PortUnavailable(f"Cannot listen on {host}: it is not an address of this machine.") from error
    # Windows lets SO_REUSEADDR steal a port that is in use.
    reuse = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
    listener.setsockopt(socket.SOL_SOCKET, reuse, 1)
    try:
        listener.bind(address)
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise PortUnavailable(
            f"Cannot listen on port {port} of {host} ({error.strerror}): stop what uses it or choose another --port."
        ) from error
    return listener


class Server:
    """Serves `handler` on `listener` until `stop` is called; each connection has its own thread."""

    def __init__(self, listener: socket.socket, handler: Handler) -> None:
        self._listener = listener
        self._handler = handler
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._stopping = threading.Event()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port really listened on."""
        name = self._listener.getsockname()
        return str(name[0]), int(name[1])

    def start(self) -> None:
        """Begin to accept; returns at once."""
        threading.Thread(target=self._accept, name="accept", daemon=True).start()

    def stop(self) -> None:
        """Accept no more; requests in progress may still finish until the process ends."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                sock, peer = self._listener.accept()
            except OSError:
                # Out of descriptors or a peer that left at once: wait a little instead of spinning.
                self._stopping.wait(0.05)
                continue
            if not self._slots.acquire(blocking=False):
                with contextlib.suppress(OSError):
                    sock.settimeout(1)
                    sock.sendall(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                sock.close()
                continue
            threading.Thread(target=self._connection, args=(sock, str(peer[0])), daemon=True).start()

    def _connection(self, sock: socket.socket, peer: str) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(SILENCE_LIMIT_S)
            wire = Wire(sock)
            while not self._stopping.is_set() and self._serve_one(sock, wire, peer):
                pass
        except ResetConnection:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(LINGER_FORMAT, 1, 0))
        except (PeerGone, OSError):
            pass
        finally:
            sock.close()
            self._slots.release()

    def _serve_one(self, sock: socket.socket, wire: Wire, peer: str) -> bool:
        """Answer one request; True when the connection may carry another."""
        body: Body | None = None
        keep_alive, with_body = False, True
        try:
            data = wire.read_until(b"\r\n\r\n", HEAD_LIMIT_BYTES)
            if data is None:
                return False
            head = parse_head(data.lstrip(b"\r\n"))
            body = build_body(head, wire, sock)
            keep_alive, with_body = head.keep_alive, head.method != "HEAD"
            reply = self._answer(Request(head.method, head.path, head.query, head.headers, body, peer))
        except HttpRefused as refused:
            reply = Reply(refused.status, refused.text.encode(), "text/plain")
            keep_alive = keep_alive and body is not None and refused.status == 413
        if body is None or body.unasked:
            keep_alive = False
        send_reply(sock, reply, keep_alive=keep_alive, with_body=with_body)
        if body is None:
            # Closing with unread bytes makes the kernel reset the connection, and the reply would be lost.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
                drain_socket(sock)
            return False
        return drain(body) and keep_alive

    def _answer(self, request: Request) -> Reply:
        try:
            return self._handler(request)
        except (HttpRefused, PeerGone, ResetConnection):
            raise
        except Exception:  # noqa: BLE001 - the HTTP top: one bad request must not end the platform
            kind, _, trace = sys.exc_info()
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            where = f"{trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace else "?"
            # The text of the exception may quote a patient's data; its kind and place do not.
            log.error("internal error %s at %s", kind.__name__ if kind else "?", where)
            return Reply(500, b"Internal Server Error", "text/plain")


def build_body(head: Head, wire: Wire, sock: socket.socket) -> Body:
    """The body of the request that `head` opens; raises HttpRefused for a length that cannot be trusted."""
    expects = head.headers.get("expect", "").lower() == "100-continue"
    return Body(wire, body_length(head), sock, expects_continue=expects)


def drain(body: Body) -> bool:
    """Read and drop what a handler left of a body, at most 64 MB; True when all of it was read."""
    if body.finished:
        return True
    if body.unasked:
        return False
    dropped = 0
    try:
        for piece in body.chunks():
            dropped += len(piece)
            if dropped > DRAIN_LIMIT_BYTES:
                return False
    except HttpRefused:
        return False
    return body.finished


def drain_socket(sock: socket.socket) -> None:
    """After a last reply, read what the peer still sends, at most 1 MB and a second per read."""
    sock.settimeout(1)
    for _ in range(16):
        if not sock.recv(65_536):
            return


def send_reply(sock: socket.socket, reply: Reply, *, keep_alive: bool, with_body: bool) -> None:
    """Send one reply; a file is streamed, a dripping reply sent about twenty times a second."""
    length = reply.path.stat().st_size if reply.path else len(reply.body)
    head = build_head(reply, length, keep_alive=keep_alive)
    with_body = with_body and reply.status not in (204, 304)
    if reply.drip_bytes_per_s:
        _drip(sock, io.BytesIO(head), reply.drip_bytes_per_s)
        if with_body:
            with reply.path.open("rb") if reply.path else io.BytesIO(reply.body) as body:
                _drip(sock, body, reply.drip_bytes_per_s)
    elif reply.path and with_body:
        sock.sendall(head)
        with reply.path.open("rb") as file:
            sock.sendfile(file)
    else:
        sock.sendall(head + reply.body if with_body else head)


def _drip(sock: socket.socket, data: BinaryIO, bytes_per_s: float) -> None:
    step = max(1, int(bytes_per_s / 20))
    while piece := data.read(step):
        sock.sendall(piece)
        time.sleep(len(piece) / bytes_per_s)
