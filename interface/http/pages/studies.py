"""Studies: searching. What is typed comes in a POST body, so that no patient data stands in a URL."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Form, Request
from fastapi.responses import HTMLResponse
from pydantic import Field

from interface import actions
from interface.http.actor import CurrentActor
from interface.http.context import CurrentContext, WebContext
from interface.http.pages.render import notice_of, page, part
from interface.http.pages.study_acts import order
from interface.http.problems import Problem
from interface.http.rights import Right
from interface.http.routes import Routes
from internal import study_list
from internal.errors import NotFound
from internal.job_list import NOT_PROVEN
from internal.overview import RECEIVING
from internal.states import State
from internal.study_list import Search
from internal.study_terms import TermKind

_STATES = (State.HELD, State.WAITING, State.DEFERRED, RECEIVING, State.QUEUED, State.ACTIVE, State.DONE,
           NOT_PROVEN, State.CANCELLED)
_DUE = frozenset({State.QUEUED, State.WAITING, State.DEFERRED})
#: Order for many: the deliveries that it moves, those whose own page has this button.
_VERBS = {"send-now": _DUE, "urgent": _DUE, "retry": _DUE - {State.QUEUED} | {State.HELD, State.CANCELLED},
          "resend": frozenset({State.DONE}), "cancel": frozenset(State) - {State.DONE, State.CANCELLED}}
_DAY = re.compile(r"(\d{4})-(\d{2})-(\d{2})")

routes = Routes(in_schema=False)

Word = Annotated[str, Form(max_length=64)]


@routes.get("/studies", right=Right.VIEW)
def studies(
    request: Request, context: CurrentContext, actor: CurrentActor, state: str = "", modality: str = "",
    caller: str = "",
) -> HTMLResponse:
    """Show the newest studies, or those that a link asks for (never by anything of a patient)."""
    search = Search(modality=modality[:64], caller=caller[:64], state=state if state in _STATES else "")
    values = _found(context, actor, search, "")
    return page(request, "studies.html", **values, **_offered(context))


@routes.post("/studies", right=Right.VIEW)
def search_studies(
    request: Request, context: CurrentContext, actor: CurrentActor,
    text: Annotated[str, Form(max_length=200)] = "", state: Word = "", modality: Word = "", caller: Word = "",
    first: Word = "", last: Word = "", after: Annotated[str, Form(max_length=100)] = "",
) -> HTMLResponse:
    """Return what fits: the list alone where a script asks, else the whole page."""
    search = Search(text, modality, caller, state if state in _STATES else "", _da(first), _da(last))
    values = _found(context, actor, search, after)
    if request.headers.get("hx-request") == "true":
        return part(request, "studies_rows.html", **values)
    return page(request, "studies.html", **values, **_offered(context))


@routes.post("/studies/orders", right=Right.OPERATE)
def order_studies(
    request: Request, context: CurrentContext, actor: CurrentActor,
    study: Annotated[list[Annotated[str, Field(max_length=64)]], Form(max_length=study_list.PAGE)] = [],  # noqa: B006 - FastAPI copies it
    verb: Word = "", text: Annotated[str, Form(max_length=200)] = "", state: Word = "", modality: Word = "",
    caller: Word = "", first: Word = "", last: Word = "",
) -> HTMLResponse:
    """Do the same to the studies that were picked, and show the list again (never accession, order or patient)."""
    if verb not in _VERBS:
        raise NotFound("there is no such order")
    moved = _order(context, actor, verb, study) if study else 0
    search = Search(text, modality, caller, state if state in _STATES else "", _da(first), _da(last))
    notice = notice_of(request, verb if moved else "nothing" if study else "none-picked", moved)
    return page(request, "studies.html", **_found(context, actor, search, ""), **_offered(context), notice=notice)


def _order(context: WebContext, actor: CurrentActor, verb: str, study_uids: list[str]) -> int:
    """Move every delivery of these studies; return how many were moved (of "send-now": how many studies)."""
    with context.acting(actor, f"study.{verb}", subject=f"{len(study_uids)} studies", studies=study_uids) as action:
        found = study_list.rows_of(action.tx, study_uids)
        ids = [one.job_id for row in found.values() for one in row.deliveries if one.state in _VERBS[verb]]
        if verb == "send-now":
            actions.send_now(action.tx, list(found), ids, urgent=False, who=actor.author, now=action.now)
            moved = len(found)
        else:
            moved = order(action, context, verb, ids, actor.author)
        action.fields["moved"] = moved
    return moved


def _offered(context: WebContext) -> dict[str, Any]:
    with context.reading() as tx:
        return {"modalities": study_list.terms_of_kind(tx, TermKind.MODALITY),
                "callers": study_list.terms_of_kind(tx, TermKind.CALLER), "states": _STATES}


def _found(context: WebContext, actor: CurrentActor, search: Search, after: str) -> dict[str, Any]:
    with context.reading() as tx:
        try:
            found = study_list.find(tx, search, after)
        except ValueError:
            raise Problem("invalid") from None
    context.note_view(actor, [one.study_uid for one in found.studies], "studies")
    return {"found": found, "search": search, "after": after, "first": _iso(search.first_day),
            "last": _iso(search.last_day)}


def _da(text: str) -> str:
    """Return a date input's value as a DICOM date, "" for none."""
    found = _DAY.fullmatch(text)
    return "".join(found.groups()) if found else ""


def _iso(day: str) -> str:
    return f"{day[:4]}-{day[4:6]}-{day[6:]}" if day else ""
