"""How much of the platform one lane may use: FHIR calls, polls among them, pushes in flight, bytes per second.

One governor for all workers of a lane: what one of them is told (429, Retry-After) holds for all. `client` asks before
each request. Imports interface.outbound and internal.errors. Changes when the platform's limits become known or a lane
gets another brake.
Source: satusehat facts 1 (no limits are published); RFC 6585 4.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from interface.outbound import CHUNK_BYTES, LARGE_CHUNK_BYTES
from internal.errors import Transient

POLL_SHARE = 0.2
BURST_SHARE = 0.25
#: A worker waits this long by itself; for more, its lane is paused, which people see.
MAX_WAIT_S = 10.0
FIRST_PAUSE_S = 1.0
MIN_BYTES_PER_S = 64 * 1024
BYTES_PER_S_EACH = 128 * 1024
MAX_PAUSE_S = 900.0
#: Answers to requests that had left before the last decrease say nothing new.
SAME_NEWS_S = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a lane may use. `fhir_per_minute` (else at least 20) and `bytes_per_s` 0: no limit; `pushes`: in flight."""

    fhir_per_minute: int = 120
    pushes: int = 16
    bytes_per_s: int = 0


class _Bucket:
    """Tokens that come back at a steady rate: at most `burst` at once; may go below zero for what was used anyway."""

    def __init__(self, per_s: float, burst: float, now_s: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._level = burst
        self._at_s = now_s

    def level(self, now_s: float) -> float:
        """Return how many there are now."""
        self._level = min(self._burst, self._level + max(0.0, now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        return self._level

    def wait_s(self, count: float, now_s: float) -> float:
        """Return how long until `count` are there, in seconds."""
        return max(0.0, (count - self.level(now_s)) / self._per_s)

    def take(self, count: float, now_s: float) -> float:
        """Take `count`, on credit where there are too few, and return how long until they are ours, in seconds."""
        wait_s = self.wait_s(count, now_s)
        self._level -= count
        return wait_s


class Governor:
    """The limits of one lane at work; thread-safe. Waits are real time, never longer than MAX_WAIT_S each."""

    def __init__(
        self, limits: Limits, monotonic_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sleep = sleep
        self._monotonic_s = monotonic_s
        self._changed = threading.Condition()
        now_s = monotonic_s()
        per_minute = limits.fhir_per_minute
        # Burst and refill together never exceed the limit in any minute.
        burst = per_minute * BURST_SHARE
        self._calls = _Bucket((per_minute - burst) / 60, burst, now_s) if per_minute else None
        self._polls = _Bucket((per_minute - burst) * POLL_SHARE / 60, burst * POLL_SHARE, now_s) if per_minute else None
        self._pushes = limits.pushes
        self._bytes: _Bucket | None = None
        self._most = self._window = float(limits.pushes)
        self.limit_bandwidth(limits.bytes_per_s)
        self._in_flight = 0
        self._passed = 0
        self._blocked_until_s = now_s
        self._pause_s = FIRST_PAUSE_S
        self._decreased_s = now_s - SAME_NEWS_S
        self._throttled = 0

    def limit_bandwidth(self, bytes_per_s: int) -> None:
        """Use at most so many bytes per second from now on, those in flight included; 0: no limit."""
        bandwidth = max(bytes_per_s, MIN_BYTES_PER_S) if bytes_per_s else 0
        # A narrow line carries few pushes well rather than many badly.
        most = float(min(self._pushes, max(1, bandwidth // BYTES_PER_S_EACH)) if bandwidth else self._pushes)
        with self._changed:
            self._bytes = _Bucket(bandwidth, bandwidth / 4, self._monotonic_s()) if bandwidth else None
            self._window = most if self._window >= self._most else min(self._window, most)
            self._most = most
            self._changed.notify_all()

    def admit_call(self, *, poll: bool = False) -> None:
        """Wait until a FHIR request may leave; `poll`: it only looks whether an order has come meanwhile.

        Raises Transient, to pause the lane, when that would take too long.
        """
        with self._changed:
            now_s = self._monotonic_s()
            wait_s = max(0.0, self._blocked_until_s - now_s)
            if wait_s > MAX_WAIT_S:
                raise _busy("the platform asked for a pause", "http-429", wait_s)
            if self._calls is not None:
                budget_s = self._calls.wait_s(1, now_s)
                if budget_s > MAX_WAIT_S:
                    raise _busy("the FHIR calls of this minute are used up", "fhir-budget", budget_s)
                wait_s = max(wait_s, self._calls.take(1, now_s))
            if poll and self._polls is not None:
                self._polls.take(1, now_s)
        if wait_s > 0:
            self._sleep(wait_s)

    def may_poll(self) -> bool:
        """Return whether the waiting room may ask now: its share of the FHIR calls, and no pause."""
        with self._changed:
            now_s = self._monotonic_s()
            return self._blocked_until_s <= now_s and (self._polls is None or self._polls.level(now_s) >= 1)

    @contextmanager
    def push_slot(self) -> Iterator[None]:
        """Hold one of the places for pushes; waits for it, and for the end of a pause.

        Raises Transient, to pause the lane, when a pause is longer than MAX_WAIT_S.
        """
        with self._changed:
            while (wait_s := self._push_wait_s()) != 0.0:
                self._changed.wait(wait_s)
            self._in_flight += 1
        try:
            yield
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()

    def _push_wait_s(self) -> float | None:
        """Return how long a push has to wait, None: until another one ends. The lock is held."""
        blocked_s = self._blocked_until_s - self._monotonic_s()
        if blocked_s > MAX_WAIT_S:
            raise _busy("the platform asked for a pause", "http-429", blocked_s)
        if blocked_s > 0:
            return blocked_s
        return None if self._in_flight >= int(self._window) else 0.0

    @property
    def chunk_bytes(self) -> int:
        """How many bytes of a push are to leave at a time: few where they are paced."""
        return LARGE_CHUNK_BYTES if self._bytes is None else CHUNK_BYTES

    def pace(self, count: int) -> None:
        """Account for `count` bytes that leave now and wait as the bandwidth limit asks."""
        if self._bytes is None:
            return
        with self._changed:
            wait_s = self._bytes.take(count, self._monotonic_s()) if self._bytes is not None else 0.0
        if wait_s > 0:
            self._sleep(wait_s)

    def passed(self) -> None:
        """A push was answered, and not with 429: one more place for each full window of such answers."""
        with self._changed:
            self._pause_s = FIRST_PAUSE_S
            if self._window < self._most:
                self._passed += 1
                if self._passed >= self._window:
                    self._passed = 0
                    self._window = min(self._window + 1, self._most)
                    self._changed.notify_all()

    def throttled(self, retry_after_s: float | None) -> float:
        """The platform answered 429: halve the places, stop everybody for as long as it says, and return that.

        Without a word of the platform each pause is twice the last one.
        """
        with self._changed:
            now_s = self._monotonic_s()
            self._throttled += 1
            if now_s - self._decreased_s >= SAME_NEWS_S:
                self._window = max(1.0, self._window / 2)
                self._passed = 0
                self._decreased_s = now_s
                pause_s = self._pause_s if retry_after_s is None else retry_after_s
                self._pause_s = min(self._pause_s * 2, MAX_PAUSE_S)
            else:
                pause_s = retry_after_s or 0.0
            self._blocked_until_s = max(self._blocked_until_s, now_s + min(pause_s, MAX_PAUSE_S))
            return max(0.0, self._blocked_until_s - now_s)

    def report(self) -> dict[str, int]:
        """Return places for pushes, pushes in flight and 429 answers so far, for the status file."""
        with self._changed:
            return {"push_window": int(self._window), "pushes_in_flight": self._in_flight,
                    "throttled": self._throttled}


def _busy(text: str, code: str, wait_s: float) -> Transient:
    return Transient(f"{text}: going on in {wait_s:.0f} s", code=code, retry_after_s=wait_s)
