"""The audit trail, newest first."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request
from fastapi.responses import HTMLResponse

from interface.http.context import CurrentContext
from interface.http.pages.render import page
from interface.http.rights import Right
from interface.http.routes import Routes
from internal import audit_trail

_PAGE = 100

routes = Routes(in_schema=False)


@routes.get("/audit", right=Right.ADMINISTER)
def audit(
    request: Request, context: CurrentContext, before: Annotated[int | None, Query(ge=1, le=2**53)] = None,
    author: str = "", action: str = "",
) -> HTMLResponse:
    """Show entries, those of one person or kind where asked for."""
    with context.reading() as tx:
        found = audit_trail.entries(tx, before_seq=before, author=author[:100], action=action[:60], limit=_PAGE + 1)
    return page(request, "audit.html", entries=found[:_PAGE], more=len(found) > _PAGE, author=author, action=action)
