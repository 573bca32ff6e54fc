"""The bounded scanner against pydicom on every sample file, and against hostile bytes."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from internal.charset import decode
from internal.dicomfile import read_meta
from internal.errors import NotDicom
from internal.scan import FIELDS, MAX_DEPTH, MAX_INFLATED_BYTES, CutShort, check_end, inflate, scan, scan_uids
from tests.examples import examples

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
SAMPLES = Path(pydicom.__file__).parent / "data"


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def identity(extra: bytes = b"") -> bytes:
    """A data set with its four UIDs; `extra` stands between SOP instance and study."""
    return (
        element(8, 0x16, b"UI", b"1.2.3") + element(8, 0x18, b"UI", b"1.2.3.4") + extra
        + element(0x20, 0xD, b"UI", b"1.2.5") + element(0x20, 0xE, b"UI", b"1.2.5.6")
    )  # fmt: skip


def sample_files() -> Iterator[Path]:
    import data_store

    for root in (SAMPLES, Path(data_store.__file__).parent):
        yield from (path for path in sorted(root.rglob("*")) if path.is_file() and path.suffix not in (".py", ".pyc"))


def plain(value: object) -> str:
    text = "\\".join(map(str, value)) if isinstance(value, pydicom.multival.MultiValue) else str(value)
    return text.rstrip(" \0=").lstrip()


def test_fields_equal_those_of_pydicom_on_every_sample() -> None:
    """Every header that pydicom reads from the samples is read to the same text here."""
    compared = 0
    for path in sample_files():
        with path.open("rb") as file:
            try:
                meta = read_meta(file)
            except NotDicom:
                continue
            file.seek(meta.dataset_offset)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = pydicom.dcmread(path, stop_before_pixels=True)
                complete = all(expected.get(name) for name in UIDS)
                if not complete:
                    with pytest.raises(NotDicom):
                        scan(file, meta.transfer_syntax_uid)
                    continue
                header = scan(file, meta.transfer_syntax_uid)
                for tag, name in FIELDS.items():
                    if name in ("image_type", "character_set"):
                        continue
                    value = expected[tag].value if tag in expected else None
                    found = getattr(header, name)
                    assert found.strip().rstrip("=") == ("" if value is None else plain(value)), (path.name, name)
        compared += 1
    assert compared > 150


def test_reads_the_same_from_a_buffer_and_from_a_file() -> None:
    path = Path(str(get_testdata_file("CT_small.dcm")))
    data = path.read_bytes()
    meta = read_meta(io.BytesIO(data))
    body = data[meta.dataset_offset :]
    header = scan(body, meta.transfer_syntax_uid)
    assert header == scan(io.BytesIO(body), meta.transfer_syntax_uid)
    assert header.image_type == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert header.modality == "CT"


def test_long_values_that_are_not_needed_are_skipped_in_a_file() -> None:
    private = struct.pack("<HH2sHI", 0x19, 0x1001, b"OB", 0, 40 * 1024 * 1024) + bytes(40 * 1024 * 1024)
    header = scan(io.BytesIO(identity(private) + element(0x28, 8, b"IS", b"7")), EXPLICIT)
    assert (header.study_uid, header.number_of_frames) == ("1.2.5", "7")


def test_sequences_of_undefined_length_that_cross_the_window() -> None:
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + element(8, 0x1150, b"UI", b"9" * 64)
    item += struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    sequence = struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF) + item * 2000
    sequence += struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    assert scan(io.BytesIO(identity(sequence)), EXPLICIT).series_uid == "1.2.5.6"


def test_the_head_is_enough_or_says_that_it_is_not() -> None:
    whole = identity(element(9, 0x1000, b"LO", b"x"))
    assert scan_uids(whole + b"\x08", EXPLICIT, whole=False).study_uid == "1.2.5"
    for cut in range(len(whole)):
        with pytest.raises(CutShort):
            scan_uids(whole[:cut], EXPLICIT, whole=False)
        with pytest.raises(NotDicom):
            scan_uids(whole[:cut], EXPLICIT, whole=True)


def test_damage_behind_the_uids_is_left_out() -> None:
    assert scan(identity() + b"\x28\x00\x08\x00IS\xff\xff", EXPLICIT).study_uid == "1.2.5"


@pytest.mark.parametrize("missing", range(4))
def test_a_data_set_without_one_of_the_uids_is_refused(missing: int) -> None:
    parts = [element(8, 0x16, b"UI", b"1.2"), element(8, 0x18, b"UI", b"1.3"), element(0x20, 0xD, b"UI", b"1.4"),
             element(0x20, 0xE, b"UI", b"1.5")]  # fmt: skip
    parts[missing] = b""
    with pytest.raises(NotDicom, match=r"has no .* UID"):
        scan(b"".join(parts), EXPLICIT)
    with pytest.raises(NotDicom, match=r"has no .* UID"):
        scan(b"".join(parts) + element(0x20, 0x4000, b"LT", b"a remark"), EXPLICIT)


@pytest.mark.attack("S19")
@pytest.mark.attack("S20")
def test_nesting_is_bounded() -> None:
    def nested(depth: int) -> bytes:
        start = struct.pack("<HH2sHIHHI", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
        stop = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
        return identity(start * depth + stop * depth)

    assert scan(nested(MAX_DEPTH), EXPLICIT).sop_uid == "1.2.3.4"
    with pytest.raises(NotDicom):
        scan(nested(MAX_DEPTH + 1), EXPLICIT)
    with pytest.raises(NotDicom):
        scan(nested(100_000), EXPLICIT)


def test_the_number_of_elements_is_bounded() -> None:
    with pytest.raises(NotDicom):
        scan(identity(element(9, 1, b"UL", b"") * 200_000), EXPLICIT)


@pytest.mark.attack("S21")
def test_a_deflated_bomb_is_not_inflated() -> None:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    private = struct.pack("<HH2sHI", 0x19, 0x1001, b"OB", 0, 1 << 30) + bytes(100 * 1024 * 1024)
    bomb = deflate.compress(identity(private)) + deflate.flush()
    with pytest.raises(NotDicom):
        scan(bomb, DEFLATED)
    assert scan(zlib.compress(identity(), wbits=-15), DEFLATED).study_uid == "1.2.5"


@pytest.mark.parametrize("size", [65536 + more for more in (-1, 0, 1, 7, 258, 600)] + [3 * 65536 + 7])
def test_what_a_deflated_data_set_ends_with_is_inflated_too(size: int) -> None:
    """All of the input can be taken before the last of the output has found room."""
    plain = bytes(size)
    inflated, whole = inflate(zlib.compress(plain, wbits=-zlib.MAX_WBITS), whole=True)
    assert (bytes(inflated) == plain, whole) == (True, True)


def test_a_deflated_data_set_that_ends_in_one_value_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "even"
    path.write_bytes(zlib.compress(bytes(MAX_INFLATED_BYTES + 7), wbits=-zlib.MAX_WBITS))
    with path.open("rb") as file:
        check_end(file, DEFLATED)


def test_the_other_vr_encoding_than_announced_is_read() -> None:
    assert scan(identity(), IMPLICIT).study_uid == "1.2.5"
    implicit = b"".join(
        struct.pack("<HHI", group, number, len(value)) + value
        for group, number, value in ((8, 0x16, b"1.2 "), (8, 0x18, b"1.3 "), (32, 13, b"1.4 "), (32, 14, b"1.5 "))
    )
    assert scan(implicit, EXPLICIT).study_uid == "1.4"


_ELEMENTS = st.lists(
    st.tuples(
        st.sampled_from([*FIELDS, 0x00080000, 0x00081140, 0x00090010, 0x001011FF, 0x001F0001, 0x0020000C, 0x00280007]),
        st.sampled_from([b"LO", b"UI", b"DS", b"US", b"OB", b"SQ", b"UT"]),
        st.one_of(st.binary(max_size=12), st.integers(60, 200).map(bytes)),
    ),
    max_size=20,
)


@given(_ELEMENTS, st.integers(0, 40))
@settings(max_examples=400, deadline=None)
def test_runs_that_are_passed_over_at_once_say_what_the_single_steps_say(
    elements: list[tuple[int, bytes, bytes]], cut: int
) -> None:
    """Big endian is walked element by element: the same elements have to give the same header, the same UIDs."""

    def written(order: str) -> bytes:
        parts = []
        for tag, vr, value in [*elements, *((tag, b"UI", b"1.2.%d" % (tag & 0xFF)) for tag in sorted(FIELDS))]:
            head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF) + vr
            long = vr in (b"OB", b"SQ", b"UT")
            parts.append(head + struct.pack(order + ("HI" if long else "H"), *([0] * long), len(value)) + value)
        return b"".join(parts)

    def outcome(order: str, syntax: str) -> object:
        data = written(order)
        found: list[object] = []
        for read in (lambda: scan(data[: len(data) - cut], syntax), lambda: scan_uids(data, syntax, whole=True)):
            try:
                values = read()
                found.append({name: getattr(values, name) for name in FIELDS.values() if hasattr(values, name)})
            except NotDicom as fault:
                found.append(str(fault))
        return found

    assert outcome("<", EXPLICIT) == outcome(">", BIG)


@pytest.mark.attack("S23")
@given(st.binary(max_size=400), st.sampled_from([EXPLICIT, IMPLICIT, BIG, DEFLATED]), st.booleans())
@settings(max_examples=examples(400), deadline=None)
def test_no_bytes_raise_anything_but_not_dicom(data: bytes, syntax: str, prefixed: bool) -> None:
    try:
        scan(identity() + data if prefixed else data, syntax)
        scan(io.BytesIO(data), syntax)
    except NotDicom:
        pass


_CT = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()[132:6000]


@pytest.mark.attack("S23")
@given(st.lists(st.tuples(st.integers(0, len(_CT) - 1), st.integers(0, 255)), max_size=12))
@settings(max_examples=examples(300), deadline=None)
def test_no_damage_to_a_real_header_raises_anything_but_not_dicom(changes: list[tuple[int, int]]) -> None:
    data = bytearray(_CT)
    for position, value in changes:
        data[position] = value
    try:
        scan(data, EXPLICIT)
    except NotDicom:
        pass


@given(st.binary(max_size=64), st.sampled_from(["", "ISO_IR 192", "\\ISO 2022 IR 87", "ISO_IR 13", "GB18030", "x\xff"]))
@settings(max_examples=examples(300), deadline=None)
def test_text_never_raises(value: bytes, character_set: str) -> None:
    assert isinstance(decode(value, character_set), str)
    assert isinstance(decode(b"\x1b$B" + value, character_set), str)
