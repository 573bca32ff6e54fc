"""What every test shares: peers that may be missing, and the rotating share of the long tests.

A test marked with the name of a peer (PEERS) needs it: without it the test is skipped and the peer is
named at the end; with CI=true it fails, unless this machine cannot have it (IMPOSSIBLE). A test marked `long`
(`long(seconds=20)` says its cost) runs in `make proof`; each other run takes as many of them as fit into the budget,
chosen by a seed that is printed (ROTATE_SEED repeats it).
"""

from __future__ import annotations

import ctypes.util
import hashlib
import importlib.util
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

LONG_COST_S = 15.0
_LOOK_S = 0.2
_CAP_SYS_ADMIN = 21
_missed: Counter[str] = Counter()


def _no_dcmtk() -> str:
    absent = [tool for tool in ("storescu", "echoscu", "storescp") if shutil.which(tool) is None]
    return f"DCMTK is not installed ({', '.join(absent)}); apt-get install dcmtk" if absent else ""


def _no_postgres() -> str:
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed"
    return "" if importlib.util.find_spec("pgserver") else "pgserver (a PostgreSQL from pip) is not installed"


def _no_fuse() -> str:
    if not Path("/dev/fuse").exists() or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse is missing or not ours to open"
    if ctypes.util.find_library("fuse") is None:
        return "libfuse.so.2 is not installed; apt-get install libfuse2"
    return "" if importlib.util.find_spec("fuse") else "fusepy is not installed"


def _no_strace() -> str:
    return "" if shutil.which("strace") else "strace is not installed; apt-get install strace"


def _no_chromium() -> str:
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed"
    return "" if shutil.which("chromium") else "chromium is not installed; apt-get install chromium"


def _no_gdcm() -> str:
    return "" if shutil.which("gdcmconv") else "gdcmconv is not installed; apt-get install libgdcm-tools"


def _no_orthanc() -> str:
    program = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    plugins = any(Path("/usr/share/orthanc/plugins").glob("libOrthancDicomWeb.so*"))
    return "" if program and plugins else "Orthanc is not installed; apt-get install orthanc orthanc-dicomweb"


def _no_sshd() -> str:
    return "" if Path("/usr/sbin/sshd").exists() else "OpenSSH is not installed; apt-get install openssh-server"


def _no_curl() -> str:
    return "" if shutil.which("curl") else "curl is not installed; apt-get install curl"


def _may_not_mount() -> str:
    status = Path("/proc/self/status")
    held = next((line.split()[1] for line in status.read_text().splitlines() if line.startswith("CapEff:")), "0") \
        if status.exists() else "0"
    return "" if int(held, 16) >> _CAP_SYS_ADMIN & 1 else "who runs the tests may not mount a file system (root may)"


def _no_mount() -> str:
    if reason := _may_not_mount() or ("" if shutil.which("mount") else "mount is not installed"):
        return reason
    with tempfile.TemporaryDirectory() as folder:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], check=False,
                              capture_output=True, text=True)
        if made.returncode:
            return f"a file system of its own cannot be mounted: {made.stderr.strip()}"
        subprocess.run(["umount", folder], check=True)
    return ""


PEERS: dict[str, Callable[[], str]] = {
    "chromium": cache(_no_chromium),
    "curl": cache(_no_curl),
    "dcmtk": cache(_no_dcmtk),
    "postgres": cache(_no_postgres),
    "fuse": cache(_no_fuse),
    "gdcm": cache(_no_gdcm),
    "mount": cache(_no_mount),
    "orthanc": cache(_no_orthanc),
    "sshd": cache(_no_sshd),
    "strace": cache(_no_strace),
}


#: Why a machine lacks something that nobody could install on it: skipped with CI=true too.
IMPOSSIBLE: dict[str, Callable[[], str]] = {"mount": _may_not_mount}


def need(name: str) -> None:
    """Go on only where the peer `name` is there."""
    reason = PEERS[name]()
    if not reason:
        return
    impossible = name in IMPOSSIBLE and IMPOSSIBLE[name]()
    if os.environ.get("CI", "").lower() == "true" and not impossible:
        pytest.fail(f"peer missing: {reason}", pytrace=False)
    pytest.skip(f"peer missing: {reason}")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("router")
    group.addoption("--all-long", action="store_true", help="run every test marked long, not a rotating share")
    group.addoption("--long-budget", type=float, default=60.0, metavar="S", help="seconds for the rotating share (60)")


