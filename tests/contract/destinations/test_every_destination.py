"""What holds for every kind of destination: the suite that a new kind has to pass before its line goes into KINDS."""

from __future__ import annotations

import getpass
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from interface.destinations import KINDS
from interface.dicomweb_client import Dicomweb, DicomwebOptions
from interface.dimse.requestor import Node
from interface.dimse.store_scu import DimseOptions, DimseStore
from interface.folder import Folder, FolderOptions
from interface.outbound import Session, SessionOptions
from interface.s3 import S3, S3Options
from interface.satusehat.delivery import Satusehat
from interface.sftp import Sftp, SftpOptions
from interface.web_auth import basic
from internal.errors import LeaseLost
from internal.model import ItemState, Probe
from internal.ports import Destination
from internal.states import Finish, More, State
from tests.contract.destinations.bucket import ACCESS, BUCKET, SECRET, Bucket
from tests.contract.destinations.images import make_instance, new_study_uid
from tests.contract.destinations.memory_work import Ledger, MemoryWork, SkewClock, drive, step_once
from tests.contract.destinations.peers import Orthanc, Sshd, Storescp, running
from tests.contract.sandbox.sandbox_client import Sandbox

ACCESSION = "SUITE/1 é"


@dataclass
class Place:
    """A destination of one kind and a way to see what has arrived there: SOP Instance UID -> SHA-256."""

    destination: Destination
    arrived: Callable[[], dict[str, str]]


@pytest.fixture
def make_ledger() -> Callable[[Place, int], Ledger]:
    def make(place: Place, instances: int) -> Ledger:
        ledger = Ledger(new_study_uid(), f"{ACCESSION}{instances}", place.destination.environment)
        ledger.add(make_instance(ledger.study_uid, number, ledger.part) for number in range(1, instances + 1))
        return ledger

    return make


PEERS = {"dimse": "dcmtk", "dicomweb": "orthanc", "sftp": "sshd"}


