"""Connections that never call: they keep nobody out, whatever their number, and cost the router next to nothing."""

from __future__ import annotations

import resource
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from interface.dimse.pdu import MAX_ASSOCIATE_BYTES, PduError
from interface.dimse.settings import ReceiveSettings
from interface.dimse.waiting_room import MAX_WAITING, Crowd, Newcomer, WaitingRoom
from tests.contract.dimse.role import Role, memory_bytes, until
from tests.contract.dimse.wire import CT, EXPLICIT, VERIFICATION, Closed, Wire, associate_rq, context, data_set, pdu

PROPOSED = context(1, CT, EXPLICIT) + context(3, VERIFICATION, EXPLICIT)
DEFAULTS = ReceiveSettings()
SERVED_S = 5.0


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Enough descriptors for the attacker."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192) if hard > 0 else 8192, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def role(start: Callable[..., Role]) -> Role:
    """As it comes: two children, the default caps."""
    made = start(children=DEFAULTS.children, bind=["0.0.0.0"])
    until(lambda: all(child["ready"] for child in made.fresh("receive.json")["children"]))
    return made


class From(Wire):
    """A peer that calls from an address of its own."""

    def __init__(self, port: int, address: str) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=15, source_address=(address, 0))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def served(port: int, address: str) -> float:
    """The seconds that a C-ECHO took, with association and release."""
    began = time.monotonic()
    with From(port, address) as wire:
        wire.associate(PROPOSED)
        assert wire.echo() == 0
        wire.release()
    return time.monotonic() - began


def half_open(port: int, count: int, addresses: tuple[str, ...], said: bytes = b"\1") -> list[From]:
    wires = []
    for number in range(count):
        wires.append(From(port, addresses[number % len(addresses)]))
        try:
            wires[-1].send(said)
        except OSError:
            pass  # another one's place already
    return wires


def descriptors_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition("Threads:")[2].split()[0])


ATTACKERS = [("127.0.0.2",), ("127.0.0.2", "127.0.0.3")]


@pytest.mark.attack("S6")
@pytest.mark.attack("S8")
@pytest.mark.parametrize("addresses", ATTACKERS, ids=["one address", "two addresses"])
def test_a_thousand_sockets_with_one_byte_keep_nobody_out(role: Role, addresses: tuple[str, ...]) -> None:
    gate, children = role.process.pid, role.children()
    threads, memory = [threads_of(pid) for pid in children], memory_bytes(gate)
    began = time.monotonic()
    wires = half_open(role.port, 1000, addresses)
    assert time.monotonic() - began < 10, "the first of them are still waiting"
    for address in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
        assert served(role.port, address) < SERVED_S
    until(lambda: role.fresh("receive.json")["open"] == 0, what="one that never called is counted")
    status = role.fresh("receive.json")
    assert status["waiting"] <= MAX_WAITING
    assert status["counters"].get("refused_connections", 0) == 0
    assert descriptors_of(gate) < MAX_WAITING + 100
    assert [threads_of(pid) for pid in children] == threads, "a connection that never called has got a thread"
    assert memory_bytes(gate) - memory < 20_000_000
    for wire in wires:
        wire.sock.close()


def test_few_descriptors_keep_nobody_out(start: Callable[..., Role]) -> None:
    """Fewer than would wait: the oldest go, and what the gate says of itself is still written."""
    role = start(prefix=["prlimit", "--nofile=200:200"], bind=["0.0.0.0"])
    wires = half_open(role.port, 600, ("127.0.0.2", "127.0.0.3"))
    assert served(role.port, "127.0.0.1") < SERVED_S
    assert role.fresh("receive.json")["waiting"] <= 100
    assert "could not be written" not in role.log()
    for wire in wires:
        wire.sock.close()


def test_without_a_descriptor_the_gate_rests_and_goes_on(start: Callable[..., Role]) -> None:
    """All of them are taken, and not by those who wait: whoever calls now waits in the kernel until one is free."""
    role = start(bind=["0.0.0.0"])
    gate = role.status("receive.json")["pid"]
    taken = {int(path.name) for path in Path(f"/proc/{gate}/fd").iterdir()}
    first_free = min(set(range(len(taken) + 1)) - taken)
    soft, hard = resource.prlimit(gate, resource.RLIMIT_NOFILE)
    resource.prlimit(gate, resource.RLIMIT_NOFILE, (first_free, hard))
    with From(role.port, "127.0.0.1") as wire:
        wire.send(associate_rq(PROPOSED))
        before = psutil.Process(gate).cpu_times()
        wire.sock.settimeout(2)
        with pytest.raises(TimeoutError):
            wire.read_pdu()
        after = psutil.Process(gate).cpu_times()
        assert after.user + after.system - before.user - before.system < 1.0, "it spins"
        resource.prlimit(gate, resource.RLIMIT_NOFILE, (soft, hard))
        wire.sock.settimeout(15)
        assert wire.read_pdu()[0] == 2


