"""The parent of the role processes: starts them, restarts them, ends them; holds no database and no DICOM socket.

Children are started with Popen of the same program, never forked, and end when their standard input closes, so that a
killed supervisor leaves nobody on the ports. Changes when the set of roles or their care changes.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from interface.roles import EXIT_CANNOT_START, stop_on_signals

log = logging.getLogger("router.supervisor")

STOP_S = 25.0
_BACKOFF_MIN_S = 0.5
_BACKOFF_MAX_S = 30.0
_HEALTHY_AFTER_S = 10.0
_TICK_S = 0.5


@dataclass(slots=True)
class _Child:
    role: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    start_at_s: float = 0.0
    failures: int = 0
    #: Has it ever run for long enough to count as having started?
    was_healthy: bool = False
    extra: dict[str, str] = field(default_factory=dict)


class Supervisor:
    """Keeps one process per role alive until told to stop."""

    def __init__(self, commands: Sequence[tuple[str, Sequence[str]]]) -> None:
        self._children = [_Child(role, command) for role, command in commands]
        self._stop = threading.Event()
        self._hangup = False  # no Event: a handler that the next SIGHUP interrupts would wait for its own lock

    def run(self) -> int:
        """Run until SIGTERM or SIGINT (exit 0), or until a role says that it cannot start (its exit status)."""
        self._listen()
        _notify("READY=1")
        status = 0
        while not self._stop.is_set():
            fatal = self._tick()
            if fatal is not None:
                status = fatal
                break
            self._stop.wait(_TICK_S)
        _notify("STOPPING=1")
        self._end_all()
        return status

    def _listen(self) -> None:
        def hang_up(_signum: int, _frame: object) -> None:
            self._hangup = True

        stop_on_signals(self._stop, at_once=self._kill_all)
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, hang_up)

    def _kill_all(self) -> None:
        for child in self._children:
            if child.process is not None:
                child.process.kill()

    def _tick(self) -> int | None:
        """Look after every child once; return an exit status when the whole program must end."""
        if self._hangup:
            self._hangup = False
            self._forward_hangup()
        for child in self._children:
            if child.process is None:
                if time.monotonic() >= child.start_at_s:
                    self._start(child)
                continue
            status = child.process.poll()
            if status is None:
                if time.monotonic() - child.started_s > _HEALTHY_AFTER_S:
                    child.was_healthy, child.failures = True, 0
                continue
            if status == EXIT_CANNOT_START and not child.was_healthy:
                return status
            self._schedule(child, status)
        _notify("WATCHDOG=1")
        return None

    def _start(self, child: _Child) -> None:
        child.started_s = time.monotonic()
        try:
            child.process = subprocess.Popen(child.command, stdin=subprocess.PIPE)
        except OSError as error:  # no memory, no process left: that must not end the roles that run
            self._schedule(child, error.strerror or type(error).__name__)
            return
        log.info("Role started", extra={"fields": {"role": child.role, "pid": child.process.pid}})

    def _schedule(self, child: _Child, status: int | str) -> None:
        _close_pipe(child)
        delay_s = min(_BACKOFF_MIN_S * 2**child.failures, _BACKOFF_MAX_S)
        child.failures += 1
        child.process, child.start_at_s = None, time.monotonic() + delay_s
        log.error(
            "Role ended; it is started again",
            extra={"fields": {"role": child.role, "status": status, "in_s": delay_s}},
        )

    def _forward_hangup(self) -> None:
        for child in self._children:
            if child.process is not None and child.process.poll() is None:
                child.process.send_signal(signal.SIGHUP)

    def _end_all(self) -> None:
        """SIGTERM to all, STOP_S to finish what is in hand, then SIGKILL."""
        running = [child for child in self._children if child.process is not None]
        for child in running:
            assert child.process is not None
            if child.process.poll() is None:
                child.process.terminate()
        deadline_s = time.monotonic() + STOP_S
        for child in running:
            assert child.process is not None
            try:
                child.process.wait(max(0.1, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("Role did not end in time; it is killed", extra={"fields": {"role": child.role}})
                child.process.kill()
                child.process.wait()
            _close_pipe(child)


def _close_pipe(child: _Child) -> None:
    if child.process is not None and child.process.stdin is not None:
        child.process.stdin.close()


def _notify(state: str) -> None:
    """Tell systemd, if it started us (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address or not hasattr(socket, "AF_UNIX"):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        try:
            channel.sendto(state.encode(), address)
        except OSError:
            # A service manager that went away must not take the router with it.
            return
