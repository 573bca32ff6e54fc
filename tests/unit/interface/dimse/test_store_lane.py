"""A data set in whatever pieces it comes: kept as it is, and known by its UIDs."""

from __future__ import annotations

import tempfile
from io import BytesIO
from pathlib import Path

import pydicom
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from interface.dimse import messages
from interface.dimse.messages import Command
from interface.dimse.pdu import ContextResult
from interface.dimse.store_lane import HEAD_BYTES, StoreLane
from internal.dicomfile import read_meta
from internal.model import Arrival
from internal.spool import Spool
from tests.examples import examples

IMAGE = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
SOP_CLASS, SOP_UID = str(IMAGE.SOPClassUID), str(IMAGE.SOPInstanceUID)
SYNTAX = str(IMAGE.file_meta.TransferSyntaxUID)


def data_set(before_bytes: int) -> bytes:
    """Return the sample's data set, with a private element of so many bytes before its UIDs."""
    image = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    if before_bytes:
        image.private_block(0x0007, "TEST", create=True).add_new(1, "OB", bytes(before_bytes))
    whole = BytesIO()
    pydicom.dcmwrite(whole, image)
    return whole.getvalue()[read_meta(BytesIO(whole.getvalue())).dataset_offset :]


DATA_SETS = [data_set(0), data_set(HEAD_BYTES - 2000), data_set(HEAD_BYTES), data_set(3 * HEAD_BYTES)]


@settings(max_examples=examples(60), deadline=None)
@given(st.sampled_from(range(len(DATA_SETS))), st.lists(st.tuples(st.integers(1, 40_000), st.booleans()), max_size=40))
def test_a_data_set_in_any_pieces_is_kept_as_it_came(which: int, pieces: list[tuple[int, bool]]) -> None:
    """`pieces`: how many bytes come next, and whether the buffer they lie in is used again."""
    data = DATA_SETS[which]
    values = {messages.AFFECTED_SOP_CLASS_UID: SOP_CLASS.encode(), messages.AFFECTED_SOP_INSTANCE_UID: SOP_UID.encode()}
    command = Command(values, messages.C_STORE_RQ, 1, True)
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool.open(Path(folder) / "spool")
        writer = spool.writer("a")
        writer.prepare()
        sink = StoreLane(writer, 1 << 30).begin(command, ContextResult(1, 0, SOP_CLASS, SYNTAX), Arrival(1))
        left = data
        for size, is_overwritten in [*pieces, (len(data), False)]:
            piece, left = bytearray(left[:size]), left[size:]
            if piece:
                sink.take(memoryview(piece))
            if is_overwritten:
                sink.flush()
                piece[:] = bytes(len(piece))
        sink.check()
        assert sink.keep() == (messages.SUCCESS, "")
        sink.hand_over()
        (entry,) = spool.scan_new()
        with spool.open_entry(entry.id) as file:
            file.seek(read_meta(file).dataset_offset)
            assert file.read() == data
        assert sink.study_uid == str(IMAGE.StudyInstanceUID)
        writer.close()