@pytest.mark.attack("S6")
@pytest.mark.long(seconds=15)
def test_each_of_a_thousand_is_closed_within_ten_seconds(role: Role) -> None:
    wires = half_open(role.port, 1000, ("127.0.0.2", "127.0.0.3"))
    last = time.monotonic()
    for wire in wires:
        with pytest.raises(Closed):
            wire.exactly(1)
    assert time.monotonic() - last < DEFAULTS.association_timeout_s + 2
    status = role.fresh("receive.json")
    assert (status["open"], status["waiting"]) == (0, 0)
    assert "the peer stopped sending" in role.log() and "Traceback" not in role.log()
    assert descriptors_of(role.process.pid) < 50
    assert served(role.port, "127.0.0.2") < SERVED_S


WHAT_NEVER_BECOMES_A_CALL = {
    "nothing": b"",
    "five bytes": b"\1\0\0\0\0",
    "half a request": associate_rq(PROPOSED)[:100],
    "a request of 250 KB, half of it": struct.pack(">BBI", 1, 0, MAX_ASSOCIATE_BYTES) + bytes(30_000),
    "a request of 4 GB": struct.pack(">BBI", 1, 0, 0xFFFFFFFF),
    "another PDU": pdu(4, bytes(100)),
    "no DICOM": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.attack("S6")
@pytest.mark.attack("S8")
@pytest.mark.parametrize("said", [
    pytest.param(said, id=name, marks=[pytest.mark.long(seconds=4)] if name in ("five bytes", "nothing") else [])
    for name, said in WHAT_NEVER_BECOMES_A_CALL.items()])
def test_whatever_they_say_instead_of_calling(role: Role, said: bytes) -> None:
    wires = half_open(role.port, 600, ("127.0.0.2", "127.0.0.3"), said)
    for address in ("127.0.0.1", "127.0.0.2"):
        assert served(role.port, address) < SERVED_S
    assert descriptors_of(role.process.pid) < MAX_WAITING + 400
    for wire in wires:
        wire.sock.close()
    assert role.stop() == 0
    assert "Traceback" not in role.log()


@pytest.mark.attack("S8")
def test_while_they_keep_coming(role: Role) -> None:
    """A flood without end, from the honest peer's own address as well."""
    stop = threading.Event()
    came = [0, 0, 0]

    def flood(number: int, address: str) -> None:
        held: list[From] = []
        while not stop.is_set():
            try:
                held += half_open(role.port, 20, (address,))
                came[number] += 20
            except OSError:
                continue
            for wire in held[:-500]:
                wire.sock.close()
            del held[:-500]
        for wire in held:
            wire.sock.close()

    threads = [threading.Thread(target=flood, args=each) for each in enumerate(("127.0.0.2", "127.0.0.3", "127.0.0.2"))]
    for thread in threads:
        thread.start()
    try:
        until(lambda: sum(came) > 1000, 60)
        for address in ("127.0.0.1", "127.0.0.2") * 10:
            assert served(role.port, address) < SERVED_S
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert "Traceback" not in role.log()


def test_associations_are_still_capped_while_others_wait(start: Callable[..., Role]) -> None:
    role = start(max_associations=2, bind=["0.0.0.0"])
    wires = half_open(role.port, 50, ("127.0.0.2",))
    held = [From(role.port, "127.0.0.1"), From(role.port, "127.0.0.3")]
    for wire in held:
        wire.associate(PROPOSED)
    with From(role.port, "127.0.0.4") as third:
        third.send(associate_rq(PROPOSED))
        kind, body = third.read_pdu()
        assert (kind, body[1:4]) == (3, b"\2\3\2")
        assert third.wait_closed() is False
    assert role.fresh("receive.json")["open"] == 2
    for wire in held:
        assert wire.echo() == 0
        wire.release()
    for wire in wires:
        wire.sock.close()


@pytest.mark.attack("S8")
def test_a_burst_beyond_the_cap_is_accepted_up_to_it_and_the_rest_is_refused_without_a_reset(role: Role) -> None:
    wires = [From(role.port, "127.0.0.2") for _ in range(400)]
    for wire in wires:
        wire.send(associate_rq(PROPOSED))
    answers = [wire.read_pdu() for wire in wires]
    accepted = [wire for wire, (kind, _) in zip(wires, answers, strict=True) if kind == 2]
    assert len(accepted) == DEFAULTS.max_associations_per_address
    assert {body[1:4] for kind, body in answers if kind != 2} == {b"\2\3\2"}
    assert all(wire.echo() == 0 for wire in accepted[::25])
    assert served(role.port, "127.0.0.1") < SERVED_S
    for wire in wires:
        wire.sock.close()


LONG_REQUEST = associate_rq(b"".join(context(number, CT, *[EXPLICIT] * 30) for number in range(1, 256, 2)))


@pytest.mark.parametrize("children", [0, 1])
@pytest.mark.parametrize(("said", "piece"), [(associate_rq(PROPOSED), 1), (LONG_REQUEST, 7000)], ids=["short", "long"])
def test_a_call_in_pieces_is_a_call(start: Callable[..., Role], children: int, said: bytes, piece: int) -> None:
    role = start(children=children)
    with Wire(role.port) as wire:
        for begin in range(0, len(said), piece):
            wire.send(said[begin : begin + piece])
        assert wire.read_pdu()[0] == 2
        assert wire.store(1, "1.2.3", data_set("1.2.3", pixels=200_000)).status == 0
        wire.release()
    assert role.data_sets().keys() == {"1.2.3"}


def test_who_gives_way() -> None:
    crowd: Crowd[int] = Crowd()
    assert crowd.oldest() is None and crowd.oldest("a") is None
    for member, address in enumerate("abbcbc"):
        crowd.add(member, address)
    assert (crowd.oldest(), crowd.oldest("a"), crowd.oldest("c"), crowd.oldest("z")) == (1, 0, 3, None)
    assert [crowd.remove(member) for member in (1, 2, 2, 4)] == ["b", "b", None, "b"]
    assert crowd.oldest() == 3 and list(crowd) == [0, 3, 5] and len(crowd) == 3 and 1 not in crowd


class Room:
    """A waiting room over real sockets, turned by hand."""

    def __init__(self, low_water: bool) -> None:
        self.selector = selectors.DefaultSelector()
        self.tells = low_water
        self.full = False
        self.called: list[Newcomer] = []
        self.broke: list[str] = []
        self.stalled: list[str] = []
        self.room = WaitingRoom(self.selector, called=self._called, broke=self._broke,
                                stalled=self.stalled.append, low_water=low_water)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.peers: list[socket.socket] = []

    def _called(self, one: Newcomer) -> bool:
        if not self.full:
            self.called.append(one)
        return not self.full

    def _broke(self, one: Newcomer, error: PduError) -> None:
        self.broke.append(str(error))
        one.sock.close()

    def connect(self, said: bytes = b"", address: str = "192.0.2.7", seconds: float = 60, tls: bool = False) -> bool:
        """Whether it was let in."""
        peer = socket.create_connection(self._listener.getsockname())
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.settimeout(5)
        self.peers.append(peer)
        peer.sendall(said)
        limits = ReceiveSettings(association_timeout_s=seconds)
        return self.room.admit(self._listener.accept()[0], address, limits, tls=tls)

    def turn(self) -> None:
        self.room.tend(time.monotonic())
        for key, _ in self.selector.select(0.01):
            key.data()

    def idle(self) -> bool:
        """Whether nothing wakes the gate."""
        return not self.selector.select(0.05)

    def close(self) -> None:
        self.room.close()
        for sock in (self._listener, *self.peers, *(one.sock for one in self.called)):
            sock.close()
        assert not self.selector.get_map()
        self.selector.close()


@pytest.fixture(params=[True, False], ids=["low water mark", "by the clock"])
def room(request: pytest.FixtureRequest) -> Iterator[Room]:
    made = Room(request.param)
    yield made
    made.close()


def test_half_a_call_wakes_nobody_until_it_is_whole(room: Room) -> None:
    said = associate_rq(PROPOSED)
    assert room.connect(said[:1])
    assert room.idle() and len(room.room) == 1
    for begin, end in ((1, 6), (6, 50), (50, len(said) - 1)):
        room.peers[0].sendall(said[begin:end])
        for _ in range(3):
            room.turn()
        assert room.idle() and not room.called
    room.peers[0].sendall(said[-1:])
    until(lambda: room.turn() or room.called)
    assert room.called[0].sock.recv(100_000) == said and len(room.room) == 0
    room.peers[0].sendall(b"x")
    assert room.called[0].sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


def test_who_has_gone_is_forgotten(room: Room) -> None:
    assert room.connect()
    room.peers[0].close()
    until(lambda: room.turn() or not len(room.room))
    assert not room.called and not room.stalled


def test_who_has_gone_in_the_middle_is_forgotten_at_once_where_the_kernel_tells(room: Room) -> None:
    for number, said in enumerate((b"\1", associate_rq(PROPOSED)[:100])):
        assert room.connect(said, seconds=60)
        room.turn()
        room.peers[number].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, number))  # a reset, FIN
        room.peers[number].close()
    if room.tells:
        until(lambda: room.turn() or not len(room.room))
    assert not room.called and not room.stalled


