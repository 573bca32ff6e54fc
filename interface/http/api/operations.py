"""/api/v1/lanes, devices, aliases and orders: what the router works with, and who may change it.

Changes when something else of the router is run over the API.
"""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Literal

from pydantic import Field

from interface import actions
from interface.acting import Action
from interface.destinations import build
from interface.http.api import shapes
from interface.http.api.changing import Answer, CurrentChange
from interface.http.api.parameters import Accession, Body, LaneName, Line, MaybeWhy
from interface.http.context import CurrentContext
from interface.http.rights import Right
from interface.http.routes import Routes
from internal import admission, corrections, devices, jobs
from internal.decisions import KnownOrder
from internal.devices import Verdict
from internal.doctor import read_alias_file
from internal.errors import NotAllowed, NotFound
from internal.identity import Person
from internal.lanes import Lane
from internal.peers import canonical
from internal.store import Tx

routes = Routes("/api/v1", tags=["operations"])
_MAX_PROBES = 20


# --- lanes ---------------------------------------------------------------------------------------------------------

@routes.get("/lanes", right=Right.VIEW)
def lanes(context: CurrentContext) -> list[shapes.LaneShape]:
    """Return the lane of every destination."""
    present = context.environments
    now = context.clock.now_ms()
    with context.reading() as tx:
        found = [jobs.lane(tx, name) for name in present]
    return [_lane_shape(one, present[one.name], now) for one in found]


@routes.post("/lanes/{name}/pause", right=Right.OPERATE)
def pause(name: LaneName, change: CurrentChange, body: MaybeWhy | None = None) -> shapes.LaneShape:
    """Pause a lane until somebody resumes it; what is on its way stops at the next image."""
    reason = body.reason if body else ""

    def make(action: Action) -> Answer:
        actions.pause_lane(action.tx, name, reason=reason, who=change.actor.author, now=action.now)
        return _shown(change, action.tx, name, action.now)

    _check_lane(change, name)
    return shapes.LaneShape(**change.make("lane.pause", make, asked=[name, reason], subject=name, reason=reason))


@routes.post("/lanes/{name}/resume", right=Right.OPERATE)
def resume(name: LaneName, change: CurrentChange) -> shapes.LaneShape:
    """Open a lane, whoever or whatever paused it, and take its alert down."""

    def make(action: Action) -> Answer:
        actions.resume_lane(action.tx, name, who=change.actor.author, now=action.now)
        return _shown(change, action.tx, name, action.now)

    _check_lane(change, name)
    return shapes.LaneShape(**change.make("lane.resume", make, asked=name, subject=name))


@routes.post("/lanes/{name}/test", right=Right.OPERATE)
def test(name: LaneName, change: CurrentChange) -> list[shapes.ProbeShape]:
    """Try what a delivery would need, one line each; changes nothing there."""
    _check_lane(change, name)

    def act() -> Answer:
        destination = next(one for one in build(change.context.settings) if one.name == name)
        lines = [shapes.ProbeShape(name=probe.name, ok=probe.ok, text=probe.text, advice=probe.advice)
                 for probe in islice(destination.probe(), _MAX_PROBES)]
        return change.tested("lane.test", name, lines)

    return [shapes.ProbeShape(**line) for line in change.once("lane.test", act, asked=name)["lines"]]


def _check_lane(change: CurrentChange, name: str) -> None:
    if name not in change.context.environments:
        raise NotFound("no such lane")


def _shown(change: CurrentChange, tx: Tx, name: str, now: int) -> Answer:
    return _lane_shape(jobs.lane(tx, name), change.context.environments[name], now).model_dump()


def _lane_shape(one: Lane, environment: str, now: int) -> shapes.LaneShape:
    is_open = one.paused_until <= now
    return shapes.LaneShape(
        name=one.name, environment=environment, open=is_open, paused_until_at=None if is_open else one.paused_until,
        paused_by="" if is_open else one.paused_by, reason=shapes.Reason.of("" if is_open else one.reason_code),
        words="" if is_open else one.reason, failures=one.failures, down_since_at=one.down_since or None,
        alert=one.alert)


# --- devices -------------------------------------------------------------------------------------------------------

class Decision(Body):
    """What happens to what a caller sends; null forgets earlier words. `address` "" means from anywhere.

    An IPv6 address may stand in brackets.
    """

    aet: Annotated[str, Field(pattern=r"^[\x20-\x5b\x5d-\x7e]{1,16}$")]
    address: Annotated[str, Field(pattern=r"^(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Fa-f:.]{0,45})$")] = ""
    verdict: Literal["accept", "hold", "refuse"] | None


@routes.get("/devices", right=Right.VIEW)
def list_devices(context: CurrentContext) -> list[shapes.DeviceShape]:
    """Return every caller seen or decided upon, those without a decision first."""
    with context.reading() as tx:
        return [shapes.DeviceShape.model_validate(one) for one in devices.list_devices(tx)]


