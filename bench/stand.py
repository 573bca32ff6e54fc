"""What the delivery benches stand on: sandbox and deliver role as processes, studies put straight into the spool.

The receiver is left out on purpose: measured is what happens between "received" and "receipted".
Changes when a bench needs another thing started or read.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import generate_uid

from internal import dicomfile
from internal.config import load
from internal.model import Arrival
from internal.spool import Spool
from internal.store import Store

ROOT = Path(__file__).resolve().parent.parent
CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
ORGANIZATION = "100099001"
READY = "SATUSEHAT sandbox ready on "
#: As long as every number that replaces it.
_SOP_MARK = "2.25.1000000000000"


@dataclass(frozen=True, slots=True)
class Study:
    """A study that was put into the spool."""

    study_uid: str
    accession_number: str
    instances: int
    instance_bytes: int


def make_dataset(study: Study) -> bytes:
    """Return a data set of the study's size whose SOP Instance UID is the mark."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CT, _SOP_MARK
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study.study_uid, f"{study.study_uid}.1"
    dataset.AccessionNumber, dataset.Modality = study.accession_number, "CT"
    dataset.PatientName, dataset.PatientID = "Contoh^Pasien", "MR1"
    dataset.StudyDate, dataset.StudyTime = time.strftime("%Y%m%d"), "010203"
    dataset.Rows = dataset.Columns = 16
    dataset.BitsAllocated, dataset.SamplesPerPixel = 16, 1
    dataset.add_new(0x7FE00010, "OW", os.urandom(study.instance_bytes // 2 * 2))
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def new_study(accession_number: str, instances: int, instance_bytes: int) -> Study:
    """Return a study with a new UID."""
    return Study(str(generate_uid(prefix=None)), accession_number, instances, instance_bytes)


def fill(spool: Spool, study: Study) -> None:
    """Put a study into new/, as the receiver does when it has acknowledged each image."""
    dataset = make_dataset(study)
    writer = spool.writer("bench")
    for number in range(study.instances):
        sop_uid = f"2.25.1{hash((study.study_uid, number)) % 10**12:012d}"
        arrival = Arrival(arrived_at=time.time_ns() // 1_000_000)
        incoming = writer.begin()
        incoming.write(dicomfile.build_meta(CT, sop_uid, EXPLICIT, arrival))
        incoming.write(dataset.replace(_SOP_MARK.encode(), sop_uid.encode(), 1))
        incoming.commit()
    writer.close()


@contextlib.contextmanager
def sandbox(folder: Path, *options: str) -> Iterator[int]:
    """Run a sandbox; yields its port."""
    command = [sys.executable, "-m", "sandbox", "--port", "0", "--data", str(folder), *options]
    with ended(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline().removeprefix(READY).rsplit(":", 1)[1])


@contextlib.contextmanager
def line(port: int, *options: str) -> Iterator[int]:
    """Run `bench.line` to a local port; yields the port to talk to."""
    command = [sys.executable, "-m", "bench.line", str(port), *options]
    with ended(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """End the process on leaving."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def order(port: int, accession_number: str) -> None:
    """Let the sandbox have the order of a study."""
    body = json.dumps({"accession_number": accession_number, "modality": "CT", "indexed": True}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/_sandbox/orders", data=body,
                                     headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        reply.read()


class Router:
    """A data folder with its configuration, and the deliver role over it."""

    def __init__(self, folder: Path, port: int, **satusehat: object) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        lines = "\n".join(f"{key} = {value}" for key, value in satusehat.items())
        self.config = folder / "router.conf"
        self.config.write_text(
            f"[satusehat]\nurl = http://127.0.0.1:{port}\norganization_id = {ORGANIZATION}\n"
            f"client_key = sandbox-client\nsecret_key = sandbox-secret\n{lines}\n"
            "[router]\ndata_dir = data\nsettle = 2s\nsettle_cr_dx = 2s\nsettle_release_min = 2s\n"
            "[spool]\nmin_free = 100MB\n")
        self.config.chmod(0o600)
        (folder / "data").mkdir()
        self.spool = Spool.open(folder / "data" / "spool")
        self.log = folder / "log"

    @contextlib.contextmanager
    def delivering(self) -> Iterator[psutil.Process]:
        """Run the deliver role; it has started when this is entered."""
        command = [sys.executable, str(ROOT / "main.py"), "run", "--role", "deliver", "--config", str(self.config)]
        with self.log.open("ab") as log, \
                ended(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, text=True)) as process:
            wait_until(lambda: "Deliver role started" in self.log.read_text().split("Deliver role stopped")[-1], 30)
            yield psutil.Process(process.pid)

    def store_url(self) -> str:
        """Return the URL of the role's database."""
        return load(self.config, {}, {}, require_platform=True).database_url

    def store(self) -> Store:
        """Open the role's database, read only."""
        return Store.open(self.store_url(), read_only=True)


def wait_until(condition: Callable[[], Any], timeout_s: float, every_s: float = 0.1) -> Any:
    """Return the first true value of `condition`; TimeoutError without one."""
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if value := condition():
            return value
        time.sleep(every_s)
    raise TimeoutError


def peak_rss_bytes(process: psutil.Process) -> int:
    """Return the most memory the process ever had resident, in bytes."""
    text = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii", errors="replace")
    return next(int(row.split()[1]) * 1024 for row in text.splitlines() if row.startswith("VmHWM"))



