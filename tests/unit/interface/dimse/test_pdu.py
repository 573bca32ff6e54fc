"""The A-ASSOCIATE codec against pynetdicom's, and against hostile bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom import build_context, build_role
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, A_RELEASE_RP
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification

from interface.dimse import pdu
from interface.dimse.negotiation import negotiate
from tests.examples import examples

CT = "1.2.840.10008.5.1.4.1.1.2"
SYNTAXES = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.50"]


def request_of_pynetdicom(count: int) -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "CALLING", "CALLED AE"
    contexts = [build_context(f"{CT}.{number}", SYNTAXES) for number in range(count)]
    for index, context in enumerate(contexts):
        context.context_id = 2 * index + 1
    primitive.presentation_context_definition_list = contexts
    length = MaximumLengthNotification()
    length.maximum_length_received = 32768
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "1.2.3.4"
    role = build_role(f"{CT}.0", scu_role=True, scp_role=True)
    primitive.user_information = [length, implementation, role]
    encoded = A_ASSOCIATE_RQ()
    encoded.from_primitive(primitive)
    return bytes(encoded.encode())


@pytest.mark.parametrize("count", [1, 32, 128])
def test_what_pynetdicom_proposes_is_read_and_what_we_answer_is_read_by_it(count: int) -> None:
    request = pdu.parse_associate_rq(request_of_pynetdicom(count)[6:])
    assert (request.calling_aet, request.called_aet) == ("CALLING", "CALLED AE")
    assert (request.max_pdu_bytes, request.protocol_version) == (32768, 1)
    assert [context.abstract_syntax for context in request.contexts] == [f"{CT}.{n}" for n in range(count)]
    assert request.contexts[0].transfer_syntaxes == tuple(SYNTAXES)
    assert request.roles == ((f"{CT}.0", 1, 1),)
    data = pdu.build_associate_ac(request, negotiate(request, ()), 262_144)
    answer = A_ASSOCIATE_AC()
    answer.decode(data)
    primitive = answer.to_primitive()
    results = primitive.presentation_context_definition_results_list
    assert [(context.result, context.transfer_syntax[0]) for context in results] == [(0, SYNTAXES[2])] * count
    assert primitive.calling_ae_title.strip() == "CALLING"
    assert primitive.maximum_length_received == 262_144
    roles = [item for item in primitive.user_information if hasattr(item, "scu_role")]
    assert [(str(role.sop_class_uid), role.scu_role, role.scp_role) for role in roles] == [(f"{CT}.0", True, False)]
    assert bytes(answer.encode()) == data


def test_the_short_ones_are_those_of_pynetdicom() -> None:
    reject = A_ASSOCIATE_RJ()
    reject.result, reject.source, reject.reason_diagnostic = 1, 1, 7
    assert pdu.build_associate_rj(pdu.Rejection(1, 1, 7)) == reject.encode()
    abort = A_ABORT_RQ()
    abort.source, abort.reason_diagnostic = 2, 6
    assert pdu.build_abort(pdu.ABORT_INVALID_PARAMETER) == abort.encode()
    assert A_RELEASE_RP().encode() == pdu.RELEASE_RESPONSE


@given(st.binary(max_size=500), st.booleans())
@settings(max_examples=examples(300), deadline=None)
def test_any_bytes_are_read_or_refused(data: bytes, framed: bool) -> None:
    body = request_of_pynetdicom(1)[6:74] + data if framed else data
    try:
        request = pdu.parse_associate_rq(body)
    except pdu.PduError:
        return
    pdu.build_associate_ac(request, negotiate(request, ()), 1000)


_WHOLE = request_of_pynetdicom(3)[6:]


@given(st.lists(st.tuples(st.integers(0, len(_WHOLE) - 1), st.integers(0, 255)), max_size=8), st.integers(0, 80))
@settings(max_examples=examples(300), deadline=None)
def test_any_damage_is_read_or_refused(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(_WHOLE)
    for position, value in changes:
        data[position] = value
    try:
        request = pdu.parse_associate_rq(bytes(data[: len(data) - cut]))
    except pdu.PduError:
        return
    answer = pdu.build_associate_ac(request, negotiate(request, ()), 1000)
    assert len(answer) == 6 + int.from_bytes(answer[2:6], "big")


def test_more_than_128_contexts_or_256_kb_are_refused() -> None:
    with pytest.raises(pdu.PduError):
        pdu.parse_associate_rq(bytes(pdu.MAX_ASSOCIATE_BYTES + 1))
    body = _WHOLE[:68]
    body += b"".join(b"\x20\0\0\4" + bytes((number % 256 | 1, 0, 0, 0)) for number in range(129))
    with pytest.raises(pdu.PduError):
        pdu.parse_associate_rq(body)
