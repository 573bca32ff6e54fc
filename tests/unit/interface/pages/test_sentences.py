"""What is refused or happens anywhere has words of the pages: each sentence and each event code that one can show."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from interface.http.pages import sentences, wording
from interface.http.pages.pen import Pen
from internal.decisions import Kind
from internal.interventions import ACTS

ROOT = Path(__file__).resolve().parents[4]
INDONESIAN, ENGLISH = (Pen(language, ZoneInfo("Asia/Jakarta"), 0) for language in ("id", "en"))
#: Whose refusals a page shows.
MODULES = ("internal/corrections.py", "internal/decisions.py", "internal/withdrawals.py", "internal/users.py",
           "internal/passwords.py", "internal/gallery.py", "interface/actions.py", "interface/http/tasks.py",
           "interface/http/auth/accounts.py", "interface/http/auth/login.py", "interface/http/context.py",
           *(f"interface/http/pages/{name}.py" for name in ("destinations", "devices", "settings", "studies", "study",
                                                            "study_acts", "users", "work")))
#: Of files, keys and the command line, never said on a page.
NEVER = ("there is no alias", "line ", "there are no")
#: Events of lanes, alerts and the router itself: they belong to no study.
OF_NO_STUDY = {"lane-paused", "lane-changed", "lane-resumed", "failover", "failover-ended", "alert-raised",
               "alert-cleared", "alert-acknowledged", "watch-refused"}


def text_of(node: ast.expr) -> str:
    """Return a literal or an f-string, whose values are a 7."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join("'7'" if isinstance(one, ast.FormattedValue) and one.conversion == ord("r")
                       else text_of(one) or "7" for one in node.values)
    return ""


def refusals() -> Iterator[str]:
    for name in MODULES:
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
            call = node.exc if isinstance(node, ast.Raise) else None
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.args and call.func.id in (
                    "NotAllowed", "NotFound", "ValueError", "Transient") and text_of(call.args[0]):
                yield text_of(call.args[0])


@pytest.mark.parametrize("sentence", sorted({one for one in refusals() if not one.startswith(NEVER)}))
def test_a_refusal_has_words_in_both_languages(sentence: str) -> None:
    assert any(pattern.fullmatch(sentence) for pattern, _ in sentences.SENTENCES)
    assert INDONESIAN.said(sentence) != ENGLISH.said(sentence)


def test_advice_that_carries_both_languages_is_shown_in_one() -> None:
    both = "Periksa DNS / check DNS"
    assert (INDONESIAN.said(both), ENGLISH.said(both)) == ("Periksa DNS", "check DNS")
    assert INDONESIAN.said("something new") == "something new"


def event_codes() -> Iterator[str]:
    """Yield the literal codes of every event that the product writes, and of every remark on an ImagingStudy."""
    for path in [*(ROOT / "internal").rglob("*.py"), *(ROOT / "interface").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            place = 2 if called.endswith("add_event") else 0 if called.endswith(("work.event", "Remark")) else None
            if place is not None and len(node.args) > place and isinstance(node.args[place], ast.Constant):
                yield str(node.args[place].value)  # type: ignore[attr-defined]


def test_every_event_of_a_study_has_words() -> None:
    codes = {*event_codes(), *(f"person-{event}" for event in ACTS), *(f"decided-{kind}" for kind in Kind)}
    assert len(codes) > 40
    assert codes - OF_NO_STUDY - set(wording.EVENTS) == set()
