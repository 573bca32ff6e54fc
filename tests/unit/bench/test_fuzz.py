"""The fuzz targets for a bounded time, and that they can find something."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench import fuzz

ROOT = Path(__file__).resolve().parents[3]


CORPUS = ROOT / "tests" / "corpus"


@pytest.mark.parametrize(("target", "seconds"), [
    ("association", 2), ("scan", 1), pytest.param("association", 30, marks=pytest.mark.long(seconds=36)),
    pytest.param("scan", 20, marks=pytest.mark.long(seconds=22)),
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
