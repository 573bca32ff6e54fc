"""File meta: what pydicom reads of what we write, stability of what leaves, and hostile files."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import UID

from internal.dicomfile import build_meta, canonical_meta, read_meta
from internal.errors import NotDicom
from internal.model import Arrival
from tests.examples import examples

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
ARRIVAL = Arrival(1_763_640_000_123, "receive-0.ab.7", "CT_WARD3", "DCMROUTER", "10.0.0.7:50123")


def test_what_is_written_is_what_pydicom_and_we_read() -> None:
    data = build_meta(CT, "1.2.3", EXPLICIT, ARRIVAL) + b"\x08\x00\x60\x00CS\x02\x00CT"
    dataset = pydicom.dcmread(io.BytesIO(data))
    assert dataset.Modality == "CT"
    assert dataset.file_meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert dataset.file_meta.SendingApplicationEntityTitle == "CT_WARD3"
    assert dataset.file_meta.ReceivingApplicationEntityTitle == "DCMROUTER"
    assert dataset.file_meta.SendingPresentationAddress == "dicom:10.0.0.7:50123"
    assert UID(dataset.file_meta.ImplementationClassUID).is_valid
    assert UID(dataset.file_meta.PrivateInformationCreatorUID).is_valid
    meta = read_meta(io.BytesIO(data))
    assert meta.arrival == ARRIVAL
    assert (meta.sop_class_uid, meta.sop_uid, meta.transfer_syntax_uid) == (CT, "1.2.3", EXPLICIT)
    assert data[meta.dataset_offset :].startswith(b"\x08\x00\x60\x00")


def test_the_group_length_is_right() -> None:
    data = build_meta(CT, "1.2.3", EXPLICIT, ARRIVAL)
    length = int.from_bytes(data[140:144], "little")
    assert 144 + length == len(data)


def test_what_leaves_says_nothing_of_the_arrival_and_never_changes() -> None:
    """A change of these bytes turns every later attempt into a conflict (409) at the platform."""
    data = canonical_meta(CT, "1.2.3", EXPLICIT)
    assert data == canonical_meta(CT, "1.2.3", EXPLICIT)
    assert read_meta(io.BytesIO(data)).arrival is None
    assert hashlib.sha256(data).hexdigest() == "ed973bcb2c2715dc5ac94c417ab1b511e64726595a3db6fef7ab17360b94c3db"
    assert b"SATUSEHAT_ROUTER" in data and b"2.25.286180963574210583412386297508193476122" in data


@given(
    st.text(max_size=40), st.text(max_size=40), st.text(max_size=80), st.integers(0, 2**60), st.text(max_size=300)
)
@settings(max_examples=examples(200), deadline=None)
def test_any_peer_value_survives_and_breaks_nothing(calling: str, called: str, peer: str, at: int, source: str) -> None:
    arrival = Arrival(at, "a", calling, called, peer, source)
    encodable = all(not ("\ud800" <= letter <= "\udfff") for letter in calling + called + peer + source)
    data = build_meta(CT, "1.2.3", EXPLICIT, arrival)
    meta = read_meta(io.BytesIO(data))
    assert meta.dataset_offset == len(data)
    if encodable:
        assert meta.arrival == arrival
    pydicom.filereader.read_partial(io.BytesIO(data))


@given(st.binary(max_size=300))
@settings(max_examples=examples(300), deadline=None)
def test_hostile_meta_raises_only_not_dicom(garbage: bytes) -> None:
    for prefix in (b"", bytes(128) + b"DICM", bytes(128) + b"DICM\x02\x00"):
        try:
            read_meta(io.BytesIO(prefix + garbage))
        except NotDicom:
            pass


def test_meta_that_never_ends_is_refused() -> None:
    endless = bytes(128) + b"DICM" + b"\x02\x00\x10\x00UI\x02\x001\x00" * 100_000
    with pytest.raises(NotDicom):
        read_meta(io.BytesIO(endless))


def test_damaged_private_information_is_no_arrival() -> None:
    data = build_meta(CT, "1.2.3", EXPLICIT, replace(ARRIVAL, source="dimse"))
    assert read_meta(io.BytesIO(data.replace(b'"arrived_at":', b'"arrived_xx":'))).arrival is None
