"""A sandbox process for each test process, and everything one delivery needs around it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from interface.satusehat.client import SatusehatOptions
from interface.satusehat.delivery import Satusehat
from internal.states import Outcome
from tests.contract.destinations.images import make_instance, new_study_uid
from tests.contract.destinations.memory_work import Ledger, SkewClock, drive
from tests.contract.destinations.peers import Orthanc, Sshd
from tests.contract.destinations.peers import running as running_peer
from tests.contract.sandbox.sandbox_client import ORG, Sandbox

_numbers = itertools.count(1)


def make_options(url: str, **changes: Any) -> SatusehatOptions:
    """Options for a sandbox, with waits short enough for a test."""
    given: dict[str, Any] = {
        "base_url": url, "organization_id": ORG, "client_key": lambda: "sandbox-client",
        "secret": lambda: "sandbox-secret", "request_timeout_s": 5.0, "index_lag_s": 0.5, "reregister_max_s": 0.0,
        "fhir_per_minute": 0,
    } | changes
    return SatusehatOptions(**given)


@dataclass
class Case:
    """One study, its order at the platform (unless left out), its job, and the destination that delivers it."""

    sandbox: Sandbox
    destination: Satusehat
    ledger: Ledger
    clock: SkewClock

    @property
    def accession(self) -> str:
        return self.ledger.part

    def drive(self, **changes: Any) -> Outcome:
        return drive(self.destination, self.ledger, self.clock, **changes)

    def add(self, *numbers: int, **changes: Any) -> None:
        self.ledger.add(make_instance(self.ledger.study_uid, number, self.accession, **changes) for number in numbers)

    def imaging_studies(self) -> list[dict[str, Any]]:
        """Every ImagingStudy the platform holds for our study UID or accession number."""
        wanted = {self.accession, f"urn:oid:{self.ledger.study_uid}"}
        held = self.sandbox.state()["resources"].get("ImagingStudy", [])
        return [one for one in held if wanted & {entry.get("value") for entry in one["identifier"]}]

    def stored(self) -> dict[str, dict[str, Any]]:
        held = self.sandbox.state()["instances"]
        return {one["sop_uid"]: one for one in held if one["study_uid"] == self.ledger.study_uid}

    def order(self, **fields: Any) -> dict[str, str]:
        return self.sandbox.order(self.accession, indexed=True, **fields)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    sandbox = Sandbox(tmp_path_factory.mktemp("platform") / "data")
    yield sandbox
    assert sandbox.stop() == 0


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_peer(Orthanc(tmp_path_factory.mktemp("orthanc"))) as peer:
        yield peer


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_peer(Sshd(tmp_path_factory.mktemp("sshd"))) as peer:
        yield peer


@pytest.fixture
def platform(running: Sandbox) -> Iterator[Sandbox]:
    yield running
    running.control("DELETE", "/faults")
    running.forget_token()


@pytest.fixture
def make_destination() -> Iterator[Callable[..., Satusehat]]:
    made: list[Satusehat] = []

    def make(url: str, **changes: Any) -> Satusehat:
        made.append(Satusehat(make_options(url, **changes)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def make_case(platform: Sandbox, make_destination: Callable[..., Satusehat]) -> Callable[..., Case]:
    def make(*, instances: int = 2, accession: str | None = None, order: bool = True, sandbox: Sandbox = platform,
             destination: Satusehat | None = None, study_date: str | None = None, **options: Any) -> Case:
        to = destination or make_destination(sandbox.url, **options)
        part = f"ACC{next(_numbers):05}" if accession is None else accession
        case = Case(sandbox, to, Ledger(new_study_uid(), part, to.environment), SkewClock())
        case.add(*range(1, instances + 1), study_date=study_date)
        if order:
            case.order()
        return case

    return make
