"""How fast studies reach SATUSEHAT: spool, index, jobs and the satusehat destination against the sandbox.

`python -m bench.push [--quick] [--json]`: the table goes to standard error, JSON to standard output. Each row sends one
study over one link, and says how the official router's way (a new connection for each instance, one after another)
fares on the same link. `settle_to_receipt_s` runs from the settled study to the last receipt, with the real store and
spool in this process. Changes when delivery gets another shape or another bar.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from interface.roles import SystemClock
from interface.satusehat.client import SatusehatOptions
from interface.satusehat.delivery import Satusehat
from internal import dicomfile, jobs
from internal.assemble import Assembler, SettlePolicy
from internal.assemble import Lane as PlannedLane
from internal.indexer import Indexer
from internal.model import Arrival, ItemState
from internal.spool import Spool
from internal.states import State
from internal.store import Store
from internal.worker import Lane, LanePolicy

ROOT = Path(__file__).resolve().parent.parent
CT, IMPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2"
READY = "SATUSEHAT sandbox ready on "
LIMIT_S = 600.0


@dataclass(frozen=True)
class Load:
    """One row: a study of `instances` x `size_bytes` over a link; the reference sends `reference` of them."""

    name: str
    instances: int
    size_bytes: int
    rtt_ms: float = 0.0
    mbit: float = 0.0
    reference: int = 40


LOADS = (
    Load("loopback, 500 x 0.5 MB", 500, 500_000, reference=200),
    Load("50 ms, 2000 x 50 KB", 2000, 50_000, rtt_ms=50),
    Load("50 ms and 100 Mbit/s, 200 x 0.5 MB", 200, 500_000, rtt_ms=50, mbit=100),
)
QUICK = (
    Load("loopback, 100 x 0.5 MB", 100, 500_000, reference=50),
    Load("50 ms, 200 x 50 KB", 200, 50_000, rtt_ms=50, reference=10),
    Load("50 ms and 100 Mbit/s, 40 x 0.5 MB", 40, 500_000, rtt_ms=50, mbit=100, reference=10),
)


@contextlib.contextmanager
def _process(*arguments: str) -> Iterator[str]:
    """Run a module of this project and give the first line it prints."""
    with subprocess.Popen([sys.executable, "-m", *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            process.terminate()


def _order(url: str, accession: str) -> None:
    body = json.dumps({"accession_number": accession, "indexed": True}).encode()
    with urlopen(Request(f"{url}/_sandbox/orders", data=body, headers={"Content-Type": "application/json"})):
        pass


def _dataset(study_uid: str, number: int, accession: str, size_bytes: int) -> tuple[str, bytes]:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CT, f"{study_uid}.1.{number}"
    dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = time.strftime("%Y%m%d"), "000000", accession
    dataset.Modality, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "CT", study_uid, f"{study_uid}.1"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, number
    dataset.BitsAllocated, dataset.PixelData = 16, bytes(size_bytes - 400 & ~1)
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_dataset(buffer, dataset)
    return str(dataset.SOPInstanceUID), buffer.getvalue()


class Router:
    """The parts of the deliver role that bring one study from new/ to its receipts."""

    def __init__(self, folder: Path, options: SatusehatOptions) -> None:
        self.destination = Satusehat(options)
        self.store = Store.open(f"sqlite:///{folder / 'index.db'}")
        self.store.migrate()
        self.spool = Spool.open(folder / "spool")
        self.clock = SystemClock()
        self.lane = Lane(self.destination, self.store, self.spool, self.clock, LanePolicy(workers=4, idle_s=0.02))
        self.assembler = Assembler(
            self.store, self.clock, SettlePolicy(settle_ms=1, settle_cr_dx_ms=1, release_min_ms=1),
            [PlannedLane(self.destination.name, self.destination.environment, True)], lambda _: ("satusehat",))

    def receive(self, load: Load, study_uid: str, accession: str) -> None:
        """Put a study into new/, as the receiver would, and index it."""
        writer = self.spool.writer("0")
        for number in range(1, load.instances + 1):
            sop_uid, data = _dataset(study_uid, number, accession, load.size_bytes)
            incoming = writer.begin()
            incoming.write(dicomfile.build_meta(CT, sop_uid, IMPLICIT, Arrival(arrived_at=self.clock.now_ms())))
            incoming.write(data)
            incoming.commit()
        writer.close()
        indexer = Indexer(self.spool, self.store, self.clock)
        while indexer.run_once().more:
            pass

    def deliver(self) -> dict[str, Any]:
        """Settle, deliver everything and return what it cost."""
        until_s = time.monotonic() + LIMIT_S
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        while not self.assembler.run_once(self.clock.now_ms()):
            time.sleep(0.002)
        self.lane.start()
        watch = threading.Event()
        while True:
            with self.store.reading() as tx:
                job = jobs.job(tx, 1)
                counts = jobs.count_items(tx, job)
            if job.state is State.DONE:
                break
            if job.state is State.HELD or time.monotonic() > until_s:
                raise SystemExit(f"not delivered: {job.state} {job.reason} {counts}")
            watch.wait(0.02)
        took_s, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
        self.lane.stop(10)
        stored = counts.get(ItemState.STORED, 0)
        return {"stored": stored, "settle_to_receipt_s": took_s, "instances_per_s": stored / took_s,
                "cpu_ms_per_instance": cpu_s / stored * 1000}

    def close(self) -> None:
        """Close connections and store."""
        self.destination.close()
        self.store.close()


def _reference(port: int, load: Load, token: str) -> float:
    """Return instances/s of a new connection for each instance, one after another."""
    count = min(load.reference, load.instances)
    bodies = []
    for number in range(1, count + 1):
        sop_uid, data = _dataset("1.2.826.0.1.99.424242", number, "REFERENCE", load.size_bytes)
        bodies.append(dicomfile.build_meta(CT, sop_uid, IMPLICIT, None) + data)
    began_s = time.monotonic()
    for body in bodies:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/dicom/v1/dicomWeb/studies", body=io.BytesIO(body), headers={
            "Content-Type": "application/dicom", "Accept": "application/dicom+json", "Authorization": f"Bearer {token}",
            "Content-Length": str(len(body))})
        assert connection.getresponse().read()
        connection.close()
    return count / (time.monotonic() - began_s)


def _fetch_token(url: str) -> str:
    body = b"client_id=sandbox-client&client_secret=sandbox-secret"
    with urlopen(Request(f"{url}/oauth2/v1/accesstoken?grant_type=client_credentials", data=body)) as reply:
        return str(json.load(reply)["access_token"])


def measure(load: Load, parallel: int) -> dict[str, Any]:
    """Deliver one study over a fresh link and return one row."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        line = stack.enter_context(_process("sandbox", "--port", "0", "--data", f"{name}/sandbox",
                                            "--no-strict-imagingstudy-id"))
        url = line.removeprefix(READY)
        port = int(url.rpartition(":")[2])
        if load.rtt_ms or load.mbit:
            port = int(stack.enter_context(_process(
                "bench.link", "--to", str(port), "--rtt-ms", str(load.rtt_ms), "--mbit", str(load.mbit))))
        _order(url, "BENCH")
        router = Router(Path(name), SatusehatOptions(
            base_url=f"http://127.0.0.1:{port}", organization_id="100099001", client_key=lambda: "sandbox-client",
            secret=lambda: "sandbox-secret", push_parallel=parallel))
        stack.callback(router.close)
        router.receive(load, "1.2.826.0.1.99.31337", "BENCH")
        row = {"load": load.name, "parallel": parallel, **router.deliver()}
        reference = _reference(port, load, _fetch_token(url))
    row["reference_per_s"] = reference
    row["times_reference"] = row["instances_per_s"] / reference
    if load.mbit:
        row["link_share"] = row["instances_per_s"] * load.size_bytes / (load.mbit * 125_000)
    row["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return row


def main(argv: Sequence[str] | None = None) -> int:
    """Run every load and print a table and, with --json, the rows as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.push", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small studies, for a look")
    parser.add_argument("--parallel", type=int, default=SatusehatOptions.push_parallel, help="pushes in flight")
    parser.add_argument("--json", action="store_true", help="print JSON to standard output")
    args = parser.parse_args(argv)
    rows = []
    for load in QUICK if args.quick else LOADS:
        row = measure(load, args.parallel)
        rows.append(row)
        shown = (f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items())
        sys.stderr.write(f"{'  '.join(shown)}\n")
    if args.json:
        sys.stdout.write(json.dumps({"rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
