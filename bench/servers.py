"""The servers that the receive bench compares, each as processes with a port and a folder of their own.

Ours runs whole: `main.py` with its receive, deliver and web roles. Changes when another server is worth comparing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import mmap
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parents[1]


def with_programs_only(folders: Sequence[str]) -> str:
    """Return these folders as a PATH, without those whose `storescu` is a script: pynetdicom brings one of its own."""
    return os.pathsep.join(folder for folder in folders if not _begins_with(Path(folder, "storescu"), b"#!"))


def _begins_with(path: Path, head: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(head)) == head
    except OSError:
        return False


PATH = with_programs_only(os.get_exec_path())
#: DCMTK with Nagle's algorithm on needs 45 ms for each C-STORE, on either side.
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1", "PYTHONPATH": str(ROOT), "PATH": PATH}
TITLE = "BENCH"
_START_S = 30.0
_STOP_S = 30.0
#: New files are dear when making one takes so many times as long as a second name for it.
_DEAR = 3.0
_NAMES = 100
_CHEAP_AGAIN_S = 360.0
_MADV_POPULATE_WRITE = 23
_MOST_WARM_BYTES = 4 * 1024 * 1024 * 1024
#: Given back before anything is taken, and more than is taken within _GIVE_EVERY_S.
_LOOSE_BYTES = 256 * 1024 * 1024
_LARGE_PAGE_BYTES = 2 * 1024 * 1024
_GIVE_EVERY_S = 0.1

STOCK = """
import sys
from pathlib import Path
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pydicom.uid import ImplicitVRLittleEndian, ExplicitVRLittleEndian
folder = Path(sys.argv[2])
def store(event):
    with (folder / f"{event.request.AffectedSOPInstanceUID}.dcm").open("wb") as file:
        file.write(event.encoded_dataset())
    return 0
entity = AE("STOCK")
if len(sys.argv) > 3:
    entity.maximum_pdu_size = int(sys.argv[3])
for context in AllStoragePresentationContexts[:120]:
    entity.add_supported_context(context.abstract_syntax, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
entity.start_server(("127.0.0.1", int(sys.argv[1])), block=True, evt_handlers=[(evt.EVT_C_STORE, store)])
"""

CONFIGURATION = """
[satusehat]
organization_id = 100099001
dicom_port = {port}
http_port = {http_port}
ae_title = {title}
[router]
data_dir = data
send_to = archive
settle = {settle}
settle_cr_dx = {settle}
settle_release_min = {settle}
[spool]
fsync = {fsync}
[dicom]
dicom_bind = 127.0.0.1
max_associations_per_address = 250
[folder:archive]
path = {archive}
"""

#: How a server is started: (port, folder) -> its processes while the context is open.
Server = Callable[[int, Path], contextlib.AbstractContextManager[object]]


def free_port() -> int:
    """Return a port of this machine that nobody listens on right now, and that no outgoing connection will be given."""
    while True:
        port = random.randrange(12_000, 32_000)  # below the ports that systems give by themselves
        with socket.socket() as sock:
            try:
                sock.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port


def wait_until(ready: Callable[[], bool], what: str, seconds: float = _START_S) -> None:
    """Return once `ready`; raises RuntimeError after `seconds`."""
    deadline_s = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline_s:
            raise RuntimeError(what)
        time.sleep(0.02)


def accepts(port: int) -> bool:
    """Return whether somebody listens on `port`."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def process(
    command: list[str], cwd: Path, ready: Callable[[], bool], start_s: float = _START_S
) -> Iterator[subprocess.Popen[bytes]]:
    """A server process, from its readiness, which may take `start_s`, to its end."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        command, cwd=cwd, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet
    ) as running:
        try:
            wait_until(lambda: ready() or running.poll() is not None, f"{command[0]} did not start", start_s)
            if running.poll() is not None:
                raise RuntimeError(f"{command[0]} ended")
            yield running
        finally:
            running.send_signal(signal.SIGTERM)
            try:
                running.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                running.kill()


def configure(folder: Path, port: int, http_port: int, *, fsync: bool = True, settle: str = "15s") -> Path:
    """Write the router.conf of a router whose data lies in `folder`/data; it delivers to `folder`/archive."""
    path = folder / "router.conf"
    path.write_text(CONFIGURATION.format(
        port=port, http_port=http_port, title=TITLE, settle=settle, fsync="yes" if fsync else "no",
        archive=folder / "archive"))
    path.chmod(0o600)
    return path


def role(configuration: Path, *arguments: str) -> list[str]:
    """Return the command of the whole router, or with ``--role NAME`` of one role."""
    return [sys.executable, str(ROOT / "main.py"), "run", "--config", str(configuration), *arguments]


@contextlib.contextmanager
def router(port: int, folder: Path, *, fsync: bool = True) -> Iterator[subprocess.Popen[bytes]]:
    """Our whole product, from its readiness to its end."""
    http_port = free_port()

    def is_ready() -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{http_port}/health/ready", timeout=2) as reply:
                return bool(reply.status == 200)
        except (URLError, OSError):
            return False

    command = role(configure(folder, port, http_port, fsync=fsync))
    with process(command, ROOT, is_ready) as running:
        yield running


def receiver(port: int, folder: Path) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """Our receive role alone."""
    command = role(configure(folder, port, free_port()), "--role", "receive")
    return process(command, ROOT, lambda: accepts(port))


def delivered(folder: Path) -> int:
    """Return how many images our router in `folder` has delivered, whole."""
    return sum(not name.startswith(".") for _, _, names in os.walk(folder / "archive") for name in names)


def deliverer(
    port: int, folder: Path, start_s: float = _START_S
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """Our deliver role alone, beside a receiver of the same port and folder, from its first delivered image on."""
    command = role(configure(folder, port, free_port(), settle="1s"), "--role", "deliver")
    before = delivered(folder)
    return process(command, ROOT, lambda: delivered(folder) > before, start_s)


def wait_for_cheap_files(folder: Path) -> None:
    """Return once a new file is cheap in `folder`, which is made, as are empty files in it; after 6 min in any case.

    ext4 without a journal steps over each file that was deleted in the last minutes (recently_deleted in its ialloc.c)
    to make a new one: after a run of tests or an `rm -r` that can cost half a millisecond, whoever is measured.
    """
    folder.mkdir()
    if not has_no_journal(folder):
        return
    deadline_s = time.monotonic() + _CHEAP_AGAIN_S
    for number in itertools.count():
        if dearness(folder / str(number)) < _DEAR:
            return
        if time.monotonic() > deadline_s:
            sys.stderr.write("files are deleted all the time beside the bench, which makes new ones slow\n")
            return
        time.sleep(5.0)


def has_no_journal(folder: Path) -> bool:
    """Return whether `folder` lies on ext2 to ext4 without a journal, as far as /proc tells; False elsewhere."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        device = folder.stat().st_dev
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve(strict=True).name
        return Path("/proc/fs/ext4", name).exists() and not any(Path("/proc/fs/jbd2").glob(f"{name}-*"))
    except OSError:
        return False


