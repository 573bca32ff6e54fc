"""Alerts in words: templates of people filled in without breaking their form, every condition in both languages."""

from __future__ import annotations

import json
from urllib.parse import parse_qs
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interface.alert_texts import PLACEHOLDERS, build_message, fill_form, fill_json
from interface.explain import EXPLANATIONS
from internal.alerts import Condition, News
from internal.config import ALERT_CONDITIONS

WIB = ZoneInfo("Asia/Jakarta")
FIELDS = dict.fromkeys(PLACEHOLDERS, "")
TELEGRAM = '{"chat_id": "-100", "text": "{text}", "silent": true}'
GATEWAY = "target=62812&message={title}&countryCode=62"


@given(st.text())
def test_a_text_never_leaves_its_place(text: str) -> None:
    filled = json.loads(fill_json(TELEGRAM, {**FIELDS, "text": text}))
    if "\ud800" not in text:
        assert filled == {"chat_id": "-100", "text": text, "silent": True}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_form_stays_a_form(title: str) -> None:
    form = parse_qs(fill_form(GATEWAY, {**FIELDS, "title": title}).decode(), keep_blank_values=True)
    assert form == {"target": ["62812"], "message": [title], "countryCode": ["62"]}


def test_placeholders_inside_of_values_are_not_filled_again() -> None:
    assert json.loads(fill_json('{"text": "{text}"}', {**FIELDS, "text": "{router}", "router": "secret"})) == {
        "text": "{router}"}


@pytest.mark.parametrize("template", ['{"text": ', "[", "nonsense"])
def test_what_is_no_json_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        fill_json(template, FIELDS)


@pytest.mark.parametrize("condition", list(Condition))
@pytest.mark.parametrize("language", ["id", "en"])
@pytest.mark.parametrize("news", [*News, "test"])
def test_every_condition_has_words(condition: Condition, language: str, news: str) -> None:
    facts = {"rule": "jaga", "condition": str(condition), "subject": "CT1", "news": str(news), "detail": {},
             "raised_at": 1_800_000_000_000, "cleared_at": 1_800_000_360_000}
    message = build_message(facts, router="DCMROUTER", language=language, zone=WIB)
    assert message.title in message.text and "{" not in message.text and "DCMROUTER [jaga]" in message.text


def test_the_words_of_the_settings_are_those_of_the_code() -> None:
    assert set(ALERT_CONDITIONS) == set(map(str, Condition))
    assert {f"alert-{condition}" for condition in Condition} <= set(EXPLANATIONS)
