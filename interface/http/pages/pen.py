"""How moments, ages, numbers, names and causes are written, in one language and time zone.

Imports wording and the translations of this package; no route, template or database. Changes when a page has to write
another kind of value.
"""

from __future__ import annotations

import gettext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

from markupsafe import Markup

from interface.http.pages import sentences, wording
from internal.overview import Share

LANGUAGES = {"id": "Bahasa Indonesia", "en": "English"}
DOMAIN = "pages"
_TRANSLATIONS = Path(__file__).parent / "translations"
_MONTHS = {
    "id": ("Jan", "Feb", "Mar", "Apr", "Mei", "Jun", "Jul", "Agu", "Sep", "Okt", "Nov", "Des"),
    "en": ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
}
_KILO = 1000


@lru_cache(maxsize=8)
def translations(language: str) -> gettext.NullTranslations:
    """Return the catalogue of a language; English is what the templates say."""
    return gettext.translation(DOMAIN, _TRANSLATIONS, [language], fallback=True)


def grouped(value: float, language: str) -> str:
    """Return a whole number with the thousands apart."""
    text = f"{value:,.0f}"
    return text.replace(",", ".") if language == "id" else text


@dataclass(frozen=True, slots=True)
class Pen:
    """Writes moments, ages, bytes and shares in one language and time zone; `now` in epoch ms."""

    language: str
    zone: ZoneInfo
    now: int

    def _(self, text: str) -> str:
        """Translate a msgid."""
        return translations(self.language).gettext(text)

    def n(self, one: str, many: str, number: int) -> str:
        """Translate by number and fill it in as %(num)s."""
        return translations(self.language).ngettext(one, many, number) % {"num": self.number(number)}

    def _local(self, at: int) -> datetime:
        return datetime.fromtimestamp(at / 1000, UTC).astimezone(self.zone)

    def iso(self, at: int) -> str:
        """Return a moment for machines."""
        return self._local(at).isoformat(timespec="seconds")

    def moment(self, at: int | None) -> str:
        """Return the time of today, or day and time."""
        if at is None:
            return ""
        local, today = self._local(at), self._local(self.now)
        clock = f"{local:%H:%M}"
        if local.date() == today.date():
            return clock
        day = f"{local.day} {_MONTHS[self.language][local.month - 1]}"
        return f"{day}, {clock}" if local.year == today.year else f"{day} {local.year}, {clock}"

    def day(self, text: str) -> str:
        """Return a DICOM date (YYYYMMDD) as people write it; what is none stays."""
        try:
            day = datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC)
        except ValueError:
            return text
        return f"{day.day} {_MONTHS[self.language][day.month - 1]} {day.year}"

    def midnight(self) -> int:
        """Return the first moment of today in epoch ms."""
        start = self._local(self.now).replace(hour=0, minute=0, second=0, microsecond=0)
        return int(start.timestamp() * 1000)

    def today(self) -> str:
        """Return today as a sentence writes it."""
        local = self._local(self.now)
        return f"{local.day} {_MONTHS[self.language][local.month - 1]} {local.year}"

    def span(self, span_ms: int) -> str:
        """Return a length of time in its two largest useful steps."""
        span = timedelta(milliseconds=max(span_ms, 0))
        minutes = span.seconds // 60
        if span.days >= 2:
            return self.n("%(num)s day", "%(num)s days", span.days)
        if span.days or minutes >= 120:
            return self.n("%(num)s hour", "%(num)s hours", span.days * 24 + minutes // 60)
        if minutes:
            return self.n("%(num)s minute", "%(num)s minutes", minutes)
        return self._("less than a minute")

    def ago(self, at: int | None) -> str:
        """Return how long ago a moment is."""
        return "" if at is None else self._("%(span)s ago") % {"span": self.span(self.now - at)}

    def number(self, value: float) -> str:
        """Return a number with the language's separators, no decimals."""
        return grouped(value, self.language)

    def size(self, size_bytes: float) -> str:
        """Return bytes in decimal units."""
        for unit in ("B", "KB", "MB", "GB"):
            if abs(size_bytes) < _KILO:
                return f"{self._decimal(size_bytes)} {unit}"
            size_bytes /= _KILO
        return f"{self._decimal(size_bytes)} TB"

    def _decimal(self, value: float) -> str:
        text = f"{value:.1f}" if value < 10 and value != int(value) else f"{value:.0f}"
        return text.replace(".", ",") if self.language == "id" else text

    def person(self, name: str) -> str:
        """Return a DICOM person name (PN) as people write it: family name last. Source: PS3.5 6.2.1.2."""
        family, _, rest = name.split("=")[0].partition("^")
        given = " ".join(filter(None, rest.split("^")[:2]))
        return f"{given} {family}".strip()

    def place(self, environment: str) -> str:
        """Return where a delivery goes: the address, and the organization there if it has one."""
        address, _, organization = environment.partition("|")
        return f"{address} · {organization}" if organization else address

    def element(self, name: str, value: str) -> str:
        """Return one element of a patient as people write it, whichever side it comes from (DICOM or FHIR)."""
        match name:
            case "name":
                return self.person(value)
            case "birth_date":
                return self.day(value.replace("-", ""))
            case "sex":
                known = wording.SEXES.get(value.upper())
                return self._(known) if known else value
        return value

    def share_words(self, share: Share) -> str:
        """Return what a bar of studies shows, in words."""
        return self._("%(total)s studies: %(delivered)s delivered, %(moving)s on the way, %(waiting)s waiting, "
                      "%(held)s held") % {
            "total": share.total, "delivered": share.delivered, "moving": share.moving, "waiting": share.waiting,
            "held": share.held}

    def why(self, code: str, reason: str) -> Markup:
        """Return the cause of a job in page words."""
        return wording.in_pages(wording.cause(code, reason, self.language), self._)

    def said(self, sentence: str) -> str:
        """Return a sentence of another part of the router in page words."""
        return sentences.in_page_words(sentence, self._, self.language)

    def step(self, code: str) -> Markup:
        """Return what to do about a cause in page words."""
        return wording.in_pages(wording.next_step(code, self.language), self._)
