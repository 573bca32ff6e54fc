"""A web role that tests share, emptied for each (`doors`), or one of one's own (`open_doors`, `own_doors`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interface.http.limits import Limits
from internal.users import Role
from tests.contract.http.doors import Doors


@pytest.fixture
def open_doors(tmp_path: Path) -> Iterator[Callable[..., Doors]]:
    """Start a web role with settings of one's own."""
    running: list[Doors] = []

    def opened(
        database_url: str = "", limits: Limits | None = None, configuration: str = "", **settings: str,
    ) -> Doors:
        given = {name.replace("__", "."): value for name, value in settings.items()}
        running.append(Doors(tmp_path / f"data{len(running)}", database_url, given, limits, configuration))
        return running[-1]

    yield opened
    for doors in running:
        doors.close()


@pytest.fixture(scope="session")
def running_doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """One web role for the whole run; ask for `doors` instead."""
    started = Doors(tmp_path_factory.mktemp("doors") / "data")
    yield started
    started.close()


def with_everybody(doors: Doors) -> Doors:
    """Add an account of each role: viewer, operator, admin."""
    for role in Role:
        doors.add_user(str(role), role)
    return doors


@pytest.fixture
def doors(running_doors: Doors) -> Doors:
    """A web role with nothing but an account of each role: viewer, operator, admin."""
    running_doors.empty()
    return with_everybody(running_doors)


@pytest.fixture
def own_doors(open_doors: Callable[..., Doors]) -> Doors:
    """The same for a test that breaks it."""
    return with_everybody(open_doors())
