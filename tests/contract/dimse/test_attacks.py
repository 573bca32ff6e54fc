"""Attacks on the DICOM port with real sockets: others are served meanwhile, memory stays flat, SIGTERM ends it in time.

Source: facts, reliability.md 4.1 (what the usual library does under each of these) and 3.1.
"""

from __future__ import annotations

import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.dimse.role import MOST_BYTES, Footprint, Role, unread_answers, until, waiting_bytes
from tests.contract.dimse.wire import (
    CT,
    EXPLICIT,
    VERIFICATION,
    Closed,
    DeafWire,
    Wire,
    associate_rq,
    command,
    context,
    data_set,
    p_data,
    pdu,
    pdv,
    served,
)

PROPOSED = context(1, CT, EXPLICIT) + context(3, VERIFICATION, EXPLICIT)
SIGTERM_S = 25
ONE_BYTE_S = 12  #: 10 s are promised; the rest is what a busy machine takes to notice
BURST_P95_S = 3


def in_association(*pdus: bytes) -> tuple[bytes, ...]:
    return (associate_rq(PROPOSED), *pdus)


def command_fragments(size: int) -> tuple[bytes, ...]:
    return in_association(*[p_data(pdv(1, 1, bytes(16_000)))] * (size // 16_000))


def refused_stores(size: int) -> tuple[bytes, ...]:
    """Whole C-STOREs, each of them answered with 0xA900, sent without waiting for the answers."""
    store = p_data(pdv(1, 3, command(1, 1, CT, "1.2.8"))) + p_data(pdv(1, 2, data_set("1.2.9")))
    return in_association(*[store * 100] * (size // len(store) // 100))


PIPELINED = "stores whose answers nobody reads"
ATTACKS: dict[str, tuple[bytes, ...]] = {
    "nothing": (),
    "one byte": (b"\1",),
    "half a request": (associate_rq(PROPOSED)[:100],),
    "a PDU of 4 GB before the association": (struct.pack(">BBI", 1, 0, 0xFFFFFFFF), *[bytes(1_000_000)] * 30),
    "a PDU of 4 GB inside": in_association(struct.pack(">BBI", 4, 0, 0xFFFFFFFF), *[bytes(1_000_000)] * 30),
    "endless command fragments": command_fragments(60_000_000),
    "empty command fragments": in_association(*[p_data(*[pdv(1, 1, b"")] * 2000)] * 50),
    "a command and never its data": in_association(p_data(pdv(1, 3, command(1, 1, CT, "1.2")))),
    "half a data set": in_association(p_data(pdv(1, 3, command(1, 1, CT, "1.2"))), p_data(pdv(1, 0, bytes(9000)))),
    "an endless request that is no image": in_association(
        p_data(pdv(3, 3, command(0x30, 1, VERIFICATION))), *[p_data(pdv(3, 0, bytes(16_000)))] * 3000),
    "items that lie": (pdu(1, associate_rq(PROPOSED)[6:80] + b"\x10\x00\xff\xff" * 4000),),
    "many contexts": (associate_rq(context(1, CT, EXPLICIT) * 4000),),
    PIPELINED: refused_stores(40_000_000),
}  # fmt: skip


def attack(port: int, name: str) -> Wire:
    """Send as much as the product takes; the connection stays open if the product lets it."""
    wire = DeafWire(port) if name == PIPELINED else Wire(port)
    wire.sock.settimeout(0.5 if name == PIPELINED else 5)
    try:
        for part in ATTACKS[name]:
            wire.send(part)
    except OSError:
        pass  # closed by the product, as it should be, or left waiting in the network
    return wire


ROTATING = {"nothing", "half a request", "items that lie", "many contexts", "empty command fragments",
            "an endless request that is no image", "half a data set"}


@pytest.mark.attack("S2")
@pytest.mark.attack("S4")
@pytest.mark.attack("S6")
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.long(seconds=3)] if name in ROTATING else []) for name in ATTACKS
])
def test_others_are_served_memory_is_flat_and_sigterm_ends_it(start: Callable[..., Role], name: str) -> None:
    role = start(drain_s=1)
    footprint = Footprint(role)
    wires: list[Wire] = []
    threads = [threading.Thread(target=lambda: wires.append(attack(role.port, name))) for _ in range(4)]
    for thread in threads:
        thread.start()
    with Wire(role.port) as honest:
        honest.associate()
        assert honest.store(1, "1.2.3", data_set("1.2.3")).status == 0
        assert honest.echo() == 0
        honest.release()
    for thread in threads:
        thread.join()
    assert served(role.port)
    if name == PIPELINED:
        until(lambda: unread_answers(role.port) == len(wires) and waiting_bytes(role.port))
    assert footprint.growth_bytes() < MOST_BYTES
    assert role.stop(SIGTERM_S) == 0
    assert "Traceback" not in role.log()
    assert list(role.data_sets()) == ["1.2.3"] and role.temporary_files() == []
    for wire in wires:
        wire.sock.close()


def storm(port: int, stop: threading.Event, said: bytes) -> None:
    """Connect, say something and go, again and again."""
    while not stop.is_set():
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
                sock.sendall(said)
        except OSError:
            continue


