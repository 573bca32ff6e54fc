"""What docs/rules.md shows works as it stands there; and the bytes that the engine makes never change by themselves."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from internal.config import load
from internal.rewrite import ENGINE
from internal.rules import RuleSet, compile_rules
from internal.rules.actions import parse_action
from internal.rules.conditions import parse_condition

from .rewriting import compiled, encoded, file_of, image, rewritten, rule

ROOT = Path(__file__).parents[4]
PAGES = ("docs/rules.md", "docs/id/rules.md")
CREDENTIALS = "organization_id = 1\nclient_key = aaaa\nsecret_key = bbbb\n"


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), flags=re.M | re.S)


def loaded(text: str, folder: Path) -> RuleSet:
    path = folder / "router.conf"
    path.write_text(text.replace("[satusehat]\n", f"[satusehat]\n{CREDENTIALS}"), encoding="utf-8")
    path.chmod(0o600)
    settings = load(path, {})
    assert [str(one) for one in settings.warnings if "not a" in str(one)] == []
    return compile_rules(settings.rules, {*settings.destination_names(), "university"}, lambda source: "")


@pytest.mark.parametrize("page", PAGES)
def test_the_relay_of_the_page_does_what_the_scripts_did(page: str, tmp_path: Path) -> None:
    rules = loaded(blocks(page, "ini")[0], tmp_path)
    done = rewritten(encoded(image(EthnicGroup=" 99-17 ")), rules)
    assert done.header.patient_id == "99-17"
    assert rules.destinations() == {"pacs"}


def test_every_block_of_the_page_can_be_used(tmp_path: Path) -> None:
    for block in blocks("docs/rules.md", "ini"):
        loaded(block if "[satusehat]" in block else f"[satusehat]\n{block}", tmp_path)
    conditions, actions = blocks("docs/rules.md", "text")
    for line in conditions.splitlines():
        parse_condition(re.split(r" {3,}", line)[0])
    for line in actions.splitlines():
        parse_action(re.split(r" {3,}", line)[0])


GOLDEN = {
    'set PatientID = "N7"': "117281265cab66cc71b76010b9a8f495a506a9f79bc0d90ec22a5bf45156d3bc",
    "deidentify shift dates retain device": "fe7f64ed532d5cbe2802a53cbbc65f302bf4ea2f764f81f96c059e7fc0197218",
    "remap uids": "173d9d15c956d9f9b7d3a838c6605feab42286d77957515febf694e5143c9c54",
    'add (0011,"ACME",01) LO "v"': "3ab5879deb1f63ceb5bd1d2a0ffc490eaefb5c319dbd1d17b27dccd633bf0f15",
}


@pytest.mark.parametrize("action", GOLDEN)
def test_the_bytes_of_this_engine_stay_the_same(action: str) -> None:
    """A change here makes items that were sent and not answered impossible to send again: it needs another ENGINE."""
    assert ENGINE == 1
    content = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
    body = content[content.index(b"\x08\x00\x05\x00CS") :]
    found = file_of(body, rewritten(body, compiled(rule(do=action, **{"for": "pacs"}))))
    assert hashlib.sha256(found).hexdigest() == GOLDEN[action]
