"""Child processes of the demo: free ports, a log file for each, waiting with a deadline, a clean stop.

Standard library only. Changes when the demo has to start something new.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
STOP_AFTER_S = 30.0  # the router gives its own roles 25 s
#: Environment names that would change the throwaway configuration of a demo (the official container's among them).
FOREIGN_ENVIRONMENT = ("AE_TITLE", "ORG_ID", "CLIENT", "SECRET", "URL", "ORGANIZATION_ID", "CLIENT_KEY", "SECRET_KEY",
                       "API_URL", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET")  # fmt: skip
FOREIGN_PREFIXES = ("ROUTER_", "WEBHOOK_")


class DemoFailed(Exception):
    """The demo cannot go on; the text says why."""


def free_port(wanted: int, taken: Sequence[int] = ()) -> int:
    """Return `wanted` if nothing listens there, else a free port; never one of `taken`."""
    for port in (wanted, *[0] * 20):
        if port in taken:
            continue
        with socket.socket() as probe:
            if os.name != "nt":  # on Windows this option lets two programs share a port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
                probe.listen(1)  # two binds may agree, two listeners never do
            except OSError:
                continue
            found = int(probe.getsockname()[1])
        if found not in taken:
            return found
    raise DemoFailed(f"no free port in place of {wanted}")


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return `environ` without what would override the demo's configuration or send loopback traffic to a proxy."""
    kept = {
        name: value
        for name, value in environ.items()
        if name.removesuffix("_FILE") not in FOREIGN_ENVIRONMENT and not name.startswith(FOREIGN_PREFIXES)
    }
    return {**kept, "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost", "PYTHONUNBUFFERED": "1"}


def command_line(*arguments: str) -> list[str]:
    """Return the command that runs `main.py` with `arguments` in this interpreter."""
    return [sys.executable, str(ROOT / "main.py"), *arguments]


class Process:
    """A running `main.py` command whose output goes to `log`; its own session, so that Ctrl-C reaches only the demo."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        self._file: IO[bytes] = log.open("wb")
        # A pipe on stdin that is never written: it closes when the demo dies, however it dies.
        self._popen = subprocess.Popen(
            command_line(*arguments),
            stdin=subprocess.PIPE,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            env=clean_environment(os.environ),
            start_new_session=os.name != "nt",
        )

    def check(self) -> None:
        """Raise DemoFailed if the process has ended."""
        if (code := self._popen.poll()) is not None:
            raise DemoFailed(f"the {self.name} ended with exit code {code}")

    def stop(self) -> None:
        """End the process: SIGTERM, and after STOP_AFTER_S SIGKILL; safe to call twice."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            try:
                self._popen.wait(STOP_AFTER_S)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()
        if self._popen.stdin:
            self._popen.stdin.close()
        self._file.close()

    def tail(self, lines: int) -> list[str]:
        """Return the last `lines` lines of the log."""
        return self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]


def wait_for(what: str, ready: Callable[[], bool], processes: Sequence[Process], deadline: float) -> None:
    """Return once `ready()`; DemoFailed when a process ends or `deadline` (time.monotonic) passes."""
    while not ready():
        for process in processes:
            process.check()
        if time.monotonic() > deadline:
            raise DemoFailed(f"waited too long for {what}")
        time.sleep(0.1)


@dataclass
class Folder:
    """A folder that no other demo uses; `borrowed` is a temporary one, taken because another demo runs."""

    path: Path
    borrowed: bool
    _lock: IO[str]

    def release(self) -> None:
        """Let the next demo have it; a borrowed one is removed."""
        self._lock.close()
        if self.borrowed:
            shutil.rmtree(self.path, ignore_errors=True)


def claim_folder(wanted: Path) -> Folder:
    """Return `wanted`, emptied, or a temporary folder if another demo holds it."""
    wanted.mkdir(parents=True, exist_ok=True)
    lock = (wanted / "lock").open("w")
    if not _locked(lock):
        lock.close()
        other = Path(tempfile.mkdtemp(prefix="dicom-router-demo-"))
        return Folder(other, True, (other / "lock").open("w"))
    for entry in wanted.iterdir():
        if entry.name != "lock":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return Folder(wanted, False, lock)


def _locked(lock: IO[str]) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def listens(port: int) -> bool:
    """Return whether a TCP connection to `port` on this machine is accepted."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
