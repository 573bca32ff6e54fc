"""Every reason that the code can give a job is explained to people, in both languages."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from interface.explain import EXPLANATIONS, FAMILIES, STATES, explain, state_text
from internal.states import State
from tests.python_source import tree_of

ROOT = Path(__file__).resolve().parents[3]
GIVES_A_CODE = {"Refuse", "NotYet", "Later", "hold_for_person", "hold"}


def _codes() -> set[str]:
    """Return every reason code that stands as a literal where an outcome or a hold is made."""
    found: set[str] = set()
    for path in [*(ROOT / "internal").rglob("*.py"), *(ROOT / "interface").rglob("*.py")]:
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name not in GIVES_A_CODE:
                continue
            at = {"hold_for_person": 2, "hold": 3}.get(name, 0)
            if len(node.args) > at and isinstance(node.args[at], ast.Constant):
                found.add(str(node.args[at].value))
    return found


def test_the_scan_finds_codes() -> None:
    assert {"no-order", "several-orders", "conflict", "worker-died"} <= _codes()


@pytest.mark.parametrize("code", sorted(_codes()))
def test_every_code_is_explained(code: str) -> None:
    explanation = explain(code)
    assert explanation.text("id")
    assert explanation.text("en")


@pytest.mark.parametrize("code", ["http-503", "token-http-500", "dns", "tls", "connect", "timeout", "reset"])
def test_faults_of_the_way_are_explained(code: str) -> None:
    assert explain(code).text("id") != explain(code).text("en")


def test_every_state_has_words() -> None:
    assert all(state_text(state, "id") != str(state) or state in STATES for state in State)


def test_no_explanation_is_half() -> None:
    for explanation in [*EXPLANATIONS.values(), *FAMILIES.values()]:
        assert explanation.meaning_id and explanation.meaning_en and explanation.next_id and explanation.next_en
