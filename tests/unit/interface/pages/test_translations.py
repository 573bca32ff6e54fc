"""Every text of the pages is translated, what is compiled is what is written, and every word for a code exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from babel.messages.catalog import Message

from assets import translations
from interface.http.pages import wording
from interface.http.pages.pen import LANGUAGES
from internal.states import State
from internal.timeline import Stage

ROOT = Path(__file__).resolve().parents[4]
TEMPLATES = ROOT / "interface" / "http" / "pages" / "templates"
_PLACEHOLDER = re.compile(r"%\((\w+)\)s|\{(\w+)\}")
#: Text between tags that is the same in every language.
_NAMES = re.compile(r"[^A-Za-z]*|C-ECHO|DICOM Router|SATUSEHAT DICOM Router|SATUSEHAT|Study Instance UID|swagger.json"
                    r"|SHA-256|HTTP")


def messages(language: str) -> list[Message]:
    return [message for message in translations.read(language) if message.id]


@pytest.mark.parametrize("language", translations.LANGUAGES)
def test_every_text_is_in_the_catalogue_and_translated(language: str) -> None:
    known = {message.id for message in messages(language)}
    collected = {message.id for message in translations.collect() if message.id}
    assert collected == known, "make translations"
    texts = {message.id: message.string if isinstance(message.string, tuple) else (message.string,)
             for message in messages(language)}
    assert [source for source, found in texts.items() if not all(found)] == []


@pytest.mark.parametrize("language", translations.LANGUAGES)
def test_placeholders_survive_translation(language: str) -> None:
    for message in messages(language):
        source = message.id[-1] if isinstance(message.id, tuple) else message.id
        for text in message.string if isinstance(message.string, tuple) else (message.string,):
            assert set(_PLACEHOLDER.findall(text)) == set(_PLACEHOLDER.findall(source)), text


@pytest.mark.parametrize("language", translations.LANGUAGES)
def test_the_compiled_catalogue_is_that_of_the_texts(language: str) -> None:
    path = translations.po_path(language).with_suffix(".mo")
    assert path.read_bytes() == translations.compiled(translations.read(language)), "make translations"


def test_bahasa_indonesia_comes_first() -> None:
    assert list(LANGUAGES) == ["id", "en"]


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.html")), ids=lambda path: path.name)
def test_no_text_stands_outside_of_the_translation(path: Path) -> None:
    source = re.sub(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}", "", path.read_text(encoding="utf-8"), flags=re.S)
    source = re.sub(r"<(script|code)\b.*?</\1>|<title>.*?</title>", "", source, flags=re.S)
    loose = [text.strip(" ·:→\n") for text in re.split(r"<[^>]*>", source) if text.strip()]
    assert [text for text in loose if not _NAMES.fullmatch(text)] == []


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.html")), ids=lambda path: path.name)
def test_templates_hold_no_inline_script_or_style_and_name_no_other_host(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)|\sstyle=|\son[a-z]+=|https?://|<style", source) == []


def test_every_state_and_stage_has_words() -> None:
    assert set(State) <= set(wording.OUTCOMES)
    assert set(Stage) == set(wording.STAGES)
