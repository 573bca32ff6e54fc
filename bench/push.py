"""Delivery against the clock: a slow line, a reference uploader, loopback, many waiting jobs, claim and settle.

`python -m bench.push [--json] [--only NAME]` prints one row per bar: what was measured, the bar, whether it holds.
The reference uploads as the official router does: a new connection for each instance, one after another.
Changes when a bar does.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bench import stand
from bench.queues import bench_claims, bench_marking, bench_waiting
from internal.store import Store

LINK_BYTES_PER_S = 12_500_000
REFERENCE_INSTANCES = 40
DICOM_PATH = "/dicom/v1/dicomWeb/studies"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """What one delivery took; times in seconds, memory in bytes.

    `cpu_s` until the last receipt, `confirmed_cpu_s` until every image was asked for again and the study was done.
    """

    registered_s: float
    delivered_s: float
    pushed_s: float
    cpu_s: float
    confirmed_cpu_s: float
    rss_bytes: int


def deliver(router: stand.Router, study: stand.Study, timeout_s: float) -> Run:
    """Put the study into the spool of a running deliver role; read from its rows when things happened until done."""
    with router.delivering() as process:
        store = router.store()
        sampled = [0.0, 0.0, 0.0]

        def done() -> bool:
            sampled[0] = sum(process.cpu_times()[:2])
            sampled[1] = stand.peak_rss_bytes(process)
            if not sampled[2] and _receipts(store) == study.instances:
                sampled[2] = sampled[0]
            return bool(_state(store, study) == "done")

        started_cpu_s = sum(process.cpu_times()[:2])
        stand.fill(router.spool, study)
        stand.wait_until(done, timeout_s, every_s=0.05)
        run = _read_run(store, study, sampled[2] - started_cpu_s, sampled[0] - started_cpu_s, int(sampled[1]))
        store.close()
        return run


def _state(store: Store, study: stand.Study) -> str:
    with store.reading() as tx:
        return str(tx.value("SELECT state FROM job WHERE study_uid = ?", (study.study_uid,)))


def _receipts(store: Store) -> int:
    with store.reading() as tx:
        return int(tx.value("SELECT COUNT(*) FROM item WHERE state = 'stored'"))


def _read_run(store: Store, study: stand.Study, cpu_s: float, confirmed_cpu_s: float, rss_bytes: int) -> Run:
    with store.reading() as tx:
        settled_at = tx.value("SELECT settled_at FROM study WHERE study_uid = ?", (study.study_uid,))
        times = dict(tx.rows("SELECT code, MIN(at) FROM event WHERE study_uid = ? GROUP BY code", (study.study_uid,)))
        answers = [json.loads(text) for (text,) in tx.rows("SELECT answer FROM item WHERE state = 'stored'")]
    assert len(answers) == study.instances, f"{len(answers)} receipts for {study.instances} instances"
    last_at = max(answer["at"] for answer in answers)
    return Run((times["posted"] - settled_at) / 1000, (last_at - settled_at) / 1000, (last_at - times["push"]) / 1000,
               cpu_s, confirmed_cpu_s, rss_bytes)


def reference_s(port: int, study: stand.Study) -> float:
    """Return the seconds per instance of an uploader that opens a new connection for each."""
    token = json.loads(_request(port, "POST", "/oauth2/v1/accesstoken?grant_type=client_credentials", urlencode({
        "client_id": "sandbox-client", "client_secret": "sandbox-secret"}).encode(), {
            "Content-Type": "application/x-www-form-urlencoded"}))["access_token"]
    data = stand.make_dataset(study)
    body = stand.dicomfile.canonical_meta(stand.CT, "2.25.1000000000000", stand.EXPLICIT) + data
    began_s = time.perf_counter()
    for _ in range(REFERENCE_INSTANCES):
        _request(port, "POST", DICOM_PATH, body, {"Content-Type": "application/dicom", "X-ImagingStudy-ID": "none",
                                                  "Authorization": f"Bearer {token}"})
    return (time.perf_counter() - began_s) / REFERENCE_INSTANCES


def _request(port: int, method: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, headers)
        return connection.getresponse().read()
    finally:
        connection.close()


@contextmanager
def _stage(name: str, *line_options: str) -> Any:
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as folder, \
            stand.sandbox(Path(folder) / "sandbox", "--no-strict-imagingstudy-id") as port:
        if not line_options:
            yield Path(folder), port, port
            return
        with stand.line(port, *line_options) as far_port:
            yield Path(folder), port, far_port


def bench_latency() -> list[Row]:
    """2,000 x 50 KB over a line of 50 ms and 100 Mbit/s."""
    with _stage("latency", "--rtt-ms", "50", "--mbit", "100") as (folder, port, far_port):
        router = stand.Router(folder / "router", far_port)
        study = stand.new_study("BENCH1", 2000, 50_000)
        stand.order(port, "BENCH1")
        reference = reference_s(far_port, study)
        run = deliver(router, study, 300)
        gain = reference / (run.delivered_s / study.instances)
        return [row("latency-bound, 2,000 x 50 KB", f"{gain:.1f} x the reference", ">= 15 x", gain >= 15,
                    f"{study.instances / run.delivered_s:.0f}/s against {1 / reference:.1f}/s"),
                memory("2,000 x 50 KB", run)]


def bench_bandwidth() -> list[Row]:
    """500 x 0.5 MB over the same line."""
    with _stage("bandwidth", "--rtt-ms", "50", "--mbit", "100") as (folder, port, far_port):
        router = stand.Router(folder / "router", far_port)
        study = stand.new_study("BENCH2", 500, 500_000)
        stand.order(port, "BENCH2")
        run = deliver(router, study, 300)
        share = study.instances * study.instance_bytes / run.pushed_s / LINK_BYTES_PER_S
        return [row("bandwidth-bound, 500 x 0.5 MB", f"{share:.1%} of the link", ">= 92 %", share >= 0.92,
                    f"{run.pushed_s:.1f} s"), memory("500 x 0.5 MB", run)]


def bench_loopback() -> list[Row]:
    """500 x 0.5 MB without delay, sandbox on the same machine."""
    with _stage("loopback") as (folder, port, _):
        router = stand.Router(folder / "router", port)
        study = stand.new_study("BENCH3", 500, 500_000)
        stand.order(port, "BENCH3")
        run = deliver(router, study, 120)
        rate, cpu_ms = study.instances / run.delivered_s, run.cpu_s * 1000 / study.instances
        confirmed_ms = run.confirmed_cpu_s * 1000 / study.instances
        return [row("loopback, 500 x 0.5 MB, settle to last receipt", f"{rate:.0f}/s", ">= 150/s", rate >= 150,
                    f"{run.delivered_s:.2f} s"),
                row("the same, CPU from received to receipted", f"{cpu_ms:.2f} ms", "<= 3.5 ms", cpu_ms <= 3.5,
                    f"deliver role: index, assemble, push; {confirmed_ms:.2f} ms with the question for each")]


def bench_large() -> list[Row]:
    """5,000 instances in one study: when is it registered?"""
    with _stage("large") as (folder, port, _):
        router = stand.Router(folder / "router", port)
        study = stand.new_study("BENCH4", 5000, 2_000)
        stand.order(port, "BENCH4")
        run = deliver(router, study, 240)
        return [row("5,000 instances, settle to registered", f"{run.registered_s:.2f} s", "< 5 s",
                    run.registered_s < 5, f"delivered after {run.delivered_s:.1f} s"), memory("5,000 instances", run)]


def row(name: str, measured: str, bar: str, holds: bool, detail: str = "") -> Row:
    """Return one row of the table."""
    return {"what": name, "measured": measured, "bar": bar, "holds": "yes" if holds else "NO", "detail": detail}


def memory(name: str, run: Run) -> Row:
    """Return the row about the role's memory."""
    megabytes = run.rss_bytes / 2**20
    return row(f"peak memory of the deliver role, {name}", f"{megabytes:.0f} MB", "< 200 MB", megabytes < 200)


BENCHES: dict[str, Callable[[], list[Row]]] = {
    "latency": bench_latency, "bandwidth": bench_bandwidth, "loopback": bench_loopback, "large": bench_large,
    "waiting": lambda: [row(*found) for found in bench_waiting()],
    "marking": lambda: [row(*found) for found in bench_marking()],
    "claims": lambda: [row(*found) for found in bench_claims()],
}


def main() -> int:
    """Print the table; 0 whatever it says: the page shows what holds."""
    parser = argparse.ArgumentParser(prog="python -m bench.push", description="Measure delivery against its bars.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=sorted(BENCHES), action="append")
    options = parser.parse_args()
    rows = [found for name, bench in BENCHES.items() if not options.only or name in options.only for found in bench()]
    if options.json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return 0
    for found in rows:
        sys.stdout.write("  ".join(str(value) for value in found.values()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