def test_who_wakes_us_for_less_than_asked_for_waits_on(room: Room) -> None:
    """Some kernels ignore the low water mark, others pass it over where memory is short."""
    said = associate_rq(PROPOSED)
    assert room.connect(said[:40])
    room.turn()
    (one,) = room.room._crowd
    one.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
    for start in range(40, len(said), 60):
        room.peers[0].sendall(said[start : start + 60])
        room.turn()
    until(lambda: room.turn() or room.called)
    assert not room.stalled and not len(room.room)


def test_a_whole_call_counts_although_its_sender_has_closed(room: Room) -> None:
    assert room.connect()
    room.peers[0].sendall(associate_rq(PROPOSED))
    room.peers[0].close()
    until(lambda: room.turn() or room.called)


@pytest.mark.parametrize(("said", "tls", "called", "broke"), [
    (pdu(4, b"1234"), False, 0, 1), (struct.pack(">BBI", 1, 0, 300_000), False, 0, 1), (b"\4\0\0\0\0", False, 0, 0),
    (associate_rq(PROPOSED), False, 1, 0),
    (struct.pack(">BBI", 1, 0, MAX_ASSOCIATE_BYTES) + bytes(70_000), False, 1, 0),
    (b"\x16", True, 0, 0), (b"\x16\3\1\0\5\1\2\3\4", True, 0, 0), (b"\x16\3\1\0\5\1\2\3\4\5", True, 1, 0),
    (b"\1", True, 1, 0),
])
def test_what_is_a_call(room: Room, said: bytes, tls: bool, called: int, broke: int) -> None:
    assert room.connect(said, tls=tls)
    until(lambda: room.turn() or (len(room.called), len(room.broke)) == (called, broke))
    assert len(room.room) == 1 - called - broke


