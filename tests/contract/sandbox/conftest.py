"""Fixtures: one sandbox per test process, emptied before each test, and more where a test needs its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.sandbox.sandbox_client import Sandbox, Study


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    sandbox = Sandbox(tmp_path_factory.mktemp("sandbox") / "data", "-v")
    yield sandbox
    if sandbox.process.poll() is None:
        assert sandbox.stop() == 0


@pytest.fixture
def sandbox(running: Sandbox) -> Iterator[Sandbox]:
    """The session's sandbox, emptied, with the settings it was started with put back afterwards."""
    assert running.process.poll() is None, "".join(running.errors)
    running.control("DELETE", "")
    before = running.control("GET", "/settings")
    yield running
    assert running.process.poll() is None, "".join(running.errors)
    running.control("POST", "/settings", before)
    running.control("DELETE", "/faults")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Sandbox]]:
    """Starts further sandboxes, by default on one data folder of the test; stops what is left."""
    started: list[Sandbox] = []

    def begin(*arguments: str, data: Path | None = None) -> Sandbox:
        started.append(Sandbox(data or tmp_path / "data", *arguments))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.stop()


@pytest.fixture
def study(sandbox: Sandbox) -> Study:
    return Study(sandbox, "RAD2501020001")
