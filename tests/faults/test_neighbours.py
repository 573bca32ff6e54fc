"""Faults of a second destination, of rules and of the children that parse and decode: the platform gets its share.

Each row has a study of its own that goes to SATUSEHAT and to a PACS; the oracle judges the one, the PACS the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psutil
import pydicom
import pytest
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from internal.store import Store
from tests.faults.conftest import Keep
from tests.faults.neighbour import Pacs
from tests.faults.oracle import find_wrongs
from tests.faults.senders import transfer_syntax
from tests.faults.stand import ROUTER, SANDBOX, SATUSEHAT, Edit, Fault, Stand, Verdict, wait_done
from tests.system.images import Study
from tests.system.rig import wait_for

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
WAIT_S = 40.0


class Relay(Stand):
    """A stand whose router also sends to a PACS, and changes one kind of study for it by a rule."""

    def __init__(self, rig: Any, pacs: Pacs) -> None:
        super().__init__(rig)
        self.pacs = pacs

    def configure(self, otherwise: str) -> None:
        """Write router.conf; `otherwise`: what the rule does where its source is empty."""
        self.rig.write_config(satusehat=SATUSEHAT, **ROUTER | {"send_to": "satusehat, pacs"}, extra=f"""
[dimse:pacs]
host = 127.0.0.1
port = {self.pacs.port}
ae_title = PACS
[rule:number]
when = StudyDescription = F18
do = set PatientID = EthnicGroup else {otherwise}
send_to = satusehat, pacs
for = pacs
""")

    def start(self, environment: dict[str, str] | None = None) -> None:
        self.configure("hold")
        self.rig.start_sandbox(*SANDBOX)
        self.rig.start_router(environment=environment)

    def at_pacs(self, study: Study) -> tuple[str, str]:
        """Return state and reason code of the study's delivery to the PACS."""
        found = [row for row in self.rows() if row.study_uid == study.study_uid and row.lane == "pacs"]
        return (str(found[0].state), found[0].reason_code) if found else ("", "")

    def wait_pacs(self, study: Study, *wanted: tuple[str, str]) -> tuple[str, str]:
        """Return state and reason code as soon as they are one of those wanted."""

        def reached() -> tuple[str, str] | None:
            now = self.at_pacs(study)
            return now if now in wanted else None

        try:
            return tuple(wait_for(reached, WAIT_S, f"the PACS {wanted}", every_s=0.2))  # type: ignore[return-value]
        except AssertionError as error:
            raise AssertionError(f"{error}; now {self.at_pacs(study)}") from None

    def send_ordered(self, study: Study) -> None:
        """Register the order, send, and wait until SATUSEHAT has everything."""
        self.order(study.accession_number)
        self.send_all(study)
        wait_done(self, study)


@pytest.fixture
def relay(stand: Stand) -> Iterator[Relay]:
    pacs = Pacs()
    made = Relay(stand.rig, pacs)
    yield made
    made.close()
    pacs.close()


def rle(dataset: pydicom.FileDataset, number: int) -> None:
    dataset.compress(RLELossless, generate_instance_uid=False)


def first_is_lossy(dataset: pydicom.FileDataset, number: int) -> None:
    if number == 0:
        transfer_syntax(JPEG_BASELINE)(dataset, number)
        dataset.LossyImageCompression = "01"


def described_as_f18(dataset: pydicom.FileDataset, number: int) -> None:
    dataset.StudyDescription = "F18"


def refuses_encoding(relay: Relay, study: Study) -> None:
    """Compressed without loss: decoded on the way."""
    relay.pacs.start([ImplicitVRLittleEndian])
    relay.send_ordered(study)
    relay.wait_pacs(study, ("done", ""))
    syntaxes = {str(relay.pacs.kept[image.sop_uid][0].file_meta.TransferSyntaxUID) for image in study.images}
    assert syntaxes == {ImplicitVRLittleEndian}, syntaxes


def refuses_lossy(relay: Relay, study: Study) -> None:
    """Compressed with loss: never decoded; the others go, and this one when the node has learnt it."""
    relay.pacs.start([ExplicitVRLittleEndian])
    relay.send_ordered(study)
    relay.wait_pacs(study, ("held", "partly-delivered"))
    assert study.images[0].sop_uid not in relay.pacs.kept and study.images[1].sop_uid in relay.pacs.kept
    relay.pacs.start([ExplicitVRLittleEndian, JPEG_BASELINE])
    relay.retry(study)
    relay.wait_pacs(study, ("done", ""))


def is_full(relay: Relay, study: Study) -> None:
    """A700: the lane pauses, and nothing is charged to the study."""
    relay.pacs.status = 0xA700
    relay.send_ordered(study)
    relay.wait_pacs(study, ("deferred", "dimse-a700"))
    relay.pacs.status = 0
    assert relay.rig.run("lane", "pacs", "resume").returncode == 0
    relay.wait_pacs(study, ("done", ""))


def warns(relay: Relay, study: Study) -> None:
    """B000: stored, and done."""
    relay.pacs.status = 0xB000
    relay.send_ordered(study)
    relay.wait_pacs(study, ("done", ""))
    relay.pacs.status = 0


