"""Command sets and P-DATA cutting against pynetdicom's codec, and against hostile bytes."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pynetdicom.dimse_messages import C_STORE_RQ, C_STORE_RSP, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode
from pynetdicom.pdu import P_DATA_TF

from interface.dimse import messages
from interface.dimse.messages import Command, build_response, cut, cut_success, parse_command
from interface.dimse.pdu import PduError
from tests.examples import examples

CT = "1.2.840.10008.5.1.4.1.1.2"


def store_request() -> bytes:
    primitive = C_STORE()
    primitive.MessageID = 513
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = CT, "1.2.3"
    primitive.Priority = 0
    primitive.DataSet = BytesIO(b"xx")
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    fragments = [value.data for item in message.encode_msg(1, 16384) for value in _values(item)]
    return b"".join(data[1:] for data in fragments if data[0] & 1)


def _values(primitive):  # type: ignore[no-untyped-def]
    pdu = P_DATA_TF()
    pdu.from_primitive(primitive)
    return [_Value(item.presentation_data_value) for item in pdu.presentation_data_value_items]


class _Value:
    def __init__(self, data: bytes) -> None:
        self.data = data


def test_a_request_of_pynetdicom_is_read() -> None:
    command = parse_command(store_request())
    assert (command.field, command.message_id, command.has_data_set) == (messages.C_STORE_RQ, 513, True)
    assert command.uid(messages.AFFECTED_SOP_CLASS_UID) == CT
    assert command.uid(messages.AFFECTED_SOP_INSTANCE_UID) == "1.2.3"
    assert command.number(messages.AFFECTED_SOP_CLASS_UID) is None


def test_a_response_is_read_by_pynetdicom() -> None:
    data = build_response(parse_command(store_request()), 0xA700, "x" * 100)
    dataset = decode(BytesIO(data), is_implicit_vr=True, is_little_endian=True)
    assert (dataset.Status, dataset.MessageIDBeingRespondedTo, dataset.CommandField) == (0xA700, 513, 0x8001)
    assert dataset.ErrorComment == "x" * 64
    assert dataset.CommandGroupLength == len(data) - 12
    message = C_STORE_RSP()
    assert isinstance(message, DIMSEMessage)


@given(st.binary(min_size=1, max_size=3000), st.sampled_from([0, 64, 100, 16384]), st.booleans())
@settings(max_examples=examples(100), deadline=None)
def test_messages_are_cut_to_the_maximum_and_come_together_again(data: bytes, limit: int, is_command: bool) -> None:
    parts = list(cut(5, data, is_command=is_command, max_pdu_bytes=limit))
    joined = b""
    for index, part in enumerate(parts):
        pdu = P_DATA_TF()
        pdu.decode(part)
        (item,) = pdu.presentation_data_value_items
        assert item.presentation_context_id == 5
        assert not limit or len(part) - 6 <= max(limit, 70)
        last = index == len(parts) - 1
        assert item.presentation_data_value[0] == (1 if is_command else 0) | (2 if last else 0)
        joined += item.presentation_data_value[1:]
    assert joined == data


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=examples(300), deadline=None)
def test_any_bytes_are_read_or_refused(data: bytes, prefixed: bool) -> None:
    try:
        command = parse_command(store_request() + data if prefixed else data)
    except PduError:
        return
    parse_command(build_response(command, 0))
    command.uid(messages.AFFECTED_SOP_INSTANCE_UID)


def test_a_command_of_too_many_elements_is_refused() -> None:
    with pytest.raises(PduError):
        parse_command(b"".join(b"\0\0" + number.to_bytes(2, "little") + bytes(4) for number in range(1000)))


ELEMENTS = st.sampled_from([
    messages.AFFECTED_SOP_CLASS_UID, messages.AFFECTED_SOP_INSTANCE_UID, messages.REQUESTED_SOP_CLASS_UID,
    messages.REQUESTED_SOP_INSTANCE_UID, messages.ACTION_TYPE_ID, messages.EVENT_TYPE_ID, messages.PRIORITY,
])
#: Also one that holds the element of a message id, and ones that are not echoed.
VALUES = st.one_of(
    st.from_regex(rb"[0-9.]{1,64}\0?", fullmatch=True), st.binary(max_size=4), st.binary(min_size=60, max_size=70),
    st.just(b"\0\0\x20\x01\x02\0\0\0\0\0"),
)


ORDINARY = {messages.AFFECTED_SOP_CLASS_UID: CT.encode() + b"\0", messages.AFFECTED_SOP_INSTANCE_UID: b"1.2.3\0"}
MESSAGE_ID_ZERO = b"\0\0\x20\x01\x02\0\0\0\0\0"


@settings(max_examples=examples(300))
@example(ORDINARY, 7, 0, 16384)
@example({**ORDINARY, messages.AFFECTED_SOP_CLASS_UID: MESSAGE_ID_ZERO}, 7, 0, 0)
@example({**ORDINARY, messages.AFFECTED_SOP_INSTANCE_UID: b"1" * 66}, 7, 0, 0)
@example({**ORDINARY, messages.AFFECTED_SOP_INSTANCE_UID: b"1" * 68}, 7, 0, 0)
@example({**ORDINARY, messages.ACTION_TYPE_ID: b"\1\0"}, 7, 0, 0)
@given(
    st.dictionaries(ELEMENTS, VALUES), st.integers(0, 0xFFFF), st.integers(0, 127), st.sampled_from([0, 64, 128, 16384])
)
def test_success_is_what_any_response_is(values: dict[int, bytes], message_id: int, odd: int, limit: int) -> None:
    """Also at its second time, of kept parts."""
    request, context_id = Command(values, messages.C_STORE_RQ, message_id, True), 2 * odd + 1
    whole = b"".join(cut(context_id, build_response(request, 0), is_command=True, max_pdu_bytes=limit))
    assert cut_success(context_id, request, limit) == whole
    again = Command(values, messages.C_STORE_RQ, message_id ^ 0x2001, True)
    whole = b"".join(cut(context_id, build_response(again, 0), is_command=True, max_pdu_bytes=limit))
    assert cut_success(context_id, again, limit) == whole
