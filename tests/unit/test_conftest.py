"""The rules that decide which tests run must be able to fail too."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples

ROOT = Path(__file__).parents[2]

SUITE = """
import pytest
@pytest.mark.dcmtk
def test_peer(): pass
@pytest.mark.long(seconds=40)
@pytest.mark.parametrize("n", range(9))
def test_long(n): pass
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_very_long(): pass
def test_short(): pass
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n  long\n  timeout\n  dcmtk\n  postgres\n  fuse\n  strace\n  mount\n"
    )
    return tmp_path


def run(suite: Path, *options: str, before: Callable[[], object] | None = None, **environ: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", *options]
    environ = {"PATH": str(suite), "HOME": str(suite), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environ}
    done = subprocess.run(command, cwd=suite, env=environ, capture_output=True, text=True, timeout=60, check=False,
                          preexec_fn=before)
    return done.stdout + done.stderr


def test_a_missing_peer_is_skipped_and_named_at_the_end(suite: Path) -> None:
    out = run(suite)
    assert "1 test(s) not run: DCMTK is not installed" in out
    assert "1 skipped" in out


def test_a_missing_peer_fails_the_gate(suite: Path) -> None:
    out = run(suite, CI="true")
    assert "1 error" in out
    assert "1 test(s) not run: DCMTK is not installed" in out


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_what_a_machine_cannot_have_is_skipped_and_named_in_the_gate_too(suite: Path) -> None:
    (suite / "test_suite.py").write_text("import pytest\n@pytest.mark.mount\ndef test_disk(): pass\n")
    prctl, capbset_drop, cap_sys_admin = ctypes.CDLL(None).prctl, 24, 21
    out = run(suite, CI="true", before=lambda: prctl(capbset_drop, cap_sys_admin))
    assert "1 skipped" in out
    assert "1 test(s) not run: who runs the tests may not mount" in out


@pytest.mark.mount
def test_what_it_could_have_fails_the_gate(suite: Path) -> None:
    (suite / "test_suite.py").write_text("def test_disk(mount): pass\n")
    out = run(suite, CI="true")
    assert "1 error" in out
    assert "1 test(s) not run: mount is not installed" in out


def test_the_share_of_long_tests_is_printed_and_repeatable(suite: Path) -> None:
    first, again = (run(suite, "-m", "long", ROTATE_SEED="7") for _ in range(2))
    assert "ROTATE_SEED=7" in first
    assert "1 passed" in first
    passed = [[line.split()[0] for line in out.splitlines() if "PASSED" in line] for out in (first, again)]
    assert passed[0] == passed[1]
    assert "test_very_long" not in first
    assert "10 passed" in run(suite, "-m", "long", "--all-long")


@pytest.mark.parametrize("turn", ["pass", "time.sleep(0)", "os.stat('.')"])
def test_a_thread_that_is_left_computing_is_named(suite: Path, turn: str) -> None:
    (suite / "test_suite.py").write_text(
        "import os, threading, time\n"
        f"def spin():\n    while True: {turn}\n"
        "def test_left(): threading.Thread(target=spin, name='left over', daemon=True).start()\n")
    out = run(suite)
    assert "1 error" in out and "left over" in out and "in spin" in out


def test_a_property_is_tried_with_all_its_examples_where_every_long_test_runs(
    suite: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    (suite / "test_suite.py").write_text(
        "import os\nfrom hypothesis import settings\n"
        "def test_all(): assert (os.environ['ALL_LONG'], settings.default.max_examples) == ('1', 100)\n"
        "def test_some(): assert (os.environ['ALL_LONG'], settings.default.max_examples) == ('', 25)\n")
    assert "1 passed" in run(suite, "-k", "all", "--all-long")
    assert "1 passed" in run(suite, "-k", "some")
    monkeypatch.setenv("ALL_LONG", "")
    assert [examples(full) for full in (400, 30, 8)] == [100, 10, 8]
    monkeypatch.setenv("ALL_LONG", "1")
    assert examples(400) == 400


@given(
    st.dictionaries(st.text(min_size=1), st.floats(0, 100), min_size=1),
    st.floats(0, 200),
    st.text(),
)
def test_a_share_fits_its_budget_and_leaves_no_room_unused(costs: dict[str, float], budget: float, seed: str) -> None:
    from tests.conftest import choose_long

    chosen = choose_long(costs, budget, seed)
    assert chosen == choose_long(dict(reversed(costs.items())), budget, seed)
    left = budget - sum(costs[name] for name in chosen)
    assert left >= -1e-6
    assert all(costs[name] > left - 1e-6 for name in costs if name not in chosen)
