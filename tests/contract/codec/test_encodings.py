"""Any data set keeps every value in every encoding: generated ones, written and read by pydicom."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset

from internal.codec.reading import opened
from internal.codec.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from internal.codec.transcoding import same_content, transcode
from tests.examples import examples

WORDS = st.text("ABCDEFGHIJ 0123456789", min_size=1, max_size=16).map(str.strip).filter(bool)
#: Elements by tag: a public one of each kind of VR, so that implicit readers find it again.
VALUES = {
    (0x00080060, "CS"): WORDS, (0x00081030, "LO"): WORDS, (0x00100010, "PN"): WORDS,
    (0x00280030, "DS"): st.lists(st.integers(1, 999).map(str), min_size=2, max_size=2),
    (0x00201208, "IS"): st.integers(-9999, 9999).map(str), (0x00280106, "SS"): st.integers(-32768, 32767),
    (0x00280009, "AT"): st.integers(0x00080000, 0x7FDFFFFF), (0x00209157, "UL"): st.lists(
        st.integers(0, 2**32 - 1), min_size=2, max_size=4), (0x00189073, "FD"): st.floats(-1e9, 1e9),
    (0x00280303, "CS"): st.just("MODIFIED"), (0x00420011, "OB"): st.binary(min_size=2, max_size=64).map(
        lambda data: data + b"\x00" * (len(data) % 2)),
    (0x54001010, "OW"): st.binary(min_size=1, max_size=40).map(lambda data: data * 2),
    (0x00080119, "UC"): st.just("LONG" * 20_000), (0x0040A30A, "DS"): st.just(["1.5", "2.5"]),
    (0x00089459, "FL"): st.floats(-100, 100, width=32), (0x00280120, "SS"): st.integers(-9, 9),
    (0x00091001, "LO"): WORDS, (0x00091002, "UN"): st.binary(max_size=20).map(lambda data: data * 2),
}  # fmt: skip


@st.composite
def data_sets(draw: st.DrawFn, depth: int = 0) -> Dataset:
    dataset = Dataset()
    dataset.add_new(0x00280103, "US", 1)
    dataset.add_new(0x00090010, "LO", "ACME")
    for tag, vr in draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=8, unique=True)):
        dataset.add(DataElement(tag, vr, draw(VALUES[(tag, vr)])))
    if depth < 3:
        for tag in draw(st.lists(st.sampled_from([0x00081140, 0x00400275, 0x00091010]), max_size=2, unique=True)):
            items = draw(st.lists(data_sets(depth + 1), max_size=2))
            dataset.add(DataElement(tag, "SQ", items))
    return dataset


def flat(dataset: Dataset) -> list[tuple[int, object]]:
    found: list[tuple[int, object]] = []
    for element in dataset:
        if element.VR == "OW" or (element.tag.is_private and (element.VR != "SQ" or not element.value)):
            # pydicom leaves words in the order of the file, and private values of implicit files are bytes to it;
            # same_content compares them.
            found.append((int(element.tag), None))
        elif element.VR == "SQ":
            found.append((int(element.tag), [flat(item) for item in element.value]))
        else:
            found.append((int(element.tag), element.value))
    return found


def check(dataset: Dataset, folder: Path, defined: bool) -> None:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = EXPLICIT_LITTLE
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    for element in dataset.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = not defined
    dataset.save_as(folder / "source", enforce_file_format=True)
    expected, before = flat(dcmread(folder / "source")), folder / "source"
    digests = {}
    for step, syntax in enumerate((IMPLICIT_LITTLE, EXPLICIT_BIG, EXPLICIT_LITTLE, EXPLICIT_BIG, EXPLICIT_LITTLE)):
        digests[step] = transcode(before, syntax, folder / f"{step}")["sha256"]
        read = dcmread(folder / f"{step}")
        assert read.file_meta.TransferSyntaxUID == syntax
        assert flat(read) == expected
        before = folder / f"{step}"
    assert digests[1] == digests[3] and digests[2] == digests[4], "the same encoding is the same bytes"
    with opened(folder / "source") as one, opened(folder / "4") as other:
        assert same_content(one, other)


@settings(max_examples=examples(40), deadline=None)
@given(data_sets(), st.booleans())
def test_every_value_survives_every_encoding(dataset: Dataset, defined: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(dataset, Path(folder), defined)