def refuses_one(status: int) -> Any:
    """Return an act: the second image is refused with `status`; the others go, and it when a person asks again."""

    def act(relay: Relay, study: Study) -> None:
        refused = study.images[1].sop_uid
        relay.pacs.statuses = {refused: status}
        relay.send_ordered(study)
        relay.wait_pacs(study, ("held", "partly-delivered"))
        assert {image.sop_uid for image in study.images} - relay.pacs.kept.keys() == {refused}
        relay.pacs.statuses = {}
        relay.retry(study)
        relay.wait_pacs(study, ("done", ""))

    return act


def rule_fails(relay: Relay, study: Study) -> None:
    """The value that a rule needs is empty: nothing half changed leaves; the person corrects the rule."""
    relay.send_ordered(study)
    relay.wait_pacs(study, ("held", "source-empty"))
    assert not {image.sop_uid for image in study.images} & relay.pacs.kept.keys()
    relay.configure("keep")
    assert relay.rig.stop_router() == 0
    relay.rig.start_router()
    relay.retry(study)
    relay.wait_pacs(study, ("done", ""))


def children(relay: Relay, module: str) -> list[psutil.Process]:
    """Return the children of the deliver role that run this module."""
    found = []
    for child in relay.rig.roles()["deliver"].children(recursive=True):
        try:
            if module in child.cmdline():
                found.append(child)
        except psutil.Error:
            continue
    return found


def parser_dies(relay: Relay, study: Study) -> None:
    """The child that parses headers is killed each time it is seen: the images are known and delivered."""
    deliver = relay.rig.roles()["deliver"]
    relay.send_ordered(study)
    relay.wait_pacs(study, ("done", ""))
    for _ in range(2):
        wait_for(lambda: children(relay, "internal.parse_child"), WAIT_S, "headers are parsed")[0].kill()
    wait_for(lambda: parsed(relay, study) == len(study.images), WAIT_S, "every image is parsed or noted", every_s=0.3)
    assert deliver.is_running() and relay.rig.is_ready()


def parsed(relay: Relay, study: Study) -> int:
    """Return of how many images the metadata are there, or it is noted why not."""
    store = Store.open(relay.store_url(), read_only=True)
    try:
        with store.reading() as tx:
            return sum(len(json.loads(instances)) + len(json.loads(unparsed)) for instances, unparsed in tx.rows(
                "SELECT instances, unparsed FROM series_metadata WHERE study_uid = ?", (study.study_uid,)))
    finally:
        store.close()


def decoder_dies(relay: Relay, study: Study) -> None:
    """The child that decodes for the PACS is killed: its image is tried again by a person, the others go."""
    deliver = relay.rig.roles()["deliver"]
    relay.pacs.start([ImplicitVRLittleEndian])
    relay.order(study.accession_number)
    relay.send_all(study)
    wait_for(lambda: children(relay, "internal.codec"), WAIT_S, "an image is decoded", every_s=0.01)[0].kill()
    wait_done(relay, study)
    if relay.wait_pacs(study, ("done", ""), ("held", "partly-delivered"))[0] == "held":
        relay.retry(study)
        relay.wait_pacs(study, ("done", ""))
    assert deliver.is_running()


ROWS: list[tuple[str, str, Any, Edit | None, int]] = [
    ("A20a", "kill -9 of the child that parses headers", parser_dies, None, 20),
    ("A20b", "kill -9 of the child that decodes for a PACS", decoder_dies, rle, 12),
    ("D39a", "the PACS does not take the encoding: decoded on the way", refuses_encoding, rle, 3),
    ("D39b", "the PACS does not take what is compressed with loss; a person has it tried again", refuses_lossy,
     first_is_lossy, 3),
    ("D40a", "the PACS is full (A700)", is_full, None, 3),
    ("D40b", "the PACS warns (B000)", warns, None, 3),
    ("D40c", "the PACS refuses one image (0122); a person has it tried again", refuses_one(0x0122), None, 3),
    ("D40d", "the PACS refuses one image (C000); a person has it tried again", refuses_one(0xC000), None, 3),
    ("F18", "a rule cannot change a header; a person corrects the rule", rule_fails, described_as_f18, 3),
]


def bring(relay: Relay, id_: str, text: str, act: Any, edit: Edit | None, images: int) -> Verdict:
    """Let one fault happen to a study of its own, and judge everything that has been sent so far."""
    relay.pacs.start([ExplicitVRLittleEndian, UID(RLELossless)])
    study = relay.make(Fault(id_, text, images=images, edit=edit))
    try:
        act(relay, study)
    except AssertionError as error:
        return Verdict(id_, text, f"{error}"[:300])
    wrongs = find_wrongs(relay.rig.state(), relay.told()) + relay.pacs.find_wrongs(study)
    return Verdict(id_, text, "; ".join(wrongs[:3]) or "survived")


@pytest.mark.long(seconds=60)
@pytest.mark.timeout(400)
def test_beside_a_pacs(relay: Relay, keep: Keep) -> None:
    relay.start()
    keep([bring(relay, *row) for row in ROWS])
    assert "Traceback" not in relay.rig.log()
