"""Faults that concern one study each, all at once on one router: what the platform, senders and contents do wrong."""

from __future__ import annotations

import pytest

from tests.faults import platform, senders
from tests.faults.conftest import Keep
from tests.faults.stand import Fault, Stand, run_together

GROUPS = {"platform": platform.FAULTS, "senders and content": senders.FAULTS}


@pytest.mark.long(seconds=35)
@pytest.mark.timeout(240)
@pytest.mark.parametrize("group", GROUPS)
def test_together(stand: Stand, keep: Keep, group: str) -> None:
    faults: list[Fault] = GROUPS[group]
    stand.start()
    keep(run_together(stand, faults))