def dearness(folder: Path) -> float:
    """Return how many times the time of a second name for a file (median) a new file takes in `folder`, made for it."""
    folder.mkdir()
    new_s, name_s = [], []
    for number in range(_NAMES):
        began_s = time.perf_counter()
        os.close(os.open(folder / str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        made_s = time.perf_counter()
        os.link(folder / str(number), folder / f"{number}b")
        new_s.append(made_s - began_s)
        name_s.append(time.perf_counter() - made_s)
    return statistics.median(new_s) / statistics.median(name_s)


@contextlib.contextmanager
def memory_at_hand(size_bytes: int) -> Iterator[None]:
    """While inside, give back so much memory as others take of what is free, `size_bytes` in all as far as
    warmable_bytes() lets it: whoever takes some finds it at hand.

    The host of a virtual machine takes back what has been free in it for two seconds (free page reporting) and brings
    each page again at its first use, for 10 us and more: 1.2 ms for those of 0.5 MB, which would be counted as a
    server's work. It takes large blocks only, so that large ones are held.
    """
    size_bytes = min(size_bytes + _LOOSE_BYTES, warmable_bytes()) // _LARGE_PAGE_BYTES * _LARGE_PAGE_BYTES
    if sys.platform != "linux" or size_bytes <= 0:
        yield
        return
    with mmap.mmap(-1, size_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        with contextlib.suppress(OSError):
            pages.madvise(mmap.MADV_HUGEPAGE)
        with contextlib.suppress(OSError):
            pages.madvise(_MADV_POPULATE_WRITE)  # Linux 5.14
        ended = threading.Event()
        giving = threading.Thread(target=_give_memory, args=(pages, ended), name="memory", daemon=True)
        giving.start()
        try:
            yield
        finally:
            ended.set()
            giving.join()


def _give_memory(pages: mmap.mmap, ended: threading.Event) -> None:
    """Keep what is free where it was, with _LOOSE_BYTES more, until all of `pages` is given."""
    given, goal_bytes = 0, _free_bytes() + _LOOSE_BYTES
    while given < len(pages) and not ended.is_set():
        due = (goal_bytes - _free_bytes()) // _LARGE_PAGE_BYTES * _LARGE_PAGE_BYTES
        if due > 0:
            due = min(due, len(pages) - given)
            pages.madvise(mmap.MADV_DONTNEED, given, due)
            given += due
        ended.wait(_GIVE_EVERY_S)


def _free_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE


def warmable_bytes() -> int:
    """Return 4 GiB, or half of what the machine has free or its control group may have, if that is less."""
    free_bytes = _free_bytes()
    with contextlib.suppress(OSError, ValueError):
        free_bytes = min(free_bytes, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(_MOST_WARM_BYTES, free_bytes // 2)


def give_back(folder: Path) -> None:
    """Free the disk space but keep the files: ext4 is slow in making files where many have just been deleted."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.truncate(path, 0)


def _other(command: Callable[[int, Path], list[str]]) -> Server:
    return lambda port, folder: process(command(port, folder), folder, lambda: accepts(port))


def _orthanc(port: int, folder: Path) -> list[str]:
    """Default settings, apart from ports and folders."""
    settings = {"DicomPort": port, "HttpPort": free_port(), "StorageDirectory": str(folder), "DicomAet": TITLE,
                "IndexDirectory": str(folder)}  # fmt: skip
    path = folder / "orthanc.json"
    path.write_text(json.dumps(settings))
    return [str(orthanc_program()), str(path)]


def orthanc_program() -> Path | None:
    """Return where Orthanc is installed, None if it is not."""
    found = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return Path(found) if found else None


def servers(*, fork: bool) -> dict[str, Server]:
    """Return the servers to compare by name; Orthanc only where it is installed. `fork`: storescp forks."""
    forking = ["--fork"] if fork else []
    found: dict[str, Server] = {
        "ours": router,
        "ours, fsync off": lambda port, folder: router(port, folder, fsync=False),
        "pynetdicom": _other(lambda port, folder: [sys.executable, "-c", STOCK, str(port), str(folder)]),
        "pynetdicom, large PDU": _other(
            lambda port, folder: [sys.executable, "-c", STOCK, str(port), str(folder), "0"]),
        "storescp": _other(lambda port, folder: ["storescp", "+B", *forking, "-od", str(folder), str(port)]),
    }  # fmt: skip
    if orthanc_program():
        found["Orthanc"] = _other(_orthanc)
    return found
