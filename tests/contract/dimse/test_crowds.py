"""Crowds on the DICOM port, as many as the settings let in: memory stays flat, others are served, SIGTERM ends it."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable

import pytest

from interface.dimse.pdu import MAX_ASSOCIATE_BYTES
from internal.config.declarations import DicomSettings
from tests.contract.dimse.role import MOST_BYTES, Footprint, Role, unread_answers, until, waiting_bytes
from tests.contract.dimse.test_attacks import PIPELINED, PROPOSED, SIGTERM_S, attack
from tests.contract.dimse.test_conformance import COMMITMENT, n_action, request
from tests.contract.dimse.wire import (
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Wire,
    associate_rq,
    command,
    context,
    data_set,
    explicit,
    p_data,
    pdv,
    served,
)

#: With the honest one as many as the settings let in, half of them from each of two addresses.
ALL = DicomSettings().max_associations - 1
#: What each of a crowd says and then leaves unfinished, and how many of them there are.
CROWDS: dict[str, tuple[bytes, int]] = {
    "nothing more": (b"", ALL),
    "half a request": (associate_rq(PROPOSED)[:100], ALL),
    "most of a long request": (struct.pack(">BBI", 1, 0, MAX_ASSOCIATE_BYTES) + bytes(MAX_ASSOCIATE_BYTES - 1), ALL),
    "half an image": (p_data(pdv(1, 3, command(1, 1, CT, "1.2"))) + p_data(pdv(1, 0, bytes(120_000))) * 4, ALL),
    "half a command": (p_data(pdv(1, 1, bytes(16_000))) * 4, ALL),
    "half a commitment request": (n_action() + p_data(pdv(5, 0, bytes(120_000))) * 20, ALL),
    "an echo with half a data set": (
        p_data(pdv(3, 3, command(0x30, 1, VERIFICATION))) + p_data(pdv(3, 0, bytes(120_000))) * 20, ALL),
}  # fmt: skip


def join(role: Role, said: bytes, number: int = 0) -> Wire:
    """One of a crowd, as a caller that may ask for commitment."""
    wire = Wire(role.port, timeout=60, source=f"127.0.0.{2 + number % 2}")
    if said[:1] != b"\1":
        wire.associate(PROPOSED, context(5, COMMITMENT, IMPLICIT), calling="ASKS")
    wire.send(said)
    return wire


def crowded(start: Callable[..., Role], **settings: object) -> Role:
    """One child with the limits as they come."""
    defaults = DicomSettings()
    return start(max_associations=defaults.max_associations, max_pdu_bytes=defaults.max_pdu,
                 max_associations_per_address=defaults.max_associations_per_address, commitment_callers=["ASKS"],
                 **settings)  # fmt: skip


@pytest.mark.attack("S4")
@pytest.mark.attack("S5")
@pytest.mark.attack("S8")
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.long(seconds=4)] if name != "nothing more" else []) for name in CROWDS
])
def test_memory_is_flat_whatever_their_number(start: Callable[..., Role], descriptors: None, name: str) -> None:
    said, count = CROWDS[name]
    role = crowded(start, **({"drain_s": 1} if said else {}))  # who says nothing does not make it wait
    footprint = Footprint(role)
    wires = [join(role, said, number) for number in range(count)]
    taken_in = 0 if name == "half a request" else count  # which waits with the gate, unread
    until(lambda: waiting_bytes(role.port) == len(said) * (count - taken_in), 60, "not everything was read")
    with Wire(role.port) as honest:
        honest.associate()
        assert honest.store(1, "1.2.3", data_set("1.2.3")).status == 0
        assert honest.echo() == 0
        assert role.fresh("receive.json")["open"] == taken_in + 1
        honest.release()
    assert footprint.growth_bytes() < MOST_BYTES
    assert role.stop(SIGTERM_S) == 0
    assert role.temporary_files() == [] and "Traceback" not in role.log()
    for wire in wires:
        wire.sock.close()


@pytest.mark.attack("S15")
@pytest.mark.long(seconds=8)
def test_many_long_commitment_requests_at_once(start: Callable[..., Role]) -> None:
    """Each takes 40 MB to read; they are read one after the other, each of them answered."""
    role = crowded(start)
    footprint = Footprint(role)
    body = request(49_000)
    wires = [join(role, n_action()) for _ in range(12)]
    threads = [threading.Thread(target=wire.send_data, args=(body, 120_000, 5)) for wire in wires]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [wire.response().status for wire in wires] == [0] * 12
    assert footprint.growth_bytes() < MOST_BYTES
    for wire in wires:
        wire.release()
    assert role.temporary_files() == []


def bombs() -> dict[str, tuple[str, bytes, int]]:
    """Transfer syntax, data set and how many at once: each takes tens of MB to look for its UIDs."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = bytes(1 << 20)
    long_value = struct.pack("<HH2sHI", 9, 0x1001, b"OB", 0, 200 << 20)
    deflated = deflate.compress(explicit(8, 0x16, b"UI", CT.encode()) + long_value) + b"".join(
        deflate.compress(zeros) for _ in range(100)) + deflate.flush()
    nested = struct.pack("<HH2sHI", 9, 0x1001, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    nested += explicit(9, 0x1002, b"OB", bytes(3_000_000))
    return {"ten deflated": ("1.2.840.10008.1.2.1.99", deflated, 10),
            "deflated": ("1.2.840.10008.1.2.1.99", deflated, 40), "nested": (EXPLICIT, nested, 40)}


@pytest.mark.attack("S20")
@pytest.mark.attack("S21")
@pytest.mark.parametrize("name", ["ten deflated", *(
    pytest.param(name, marks=pytest.mark.long(seconds=8)) for name in ("deflated", "nested"))])
def test_data_sets_that_take_memory_to_look_at(start: Callable[..., Role], name: str) -> None:
    """They are looked at one after the other; each is refused, and others are served meanwhile."""
    syntax, body, count = bombs()[name]
    role = start()
    footprint = Footprint(role)
    wires = [Wire(role.port, timeout=60) for _ in range(count)]
    for wire in wires:
        wire.associate(context(1, CT, syntax))
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda wire=wire: statuses.append(wire.store(1, "1.2.3", body).status))
               for wire in wires]  # fmt: skip
    for thread in threads:
        thread.start()
    with Wire(role.port) as honest:
        honest.associate()
        assert honest.store(1, "1.2.4", data_set("1.2.4")).status == 0
        honest.release()
    for thread in threads:
        thread.join()
    assert statuses == [0xC000] * count
    assert footprint.growth_bytes() < MOST_BYTES
    for wire in wires:
        wire.release()
    assert list(role.data_sets()) == ["1.2.4"] and role.temporary_files() == []


@pytest.mark.long(seconds=22)
def test_sigterm_with_the_drain_time_as_it_comes(start: Callable[..., Role]) -> None:
    """The worst that can be: crowds in the middle of a message that nobody ends, and of answers that nobody reads."""
    role = crowded(start, children=2)
    footprint = Footprint(role)
    wires = [join(role, CROWDS["half an image"][0]) for _ in range(100)]
    deaf = [threading.Thread(target=lambda: wires.append(attack(role.port, PIPELINED))) for _ in range(2)]
    for thread in deaf:
        thread.start()
    for thread in deaf:
        thread.join()
    until(role.temporary_files)
    until(lambda: unread_answers(role.port) == len(deaf))
    assert served(role.port)
    assert footprint.growth_bytes() < MOST_BYTES
    assert role.stop(SIGTERM_S) == 0
    assert "Traceback" not in role.log()
    assert role.data_sets() == {} and role.temporary_files() == []
    for wire in wires:
        wire.sock.close()
