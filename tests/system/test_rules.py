"""The relay of docs/rules.md with real peers: storescu sends, the router rewrites, storescp receives."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from tests.system.rig import DCMTK_ENVIRONMENT, ROOT, Rig, _accepts, free_port, wait_for

pytestmark = pytest.mark.dcmtk


@contextmanager
def pacs(port: int, folder: Path) -> Iterator[None]:
    """Run storescp as the PACS."""
    folder.mkdir(exist_ok=True)
    server = subprocess.Popen(["storescp", "--fork", "+xa", "+B", "-aet", "PACS", "-od", str(folder), str(port)],
                              env=DCMTK_ENVIRONMENT)
    try:
        wait_for(lambda: _accepts(port), 20, "storescp accepts")
        yield
    finally:
        server.terminate()
        server.wait(10)


def example(port: int) -> str:
    """Return the rules and the PACS of the page's first example."""
    page = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    block = re.findall(r"^```ini\n(.*?)^```", page, flags=re.M | re.S)[0]
    block = block[block.index("[dimse:pacs]") :]
    return block.replace("192.168.1.20", "127.0.0.1").replace("port = 104", f"port = {port}")


def make_files(folder: Path, count: int) -> dict[str, bytes]:
    """Write images of one study, the last one without Ethnic Group in a study of its own; pixels by SOP UID."""
    folder.mkdir()
    pixels, study = {}, generate_uid(prefix=None)
    for number in range(count):
        image = dcmread(str(get_testdata_file("CT_small.dcm")))
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
        image.StudyInstanceUID, image.SeriesInstanceUID, image.EthnicGroup = study, f"{study}.1", "99-17"
        if number == count - 1:
            image.StudyInstanceUID, image.SeriesInstanceUID = f"{study}.9", f"{study}.9.1"
            del image.EthnicGroup
        image.save_as(folder / f"{number}.dcm")
        pixels[str(image.SOPInstanceUID)] = image.PixelData
    return pixels


@pytest.mark.long(seconds=25)
def test_the_example_relays_every_image_once_also_those_from_downtime(rig: Rig, tmp_path: Path) -> None:
    port, arrived = free_port(), tmp_path / "pacs"
    rig.write_config(extra=example(port), satusehat="ae_title = DICOMRELAY", default_send_to="none")
    rig.start_router()
    sent = make_files(tmp_path / "out", 5)
    subprocess.run(["storescu", "-aec", "DICOMRELAY", "+sd", "127.0.0.1", str(rig.dicom_port), str(tmp_path / "out")],
                   check=True, env=DCMTK_ENVIRONMENT)  # the PACS is down now
    wait_for(lambda: "deferred" in rig.run("queue", "--json").stdout, 30, "the dead PACS is noticed")
    with pacs(port, arrived):
        rig.run("lane", "pacs", "resume")
        wait_for(lambda: len(list(arrived.iterdir())) >= 4, 60, "four images are at the PACS")
        wait_for(lambda: '"state": "done"' in rig.run("queue", "--json").stdout, 30, "the study is done")
    received = [dcmread(path) for path in arrived.iterdir()]
    assert len({str(one.SOPInstanceUID) for one in received} & sent.keys()) == len(received) == 4
    for one in received:
        assert one.PatientID == "99-17"
        assert one.PixelData == sent[str(one.SOPInstanceUID)]
        (item,) = one[0x04000561].value
        assert item.ModifiedAttributesSequence[0].PatientID == "1CT1"
    held = [row for row in _queue(rig) if row["state"] == "held"]
    assert [row["reason_code"] for row in held] == ["source-empty"]


def _queue(rig: Rig) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(rig.run("queue", "--json").stdout)
    return found