def pytest_configure(config: pytest.Config) -> None:
    # Set before workers start: they inherit it, so that all of them choose the same tests.
    os.environ.setdefault("ROTATE_SEED", str(random.SystemRandom().randrange(10**6)))
    os.environ["ALL_LONG"] = "1" if config.getoption("--all-long") else ""
    os.environ.setdefault("TCP_NODELAY", "1")  # DCMTK waits 40 ms per message without it
    # Speed belongs in bench/: an example that a busy machine takes long for is no failure.
    settings.register_profile("router", deadline=None, max_examples=100 if config.getoption("--all-long") else 25)
    settings.load_profile("router")


def _seed() -> str:
    return os.environ["ROTATE_SEED"]


def _cost_s(item: pytest.Item) -> float:
    marker = item.get_closest_marker("long")
    if marker is None:
        return 0.0
    if "seconds" in marker.kwargs:
        return float(marker.kwargs["seconds"])
    timeout = item.get_closest_marker("timeout")  # without a stated cost, the time limit is the only thing known
    return float(timeout.args[0]) if timeout and timeout.args else LONG_COST_S


def choose_long(costs: dict[str, float], budget_s: float, seed: str) -> set[str]:
    """Return the node ids that run: in an order drawn by `seed`, each that still fits."""
    order = sorted(costs)
    random.Random(seed).shuffle(order)
    chosen: set[str] = set()
    left = budget_s
    for node in order:
        if costs[node] <= left:
            chosen.add(node)
            left -= costs[node]
    return chosen


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:  # for the table in docs/security.md
        item.user_properties += [("attack", number) for mark in item.iter_markers("attack") for number in mark.args]
    if config.getoption("--all-long") or any("::" in arg for arg in config.args):
        return
    costs = {item.nodeid: _cost_s(item) for item in items if item.get_closest_marker("long")}
    chosen = choose_long(costs, config.getoption("--long-budget"), _seed())
    resting = [item for item in items if item.nodeid in costs and item.nodeid not in chosen]
    if resting:
        config.hook.pytest_deselected(items=resting)
        items[:] = [item for item in items if item.nodeid not in costs or item.nodeid in chosen]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name in PEERS:
        if item.get_closest_marker(name):
            need(name)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    text = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr or "")
    if report.when == "setup" and not report.passed and "peer missing: " in text:
        _missed[text.partition("peer missing: ")[2].strip()] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("--all-long"):
        terminalreporter.line("long tests: all of those selected")
    else:
        budget = config.getoption("--long-budget")
        terminalreporter.line(f"long tests: a rotating share of {budget:g} s, repeat it with ROTATE_SEED={_seed()}")
    if not _missed:
        return
    terminalreporter.section("test peers that are missing here")
    for reason, count in sorted(_missed.items()):
        terminalreporter.line(f"{count} test(s) not run: {reason}")


def _computes() -> bool:
    """Return whether other threads of this process compute beside one that does.

    They are measured against this thread's own time and not against the clock, because on a busy machine neither gets
    much of that, and both get alike. This one lets them in meanwhile, as hashing needs no interpreter lock.
    """
    began_s, own_began_s, block = time.process_time(), time.thread_time(), bytes(1 << 20)
    while (own_s := time.thread_time() - own_began_s) < _LOOK_S:
        hashlib.sha256(block)
    return time.process_time() - began_s > own_s * 1.1


@pytest.fixture(scope="session", autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """Fail where a thread that a test has left still computes: it slows every later test of this process."""
    yield
    if _computes() and _computes():  # once may be something that is just ending
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        stacks = [f"{names.get(ident)}:\n{''.join(traceback.format_stack(frame, 4))}"
                  for ident, frame in sys._current_frames().items() if ident != threading.get_ident()]
        pytest.fail("something that a test has started still computes:\n" + "\n".join(stacks), pytrace=False)


@pytest.fixture
def mount() -> Iterator[Callable[[Path, str], Path]]:
    """Mount a file system of its own, of this size, at a folder that is made for it; returns the folder."""
    need("mount")
    mounted: list[Path] = []

    def at(folder: Path, size: str) -> Path:
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
        mounted.append(folder)
        return folder

    yield at
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, started once; from then on the main thread has a running loop, and asyncio needs another."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=[
            "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync"])
        yield browser
        browser.close()


if sys.platform == "win32":  # pragma: no cover
    collect_ignore_glob = ["system/*"]
