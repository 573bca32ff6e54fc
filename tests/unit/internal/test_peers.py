"""Addresses of peers: whatever way they are written in, one form is compared."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interface.cli_devices import parse_caller
from internal.config.values import split_commitment_caller
from internal.peers import canonical, host_of, parse_address, with_port
from internal.settings_rows import name_of

#: Both families, and IPv4 inside IPv6; the latter are compared as IPv4.
ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6),
                      st.ip_addresses(v=4).map(lambda address: ipaddress.IPv6Address(f"::ffff:{address}")))


@pytest.mark.parametrize(("peer", "host"), [
    ("192.0.2.7:104", "192.0.2.7"), ("192.0.2.7", "192.0.2.7"),
    ("[2001:db8::7]:5000", "2001:db8::7"), ("[2001:db8::7]", "2001:db8::7"), ("2001:db8::7", "2001:db8::7"),
    ("2001:DB8:0:0::7", "2001:db8::7"), ("::1", "::1"), ("::1:104", "::1:104"), ("[::1]:104", "::1"),
    ("fe80::1%eth0", "fe80::1"), ("[fe80::1%eth0]:104", "fe80::1"),
    ("::ffff:10.0.0.9", "10.0.0.9"), ("[::ffff:10.0.0.9]:104", "10.0.0.9"), ("::ffff:a00:9", "10.0.0.9"),
    ("", ""), ("ward:104", "ward"), ("others", "others"), ("[ward]:104", "ward"), ("[", ""), ("1:2:3", "1:2:3"),
])
def test_the_host_of_a_peer(peer: str, host: str) -> None:
    assert host_of(peer) == host


@given(ADDRESSES, st.integers(0, 65535))
def test_what_is_written_is_read_back(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    host = parse_address(str(address))
    assert host_of(with_port(host, port)) == host_of(with_port(str(address), port)) == host_of(str(address)) == host
    assert parse_address(host) == parse_address(f"[{host}]") == canonical(f"[{address}]") == host
    assert split_commitment_caller(f"CT1@{with_port(host, 104)}") == ("CT1", host, 104)


@given(st.text(max_size=40))
def test_any_text_has_a_host_and_only_addresses_are_changed(text: str) -> None:
    assert isinstance(host_of(text), str)
    try:
        parse_address(text)
    except ValueError:
        assert canonical(text) == text


@pytest.mark.parametrize(("text", "caller"), [
    ("CT1@2001:db8::7", ("CT1", "2001:db8::7")), ("CT1@[2001:DB8::7]", ("CT1", "2001:db8::7")),
    ("CT1@192.0.2.7", ("CT1", "192.0.2.7")), ("CT1@::ffff:192.0.2.7", ("CT1", "192.0.2.7")),
    ("CT1@fe80::7%eth0", ("CT1", "fe80::7")), ("CT@1@::1", ("CT@1", "::1")),
    ("CT1", ("CT1", "")), ("CT1@WARD", ("CT1@WARD", "")), ("CT1@[WARD]", ("CT1@[WARD]", "")), ("@::1", ("@::1", "")),
])
def test_a_caller_as_people_write_it(text: str, caller: tuple[str, str]) -> None:
    assert parse_caller(text) == caller


def test_a_device_has_one_name_among_the_settings() -> None:
    assert {name_of("device", f"CT1@{address}") for address in ("2001:db8::7", "[2001:DB8::7]", "2001:db8:0::7")} == {
        "CT1@2001:db8::7"}
    assert [name_of("device", name) for name in ("CT1@", "CT1", "CT1@ward 3", "CT1@192.0.2.7:104")] == [
        "CT1@", "CT1", "CT1@ward 3", "CT1@192.0.2.7:104"]
    assert name_of("alias", "A@[::1]") == "A@[::1]"
