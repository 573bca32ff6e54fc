"""Storage commitment from the spool entry to the N-EVENT-REPORT at a real peer, on both database engines."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydicom.uid import generate_uid
from pynetdicom import AE, evt

from interface.dimse.commitment_report import CommitmentPeer, CommitmentReport
from interface.dimse.negotiation import STORAGE_COMMITMENT
from internal import jobs
from internal.commitments import Commitments
from internal.model import ItemState
from internal.ports import Work
from internal.rulebook import Plan
from internal.spool import Entry, EntryKind
from internal.states import Finish, Outcome, State
from internal.worker import Lane
from tests.contract.engine.conftest import CT, Engine

STUDY = "1.2.826.0.1.9"
TRANSACTION = "1.2.826.0.1.99"


class Modality:
    """A pynetdicom peer that takes reports; `status` is what it answers."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, Any, str]] = []
        self.status = 0
        entity = AE("CT1")
        entity.add_supported_context(STORAGE_COMMITMENT, scu_role=False, scp_role=True)
        self.server = entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._take)])
        self.port = self.server.socket.getsockname()[1]  # type: ignore[union-attr]

    def _take(self, event: Any) -> tuple[int, None]:
        self.reports.append((event.event_type, event.event_information, event.assoc.requestor.ae_title))
        return self.status, None


@pytest.fixture(scope="module")
def listening() -> Iterator[Modality]:
    """It takes half a second to end."""
    made = Modality()
    yield made
    made.server.shutdown()


@pytest.fixture
def modality(listening: Modality) -> Modality:
    """A peer that was told nothing yet and answers success."""
    listening.reports.clear()
    listening.status = 0
    return listening


Reporting = Callable[..., Lane]


@pytest.fixture
def lane(engine: Engine, modality: Modality) -> Reporting:
    def make(policy: str = "stored", port: int = 0) -> Lane:
        peer = CommitmentPeer("CT1", "127.0.0.1", port or modality.port)
        report = CommitmentReport(peer, "DCMROUTER", Commitments(engine.store, engine.spool, policy),  # type: ignore[arg-type]
                                  engine.spool.reports)
        return Lane(report, engine.store, engine.spool, engine.clock, engine.policy, jitter=lambda: 0.5)

    return make


def ask(engine: Engine, *references: tuple[str, str], transaction: str = TRANSACTION, at: int = 1) -> Entry:
    return engine.writer.add_record(EntryKind.REQUEST, json.dumps({
        "request": "storage-commitment", "transaction_uid": transaction, "calling_aet": "CT1",
        "called_aet": "ROUTER2", "arrived_at": at, "references": references}).encode())


def failures(report: Any) -> dict[str, int]:
    return {item.ReferencedSOPInstanceUID: item.FailureReason for item in report.get("FailedSOPSequence", [])}


def committed(report: Any) -> list[str]:
    return [item.ReferencedSOPInstanceUID for item in report.get("ReferencedSOPSequence", [])]


def marked(engine: Engine) -> set[str]:
    with engine.store.reading() as tx:
        return {uid for (uid,) in tx.rows("SELECT sop_uid FROM instance WHERE committed_at IS NOT NULL")}


def test_what_is_held_is_committed_and_marked_for_retention(
    engine: Engine, modality: Modality, lane: Reporting
) -> None:
    for uid in ("1.2.3.1", "1.2.3.2"):
        engine.receive(STUDY, sop_uid=uid)
    ask(engine, (CT, "1.2.3.1"), (CT, "1.2.3.2"))
    engine.index()
    assert lane()._once()
    ((kind, report, calling),) = modality.reports
    assert (kind, report.TransactionUID, calling) == (1, TRANSACTION, "ROUTER2")
    assert committed(report) == ["1.2.3.1", "1.2.3.2"]
    assert "FailedSOPSequence" not in report
    assert engine.states() == [State.DONE]
    assert marked(engine) == {"1.2.3.1", "1.2.3.2"}


