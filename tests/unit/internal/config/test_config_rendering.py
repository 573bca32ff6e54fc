"""Template, documentation and listing: committed files match, the template loads, no secret is shown."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from internal.config import (
    SETTINGS,
    AlertSettings,
    ConfigurationInvalid,
    load,
    render_config,
    render_markdown,
    render_template,
)
from internal.config.declarations import SINGLE_SECTIONS
from tests.examples import examples

ROOT = Path(__file__).parents[4]
CREDENTIALS = {"ORG_ID": "1", "CLIENT": "client", "SECRET": "secret"}


def test_the_committed_template_is_the_generated_one() -> None:
    assert (ROOT / "router.conf.template").read_text(encoding="utf-8") == render_template()


def test_the_committed_documentation_is_the_generated_one() -> None:
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == render_markdown()


def test_the_first_four_entries_of_the_template_are_what_a_user_fills_in() -> None:
    entries = re.findall(r"^(\w+) =", render_template(), re.MULTILINE)
    assert entries == ["organization_id", "client_key", "secret_key", "url"]


def test_the_template_with_three_values_filled_in_gives_every_default(tmp_path: Path) -> None:
    text = render_template()
    for key in ("organization_id", "client_key", "secret_key"):
        text = text.replace(f"{key} =", f"{key} = 100099001")
    (tmp_path / "router.conf").write_text(text, encoding="utf-8")
    (tmp_path / "router.conf").chmod(0o600)
    found = load(tmp_path / "router.conf", {})
    assert found.warnings == ()
    assert {found.source_of(setting.name) for setting in SETTINGS if not setting.fill_in
            and not setting.is_named} == {"default"}


def test_every_default_shown_in_the_template_is_the_default(tmp_path: Path) -> None:
    text = re.sub(r"^# (\w+ =|\[\w+:)", r"\1", render_template(), flags=re.MULTILINE)
    # Sections of destinations have keys without a default.
    text = text[: text.index("\n[folder:NAME]")] + text[text.index("\n[alert:NAME]") :].replace(":NAME]", ":name]")
    (tmp_path / "all.conf").write_text(text, encoding="utf-8")
    (tmp_path / "none.conf").write_text("", encoding="utf-8")
    active, plain = load(tmp_path / "all.conf", CREDENTIALS), load(tmp_path / "none.conf", CREDENTIALS)
    assert active.source_of("router.settle").startswith("file all.conf line")
    for name in SINGLE_SECTIONS:
        assert active.section(name) == plain.section(name)
    assert active.section("alert:name") == AlertSettings()


def test_the_listing_says_of_each_value_where_it_came_from(tmp_path: Path) -> None:
    (tmp_path / "router.conf").write_text("[spool]\nmin_free = 3072MB\n[folder:a]\npath = x\n", encoding="utf-8")
    found = load(tmp_path / "router.conf", CREDENTIALS, {"router.settle": "90s"})
    lines = [re.sub(r"\s+#", " #", line) for line in render_config(found).splitlines()]
    assert lines[0] == "# SATUSEHAT environment: development (https://api-satusehat-dev.dto.kemkes.go.id)"
    for expected in ("organization_id = 1 # environment ORG_ID", "client_key = *** # environment CLIENT",
                     "webhook_password = # default", "settle = 90s # command line",
                     "default_send_to = satusehat # default",
                     "min_free = 3GB # file router.conf line 2", "fsync = yes # default", "dicom_bind = all # default",
                     f"path = {tmp_path / 'x'} # file router.conf line 4", "called_aets = none # default"):
        assert expected in lines, lines
    shown = [each for each in SETTINGS if not each.is_named or each.section == "folder:NAME"]
    assert len([line for line in lines if " = " in line or " =" in line]) == len(shown)


def test_the_documentation_names_every_setting_and_its_help_in_both_languages() -> None:
    text = render_markdown()
    for setting in SETTINGS:
        assert f"| `{setting.key}` |" in text
        assert setting.help and setting.help_id and setting.help != setting.help_id
        assert setting.help in text and setting.help_id in text


SECRETS = st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=0x2FF, categories=("L", "N", "P", "S")),
                  min_size=3, max_size=40).map("Zq7-{}".format)


@settings(max_examples=examples(200), deadline=None)
@given(SECRETS)
def test_the_listing_shows_no_secret(secret: str) -> None:
    environ = {"ORG_ID": "1", "CLIENT": secret, "SECRET": secret, "WEBHOOK_PASSWORD": secret,
               "WEBHOOK_URL": f"https://h/{secret}", "ROUTER_DATABASE_URL": f"postgresql://u:{secret}@h/d"}
    try:
        found = load(None, environ)
    except ConfigurationInvalid:
        found = load(None, {key: environ[key] for key in ("ORG_ID", "CLIENT", "SECRET", "WEBHOOK_PASSWORD")})
    assert secret not in render_config(found)