@pytest.mark.attack("S7")
@pytest.mark.parametrize("said", [b"", associate_rq(PROPOSED), b"GET / HTTP/1.1\r\n\r\n"], ids=["", "RQ", "HTTP"])
def test_sigterm_in_a_storm_of_connections(start: Callable[..., Role], said: bytes) -> None:
    role = start(children=2)
    footprint = Footprint(role)
    stop = threading.Event()
    threads = [threading.Thread(target=storm, args=(role.port, stop, said)) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        counter = "empty_connections" if not said else "connections"
        for count in (70, 140, 210):
            until(lambda count=count: role.fresh("receive.json")["counters"].get(counter, 0) > count, 60)
            assert served(role.port, "127.0.0.2")  # the storm may reach the cap of its own address
        assert footprint.growth_bytes() < MOST_BYTES
        assert role.stop(SIGTERM_S) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert "Traceback" not in role.log()


@pytest.mark.attack("S8")
def test_a_burst_of_200_from_200_threads(start: Callable[..., Role], record_property: Callable[..., None]) -> None:
    """All are accepted in time, and stand while others are served and SIGTERM ends it."""
    role = start(children=2)
    footprint = Footprint(role)
    accepted: list[tuple[float, Wire]] = []
    together = threading.Barrier(200)

    def associate() -> None:
        together.wait()
        began = time.perf_counter()
        wire = Wire(role.port, timeout=60)
        wire.associate()
        accepted.append((time.perf_counter() - began, wire))

    threads = [threading.Thread(target=associate) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(accepted) == 200
    p95_s = statistics.quantiles([took_s for took_s, _ in accepted], n=20)[18]
    record_property("association_burst_p95_s", round(p95_s, 3))
    assert p95_s < BURST_P95_S
    assert served(role.port)
    assert footprint.growth_bytes() < MOST_BYTES
    assert role.stop(SIGTERM_S) == 0
    for _, wire in accepted:
        wire.sock.close()


@pytest.mark.attack("S7")
@pytest.mark.long(seconds=4)
def test_more_than_1024_descriptors(start: Callable[..., Role], descriptors: None) -> None:
    role = start(max_associations=2000, max_associations_per_address=2000)
    footprint = Footprint(role)
    wires = [Wire(role.port, timeout=60) for _ in range(1100)]
    for wire in wires:
        wire.send(associate_rq(PROPOSED))
    assert all(wire.read_pdu()[0] == 2 for wire in wires)
    assert wires[-1].store(1, "1.2.3", data_set("1.2.3")).status == 0
    assert all(wire.echo() == 0 for wire in wires[::100])
    assert footprint.growth_bytes() < MOST_BYTES
    assert role.stop(SIGTERM_S) == 0
    for wire in wires:
        wire.sock.close()


@pytest.mark.attack("S6")
@pytest.mark.long(seconds=12)
def test_five_hundred_sockets_with_one_byte_are_gone_in_ten_seconds(
    start: Callable[..., Role], descriptors: None
) -> None:
    role = start(max_associations=2000, max_associations_per_address=2000, association_timeout_s=10)
    footprint = Footprint(role)
    began: list[tuple[float, Wire]] = []
    for _ in range(500):
        connecting_at = time.monotonic()
        began.append((connecting_at, Wire(role.port, timeout=60)))
        began[-1][1].send(b"\1")
    assert served(role.port)
    for connecting_at, wire in began:
        with pytest.raises(Closed):
            wire.exactly(1)
        assert time.monotonic() - connecting_at < ONE_BYTE_S
        wire.sock.close()
    until(lambda: role.fresh("receive.json")["open"] == 0)
    assert footprint.growth_bytes() < MOST_BYTES
    footprint.descriptors_fall_back()


@pytest.mark.attack("S7")
def test_a_storm_of_connections_leaves_no_threads_and_no_descriptors(start: Callable[..., Role]) -> None:
    role = start()
    child = role.children()[0]
    assert served(role.port)
    footprint = Footprint(role)
    for _ in range(100):
        for _ in range(100):
            socket.create_connection(("127.0.0.1", role.port)).close()
        assert served(role.port, "127.0.0.2")
    until(lambda: role.fresh("receive.json")["open"] == 0)
    counters = role.fresh("receive.json")["counters"]
    assert sum(counters.get(name, 0) for name in ("empty_connections", "connections")) > 10_000
    threads = int(Path(f"/proc/{child}/status").read_text().partition("Threads:")[2].split()[0])
    assert threads < 20
    footprint.descriptors_fall_back()
    assert footprint.growth_bytes() < MOST_BYTES
    assert served(role.port)


@pytest.mark.attack("S5")
def test_a_disk_that_takes_no_more_refuses_and_keeps_the_association(start: Callable[..., Role]) -> None:
    """A real limit of the kernel in the place of a full disk: files end at 400,000 bytes (EFBIG)."""
    role = start(prefix=["prlimit", "--fsize=400000"])
    footprint = Footprint(role)
    with Wire(role.port) as wire:
        wire.associate()
        assert wire.store(1, "1.2.3", data_set("1.2.3", pixels=900_000)).status == 0xA700
        assert served(role.port)
        assert wire.store(2, "1.2.4", data_set("1.2.4", pixels=9_000)).status == 0
        assert wire.store(3, "1.2.5", data_set("1.2.5", pixels=900_000)).status == 0xA700
        assert wire.echo() == 0
        assert footprint.growth_bytes() < MOST_BYTES
        assert role.stop(SIGTERM_S) == 0
    assert list(role.data_sets()) == ["1.2.4"] and role.temporary_files() == []
