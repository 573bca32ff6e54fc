"""The dimse destination against DCMTK, Orthanc and a node that refuses, breaks, hangs and restarts as told."""

from __future__ import annotations

import io
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, StorageCommitmentPushModel

from interface.dimse.negotiation import COMMITMENT_INSTANCE
from interface.dimse.pool import fits, propose
from interface.dimse.requestor import Node
from interface.dimse.store_scu import DimseOptions, DimseStore
from internal.model import ItemState
from internal.states import Finish, Later, NotYet, Refuse
from tests.contract.destinations.images import make_instance, new_study_uid
from tests.contract.destinations.memory_work import Ledger, SkewClock, drive, step_once
from tests.contract.destinations.peers import Orthanc, Storescp, free_port, running

Make = Callable[..., DimseStore]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[DimseStore] = []

    def build(port: int, aet: str = "PACS", timeout_s: float = 5.0, tls: ssl.SSLContext | None = None,
              **options: Any) -> DimseStore:
        node = Node("127.0.0.1", port, aet, timeout_s, tls)
        options = {"scratch": tmp_path / "scratch", "commitment_linger_s": 0.1} | options
        made.append(DimseStore(DimseOptions("pacs", node, "ROUTER", **options)))
        return made[-1]

    yield build
    for one in made:
        one.close()


def study(destination: DimseStore, instances: int = 3, **changes: Any) -> Ledger:
    ledger = Ledger(new_study_uid(), "A1", destination.environment)
    ledger.add(make_instance(ledger.study_uid, number, "A1", **changes) for number in range(1, instances + 1))
    return ledger


class Scp:
    """A node of pynetdicom that answers as `status` says (by SOP Instance UID) and notes what it was asked."""

    def __init__(self, syntaxes: list[str] | None = None) -> None:
        self.status: Callable[[Any], int] = lambda event: 0
        self.stored: list[str] = []
        self.callers: list[str] = []
        self.associations = 0
        self.actions: list[Dataset] = []
        self.port = free_port()
        self._syntaxes = syntaxes or [ExplicitVRLittleEndian]
        self.start()

    def start(self) -> None:
        entity = AE(ae_title="PACS")
        entity.add_supported_context(CTImageStorage, self._syntaxes)
        entity.add_supported_context(StorageCommitmentPushModel)
        entity.add_supported_context("1.2.840.10008.1.1")
        entity.network_timeout = 30
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._action),
                    (evt.EVT_ACCEPTED, self._accepted)]
        self.server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def _accepted(self, event: Any) -> None:
        self.associations += 1
        self.callers.append(event.assoc.requestor.ae_title)

    def _store(self, event: Any) -> int:
        status = self.status(event)
        if status == 0:
            self.stored.append(event.request.AffectedSOPInstanceUID)
        return status

    def _action(self, event: Any) -> tuple[int, None]:
        self.actions.append(event.action_information)
        return 0, None

    def stop(self) -> None:
        self.server.shutdown()


@pytest.fixture
def scp() -> Iterator[Scp]:
    with running(Scp()) as node:
        yield node


def uid_of(ledger: Ledger, number: int) -> str:
    return ledger.items[number].instance.header.sop_uid


def test_one_association_serves_many_studies(scp: Scp, make: Make) -> None:
    to = make(scp.port)
    for _ in range(3):
        assert isinstance(drive(to, study(to), SkewClock()), Finish)
    assert scp.associations == 1 and len(scp.stored) == 9 and to.report()["associations_opened"] == 1


def test_an_association_that_the_node_ended_meanwhile_costs_nothing(scp: Scp, make: Make) -> None:
    to = make(scp.port)
    drive(to, study(to), SkewClock())
    scp.stop()
    scp.start()
    ledger = study(to)
    assert isinstance(step_once(to, ledger, SkewClock()), Finish)
    assert all("tries" not in item.answer for item in ledger.items.values())


