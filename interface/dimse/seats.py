"""The connections that count towards the caps: those that have called, until their receive process says they ended.

Over TLS a call is no more than a first record; until such a connection has an association it gives way to a newer one
when a cap is reached. Imports waiting room and settings. Changes when the caps count in another way.
"""

from __future__ import annotations

import socket
from collections import Counter
from typing import Final

from interface.dimse.settings import ReceiveSettings
from interface.dimse.waiting_room import Crowd

#: So many may have been closed here and still be on their way out of a receive process: descriptors stay bounded.
_MAX_LEAVING: Final = 256


class Seats:
    """Who has one, by the gate's token of the connection; used by the gate's thread only."""

    def __init__(self) -> None:
        self._addresses: dict[int, str] = {}
        self._counts: Counter[str] = Counter()
        self._unproven: Crowd[int] = Crowd()
        self._copies: dict[int, socket.socket] = {}
        self._leaving: set[int] = set()

    def __len__(self) -> int:
        return len(self._addresses)

    def full(self, address: str, limits: ReceiveSettings) -> str:
        """Return which cap a further connection of `address` would exceed, "" if none."""
        if len(self._addresses) >= limits.max_associations:
            return "too many associations in all"
        if self._counts[address] >= limits.max_associations_per_address:
            return "too many associations from this address"
        return ""

    def take(self, token: int, address: str) -> None:
        """Count a connection."""
        self._addresses[token] = address
        self._counts[address] += 1

    def watch(self, token: int, sock: socket.socket) -> None:
        """Let a counted connection give way to newer ones until begun(); `sock`, a copy of its socket, is ours then."""
        self._unproven.add(token, self._addresses[token])
        self._copies[token] = sock

    def begun(self, token: int) -> None:
        """Keep it from now on: it has an association."""
        self._unproven.remove(token)
        if copy := self._copies.pop(token, None):
            copy.close()

    def ended(self, token: int) -> None:
        """Count it no longer; nothing if it has given way before."""
        self.begun(token)
        self._leaving.discard(token)
        address = self._addresses.pop(token, None)
        if address is not None:
            self._counts[address] -= 1
            if not self._counts[address]:
                del self._counts[address]

    def next_to_go(self, address: str, limits: ReceiveSettings) -> int | None:
        """Return which connection may give way to one of `address`, None if all have associations.

        It is the oldest of this address if that has too many, else of the address that has most of them. One whose word
        that it has begun is on its way to us may be among them: its peer finds it closed and calls again.
        """
        full_here = self._counts[address] >= limits.max_associations_per_address
        return self._unproven.oldest(address if full_here else "")

    def give_way(self, token: int) -> bool:
        """Close it and count it no longer; False if too many are on their way out, which takes a moment."""
        if len(self._leaving) >= _MAX_LEAVING:
            return False
        try:
            self._copies[token].shutdown(socket.SHUT_RDWR)  # reaches the receive process, which closes its own
        except OSError:
            pass  # reset by the peer
        self.ended(token)
        self._leaving.add(token)
        return True

    def close(self) -> None:
        """Let go of the copies: nobody has to give way any more."""
        for token in list(self._copies):
            self.begun(token)
