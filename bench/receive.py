"""How fast images are received: ours against stock pynetdicom, DCMTK's storescp and Orthanc, with storescu as client.

Run from the repository's root: ``python bench/receive.py [--rounds N] [--case NAME ...] [--json FILE]``. Prints a
table; figures are medians over the rounds, ratios are medians of the ratios within a round. A bare loop of write,
fsync, rename, fsync of the directory over the same bytes stands beside it. Needs DCMTK; Orthanc is measured if there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1", "PYTHONPATH": str(ROOT)}

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
entity.maximum_pdu_size = 0
for context in AllStoragePresentationContexts[:120]:
    entity.add_supported_context(context.abstract_syntax, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
entity.start_server(("127.0.0.1", int(sys.argv[1])), block=True, evt_handlers=[(evt.EVT_C_STORE, store)])
"""


@dataclass(frozen=True)
class Case:
    """`senders` associations at once, each with `count` objects of `size_bytes`."""

    name: str
    count: int
    size_bytes: int
    senders: int = 1


CASES = [
    Case("500 x 0.5 MB", 500, 500_000), Case("5000 x 50 KB", 5000, 50_000), Case("20 x 20 MB", 20, 20_000_000),
    Case("8 times 300 x 0.5 MB", 300, 500_000, senders=8),
]  # fmt: skip


def make_objects(folder: Path, case: Case) -> None:
    """Write the objects of one case: a CT header from pydicom's samples and incompressible pixels."""
    folder.mkdir(parents=True)
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    if "DataSetTrailingPadding" in dataset:
        del dataset.DataSetTrailingPadding
    dataset.Rows, dataset.Columns = 500, case.size_bytes // 1000
    dataset.PixelData = os.urandom(dataset.Rows * dataset.Columns * 2)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    for index in range(case.count):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.save_as(folder / f"{index:05d}.dcm")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def running(command: list[str], port: int, cwd: Path) -> Iterator[None]:
    """A server process, from its open port to its end."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=cwd, env=ENVIRONMENT, stdout=quiet, stderr=quiet) as process:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RuntimeError(f"{command[0]} did not start") from None
                time.sleep(0.05)
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(25)
            except subprocess.TimeoutExpired:
                process.kill()


def ours(port: int, folder: Path, *, fsync: bool) -> list[str]:
    settings = {"port": port, "bind": ["127.0.0.1"], "fsync": fsync, "ae_titles": ["BENCH"]}
    return [sys.executable, "-m", "interface.dimse", "--spool", str(folder / "spool"), "--settings-json",
            json.dumps(settings)]  # fmt: skip


def orthanc(port: int, folder: Path) -> list[str]:
    configuration = {"DicomPort": port, "HttpPort": free_port(), "StorageDirectory": str(folder), "DicomAet": "BENCH",
                     "IndexDirectory": str(folder), "RemoteAccessAllowed": False}  # fmt: skip
    path = folder / "orthanc.json"
    path.write_text(json.dumps(configuration))
    return [shutil.which("Orthanc") or "/usr/sbin/Orthanc", str(path)]


def servers(case: Case) -> dict[str, Callable[[int, Path], list[str]]]:
    """The command lines to compare, by name."""
    fork = ["--fork"] if case.senders > 1 else []
    found: dict[str, Callable[[int, Path], list[str]]] = {
        "ours": lambda port, folder: ours(port, folder, fsync=True),
        "ours, fsync off": lambda port, folder: ours(port, folder, fsync=False),
        "pynetdicom, raw bytes": lambda port, folder: [sys.executable, "-c", STOCK, str(port), str(folder)],
        "storescp +B": lambda port, folder: ["storescp", "+B", *fork, "-od", str(folder), str(port)],
    }
    if shutil.which("Orthanc") or Path("/usr/sbin/Orthanc").exists():
        found["Orthanc"] = orthanc
    return found


def send(port: int, objects: Path, senders: int) -> float:
    """Send all with `senders` storescu at once; seconds from the first start to the last end."""
    command = ["storescu", "-aec", "BENCH", "+sd", "127.0.0.1", str(port), str(objects)]
    began = time.perf_counter()
    clients = [subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL) for _ in range(senders)]
    codes = [client.wait() for client in clients]
    seconds = time.perf_counter() - began
    if any(codes):
        raise RuntimeError("storescu failed")
    return seconds


def bare_loop(folder: Path, case: Case) -> float:
    """Seconds for write, fsync, rename and fsync of the directory of the same number of bytes, in one thread."""
    data = os.urandom(case.size_bytes)
    (folder / "tmp").mkdir()
    (folder / "new").mkdir()
    directory = os.open(folder / "new", os.O_RDONLY)
    began = time.perf_counter()
    for index in range(case.count * case.senders):
        path = folder / "tmp" / str(index)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.write(fd, data)
        os.fsync(fd)
        os.close(fd)
        path.rename(folder / "new" / str(index))
        os.fsync(directory)
    seconds = time.perf_counter() - began
    os.close(directory)
    return seconds


def measure(case: Case, rounds: int, base: Path) -> dict[str, list[float]]:
    """Seconds per round of each server and of the bare loop."""
    objects = base / "objects"
    make_objects(objects, case)
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, command in servers(case).items():
            folder = base / "server"
            folder.mkdir()
            port = free_port()
            with running(command(port, folder), port, ROOT if name.startswith("ours") else folder):
                seconds.setdefault(name, []).append(send(port, objects, case.senders))
            shutil.rmtree(folder)
        folder = base / "bare"
        folder.mkdir()
        seconds.setdefault("bare loop", []).append(bare_loop(folder, case))
        shutil.rmtree(folder)
    shutil.rmtree(objects)
    return seconds


def show(case: Case, seconds: dict[str, list[float]]) -> None:
    images, size = case.count * case.senders, case.count * case.senders * case.size_bytes / 1e6
    print(f"\n{case.name}\n{'':24}{'s':>8}{'images/s':>10}{'MB/s':>8}{'ours is':>10}")
    for name, values in seconds.items():
        median = statistics.median(values)
        ratio = statistics.median(other / own for other, own in zip(values, seconds["ours"], strict=True))
        print(f"{name:24}{median:8.2f}{images / median:10.0f}{size / median:8.0f}{ratio:9.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cases = [case for case in CASES if not options.case or case.name in options.case]
    result: dict[str, object] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()), "seconds": {},
    }  # fmt: skip
    figures: dict[str, dict[str, list[float]]] = {}
    for case in cases:
        with tempfile.TemporaryDirectory() as base:
            figures[case.name] = measure(case, options.rounds, Path(base))
        show(case, figures[case.name])
    result["seconds"] = figures
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