@pytest.mark.parametrize(("status", "state"), [
    (0xB000, ItemState.STORED), (0x0111, ItemState.UNVERIFIED), (0xA900, ItemState.REFUSED),
    (0xC123, ItemState.REFUSED), (0x0122, ItemState.REFUSED), (0x0110, ItemState.REFUSED),
])
def test_what_a_status_means_for_one_image_does_not_touch_the_others(
    scp: Scp, make: Make, status: int, state: ItemState,
) -> None:
    to = make(scp.port)
    ledger = study(to)
    scp.status = lambda event: status if event.request.AffectedSOPInstanceUID == uid_of(ledger, 2) else 0
    outcome = drive(to, ledger, SkewClock())
    assert [ledger.items[n].state for n in (1, 2, 3)] == [ItemState.STORED, state, ItemState.STORED]
    assert isinstance(outcome, Refuse if state is ItemState.REFUSED else Finish)
    if status == 0x0110:
        assert ledger.items[2].answer["tries"] == 4


def test_a_full_node_pauses_the_lane_and_nothing_is_charged_or_lost(scp: Scp, make: Make) -> None:
    to = make(scp.port)
    ledger = study(to, 5)
    scp.status = lambda event: 0xA700 if len(scp.stored) >= 2 else 0
    outcome = step_once(to, ledger, SkewClock())
    assert isinstance(outcome, Later) and (outcome.code, outcome.blame) == ("dimse-a700", "lane")
    assert ledger.count() == {ItemState.STORED: 2, ItemState.SENT: 3}
    scp.status = lambda event: 0
    assert isinstance(drive(to, ledger, SkewClock()), Finish)
    assert len(scp.stored) == 5


def test_an_image_on_which_the_node_breaks_is_refused_at_the_fourth_try(scp: Scp, make: Make) -> None:
    to = make(scp.port)
    ledger = study(to, 4)

    def status(event: Any) -> int:
        if event.request.AffectedSOPInstanceUID == uid_of(ledger, 2):
            event.assoc.abort()
        return 0

    scp.status = status
    outcome = drive(to, ledger, SkewClock())
    assert isinstance(outcome, Refuse)
    assert ledger.items[2].state is ItemState.REFUSED and ledger.items[2].answer["tries"] == 4
    assert {ledger.items[n].state for n in (1, 3, 4)} == {ItemState.STORED}


def test_a_node_that_always_breaks_is_a_fault_of_the_lane(scp: Scp, make: Make) -> None:
    to = make(scp.port)
    ledger = study(to)

    def status(event: Any) -> int:
        event.assoc.abort()
        return 0

    scp.status = status
    for _ in range(6):
        outcome = step_once(to, ledger, SkewClock())
        assert isinstance(outcome, Later) and outcome.blame == "lane" and outcome.code == "dimse-lost"
    assert ledger.count() == {ItemState.SENT: 3}


def test_a_node_that_hangs_is_left(make: Make) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        to = make(silent.getsockname()[1], timeout_s=0.3)
        outcome = step_once(to, study(to), SkewClock())
    assert isinstance(outcome, Later) and (outcome.code, outcome.blame) == ("dimse-timeout", "lane")


def test_a_node_that_is_off_or_does_not_know_us_says_so(scp: Scp, make: Make) -> None:
    off = make(free_port())
    outcome = step_once(off, study(off), SkewClock())
    assert isinstance(outcome, Later) and outcome.code == "dimse-connect"
    assert [line.ok for line in off.probe()] == [False]
    scp.server.ae.require_called_aet = True
    wrong = make(scp.port, "ELSE")
    outcome = step_once(wrong, study(wrong), SkewClock())
    assert isinstance(outcome, Later) and outcome.code == "dimse-rejected"
    assert "does not have this AE title (1/1/7)" in outcome.reason


