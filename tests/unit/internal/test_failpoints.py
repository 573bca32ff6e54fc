"""Failpoints: nothing without a plan, and each action of a plan, in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from internal import failpoints

ROOT = Path(__file__).parents[3]
CODE = "from internal import failpoints as f\nfor n in (1, 2, 3):\n    f.hit('a.b'); print(n, flush=True)"


@pytest.mark.parametrize(("plan", "printed", "code"), [
    ("", "1\n2\n3\n", 0), ("other:kill9", "1\n2\n3\n", 0), ("a.b:kill9:2", "1\n", -9), ("a.b:exit", "", 70),
    ("x:exit,a.b:eio:3", "1\n2\n", 1), ("a.b:enospc", "", 1), ("a.b:raise:2", "1\n", 1),
    ("a.b:sleep=0", "1\n2\n3\n", 0),
])  # fmt: skip
def test_actions(plan: str, printed: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], env={**os.environ, "ROUTER_FAULT": plan}, capture_output=True, text=True,
        cwd=ROOT, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == (printed, code)


def test_a_malformed_plan_is_an_error() -> None:
    with pytest.raises(ValueError, match="unpack"):
        failpoints.parse_plan("nonsense")


def test_every_point_is_documented_and_every_documented_one_exists() -> None:
    page = (ROOT / "docs" / "development.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|", page, flags=re.M)
    code = "".join(path.read_text(encoding="utf-8") for folder in ("internal", "interface")
                   for path in (ROOT / folder).rglob("*.py"))
    assert sorted(listed) == sorted(set(re.findall(r'\b(?:hit|active)\("([a-z_.]+)"\)', code)))
