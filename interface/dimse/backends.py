"""Where the gate's connections are served: in child processes, or in the gate's own process on Windows.

Imports child. Sockets go to a child over the Unix socket that is its standard input (SCM_RIGHTS), so that it ends when
the gate does; it reports closed connections back. Changes when the way of starting children changes.
"""

from __future__ import annotations

import logging
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from interface.dimse.child import BEGUN_FLAG, TLS_FLAG, TOKEN, ReceiveChild
from interface.dimse.policy import Reload
from interface.dimse.settings import ReceiveSettings
from internal.spool import Spool

_FIRST_BACKOFF_S: Final = 0.5
_LAST_BACKOFF_S: Final = 30.0
_HEALTHY_AFTER_S: Final = 60.0

log = logging.getLogger("router.dimse")


class Backend(Protocol):
    """A receive process as the gate sees it. Used by the gate's thread only."""

    @property
    def ready(self) -> bool:
        """Whether it has recovered and takes connections."""

    @property
    def alive(self) -> bool:
        """Whether it has still something to do after close()."""

    @property
    def load(self) -> int:
        """How many connections it has."""

    def offer(self, sock: socket.socket, token: int) -> bool:
        """Hand a copy of `sock` over; False if it cannot be taken now. `sock` stays the gate's, to close."""

    def listen(self) -> None:
        """Take in now what it has told, without waiting."""

    def collect(self) -> list[int]:
        """Return the tokens of connections that have ended since the last call, and with BEGUN_FLAG those over TLS that
        have got an association.
        """

    def tend(self, now: float) -> bool:
        """Start it (again), when it is time; return whether it has been found dead."""

    def hang_up(self) -> None:
        """Let it read limits, run/policy.json and the certificate anew, and publish."""

    def close(self) -> None:
        """Tell it that nothing more comes: it drains and ends."""

    def kill(self) -> None:
        """End it now."""

    def shown(self) -> dict[str, Any]:
        """Return what people want to know, as JSON values."""


class ChildProcess:
    """A child process, started again with backoff whenever it dies."""

    def __init__(self, slot: int, argv: Sequence[str], selector: selectors.BaseSelector) -> None:
        self._slot = slot
        self._argv = list(argv)
        self._selector = selector
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._connections: set[int] = set()
        self._told: list[int] = []
        self._buffer = b""
        self._start_at = 0.0
        self._started_at = 0.0
        self._backoff_s = _FIRST_BACKOFF_S
        self._starts = 0
        self._closing = False
        self._hang_up_due = False
        self.ready = False

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def load(self) -> int:
        return len(self._connections)

    def tend(self, now: float) -> bool:
        died = self._process is not None and self._process.poll() is not None
        if died:
            self._bury(now)
        if self._process is None and not self._closing and now >= self._start_at:
            self._start(now)
        return died

    def _start(self, now: float) -> None:
        if sys.platform == "win32":
            raise NotImplementedError("sockets cannot be handed to another process here")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(self._argv, stdin=theirs.fileno())
        self._channel = ours
        self._buffer = b""
        self._started_at = now
        self._starts += 1
        self._selector.register(ours, selectors.EVENT_READ, self.listen)

    def listen(self) -> None:
        if self._channel is None:
            return
        try:
            data = self._channel.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hang_channel()
            return
        data = self._buffer + data
        whole = len(data) - len(data) % TOKEN.size
        self._buffer = data[whole:]
        for (token,) in TOKEN.iter_unpack(data[:whole]):
            if token == 0:
                self.ready = True
                if self._hang_up_due:  # asked for while it was starting, perhaps after it had read everything
                    self.hang_up()
            elif token & BEGUN_FLAG:
                self._told.append(token)
            elif token in self._connections:
                self._connections.remove(token)
                self._told.append(token)

    def _hang_channel(self) -> None:
        if self._channel is not None:
            self._selector.unregister(self._channel)
            self._channel.close()
            self._channel = None
        self.ready = False

    def _bury(self, now: float) -> None:
        code = self._process.returncode if self._process is not None else None
        self._hang_channel()
        self._process = None
        self._told.extend(self._connections)
        lost = len(self._connections)
        self._connections.clear()
        if now - self._started_at > _HEALTHY_AFTER_S:
            self._backoff_s = _FIRST_BACKOFF_S
        self._start_at = now + self._backoff_s
        log.error(
            "receive process %d ended (%s) with %d associations; started again in %.1f s", self._slot, code, lost,
            self._backoff_s,
        )  # fmt: skip
        self._backoff_s = min(self._backoff_s * 2, _LAST_BACKOFF_S)

    def offer(self, sock: socket.socket, token: int) -> bool:
        if not self.ready or self._channel is None:
            return False
        try:
            socket.send_fds(self._channel, [TOKEN.pack(token)], [sock.fileno()])
        except OSError:
            return False
        self._connections.add(token)
        return True

    def collect(self) -> list[int]:
        told, self._told = self._told, []
        return told

    def hang_up(self) -> None:
        self._hang_up_due = not self.ready
        if self.ready and self._process is not None and sys.platform != "win32":
            self._process.send_signal(signal.SIGHUP)

    def close(self) -> None:
        self._closing = True
        if self._channel is not None:
            try:
                self._channel.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the child was told by somebody else and has gone

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def shown(self) -> dict[str, Any]:
        pid = self._process.pid if self._process is not None else None
        return {"slot": self._slot, "pid": pid, "ready": self.ready, "open": self.load, "starts": self._starts}


class InProcess:
    """The one receive process of a platform that cannot hand sockets over: threads of the gate itself."""

    def __init__(
        self, settings: ReceiveSettings, spool: Spool, wake: Callable[[], None], reload: Reload | None = None,
    ) -> None:
        self._child = ReceiveChild(settings, spool, 0, reload)
        self._wake = wake
        self._lock = threading.Lock()
        self._told: list[int] = []
        self._drained = threading.Event()
        self._load = 0
        self.ready = True

    @property
    def alive(self) -> bool:
        return not self._drained.is_set()

    @property
    def load(self) -> int:
        return self._load

    def offer(self, sock: socket.socket, token: int) -> bool:
        try:
            copy = sock.dup()
        except OSError:
            return False
        self._load += 1
        copy.setblocking(True)
        self._child.adopt(copy, partial(self._tell, token),
                          partial(self._tell, token | BEGUN_FLAG) if token & TLS_FLAG else None)
        return True

    def listen(self) -> None:
        """Nothing: it tells by itself."""

    def _tell(self, token: int) -> None:
        with self._lock:
            self._told.append(token)
        self._wake()

    def collect(self) -> list[int]:
        with self._lock:
            told, self._told = self._told, []
        self._load -= sum(not token & BEGUN_FLAG for token in told)
        return told

    def tend(self, now: float) -> bool:
        """Nothing: it lives as long as the gate."""
        return False

    def hang_up(self) -> None:
        self._child.hang_up()

    def close(self) -> None:
        def drain() -> None:
            self._child.drain()
            self._drained.set()

        threading.Thread(target=drain, daemon=True).start()

    def kill(self) -> None:
        """Nothing more can be done: the process is about to exit."""

    def shown(self) -> dict[str, Any]:
        return {"slot": 0, "pid": None, "ready": True, "open": self._load, "starts": 1}
