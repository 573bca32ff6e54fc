"""How long bytes are waited for: a rate for the message, and an end for each PDU."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from interface.dimse.stream import PeerStalled, Stream


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
    dripping.begin_pdu(1 << 20)
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
