"""The data set of a storage commitment request: every encoding, and nothing but MalformedRequest for the rest."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from interface.dimse.commitment import MalformedRequest, parse_commitment
from tests.examples import examples

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
CT = "1.2.840.10008.5.1.4.1.1.2"


def request(count: int = 2) -> Dataset:
    data_set = Dataset()
    data_set.TransactionUID = "1.2.3"
    data_set.ReferencedPerformedProcedureStepSequence = [Dataset()]
    data_set.ReferencedSOPSequence = []
    for number in range(count):
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CT, f"1.2.3.{number}"
        data_set.ReferencedSOPSequence.append(item)
    return data_set


def encoded(data_set: Dataset, syntax: str, *, undefined: bool = False) -> bytes:
    if undefined:
        for element in data_set:
            if element.VR == "SQ":
                element.is_undefined_length = True
                for item in element.value:
                    item.is_undefined_length_sequence_item = True
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = syntax != BIG, syntax == IMPLICIT
    write_dataset(buffer, data_set)
    return buffer.getvalue()


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG])
def test_every_encoding(syntax: str, undefined: bool) -> None:
    found = parse_commitment(encoded(request(), syntax, undefined=undefined), syntax)
    assert found == ("1.2.3", [(CT, "1.2.3.0"), (CT, "1.2.3.1")])


def without(name: str) -> Dataset:
    data_set = request()
    delattr(data_set, name)
    return data_set


def nested(depth: int) -> bytes:
    item = b""
    for _ in range(depth):
        item = struct.pack("<HHI", 8, 0x1111, len(item) + 8) + struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item
    return item


@pytest.mark.parametrize("data", [
    b"", b"\x08", encoded(without("TransactionUID"), IMPLICIT), encoded(without("ReferencedSOPSequence"), IMPLICIT),
    encoded(request(0), IMPLICIT), encoded(request(), IMPLICIT)[:-3], encoded(request(), EXPLICIT),
    encoded(request(), IMPLICIT).replace(b"1.2.3.1\0", b"../etc/p"), nested(100),
])  # fmt: skip
def test_what_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedRequest):
        parse_commitment(data, IMPLICIT)


@given(st.binary(max_size=400), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=6),
       st.sampled_from([IMPLICIT, EXPLICIT, BIG]))
@settings(max_examples=examples(300), deadline=None)
def test_any_bytes_are_a_request_or_malformed(data: bytes, changes: list[tuple[int, int]], syntax: str) -> None:
    damaged = bytearray(encoded(request(), syntax))
    for at, value in changes:
        damaged[at % len(damaged)] = value
    for hostile in (data, bytes(damaged)):
        try:
            transaction_uid, references = parse_commitment(hostile, syntax)
        except MalformedRequest:
            continue
        assert transaction_uid and references


def test_the_writer_of_these_tests_writes_what_it_says() -> None:
    buffer = io.BytesIO()
    dcmwrite(buffer, request(), implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert buffer.getvalue() == encoded(request(), IMPLICIT)
