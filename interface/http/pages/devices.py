"""Devices: who has called, when its last image came, admitting or refusing it, and C-ECHO."""

from __future__ import annotations

from typing import Annotated

from fastapi import Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from interface.cli_devices import VERBS, parse_caller
from interface.dimse.echo import echo
from interface.http.actor import CurrentActor
from interface.http.context import CurrentContext, WebContext
from interface.http.pages.render import page
from interface.http.rights import Right
from interface.http.routes import Routes
from interface.http.tasks import Line, Task
from internal import admission, devices
from internal.config.values import split_commitment_caller
from internal.devices import Verdict
from internal.errors import NotFound
from internal.peers import with_port

_MOST = 200
_DEFAULT_PORT = 104

routes = Routes(in_schema=False)


@routes.get("/devices", right=Right.VIEW)
def list_devices(request: Request, context: CurrentContext) -> HTMLResponse:
    """Show every caller, those nobody has decided on first."""
    with context.reading() as tx:
        found = devices.list_devices(tx)
    return page(request, "devices.html", devices=found[:1000], policy=context.settings.dicom.unknown_callers)


@routes.post("/devices", right=Right.OPERATE)
def decide(
    context: CurrentContext, actor: CurrentActor,
    device: Annotated[list[str], Form(max_length=_MOST)] = [],  # noqa: B006 - FastAPI copies it
    verb: Annotated[str, Form(max_length=16)] = "",
) -> Response:
    """Admit, hold, refuse or forget some callers; what waited for it goes on at once."""
    if verb not in VERBS:
        raise NotFound("there is no such decision")
    if not device:
        return RedirectResponse("/devices?done=none-picked", status_code=303)
    default = Verdict(context.settings.dicom.unknown_callers)
    with context.acting(actor, f"device.{verb}", subject=", ".join(device)[:500]) as action:
        before = devices.decisions(action.tx)
        for text in device:
            caller = parse_caller(text)
            action.fields.setdefault("before", {})[text] = str(before.get(caller, ""))
            admission.decide(action.tx, *caller, VERBS[verb], default=default, who=actor.author, now=action.now)
    admission.publish(context.store, context.spool)
    return RedirectResponse(f"/devices?done=device&n={len(device)}", status_code=303)


def _known(context: WebContext, device: str) -> tuple[str, str]:
    """Return a caller that this router has seen; others are never called. Raises NotFound."""
    caller = parse_caller(device)
    with context.reading() as tx:
        if not caller[1] or not any((one.aet, one.address) == caller for one in devices.list_devices(tx)):
            raise NotFound("no such device has called this router")
    return caller


@routes.get("/devices/echo", right=Right.OPERATE)
def echo_form(request: Request, context: CurrentContext, device: str = "") -> HTMLResponse:
    """Ask for the port: a device's calls do not tell where it listens."""
    aet, address = _known(context, device)
    known = [split_commitment_caller(text) for text in context.settings.dicom.commitment_callers]
    port = next((port for title, host, port in known if title == aet and host == address), _DEFAULT_PORT)
    return page(request, "echo.html", aet=aet, address=address, port=port)


@routes.post("/devices/echo", right=Right.OPERATE)
def send_echo(
    context: CurrentContext, actor: CurrentActor, device: Annotated[str, Form(max_length=200)] = "",
    port: Annotated[int, Form(ge=1, le=65535)] = _DEFAULT_PORT,
) -> Response:
    """Ask a device whether it answers."""
    aet, address = _known(context, device)
    called = f"{aet}@{with_port(address, port)}"
    with context.acting(actor, "device.echo", subject=called):
        pass

    def ask(task: Task) -> None:
        answered = echo(address, port, calling=context.settings.satusehat.ae_title, called=aet)
        task.lines.append(Line(called, answered.ok, answered.text, answered.advice))
        task.failed += not answered.ok

    task = context.tasks.start(Task("C-ECHO", actor.author, "/devices", subject=aet), ask)
    return RedirectResponse(f"/progress/{task.task_id}", status_code=303)
