"""Peers that are broken or mean to harm: each ends alone, in bounded time and memory, others are served meanwhile."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.dimse.role import MOST_BYTES, Footprint, Role, until
from tests.contract.dimse.wire import (
    CT,
    EXPLICIT,
    VERIFICATION,
    Closed,
    Wire,
    associate_rq,
    command,
    context,
    data_set,
    item,
    p_data,
    pdu,
    pdv,
    served,
)
from tests.examples import examples

PROPOSED = context(1, CT, EXPLICIT) + context(3, VERIFICATION, EXPLICIT)


def accepts(role: Role) -> bool:
    with Wire(role.port) as wire:
        wire.send(associate_rq(PROPOSED))
        return wire.read_pdu()[0] == 2


def ends_with_abort(wire: Wire) -> tuple[int, int]:
    """Source and reason of the A-ABORT that must come, then the end of the connection without a reset."""
    kind, body = wire.read_pdu()
    assert kind == 7, (kind, body)
    assert wire.wait_closed() is False
    return body[2], body[3]


BEFORE_ASSOCIATION = {
    "giant PDU": (struct.pack(">BBI", 1, 0, 0xFFFFFFFF), (2, 6)),
    "P-DATA first": (p_data(pdv(1, 3, command(0x30, 1, data_set=False))), (2, 2)),
    "an HTTP request": (b"GET / HTTP/1.1\r\n\r\n", (2, 2)),
    "unknown PDU": (pdu(0x99, b"x"), (2, 2)),
    "short A-ASSOCIATE-RQ": (pdu(1, b"\0\1" + bytes(20)), (2, 6)),
    "items that lie": (pdu(1, b"\0\1" + bytes(66) + struct.pack(">BBH", 0x10, 0, 60000) + b"1.2"), (2, 6)),
    "even context id": (associate_rq(context(2, CT, EXPLICIT)), (2, 6)),
    "one context id twice": (associate_rq(context(1, CT, EXPLICIT) * 2), (2, 6)),
    "maximum length of two bytes": (associate_rq(PROPOSED, extra_user=b"")[:-20], None),
    "role item that lies": (associate_rq(PROPOSED, extra_user=item(0x54, b"\0\x40x")), (2, 6)),
    "10,000 contexts": (associate_rq(b"".join(context(1, "1", "1") for _ in range(3000))), (2, 6)),
}


@pytest.mark.attack("S2")
@pytest.mark.attack("S13")
@pytest.mark.parametrize("case", [name for name, (_, abort) in BEFORE_ASSOCIATION.items() if abort])
def test_nonsense_before_an_association_is_aborted(shared: Role, case: str) -> None:
    data, abort = BEFORE_ASSOCIATION[case]
    with Wire(shared.port) as wire:
        wire.send(data)
        assert ends_with_abort(wire) == abort
    assert served(shared.port)


IN_ASSOCIATION = {
    "giant P-DATA": (struct.pack(">BBI", 4, 0, 0xFFFFFF00), (2, 6)),
    "PDV longer than its PDU": (pdu(4, struct.pack(">IBB", 5000, 1, 3) + b"x"), (2, 6)),
    "PDV of no length": (pdu(4, struct.pack(">IBB", 0, 1, 3)), (2, 6)),
    "half a PDV header": (pdu(4, b"\0\0\0"), (2, 6)),
    "unknown context": (p_data(pdv(99, 3, command(0x30, 1, data_set=False))), (2, 6)),
    "data set first": (p_data(pdv(1, 2, b"xx")), (2, 2)),
    "data set in another context": (
        p_data(pdv(1, 3, command(1, 1, CT, "1.2"))) + p_data(pdv(3, 2, data_set("1.2"))), (2, 6)),
    "command instead of the data set": (p_data(pdv(1, 3, command(1, 1, CT, "1.2"))) * 2, (2, 6)),
    "command that is garbage": (p_data(pdv(1, 3, b"\xff" * 40)), (2, 6)),
    "command without field": (p_data(pdv(1, 3, b"")), (2, 6)),
    "second A-ASSOCIATE-RQ": (associate_rq(PROPOSED), (2, 2)),
    "A-ASSOCIATE-AC": (pdu(2, bytes(80)), (2, 2)),
    "unknown PDU": (pdu(0x55, b"abc"), (2, 1)),
    "long release": (pdu(5, bytes(400)), (2, 6)),
    "endless command": (b"".join(p_data(pdv(1, 1, bytes(16000))) for _ in range(6)), (2, 6)),
    "huge request": (
        p_data(pdv(1, 3, command(0x20, 1, CT)))
        + b"".join(p_data(pdv(1, 0, bytes(200_000))) for _ in range(45)), (2, 6)),
}  # fmt: skip


@pytest.mark.attack("S14")
@pytest.mark.parametrize("case", IN_ASSOCIATION)
def test_nonsense_in_an_association_is_aborted(shared: Role, case: str) -> None:
    data, abort = IN_ASSOCIATION[case]
    with Wire(shared.port) as wire:
        wire.associate()
        try:
            wire.send(data)
        except ConnectionError:
            assert len(data) > 1_000_000  # the abort came while we were still sending
            return
        try:
            assert ends_with_abort(wire) == abort
        except Closed:
            assert len(data) > 1_000_000
    assert served(shared.port)
    assert shared.temporary_files() == []


@pytest.mark.attack("S6")
def test_sockets_that_send_one_byte_are_closed_whatever_their_number(start: Callable[..., Role]) -> None:
    role = start(association_timeout_s=1.0)
    footprint = Footprint(role)
    began: list[tuple[float, Wire]] = []
    for number in range(60):
        connecting_at = time.monotonic()
        began.append((connecting_at, Wire(role.port)))
        began[-1][1].send(b"\1" * (number % 2))
    assert served(role.port)
    for connecting_at, wire in began:
        with pytest.raises(Closed):
            wire.exactly(1)
        assert time.monotonic() - connecting_at < 3  # the rest is what a busy machine takes to notice
        wire.sock.close()
    until(lambda: role.fresh("receive-0.json")["open_associations"] == 0)
    footprint.descriptors_fall_back()
    assert footprint.growth_bytes() < MOST_BYTES


@pytest.mark.attack("S6")
def test_a_byte_now_and_then_does_not_keep_a_connection(start: Callable[..., Role]) -> None:
    """The association's deadline is one for all bytes, and a message has a floor of bytes per window."""
    role = start(association_timeout_s=0.5, stall_timeout_s=0.5, min_bytes_per_s=1000)
    with Wire(role.port) as wire, pytest.raises((Closed, ConnectionError)):
        for byte in associate_rq(PROPOSED):
            wire.send(bytes((byte,)))
            wire.sock.settimeout(0.1)
            try:
                wire.exactly(1)
            except TimeoutError:
                continue
    with Wire(role.port) as wire:
        wire.associate()
        wire.send(p_data(pdv(1, 3, command(1, 1, CT, "1.2"))))
        with pytest.raises((AssertionError, ConnectionError, Closed)):
            for _ in range(200):
                wire.send(p_data(pdv(1, 0, b"x")))
                wire.sock.settimeout(0.1)
                try:
                    kind, _ = wire.read_pdu()
                    assert kind != 7
                except TimeoutError:
                    continue
    assert role.temporary_files() == []


