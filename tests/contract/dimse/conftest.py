"""A receive role that most tests share; each test that changes or breaks one starts its own."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.dimse.role import MOST_BYTES, Footprint, Role


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Role]:
    role = Role(tmp_path_factory.mktemp("receive") / "spool")
    footprint = Footprint(role)
    yield role
    footprint.descriptors_fall_back()
    assert footprint.growth_bytes() < MOST_BYTES
    assert role.stop() == 0, role.log()
    assert "Traceback" not in role.log()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Role]]:
    roles: list[Role] = []

    def make(name: str = "spool", **options: Any) -> Role:
        roles.append(Role(tmp_path / name, **options))
        return roles[-1]

    yield make
    for role in roles:
        if role.process.poll() is None:
            role.kill()


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Enough descriptors for the attacker."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192) if hard > 0 else 8192, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
