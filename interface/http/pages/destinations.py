"""Destinations: how each lane does, pausing and resuming it, and testing the way to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from interface import actions
from interface.destinations import build
from interface.http.actor import CurrentActor
from interface.http.context import CurrentContext
from interface.http.pages.pen import Pen
from interface.http.pages.render import page, pen_of
from interface.http.pages.wording import mark
from interface.http.rights import Right
from interface.http.routes import Routes
from interface.http.tasks import Line, Task
from internal import jobs, overview
from internal.config import Settings
from internal.errors import NotFound
from internal.lanes import BREAKER
from internal.overview import Cause
from internal.states import State
from internal.store import Tx

routes = Routes(in_schema=False)


@dataclass(frozen=True, slots=True)
class LaneView:
    """A lane for people: class and words of its chip, why and what to do, how many deliveries are where."""

    name: str
    environment: str
    kind: str
    text: str
    says: str
    step: str
    paused: bool
    paused_by_person: bool
    alert: bool
    moving: int
    waiting: int
    held: int


def lane_views(tx: Tx, environments: Mapping[str, str], pen: Pen, causes: Sequence[Cause]) -> list[LaneView]:
    """Return every configured destination's lane, in their order."""
    return [_view(tx, name, environment, pen, causes) for name, environment in environments.items()]


def _view(tx: Tx, name: str, environment: str, pen: Pen, causes: Sequence[Cause]) -> LaneView:
    lane = jobs.lane(tx, name)
    paused = lane.paused_until > pen.now
    by_person = paused and lane.paused_by != BREAKER
    kind, text, says, step = "ok", mark("Working"), "", ""
    if by_person:
        kind, text, says = "wait", mark("Paused"), lane.reason
    elif paused:
        kind, text, says, step = ("wait", mark("Does not answer: trying again"),
                                  str(pen.why(lane.reason_code, lane.reason)), str(pen.step(lane.reason_code)))
    elif lane.alert_code:
        kind, text, says = "held", mark("Needs attention"), str(pen.why(lane.alert_code, lane.alert))
    counts = {state: sum(one.jobs for one in causes if one.destination == name and one.state is state)
              for state in State}
    return LaneView(
        name, environment, kind, text, says, step, paused, by_person, bool(lane.alert_code),
        moving=counts[State.QUEUED] + counts[State.ACTIVE], waiting=counts[State.WAITING] + counts[State.DEFERRED],
        held=counts[State.HELD])


@routes.get("/destinations", right=Right.VIEW)
def destinations(request: Request, context: CurrentContext) -> HTMLResponse:
    """Show every destination."""
    with context.reading() as tx:
        lanes = lane_views(tx, context.environments, pen_of(request), overview.causes(tx))
    return page(request, "destinations.html", lanes=lanes)


def _known(settings: Settings, name: str) -> str:
    if name not in settings.lane_names():
        raise NotFound("there is no such destination")
    return name


@routes.post("/destinations/{name}/pause", right=Right.OPERATE)
def pause(
    name: str, context: CurrentContext, actor: CurrentActor, reason: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """Pause a lane until somebody resumes it."""
    with context.acting(actor, "lane.pause", subject=_known(context.settings, name), reason=reason) as action:
        actions.pause_lane(action.tx, name, reason=reason.strip(), who=actor.author, now=action.now)
    return RedirectResponse("/destinations?done=paused", status_code=303)


@routes.post("/destinations/{name}/resume", right=Right.OPERATE)
def resume(name: str, context: CurrentContext, actor: CurrentActor) -> Response:
    """Open a lane again, whoever paused it."""
    with context.acting(actor, "lane.resume", subject=_known(context.settings, name)) as action:
        actions.resume_lane(action.tx, name, who=actor.author, now=action.now)
    return RedirectResponse("/destinations?done=resumed", status_code=303)


@routes.post("/destinations/{name}/test", right=Right.OPERATE)
def test(name: str, context: CurrentContext, actor: CurrentActor) -> Response:
    """Try everything a delivery needs, changing nothing there; the results come one by one."""
    _known(context.settings, name)
    destination = next(one for one in build(context.settings) if one.name == name)
    with context.acting(actor, "lane.test", subject=name):
        pass

    def probe(task: Task) -> None:
        for one in destination.probe():
            task.lines.append(Line(one.name, one.ok, one.text, one.advice))
            task.failed += not one.ok
            if task.stopping:
                return

    task = context.tasks.start(Task(mark("Testing"), actor.author, "/destinations", subject=name), probe)
    return RedirectResponse(f"/progress/{task.task_id}", status_code=303)
