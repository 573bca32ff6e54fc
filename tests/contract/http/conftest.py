"""A web role for each test (`doors`) and one that all tests of a module share (`shared_doors`)."""

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

    def opened(database_url: str = "", limits: Limits | None = None, **settings: str) -> Doors:
        given = {name.replace("__", "."): value for name, value in settings.items()}
        running.append(Doors(tmp_path / f"data{len(running)}", database_url, given, limits))
        return running[-1]

    yield opened
    for doors in running:
        doors.close()


@pytest.fixture
def doors(open_doors: Callable[..., Doors]) -> Doors:
    """A web role with one account of each role: viewer, operator, admin."""
    started = open_doors()
    for role in Role:
        started.add_user(str(role), role)
    return started
