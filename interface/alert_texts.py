"""Alerts in words for e-mail, webhooks, pages and API; Bahasa Indonesia and English, never patient data.

Pure. Imports explain for the next step. Changes when people should be told more about an alert.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any
from urllib.parse import parse_qsl, urlencode

from interface.explain import explain
from internal.alerts import Condition, News

DEFAULT_BODY = '{"text": "{text}"}'
PLACEHOLDERS = ("text", "title", "news", "rule", "condition", "subject", "router", "since")
_PLACEHOLDER = re.compile(r"\{(" + "|".join(PLACEHOLDERS) + r")\}")
TEST = "test"
_NEWS: Mapping[str, tuple[str, str]] = {
    News.RAISED: ("PERINGATAN", "ALERT"), News.AGAIN: ("MASIH", "STILL"), News.CLEARED: ("SELESAI", "CLEARED"),
    TEST: ("UJI COBA", "TEST"),
}
_TEST_TEXT = ("Peringatan router akan datang lewat jalan ini.", "Alerts of the router will come this way.")
_TITLES: Mapping[Condition, tuple[str, str]] = {
    Condition.DEVICE_SILENT: ("alat {subject} diam", "device {subject} is silent"),
    Condition.WAITING: ("studi menunggu terlalu lama", "studies wait too long"),
    Condition.LANE_DOWN: ("tujuan {subject} tidak menjawab", "destination {subject} does not answer"),
    Condition.DISK: ("disk hampir penuh", "the disk is filling up"),
    Condition.CREDENTIALS: ("{subject} menolak kredensial", "{subject} refuses our credentials"),
    Condition.CLOCK: ("jam komputer tidak tepat", "the clock of this machine is off"),
    Condition.SET_ASIDE: ("berkas yang tidak terbaca disisihkan", "files that cannot be read were set aside"),
}
_DETAILS: Mapping[Condition, tuple[str, str]] = {
    Condition.DEVICE_SILENT: ("{hours} jam kebiasaannya berlalu tanpa citra; terakhir {last_at}.",
                              "{hours} of its usual hours have passed without an image; the last came {last_at}."),
    Condition.WAITING: ("{studies} studi menunggu, yang terlama sejak {since}.",
                        "{studies} studies wait, the oldest since {since}."),
    Condition.LANE_DOWN: ("Sejak {since}: {reason}", "Since {since}: {reason}"),
    Condition.DISK: ("Penuh dalam {days} hari; sisa {free_gb} GB.", "Full in {days} days; {free_gb} GB are left."),
    Condition.CREDENTIALS: ("Sejak {since}.", "Since {since}."),
    Condition.CLOCK: ("Selisih {seconds} detik dari {subject}.", "{seconds} seconds away from {subject}'s."),
    Condition.SET_ASIDE: ("{files} berkas sejak {since}.", "{files} files since {since}."),
}


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `fields` are the values of PLACEHOLDERS."""

    title: str
    text: str
    fields: Mapping[str, str]


def title_of(condition: Condition, subject: str, language: str) -> str:
    """Return in a few words what is wrong."""
    return _pick(_TITLES[condition], language).format(subject=_shown(subject))


def detail_of(condition: Condition, subject: str, detail: Mapping[str, Any], language: str, zone: tzinfo) -> str:
    """Return the figures of an alert in one sentence."""
    values = {name: _moment(value, zone) if name in ("since", "last_at") else str(value)
              for name, value in detail.items()}
    reason = explain(str(detail.get("reason_code", ""))).text(language) or values.get("reason_code", "")
    known = {"hours": "?", "last_at": "?", "studies": "?", "since": "?", "days": "?", "free_gb": "?", "seconds": "?",
             "files": "?"}
    return _pick(_DETAILS[condition], language).format(**known | values | {"reason": reason,
                                                                          "subject": _shown(subject)})


def build_message(facts: Mapping[str, Any], *, router: str, language: str, zone: tzinfo) -> Message:
    """Return what people are told of one alert (the facts of its job)."""
    condition, subject, news = Condition(facts["condition"]), str(facts["subject"]), str(facts["news"])
    title = f"{_pick(_NEWS[news], language)}: {title_of(condition, subject, language)}"
    if news == TEST:
        title = _pick(_NEWS[TEST], language)
    lines = [detail_of(condition, subject, facts["detail"], language, zone)]
    since = _moment(facts["raised_at"], zone)
    if news == TEST:
        lines = [_pick(_TEST_TEXT, language)]
    elif news == News.CLEARED:
        until = _moment(facts["cleared_at"], zone)
        lines = [f"{since} - {until}"]
    else:
        lines.append(explain(f"alert-{condition}").text(language))
    lines.append(f"{router} [{facts['rule']}]")
    text = "\n".join([title, *lines])
    fields = {"text": text, "title": title, "news": news, "rule": str(facts["rule"]), "condition": str(condition),
              "subject": _shown(subject), "router": router, "since": since}
    return Message(title, text, fields)


def fill_json(template: str, fields: Mapping[str, str]) -> bytes:
    """Return `template`, which is JSON, with placeholders in its texts filled in. Raises ValueError."""
    return json.dumps(_filled(json.loads(template or DEFAULT_BODY), fields), ensure_ascii=False).encode()


def fill_form(template: str, fields: Mapping[str, str]) -> bytes:
    """Return `template`, which is name=value&name=value, filled in and encoded. Raises ValueError."""
    pairs = parse_qsl(template or "text={text}", keep_blank_values=True, strict_parsing=True, max_num_fields=50)
    return urlencode([(name, _fill(value, fields)) for name, value in pairs]).encode()


def _filled(value: Any, fields: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _fill(value, fields)
    if isinstance(value, list):
        return [_filled(one, fields) for one in value]
    if isinstance(value, dict):
        return {name: _filled(one, fields) for name, one in value.items()}
    return value


def _fill(text: str, fields: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: fields[found[1]], text)


def _pick(words: tuple[str, str], language: str) -> str:
    return words[language == "en"]


def _shown(subject: str) -> str:
    """A device chooses its title: nothing but printable ASCII gets into a message."""
    return "".join(char if " " <= char <= "~" else "?" for char in subject[:64])


def _moment(at: Any, zone: tzinfo) -> str:
    if not isinstance(at, int) or not 0 < at < 1 << 45:
        return "?"
    return datetime.fromtimestamp(at / 1000, UTC).astimezone(zone).strftime("%d-%m-%Y %H:%M")
