"""Today: what has not arrived and why, what came, how the destinations and the disk are. No patient data."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from interface.http.context import CurrentContext, WebContext
from interface.http.health import read_roles
from interface.http.pages.destinations import lane_views
from interface.http.pages.render import page, part, pen_of
from interface.http.rights import Right
from interface.http.routes import Routes
from internal import overview, set_aside
from internal.states import State

_CAUSES_SHOWN = 12
_ASIDE_DAYS = 7
_STUCK = (State.HELD, State.WAITING, State.DEFERRED)

routes = Routes(in_schema=False)


@routes.get("/", right=Right.VIEW)
def today(request: Request, context: CurrentContext) -> HTMLResponse:
    """Show the first page."""
    return page(request, "today.html", **_values(request, context))


@routes.get("/today/live", right=Right.VIEW)
def live(request: Request, context: CurrentContext) -> HTMLResponse:
    """Return its figures as they are now."""
    return part(request, "today_live.html", **_values(request, context))


def _values(request: Request, context: WebContext) -> dict[str, Any]:
    pen = pen_of(request)
    with context.reading() as tx:
        aside, _ = set_aside.count_open(tx, pen.now - _ASIDE_DAYS * overview.DAY_MS)
        causes = overview.causes(tx)
        day = overview.day(tx, pen.midnight())
        receiving = overview.count_receiving(tx)
        lanes = lane_views(tx, context.environments, pen, causes)
        forecast = overview.forecast(tx, context.spool.free_bytes(), pen.now)
    return {
        "causes": [one for one in causes if one.state in _STUCK][:_CAUSES_SHOWN], "day": day, "receiving": receiving,
        "open_jobs": overview.deliveries(causes, *State), "held": overview.deliveries(causes, State.HELD),
        "waiting": overview.deliveries(causes, State.WAITING, State.DEFERRED),
        "moving": overview.deliveries(causes, State.QUEUED, State.ACTIVE), "lanes": lanes, "forecast": forecast,
        "aside": aside,
        "roles": {name: bool(role["ok"]) for name, role in read_roles(context.spool, pen.now).items()},
    }
