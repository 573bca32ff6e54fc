"""Progress of long work, for whoever started it."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import HTMLResponse

from interface.http.actor import CurrentActor
from interface.http.context import CurrentContext
from interface.http.pages.render import page, part
from interface.http.rights import Right
from interface.http.routes import Routes

routes = Routes(in_schema=False)


@routes.get("/progress/{task_id}", right=Right.OPERATE)
def progress(task_id: str, request: Request, context: CurrentContext, actor: CurrentActor) -> HTMLResponse:
    """Show how far a task is."""
    return page(request, "progress.html", task=context.tasks.get(task_id, actor.author))


@routes.get("/progress/{task_id}/live", right=Right.OPERATE)
def live(task_id: str, request: Request, context: CurrentContext, actor: CurrentActor) -> HTMLResponse:
    """Return how far it is now; once it has ended nothing asks again."""
    return part(request, "progress_part.html", task=context.tasks.get(task_id, actor.author))
