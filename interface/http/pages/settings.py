"""Settings in force and where each comes from; secrets are masked before they get here."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import HTMLResponse

from interface.http.context import CurrentContext
from interface.http.pages.render import language_of, page
from interface.http.rights import Right
from interface.http.routes import Routes
from internal.config import Settings
from internal.config.rendering import listed_settings

routes = Routes(in_schema=False)


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as it counts."""

    key: str
    value: str
    source: str
    help: str


@dataclass(frozen=True, slots=True)
class Section:
    """One section with its settings."""

    name: str
    settings: list[Row]


@routes.get("/settings", right=Right.ADMINISTER)
def settings(request: Request, context: CurrentContext) -> HTMLResponse:
    """Show everything that is set."""
    return page(request, "settings.html", sections=sections_of(context.settings, language_of(request)))


def sections_of(settings: Settings, language: str) -> list[Section]:
    """Return every section in its order."""
    return [Section(name, [Row(one.setting.key, one.value, one.source,
                               one.setting.help if language == "en" else one.setting.help_id) for one in listed])
            for name, listed in listed_settings(settings)]
