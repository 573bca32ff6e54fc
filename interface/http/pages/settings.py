"""Settings in force and where each comes from, and the history of those that are rows.

Secrets are masked before they get here; rows hold none. Changes when settings come from another place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Form, Request
from fastapi.responses import HTMLResponse

from interface.http.actor import CurrentActor
from interface.http.api.revisions import tell_receiver
from interface.http.context import CurrentContext, WebContext
from interface.http.pages.render import language_of, notice_of, page
from interface.http.pages.wording import mark
from interface.http.rights import Right
from interface.http.routes import Routes
from interface.lane_control import ground_of
from internal import catalogue, corrections, devices, lane_settings, rule_rows, settings_rows
from internal.config import Settings
from internal.config.rendering import listed_settings
from internal.errors import NotFound

#: Settings that are rows of the database, in the order of the page.
KINDS = {rule_rows.KIND: mark("Rules"), lane_settings.KIND: mark("Destinations"), devices.KIND: mark("Devices"),
         corrections.ALIAS: mark("Accession numbers that are always replaced")}
_ROWS_SHOWN = 100

routes = Routes(in_schema=False)

Kind = Annotated[str, Form(max_length=32)]
Name = Annotated[str, Form(max_length=200)]


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
    """Show everything that is set, in the file and in the database."""
    with context.reading() as tx:
        rows = {kind: catalogue.in_force(tx, kind) for kind in KINDS}
    return page(request, "settings.html", sections=sections_of(context.settings, language_of(request)), kinds=KINDS,
                rows={kind: found[:_ROWS_SHOWN] for kind, found in rows.items() if found},
                totals={kind: len(found) for kind, found in rows.items()})


@routes.post("/settings/history", right=Right.ADMINISTER)
def history(request: Request, context: CurrentContext, kind: Kind, name: Name) -> HTMLResponse:
    """Show who changed one setting, when and to what; its name may be an accession number, so it stands in the body."""
    return _history(request, context, kind, name)


@routes.post("/settings/rollback", right=Right.ADMINISTER)
def bring_back(
    request: Request, context: CurrentContext, actor: CurrentActor, kind: Kind, name: Name,
    revision: Annotated[int, Form(ge=1, le=1_000_000_000)],
) -> HTMLResponse:
    """Bring back what an earlier revision said, as a new revision, and show the history."""
    with context.acting(actor, "settings.rollback", subject=f"{kind}/{name}", restores=revision) as action:
        before = catalogue.newest(action.tx, kind, name)
        done = settings_rows.rollback(action.tx, kind, name, revision, ground_of(context.settings), who=actor.author,
                                      now=action.now)
        action.fields |= {"before": before.body if before else None, "after": done.body, "revision": done.revision}
    tell_receiver(context)
    return _history(request, context, kind, name, notice=notice_of(request, "brought-back", 1))


def _history(request: Request, context: WebContext, kind: str, name: str, **values: Any) -> HTMLResponse:
    with context.reading() as tx:
        found = catalogue.history(tx, kind, name, limit=_ROWS_SHOWN)
    if not found:
        raise NotFound("this was never changed here")
    return page(request, "setting_history.html", kind=kind, name=name, revisions=found, kinds=KINDS, **values)


def sections_of(settings: Settings, language: str) -> list[Section]:
    """Return every section in its order."""
    return [Section(name, [Row(one.setting.key, one.value, one.source,
                               one.setting.help if language == "en" else one.setting.help_id) for one in listed])
            for name, listed in listed_settings(settings)]
