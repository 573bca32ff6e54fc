"""One study: its way from the modality to the confirmation, why it stands where it stands, and what can be done."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from interface.destinations import PLATFORM
from interface.http.actor import CurrentActor
from interface.http.api.parameters import JobId
from interface.http.context import CurrentContext, WebContext
from interface.http.pages.render import page, part, pen_of
from interface.http.rights import Right
from interface.http.routes import Routes
from internal import corrections, decisions, jobs, study_list, timeline
from internal.decisions import Decision, Kind
from internal.doctor import read_alias_file
from internal.errors import NotFound
from internal.model import ItemState, Job
from internal.states import State
from internal.store import Tx
from internal.timeline import Story

_UNSENT = (State.QUEUED, State.WAITING, State.DEFERRED, State.HELD, State.CANCELLED)
_RECEIPTS_SHOWN = 500
_PATIENT = ("patient-mismatch", "mixed-patients")

routes = Routes(in_schema=False)


@routes.get("/studies/{study_uid}", right=Right.VIEW)
def study(study_uid: str, request: Request, context: CurrentContext, actor: CurrentActor) -> HTMLResponse:
    """Show the study."""
    return show_study(study_uid, request, context, actor)


def show_study(
    study_uid: str, request: Request, context: WebContext, actor: CurrentActor, *, fault: str = "",
) -> HTMLResponse:
    """Return the page of a study; with `fault`, why what was asked for was not done."""
    with context.reading() as tx:
        story = _story(tx, study_uid)
        values = _values(tx, story)
        values["proposals"] = _proposals(tx, context, values["correctable"])
    context.note_view(actor, [study_uid], "study")
    notice = {"notice": ("held", pen_of(request).said(fault))} if fault else {}
    return page(request, "study.html", status=409 if fault else 200, **values, **notice)


@routes.get("/studies/{study_uid}/live", right=Right.VIEW)
def live(study_uid: str, request: Request, context: CurrentContext, actor: CurrentActor) -> HTMLResponse:
    """Return what changes while somebody looks."""
    with context.reading() as tx:
        values = _values(tx, _story(tx, study_uid))
    context.note_view(actor, [study_uid], "study")
    return part(request, "study_live.html", **values)


@routes.get("/studies/{study_uid}/jobs/{job_id}/receipt", right=Right.VIEW)
def receipt(
    study_uid: str, job_id: JobId, request: Request, context: CurrentContext, actor: CurrentActor,
) -> HTMLResponse:
    """Show what proves that a study has arrived, image by image; made for printing too."""
    with context.reading() as tx:
        job = jobs.job(tx, job_id)
        found = study_list.rows_of(tx, [study_uid])
        if job.study_uid != study_uid or study_uid not in found:
            raise NotFound("this study has no such job")
        items = jobs.items_of(tx, job_id, job.environment)
    context.note_view(actor, [study_uid], "receipts")
    counts = Counter(item.state for item in items)
    return page(request, "receipt.html", job=job, study=found[study_uid], items=items[:_RECEIPTS_SHOWN],
                total=len(items), outcomes=[(state, counts[state]) for state in ItemState if counts[state]])


def _story(tx: Tx, study_uid: str) -> Story:
    story = timeline.story(tx, study_uid, PLATFORM)
    if story is None:
        raise NotFound("no such study has been received")
    return story


def _values(tx: Tx, story: Story) -> dict[str, Any]:
    deliveries = [one.job for one in story.courses if one.job.kind == "deliver"]
    platform = [job for job in deliveries if job.destination == PLATFORM]
    stopped = all(job.state in (State.HELD, State.CANCELLED) for job in deliveries)
    return {
        "story": story, "pictures": not story.purged,
        "correctable": [job for job in platform if job.state in _UNSENT and not job.facts.get("imaging_study_id")],
        "mismatched": [job for job in platform if job.state is State.HELD and job.reason_code in _PATIENT],
        "discarded": decisions.find_decision(tx, Kind.DISCARD, story.study.study_uid) is not None,
        "discardable": bool(deliveries) and stopped,
        "registered": [(job, _asked(tx, job)) for job in platform if _is_registered(tx, job)],
    }


def _is_registered(tx: Tx, job: Job) -> bool:
    return bool(job.facts.get("imaging_study_id")) and not decisions.is_withdrawn(tx, job.study_uid, job.destination)


def _asked(tx: Tx, job: Job) -> Decision | None:
    return decisions.find_decision(tx, Kind.WITHDRAW, job.study_uid, job.part)


def _proposals(tx: Tx, context: WebContext, found: list[Job]) -> dict[int, list[Any]]:
    path = context.settings.satusehat.alias_file
    table = corrections.aliases(tx) | read_alias_file(path if path.name else None)
    return {job.job_id: corrections.proposals(tx, job, table) for job in found}
