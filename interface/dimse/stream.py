"""The socket of one association: one buffer that PDUs are parsed in, and a deadline for every byte waited for.

Imports nothing of ours. Changes when the way bytes are read from or written to a peer changes.
"""

from __future__ import annotations

import mmap
import socket
import sys
import time
from collections.abc import Callable

#: At most so much at once: this part goes to the disk while the next one comes in, and little is left after the last.
_RECEIVE_BYTES = 192 * 1024
#: So little at the buffer's begin stays where it is: to hand it on by itself would cost a system call of its own.
_KEPT_BYTES = 64 * 1024
#: What a connection that nobody knows yet may take, and each of a crowd.
LITTLE_BYTES = 96 * 1024
_LINGER_S = 2.0
_USER_TIMEOUT_MS = 60_000
_SEND_TIMEOUT_S = 60.0
#: A PDU has to end also where the rate has no floor.
_SLOWEST_BYTES_PER_S = 1024
#: Of an anonymous mapping that is shared, as Python makes it: MADV_DONTNEED would leave the memory to it.
_GIVE_BACK: int | None = getattr(mmap, "MADV_REMOVE", None)
_NEVER = float("inf")


class PeerClosed(Exception):
    """The peer closed or reset the connection."""


class PeerStalled(Exception):
    """The peer did not send in time."""


class Stream:
    """A socket with one receive buffer of `most_bytes`; used by one thread, apart from wake().

    Of the buffer so much is used, and takes memory, as use() says; at first LITTLE_BYTES. `before_refill` is called
    before buffered bytes may be overwritten: whoever keeps views of them must let go then.
    """

    def __init__(self, sock: socket.socket, most_bytes: int) -> None:
        self._sock = sock
        self._size = min(LITTLE_BYTES, most_bytes)
        self._most_bytes = most_bytes
        self._pages = mmap.mmap(-1, most_bytes)  # unlike a bytearray, not resident before it is used
        #: The buffer; bytes head..tail are received and not consumed.
        self.view = memoryview(self._pages)
        self.head = 0  #: first byte not yet consumed
        self.tail = 0  #: end of the bytes received
        self.before_refill: Callable[[], None] = nothing
        self._deadline = self._pdu_deadline = _NEVER
        self._window_s = 0.0
        self._bytes_per_s = 0
        self._floor_bytes = 0
        self._window_bytes = 0
        self.received_bytes = 0
        configure(sock)

    def allow(self, seconds: float) -> None:
        """Everything from now on has to arrive within `seconds`."""
        self._deadline = time.monotonic() + seconds
        self._window_s = 0.0

    def expect_rate(self, window_s: float, bytes_per_s: int) -> None:
        """From now on each window of `window_s` seconds has to bring `bytes_per_s` on average, at least one byte."""
        self._deadline = time.monotonic() + window_s
        self._window_s = window_s
        self._bytes_per_s = bytes_per_s
        self._floor_bytes = max(int(window_s * bytes_per_s), 1)
        self._window_bytes = 0

    def begin_pdu(self, left_bytes: int) -> None:
        """Until end_pdu(): the PDU at head has the time that its bytes still to come take at the rate, and a window."""
        takes_s = left_bytes / (self._bytes_per_s or _SLOWEST_BYTES_PER_S)
        self._pdu_deadline = time.monotonic() + self._window_s + takes_s

    def end_pdu(self) -> None:
        """The PDU that was begun is here."""
        self._pdu_deadline = _NEVER

    def use(self, size: int) -> None:
        """From now on receive into the first `size` bytes of the buffer, as soon as what waits there allows it.

        Views of what was received do not stay valid.
        """
        left = self.tail - self.head
        if size == self._size or left > size:
            return
        if self.tail > size:
            self._move_to_front()
        if size < self._size and _GIVE_BACK is not None:
            begin = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
            self._pages.madvise(_GIVE_BACK, begin, self._most_bytes - begin)
        self._size = size

    def _move_to_front(self) -> None:
        left = self.tail - self.head
        self.view[:left] = bytes(self.view[self.head : self.tail])
        self.head, self.tail = 0, left

    def need(self, count: int) -> None:
        """Return when at least `count` bytes (at most all the buffer) wait; raises PeerClosed, PeerStalled."""
        self._size = max(self._size, count)
        while self.tail - self.head < count:
            self.receive(count)

    def receive(self, count: int = 1) -> None:
        """Receive once, making room for `count` bytes from head on; raises PeerClosed, PeerStalled."""
        if self.head == self.tail:
            if self.tail > _KEPT_BYTES or self.tail == self._size:
                self._let_go()
                self.head = self.tail = 0
        elif self.head + count > self._size or self.tail == self._size:
            self._let_go()
            self._move_to_front()
        while not self._receive_some():
            pass

    def _let_go(self) -> None:
        began_s = time.monotonic()
        self.before_refill()
        self._pdu_deadline += time.monotonic() - began_s  # a slow disk is no fault of the peer

    def _receive_some(self) -> bool:
        """Return whether bytes came; False when a rate window ended well and another begins."""
        left = min(self._deadline, self._pdu_deadline) - time.monotonic()
        if left <= 0:
            self._next_window()
            return False
        self._sock.settimeout(left)
        try:
            count = self._sock.recv_into(self.view[self.tail : min(self.tail + _RECEIVE_BYTES, self._size)])
        except TimeoutError:
            return False
        except OSError:
            raise PeerClosed from None
        if count == 0:
            raise PeerClosed
        if sys.platform == "linux":
            # A peer with Nagle's algorithm on (DCMTK, pynetdicom, many modalities) keeps the data set back until the
            # command before it is acknowledged, which the system's delayed acknowledgement puts off by 40 ms per image.
            try:
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            except OSError:
                pass  # closed meanwhile: the next receive() tells
        self.tail += count
        self._window_bytes += count
        self.received_bytes += count
        return True

    def _next_window(self) -> None:
        if not self._window_s or self._window_bytes < self._floor_bytes or self._pdu_deadline <= self._deadline:
            raise PeerStalled
        self._window_bytes = 0
        self._deadline = time.monotonic() + self._window_s

    def send(self, data: bytes) -> None:
        """Send all of `data`; raises PeerClosed if the peer is gone or does not take it within a minute."""
        self._sock.settimeout(_SEND_TIMEOUT_S)
        try:
            self._sock.sendall(data)
        except OSError:
            raise PeerClosed from None

    def wake(self) -> None:
        """Make a receive() that waits in another thread raise PeerClosed; sending still works."""
        try:
            socket.socket.shutdown(self._sock, socket.SHUT_RD)  # SSLSocket.shutdown would end encryption as well
        except OSError:
            pass

    def close(self, last_words: bytes = b"") -> None:
        """Send `last_words` if any and let the peer close first, so that it can read them; then close.

        Source: PS3.8 9.2 (Sta13). Closing while bytes of the peer are unread would reset the connection.
        """
        try:
            if last_words:
                self._sock.settimeout(_LINGER_S)
                self._sock.sendall(last_words)
                self._drain()
        except OSError:
            pass
        self._sock.close()

    def _drain(self) -> None:
        deadline = time.monotonic() + _LINGER_S
        while (left := deadline - time.monotonic()) > 0:
            self._sock.settimeout(left)
            if not self._sock.recv_into(self.view[:LITTLE_BYTES]):
                return


def nothing() -> None:
    """Stand in for `before_refill` while nobody keeps views of the buffer."""


def configure(sock: socket.socket) -> None:
    """Answer without delay, and notice a peer that vanished without a word."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
    except OSError:
        pass  # not a TCP socket (a test), or already reset: reading will tell
