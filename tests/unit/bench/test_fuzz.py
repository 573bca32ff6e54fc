"""The fuzz targets for a bounded time, and that they can find something."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench import fuzz

ROOT = Path(__file__).resolve().parents[3]


CORPUS = ROOT / "tests" / "corpus"


@pytest.mark.parametrize(("target", "seconds"), [
    ("association", 2), ("scan", 1),
    *(pytest.param(target, 60, marks=pytest.mark.long(seconds=64)) for target in fuzz.TARGETS),
])  # fmt: skip
def test_no_rule_is_broken(target: str, seconds: int, tmp_path: Path) -> None:
    """All of the kept corpus, then new inputs made from it."""
    shutil.copytree(CORPUS / target, tmp_path / target)
    kept = len(list((tmp_path / target).iterdir()))
    done = subprocess.run(
        [sys.executable, "-m", "bench.fuzz", "--target", target, "--seconds", str(seconds), "--corpus", str(tmp_path),
         "--seed", os.environ.get("ROTATE_SEED", "0")],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=150)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "no rule broken" in done.stdout
    assert int(done.stdout.split()[1]) >= kept > 0
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < fuzz.MAX_CORPUS_BYTES


def test_an_answer_for_what_is_not_kept_breaks_a_rule(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.fuzz", "--target", "association", "--seconds", "1", "--corpus", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, "ROUTER_FAULT": "store.before_link:eio"})  # fmt: skip
    assert done.returncode == 1
    assert "2 images were answered with success, 1 are kept" in done.stderr


def test_a_descriptor_that_stays_breaks_a_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Leaking:
        def __init__(self, folder: Path) -> None:
            del folder
            self._open: list[socket.socket] = []

        def run(self, data: bytes) -> None:
            if len(data) % 7 == 0:
                self._open.append(socket.socket())

    monkeypatch.setitem(fuzz.TARGETS, "scan", (Leaking, fuzz.scan_seeds))
    with pytest.raises(fuzz.Broken, match="stay"):
        fuzz.fuzz("scan", 5, 1, tmp_path)


def test_an_input_that_breaks_a_rule_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fragile:
        def __init__(self, folder: Path) -> None:
            del folder

        def run(self, data: bytes) -> None:
            assert len(data) % 7, "a length it cannot stand"

    monkeypatch.setitem(fuzz.TARGETS, "scan", (Fragile, fuzz.scan_seeds))
    with pytest.raises(fuzz.Broken, match="cannot stand"):
        fuzz.fuzz("scan", 5, 1, tmp_path)
    (kept,) = tmp_path.glob("broken-*")
    assert len(kept.read_bytes()) % 7 == 0
