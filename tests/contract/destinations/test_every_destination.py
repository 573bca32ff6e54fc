"""What holds for every kind of destination: the suite that a new kind has to pass before its line goes into KINDS."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from interface.destinations import KINDS
from interface.folder import Folder, FolderOptions
from interface.satusehat.delivery import Satusehat
from internal.errors import LeaseLost
from internal.model import ItemState, Probe
from internal.ports import Destination
from internal.states import Finish, More, State
from tests.contract.destinations.images import make_instance, new_study_uid
from tests.contract.destinations.memory_work import Ledger, MemoryWork, SkewClock, drive, step_once
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


@pytest.fixture(params=sorted(KINDS))
def place(
    request: pytest.FixtureRequest, tmp_path: Path, platform: Sandbox, make_destination: Callable[..., Satusehat],
) -> Place:
    if request.param == "folder":
        root = tmp_path / "out"

        def files() -> dict[str, str]:
            return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.dcm")}

        return Place(Folder(FolderOptions("copy", root)), files)
    assert request.param == "satusehat", "a new kind needs its place in this suite"
    platform.control("DELETE", "")

    def instances() -> dict[str, str]:
        return {one["sop_uid"]: one["sha256"] for one in platform.state()["instances"]}

    return Place(make_destination(platform.url, request_timeout_s=1.0), instances)


@pytest.fixture
def order(platform: Sandbox, place: Place) -> Callable[[Ledger], None]:
    """Place an order for a ledger where the destination asks for one."""
    return lambda ledger: platform.order(ledger.part, indexed=True) and None


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
