"""Connections that have not called yet: they wait with the gate, in no process and no thread, and no cap counts them.

One has called when its A-ASSOCIATE-RQ (over TLS: its first record) lies whole in the kernel's buffer, where it is
looked at and left for the receive process. However many come, the newest one gets in: beyond MAX_WAITING the oldest of
the address that has most of them is closed. Imports pdu and settings. Changes when a connection has to show more.
"""

from __future__ import annotations

import select
import selectors
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from interface.dimse import pdu
from interface.dimse.pdu import PduError
from interface.dimse.settings import ReceiveSettings

#: Or as many as may have associations, if those are more. A descriptor each, and what the kernel keeps of 64 KB; never
#: more than half the descriptors that this process may open.
MAX_WAITING: Final = 512
_MAX_WAITING_WINDOWS: Final = 128  #: it can watch no more than 512 sockets in all
#: So much of a longer first PDU will do: the kernel promises no more room.
_ENOUGH_BYTES: Final = 64 * 1024
_PDU: Final = struct.Struct(">BxI")
_TLS_RECORD: Final = struct.Struct(">BxxH")
_TLS_HANDSHAKE: Final = 22

Member = TypeVar("Member", bound=Hashable)


class Crowd(Generic[Member]):
    """Who waits, by address, in the order in which they came."""

    def __init__(self) -> None:
        self._addresses: dict[Member, str] = {}
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._addresses)

    def __contains__(self, member: Member) -> bool:
        return member in self._addresses

    def __iter__(self) -> Iterator[Member]:
        return iter(self._addresses)

    def add(self, member: Member, address: str) -> None:
        """Let `member` wait behind all others."""
        self._addresses[member] = address
        self._counts[address] += 1

    def remove(self, member: Member) -> str | None:
        """Return the address of `member`, which waits no longer; None if it did not wait."""
        address = self._addresses.pop(member, None)
        if address is not None:
            self._counts[address] -= 1
            if not self._counts[address]:
                del self._counts[address]
        return address

    def oldest(self, address: str = "") -> Member | None:
        """Return who has waited longest at `address` ("": at the one that has most of them), None if nobody waits."""
        if not self._addresses:
            return None
        where = address or max(self._counts, key=self._counts.__getitem__)
        return next((member for member, at in self._addresses.items() if at == where), None)


@dataclass(slots=True, eq=False)
class Newcomer:
    """A connection that waits; `deadline` by the monotonic clock, `low_water` is what the kernel wakes us for."""

    sock: socket.socket
    address: str
    tls: bool
    deadline: float
    low_water: int = 1


