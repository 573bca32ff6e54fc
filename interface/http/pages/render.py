"""Templates to pages: escaped always, in the reader's language, with what every page needs.

    return page(request, "study.html", study=study)            # status=404 and so on where it is not 200

Every template gets `actor`, `csrf`, `language`, `_`, `environment`, `may` and `Right`. Imports jinja2 and the context.
Changes when every page needs something more.
"""

from __future__ import annotations

import gettext
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from interface.http.actor import Actor, anonymous
from interface.http.rights import Right

LANGUAGES = ("id", "en")
LANGUAGE_COOKIE = "language"
_FOLDER = Path(__file__).parent
_DOMAIN = "pages"


def language_of(request: Request) -> str:
    """Return the reader's language: their choice (cookie), what the browser asks for, else that of the settings."""
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    if chosen in LANGUAGES:
        return chosen
    for part in request.headers.get("accept-language", "")[:200].split(","):
        word = part.partition(";")[0].strip().lower().partition("-")[0]
        if word in LANGUAGES:
            return word
    return str(request.app.state.context.settings.router.language)


@cache
def _translations(language: str) -> gettext.NullTranslations:
    return gettext.translation(_DOMAIN, _FOLDER / "translations", [language], fallback=True)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )
    environment.globals["Right"] = Right
    return environment


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Return the page; it is never kept by caches, since it is somebody's own."""
    actor: Actor = getattr(request.state, "actor", None) or anonymous("")
    language = language_of(request)
    catalogue = _translations(language)
    context = request.app.state.context
    text = _environment().get_template(template).render(
        request=request, actor=actor, csrf=actor.csrf, may=actor.may, language=language, _=catalogue.gettext,
        ngettext=catalogue.ngettext, environment=context.environment, version=context.version, **values)
    return HTMLResponse(text, status_code=status, headers={"Cache-Control": "no-store", "Vary": "Cookie"})


def wants_page(request: Request) -> bool:
    """Return whether a person's browser asks, who should see a page instead of JSON."""
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith(("/api", "/metrics"))
