"""The audit trail to an audit record repository by syslog, in the background: it never holds anybody up.

Flow: a thread of the web role reads entries behind the position kept in the database, sends them, then moves the
position. A repository that is away costs nothing but time: the entries stay. UDP cannot say what arrived; over TCP and
TLS entries that were in flight when the connection broke may come twice. Imports the audit trail and audit_message.
Changes when entries go another way. Source: RFC 5424, 5425, 5426, 6587 3.4.1; PS3.15 A.6, A.7.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from interface.audit_message import render
from interface.outbound import build_tls_context
from internal import audit_trail
from internal.errors import ConfigurationInvalid, DatabaseTooNew, RouterError
from internal.ports import Clock
from internal.store import Store

log = logging.getLogger("router.audit")

_BATCH = 100
_LEASE_MS = 60_000
_LOOK_S = 1.0
_LONGEST_PAUSE_S = 300.0
_SOCKET_S = 10.0
#: A burst of datagrams overruns the receiver's buffer, and nobody would know.
_BETWEEN_DATAGRAMS_S = 0.002
#: Facility 10 (security), severity 5 (notice). Source: PS3.15 A.6.
_PRIORITY = 10 * 8 + 5
#: What receivers should take (RFC 5425 4.3.1), and less than the largest datagram of any system.
_LONGEST_MESSAGE = 8192


def syslog_lines(entry: audit_trail.Entry, host: str) -> list[bytes]:
    """Return the entry as one message, or as several with some of its studies each where one would be too long."""
    line, studies = syslog_line(entry, host), entry.fields.get("studies")
    if len(line) <= _LONGEST_MESSAGE or entry.study_uid or not isinstance(studies, list) or len(studies) < 2:
        return [line]
    half = len(studies) // 2
    return [part for some in (studies[:half], studies[half:])
            for part in syslog_lines(replace(entry, fields={**entry.fields, "studies": some}), host)]


def syslog_line(entry: audit_trail.Entry, host: str) -> bytes:
    """Return one syslog message (RFC 5424) with the DICOM audit message as its text."""
    at = datetime.fromtimestamp(entry.at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    head = f"<{_PRIORITY}>1 {at} {host or '-'} dicom-router {os.getpid()} DICOM+RFC3881 - "
    return head.encode("ascii", "replace") + render(entry).encode("ascii")


class Wire:
    """The way to one repository: udp, tcp or tls; opened at the first message, again after a fault."""

    def __init__(self, url: str, ca_file: Path | None) -> None:
        parts = urlsplit(url)
        self._scheme, self._host, self._port = parts.scheme, parts.hostname or "", parts.port or 0
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None
        self._socket: socket.socket | None = None

    def send(self, messages: Sequence[bytes]) -> None:
        """Send all of them. Raises OSError when the repository cannot be reached or has closed the connection."""
        try:
            if self._socket is None:
                self._socket = self._open()
            if self._scheme == "udp":
                for message in messages:
                    self._socket.send(message)
                    time.sleep(_BETWEEN_DATAGRAMS_S)
                return
            self._socket.sendall(b"".join(b"%d %b" % (len(message), message) for message in messages))
            if self._is_closed(self._socket):
                raise ConnectionResetError("the repository closed the connection")
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> socket.socket:
        if self._scheme == "udp":
            family, kind, protocol, _, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)[0]
            sock = socket.socket(family, kind, protocol)
            sock.connect(address)
            return sock
        sock = socket.create_connection((self._host, self._port), timeout=_SOCKET_S)
        if self._scheme == "tcp":
            return sock
        try:
            self._tls = self._tls or build_tls_context(self._ca_file)
            return self._tls.wrap_socket(sock, server_hostname=self._host)
        except BaseException:
            sock.close()
            raise

    @staticmethod
    def _is_closed(sock: socket.socket) -> bool:
        """Return whether the other side has ended: nobody ever answers on a syslog connection."""
        sock.settimeout(0)
        try:
            return not sock.recv(4096)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        finally:
            sock.settimeout(_SOCKET_S)


class Exporter:
    """Sends what is new, forever; one thread."""

    def __init__(
        self, store: Callable[[], Store], clock: Clock, url: str, ca_file: Path | None, owner: str,
    ) -> None:
        self._store = store
        self._clock = clock
        self._name = url
        self._owner = owner
        self._wire = Wire(url, ca_file)
        self._host = socket.gethostname()

    def run(self, ended: threading.Event) -> None:
        """Send until `ended`; a fault is logged once and tried again, up to every five minutes."""
        pause_s, told = _LOOK_S, False
        while not ended.is_set():
            try:
                more = self.step()
                pause_s, told = (0.0 if more else _LOOK_S), False
            except (ConfigurationInvalid, DatabaseTooNew) as fault:
                log.error("audit export to %s has stopped: %s", self._name, fault)
                return
            except (OSError, RouterError) as fault:
                if not told:
                    log.warning("audit export to %s waits: %s", self._name, fault)
                pause_s, told = min(max(pause_s, _LOOK_S) * 2, _LONGEST_PAUSE_S), True
            ended.wait(pause_s)
        self._wire.close()

    def step(self) -> bool:
        """Send one batch and move the position; return whether there may be more. Raises OSError, RouterError."""
        store, now = self._store(), self._clock.now_ms()
        with store.reading() as tx:
            if audit_trail.exported(tx, self._name) >= audit_trail.head(tx)[0]:
                return False
        with store.transaction() as tx:
            position = audit_trail.claim_export(tx, self._name, self._owner, tx.clock_ms(now), _LEASE_MS)
        if position is None:
            return False
        with store.reading() as tx:
            entries = audit_trail.entries_after(tx, position, _BATCH)
        if not entries:
            return False
        self._wire.send([line for entry in entries for line in syslog_lines(entry, self._host)])
        with store.transaction() as tx:
            audit_trail.advance_export(tx, self._name, self._owner, entries[-1].seq)
        return len(entries) == _BATCH
