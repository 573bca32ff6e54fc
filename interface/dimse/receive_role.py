"""The receive role: what the composition root starts, as gate (no slot) or as one of its children (a slot).

Imports gate and child. Needs the disk only; never waits for an index or a database. Changes when roles are started
another way.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from interface.dimse.child import run_child
from interface.dimse.gate import Gate, handle_signals, stop_when_stdin_closes
from interface.dimse.policy import Reload
from interface.dimse.settings import ReceiveSettings
from interface.dimse.tls import server_context
from internal.errors import RouterError
from internal.spool import Spool

EXIT_CANNOT_START = 2

log = logging.getLogger("router.dimse")


def run_receive(
    settings: ReceiveSettings,
    spool_root: Path,
    slot: int | None = None,
    child_argv: Callable[[int], Sequence[str]] | None = None,
    *,
    reload: Reload | None = None,
    create_spool: bool = True,
) -> int:
    """Run the gate (`slot` None) or child `slot` until told to stop; returns the exit code.

    `child_argv` gives the command line that ends in run_receive(..., slot); without it, with `children` 0 or on Windows
    everything is received in this process. `reload` reads the settings again at SIGHUP. Pass `create_spool` False when
    the spool was used before. What keeps the role from starting is logged in one sentence, and the exit code is 2.
    """
    _raise_descriptor_limit()
    try:
        if slot is not None:
            return run_child(settings, spool_root, slot, reload)
        return _run_gate(settings, spool_root, child_argv, reload, create_spool)
    except RouterError as error:
        log.error("%s", error)
        return EXIT_CANNOT_START


def _run_gate(
    settings: ReceiveSettings, root: Path, child_argv: Callable[[int], Sequence[str]] | None, reload: Reload | None,
    create: bool,
) -> int:
    server_context(settings)  # a certificate that cannot be used is said once, before any child starts
    spool = Spool.open(root, fsync=settings.fsync, create=create, min_free_bytes=settings.min_free_bytes)
    with spool.lock("receive", settings.lock_wait_s):
        in_process = sys.platform == "win32" or settings.children < 1
        gate = Gate(settings, spool, None if in_process else child_argv, reload)
        if threading.current_thread() is threading.main_thread():
            handle_signals(gate)
        if settings.supervised:
            stop_when_stdin_closes(gate.leave)
        return gate.run()


def _raise_descriptor_limit() -> None:
    """Each association is a socket and a file; the usual soft limit is for select(), which nothing here uses."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