class WaitingRoom:
    """The connections of a gate before their call, looked at from its loop; they never block.

    `called` gets each that has called, `broke` each whose first PDU can be none (with the PduError), `stalled` the
    address of one whose time was over. The first two have the socket from then on, unless `called` returns False: then
    it waits on, and is asked for again by the clock. `low_water` False is for a system that cannot be told for how many
    bytes to wake us: what has begun to call is looked at by the clock there.
    """

    def __init__(
        self, selector: selectors.BaseSelector, *, called: Callable[[Newcomer], bool],
        broke: Callable[[Newcomer, PduError], None], stalled: Callable[[str], None],
        low_water: bool = sys.platform == "linux",
    ) -> None:
        self._selector = selector
        self._called, self._broke, self._stalled = called, broke, stalled
        self._low_water = low_water
        self._crowd: Crowd[Newcomer] = Crowd()
        self._by_clock: dict[Newcomer, None] = {}
        self._most_descriptors = _descriptor_limit() // 2

    def __len__(self) -> int:
        return len(self._crowd)

    def admit(self, sock: socket.socket, address: str, limits: ReceiveSettings, *, tls: bool) -> bool:
        """Let `sock` wait, no longer than `limits` say; False if its peer has gone without a byte: closed then."""
        sock.setblocking(False)
        one = Newcomer(sock, address, tls, time.monotonic() + limits.association_timeout_s)
        most = _MAX_WAITING_WINDOWS if sys.platform == "win32" else max(MAX_WAITING, limits.max_associations)
        if len(self._crowd) >= min(most, self._most_descriptors):
            self.make_room()
        self._crowd.add(one, address)
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._look(one))
        return self._look(one)

    def make_room(self) -> bool:
        """Close the oldest of the address that has most of them; False if nobody waits."""
        if oldest := self._crowd.oldest():
            self._dismiss(oldest)
        return oldest is not None

    def _look(self, one: Newcomer) -> bool:
        """See whether `one` has called; False if it has gone."""
        if one not in self._crowd:  # made room for another one since the selector saw it
            return True
        try:
            waiting = one.sock.recv(_ENOUGH_BYTES, socket.MSG_PEEK)
            wanted = _first_record(waiting) if one.tls else _first_pdu(waiting)
        except BlockingIOError:
            return True
        except OSError:
            waiting, wanted = b"", 1
        except PduError as error:
            self._leave(one)
            self._broke(one, error)
            return True
        if len(waiting) >= wanted:
            self._leave(one)
            if not self._called(one):
                self._crowd.add(one, one.address)
                self._by_clock[one] = None
        elif not waiting or _has_closed(one.sock):
            self._dismiss(one)
            return bool(waiting)
        elif one in self._by_clock:
            return True
        elif self._low_water and len(waiting) >= one.low_water:
            self._wake_for(one, wanted)
        else:  # it may also be woken for less than asked for: where memory is short, or the kernel ignores the wish
            self._by_clock[one] = None
            self._selector.unregister(one.sock)
        return True

    def looks_by_clock(self) -> bool:
        """Return whether somebody waits of whom only tend() learns more."""
        return bool(self._by_clock)

    def _wake_for(self, one: Newcomer, count: int) -> None:
        one.low_water = count
        one.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    def _leave(self, one: Newcomer) -> socket.socket:
        self._crowd.remove(one)
        if one in self._by_clock:
            del self._by_clock[one]
        else:
            self._selector.unregister(one.sock)
        if one.low_water > 1:
            self._wake_for(one, 1)
        return one.sock

    def tend(self, now: float) -> None:
        """Look at those that go by the clock, and close those whose time is over."""
        for one in list(self._by_clock):
            self._look(one)
        for one in [one for one in self._crowd if one.deadline <= now]:
            self._dismiss(one)
            self._stalled(one.address)

    def close(self) -> None:
        """Abort all."""
        for one in list(self._crowd):
            self._dismiss(one, b"" if one.tls else pdu.build_abort(pdu.ABORT_UNSPECIFIED))

    def _dismiss(self, one: Newcomer, last_words: bytes = b"") -> None:
        """Close it; without a word, as PS3.8 9.2 (AA-2) has it before there is an association."""
        sock = self._leave(one)
        try:
            if last_words:
                sock.send(last_words)
            sock.recv(_ENOUGH_BYTES)  # unread bytes would turn closing into a reset
        except OSError:
            pass
        sock.close()


def _descriptor_limit() -> int:
    """Return how many descriptors this process may open."""
    if sys.platform == "win32":
        return 2 * _MAX_WAITING_WINDOWS
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _has_closed(sock: socket.socket) -> bool:
    """Return whether the peer will send no more, where the system tells without reading."""
    if sys.platform != "linux":
        return False
    look = select.poll()
    look.register(sock, select.POLLRDHUP)
    return bool(look.poll(0))


def _first_pdu(begun: bytes) -> int:
    """Return how many bytes an A-ASSOCIATE-RQ that has `begun` takes, or are enough of it; raises PduError."""
    if len(begun) < _PDU.size:
        return _PDU.size
    kind, length = _PDU.unpack_from(begun)
    pdu.check_first(kind, length)
    return min(_PDU.size + int(length), _ENOUGH_BYTES)


def _first_record(begun: bytes) -> int:
    """Return the same for the first record over TLS; what is no handshake the receive process may refuse at once."""
    if begun[:1] not in (b"", bytes((_TLS_HANDSHAKE,))):
        return 1
    if len(begun) < _TLS_RECORD.size:
        return _TLS_RECORD.size
    return min(_TLS_RECORD.size + int(_TLS_RECORD.unpack_from(begun)[1]), _ENOUGH_BYTES)
