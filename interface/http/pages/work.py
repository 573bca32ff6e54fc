"""Waiting room and Held: everything unfinished by cause, and orders to many at once (never accession or order)."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import Field

from interface.http.actor import Actor, CurrentActor
from interface.http.context import CurrentContext, WebContext
from interface.http.pages.render import page
from interface.http.pages.study_acts import order
from interface.http.pages.wording import mark
from interface.http.problems import Problem
from interface.http.rights import Right
from interface.http.routes import Routes
from interface.http.tasks import Task
from internal import overview, set_aside, study_list
from internal.errors import NotFound
from internal.states import State
from internal.store import Tx

_STATES = {"waiting": (State.WAITING, State.DEFERRED, State.ACTIVE, State.QUEUED), "held": (State.HELD,)}
_VERBS = ("retry", "urgent", "accept-partial", "cancel")
_CHUNK = 50
_ASIDE_SHOWN = 50

routes = Routes(in_schema=False)

Word = Annotated[str, Form(max_length=64)]
Picked = Annotated[list[Annotated[int, Field(ge=1, le=2**53)]], Form(max_length=_CHUNK)]


@routes.get("/waiting", right=Right.VIEW)
def waiting(
    request: Request, context: CurrentContext, actor: CurrentActor, reason: str | None = None, lane: str = "",
    after: str = "",
) -> HTMLResponse:
    """Show what is on its way or waits for something."""
    return page(request, "work.html", **_values(context, actor, "waiting", reason, lane, after))


@routes.get("/held", right=Right.VIEW)
def held(
    request: Request, context: CurrentContext, actor: CurrentActor, reason: str | None = None, lane: str = "",
    after: str = "",
) -> HTMLResponse:
    """Show what a person has to decide."""
    return page(request, "work.html", **_values(context, actor, "held", reason, lane, after))


def _values(
    context: WebContext, actor: Actor, kind: str, reason: str | None, lane: str, after: str,
) -> dict[str, Any]:
    with context.reading() as tx:
        causes = [one for one in overview.causes(tx) if one.state in _STATES[kind]]
        try:
            found, more = study_list.open_jobs(tx, _STATES[kind], reason_code=reason, destination=lane or None,
                                               after=after)
        except ValueError:
            raise Problem("invalid") from None
        aside = _set_aside(tx, _ASIDE_SHOWN if kind == "held" and reason is None and not after else 0)
    seen = [*(one.study.study_uid for one in found if one.study), *aside["aside_studies"]]
    context.note_view(actor, list(dict.fromkeys(seen)), kind)
    total = sum(one.jobs for one in causes if one.reason_code == reason and one.destination == lane)
    return {"kind": kind, "causes": causes, "jobs": found, "after": more, "reason": reason or "", "lane": lane,
            "chosen": reason is not None, "total": total, **aside}


def _set_aside(tx: Tx, limit: int) -> dict[str, Any]:
    """Return the newest files that cannot be read and of which nobody has said yet that they may be missing."""
    files = set_aside.list_set_aside(tx, limit, open_only=True)
    return {"aside": files, "aside_total": set_aside.count_open(tx)[0],
            "aside_studies": study_list.rows_of(tx, [one.study_uid for one in files if one.study_uid])}


@routes.post("/waiting", right=Right.OPERATE)
def order_waiting(
    context: CurrentContext, actor: CurrentActor, job: Picked = [],  # noqa: B006
    verb: Word = "", everything: Word = "", reason: Word = "", lane: Word = "", chosen: Word = "",
) -> Response:
    """Do the same to many that are not finished."""
    return _order(context, actor, "waiting", job, verb, (reason, lane) if chosen else None, everything == "1")


@routes.post("/held", right=Right.OPERATE)
def order_held(
    context: CurrentContext, actor: CurrentActor, job: Picked = [],  # noqa: B006
    verb: Word = "", everything: Word = "", reason: Word = "", lane: Word = "", chosen: Word = "",
) -> Response:
    """Do the same to many that are held."""
    return _order(context, actor, "held", job, verb, (reason, lane) if chosen else None, everything == "1")


def _order(
    context: WebContext, actor: Actor, kind: str, job_ids: list[int], verb: str, cause: tuple[str, str] | None,
    everything: bool,
) -> Response:
    if verb not in _VERBS:
        raise NotFound("there is no such order")
    back = f"/{kind}"
    if everything and cause is not None:
        task = context.tasks.start(Task(mark("Orders to many studies"), actor.author, back),
                                   lambda task: _order_all(task, context, actor, kind, verb, cause))
        return RedirectResponse(f"/progress/{task.task_id}", status_code=303)
    if cause is not None:
        back = f"{back}?{urlencode({'reason': cause[0], 'lane': cause[1]})}"
    joint = "&" if "?" in back else "?"
    if not job_ids:
        return RedirectResponse(f"{back}{joint}done=none-picked", status_code=303)
    moved = _order_some(context, actor, verb, job_ids)
    return RedirectResponse(f"{back}{joint}done={verb if moved else 'nothing'}&n={moved}", status_code=303)


def _order_some(context: WebContext, actor: Actor, verb: str, job_ids: list[int]) -> int:
    with context.acting(actor, f"study.{verb}", subject=f"{len(job_ids)} jobs", jobs=job_ids) as action:
        moved = order(action, context, verb, job_ids, actor.author)
        action.fields["moved"] = moved
    return moved


def _order_all(
    task: Task, context: WebContext, actor: Actor, kind: str, verb: str, cause: tuple[str, str],
) -> None:
    """Go through everything of one cause, a page at a time and each page in a transaction of its own."""
    reason, lane = cause
    with context.reading() as tx:
        task.total = sum(one.jobs for one in overview.causes(tx) if one.state in _STATES[kind]
                         and one.reason_code == reason and one.destination == lane)
    after = ""
    while not task.stopping:
        with context.reading() as tx:
            found, after = study_list.open_jobs(tx, _STATES[kind], reason_code=reason, destination=lane, after=after,
                                                limit=_CHUNK)
        if found:
            moved = _order_some(context, actor, verb, [one.job_id for one in found])
            task.failed += len(found) - moved
            task.done += len(found)
        if not after:
            return
