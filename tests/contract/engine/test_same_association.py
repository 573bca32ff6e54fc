"""Storage commitment answered on the association that asked: a real receive role, a real peer, the real lane."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pydicom
import pytest
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt

from interface.dimse.commitment_report import CommitmentPeer, CommitmentReport, encode_report
from interface.dimse.negotiation import COMMITMENT_INSTANCE, STORAGE_COMMITMENT
from internal.commitments import Commitments
from internal.states import State
from internal.worker import Lane
from tests.contract.dimse.role import Role, until
from tests.contract.dimse.wire import CT, EXPLICIT, Wire, command, context, data_set, p_data, pdv
from tests.contract.engine.conftest import Engine
from tests.contract.engine.test_commitment import Modality, listening, modality  # noqa: F401 - fixtures

UID = "1.2.3.1"

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # no SQL of its own


class Waiting:
    """A pynetdicom peer that asks for commitment and keeps the association open."""

    def __init__(self, role: Role, syntax: str = ImplicitVRLittleEndian) -> None:
        self.reports: list[tuple[int, Any]] = []
        self.status = 0
        self.came = threading.Event()
        entity = AE("CT1")
        entity.add_requested_context(STORAGE_COMMITMENT, syntax)
        entity.add_requested_context("1.2.840.10008.1.1")
        self.association = entity.associate(
            "127.0.0.1", role.port, ae_title="DCMROUTER", evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._take)])
        assert self.association.is_established

    def _take(self, event: Any) -> tuple[int, None]:
        self.reports.append((event.event_type, event.event_information))
        self.came.set()
        return self.status, None

    def ask(self, *uids: str) -> None:
        status, _ = self.association.send_n_action(request(*uids), 1, STORAGE_COMMITMENT, COMMITMENT_INSTANCE)
        assert status.Status == 0


def request(*uids: str) -> pydicom.Dataset:
    items = []
    for uid in uids:
        items.append(pydicom.Dataset())
        items[-1].ReferencedSOPClassUID, items[-1].ReferencedSOPInstanceUID = CT, uid
    made = pydicom.Dataset()
    made.TransactionUID, made.ReferencedSOPSequence = "1.2.826.0.1.99", items
    return made


@pytest.fixture
def role(engine: Engine) -> Iterator[Role]:
    started = Role(engine.root / "spool", commitment_callers=["CT1"], commitment_same_association=["CT1"])
    yield started
    assert started.stop() == 0
    assert "Traceback" not in started.log()


@pytest.fixture
def lane(engine: Engine, modality: Modality) -> Callable[..., Lane]:  # noqa: F811
    def make(port: int = 0, patience_s: float = 5.0) -> Lane:
        report = CommitmentReport(
            CommitmentPeer("CT1", "127.0.0.1", port or modality.port), "DCMROUTER",
            Commitments(engine.store, engine.spool, "stored"), engine.spool.reports, patience_s=patience_s)
        return Lane(report, engine.store, engine.spool, engine.clock, engine.policy, jitter=lambda: 0.5)

    return make


def left_over(engine: Engine) -> list[str]:
    folder = engine.root / "spool" / "run" / "reports"
    return sorted(path.suffix for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_the_answer_comes_on_the_association_that_asked(
    engine: Engine, role: Role, modality: Modality, lane: Callable[..., Lane], syntax: str  # noqa: F811
) -> None:
    engine.receive("1.2.9", sop_uid=UID)
    peer = Waiting(role, syntax)
    peer.ask(UID, "1.2.3.404")
    engine.index()
    assert lane()._once()
    ((kind, report),) = peer.reports
    assert kind == 2 and report.TransactionUID == "1.2.826.0.1.99"
    assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == [UID]
    assert [item.FailureReason for item in report.FailedSOPSequence] == [0x0112]
    assert engine.states() == [State.DONE]
    assert modality.reports == []
    assert peer.association.send_c_echo().Status == 0
    peer.association.release()
    assert left_over(engine) == []


def test_an_association_that_has_ended_is_called_back(
    engine: Engine, role: Role, modality: Modality, lane: Callable[..., Lane]  # noqa: F811
) -> None:
    engine.receive("1.2.9", sop_uid=UID)
    peer = Waiting(role)
    peer.ask(UID)
    peer.association.release()
    until(lambda: left_over(engine) == [])
    engine.index()
    assert lane()._once()
    assert (len(modality.reports), peer.reports, engine.states()) == (1, [], [State.DONE])


def test_one_that_is_busy_is_not_waited_for(
    engine: Engine, role: Role, modality: Modality, lane: Callable[..., Lane]  # noqa: F811
) -> None:
    engine.receive("1.2.9", sop_uid=UID)
    with Wire(role.port) as wire:
        wire.associate(context(1, CT, EXPLICIT), context(3, STORAGE_COMMITMENT, EXPLICIT), calling="CT1")
        wire.send(p_data(pdv(3, 3, n_action())) + p_data(pdv(3, 2, encoded(request(UID)))))
        assert wire.response().status == 0
        wire.send(p_data(pdv(1, 3, command(1, 2, CT, "1.2.7"))))  # its data set takes its time
        engine.index()
        assert lane(patience_s=0.5)._once()
        assert (len(modality.reports), engine.states()) == (1, [State.DONE])
        wire.send_data(data_set("1.2.7"))
        assert wire.response().status == 0  # and no report comes before or after it
        wire.release()
    until(lambda: left_over(engine) == [])


def test_a_refusal_there_is_tried_again_on_a_new_one(
    engine: Engine, role: Role, modality: Modality, lane: Callable[..., Lane]  # noqa: F811
) -> None:
    engine.receive("1.2.9", sop_uid=UID)
    peer = Waiting(role)
    peer.status = 0x0110
    peer.ask(UID)
    engine.index()
    assert lane()._once()
    assert (engine.job().state, engine.job().reason_code) == (State.DEFERRED, "commit-refused")
    engine.clock.ms += 60_000
    assert lane()._once()
    assert (len(peer.reports), len(modality.reports), engine.states()) == (1, 1, [State.DONE])
    peer.association.release()


def test_a_peer_that_leaves_without_an_answer_is_called_back(
    engine: Engine, role: Role, modality: Modality, lane: Callable[..., Lane]  # noqa: F811
) -> None:
    engine.receive("1.2.9", sop_uid=UID)
    with Wire(role.port) as wire:
        wire.associate(context(3, STORAGE_COMMITMENT, EXPLICIT), calling="CT1")
        wire.send(p_data(pdv(3, 3, n_action())) + p_data(pdv(3, 2, encoded(request(UID)))))
        assert wire.response().status == 0
        engine.index()
        reporting = threading.Thread(target=lane()._once)
        reporting.start()
        assert wire.read_pdu()[0] == 4  # the report
    reporting.join(30)
    assert (len(modality.reports), engine.states()) == (1, [State.DONE])
    until(lambda: left_over(engine) == [])


def test_who_is_not_named_gets_a_new_association(
    engine: Engine, modality: Modality, lane: Callable[..., Lane]  # noqa: F811
) -> None:
    engine.receive("1.2.9", sop_uid=UID)
    role = Role(engine.root / "spool", commitment_callers=["CT1"])
    peer = Waiting(role)
    peer.ask(UID)
    engine.index()
    assert lane()._once()
    assert (len(modality.reports), peer.reports) == (1, [])
    peer.association.release()
    assert role.stop() == 0


def test_a_child_that_starts_again_forgets_the_associations_of_the_one_before(
    engine: Engine, role: Role, modality: Modality, lane: Callable[..., Lane]  # noqa: F811
) -> None:
    engine.receive("1.2.9", sop_uid=UID)
    peer = Waiting(role)
    peer.ask(UID)
    until(lambda: left_over(engine) == [".open"])
    role.kill()
    again = Role(engine.root / "spool")
    assert left_over(engine) == []
    engine.index()
    assert lane()._once()
    assert len(modality.reports) == 1
    assert again.stop() == 0
    peer.association.abort()
    role.process.returncode = 0


def n_action() -> bytes:
    def element(number: int, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HHI", 0, number, len(value)) + value

    body = (element(0x0003, STORAGE_COMMITMENT.encode()) + element(0x0100, b"\x30\x01") + element(0x0110, b"\1\0")
            + element(0x0800, b"\1\0") + element(0x1001, COMMITMENT_INSTANCE.encode()) + element(0x1008, b"\1\0"))
    return element(0x0000, struct.pack("<I", len(body))) + body


def encoded(made: pydicom.Dataset) -> bytes:
    return encode_report(made, EXPLICIT)
