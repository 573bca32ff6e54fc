"""How a role is told to stop."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.contract.dimse.role import ROOT

TOLD_IN_A_WAIT = """
import os, signal, threading
from interface.roles import stop_on_signals
stop = threading.Event()
stop_on_signals(stop)
with stop._cond:  # as for a moment in every stop.wait(): a handler that wants this lock never gets it
    os.kill(os.getpid(), signal.SIGTERM)
    print("handled", flush=True)
assert stop.wait(20)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals to oneself are POSIX")
def test_a_signal_in_the_middle_of_waiting_for_it_does_not_hang() -> None:
    done = subprocess.run([sys.executable, "-c", TOLD_IN_A_WAIT], cwd=ROOT, timeout=40, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
