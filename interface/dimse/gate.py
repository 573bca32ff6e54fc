"""The gate: listens, counts, refuses what is over the caps before anything is built, and hands sockets to the children.

Imports child (for its protocol), waiting room, records and settings. One thread; it looks at a first PDU's header and
reads nothing of who is handed over. Changes when the way connections are shared out changes.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from interface.dimse.backends import Backend, ChildProcess, InProcess
from interface.dimse.child import BEGUN_FLAG, TLS_FLAG
from interface.dimse.counters import Counters
from interface.dimse.lobby import Lobby
from interface.dimse.pdu import (
    LOCAL_LIMIT_EXCEEDED,
    TEMPORARY_CONGESTION,
    PduError,
    Rejection,
    build_abort,
    build_associate_rj,
)
from interface.dimse.policy import PolicyFile, Reload
from interface.dimse.records import Refusals, now_ms
from interface.dimse.seats import Seats
from interface.dimse.settings import ReceiveSettings
from interface.dimse.waiting_room import Newcomer, WaitingRoom
from interface.logs import PHRASES
from internal.errors import SHORTAGES, ConfigurationInvalid, RouterError
from internal.peers import canonical
from internal.spool import Spool

_BACKLOG: Final = 512
_RECEIVE_BUFFER_BYTES: Final = 1024 * 1024
_TICK_S: Final = 0.5
_IDLE_TICK_S: Final = 1.0  #: waking up is most of what an idle gate costs
_PUBLISH_EVERY_S: Final = 5.0
_REFUSALS_EVERY_S: Final = 60.0
_ACCEPT_AT_ONCE: Final = 64
_PENDING_S: Final = 5.0
_PENDING_TICK_S: Final = 0.01
_BY_CLOCK_TICK_S: Final = 0.05
_AFTER_DRAIN_S: Final = 3.0
_SHORTAGE_S: Final = 0.02

log = logging.getLogger("router.dimse")


def listen(bind: Sequence[str], port: int, setting: str) -> list[socket.socket]:
    """Return a listening socket per address; raises ConfigurationInvalid, naming `setting`, if the port is taken.

    An address family that this machine does not have is left out, if another one is there.
    """
    sockets: list[socket.socket] = []
    for address in bind:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            continue
        try:
            _bind(sock, family, address, port)
        except OSError as error:
            sock.close()
            if family == socket.AF_INET6 and sockets:
                log.info("not listening on %s: %s", address, error.strerror)
                continue
            for other in sockets:
                other.close()
            raise ConfigurationInvalid(
                f"DICOM port {port} on {address} cannot be opened ({error.strerror}): end the program that uses it or "
                f"set another {setting} in router.conf"
            ) from None
        port = sock.getsockname()[1]
        sockets.append(sock)
    return sockets


def _bind(sock: socket.socket, family: int, address: str, port: int) -> None:
    if sys.platform != "win32":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)  # inherited, before the handshake
    sock.bind((address, port))
    sock.listen(_BACKLOG)
    sock.setblocking(False)


@dataclass(frozen=True, slots=True)
class _Pending:
    """A connection that has called and that no child has taken yet; `deadline` by the monotonic clock."""

    deadline: float
    token: int
    newcomer: Newcomer


class Gate:
    """The gate of one node. run() returns when it has been told to stop and the children have drained."""

    def __init__(
        self, settings: ReceiveSettings, spool: Spool, child_argv: Callable[[int], Sequence[str]] | None,
        reload: Reload | None = None,
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._policy = PolicyFile(spool, settings, reload)
        self._selector = selectors.DefaultSelector()
        self._lobby = Lobby(self._selector)
        self._waiting = WaitingRoom(self._selector, called=self._admit, broke=self._abort, stalled=self._note_stalled)
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._woken)
        self._writer = spool.writer("receive-gate")
        spool.take_in_leftovers()
        self._refusals = Refusals()
        self._counters = Counters()
        self._seats = Seats()
        self._listeners: list[socket.socket] = []
        self._tls_listeners: list[socket.socket] = []
        self._pending: deque[_Pending] = deque()
        self._stops = 0
        self._hangups = 0
        self._next_token = 1
        self._rotation = 0
        self._publish_at = 0.0
        self._flush_at = time.monotonic() + _REFUSALS_EVERY_S
        self.backends: list[Backend] = []
        if child_argv is None:
            self.backends.append(InProcess(settings, spool, self._wake, reload))
        else:
            self.backends.extend(
                ChildProcess(slot, child_argv(slot), self._selector) for slot in range(max(settings.children, 1))
            )

    # -- being told ------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Stop accepting and drain; a second call ends at once. Safe in a signal handler and from other threads."""
        self._stops += 1
        self._wake()

    def leave(self) -> None:
        """Stop accepting and drain; more calls change nothing. Safe from other threads."""
        self._stops = max(self._stops, 1)
        self._wake()

    def hang_up(self) -> None:
        """Read limits and run/policy.json anew, in the children the certificate too. Safe in a signal handler."""
        self._hangups += 1
        self._wake()

    def _wake(self) -> None:
        try:
            self._wake_writer.send(b"x")
        except OSError:
            pass  # full of wake-ups already

    def _woken(self) -> None:
        try:
            while self._wake_reader.recv(4096):
                pass
        except BlockingIOError:
            pass

    # -- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until stop(); returns the exit code. Raises ConfigurationInvalid if the port is taken."""
        try:
            while not self._stops:
                self._turn()
                if not self._listeners and any(backend.ready for backend in self.backends):
                    self._open_port()
        finally:
            self._close_port()
            self._drain()
        return 0

    def _turn(self) -> None:
        now = time.monotonic()
        died = [backend.tend(now) for backend in self.backends]
        if any(died):
            self._take_in_leftovers()
        self._collect()
        self._lobby.tend(now)
        self._waiting.tend(now)
        if self._hangups:
            self._hangups = 0
            self._publish_at = 0.0
            self._policy.reload()
            for backend in self.backends:
                backend.hang_up()
        if now >= self._publish_at:
            self._publish_at = now + _PUBLISH_EVERY_S
            self._policy.refresh()
            self._publish()
        if now >= self._flush_at:
            self._flush_at = now + _REFUSALS_EVERY_S
            self._refusals.flush(self._writer)
            self._take_in_leftovers()
        self._place_pending()
        for key, _ in self._selector.select(self._rest_s()):
            key.data()

    def _rest_s(self) -> float:
        """Return how long nothing needs to be looked after unless a socket says so."""
        if self._pending:
            return _PENDING_TICK_S
        if self._waiting.looks_by_clock():
            return _BY_CLOCK_TICK_S
        is_idle = not self._waiting and not self._lobby and all(backend.ready for backend in self.backends)
        return _IDLE_TICK_S if is_idle else _TICK_S

    def _take_in_leftovers(self) -> None:
        """Bring what a child that died had answered into new/, whether it is started again or not."""
        threading.Thread(target=self._spool.take_in_leftovers, name="leftovers", daemon=True).start()

    def _open_port(self) -> None:
        """Only once a child has recovered: nobody is let in who cannot be served."""
        settings = self._settings
        self._listeners = listen(settings.bind, settings.port, "dicom_port")
        if settings.tls_port is not None:
            self._tls_listeners = listen(settings.bind, settings.tls_port, "tls_port")
        for listener in (*self._listeners, *self._tls_listeners):
            tls = listener in self._tls_listeners
            self._selector.register(listener, selectors.EVENT_READ, self._acceptor(listener, tls=tls))
        self._publish_at = 0.0
        port, titles = self._listeners[0].getsockname()[1], ", ".join(self._settings.ae_titles)
        log.info(PHRASES["spawning_dicom"].format(port=port, ae_title=titles))

    def _acceptor(self, listener: socket.socket, *, tls: bool) -> Callable[[], None]:
        def accept() -> None:
            for _ in range(_ACCEPT_AT_ONCE):
                try:
                    sock, address = listener.accept()
                except BlockingIOError:
                    return
                except OSError as error:
                    if error.errno in SHORTAGES and not self._waiting.make_room():
                        time.sleep(_SHORTAGE_S)  # the listener stays readable: without a rest the loop would spin
                    return
                limits = self._policy.current.settings
                came = self._waiting.admit(sock, canonical(str(address[0])), limits, tls=tls)
                self._counters.add("connections" if came else "empty_connections")

        return accept

    def _admit(self, one: Newcomer) -> bool:
        """Take a connection in that has called, or refuse it: the caps count these. False if it has to wait on."""
        limits = self._policy.current.settings
        if self._seats.full(one.address, limits):
            self._collect(now_first=True)
        if full := self._seats.full(one.address, limits):
            if (other := self._seats.next_to_go(one.address, limits)) is None:
                self._refuse(one, LOCAL_LIMIT_EXCEEDED, full)
                return True
            if not self._seats.give_way(other):
                return False
        token = self._next_token | (TLS_FLAG if one.tls else 0)
        self._next_token += 1
        self._seats.take(token, one.address)
        self._pending.append(_Pending(time.monotonic() + _PENDING_S, token, one))
        self._place_pending()
        return True

    def _abort(self, one: Newcomer, error: PduError) -> None:
        self._note_fault(one.address, str(error))
        self._lobby.refuse(one.sock, build_abort(error.abort))

    def _note_stalled(self, address: str) -> None:
        self._note_fault(address, "the peer stopped sending")

    def _note_fault(self, address: str, what: str) -> None:
        if self._refusals.add(address, "", "", what):
            log.warning("connection from %s ended: %s", address, what)

    def _place_pending(self) -> None:
        """Hand connections over in the order they came; what no child takes in time is refused.

        A child that is behind in taking its sockets (a burst) refuses for a moment only: the channel is full.
        """
        while self._pending:
            first = self._pending[0]
            placed = self._hand_over(first)
            if not placed and time.monotonic() < first.deadline and any(backend.ready for backend in self.backends):
                return
            self._pending.popleft()
            if not placed:
                self._seats.ended(first.token)
                self._refuse(first.newcomer, TEMPORARY_CONGESTION, "no receive process is ready")

    def _collect(self, *, now_first: bool = False) -> None:
        for backend in self.backends:
            if now_first:
                backend.listen()
            for token in backend.collect():
                if token & BEGUN_FLAG:
                    self._seats.begun(token & ~BEGUN_FLAG)
                else:
                    self._seats.ended(token)

    def _hand_over(self, pending: _Pending) -> bool:
        self._rotation += 1
        sock = pending.newcomer.sock
        count = len(self.backends)
        order = sorted(range(count), key=lambda i: (self.backends[i].load, (i + self._rotation) % count))
        for index in order:
            if self.backends[index].offer(sock, pending.token):
                if pending.newcomer.tls:
                    self._seats.watch(pending.token, sock)
                else:
                    sock.close()
                return True
        return False

    def _refuse(self, one: Newcomer, rejection: Rejection, why: str) -> None:
        self._counters.add("refused_connections")
        if self._refusals.add(one.address, "", "", str(rejection)):
            log.warning("connections from %s are refused (%s): %s", one.address, rejection, why)
        if one.tls:  # it could not read a rejection in the clear, and no handshake is worth one
            one.sock.close()
        else:
            self._lobby.refuse(one.sock, build_associate_rj(rejection))

    # -- the end ---------------------------------------------------------------------------------------------------

    def _close_port(self) -> None:
        for listener in (*self._listeners, *self._tls_listeners):
            self._selector.unregister(listener)
            listener.close()
        self._lobby.close()
        self._waiting.close()
        self._seats.close()
        for pending in self._pending:
            pending.newcomer.sock.close()

    def _drain(self) -> None:
        asked = self._stops
        for backend in self.backends:
            backend.close()
        deadline = time.monotonic() + self._settings.drain_s + _AFTER_DRAIN_S
        while any(backend.alive for backend in self.backends):
            if time.monotonic() >= deadline or self._stops > max(asked, 1):
                for backend in self.backends:
                    backend.kill()
                break
            for key, _ in self._selector.select(0.05):
                key.data()
        self._refusals.flush(self._writer)
        self._writer.close()

    def _publish(self) -> None:
        document = {
            "alive_at": now_ms(), "pid": os.getpid(), "slot": "receive-gate",
            "port": self._listeners[0].getsockname()[1] if self._listeners else None,
            "tls_port": self._tls_listeners[0].getsockname()[1] if self._tls_listeners else None,
            "listening": [sock.getsockname()[0] for sock in self._listeners], "open": len(self._seats),
            "waiting": len(self._waiting),
            "children": [backend.shown() for backend in self.backends], "counters": self._counters.shown(),
        }  # fmt: skip
        try:
            self._spool.publish("receive.json", json.dumps(document).encode("ascii"))
        except RouterError as error:
            log.warning("run/receive.json could not be written: %s", error)


def stop_when_stdin_closes(stop: Callable[[], None]) -> None:
    """Call `stop` once standard input ends: the supervisor that held the other end of the pipe is gone."""

    def watch() -> None:
        try:
            while os.read(0, 4096):
                pass
        except OSError:
            pass
        stop()

    threading.Thread(target=watch, name="supervisor", daemon=True).start()


def handle_signals(gate: Gate) -> None:
    """SIGTERM and SIGINT drain, SIGHUP re-reads policy, limits and certificate; only in the main thread."""
    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: gate.stop())
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: gate.hang_up())
