"""Peers that go on, but hardly: no PDU lasts for ever, whatever the floor of the rate is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contract.dimse.role import Role
from tests.contract.dimse.wire import CT, Closed, Wire, command, p_data, pdv


def test_without_a_floor_of_the_rate_a_pdu_still_has_to_end(start: Callable[..., Role]) -> None:
    role = start(stall_timeout_s=0.3, min_bytes_per_s=0)
    with Wire(role.port) as wire:
        wire.associate()
        wire.send(p_data(pdv(1, 3, command(1, 1, CT, "1.2"))))
        whole = p_data(pdv(1, 0, bytes(900)))
        ended: tuple[int, bytes] | None = None
        wire.sock.settimeout(0.05)
        for byte in whole[:400]:
            try:
                wire.send(bytes((byte,)))
                ended = wire.read_pdu()
                break
            except TimeoutError:
                continue
            except (Closed, ConnectionError):
                pytest.fail("closed without an A-ABORT")
        assert ended is not None and ended[0] == 7
    assert role.temporary_files() == []
