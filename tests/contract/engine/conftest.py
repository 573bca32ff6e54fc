"""A real spool and a real store with an engine over them, on both database engines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import generate_uid

from internal import dicomfile, jobs
from internal.assemble import Assembler, SettlePolicy
from internal.assemble import Lane as PlannedLane
from internal.config import RuleText
from internal.indexer import Indexer
from internal.model import Arrival, ItemState, Job, Probe
from internal.ports import Work
from internal.pseudonyms import open_vault
from internal.rulebook import RuleBook
from internal.spool import Entry, Spool, SpoolWriter
from internal.states import Finish, Outcome, State
from internal.store import Store
from internal.tables import Tables
from internal.worker import Lane, LanePolicy

CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT = "1.2.840.10008.1.2"


class HandClock:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.ms = 1_800_000_000_000

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000


@dataclass
class Scripted:
    """A destination that does what the test says, over the real Work."""

    name: str = "scripted"
    kind: str = "scripted"
    by_accession: bool = True
    environment: str = "env-1"
    polls: bool = True
    script: Callable[[Work], Outcome] | None = None
    seen: list[tuple[int, int]] = field(default_factory=list)

    def step(self, work: Work) -> Outcome:
        self.seen.append((work.job.job_id, work.job.revision))
        return self.script(work) if self.script else deliver_all(work)

    def probe(self) -> Iterable[Probe]:
        return ()

    def may_poll(self) -> bool:
        return self.polls

    def report(self) -> Mapping[str, int]:
        return {}


def deliver_all(work: Work) -> Outcome:
    """What a destination does when nothing goes wrong."""
    while items := work.items([ItemState.DUE, ItemState.SENT], 4):
        frozen = work.freeze(items)
        for one in frozen:
            with one.open() as body:
                assert len(body.read()) == one.size_bytes
        work.settle_items([(one.item, ItemState.STORED, {"status": 200}) for one in frozen])
    return Finish()


def make_book(root: Path, default: Sequence[str], rules: Sequence[RuleText] = (), **more: Any) -> RuleBook:
    """Return a rule book over `root`: tables lie there, the key too."""
    return RuleBook(file_texts=rules, destinations=("satusehat", *default), default=default, tables=Tables(root),
                    vault=lambda: open_vault("", root), **more)


class Engine:
    """Indexer, assembler and one lane, driven by hand."""

    def __init__(self, store: Store, root: Path) -> None:
        self.store = store
        self.root = root
        self.clock = HandClock()
        self.spool = Spool.open(root / "spool")
        self.writer: SpoolWriter = self.spool.writer("0")
        self.destination = Scripted()
        self.policy = LanePolicy(workers=1, retry_min_ms=1_000, retry_max_ms=8_000, order_poll_min_ms=2_000)
        self.book = make_book(root, ["scripted"])
        self.book.reload(store, self.clock.now_ms())
        self.lane = self.make_lane()
        self.indexer = Indexer(self.spool, store, self.clock)
        self.assembler = self.make_assembler()

    def use_rules(self, *rules: RuleText, **more: Any) -> None:
        """Go on with these rules of router.conf, as after a new start."""
        self.book = make_book(self.root, ["scripted"], rules, **more)
        self.book.reload(self.store, self.clock.now_ms())
        self.lane, self.assembler = self.make_lane(), self.make_assembler()

    def make_lane(self) -> Lane:
        return Lane(self.destination, self.store, self.spool, self.clock, self.policy, jitter=lambda: 0.5,
                    book=self.book)

    def make_assembler(self) -> Assembler:
        return Assembler(
            self.store, self.clock, SettlePolicy(settle_ms=1_000, settle_cr_dx_ms=1_000, release_min_ms=1_000),
            [PlannedLane(self.destination.name, self.destination.environment, self.destination.by_accession)],
            self.book.plan_from(self.spool),
        )

    def receive(
        self, study_uid: str, *, sop_uid: str = "", accession: str = "A1", pixels: bytes = b"\1\0",
        association: str = "", peer: str = "10.0.0.9:4711", source: str = "dimse", padding: int = 0,
    ) -> Entry:  # fmt: skip
        """Put one instance into new/ as the receiver would; with `padding` bytes of Data Set Trailing Padding."""
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = CT, sop_uid or generate_uid(prefix=None)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid, f"{study_uid}.1"
        dataset.AccessionNumber, dataset.Modality, dataset.PatientID = accession, "CT", "P1"
        dataset.BitsAllocated, dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 16, 1, 1, 1
        dataset.PixelRepresentation = 0
        dataset.PixelData = pixels
        if padding:
            dataset.DataSetTrailingPadding = bytes(padding)
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, True
        write_dataset(buffer, dataset)
        incoming = self.writer.begin()
        arrival = Arrival(self.clock.ms, association, "CT1", "DCMROUTER", peer, source)
        incoming.write(dicomfile.build_meta(CT, str(dataset.SOPInstanceUID), IMPLICIT, arrival))
        incoming.write(buffer.getvalue())
        return incoming.commit()

    def index(self) -> None:
        while self.indexer.run_once().more:
            pass

    def settle(self) -> None:
        """Index what came, and let a quiet hour pass."""
        self.index()
        self.clock.ms = max(self.clock.ms, _now()) + 3_600_000
        self.assembler.run_once(self.clock.ms)

    def work(self) -> bool:
        return self.lane._once()

    def destination_done(self, count: int) -> bool:
        """Wait until `count` jobs are done."""
        ended = threading.Event()
        for _ in range(500):
            if self.states().count(State.DONE) >= count:
                return True
            ended.wait(0.02)
        return False

    def job(self, job_id: int = 1) -> Job:
        with self.store.reading() as tx:
            return jobs.job(tx, job_id)

    def states(self) -> list[State]:
        with self.store.reading() as tx:
            return [State(row.state) for row in jobs.list_jobs(tx)]


def _now() -> int:
    import time

    return time.time_ns() // 1_000_000


@pytest.fixture
def engine(store: Store, tmp_path: Path) -> Iterator[Engine]:
    made = Engine(store, tmp_path)
    yield made
    made.lane.stop(5)
    made.writer.close()
    assert not any(thread.name.startswith("scripted-") for thread in threading.enumerate())
