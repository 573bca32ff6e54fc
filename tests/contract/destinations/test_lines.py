"""Every destination that is reached over a network, with its real peer, over a line that refuses, hangs and breaks."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from interface.dicomweb_client import Dicomweb, DicomwebOptions
from interface.dimse.requestor import Node
from interface.dimse.store_scu import DimseOptions, DimseStore
from interface.outbound import Session, SessionOptions
from interface.s3 import S3, S3Options
from interface.sftp import Sftp, SftpOptions
from interface.web_auth import basic
from internal.model import ItemState
from internal.ports import Destination
from internal.states import Finish, Later, State
from tests.contract.destinations.bucket import ACCESS, BUCKET, SECRET, Bucket
from tests.contract.destinations.images import make_instance, new_study_uid
from tests.contract.destinations.line import Line, Mood
from tests.contract.destinations.memory_work import Ledger, SkewClock, drive, step_once
from tests.contract.destinations.peers import Orthanc, Sshd, Storescp, running
from tests.contract.destinations.test_every_destination import expected

IMAGES = 6


@dataclass
class Reach:
    """A destination that waits one second at most, the line to its peer, and what has arrived there."""

    destination: Destination
    line: Line
    arrived: Callable[[], dict[str, str]]


def over(port: int, request: pytest.FixtureRequest) -> Line:
    line = Line(port)
    request.addfinalizer(line.stop)
    return line


@pytest.fixture
def dimse_reach(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Reach]:
    with running(Storescp(tmp_path / "pacs")) as scp:
        line = over(scp.port, request)
        yield Reach(DimseStore(DimseOptions("pacs", Node("127.0.0.1", line.port, scp.aet, 1.0), "ROUTER")), line,
                    scp.arrived)


@pytest.fixture
def dicomweb_reach(orthanc: Orthanc, request: pytest.FixtureRequest) -> Reach:
    orthanc.forget()
    line = over(orthanc.http, request)
    session = Session(f"http://127.0.0.1:{line.port}/dicom-web", SessionOptions(stall_timeout_s=1.0))
    return Reach(Dicomweb(DicomwebOptions("web", session, basic(orthanc.user, lambda: orthanc.password), batch=2)),
                 line, orthanc.arrived)


@pytest.fixture
def sftp_reach(sshd: Sshd, tmp_path: Path, request: pytest.FixtureRequest) -> Reach:
    sshd.forget()
    line = over(sshd.port, request)
    known = tmp_path / "known_hosts"
    known.write_text(sshd.known_hosts.read_text().replace(f":{sshd.port} ", f":{line.port} "))
    return Reach(Sftp(SftpOptions("far", "127.0.0.1", line.port, getpass.getuser(), known, str(sshd.files),
                                  key=sshd.folder / "client", timeout_s=1.0)), line, sshd.arrived)


@pytest.fixture
def s3_reach(request: pytest.FixtureRequest) -> Iterator[Reach]:
    with running(Bucket()) as bucket:
        line = over(bucket.port, request)
        yield Reach(S3(S3Options("cloud", BUCKET, lambda: ACCESS, lambda: SECRET, f"http://127.0.0.1:{line.port}",
                                 timeout_s=1.0)), line, bucket.arrived)


PEERS = {"dimse": "dcmtk", "dicomweb": "orthanc", "sftp": "sshd"}


@pytest.fixture(params=[pytest.param(kind, marks=getattr(pytest.mark, PEERS[kind])) if kind in PEERS else kind
                        for kind in ("dimse", "dicomweb", "sftp", "s3")])
def reach(request: pytest.FixtureRequest) -> Iterator[Reach]:
    """Each kind with its real peer."""
    found: Reach = request.getfixturevalue(f"{request.param}_reach")
    yield found
    close = getattr(found.destination, "close", None)
    if close is not None:
        close()


def study(to: Destination, images: int = IMAGES) -> Ledger:
    ledger = Ledger(new_study_uid(), "A1", to.environment)
    ledger.add(make_instance(ledger.study_uid, number, "A1", pixels=20_000) for number in range(1, images + 1))
    return ledger


@pytest.mark.parametrize("mood", [Mood.CLOSED, Mood.HANGS])
def test_a_peer_that_refuses_or_hangs_is_a_fault_of_the_lane_and_afterwards_all_arrive(
    reach: Reach, mood: Mood,
) -> None:
    ledger = study(reach.destination)
    reach.line.set(mood)
    outcome = step_once(reach.destination, ledger, SkewClock())
    assert isinstance(outcome, Later) and outcome.blame == "lane", outcome
    assert not ledger.count()[ItemState.REFUSED] and reach.arrived() == {}
    assert not all(line.ok for line in reach.destination.probe())
    reach.line.set(Mood.CARRIES)
    assert isinstance(drive(reach.destination, ledger, SkewClock()), Finish)
    assert reach.arrived() == expected(ledger)


@pytest.mark.parametrize("share", [0.02, 0.35, 0.6, 0.9])
def test_a_line_that_breaks_on_the_way_costs_no_image_and_doubles_none(reach: Reach, share: float) -> None:
    ledger = study(reach.destination)
    reach.line.set(Mood.CUT, round(share * sum(map(len, ledger.files.values()))))
    assert isinstance(drive(reach.destination, ledger, SkewClock()), Finish)
    assert reach.line.was_cut.is_set()
    assert reach.arrived() == expected(ledger)
    assert ledger.state is State.DONE and not ledger.count()[ItemState.CONFLICT]


def test_a_peer_that_falls_silent_in_the_middle_is_left_and_used_again(reach: Reach) -> None:
    first, second = study(reach.destination, 2), study(reach.destination, 2)
    assert isinstance(drive(reach.destination, first, SkewClock()), Finish)
    reach.line.set(Mood.HANGS)
    outcome = step_once(reach.destination, second, SkewClock())
    assert isinstance(outcome, Later) and outcome.blame == "lane"
    reach.line.set(Mood.CARRIES)
    assert isinstance(drive(reach.destination, second, SkewClock()), Finish)
    assert reach.arrived() == expected(first) | expected(second)


@pytest.fixture
def tiny_disk(sshd: Sshd, mount: Callable[[Path, str], Path]) -> Path:
    """A disk of 128 KB below the server's folder."""
    sshd.forget()
    return mount(sshd.files / "tiny", "128k")


@pytest.mark.sshd
def test_a_server_whose_disk_is_full_pauses_the_lane_and_goes_on_when_there_is_room(
    sshd: Sshd, tiny_disk: Path,
) -> None:
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(100 * 1024))
    to = Sftp(SftpOptions("far", "127.0.0.1", sshd.port, getpass.getuser(), sshd.known_hosts, str(tiny_disk),
                          key=sshd.folder / "client", timeout_s=5.0))
    ledger = study(to, 3)
    outcome = step_once(to, ledger, SkewClock())
    assert isinstance(outcome, Later) and outcome.blame == "lane"
    ballast.unlink()
    assert isinstance(drive(to, ledger, SkewClock()), Finish)
    assert sshd.arrived() == expected(ledger)
    to.close()
