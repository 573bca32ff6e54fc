"""How long bytes are waited for, a rate for the message and an end for each PDU; and how much of the buffer is used."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interface.dimse.stream import LITTLE_BYTES, PeerStalled, Stream


@pytest.fixture
def dripping() -> Iterator[Stream]:
    """A stream whose peer sends a byte now and then, for ever."""
    ours, peer = socket.socketpair()
    over = threading.Event()

    def drip() -> None:
        with suppress(OSError):
            while not over.wait(0.01):
                peer.send(b"x")

    dripper = threading.Thread(target=drip)
    dripper.start()
    stream = Stream(ours, 1 << 20)
    yield stream
    over.set()
    dripper.join()
    stream.close()
    peer.close()


def test_without_a_floor_a_pdu_that_was_begun_still_ends(dripping: Stream) -> None:
    dripping.expect_rate(0.1, 0)
    dripping.begin_pdu(100)
    with pytest.raises(PeerStalled):
        dripping.need(1 << 20)


def test_a_pdu_has_the_time_that_its_bytes_take_at_the_floor_besides(dripping: Stream) -> None:
    dripping.expect_rate(0.1, 10)
    dripping.begin_pdu(30)  # 3.1 s; at the peer's pace it takes longer than the window alone
    dripping.need(30)
    dripping.end_pdu()
    dripping.need(60)


def test_below_the_floor_a_message_ends(dripping: Stream) -> None:
    dripping.expect_rate(0.1, 1_000_000)
    with pytest.raises(PeerStalled):
        dripping.need(1 << 20)


def resident_bytes() -> int:
    return psutil.Process().memory_info().rss


def test_a_buffer_of_which_less_is_used_gives_its_memory_back() -> None:
    ours, peer = socket.socketpair()
    most = 64 << 20
    stream = Stream(ours, most)
    stream.use(most)
    stream.view[:] = bytes(most)
    base = resident_bytes()
    peer.send(b"x" * 10)
    stream.allow(5)
    stream.need(10)
    stream.use(1 << 20)
    assert bytes(stream.view[stream.head : stream.tail]) == b"x" * 10
    assert resident_bytes() < base - (most >> 1)
    stream.close()
    peer.close()


@given(st.data())
@settings(max_examples=20, deadline=None)
def test_whatever_is_used_of_the_buffer_the_bytes_come_in_order(data: st.DataObject) -> None:
    """Sizes change between messages, as in an association; what waits is kept."""
    ours, peer = socket.socketpair()
    stream = Stream(ours, 320 * 1024)
    sent = data.draw(st.integers(1, 400_000))
    whole = random.Random(sent).randbytes(sent)
    sender = threading.Thread(target=peer.sendall, args=(whole,))
    sender.start()
    stream.allow(20)
    got = bytearray()
    while len(got) < sent:
        stream.use(data.draw(st.sampled_from((LITTLE_BYTES, 200_000, 320 * 1024))))
        count = data.draw(st.sampled_from((90_000, 12_000, 6, 1)))
        if data.draw(st.booleans()):
            stream.need(min(count, sent - len(got)))
        elif stream.head == stream.tail:
            stream.receive()
        taken = min(count, stream.tail - stream.head)
        got += stream.view[stream.head : stream.head + taken]
        stream.head += taken
    sender.join()
    assert got == whole
    stream.close()
    peer.close()
