"""What the peers of the receive bench send is DICOM."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from io import BytesIO

import pydicom
from pydicom.encaps import generate_frames
from pydicom.filebase import DicomBytesIO

from bench import receive_costs, sender
from tests.contract.dimse.wire import CT


def pdvs(pieces: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield control byte and fragment of each PDV in P-DATA."""
    stream = BytesIO(b"".join(pieces))
    while head := stream.read(12):
        kind, _, length, size, context_id, control = struct.unpack(">BBIIBB", head)
        assert (kind, context_id, length) == (4, 1, size + 4)
        yield control, stream.read(size - 2)


def data_set_of(fragments: Iterable[bytes]) -> pydicom.Dataset:
    file = DicomBytesIO(b"".join(fragments))
    return pydicom.dcmread(file, force=True)


def test_the_huge_object_has_as_many_fragments_as_frames() -> None:
    frame = b"\xff\xd8" + bytes(range(256)) * 1100 + b"\xff\xd9"  # of three PDVs
    found = list(pdvs(receive_costs.multi_frame("1.2.3", frame, 4)))
    assert [control for control, _ in found] == [0] * (len(found) - 1) + [2]
    assert len(found) == 1 + 4 * 3 + 1
    read = data_set_of(fragment for _, fragment in found)
    assert (read.SOPInstanceUID, read.NumberOfFrames) == ("1.2.3", 4)
    assert read["PixelData"].is_undefined_length
    assert list(generate_frames(read.PixelData, number_of_frames=4)) == [frame] * 4


def test_the_huge_object_is_longer_than_a_length_of_32_bits_can_say() -> None:
    assert receive_costs.FRAMES * receive_costs.FRAME_BYTES > 2**32
    assert receive_costs.FRAME_BYTES % 2 == 0


def test_what_a_sender_sends_is_a_whole_image() -> None:
    size_bytes = 2 * sender.FRAGMENT_BYTES + 10
    tail = sender.image_tail(size_bytes)
    uids = set()
    for number in (0, 1, sender.STUDY_IMAGES):
        (control, command), *data = pdvs([sender.image_head("1.2.3", number, size_bytes), tail])
        assert control == 3
        assert CT.encode() in command
        assert [control for control, _ in data] == [0, 0, 0, 2]
        read = data_set_of(fragment for _, fragment in data)
        assert len(read.PixelData) == size_bytes
        assert read.SOPInstanceUID.encode() in command
        uids.add((read.StudyInstanceUID, read.SOPInstanceUID))
    assert uids == {("1.2.3.9.0", "1.2.3.0"), ("1.2.3.9.0", "1.2.3.1"), ("1.2.3.9.1", f"1.2.3.{sender.STUDY_IMAGES}")}