def test_who_has_called_and_is_not_taken_waits_on(room: Room) -> None:
    room.full = True
    assert room.connect(associate_rq(PROPOSED)) and room.connect(associate_rq(PROPOSED), seconds=0)
    room.turn()
    assert not room.called and room.idle() and len(room.room) == 1 and len(room.stalled) == 1
    room.full = False
    room.turn()
    assert len(room.called) == 1 and not len(room.room)


def test_time_is_up(room: Room) -> None:
    room.connect(b"\1", seconds=60, address="192.0.2.1")
    room.connect(b"\1", seconds=0, address="192.0.2.2")
    room.turn()
    assert room.stalled == ["192.0.2.2"] and len(room.room) == 1
    assert room.peers[1].recv(1) == b""
    room.room.close()
    assert room.peers[0].recv(100)[:1] == b"\7"


def test_the_newest_gets_in_and_the_fullest_address_gives_way(room: Room) -> None:
    for number in range(MAX_WAITING):
        assert room.connect(b"\1", address="192.0.2.9" if number % 2 else f"2001:db8::{number}")
    assert room.connect(address="192.0.2.1") and room.connect(address="192.0.2.1")
    assert len(room.room) == MAX_WAITING
    assert [room.peers[number].recv(1) for number in (1, 3)] == [b"", b""]
    room.peers[-1].sendall(associate_rq(PROPOSED))
    until(lambda: room.turn() or room.called)
