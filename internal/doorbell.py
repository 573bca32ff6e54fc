"""When new/ is looked through: soon after a lone image, every 2 s while many come in, every 5 s whatever happens.

Layer 1, pure: the caller brings the doorbell's value and the time. A pass over new/ costs commits of the disk and the
processor that receiving needs, so that a burst comes in faster when it is gathered: one of up to two seconds, a series
of a thousand images, is indexed right after it. Whoever waits for the index waits two seconds at most, one more where
it was quiet before. Changes when the index should follow sooner or leave receiving more room.
"""

from __future__ import annotations

GATHER_S = 2.0
#: Silence after which a burst is over. Between two images of one association there are a few milliseconds.
LULL_S = 0.1
FULL_SCAN_S = 5.0
_LISTEN_S = 0.05
#: How often the bell is looked at once nothing has rung for _QUIET_S: waking up is most of what idling costs.
_LISTEN_QUIET_S = 1.0
_QUIET_S = 5.0


class Doorbell:
    """Watches one value that changes with every name that goes in or out; times in seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._value: int | None = None
        self._rang_s = self._passed_s = float("-inf")
        self._waiting_since_s: float | None = None

    def is_due(self, value: int, now_s: float) -> bool:
        """Note what the bell shows now, and return whether to look through new/; True counts as having looked."""
        if value != self._value:
            self._value, self._rang_s = value, now_s
            if self._waiting_since_s is None:
                self._waiting_since_s = now_s
        waiting_s = self._waiting_since_s
        gathered = waiting_s is not None and (now_s - self._rang_s >= LULL_S or now_s - waiting_s >= GATHER_S)
        if not gathered and now_s - self._passed_s < FULL_SCAN_S:
            return False
        self._passed_s, self._waiting_since_s = now_s, None
        return True

    def listen_s(self, now_s: float) -> float:
        """Return how long to wait until the next look at the bell."""
        return _LISTEN_QUIET_S if now_s - self._rang_s >= _QUIET_S else _LISTEN_S
