"""The rules tester: what cannot be taken apart is said of that file alone, and what is shown is bounded."""

from __future__ import annotations

import io
import struct
from functools import partial
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from internal import rule_tester
from internal.model import Arrival
from internal.rule_tester import Copy, Given
from internal.rules import RuleText
from tests.contract.engine.conftest import make_book

ARRIVAL = Arrival(0, calling_aet="CT1", called_aet="DICOMRELAY", peer_address="192.0.2.7")
RULE = RuleText("note", {"when": "Modality = CT", "do": '\nset PatientComments = "N"'}, origin="router.conf")


def image(*, inside: bytes = b"") -> bytes:
    """Return a CT image without pixels that ends with a sequence of these bytes."""
    dataset = dcmread(str(get_testdata_file("CT_small.dcm")))
    del dataset.PixelData
    if "DataSetTrailingPadding" in dataset:
        del dataset.DataSetTrailingPadding
    file = io.BytesIO()
    dataset.save_as(file)
    return file.getvalue() + struct.pack("<HH2sHI", 0x7FFF, 0x1001, b"SQ", 0, len(inside)) + inside


def copies(root: Path, *files: bytes, everything: bool = False) -> list[Copy]:
    book = make_book(root, ["pacs"], [RULE])
    given = [Given(str(number), partial(io.BytesIO, data)) for number, data in enumerate(files)]
    studies = rule_tester.test_files(book, book.compile([]), given, ARRIVAL, everything=everything)
    return [copy for study in studies for file in study.files for copy in file.copies]


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize(("inside", "fault"), [
    (b"no item!", "a sequence holds something that is no item"),
    (struct.pack("<HHI", 0xFFFE, 0xE000, 500) + bytes(8), "an item is longer than its sequence"),
])
def test_what_cannot_be_taken_apart_is_said_of_that_file_alone(
    tmp_path: Path, inside: bytes, fault: str, everything: bool,
) -> None:
    broken, whole = copies(tmp_path, image(inside=inside), image(), everything=everything)
    assert (broken.fault, whole.fault) == (fault, "")
    assert any("PatientComments" in name and after == "N" for name, _, after in whole.changes)


def test_so_many_attributes_are_shown_and_so_many_compared(tmp_path: Path) -> None:
    def items(number: int) -> bytes:
        inner = b"".join(struct.pack("<HH2sH", 0x0009, at, b"LO", 0) for at in range(0x1000, 0x1000 + number))
        return (struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner) * 100

    (shown,) = copies(tmp_path, image(inside=items(60)), everything=True)
    assert (len(shown.changes), shown.changes[-1], shown.fault) == (5001, ("...", "", ""), "")
    (only,) = copies(tmp_path, image(inside=items(60)))
    assert 0 < len(only.changes) < 10
    (refused,) = copies(tmp_path, image(inside=items(600)))
    assert "too many to compare" in refused.fault
