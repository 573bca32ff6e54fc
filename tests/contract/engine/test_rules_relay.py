"""Rules and a node that is fed by C-STORE: what it is asked about and what of a study leaves; on both databases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.uid import ImplicitVRLittleEndian

from interface.dimse.requestor import Node
from interface.dimse.store_scu import DimseOptions, DimseStore
from internal import commitments
from internal.states import State
from tests.contract.destinations.peers import running
from tests.contract.destinations.test_dimse import Scp

from .conftest import Engine
from .test_rules import rule


@pytest.fixture
def lane(engine: Engine, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Scp]:
    def build(*, commitment: bool = False) -> Scp:
        running_node = running(Scp([ImplicitVRLittleEndian]))
        node: Scp = running_node.__enter__()
        request.addfinalizer(lambda: running_node.__exit__(None, None, None))
        options = DimseOptions("scripted", Node("127.0.0.1", node.port, "PACS", 5.0, None), "ROUTER",
                               commitment=commitment, commitment_linger_s=0.05, scratch=tmp_path / "scratch")
        store = DimseStore(options)
        request.addfinalizer(store.close)
        engine.destination.script = store.step
        return node

    return build


def test_a_node_is_asked_about_the_uids_that_it_got(engine: Engine, lane: Callable[..., Scp]) -> None:
    engine.use_rules(rule(do="remap uids", send_to="scripted"))
    node = lane(commitment=True)
    engine.receive("1.2.3", sop_uid="1.9.1")
    engine.settle()
    assert engine.work()
    (request,) = node.actions
    asked = [one.ReferencedSOPInstanceUID for one in request.ReferencedSOPSequence]
    assert asked == node.stored and asked != ["1.9.1"]
    with engine.store.transaction() as tx:
        commitments.add_answer(tx, commitments.CommitAnswer(
            str(request.TransactionUID), "PACS", engine.clock.ms, dict.fromkeys(map(str, asked), 0)))
    engine.clock.ms += 60_000
    assert engine.work() and engine.states() == [State.DONE]


def test_an_image_that_a_rule_cannot_change_holds_the_study_before_any_is_sent(
    engine: Engine, lane: Callable[..., Scp],
) -> None:
    engine.destination.by_accession = False
    engine.use_rules(rule(do="set PatientID = AccessionNumber else hold", send_to="scripted"))
    node = lane()
    for number in range(33):
        engine.receive("1.2.3", sop_uid=f"1.9.{number + 100}", accession="A1")
    engine.receive("1.2.3", sop_uid="1.9.999", accession="")
    engine.settle()
    assert engine.work()
    assert (engine.job().state, node.stored) == (State.HELD, [])