@pytest.mark.parametrize("garbage", [
    b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x02\0\xff\xff\xff\xff", b"\x02\0\0\0\0\x04abcd",
    b"\x02\0\0\0\0\x48" + bytes(70) + b"\x21\0",
])
def test_a_peer_that_is_no_dicom_node(make: Make, garbage: bytes) -> None:
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve() -> None:
            connection = server.accept()[0]
            connection.sendall(garbage)
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        to = make(server.getsockname()[1], timeout_s=2.0)
        outcome = step_once(to, study(to), SkewClock())
        thread.join()
    assert isinstance(outcome, Later) and outcome.code in ("dimse-lost", "dimse-protocol", "dimse-rejected")


def test_the_calling_title_of_the_device_is_passed_on(scp: Scp, make: Make) -> None:
    to = make(scp.port, pass_calling=True)
    ledger = study(to)
    for number, title in ((1, "CT_1"), (2, "MR_1"), (3, "")):
        item = ledger.items[number]
        arrival = replace(item.instance.arrival, calling_aet=title)
        ledger.items[number] = replace(item, instance=replace(item.instance, arrival=arrival))
    assert isinstance(drive(to, ledger, SkewClock()), Finish)
    assert scp.callers == ["CT_1", "MR_1", "ROUTER"]


def encoded(ledger: Ledger, number: int, syntax: str, **pixels: Any) -> None:
    """Give an item of `ledger` real pixels in another transfer syntax."""
    item = ledger.items[number]
    dataset = pydicom.dcmread(io.BytesIO(ledger.files[item.instance.id]))
    dataset.Rows = dataset.Columns = 16
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = bytes(range(256)) + bytes(256)
    if syntax == RLELossless:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = syntax
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    header = replace(item.instance.header, transfer_syntax_uid=syntax)
    ledger.files[item.instance.id] = out.getvalue()
    ledger.items[number] = replace(item, instance=replace(item.instance, header=header))


@pytest.mark.dcmtk
def test_an_encoding_that_the_node_refuses_is_decoded_without_loss(tmp_path: Path, make: Make) -> None:
    with running(Storescp(tmp_path / "pacs", accept="+xi")) as node:  # implicit little endian alone
        to = make(node.port)
        ledger = study(to)
        encoded(ledger, 1, RLELossless)
        encoded(ledger, 2, DeflatedExplicitVRLittleEndian)
        assert isinstance(drive(to, ledger, SkewClock()), Finish)
        found = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, node.files())}
    assert {one.file_meta.TransferSyntaxUID for one in found.values()} == {ImplicitVRLittleEndian}
    for number in (1, 2):
        assert found[uid_of(ledger, number)].PixelData == bytes(range(256)) + bytes(256)
        assert ledger.items[number].answer["transfer_syntax"] == ImplicitVRLittleEndian
    assert to.report()["recoded"] == 3 and list((tmp_path / "scratch").iterdir()) == []


def test_without_transcoding_it_is_refused_with_words(scp: Scp, make: Make) -> None:
    to = make(scp.port, transcode=False)
    ledger = study(to, 2)
    encoded(ledger, 1, RLELossless)
    outcome = drive(to, ledger, SkewClock())
    assert isinstance(outcome, Refuse) and "does not take this encoding" in outcome.reason
    assert ledger.items[2].state is ItemState.STORED


@pytest.mark.parametrize("number", [1, 2])  # the second comes after one that the older association carried
def test_what_an_older_association_did_not_agree_on_is_asked_of_a_new_one(scp: Scp, make: Make, number: int) -> None:
    to = make(scp.port, transcode=False)
    assert isinstance(drive(to, study(to), SkewClock()), Finish)
    encoded_study = study(to, 1)
    encoded(encoded_study, 1, RLELossless)
    assert isinstance(drive(to, encoded_study, SkewClock()), Refuse)
    scp.stop()
    scp._syntaxes = [ExplicitVRLittleEndian, RLELossless]
    scp.start()
    again = study(to, 2)
    encoded(again, number, RLELossless)
    assert isinstance(drive(to, again, SkewClock()), Finish)


