"""Addresses of peers: the one form in which they are compared, how they are written with a port, and reading both back.

Layer 0, imports nothing of ours. The receiver writes with it, decisions on callers and rules read with it. Changes when
an address is written in another way.
"""

from __future__ import annotations

import ipaddress


def parse_address(text: str) -> str:
    """Return an IP address, alone or as ``[address]``, in the form that peers are compared in; raises ValueError.

    An IPv4 address inside an IPv6 one (``::ffff:192.0.2.7``) is the IPv4 address. A zone (``%eth0``) is left out: it
    is this machine's own name for a line, and no accepted connection tells it.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    address = ipaddress.ip_address(bare.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def canonical(text: str) -> str:
    """Return an IP address as parse_address does, and any other text as it is."""
    try:
        return parse_address(text)
    except ValueError:
        return text


def host_of(peer: str) -> str:
    """Return the host of ``host:port``, ``[host]:port`` or a host alone; an IP address as parse_address does."""
    if peer.startswith("["):
        return canonical(peer[1:].partition("]")[0])
    return canonical(peer.partition(":")[0] if peer.count(":") == 1 else peer)


def with_port(host: str, port: int) -> str:
    """Return ``host:port``, an IPv6 address in brackets: what host_of reads back."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