def test_a_slow_peer_above_the_floor_is_served(start: Callable[..., Role]) -> None:
    role = start(stall_timeout_s=0.3, min_bytes_per_s=200)
    body = data_set("1.2.3", pixels=600)
    with Wire(role.port) as wire:
        wire.associate()
        wire.send(p_data(pdv(1, 3, command(1, 1, CT, "1.2.3"))))
        pieces = [body[start : start + 100] for start in range(0, len(body), 100)]
        for index, piece in enumerate(pieces):
            time.sleep(0.1)  # the sender's own pace
            wire.send(p_data(pdv(1, 2 if index == len(pieces) - 1 else 0, piece)))
        assert wire.response().status == 0
        wire.release()
    assert role.data_sets()["1.2.3"] == body


def test_a_silent_association_is_closed(start: Callable[..., Role]) -> None:
    role = start(idle_timeout_s=0.5)
    with Wire(role.port) as wire:
        wire.associate()
        assert wire.echo() == 0
        assert served(role.port)
        assert ends_with_abort(wire) == (2, 0)


def test_pipelined_stores_wait_in_the_network_not_in_memory(start: Callable[..., Role]) -> None:
    role = start()
    footprint = Footprint(role)
    body = data_set("1.2.3", pixels=4_000_000)
    with Wire(role.port) as wire:
        wire.associate()
        message = p_data(pdv(1, 3, command(1, 1, CT, "1.2.3")))
        pieces = [body[start : start + 200_000] for start in range(0, len(body), 200_000)]
        message += b"".join(p_data(pdv(1, 0, piece)) for piece in pieces[:-1]) + p_data(pdv(1, 2, pieces[-1]))
        for _ in range(15):
            wire.send(message)
        assert served(role.port)
        assert [wire.response().status for _ in range(15)] == [0] * 15
        assert footprint.growth_bytes() < 30_000_000
        wire.send(message * 3)
        assert role.stop(25) == 0
    assert role.data_sets() == {"1.2.3": body} and role.temporary_files() == []


