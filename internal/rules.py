"""Where a study goes: pure functions on what is known of it.

Layer 1. The rule language of later releases (conditions, rewrites) grows here; today every study goes to the
configured destinations. Changes when routing or rewriting can depend on something new.
"""

from __future__ import annotations

from collections.abc import Sequence

from internal.model import Inventory


def route(inventory: Inventory, send_to: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the destinations for this study and part, without repeats, in order.

    A study without instances goes nowhere.
    """
    if not inventory.series:
        return ()
    return tuple(dict.fromkeys(send_to))
