"""What is the same content in other bytes, and what is not: pydicom writes every sample anew, and bytes by hand."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from internal.content import Written, same
from internal.dicomfile import read_meta
from internal.errors import NotDicom
from internal.scan import MAX_DEPTH, check_end

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG = "1.2.840.10008.1.2.2"
JPEG = "1.2.840.10008.1.2.4.50"
SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    return head + (struct.pack("<HI", 0, len(value)) if vr in (b"OB", b"OW", b"SQ", b"UN")
                   else struct.pack("<H", len(value))) + value


def implicit(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def item(content: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def open_item(content: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + content + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)


def open_sequence(tag: int, vr: bytes, items: bytes) -> bytes:
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, 0xFFFFFFFF) + items + \
        struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def are_same(one: bytes, other: bytes, syntax: str = EXPLICIT, other_syntax: str = "") -> bool:
    """Compare both ways round, each behind some bytes of another kind as in a file."""
    left = Written(io.BytesIO(b"meta" + one), 4, len(one), syntax)
    right = Written(io.BytesIO(other), 0, len(other), other_syntax or syntax)
    answer = same(left, right)
    assert same(right, left) is answer
    return answer


NAME = element(0x00100010, b"PN", b"Wulandari^Sri ")
TEXT = element(0x00081030, b"LO", b"KEPALA")
WORDS = element(0x7FE00010, b"OW", bytes(range(64)))
PADDING = element(0xFFFCFFFC, b"OB", bytes(10))
SEQUENCE = element(0x00081140, b"SQ", item(TEXT) + item(b""))


@pytest.mark.parametrize(("one", "other"), [
    pytest.param(NAME + WORDS, NAME + WORDS + PADDING, id="trailing padding"),
    pytest.param(NAME + WORDS + PADDING, NAME + WORDS + element(0xFFFCFFFC, b"OB", bytes(400)), id="other padding"),
    pytest.param(element(0x00100000, b"UL", b"\x16\0\0\0") + NAME, NAME, id="group length"),
    pytest.param(SEQUENCE, element(0x00081140, b"SQ", item(element(0x00080000, b"UL", b"\0" * 4) + TEXT) + item(b"")),
                 id="group length in an item"),
    pytest.param(SEQUENCE, open_sequence(0x00081140, b"SQ", open_item(TEXT) + item(b"")), id="delimiters"),
    pytest.param(element(0x00080018, b"UI", b"1.2.3\0"), element(0x00080018, b"UI", b"1.2.3 "), id="padding of a UID"),
    pytest.param(element(0x00081030, b"LO", b"KEPALA  "), TEXT, id="blanks behind"),
    pytest.param(element(0x00081140, b"SQ", b""), open_sequence(0x00081140, b"SQ", b""), id="an empty sequence"),
    pytest.param(element(0x00091001, b"UN", item(implicit(0x00081030, b"KEPALA"))),
                 open_sequence(0x00091001, b"UN", open_item(implicit(0x00081030, b"KEPALA"))), id="unknown VR"),
    pytest.param(element(0x00091001, b"UN", item(TEXT)), element(0x00091001, b"UN", item(TEXT)) + PADDING,
                 id="a private value that only looks like an item"),
])  # fmt: skip
def test_the_same_content_is_recognised(one: bytes, other: bytes) -> None:
    assert one != other
    assert are_same(one, other)


@pytest.mark.parametrize(("one", "other"), [
    pytest.param(NAME + WORDS, NAME, id="no pixels"),
    pytest.param(NAME + WORDS, NAME + WORDS[:-1] + b"\0", id="one pixel"),
    pytest.param(NAME, TEXT + NAME, id="one more element"),
    pytest.param(TEXT, element(0x00081030, b"LO", b"Kepala"), id="another text"),
    pytest.param(TEXT, element(0x00081030, b"LO", b" KEPALA "), id="a blank in front"),
    pytest.param(WORDS, element(0x7FE00010, b"OW", bytes(range(64)) + b"\0\0"), id="pixels with zeros behind"),
    pytest.param(element(0x00091001, b"UN", b"a\0"), element(0x00091001, b"UN", b"a\0\0\0"), id="unknown value"),
    pytest.param(SEQUENCE, element(0x00081140, b"SQ", item(TEXT)), id="one item less"),
    pytest.param(element(0x00081140, b"SQ", item(TEXT + NAME)),
                 element(0x00081140, b"SQ", item(TEXT) + item(NAME)), id="an item in two"),
    pytest.param(element(0x00081140, b"SQ", item(TEXT)) + NAME,
                 element(0x00081140, b"SQ", item(TEXT + NAME)), id="an element moved inside"),
    pytest.param(element(0x00081140, b"SQ", item(element(0x00081140, b"SQ", item(b"")))),
                 element(0x00081140, b"SQ", item(element(0x00081140, b"SQ", b"")) + item(b"")), id="another nesting"),
    pytest.param(element(0x00081140, b"SQ", item(PADDING)), element(0x00081140, b"SQ", item(b"")), id="inner padding"),
    pytest.param(NAME + WORDS, NAME + WORDS[:-2], id="cut off"),
    pytest.param(NAME + WORDS, NAME + WORDS + b"\0" * 12, id="something behind"),
])  # fmt: skip
def test_other_content_is_not(one: bytes, other: bytes) -> None:
    assert not are_same(one, other)


@pytest.mark.parametrize(("tag", "vr", "other_vr", "value"), [
    (0x00280106, b"US", b"SS", b"\xff\xff"),
    (0x00091001, b"FL", b"UL", b"\0\0\x80\x3f"),
    (0x00091001, b"OB", b"LO", b"ab"),
])
def test_the_same_bytes_under_another_vr_are_not_the_same(tag: int, vr: bytes, other_vr: bytes, value: bytes) -> None:
    assert not are_same(element(tag, vr, value), element(tag, other_vr, value))
    assert are_same(element(tag, vr, value), element(tag, b"UN", value)), "UN says nothing about the value"


def test_zeros_behind_a_value_that_is_no_text_on_one_side_count() -> None:
    assert not are_same(element(0x00091001, b"OB", b"ab\0\0"), element(0x00091001, b"LO", b"ab"))
    assert not are_same(element(0x00091001, b"UN", b"ab\0\0"), element(0x00091001, b"LO", b"ab"))


def test_big_endian_bytes_lie_as_their_vr_says() -> None:
    def big(vr: bytes) -> bytes:
        return struct.pack(">HH2sHI", 0x7FE0, 0x0010, vr, 0, 4) + b"\x01\x02\x03\x04"

    assert are_same(big(b"OW"), big(b"OW"), BIG)
    assert not are_same(big(b"OB"), big(b"OW"), BIG)
    assert are_same(WORDS, WORDS.replace(b"OW", b"OB")), "little endian: the same bytes"


def test_what_stands_behind_the_end_of_a_deflated_data_set_is_not_passed_over() -> None:
    assert are_same(deflated(NAME), deflated(NAME + PADDING), DEFLATED)
    assert not are_same(deflated(NAME), deflated(NAME) + b"more", DEFLATED)


def test_what_cannot_be_taken_apart_is_not_called_the_same() -> None:
    broken = element(0x00081140, b"SQ", item(TEXT)[:-3])
    assert not are_same(broken, broken + PADDING)
    deep = b""
    for _ in range(MAX_DEPTH + 2):
        deep = open_sequence(0x00081140, b"SQ", open_item(deep))
    assert not are_same(deep, deep + PADDING)
    assert not are_same(b"\0" * 7, b"\0" * 5)


def test_the_number_of_elements_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert are_same(TEXT + NAME, TEXT + NAME + PADDING)
    monkeypatch.setattr("internal.content.MAX_ELEMENTS", 2)
    assert not are_same(TEXT + NAME, TEXT + NAME + PADDING)


def test_compressed_pixels_are_compared_as_they_are() -> None:
    def encapsulated(*fragments: bytes) -> bytes:
        return NAME + open_sequence(0x7FE00010, b"OB", b"".join(map(item, fragments)))

    assert are_same(encapsulated(b"", b"abcd"), encapsulated(b"", b"abcd") + PADDING, JPEG)
    assert not are_same(encapsulated(b"", b"abcd"), encapsulated(b"", b"abce"), JPEG)
    assert not are_same(encapsulated(b"", b"abcd"), encapsulated(b"", b"ab", b"cd"), JPEG)
    assert not are_same(NAME, NAME + PADDING, JPEG, EXPLICIT), "of pixels in another coding nothing is known"
    assert not are_same(NAME, NAME + PADDING, EXPLICIT, BIG)


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def test_a_deflated_data_set_is_what_it_inflates_to() -> None:
    assert are_same(NAME + WORDS, deflated(NAME + WORDS + PADDING), EXPLICIT, DEFLATED)
    assert not are_same(NAME + WORDS, deflated(NAME), EXPLICIT, DEFLATED)
    assert not are_same(NAME, deflated(NAME)[:-3], EXPLICIT, DEFLATED)


def written(dataset: Dataset, *, implicit_vr: bool) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, implicit_vr
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def little_samples() -> Iterator[tuple[Path, bytes, str]]:
    for path in sorted(path for path in SAMPLES.rglob("*") if path.is_file() and "DICOMDIR" not in path.name):
        data = path.read_bytes()
        try:
            meta = read_meta(io.BytesIO(data))
            with path.open("rb") as file:
                file.seek(meta.dataset_offset)
                check_end(file, meta.transfer_syntax_uid)
        except NotDicom:
            continue  # no file, or cut off
        if meta.transfer_syntax_uid in (EXPLICIT, IMPLICIT):
            yield path, data[meta.dataset_offset:], meta.transfer_syntax_uid


def test_every_sample_is_the_same_however_pydicom_writes_it() -> None:
    compared = 0
    for path, data, syntax in little_samples():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                dataset = pydicom.dcmread(path)
                dataset.walk(lambda _, one: setattr(one, "is_undefined_length", True) if one.VR == "SQ" else None)
                again = written(dataset, implicit_vr=syntax == IMPLICIT)
                other = written(dataset, implicit_vr=syntax != IMPLICIT)
            except Exception:  # samples are damaged in many ways: pydicom decides which can be written
                continue
        assert are_same(data, again, syntax), f"{path.name} in the same encoding"
        assert are_same(data, other, syntax, EXPLICIT if syntax == IMPLICIT else IMPLICIT), f"{path.name} in the other"
        compared += 1
    assert compared > 80


@given(st.integers(0, 2**32))
def test_no_change_of_one_byte_is_overlooked(seed: int) -> None:
    chance = random.Random(seed)
    data = _CT
    at = chance.randrange(len(data))
    changed = data[:at] + bytes([data[at] ^ chance.randrange(1, 256)]) + data[at + 1:]
    if are_same(data, changed):
        before, after = pydicom.dcmread(io.BytesIO(data), force=True), pydicom.dcmread(io.BytesIO(changed), force=True)
        assert _said(before) == _said(after), f"byte {at}"


def _said(dataset: Dataset) -> list[tuple[int, object]]:
    return [(one.tag, one.value) for one in dataset if one.tag != 0xFFFCFFFC and one.tag.element]


def _ct() -> bytes:
    data = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
    return data[read_meta(io.BytesIO(data)).dataset_offset:]


_CT = _ct()