@routes.post("/devices/decide", right=Right.OPERATE)
def decide(body: Decision, change: CurrentChange) -> shapes.DeviceShape:
    """Admit, hold or refuse a caller; studies that were held for it go on when it is admitted."""
    address = canonical(body.address)

    def make(action: Action) -> Answer:
        before = devices.decisions(action.tx).get((body.aet, address))
        verdict = Verdict(body.verdict) if body.verdict else None
        admission.decide(action.tx, body.aet, address, verdict, who=change.actor.author, now=action.now,
                         default=Verdict(change.context.settings.dicom.unknown_callers))
        action.fields |= {"before": str(before or ""), "after": body.verdict or ""}
        one = next((one for one in devices.list_devices(action.tx) if (one.aet, one.address) == (body.aet, address)),
                   None)
        shown = one or devices.Device(body.aet, address, None, None, None, "")
        return shapes.DeviceShape.model_validate(shown).model_dump()

    shown = change.make("device.decide", make, asked=body, subject=f"{body.aet}@{address}")
    admission.publish(change.context.store, change.context.spool)
    return shapes.DeviceShape(**shown)


# --- aliases of accession numbers ----------------------------------------------------------------------------------

class Sent(Body):
    """An accession number as a modality sends it."""

    sent: Accession


class NewAlias(Body):
    """What a modality sends, and what it means."""

    sent: Accession
    meant: Accession


class Alias(shapes.Shape):
    """One alias; `from_file`: it stands in alias_file and is changed there."""

    sent: str
    meant: str
    from_file: bool


@routes.get("/aliases", right=Right.VIEW)
def list_aliases(context: CurrentContext) -> list[Alias]:
    """Return the table of accession numbers; what stands in alias_file counts before what was added here."""
    fixed = _alias_file(context)
    with context.reading() as tx:
        table = corrections.aliases(tx) | fixed
    return [Alias(sent=sent, meant=meant, from_file=sent in fixed) for sent, meant in sorted(table.items())]


@routes.post("/aliases", right=Right.OPERATE)
def add_alias(body: NewAlias, change: CurrentChange) -> Alias:
    """Add an alias, or change one."""
    return _set_alias(change, body.sent, body.meant)


@routes.post("/aliases/remove", right=Right.OPERATE)
def remove_alias(body: Sent, change: CurrentChange) -> Alias:
    """Remove an alias; its history stays."""
    return _set_alias(change, body.sent, None)


def _set_alias(change: CurrentChange, sent: str, meant: str | None) -> Alias:
    if sent in _alias_file(change.context):
        raise NotAllowed("this alias stands in alias_file: change it there")

    def make(action: Action) -> Answer:
        action.fields |= {"before": corrections.aliases(action.tx).get(sent, ""), "after": meant or ""}
        try:
            corrections.set_alias(action.tx, sent, meant, author=change.actor.author, now=action.now)
        except ValueError as fault:
            raise NotAllowed(str(fault)) from None
        return {"sent": sent, "meant": meant or "", "from_file": False}

    name = "alias.set" if meant is not None else "alias.remove"
    return Alias(**change.make(name, make, asked=[sent, meant], subject=sent))


def _alias_file(context: CurrentContext) -> dict[str, str]:
    path = context.settings.satusehat.alias_file
    return read_alias_file(path if path.name else None)


# --- orders --------------------------------------------------------------------------------------------------------

class Patient(Body):
    """The patient of an order, as far as it is known."""

    name: Annotated[Line, Field(max_length=324)] = ""
    birth_date: Annotated[str, Field(pattern=r"^([0-9]{8})?$", description="YYYYMMDD")] = ""
    sex: Annotated[str, Field(pattern=r"^[MFO]?$")] = ""
    mrn: Annotated[Line, Field(max_length=64, description="The hospital's own number of the patient.")] = ""


class NewOrder(Body):
    """An order that the hospital system has sent to SATUSEHAT, or is about to."""

    order_id: Annotated[Line, Field(min_length=1, max_length=64, description="The sender's own id of this order.")]
    accession_number: Accession
    patient: Patient = Field(default_factory=Patient)
    modality: Annotated[str, Field(pattern=r"^[A-Z0-9_]{0,16}$")] = ""
    day: Annotated[str, Field(pattern=r"^([0-9]{8})?$", description="YYYYMMDD of the examination")] = ""
    urgent: bool = False


class OrderTaken(shapes.Shape):
    """How many waiting deliveries were woken by it."""

    woken: int


@routes.post("/orders", right=Right.ORDERS)
def order_came(body: NewOrder, change: CurrentChange) -> OrderTaken:
    """Say that an order has come: what waits for it is looked at at once. The same order again replaces it."""

    def make(action: Action) -> Answer:
        order = KnownOrder(
            f"api:{change.actor.author}", body.order_id, body.accession_number, Person(
                body.patient.name, body.patient.birth_date, body.patient.sex, body.patient.mrn),
            body.modality, body.day, urgent=body.urgent)
        woken = corrections.order_came(action.tx, order, action.now, who=change.actor.author)
        return {"woken": len(woken)}

    return OrderTaken(**change.make("order.came", make, asked=body, subject=body.order_id))
