"""Named points at which a test makes the product die, stall or see a disk fault.

Layer 0, imports nothing of ours. A no-op unless the environment variable ROUTER_FAULT is set before start:
``name:action[:nth][,name:action...]`` with the actions kill9, exit, raise, eio, enospc and sleep=SECONDS; `nth`
(default 1) is the first hit that acts, later hits act too. docs/development.md lists the names.
Changes when a test needs another way to fail.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from dataclasses import dataclass

ENVIRONMENT = "ROUTER_FAULT"


class InjectedFault(Exception):
    """A failpoint was told to raise."""


@dataclass(slots=True)
class _Fault:
    action: str
    nth: int
    hits: int = 0


def parse_plan(text: str) -> dict[str, _Fault]:
    """Return the faults named in `text`; raises ValueError for an entry that is not name:action[:nth]."""
    plan: dict[str, _Fault] = {}
    for entry in filter(None, text.split(",")):
        name, action, *rest = entry.strip().split(":")
        plan[name] = _Fault(action, int(rest[0]) if rest else 1)
    return plan


_plan = parse_plan(os.environ.get(ENVIRONMENT, ""))
_lock = threading.Lock()


def is_armed() -> bool:
    """Return whether this process was told to fail anywhere."""
    return bool(_plan)


def active(name: str) -> bool:
    """Return whether `name` is in the plan at all, whatever its action."""
    return name in _plan


def hit(name: str) -> None:
    """Do what the plan says for `name`; nothing without a plan. Raises OSError or InjectedFault when told to."""
    if not _plan:
        return
    fault = _plan.get(name)
    if fault is None:
        return
    with _lock:
        fault.hits += 1
        due = fault.hits >= fault.nth
    if due:
        _act(name, fault.action)


def _act(name: str, action: str) -> None:
    if action == "kill9":
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    elif action == "exit":
        os._exit(70)
    elif action == "raise":
        raise InjectedFault(name)
    elif action == "eio":
        raise OSError(errno.EIO, "injected", name)
    elif action == "enospc":
        raise OSError(errno.ENOSPC, "injected", name)
    elif action.startswith("sleep="):
        time.sleep(float(action.removeprefix("sleep=")))