def test_more_than_128_contexts_go_over_several_associations(scp: Scp, make: Make) -> None:
    to = make(scp.port)
    ledger = study(to, 70)
    for number in range(1, 71):
        item = ledger.items[number]
        header = replace(item.instance.header, sop_class_uid=f"1.2.840.10008.5.1.4.1.1.99.{number}")
        ledger.items[number] = replace(item, instance=replace(item.instance, header=header))
    outcome = drive(to, ledger, SkewClock())
    assert isinstance(outcome, Refuse) and ledger.count() == {ItemState.REFUSED: 70}
    assert scp.associations >= 2


def test_what_is_proposed() -> None:
    ct, mr = "1.2.3", "1.2.4"
    contexts = propose([(ct, RLELossless), (ct, ExplicitVRLittleEndian), (mr, ImplicitVRLittleEndian)])
    assert [(one.abstract_syntax, one.transfer_syntaxes) for one in contexts] == [
        (ct, (RLELossless,)), (ct, (ExplicitVRLittleEndian,)), (mr, (ImplicitVRLittleEndian,)),
        (ct, (ImplicitVRLittleEndian,)), (mr, (ExplicitVRLittleEndian,))]
    assert [one.context_id for one in contexts] == [1, 3, 5, 7, 9]
    assert fits([(str(n), "1.2") for n in range(64)]) and not fits([(str(n), "1.2") for n in range(65)])


# -- storage commitment ----------------------------------------------------------------------------------------------

def answer_later(ledger: Ledger, scp: Scp, failed: tuple[str, ...] = ()) -> None:
    """What the receive role and the index do with an N-EVENT-REPORT."""
    request = scp.actions[-1]
    ledger.commitments[str(request.TransactionUID)] = {
        str(one.ReferencedSOPInstanceUID): 0x0110 if one.ReferencedSOPInstanceUID in failed else 0
        for one in request.ReferencedSOPSequence}


def test_a_study_is_done_only_when_the_node_commits_to_every_image(scp: Scp, make: Make) -> None:
    to = make(scp.port, commitment=True)
    ledger, clock = study(to), SkewClock()
    outcome = step_once(to, ledger, clock)
    assert isinstance(outcome, NotYet) and outcome.code == "commit-asked"
    assert isinstance(step_once(to, ledger, clock), NotYet) and len(scp.actions) == 1
    assert len(scp.actions[0].ReferencedSOPSequence) == 3
    answer_later(ledger, scp)
    assert isinstance(step_once(to, ledger, clock), Finish)
    assert all(item.answer["committed"] for item in ledger.items.values())


def test_an_image_that_is_not_committed_holds_the_study(scp: Scp, make: Make) -> None:
    to = make(scp.port, commitment=True)
    ledger, clock = study(to), SkewClock()
    step_once(to, ledger, clock)
    answer_later(ledger, scp, failed=(uid_of(ledger, 2),))
    outcome = drive(to, ledger, clock)
    assert isinstance(outcome, Refuse) and "not committed (0x0110)" in outcome.reason
    assert ledger.items[2].state is ItemState.REFUSED


def test_a_node_that_never_answers_is_asked_again(scp: Scp, make: Make) -> None:
    to = make(scp.port, commitment=True, commitment_timeout_s=3600)
    ledger, clock = study(to), SkewClock()
    step_once(to, ledger, clock)
    clock.skew_ms = 3_700_000
    outcome = step_once(to, ledger, clock)
    assert isinstance(outcome, Later) and (outcome.code, outcome.blame) == ("commit-no-answer", "job")
    assert isinstance(step_once(to, ledger, clock), NotYet)
    assert len({str(one.TransactionUID) for one in scp.actions}) == 2


def test_a_crash_between_sending_and_asking_asks_for_all(scp: Scp, make: Make) -> None:
    to = make(scp.port, commitment=True)
    ledger, clock = study(to), SkewClock()
    ledger.crash_on = "facts commitment"
    assert step_once(to, ledger, clock) is None
    assert scp.actions == []
    assert isinstance(step_once(to, ledger, clock), NotYet) and len(scp.actions) == 1
    answer_later(ledger, scp)
    assert isinstance(drive(to, ledger, clock), Finish)


