"""One receive child: takes sockets from the gate, a thread per association, and says every few seconds how it is.

Imports association, records, services, store lane and the spool. It ends when the gate's channel closes, after the
instances in hand are answered. Changes when the life of a receive process changes.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from interface.dimse import messages
from interface.dimse.association import Association, Receiver
from interface.dimse.commitment import commitment, commitment_answer, only_from
from interface.dimse.counters import Counters
from interface.dimse.negotiation import STORAGE_COMMITMENT, VERIFICATION
from interface.dimse.policy import PolicyFile, Reload
from interface.dimse.records import Refusals, Register, now_ms
from interface.dimse.services import Services, echo
from interface.dimse.settings import ReceiveSettings
from interface.dimse.store_lane import StoreLane
from interface.dimse.stream import nothing
from interface.dimse.tls import ServerTls, shake_hands
from internal.errors import RouterError
from internal.peers import canonical
from internal.spool import Spool

TOKEN: Final = struct.Struct("<Q")  #: what the gate calls a connection; 0 from the child means "ready"
TLS_FLAG: Final = 1 << 62  #: in the token of a connection that begins with a TLS handshake
BEGUN_FLAG: Final = 1 << 61  #: from the child, in the token of one over TLS: it has an association now
_PUBLISH_EVERY_S: Final = 2.0
_PUBLISH_UNCHANGED_S: Final = 6.0  #: writing a file is most of what an idle child costs
_AFTER_CUT_S: Final = 1.0
_REFUSALS_EVERY_S: Final = 60.0
_STACK_BYTES: Final = 512 * 1024

log = logging.getLogger("router.dimse")


class ReceiveChild:
    """The associations of one slot of the spool. Raises AlreadyRunning if another process has the slot."""

    def __init__(
        self, settings: ReceiveSettings, spool: Spool, slot: int, reload: Reload | None = None,
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._published_name = f"receive-{slot}.json"
        self._tls = ServerTls(settings)
        self._reload = threading.Event()
        self._writer = spool.writer(f"receive-{slot}")
        callers, nodes = frozenset(settings.commitment_callers), frozenset(settings.commitment_nodes)
        services = Services(
            {messages.C_ECHO_RQ: echo, messages.N_EVENT_REPORT_RQ: only_from(nodes, commitment_answer(self._writer)),
             messages.N_ACTION_RQ: commitment(
                 self._writer, callers, frozenset(settings.commitment_same_association))}, frozenset({VERIFICATION}),
            {aet: {STORAGE_COMMITMENT: (aet in callers, aet in nodes)} for aet in callers | nodes},
        )
        self._receiver = Receiver(
            policy=PolicyFile(spool, settings, reload),
            lane=StoreLane(self._writer, settings.max_object_bytes),
            services=services,
            register=Register(self._writer),
            refusals=Refusals(),
            counters=Counters(),
            reports=spool.reports,
        )
        self._lock = threading.Condition()
        self._open: set[Association] = set()
        self._closing = self._draining = False
        self._poke = threading.Event()
        self._published: dict[str, Any] = {}
        self._published_s = float("-inf")
        self._receiver.reports.sweep(self._writer.slot)
        self._receiver.register.slot_restarted()
        self._writer.prepare()  # also the first image finds a file that lies ready
        self._publish()
        self._ticker = threading.Thread(target=self._tick, name="publish", daemon=True)
        self._ticker.start()

    def adopt(
        self, sock: socket.socket, on_closed: Callable[[], None], on_begun: Callable[[], None] | None = None,
    ) -> None:
        """Serve the connection in a thread of its own; `on_closed` is called there at its end.

        With `on_begun` it is served over TLS, and that is called when it has an association.
        """
        if on_begun is not None:
            self._start(lambda: self._serve_tls(sock, on_begun, on_closed), sock.close, on_closed)
        elif association := self._begin(sock):
            self._start(lambda: self._serve(association, on_closed), lambda: self._turn_away(association), on_closed)
        else:
            on_closed()

    def _begin(self, sock: socket.socket, on_begun: Callable[[], None] = nothing) -> Association | None:
        try:
            association = Association(sock, self._receiver, on_begun)
        except OSError:  # the peer has gone already
            sock.close()
            return None
        with self._lock:
            self._open.add(association)
        return association

    def _start(self, serve: Callable[[], None], turn_away: Callable[[], None], on_closed: Callable[[], None]) -> None:
        try:
            threading.Thread(target=serve, daemon=True).start()
        except RuntimeError:  # no more threads: refuse this one, keep the others
            log.error("no thread for another association")
            turn_away()
            on_closed()

    def _turn_away(self, association: Association) -> None:
        association.refuse()
        with self._lock:
            self._open.discard(association)

    def _serve_tls(self, sock: socket.socket, on_begun: Callable[[], None], on_closed: Callable[[], None]) -> None:
        peer, association = "", None
        try:
            peer = canonical(sock.getpeername()[0])  # fails where the peer has reset the connection already
            if (context := self._tls.current) is None:
                sock.close()
            else:
                seconds = self._receiver.policy.current.settings.association_timeout_s
                association = self._begin(shake_hands(sock, context, seconds), on_begun)
        except OSError as error:
            self._receiver.counters.add("failed_handshakes")
            if self._receiver.refusals.add(peer, "", "", "TLS"):
                log.warning("TLS handshake with %s failed: %s", peer, getattr(error, "reason", None) or error)
            sock.close()
        if association is None:
            on_closed()
            return
        if self._draining:
            association.stop()
        self._serve(association, on_closed)

    def _serve(self, association: Association, on_closed: Callable[[], None]) -> None:
        try:
            association.run()
        finally:
            with self._lock:
                self._open.discard(association)
                self._lock.notify_all()
            on_closed()

    def hang_up(self) -> None:
        """Read limits, run/policy.json and certificate anew, in the publishing thread. Safe from other threads."""
        self._reload.set()
        self._poke.set()

    def _refresh_policy(self) -> None:
        self._receiver.policy.refresh()
        self._receiver.lane.max_object_bytes = self._receiver.policy.current.settings.max_object_bytes

    def drain(self) -> None:
        """Let every instance in hand be answered, for at most `drain_s`; then leave. Nothing new may be adopted."""
        deadline = time.monotonic() + self._settings.drain_s
        self._draining = True
        with self._lock:
            associations = list(self._open)
        for association in associations:
            association.stop()
        with self._lock:
            self._lock.wait_for(lambda: not self._open, max(deadline - time.monotonic(), 0))
            left = list(self._open)
        if left:
            log.warning("%d associations are cut off after the drain time", len(left))
            for association in left:
                association.cut()
            with self._lock:
                self._lock.wait_for(lambda: not self._open, _AFTER_CUT_S)
        self._closing = True
        self._poke.set()
        self._ticker.join()
        self._receiver.refusals.flush(self._writer)
        self._publish()
        with self._lock:
            if not self._open:  # else the slot is given back by the end of the process, when nobody can answer any more
                self._writer.close()

    def _tick(self) -> None:
        flush_at = time.monotonic() + _REFUSALS_EVERY_S
        while True:
            self._poke.wait(_PUBLISH_EVERY_S)
            self._poke.clear()
            if self._closing:
                return
            if reloading := self._reload.is_set():
                self._reload.clear()
                self._receiver.policy.reload(quiet=True)  # the gate tells
            self._refresh_policy()
            self._writer.tidy()
            if reloading and self._tls.reload() and self._tls.current is not None:
                log.info("the TLS certificate was read again")
            self._publish(at_once=reloading)
            if time.monotonic() >= flush_at:
                flush_at = time.monotonic() + _REFUSALS_EVERY_S
                self._receiver.refusals.flush(self._writer)

    def _publish(self, *, at_once: bool = False) -> None:
        alive_at, register = now_ms(), self._receiver.register  # never younger than what stands beside it
        document = {
            "pid": os.getpid(), "slot": self._writer.slot, "boot": register.boot,
            "open_associations": len(self._open), "associations": register.shown(),
            "read_only": self._writer.read_only, "counters": self._receiver.counters.shown(),
            "tls_certificate": self._tls.fingerprint,
        }  # fmt: skip
        now_s = time.monotonic()
        if not at_once and document == self._published and now_s - self._published_s < _PUBLISH_UNCHANGED_S:
            return
        try:
            self._spool.publish(self._published_name, json.dumps(document | {"alive_at": alive_at}).encode("ascii"))
            self._published, self._published_s = document, now_s
        except RouterError as error:
            log.warning("run/%s could not be written: %s", self._published_name, error)


def run_child(settings: ReceiveSettings, spool_root: Path, slot: int, reload: Reload | None = None) -> int:
    """Serve slot `slot` with the connections that come over standard input (a socket to the gate) until it closes."""
    if sys.platform == "win32":
        raise NotImplementedError("Windows has one receive process")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # in every thread: one waits for it
    threading.stack_size(_STACK_BYTES)
    channel = socket.socket(fileno=os.dup(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the gate as well, which tells us
    signal.signal(signal.SIGTERM, lambda *_: channel.shutdown(socket.SHUT_RD))
    spool = Spool.open(
        spool_root, fsync=settings.fsync, create=False, min_free_bytes=settings.min_free_bytes,
    )  # fmt: skip
    child = ReceiveChild(settings, spool, slot, reload)
    threading.Thread(target=_hang_up_when_told, args=(child,), name="hang-up", daemon=True).start()
    telling = threading.Lock()

    def tell(token: int) -> None:
        with telling:
            try:
                channel.sendall(TOKEN.pack(token))
            except OSError:
                pass  # the gate is gone: so are we, soon

    gc.freeze()  # what was loaded at start stays: it need not be looked through while a sender waits
    tell(0)
    _adopt_all(channel, child, tell)
    child.drain()
    return 0


def _hang_up_when_told(child: ReceiveChild) -> None:
    """No handler: one that the next SIGHUP interrupts would wait for its own lock, and nobody would be served."""
    if sys.platform != "win32":
        while True:
            signal.sigwait({signal.SIGHUP})
            child.hang_up()


def _adopt_all(channel: socket.socket, child: ReceiveChild, tell: Callable[[int], None]) -> None:
    while True:
        try:
            data, fds, _, _ = socket.recv_fds(channel, TOKEN.size, 1)
        except OSError:
            return
        if not data:
            return
        (token,) = TOKEN.unpack(data)
        if not fds:  # lost on the way, because this process has no free descriptor
            tell(token)
        for fd in fds:
            child.adopt(socket.socket(fileno=fd), partial(tell, token),
                        partial(tell, token | BEGUN_FLAG) if token & TLS_FLAG else None)
