"""A rig for each system test, ended afterwards whatever happened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A configured rig with nothing started yet."""
    made = Rig(tmp_path)
    made.write_config()
    yield made
    made.close()
