"""A line between a destination and its peer that a test can cut, stop or close, whatever is spoken on it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from enum import StrEnum

_CHUNK_BYTES = 16 * 1024


class Mood(StrEnum):
    """What the line does: carries, carries some bytes and is cut, carries nothing more, or answers no call."""

    CARRIES = "carries"
    CUT = "cut"
    HANGS = "hangs"
    CLOSED = "closed"


class Line:
    """Forwards 127.0.0.1:`port` to `to`; `cut_after_bytes` counts what goes to the peer since the mood was set.

    `on_bytes` is called with how many bytes the first connection brings to the peer, before the last of them leave.
    """

    def __init__(self, to: int, on_bytes: Callable[[int], None] = lambda _: None) -> None:
        self._to = to
        self._on_bytes = on_bytes
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._mood = Mood.CARRIES
        self._left_bytes = 0
        self._freed = threading.Event()
        self.was_cut = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def set(self, mood: Mood, cut_after_bytes: int = 0) -> None:
        """Behave in this way from now on; connections that are open are ended, as a peer that restarts ends them."""
        with self._lock:
            self._mood, self._left_bytes = mood, cut_after_bytes
            self.was_cut.clear()
            self._freed.set()
            self._freed = threading.Event()
            self._end()

    def stop(self) -> None:
        """End it."""
        self.set(Mood.CLOSED)
        self._listener.close()

    def _end(self) -> None:
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._mood is Mood.CLOSED:
                    caller.close()
                    continue
                try:
                    peer = socket.create_connection(("127.0.0.1", self._to), 5)
                except OSError:
                    caller.close()
                    continue
                self._open += [caller, peer]
                self.connections += 1
            on_bytes = self._on_bytes if self.connections == 1 else lambda _: None
            for one, other, watch in ((caller, peer, on_bytes), (peer, caller, None)):
                threading.Thread(target=self._carry, args=(one, other, watch), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, watch: Callable[[int], None] | None) -> None:
        """Carry in one direction; `watch` is given outwards, towards the peer."""
        carried = 0
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                carried += len(data)
                if watch is not None:
                    watch(carried)
                freed = self._freed
                if self._mood is Mood.HANGS:
                    freed.wait(60)
                    return
                if watch is not None and self._mood is Mood.CUT and self._is_spent(len(data)):
                    self.was_cut.set()
                    return
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _is_spent(self, size: int) -> bool:
        """Take bytes from those that are left; when none is, end every connection once and carry on afterwards."""
        with self._lock:
            self._left_bytes -= size
            if self._left_bytes > 0:
                return False
            self._mood = Mood.CARRIES
            self._end()
            return True
