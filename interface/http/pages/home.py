"""The first page after login."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import HTMLResponse

from interface.http.actor import CurrentActor
from interface.http.pages.render import page
from interface.http.rights import Right
from interface.http.routes import Routes

routes = Routes(in_schema=False)


@routes.get("/", right=Right.VIEW)
def home(request: Request, actor: CurrentActor) -> HTMLResponse:
    """Show where everything is."""
    return page(request, "home.html")