def test_each_failure_has_its_reason(engine: Engine, modality: Modality, lane: Reporting) -> None:
    engine.receive(STUDY, sop_uid="1.2.3.1")
    engine.receive(STUDY, sop_uid="1.2.3.2")
    lost = engine.receive(STUDY, sop_uid="1.2.3.3")
    mr = "1.2.840.10008.5.1.4.1.1.4"
    ask(engine, (CT, "1.2.3.1"), (mr, "1.2.3.2"), (CT, "1.2.3.3"), (CT, "1.2.3.4"), ("1.2.840.10008.1.1", "1.2.3.5"))
    engine.index()
    (engine.spool._hour(lost) / lost.file_name).unlink()
    assert lane()._once()
    ((kind, report, _),) = modality.reports
    assert kind == 2
    assert committed(report) == ["1.2.3.1"]
    assert failures(report) == {"1.2.3.2": 0x0119, "1.2.3.3": 0x0110, "1.2.3.4": 0x0112, "1.2.3.5": 0x0122}
    assert marked(engine) == {"1.2.3.1"}


def test_a_cut_file_is_not_committed(engine: Engine, modality: Modality, lane: Reporting) -> None:
    entry = engine.receive(STUDY, sop_uid="1.2.3.1")
    ask(engine, (CT, "1.2.3.1"))
    engine.index()
    path = engine.spool._hour(entry) / entry.file_name
    path.write_bytes(path.read_bytes()[:-1])
    lane()._once()
    assert failures(modality.reports[0][1]) == {"1.2.3.1": 0x0110}


def test_a_file_that_cannot_be_looked_at_now_is_neither_committed_nor_called_damaged(engine: Engine) -> None:
    engine.receive(STUDY, sop_uid="1.2.3.1")
    engine.settle()
    commitments = Commitments(engine.store, engine.spool, "stored")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                taken.append(os.dup(0))
        verdicts = commitments.judge([(CT, "1.2.3.1")], 1, lambda: None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)
    assert verdicts.reasons == {"1.2.3.1": 0x0213} and not verdicts.damaged
    assert marked(engine) == set()
    assert commitments.judge([(CT, "1.2.3.1")], 1, lambda: None).reasons == {"1.2.3.1": 0}


def test_an_altered_file_is_not_committed_and_its_study_is_held(
    engine: Engine, modality: Modality, lane: Reporting
) -> None:
    entry = engine.receive(STUDY, sop_uid="1.2.3.1")
    engine.receive(STUDY, sop_uid="1.2.3.2")
    engine.settle()
    ask(engine, (CT, "1.2.3.1"), (CT, "1.2.3.2"))
    engine.index()
    path = engine.spool._hour(entry) / entry.file_name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # the disk gives back another bit than it was given
    path.write_bytes(content)
    modality.status = 0x0110
    reporting = lane()
    reporting._once()
    engine.clock.ms += 60_000
    modality.status = 0
    reporting._once()
    assert [failures(report) for _, report, _ in modality.reports] == [{"1.2.3.1": 0x0110}] * 2
    assert marked(engine) == {"1.2.3.2"}
    assert (engine.job().state, engine.job().reason_code) == (State.HELD, "bytes-damaged")
    with engine.store.reading() as tx:
        assert tx.value("SELECT COUNT(*) FROM event WHERE code = 'bytes-damaged' AND study_uid = ?", (STUDY,)) == 1


def test_images_that_still_wait_in_new_count(engine: Engine, modality: Modality, lane: Reporting) -> None:
    ask(engine, (CT, "1.2.3.1"), at=1 << 44)
    engine.index()
    engine.receive(STUDY, sop_uid="1.2.3.1")  # accepted before the request, as another process named it
    reporting = lane()
    assert reporting._once()
    assert (engine.job().state, engine.job().reason_code) == (State.WAITING, "commit-indexing")
    engine.index()
    engine.clock.ms += 2_000
    assert reporting._once()
    assert committed(modality.reports[0][1]) == ["1.2.3.1"]


