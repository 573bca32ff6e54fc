"""Associations of one node, kept for the next study, and which presentation contexts to propose for what has to go.

Used by the destination "dimse". Imports requestor. Changes when associations are proposed or reused in another way.
Source: PS3.8 7.1.1.13, PS3.5 10.1 (default transfer syntax).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Final

from interface.dimse.negotiation import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from interface.dimse.pdu import MAX_CONTEXTS, ProposedContext
from interface.dimse.requestor import Node, Requestor

#: (SOP class, transfer syntax as it lies here).
Pair = tuple[str, str]

FALLBACKS: Final = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)
#: Many nodes end an association that has been silent for 30 s; we end it before.
IDLE_S: Final = 8.0
#: Pairs that studies had before are proposed with the next association too, so that it serves more of them.
_REMEMBERED: Final = 48


def propose(pairs: Iterable[Pair]) -> list[ProposedContext]:
    """Return a context for each pair as it lies here, and one with the fallbacks for each SOP class; at most 128.

    The stored encoding stands in a context of its own: a node that may choose would often take the uncompressed one.
    """
    wanted = list(dict.fromkeys(pairs))
    offers: list[tuple[str, tuple[str, ...]]] = [(sop_class, (syntax,)) for sop_class, syntax in wanted]
    known = set(offers)
    for sop_class in dict.fromkeys(sop_class for sop_class, _ in wanted):
        missing = tuple(one for one in FALLBACKS if (sop_class, (one,)) not in known)
        if missing:
            offers.append((sop_class, missing))
    return [ProposedContext(2 * number + 1, sop_class, syntaxes)
            for number, (sop_class, syntaxes) in enumerate(offers[:MAX_CONTEXTS])]


def fits(pairs: Iterable[Pair]) -> bool:
    """Return whether one association can carry all of `pairs`."""
    wanted = set(pairs)
    return len(wanted) + len({sop_class for sop_class, _ in wanted}) <= MAX_CONTEXTS


class Pool:
    """The associations of one destination; each is used by one thread at a time."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._lock = threading.Lock()
        self._idle: list[tuple[str, frozenset[Pair], Requestor]] = []
        self._pairs: dict[Pair, None] = {}
        self._reaper: threading.Timer | None = None
        self.opened = 0

    def take(self, calling_aet: str, pairs: Sequence[Pair]) -> tuple[Requestor, bool]:
        """Return an association that proposed all of `pairs`, and whether it has been used before.

        Raises AssociationLost. `pairs` must fit one association.
        """
        wanted = frozenset(pairs)
        with self._lock:
            for entry in self._idle:
                if entry[0] == calling_aet and wanted <= entry[1] and time.monotonic() - entry[2].used_s < IDLE_S:
                    self._idle.remove(entry)
                    return entry[2], True
            proposed = self._remember(pairs)
        self.opened += 1
        return Requestor(self.node, calling_aet, propose(proposed)), False

    def _remember(self, pairs: Sequence[Pair]) -> list[Pair]:
        for pair in pairs:
            self._pairs.pop(pair, None)
            self._pairs[pair] = None
        while len(self._pairs) > _REMEMBERED:
            del self._pairs[next(iter(self._pairs))]
        together = [*pairs, *(pair for pair in self._pairs if pair not in set(pairs))]
        return together if fits(together) else list(pairs)

    def give_back(self, calling_aet: str, requestor: Requestor) -> None:
        """Keep an association for the next batch; it is released after 8 s without use."""
        pairs = frozenset((context.abstract_syntax, context.transfer_syntaxes[0]) for context in requestor.contexts
                          if len(context.transfer_syntaxes) == 1)
        with self._lock:
            self._idle.append((calling_aet, pairs, requestor))
            if self._reaper is None:
                self._start_reaper()

    def _start_reaper(self) -> None:
        self._reaper = threading.Timer(IDLE_S, self._reap)
        self._reaper.daemon = True
        self._reaper.start()

    def _reap(self) -> None:
        with self._lock:
            now_s = time.monotonic()
            old = [entry for entry in self._idle if now_s - entry[2].used_s >= IDLE_S - 0.5]
            self._idle = [entry for entry in self._idle if entry not in old]
            self._reaper = None
            if self._idle:
                self._start_reaper()
        for _, _, requestor in old:
            requestor.release()

    def close(self) -> None:
        """Release every association that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
            if self._reaper is not None:
                self._reaper.cancel()
                self._reaper = None
        for _, _, requestor in idle:
            requestor.release()
