"""Connections over TLS that never become an association give way to those that do."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from interface.dimse.settings import ReceiveSettings
from tests.contract.dimse.role import Role, until
from tests.contract.dimse.test_tls import SecureWire, pair, tls, tls_port, trusting  # noqa: F401 - fixtures
from tests.contract.dimse.test_waiting_room import ATTACKERS, From, descriptors, descriptors_of, served  # noqa: F401 - fixture
from tests.contract.dimse.wire import Closed

DEFAULTS = ReceiveSettings()
Tls = Callable[..., Role]


def hello() -> bytes:
    """A whole ClientHello, after which nothing comes."""
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="router.example").do_handshake()
    return outgoing.read()


def secured(role: Role, address: str, certificate: Path) -> SecureWire:
    wire = SecureWire.__new__(SecureWire)
    wire.sock = trusting(certificate).wrap_socket(From(tls_port(role), address).sock, server_hostname="router.example")
    return wire


def served_over_tls(role: Role, address: str, certificate: Path) -> None:
    with secured(role, address, certificate) as wire:
        wire.associate()
        assert wire.echo() == 0


@pytest.mark.attack("S9")
@pytest.mark.parametrize("children", [DEFAULTS.children, pytest.param(0, marks=pytest.mark.long(seconds=5))])
@pytest.mark.parametrize("addresses", ATTACKERS, ids=["one address", "two addresses"])
def test_handshakes_that_stop_half_way_keep_nobody_out(
    tls: Tls, pair: tuple[Path, Path], addresses: tuple[str, ...], children: int  # noqa: F811
) -> None:
    role = tls(children=children, bind=["0.0.0.0"])
    said, sockets = hello(), []
    for number in range(600):
        sockets.append(From(tls_port(role), addresses[number % len(addresses)]))
        sockets[-1].send(said)
    for address in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
        served_over_tls(role, address, pair[1])
        served(role.port, address)
    status = role.fresh("receive.json")
    assert status["counters"].get("refused_connections", 0) == 0
    assert status["open"] <= DEFAULTS.max_associations
    for pid in (role.process.pid, *(role.children() if children else ())):
        assert descriptors_of(pid) < 3 * (DEFAULTS.max_associations + 256) + 100  # the gate's, the process's, its epoll
    for one in sockets:
        one.sock.close()
    until(lambda: role.fresh("receive.json")["open"] == 0)
    assert "Traceback" not in role.log()


@pytest.mark.attack("S9")
def test_who_has_an_association_over_tls_is_kept_and_who_has_none_is_not(
    tls: Tls, pair: tuple[Path, Path]  # noqa: F811
) -> None:
    role = tls(max_associations=3, bind=["0.0.0.0"])
    with secured(role, "127.0.0.1", pair[1]) as kept, secured(role, "127.0.0.2", pair[1]) as older:
        kept.associate()
        with secured(role, "127.0.0.2", pair[1]) as newer, secured(role, "127.0.0.3", pair[1]) as third:
            third.associate()
            with pytest.raises(Closed):
                older.exactly(1)
            newer.associate()
            with pytest.raises((OSError, Closed)), secured(role, "127.0.0.4", pair[1]) as fourth:  # all three are taken
                fourth.associate()
            assert [wire.echo() for wire in (kept, newer, third)] == [0, 0, 0]
    until(lambda: role.fresh("receive.json")["open"] == 0)
    served_over_tls(role, "127.0.0.4", pair[1])


@pytest.mark.attack("S9")
def test_a_receive_process_that_dies_leaves_no_connection_open(tls: Tls) -> None:  # noqa: F811
    """The gate lets go of its copies: the peer sees the end, and the place is free."""
    role = tls()
    with socket.create_connection(("127.0.0.1", tls_port(role)), timeout=15) as sock:
        sock.sendall(hello())
        assert sock.recv(1), "the handshake goes on"
        os.kill(role.children()[0], signal.SIGKILL)
        try:
            while sock.recv(65536):
                pass
        except ConnectionError:
            pass
    until(lambda: role.fresh("receive.json")["open"] == 0)


@pytest.mark.attack("S9")
def test_who_has_reset_the_connection_before_it_is_looked_at_leaves_no_seat_behind(
    tls: Tls, pair: tuple[Path, Path]  # noqa: F811
) -> None:
    role = tls(children=2, bind=["0.0.0.0"])
    children = role.children()
    for pid in children:
        os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(30):
            one = From(tls_port(role), "127.0.0.2")
            one.send(hello())
            until(lambda: role.fresh("receive.json")["open"] > 0)
            one.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.sock.close()
    finally:
        for pid in children:
            os.kill(pid, signal.SIGCONT)
    until(lambda: role.fresh("receive.json")["open"] == 0)
    served_over_tls(role, "127.0.0.2", pair[1])
