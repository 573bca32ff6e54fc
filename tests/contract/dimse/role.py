"""The receive role as a real process on a free port, with its spool, for tests."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from internal.dicomfile import read_meta
from internal.empty_files import MAX_EMPTY
from internal.spool import Entry, EntryKind, Spool

ROOT = Path(__file__).parents[3]
MOST_BYTES = 100_000_000  #: what gate and children together may take over what they have when nobody is there
T = TypeVar("T")


def until(condition: Callable[[], T], seconds: float = 20.0, what: str = "") -> T:
    """Return the first true value of `condition`; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, what or "the condition did not come true in time"
        time.sleep(0.01)


class Role:
    """A running ``python -m interface.dimse``."""

    def __init__(
        self, root: Path, *, environment: dict[str, str] | None = None, prefix: list[str] | None = None,
        wait: bool = True, **settings: Any,
    ) -> None:  # fmt: skip
        self.root = root
        settings = {"port": 0, "bind": ["127.0.0.1"], "children": 1, **settings}
        self.log_path = root.with_suffix(".log")
        command = [*(prefix or []), sys.executable, "-m", "interface.dimse", "--spool", str(root), "--verbose",
                   "--settings-json", json.dumps(settings)]  # fmt: skip
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stderr=log, env={**os.environ, **(environment or {})},
            )  # fmt: skip
        self.port = 0
        if wait:
            self.port = until(self._find_port, what="the role did not open its port")

    def _find_port(self) -> int:
        assert self.process.poll() is None, self.log()
        status = self.status("receive.json")
        return int(status.get("port") or 0) if status.get("pid") in self._pids() else 0

    def _pids(self) -> set[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {self.process.pid, *map(int, children)}  # under strace the role is a child of what we started

    def status(self, name: str) -> dict[str, Any]:
        try:
            return json.loads((self.root / "run" / name).read_bytes())
        except FileNotFoundError:
            return {}

    @property
    def spool(self) -> Spool:
        return Spool.open(self.root, create=False)

    def fresh(self, name: str) -> dict[str, Any]:
        """The status file `name` as rewritten from now on (SIGHUP asks for it)."""
        asked_at = time.time_ns() // 1_000_000
        self.process.send_signal(signal.SIGHUP)
        return until(lambda: status if (status := self.status(name))["alive_at"] >= asked_at else None)

    def entries(self, kind: EntryKind = EntryKind.INSTANCE) -> list[Entry]:
        return [entry for entry in self.spool.scan_new(1_000_000) if entry.kind is kind]

    def data_sets(self) -> dict[str, bytes]:
        """The data sets in the spool by SOP Instance UID."""
        found = {}
        for entry in self.entries():
            with self.spool.open_entry(entry.id) as file:
                data = file.read()
            meta = read_meta(io.BytesIO(data))
            found[meta.sop_uid] = data[meta.dataset_offset :]
        return found

    def records(self, how: str | None = None) -> list[dict[str, Any]]:
        found = [json.loads(self.spool.read(entry)) for entry in self.entries(EntryKind.ASSOCIATION)]
        return [record for record in found if how is None or record["how"] == how]

    def record(self, how: str) -> dict[str, Any]:
        return until(lambda: self.records(how), what=f"no association record says {how}")[-1]

    def temporary_files(self) -> list[os.stat_result]:
        """Files of an image on its way; neither empty ones, made ahead, nor other names of files that are in new/."""
        files = [path.stat() for path in (self.root / "tmp").rglob("*") if path.is_file()]
        assert sum(not file.st_size for file in files) <= MAX_EMPTY * len(list((self.root / "tmp").iterdir()))
        return [file for file in files if file.st_size and file.st_nlink == 1]

    def children(self) -> list[int]:
        return [child["pid"] for child in self.fresh("receive.json")["children"]]

    def processes(self) -> list[int]:
        """The gate and its children."""
        status = self.fresh("receive.json")
        return [status["pid"], *(child["pid"] for child in status["children"])]

    def log(self) -> str:
        return self.log_path.read_text()

    def stop(self, seconds: float = 30.0) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(seconds)
        if self.process.stdin:
            self.process.stdin.close()
        return code

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()


def queues(port: int) -> Iterator[tuple[bool, int, int]]:
    """Whether an end of a connection is the product's, and its bytes not yet taken by the other and not yet read."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, queued, *_ = line.split()
        if state == "01" and port in (int(local[-4:], 16), int(remote[-4:], 16)):
            sending, receiving = (int(part, 16) for part in queued.split(":"))
            yield int(local[-4:], 16) == port, sending, receiving


def waiting_bytes(port: int) -> int:
    """What was sent to the product's connections and not yet read by it: queues of the kernel, IPv4."""
    return sum(receiving if is_ours else sending for is_ours, sending, receiving in queues(port))


def unread_answers(port: int) -> int:
    """How many of the product's connections have something to say that the peer does not take."""
    return sum(is_ours and sending > 0 for is_ours, sending, _ in queues(port))


class Footprint:
    """Gate and children of a role as they were when this was made, against what they have come to."""

    def __init__(self, role: Role) -> None:
        self._role = role
        until(lambda: all(child["ready"] for child in role.fresh("receive.json")["children"]))
        self._base_bytes = {pid: memory_bytes(pid) for pid in role.processes()}
        self._descriptors = {pid: descriptors(pid) for pid in self._base_bytes}

    def growth_bytes(self) -> int:
        """The peaks of all of them over the beginning; none of them may have been started again meanwhile."""
        assert list(self._base_bytes) == self._role.processes()
        return sum(peak_bytes(pid) - base for pid, base in self._base_bytes.items())

    def descriptors_fall_back(self) -> None:
        """Wait until each has as many descriptors open as at the beginning."""
        for pid, count in self._descriptors.items():
            until(lambda pid=pid, count=count: descriptors(pid) == count, what=f"not the {count} descriptors of before")


def descriptors(pid: int) -> int:
    """How many descriptors a process has open, but for those of empty files that it keeps ready for images to come."""
    count = 0
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            file = path.stat()
        except FileNotFoundError:  # closed meanwhile
            continue
        count += not (stat.S_ISREG(file.st_mode) and file.st_nlink and not file.st_size)
    return count


def memory_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_bytes(pid: int) -> int:
    """The most memory that a process ever had resident."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
