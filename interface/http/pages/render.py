"""Templates to pages: escaped always, in the reader's language, with what every page needs.

    return page(request, "study.html", study=study)            # status=404 and so on where it is not 200
    return part(request, "studies_rows.html", found=found)     # a piece that replaces a piece of a page

Every template gets `actor`, `csrf`, `language`, `theme`, `_`, `pen`, `environment`, `may` and `Right`; a page also the
counts beside its navigation. Imports jinja2, the context and overview. Changes when every page needs something more.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from interface.http.actor import Actor, anonymous
from interface.http.context import WebContext
from interface.http.pages import charts, wording
from interface.http.pages.pen import LANGUAGES, Pen, grouped, translations
from interface.http.rights import Right
from internal import overview
from internal.errors import RouterError
from internal.states import State

LANGUAGE_COOKIE = "language"
THEME_COOKIE = "theme"
THEMES = ("auto", "light", "dark")
_FOLDER = Path(__file__).parent
_MAX_NOTICES = 1_000_000


def language_of(request: Request) -> str:
    """Return the reader's language: their choice (cookie), what the browser asks for, else that of the settings."""
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    if chosen in LANGUAGES:
        return chosen
    for part_ in request.headers.get("accept-language", "")[:200].split(","):
        word = part_.partition(";")[0].strip().lower().partition("-")[0]
        if word in LANGUAGES:
            return word
    return str(request.app.state.context.settings.router.language)


def theme_of(request: Request) -> str:
    """Return the reader's theme: "auto" follows the device."""
    chosen = request.cookies.get(THEME_COOKIE, "")
    return chosen if chosen in THEMES else "auto"


def pen_of(request: Request) -> Pen:
    """Return what writes values for this reader."""
    context: WebContext = request.app.state.context
    return Pen(language_of(request), ZoneInfo(context.settings.satusehat.tz_name), context.clock.now_ms())


@cache
def _environment(language: str) -> Environment:
    made = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.i18n"],
    )
    made.install_gettext_translations(translations(language), newstyle=True)  # type: ignore[attr-defined]
    catalogue = translations(language)

    def plural(one: str, many: str, number: int) -> str:
        return catalogue.ngettext(one, many, number) % {"num": grouped(number, language)}

    made.filters["segment"] = segment
    made.globals |= {
        "plural": plural,
        "Right": Right, "charts": charts, "wording": wording, "LANGUAGES": LANGUAGES, "THEMES": THEMES,
    }
    return made


def segment(text: str) -> str:
    """Return what comes from a device as one piece of an address on this host, whatever characters it has."""
    return quote(text, safe="") if text.strip(".") else text.replace(".", "%2E")


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Return the page; it is never kept by caches, since it is somebody's own."""
    return part(request, template, status=status, **{
        "notice": _notice(request), "counts": _counts(request), **values})


def part(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a piece of a page."""
    actor: Actor = getattr(request.state, "actor", None) or anonymous("")
    context: WebContext = request.app.state.context
    language = language_of(request)
    text = _environment(language).get_template(template).render(
        request=request, actor=actor, csrf=actor.csrf, may=actor.may, language=language, theme=theme_of(request),
        pen=pen_of(request), environment=context.environment, version=context.version, path=request.url.path, **values)
    return HTMLResponse(text, status_code=status, headers={"Cache-Control": "no-store", "Vary": "Cookie"})


def _counts(request: Request) -> dict[str, int]:
    """Return how much waits and is held, for the navigation; {} where nobody may know or the database is away."""
    actor: Actor = getattr(request.state, "actor", None) or anonymous("")
    if not actor.may(Right.VIEW) or actor.must_change:
        return {}
    try:
        with request.app.state.context.reading() as tx:
            causes = overview.causes(tx)
    except RouterError:
        return {}
    return {"held": sum(one.jobs for one in causes if one.state is State.HELD),
            "waiting": overview.deliveries(causes, State.WAITING, State.DEFERRED)}


def _notice(request: Request) -> tuple[str, str] | None:
    """Return what the last action did, as its redirect says: a known code and a number."""
    count = request.query_params.get("n", "1")
    number = min(int(count), _MAX_NOTICES) if re.fullmatch(r"[0-9]{1,9}", count) else 1
    return notice_of(request, request.query_params.get("done", ""), number)


def notice_of(request: Request, code: str, number: int) -> tuple[str, str] | None:
    """Return (class, sentence) of what an action did; None for a code that is none."""
    found = wording.NOTICES.get(code)
    if found is None:
        return None
    kind, words = found
    return kind, pen_of(request).n(*words, number)


def wants_page(request: Request) -> bool:
    """Return whether a person's browser asks, who should see a page instead of JSON."""
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith(("/api", "/metrics"))