def test_a_peer_that_is_away_is_tried_again(engine: Engine, modality: Modality, lane: Reporting) -> None:
    engine.receive(STUDY, sop_uid="1.2.3.1")
    ask(engine, (CT, "1.2.3.1"))
    engine.index()
    assert lane(port=9)._once()
    assert (engine.job().state, engine.job().reason_code) == (State.DEFERRED, "commit-unreachable")
    engine.clock.ms += 60_000
    modality.status = 0x0110
    assert lane()._once()
    assert engine.job().reason_code == "commit-refused"
    engine.clock.ms += 60_000
    modality.status = 0
    assert lane()._once()
    assert engine.states() == [State.DONE]
    assert len(modality.reports) == 2


def test_the_second_policy_waits_for_satusehat(engine: Engine, modality: Modality, lane: Reporting) -> None:
    engine.destination.name = "satusehat"
    engine.lane, engine.assembler = engine.make_lane(), engine.make_assembler()
    engine.assembler._route = lambda inventory: Plan({"satusehat": inventory.instances}, "", None)
    engine.receive(STUDY, sop_uid="1.2.3.1")
    engine.receive(STUDY, sop_uid="1.2.3.2")
    ask(engine, (CT, "1.2.3.1"), (CT, "1.2.3.2"))
    engine.index()
    reporting = lane("delivered")
    reporting._once()
    assert engine.job().reason_code == "commit-waits-delivery"
    assert not marked(engine)

    def refuse_one(work: Work) -> Outcome:
        frozen = work.freeze(work.items([ItemState.DUE], 10))
        work.settle_items([(frozen[0].item, ItemState.STORED, {}), (frozen[1].item, ItemState.REFUSED, {})])
        return Finish()

    engine.destination.script = refuse_one
    engine.settle()
    engine.work()
    with engine.store.transaction() as tx:
        jobs.accept_partial(tx, STUDY, who="ward", now=engine.clock.ms)
    engine.destination.script = lambda work: Finish()
    engine.work()
    engine.clock.ms += 60_000
    assert reporting._once()
    report = modality.reports[0][1]
    assert (len(committed(report)), list(failures(report).values())) == (1, [0x0110])


def test_requests_that_come_twice(engine: Engine, modality: Modality, lane: Reporting) -> None:
    engine.receive(STUDY, sop_uid="1.2.3.1")
    first = ask(engine, (CT, "1.2.3.1"))
    ask(engine, (CT, "1.2.3.9"))  # another request under a transaction UID in use
    engine.index()
    reporting = lane()
    while reporting._once():
        pass
    assert sorted((kind, *failures(report).values()) for kind, report, _ in modality.reports) == [(1,), (2, 0x0131)]
    engine.spool.return_to_new([first.id])  # a crash between commit and rename
    engine.index()
    assert not reporting._once()
    ask(engine, (CT, "1.2.3.1"))  # the caller asks again: it has not seen the answer
    engine.index()
    assert reporting._once()
    assert len(modality.reports) == 3


def test_an_unreadable_request_is_set_aside(engine: Engine) -> None:
    engine.writer.add_record(EntryKind.REQUEST, b'{"request": "storage-commitment"}')
    engine.writer.add_record(EntryKind.REQUEST, b'{"request": "mpps"}')
    engine.index()
    assert len(list((engine.spool._root / "bad").glob("*.req"))) == 2
    assert engine.states() == []


def test_many_instances_in_one_request(engine: Engine, modality: Modality, lane: Reporting) -> None:
    uids = [generate_uid(prefix=None) for _ in range(3000)]
    engine.receive(STUDY, sop_uid=uids[0])
    ask(engine, *((CT, uid) for uid in uids))
    engine.index()
    assert lane()._once()
    assert len(failures(modality.reports[0][1])) == 2999
