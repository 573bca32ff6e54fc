"""A stand for each test of this folder, ended afterwards whatever happened, and how verdicts are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from bench.record import FAULT
from tests.faults.stand import Stand, Verdict
from tests.system.rig import Rig

Keep = Callable[[Sequence[Verdict]], None]
Record = Callable[[str, str, str], None]


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    """A stand with nothing started yet."""
    made = Stand(Rig(tmp_path))
    yield made
    made.close()
    made.rig.close()


@pytest.fixture
def record(record_property: Callable[[str, object], None]) -> Record:
    """Record id, fault and result for docs/reliability.md."""
    return lambda id_, text, result: record_property(FAULT, json.dumps([id_, text, result]))


@pytest.fixture
def keep(record: Record) -> Keep:
    """Record verdicts for docs/reliability.md, print how many survived, and fail with those that did not."""

    def kept(verdicts: Sequence[Verdict]) -> None:
        for one in verdicts:
            record(one.id, one.text, one.result)
        died = [f"{one.id} ({one.text}): {one.result}" for one in verdicts if not one.survived]
        print(f"{len(verdicts) - len(died)} of {len(verdicts)} survived")
        assert not died, "\n".join(died)

    return kept
