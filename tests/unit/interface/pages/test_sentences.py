"""What is refused or happens anywhere has words of the pages: each sentence and each event code that one can show."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from interface.cli_devices import VERBS
from interface.http.pages import sentences, studies, wording
from interface.http.pages.pen import Pen
from internal.decisions import Kind
from internal.interventions import ACTS
from tests.python_source import tree_of

ROOT = Path(__file__).resolve().parents[4]
INDONESIAN, ENGLISH = (Pen(language, ZoneInfo("Asia/Jakarta"), 0) for language in ("id", "en"))
#: Whose refusals a page shows.
MODULES = ("internal/corrections.py", "internal/decisions.py", "internal/withdrawals.py", "internal/users.py",
           "internal/passwords.py", "internal/gallery.py", "interface/actions.py", "interface/http/tasks.py",
           "interface/http/auth/accounts.py", "interface/http/auth/login.py", "interface/http/context.py",
           *(f"interface/http/pages/{name}.py" for name in ("destinations", "devices", "rules", "settings", "studies",
                                                            "study", "study_acts", "users", "work")))
#: Who reaches out to destinations: what a test of one says, and what goes wrong on the way.
DESTINATIONS = ("interface/folder.py", "interface/mroc.py", "interface/s3.py", "interface/sftp.py",
                "interface/webhook.py", "interface/dicomweb_client.py", "interface/web_auth.py",
                "interface/outbound.py", "interface/dimse/store_scu.py", "interface/dimse/requestor.py")
#: Said of a delivery or while settings are read, never when a destination is tested.
NOT_TESTED = ("7 does not show what was put there", "7 answers 7", "7 answered HTTP 7", "7 is full", "7 is not there: ",
              "the MROC client answered", "the node answers")
ADDRESS = "7://7"
#: Of files, keys and the command line, never said on a page.
NEVER = ("there is no alias", "line ", "there are no")
#: An entry of the audit trail, and no template.
ACTION = re.compile(r"(study|patient|lane|device|settings|alias|order|alert|user|key|login|password|pseudonym|audit)"
                    r"\.(?!html|before_done|head|key)[a-z-]+")
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
        for node in ast.walk(tree_of(ROOT / name)):
            call = node.exc if isinstance(node, ast.Raise) else None
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.args and call.func.id in (
                    "NotAllowed", "NotFound", "ValueError", "Transient") and text_of(call.args[0]):
                yield text_of(call.args[0])


@pytest.mark.parametrize("sentence", sorted({one for one in refusals() if not one.startswith(NEVER)}))
def test_a_refusal_has_words_in_both_languages(sentence: str) -> None:
    assert any(pattern.fullmatch(sentence) for pattern, _ in sentences.SENTENCES)
    assert INDONESIAN.said(sentence) != ENGLISH.said(sentence)


def pieces(node: ast.expr) -> Iterator[str]:
    """Yield what an expression may say: each side of a choice."""
    if isinstance(node, ast.IfExp):
        yield from pieces(node.body)
        yield from pieces(node.orelse)
    elif text_of(node):
        yield text_of(node)


def said_by_destinations() -> Iterator[str]:
    for name in DESTINATIONS:
        for node in ast.walk(tree_of(ROOT / name)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                place = {"Probe": 2, "Later": 1, "Transient": 0, "AssociationLost": 0, "CredentialsRefused": 0,
                         "ConfigurationInvalid": 0}.get(node.func.id)
                if place is not None and len(node.args) > place:
                    yield from pieces(node.args[place])
            if isinstance(node, ast.FunctionDef) and node.name == "_name":  # of outbound: (code, text)
                yield from (text_of(one.value.elts[1]) for one in ast.walk(node)
                            if isinstance(one, ast.Return) and isinstance(one.value, ast.Tuple))


@pytest.mark.parametrize("sentence", sorted(
    {one for one in said_by_destinations() if not one.startswith(NOT_TESTED)} - {ADDRESS}))
def test_a_test_of_a_destination_is_said_in_both_languages(sentence: str) -> None:
    assert INDONESIAN.said(sentence) != ENGLISH.said(sentence)


@pytest.mark.parametrize(("sentence", "indonesian"), [
    ("PACS at 10.0.0.7:104 cannot be reached (connection refused)", "PACS at 10.0.0.7:104 tidak dapat dihubungi"),
    ("PACS at 10.0.0.7:104 rejects the association: it does not know our AE title (1/1/3)",
     "PACS at 10.0.0.7:104 tidak mengenal AE title router ini"),
    ("PACS at 10.0.0.7:104 answers C-ECHO with processing failure (0x0110)",
     "PACS at 10.0.0.7:104 menjawab C-ECHO dengan 0x0110"),
    ("TLS with a.example:443 failed: certificate has expired",
     "TLS dengan a.example:443 gagal (certificate has expired)"),
    ("TLS with PACS at 10.0.0.7:104: self-signed certificate",
     "TLS dengan PACS at 10.0.0.7:104 gagal (self-signed certificate)"),
    ("TLS with a.example:443 failed (wrong version)", "TLS dengan a.example:443 gagal (wrong version)"),
    ("a.example/images cannot be used now (GenericError)",
     "a.example/images sedang tidak dapat dipakai (GenericError)"),
    ("/data/out, 12.5 GB free", "/data/out, sisa 12.5 GB"),
])
def test_what_a_test_says_keeps_its_names(sentence: str, indonesian: str) -> None:
    assert INDONESIAN.said(sentence) == indonesian


def test_advice_that_carries_both_languages_is_shown_in_one() -> None:
    both = "Periksa DNS / check DNS"
    assert (INDONESIAN.said(both), ENGLISH.said(both)) == ("Periksa DNS", "check DNS")
    assert INDONESIAN.said("something new") == "something new"


def event_codes() -> Iterator[str]:
    """Yield the literal codes of every event that the product writes, and of every remark on an ImagingStudy."""
    for path in [*(ROOT / "internal").rglob("*.py"), *(ROOT / "interface").rglob("*.py")]:
        for node in ast.walk(tree_of(path)):
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


def actions() -> Iterator[str]:
    """Yield the name of every entry that the product can write into the audit trail, as far as it stands in code."""
    for path in (ROOT / "interface").rglob("*.py"):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and ACTION.fullmatch(node.value):
                yield node.value


def test_every_entry_of_the_audit_trail_has_words() -> None:
    made = {f"study.{verb}" for verb in studies._VERBS} | {f"device.{verb}" for verb in VERBS}
    codes = {*actions(), *made, "login", "logout"}
    assert len(codes) > 40
    assert codes - set(wording.ACTIONS) == set()
    for code in wording.ACTIONS.values():
        assert INDONESIAN._(code) != ENGLISH._(code)