def test_the_answer_may_come_on_the_same_association(make: Make) -> None:
    node = Scp()

    def action(event: Any) -> tuple[int, None]:
        import threading

        request = event.action_information

        def report() -> None:
            body = Dataset()
            body.TransactionUID = request.TransactionUID
            body.ReferencedSOPSequence = request.ReferencedSOPSequence
            event.assoc.send_n_event_report(body, 1, StorageCommitmentPushModel, COMMITMENT_INSTANCE)

        threading.Timer(0.05, report).start()
        return 0, None

    node.server.bind(evt.EVT_N_ACTION, action)
    with running(node):
        to = make(node.port, commitment=True)
        ledger, clock = study(to), SkewClock()
        assert isinstance(drive(to, ledger, clock), Finish)
    assert all(item.answer["committed"] for item in ledger.items.values())


@pytest.mark.dcmtk
def test_a_node_without_commitment_is_named(tmp_path: Path, make: Make) -> None:
    with running(Storescp(tmp_path / "pacs")) as node:
        to = make(node.port, commitment=True)
        outcome = step_once(to, study(to), SkewClock())
    assert isinstance(outcome, Later) and outcome.code == "commit-not-offered"


# -- other peers -----------------------------------------------------------------------------------------------------

@pytest.mark.orthanc
def test_orthanc_by_dimse(orthanc: Orthanc, make: Make) -> None:
    orthanc.forget()
    to = make(orthanc.dicom, orthanc.aet)
    ledger = study(to, 12)
    assert isinstance(drive(to, ledger, SkewClock()), Finish)
    assert set(orthanc.arrived()) == {one.header.sop_uid for one in ledger.instances}
    assert [line.ok for line in to.probe()] == [True]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name, subject in (("node", "/CN=pacs.rs.example"), ("own", "/CN=router")):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", subject,
                        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(folder / f"{name}.key"),
                        "-out", str(folder / f"{name}.crt")], check=True, capture_output=True)
    return folder


@pytest.mark.dcmtk
def test_tls_both_ways(tmp_path: Path, keys: Path, make: Make) -> None:
    from interface.dimse.tls import client_context

    options = ("+tls", str(keys / "node.key"), str(keys / "node.crt"), "+cf", str(keys / "own.crt"), "-rc")
    with running(Storescp(tmp_path / "pacs", *options)) as node:
        to = make(node.port, tls=client_context(keys / "node.crt", keys / "own.crt", keys / "own.key"))
        ledger = study(to)
        assert isinstance(drive(to, ledger, SkewClock()), Finish)
        assert len(node.files()) == 3
        stranger = make(node.port, tls=client_context(keys / "own.crt", keys / "own.crt", keys / "own.key"))
        outcome = step_once(stranger, study(stranger), SkewClock())
        assert isinstance(outcome, Later) and (outcome.code, outcome.blame) == ("dimse-tls", "lane")
        nobody = make(node.port, tls=client_context(keys / "node.crt", Path(), Path()))
        assert isinstance(step_once(nobody, study(nobody), SkewClock()), Later)
        plain = make(node.port, timeout_s=1.0)
        assert isinstance(step_once(plain, study(plain), SkewClock()), Later)
        assert len(node.files()) == 3


@pytest.mark.dcmtk
def test_a_node_that_restarts_between_two_images(tmp_path: Path, make: Make) -> None:
    with running(Storescp(tmp_path / "pacs")) as node:
        to = make(node.port)
        ledger, clock = study(to, 40), SkewClock()
        step_once(to, ledger, clock, yield_after=0)
        node.stop()
        outcome = step_once(to, ledger, clock)
        assert isinstance(outcome, Later) and outcome.blame == "lane"
        node.start()
        assert isinstance(drive(to, ledger, clock), Finish)
        assert len(node.files()) == 40
