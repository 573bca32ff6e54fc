"""Base URLs and environments: one spelling for each, nothing sent in the clear, no password shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internal.config.url import (
    environment_name,
    is_loopback,
    normalise_base_url,
    parse_database_url,
    parse_http_url,
    parse_secret_url,
)
from internal.config.values import WrongValue


@pytest.mark.parametrize(("text", "url", "environment"), [
    ("api-satusehat-dev.dto.kemkes.go.id", "https://api-satusehat-dev.dto.kemkes.go.id", "development"),
    ("https://api-satusehat-stg.dto.kemkes.go.id/", "https://api-satusehat-stg.dto.kemkes.go.id", "staging"),
    ("HTTPS://API-SATUSEHAT.KEMKES.GO.ID.:443//", "https://api-satusehat.kemkes.go.id", "production"),
    ("http://127.0.0.1:8899", "http://127.0.0.1:8899", "sandbox"),
    ("localhost:8899", "http://localhost:8899", "sandbox"),
    ("https://localhost", "https://localhost", "sandbox"),
    ("http://[::1]:80/", "http://[::1]", "sandbox"),
    ("proxy.rs.example:8443/satusehat/", "https://proxy.rs.example:8443/satusehat", "custom"),
])
def test_base_urls_have_one_spelling(text: str, url: str, environment: str) -> None:
    assert normalise_base_url(text) == url
    assert normalise_base_url(url) == url
    assert environment_name(text) == environment


@pytest.mark.parametrize("text", [
    "", "https://", "http://api-satusehat.kemkes.go.id", "http://0.0.0.0:8899", "http://127.1", "ftp://localhost",
    "https://user:pw@host.example", "https://host.example?x=1", "https://host.example/#x", "https://host.example:0",
    "https://host.example:99999", "https://host.example:x", "https://ho st", "https://höst.example", "https://[::1",
    "https://api-satusehat.kemkes.go.id/fhir-r4/v1", "https://host.example/a/../b", "https://-x.example",
    "https://1.2.3.4.5", "https://" + "a" * 300, "https://host.example/" + "a" * 3000, "https://h.example\\@evil",
    "https://h.example\n", "file:///etc/passwd", "https://[fe80::1%25eth0]",
])
def test_what_is_no_base_url(text: str) -> None:
    with pytest.raises(WrongValue) as caught:
        normalise_base_url(text)
    assert "pw" not in str(caught.value)


@given(st.text(max_size=80))
def test_any_text_is_normalised_once_and_for_all_or_refused(text: str) -> None:
    for each in (text, "https://" + text, "http://127.0.0.1/" + text):
        try:
            url = normalise_base_url(each)
        except WrongValue:
            continue
        assert normalise_base_url(url) == url
        assert url.isascii() and url.startswith(("https://", "http://"))


def test_loopback_is_told_by_spelling_alone() -> None:
    assert all(map(is_loopback, ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1"]))
    assert not any(map(is_loopback, ["", "localhost.example", "127.0.0.1.example", "0.0.0.0", "::", "10.0.0.1"]))


def test_other_urls() -> None:
    assert parse_http_url("http://10.0.0.1:8000/hook?x=1") == "http://10.0.0.1:8000/hook?x=1"
    secret = parse_secret_url("https://h.example/bot123:abc/send?key=k")
    assert (secret.reveal(), str(secret)) == ("https://h.example/bot123:abc/send?key=k", "https://h.example/***")
    assert str(parse_secret_url("https://h.example/")) == "https://h.example/"
    for text in ("https://u:p@h.example/", "h.example", "https://h.example/#x"):
        with pytest.raises(WrongValue):
            parse_http_url(text)


@pytest.mark.parametrize(("text", "shown"), [
    ("postgresql://user:pa%40ss@db.example:5432/router?sslmode=require", "postgresql://user:***@db.example:5432/router?***"),
    ("postgres://db/router", "postgresql://db/router"),
    ("postgresql:///router", "postgresql:///router"),
])
def test_database_urls_are_shown_without_password(text: str, shown: str) -> None:
    assert (parse_database_url(text).reveal(), str(parse_database_url(text))) == (text, shown)


@pytest.mark.parametrize("text", [
    "mysql://u:hunter2@h/d", "postgresql://u:12/hunter2@h/d", "postgresql://u:12#hunter2@h/d", "postgresql://h:x/hunter2",
    "postgresql://u:hunter2 @h/d", "hunter2",
])
def test_wrong_database_urls_are_not_repeated(text: str) -> None:
    with pytest.raises(WrongValue) as caught:
        parse_database_url(text)
    assert "hunter2" not in str(caught.value)
