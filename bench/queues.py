"""What a long queue costs: claim and settle per second, and the idle cost of 10,000 studies that wait for orders."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path

from bench import stand
from internal import index, jobs
from internal.model import Arrival, Header, Instance
from internal.states import Later, NotYet
from internal.store import Store

Figure = tuple[str, str, str, bool, str]
DAY_MS = 86_400_000


def plan_jobs(store: Store, count: int, environment: str, node: str) -> None:
    """Write `count` settled studies of one instance with their jobs, as if they had come one per minute."""
    now = time.time_ns() // 1_000_000
    for start in range(0, count, 200):
        with store.transaction() as tx:
            for number in range(start, min(start + 200, count)):
                _plan_one(tx, number, now - number * 60_000, environment, node)


def _plan_one(tx: object, number: int, at: int, environment: str, node: str) -> None:
    uid = f"2.25.{10**9 + number}"
    header = Header(stand.CT, f"{uid}.1.1", uid, f"{uid}.1", stand.EXPLICIT, accession_number=f"W{number}")
    one = Instance(f"bench{number:08d}", header, f"W{number}", "0" * 64, 0, 1, f"spool:{node}/x", Arrival(at))
    index.add_instances(tx, [one], at)  # type: ignore[arg-type]
    index.mark_settled(tx, uid, 1, at)  # type: ignore[arg-type]
    held = index.inventory(tx, uid, f"W{number}")  # type: ignore[arg-type]
    jobs.plan(tx, kind="deliver", destination="satusehat", environment=environment,  # type: ignore[arg-type]
              study_uid=uid, part=f"W{number}", instances=held.instances, settled_revision=1, now=at, due_at=at)


def bench_claims(count: int = 3000) -> list[Figure]:
    """Settle one job and claim the next in one transaction, as workers do, with four of them."""
    with tempfile.TemporaryDirectory(prefix="bench-claims-") as folder:
        store = Store.open(f"sqlite:///{Path(folder) / 'index.db'}")
        store.migrate()
        plan_jobs(store, count, "env", "n")
        began_s = time.perf_counter()
        threads = [threading.Thread(target=_claim_and_settle, args=(store,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rate = count / (time.perf_counter() - began_s)
        fsync_ms = measure_fsync_ms(Path(folder) / "probe")
        store.close()
    return [("claim and settle, SQLite, fsync on", f"{rate:.0f} jobs/s", ">= 1,000/s", rate >= 1000,
             f"{count} jobs, one commit each; an fsync of this disk takes {fsync_ms:.2f} ms")]


def measure_fsync_ms(path: Path, count: int = 200) -> float:
    """Return what appending one page and syncing it costs here, in milliseconds."""
    with path.open("wb", buffering=0) as file:
        began_s = time.perf_counter()
        for _ in range(count):
            file.write(bytes(4096))
            os.fsync(file.fileno())
        return (time.perf_counter() - began_s) / count * 1000


def _claim_and_settle(store: Store) -> None:
    job = None
    while True:
        now = time.time_ns() // 1_000_000
        with store.transaction() as tx:
            if job is not None:
                jobs.settle(tx, job, Later("bench", "later"), now=now, due_at=now + DAY_MS)
            job = jobs.claim(tx, destination="satusehat", environment="env", node="n", now=now, lease_ms=60_000)
        if job is None:
            return


def bench_waiting(count: int = 10_000, seconds: float = 20.0) -> list[Figure]:
    """Let the deliver role idle over `count` jobs that wait for their orders."""
    with tempfile.TemporaryDirectory(prefix="bench-waiting-") as folder, \
            stand.sandbox(Path(folder) / "sandbox") as port:
        router = stand.Router(Path(folder) / "router", port)
        with router.delivering():
            pass
        store = Store.open(router.store_url())
        store.migrate()
        environment = f"http://127.0.0.1:{port}|{stand.ORGANIZATION}"
        plan_jobs(store, count, environment, router.spool.node)
        _make_wait(store, environment, router.spool.node)
        store.close()
        with router.delivering() as process:
            time.sleep(3)
            began_s, before_s = time.perf_counter(), sum(process.cpu_times()[:2])
            time.sleep(seconds)
            share = (sum(process.cpu_times()[:2]) - before_s) / (time.perf_counter() - began_s)
    return [(f"{count:,} studies waiting for orders", f"{share:.2%} of a core", "< 2 %", share < 0.02,
             f"deliver role over {seconds:.0f} s, polling included")]


def _make_wait(store: Store, environment: str, node: str) -> None:
    """Let every job have looked for its order once; half of them are due again."""
    now = time.time_ns() // 1_000_000
    done = 0
    while True:
        with store.transaction() as tx:
            for _ in range(200):
                job = jobs.claim(tx, destination="satusehat", environment=environment, node=node, now=now,
                                 lease_ms=60_000, poll=jobs.Poll.NONE)
                if job is None:
                    return
                done += 1
                jobs.settle(tx, job, NotYet("no-order", "no order yet"), now=now,
                            due_at=now - 1 if done % 2 else now + 600_000)
