"""The bytes of items fixed in another thread before they are to leave, so that reading and hashing hide behind sending.

Layer 4, over frozen. Nothing is written down of what lies here: an item is marked as sent by the step that sends it, as
ever. Bounded by the bytes of the images in hand. Changes when more is to be done ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from internal.frozen import FrozenItem
from internal.model import Item
from internal.scan import DEFLATED

#: So much of the images is read ahead: what is sent soon is then still in the system's memory.
AHEAD_BYTES: Final = 256 * 1024 * 1024

Freeze = Callable[[Item], FrozenItem]


class Ahead:
    """Items being frozen in one thread of its own, in the order in which they were added; used by one thread."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._coming: dict[int, tuple[Item, Future[FrozenItem]]] = {}
        self._left_bytes = AHEAD_BYTES

    def add(self, item: Item, freeze: Freeze) -> None:
        """Begin to freeze an item, unless it was begun, there is too much in hand, or it is deflated.

        A deflated image that is rewritten is held in memory, up to 64 MB each.
        """
        size_bytes, header = item.instance.dataset_bytes, item.instance.header
        if item.item_id in self._coming or size_bytes > self._left_bytes or header.transfer_syntax_uid in DEFLATED:
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="freeze-ahead")
        self._left_bytes -= size_bytes
        self._coming[item.item_id] = item, self._thread.submit(freeze, item)

    def __len__(self) -> int:
        """Return how many items are in hand."""
        return len(self._coming)

    def take(self, item: Item) -> FrozenItem | None:
        """Return what was made of exactly this item, None if nothing was; raises what freezing it raised."""
        known = self._coming.pop(item.item_id, None)
        if known is None:
            return None
        before, coming = known
        self._left_bytes += before.instance.dataset_bytes
        if before != item:
            coming.cancel()
            return None
        return coming.result()

    def close(self) -> None:
        """Forget everything; returns once the thread reads nothing any more, which is after one image at most."""
        self._coming.clear()
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._thread = None
