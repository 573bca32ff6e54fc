"""Connections that are refused before anything is built: they still get a proper answer, never a reset.

Imports nothing of ours. Each waits, bounded in number and time, until bytes of it have come, is answered, and is read
to its end so that closing does not destroy the answer. Changes when refusing changes.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from typing import Final

MAX_WAITING: Final = 256
_WAIT_S: Final = 2.0
_READ_BYTES: Final = 64 * 1024


class Lobby:
    """The refused connections of a gate, served from its loop."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._deadlines: dict[socket.socket, float] = {}

    def __len__(self) -> int:
        return len(self._deadlines)

    def refuse(self, sock: socket.socket, answer: bytes) -> None:
        """Answer `sock` with the PDU `answer` and close it; if too many wait, close it at once."""
        if len(self._deadlines) >= MAX_WAITING:
            sock.close()
            return
        sock.setblocking(False)
        self._deadlines[sock] = time.monotonic() + _WAIT_S
        self._selector.register(sock, selectors.EVENT_READ, self._server(sock, answer))

    def _server(self, sock: socket.socket, answer: bytes) -> Callable[[], None]:
        answered = False

        def serve() -> None:
            nonlocal answered
            try:
                if not sock.recv(_READ_BYTES):
                    self._drop(sock)
                elif not answered:
                    answered = True
                    sock.send(answer)
            except BlockingIOError:
                return
            except OSError:
                self._drop(sock)

        return serve

    def tend(self, now: float) -> None:
        """Drop those whose time is over."""
        for sock in [sock for sock, deadline in self._deadlines.items() if deadline <= now]:
            self._drop(sock)

    def close(self) -> None:
        """Drop all."""
        for sock in list(self._deadlines):
            self._drop(sock)

    def _drop(self, sock: socket.socket) -> None:
        if self._deadlines.pop(sock, None) is not None:
            self._selector.unregister(sock)
            sock.close()
