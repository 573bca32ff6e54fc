"""Images around the size of the buffers they are read through: indexed, frozen and sent byte for byte."""

from __future__ import annotations

import hashlib
import random

import pytest

from internal import dicomfile
from internal.indexer import READ_BYTES
from internal.model import ItemState
from internal.ports import Work
from internal.states import Finish, Outcome, State
from tests.contract.engine.conftest import CT, IMPLICIT, Engine

SOP_UID = "1.2.3.4"


@pytest.mark.parametrize("size_bytes", [READ_BYTES - 2, READ_BYTES, READ_BYTES + 2, 2 * READ_BYTES, 2_600_000])
def test_bytes_are_the_same_from_the_spool_to_the_destination(engine: Engine, size_bytes: int) -> None:
    least = engine.spool.locate(engine.receive("1.2.8", sop_uid=SOP_UID).id)
    pixels = random.Random(size_bytes).randbytes(size_bytes - least.stat().st_size + 2)
    least.unlink()
    path = engine.spool.locate(engine.receive("1.2.9", sop_uid=SOP_UID, pixels=pixels).id)
    whole = path.read_bytes()
    assert len(whole) == size_bytes and whole.endswith(pixels)
    with path.open("rb") as file:
        data_set = whole[dicomfile.read_meta(file).dataset_offset:]
    leaving = dicomfile.canonical_meta(CT, SOP_UID, IMPLICIT) + data_set

    def deliver(work: Work) -> Outcome:
        (frozen,) = work.freeze(work.items([ItemState.DUE], 2))
        instance = frozen.item.instance
        assert (instance.sha256, instance.dataset_bytes) == (hashlib.sha256(data_set).hexdigest(), len(data_set))
        assert (instance.header.study_uid, instance.header.patient_id) == ("1.2.9", "P1")
        assert (frozen.sha256, frozen.size_bytes) == (hashlib.sha256(leaving).hexdigest(), len(leaving))
        with frozen.open() as at_once, frozen.open() as in_pieces:
            assert at_once.read() == leaving
            assert b"".join(iter(lambda: in_pieces.read(100_001), b"")) == leaving
        work.settle_items([(frozen.item, ItemState.STORED, {})])
        return Finish()

    engine.destination.script = deliver
    engine.settle()
    engine.work()
    assert engine.job().state is State.DONE
