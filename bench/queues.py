"""What a long queue costs: claim and settle per second, and the idle cost of 10,000 studies that wait for orders."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path

from bench import stand
from internal import holdings, index, jobs, retain
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
        with store.transaction() as tx:  # their headers were read long ago: that is no cost of waiting
            tx.execute("UPDATE study SET described_revision = settled_revision")
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


def bench_marking(studies: int = 20, instances: int = 2000) -> list[Figure]:
    """Mark the bytes of large delivered studies for removal, batch by batch, as retention does."""
    with tempfile.TemporaryDirectory(prefix="bench-marking-") as folder:
        store = Store.open(f"sqlite:///{Path(folder) / 'index.db'}")
        store.migrate()
        for number in range(studies):
            _deliver_one(store, number, instances)
        rules = holdings.Rules(confirmed_before=2 * DAY_MS, discarded_before=0, receipts=("stored",),
                               committed_before=DAY_MS)
        took_ms = sorted(_mark_all(store, rules))
        fsync_ms = measure_fsync_ms(Path(folder) / "probe")
        store.close()
    p99_ms = took_ms[int(len(took_ms) * 0.99)]
    return [("marking bytes for removal, one transaction", f"{p99_ms:.1f} ms at the 99th percentile", "<= 20 ms",
             p99_ms <= 20, f"{len(took_ms)} transactions of {retain.BATCH} instances, median "
             f"{took_ms[len(took_ms) // 2]:.1f} ms; an fsync of this disk takes {fsync_ms:.2f} ms")]


def _deliver_one(store: Store, number: int, instances: int) -> None:
    uid = f"2.25.{2 * 10**9 + number}"
    batch = [Instance(f"mark{number:04d}-{one:06d}",
                      Header(stand.CT, f"{uid}.1.{one}", uid, f"{uid}.1", stand.EXPLICIT, accession_number="M"), "M",
                      f"{one:064x}", 0, 1, "spool:n/x", Arrival(DAY_MS)) for one in range(instances)]
    with store.transaction() as tx:
        index.add_instances(tx, batch, DAY_MS)
        index.mark_settled(tx, uid, 1, DAY_MS)
        jobs.plan(tx, kind="deliver", destination="satusehat", environment="env", study_uid=uid, part="M",
                  instances=batch, settled_revision=1, now=DAY_MS, due_at=DAY_MS)
        tx.execute("UPDATE item SET state = 'stored'")
        tx.execute("UPDATE job SET state = 'done', done_revision = 1")


def _mark_all(store: Store, rules: holdings.Rules) -> list[float]:
    took_ms = []
    while True:
        with store.reading() as tx:
            studies = holdings.studies_to_purge(tx, rules, "n", 1)
        if not studies:
            return took_ms
        began_s = time.perf_counter()
        with store.transaction() as tx:
            marked = holdings.mark_purging(tx, studies[0], rules, "n", 3 * DAY_MS, retain.BATCH)
        took_ms.append((time.perf_counter() - began_s) * 1000)
        if not marked:
            return took_ms