@pytest.mark.attack("S7")
def test_connections_that_come_and_go_leave_nothing(shared: Role) -> None:
    for _ in range(10):
        for _ in range(30):
            with socket.create_connection(("127.0.0.1", shared.port)):
                pass
        assert served(shared.port, "127.0.0.2")
    until(lambda: accepts(shared))  # a storm may reach the cap for a moment
    until(lambda: shared.fresh("receive-0.json")["open_associations"] == 0)
    assert shared.process.poll() is None


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Role:  # type: ignore[misc]
    """A role whose deadlines are so short that fuzzing does not wait for them."""
    role = Role(tmp_path_factory.mktemp("fuzz") / "spool", association_timeout_s=0.05, stall_timeout_s=0.05,
                idle_timeout_s=0.05)  # fmt: skip
    footprint = Footprint(role)
    yield role
    footprint.descriptors_fall_back()
    assert footprint.growth_bytes() < MOST_BYTES
    assert role.stop() == 0
    assert "Traceback" not in role.log(), role.log()


FUZZ = settings(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def poke(role: Role, *parts: bytes) -> None:
    with Wire(role.port) as wire:
        try:
            for part in parts:
                wire.send(part)
            wire.wait_closed()
        except OSError:
            pass


@pytest.mark.attack("S13")
@FUZZ
@given(st.binary(max_size=600))
def test_any_first_bytes(quick: Role, data: bytes) -> None:
    poke(quick, data)


@pytest.mark.attack("S13")
@FUZZ
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=10))
def test_any_damage_to_an_association_request(quick: Role, changes: list[tuple[int, int]]) -> None:
    data = bytearray(associate_rq(PROPOSED))
    for position, value in changes:
        data[position % len(data)] = value
    poke(quick, bytes(data))


@pytest.mark.attack("S14")
@FUZZ
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8), st.binary(max_size=40))
def test_any_damage_to_messages(quick: Role, changes: list[tuple[int, int]], tail: bytes) -> None:
    message = p_data(pdv(1, 3, command(1, 1, CT, "1.2"))) + p_data(pdv(1, 2, data_set("1.2")))
    data = bytearray(message + p_data(pdv(3, 3, command(0x30, 2, VERIFICATION, data_set=False))) + tail)
    for position, value in changes:
        data[position % len(data)] = value
    poke(quick, associate_rq(PROPOSED), bytes(data))


def test_the_fuzzed_role_still_serves_and_kept_no_half_file(quick: Role) -> None:
    rng = random.Random(7)
    for _ in range(20):
        poke(quick, associate_rq(PROPOSED), pdu(4, rng.randbytes(rng.randrange(500))))
    until(lambda: quick.temporary_files() == [])
    assert all(body.startswith(b"\x08\x00") for body in quick.data_sets().values())