@pytest.fixture(params=[pytest.param(kind, marks=getattr(pytest.mark, PEERS[kind])) if kind in PEERS else kind
                        for kind in sorted(KINDS)])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A destination of each kind, with the real program or server that it delivers to."""
    place: Place = request.getfixturevalue(f"{request.param}_place")
    yield place
    close = getattr(place.destination, "close", None)
    if close is not None:
        close()


@pytest.fixture
def folder_place(tmp_path: Path) -> Place:
    root = tmp_path / "out"

    def files() -> dict[str, str]:
        return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.dcm")}

    return Place(Folder(FolderOptions("copy", root)), files)


@pytest.fixture
def dimse_place(tmp_path: Path) -> Iterator[Place]:
    with running(Storescp(tmp_path / "pacs")) as scp:
        yield Place(DimseStore(DimseOptions("pacs", Node("127.0.0.1", scp.port, scp.aet), "ROUTER")), scp.arrived)


@pytest.fixture
def dicomweb_place(orthanc: Orthanc) -> Place:
    orthanc.forget()
    session = Session(orthanc.url, SessionOptions())
    options = DicomwebOptions("web", session, basic(orthanc.user, lambda: orthanc.password), batch=7)
    return Place(Dicomweb(options), orthanc.arrived)


@pytest.fixture
def sftp_place(sshd: Sshd) -> Place:
    sshd.forget()
    return Place(Sftp(SftpOptions("far", "127.0.0.1", sshd.port, getpass.getuser(), sshd.known_hosts, str(sshd.files),
                                  key=sshd.folder / "client")), sshd.arrived)


@pytest.fixture
def s3_place() -> Iterator[Place]:
    with running(Bucket()) as bucket:
        options = S3Options("cloud", BUCKET, lambda: ACCESS, lambda: SECRET, bucket.url)
        yield Place(S3(options), bucket.arrived)


@pytest.fixture
def satusehat_place(platform: Sandbox, make_destination: Callable[..., Satusehat]) -> Place:
    platform.control("DELETE", "")

    def instances() -> dict[str, str]:
        return {one["sop_uid"]: one["sha256"] for one in platform.state()["instances"]}

    return Place(make_destination(platform.url, request_timeout_s=1.0), instances)


@pytest.fixture
def order(request: pytest.FixtureRequest, place: Place) -> Callable[[Ledger], None]:
    """Place an order for a ledger where the destination asks for one."""
    if place.destination.kind != "satusehat":
        return lambda ledger: None
    platform: Sandbox = request.getfixturevalue("platform")

    def make(ledger: Ledger) -> None:
        platform.order(ledger.part, indexed=True)

    return make


def expected(ledger: Ledger) -> dict[str, str]:
    return {one.header.sop_uid: hashlib.sha256(ledger.files[one.id]).hexdigest() for one in ledger.instances}


MakeLedger = Callable[[Place, int], Ledger]
Order = Callable[[Ledger], None]


def test_every_byte_arrives_and_is_receipted(place: Place, make_ledger: MakeLedger, order: Order) -> None:
    ledger = make_ledger(place, 20)
    order(ledger)
    assert isinstance(drive(place.destination, ledger, SkewClock()), Finish)
    assert place.arrived() == expected(ledger)
    assert ledger.count() == {ItemState.STORED: 20} and ledger.state is State.DONE
    assert all(item.sha256 and item.answer["at"] for item in ledger.items.values())


def test_late_images_and_a_second_delivery_change_nothing_else(
    place: Place, make_ledger: MakeLedger, order: Order,
) -> None:
    ledger, clock = make_ledger(place, 2), SkewClock()
    order(ledger)
    drive(place.destination, ledger, clock)
    before = place.arrived()
    ledger.add([make_instance(ledger.study_uid, 3, ledger.part)])
    assert isinstance(drive(place.destination, ledger, clock), Finish)
    assert place.arrived() == expected(ledger) and before.items() <= place.arrived().items()
    again = Ledger(ledger.study_uid, ledger.part, ledger.environment, facts=dict(ledger.facts))
    again.add([(one, ledger.files[one.id]) for one in ledger.instances])
    assert isinstance(drive(place.destination, again, clock), Finish)
    assert place.arrived() == expected(ledger)


def test_a_crash_at_any_commit_is_resumed(place: Place, make_ledger: MakeLedger, order: Order) -> None:
    plain = make_ledger(place, 1)
    order(plain)
    drive(place.destination, plain, SkewClock())
    for at in range(1, len(plain.journal) + 1):
        for before in (True, False):
            ledger = make_ledger(place, 2 + 2 * at + before)
            order(ledger)
            ledger.crash_at, ledger.crash_before = at, before
            assert isinstance(drive(place.destination, ledger, SkewClock()), Finish)
            assert ledger.crashes == 1
            assert expected(ledger).items() <= place.arrived().items()


def test_it_stops_at_a_boundary_when_asked(place: Place, make_ledger: MakeLedger, order: Order) -> None:
    ledger, clock = make_ledger(place, 40), SkewClock()
    order(ledger)
    assert isinstance(step_once(place.destination, ledger, clock, yield_after=0), More)
    assert ledger.state is State.QUEUED
    assert isinstance(drive(place.destination, ledger, clock, yield_after=0), Finish)
    assert place.arrived() == expected(ledger)


def test_a_lost_lease_passes_through(place: Place, make_ledger: MakeLedger, order: Order) -> None:
    ledger = make_ledger(place, 2)
    order(ledger)
    work = MemoryWork(ledger, SkewClock())
    work.lost = True
    with pytest.raises(LeaseLost):
        place.destination.step(work)
    assert ledger.journal == []


def test_name_kind_and_environment(place: Place) -> None:
    destination: Any = place.destination
    assert destination.kind in KINDS
    assert destination.name and destination.environment == destination.environment != ""


def test_probes_say_what_they_tried_and_change_nothing(place: Place) -> None:
    before = place.arrived()
    lines = list(place.destination.probe())
    assert lines and all(isinstance(line, Probe) and line.ok and line.text for line in lines), lines
    assert place.arrived() == before
