"""The walk that goes before a full parser: as far as it on every sample, bounded on hostile bytes."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zlib
from collections.abc import Iterator

import pydicom
import pydicom.config
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from internal.dicomfile import read_meta
from internal.errors import NotDicom
from internal.header_json import header_json
from internal.outline import MAX_DEPTH, outline
from tests.examples import examples
from tests.unit.internal.test_scan import BIG, DEFLATED, EXPLICIT, IMPLICIT, element, identity, sample_files


@pytest.fixture(autouse=True, scope="module")
def _settings_of_pydicom() -> Iterator[None]:
    """header_json is made for a process of its own and changes a setting of pydicom."""
    before = pydicom.config.settings.reading_validation_mode
    yield
    pydicom.config.settings.reading_validation_mode = before


def sequence(content: bytes, *, defined: bool) -> bytes:
    """(0040,A730) SQ with one item."""
    if defined:
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content
        return struct.pack("<HH2sHI", 0x40, 0xA730, b"SQ", 0, len(item)) + item
    return (struct.pack("<HH2sHI", 0x40, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
            + content + struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0))


def nested(depth: int, *, defined: bool) -> bytes:
    content = b""
    for _ in range(depth):
        content = sequence(content, defined=defined)
    return identity() + content


def describe(data: bytes, syntax: str = EXPLICIT) -> dict[str, dict[str, object]]:
    return json.loads(header_json(io.BytesIO(data), syntax))


def test_every_element_that_pydicom_reads_from_the_samples_is_described() -> None:
    compared = 0
    for path in sample_files():
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                meta = read_meta(file)
                file.seek(0)
                read = pydicom.dcmread(file, specific_tags=None, stop_before_pixels=True)
                expected = {f"{int(tag):08X}" for tag in list(read.keys()) if tag.element and tag.group < 0x7FE0}
                for tag in expected:
                    read[int(tag, 16)].to_json_dict(None, 1 << 30)  # what pydicom itself can convert
            except Exception:
                continue
            file.seek(meta.dataset_offset)
            found = json.loads(header_json(file, meta.transfer_syntax_uid))
            assert found.keys() == expected or "truncated" in path.name, path.name
            compared += 1
    assert compared > 80


def test_large_values_and_pixels_are_never_read() -> None:
    large = struct.pack("<HH2sHI", 0x42, 0x11, b"OB", 0, 1 << 20) + bytes(1 << 20)
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 1 << 20) + bytes(1 << 20)
    data = identity() + large + element(0x42, 0x12, b"LO", b"text") + pixels
    assert len(outline(io.BytesIO(data), EXPLICIT).data) < 200
    found = describe(data)
    assert found["00420011"] == {"vr": "OB", "BulkDataURI": "bulkdata/00420011"}
    assert found["00420012"] == {"vr": "LO", "Value": ["text"]}
    assert not any(tag.startswith("7FE0") for tag in found)


def test_a_nested_large_value_has_its_path() -> None:
    value = struct.pack("<HH2sHI", 0x54, 0x1010, b"OW", 0, 5000) + bytes(5000)
    found = describe(identity() + sequence(value, defined=True))
    assert found["0040A730"]["Value"] == [
        {"00541010": {"vr": "OW", "BulkDataURI": "bulkdata/0040A730/0/00541010"}}]


def test_what_is_not_what_its_vr_says_is_left_out_alone() -> None:
    odd = element(0x18, 0x50, b"DS", b"no number") + element(0x18, 0x60, b"DS", b"120")
    nan = struct.pack("<HH2sHd", 0x18, 0x9087, b"FD", 8, float("nan"))
    found = describe(identity() + odd + nan)
    assert "00180050" not in found
    assert found["00180060"]["Value"] == [120.0]
    assert found["00189087"]["Value"] == ["nan"]


@pytest.mark.parametrize("defined", [True, False], ids=["defined", "undefined"])
def test_depth_is_bounded_before_the_parser(defined: bool) -> None:
    found = describe(nested(MAX_DEPTH, defined=defined))
    assert "0040A730" in found
    for depth in (MAX_DEPTH + 1, 248, 300):
        with pytest.raises(NotDicom, match="nested too deep"):
            describe(nested(depth, defined=defined))


def test_a_hundred_thousand_open_sequences_are_refused_at_once() -> None:
    opening = struct.pack("<HH2sHI", 0x40, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(NotDicom, match="nested too deep"):
        describe(identity() + opening * 100_000)


@pytest.mark.parametrize("vr", [b"UN", b"SQ"])
def test_sequences_in_disguise_are_counted(vr: bytes) -> None:
    """A parser may take UN of a known tag, or any value that begins with an item, for a sequence."""
    content = b""
    for _ in range(40):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content
        content = struct.pack("<HHI", 0x40, 0xA730, len(item)) + item
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content
    with pytest.raises(NotDicom, match="nested too deep"):
        describe(identity() + struct.pack("<HH2sHI", 0x40, 0xA730, vr, 0, len(item)) + item)


def test_the_number_of_elements_is_bounded() -> None:
    with pytest.raises(NotDicom, match="more than 200,000 elements"):
        describe(identity() + element(0x21, 1, b"UL", b"") * 200_001)


def test_a_deflated_bomb_stays_small() -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    private = struct.pack("<HH2sHI", 0x19, 0x1001, b"OB", 0, 1 << 30) + bytes(100 * 1024 * 1024)
    bomb = deflate.compress(identity() + private) + deflate.flush()
    assert len(outline(io.BytesIO(bomb), DEFLATED).data) < 1000
    assert "0020000E" in describe(bomb, DEFLATED)


@given(st.binary(max_size=300), st.sampled_from([EXPLICIT, IMPLICIT, BIG, DEFLATED]), st.booleans())
@settings(max_examples=examples(300), deadline=None)
def test_no_bytes_raise_anything_but_not_dicom(data: bytes, syntax: str, prefixed: bool) -> None:
    try:
        outline(io.BytesIO(identity() + data if prefixed else data), syntax)
    except NotDicom:
        pass
