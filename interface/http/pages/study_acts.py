"""What a person does to one study; each through the same functions as the command line, with its audit entry."""

from __future__ import annotations

from typing import Annotated

from fastapi import Form, Request
from fastapi.responses import RedirectResponse, Response

from interface import actions
from interface.acting import Action
from interface.http.actor import CurrentActor
from interface.http.api.parameters import JobId
from interface.http.context import CurrentContext, WebContext
from interface.http.pages.render import page, segment
from interface.http.pages.study import show_study
from interface.http.rights import Right
from interface.http.routes import Routes
from internal import corrections, jobs, study_list, withdrawals
from internal.errors import NotAllowed, NotFound
from internal.model import Job
from internal.store import Tx

routes = Routes(in_schema=False)

Reason = Annotated[str, Form(max_length=300)]
Word = Annotated[str, Form(max_length=64)]


def _done(study_uid: str, code: str, number: int = 1) -> Response:
    done = code if number else "nothing"
    return RedirectResponse(f"/studies/{segment(study_uid)}?done={done}&n={number}", status_code=303)


def _job(tx: Tx, study_uid: str, job_id: int) -> Job:
    """Return the job if it belongs to the study that the page is about. Raises NotFound."""
    job = jobs.job(tx, job_id)
    if job.study_uid != study_uid:
        raise NotFound("this study has no such job")
    return job


@routes.post("/studies/{study_uid}/jobs/{job_id}", right=Right.OPERATE)
def act(study_uid: str, job_id: JobId, context: CurrentContext, actor: CurrentActor, verb: Word = "") -> Response:
    """Try again, send first, send again, accept without some images, or stop one job."""
    with context.acting(actor, f"study.{verb or 'retry'}", study_uid=study_uid, subject=f"job {job_id}") as action:
        job = _job(action.tx, study_uid, job_id)
        action.fields["before"] = {"state": str(job.state), "reason_code": job.reason_code}
        moved = order(action, context, verb, [job_id], actor.author)
        action.fields["after"] = {"state": str(jobs.job(action.tx, job_id).state)}
    return _done(study_uid, verb, moved)


def order(action: Action, context: WebContext, verb: str, job_ids: list[int], who: str) -> int:
    """Do what a button says to some jobs; return how many were moved. Raises NotFound for an unknown button."""
    tx, now = action.tx, action.now
    match verb:
        case "retry" | "resend":
            return len(actions.retry(tx, job_ids, context.environments, who=who, now=now,
                                     resend=verb == "resend"))
        case "cancel":
            return len(actions.cancel(tx, job_ids, who=who, now=now))
        case "urgent":
            sent = actions.send_now(tx, [], job_ids, urgent=True, who=who, now=now)
            return len(job_ids) - len(sent.stopped)
        case "accept-partial":
            studies = {jobs.job(tx, job_id).study_uid for job_id in job_ids}
            return sum(len(jobs.accept_partial(tx, uid, who=who, now=now)) for uid in sorted(studies))
    raise NotFound("there is no such order")


@routes.post("/studies/{study_uid}/send-now", right=Right.OPERATE)
def send_now(study_uid: str, context: CurrentContext, actor: CurrentActor) -> Response:
    """Send the study without waiting for more images."""
    with context.acting(actor, "study.send-now", study_uid=study_uid) as action:
        if study_uid not in study_list.rows_of(action.tx, [study_uid]):
            raise NotFound("no such study has been received")
        ids = [row.job_id for row in jobs.jobs_of(action.tx, study_uid)]
        actions.send_now(action.tx, [study_uid], ids, urgent=False, who=actor.author, now=action.now)
    return _done(study_uid, "send-now")


@routes.post("/studies/{study_uid}/jobs/{job_id}/accession", right=Right.OPERATE)
def accession(
    study_uid: str, job_id: JobId, request: Request, context: CurrentContext, actor: CurrentActor, new: Word = "",
    choice: Word = "", reason: Reason = "",
) -> Response:
    """Let the study go out under another accession number; what is typed counts before what is chosen."""
    wanted = new.strip() or choice
    try:
        with context.acting(actor, "study.accession", study_uid=study_uid, reason=reason) as action:
            job = _job(action.tx, study_uid, job_id)
            action.fields |= {"before": job.accession or job.part, "after": wanted}
            corrections.correct(action.tx, job_id, wanted, reason=reason, who=actor.author, now=action.now)
    except (ValueError, NotAllowed) as fault:
        return show_study(study_uid, request, context, actor, fault=str(fault))
    return _done(study_uid, "accession")


@routes.post("/studies/{study_uid}/jobs/{job_id}/same-patient", right=Right.OPERATE)
def same_patient(
    study_uid: str, job_id: JobId, request: Request, context: CurrentContext, actor: CurrentActor, reason: Reason = "",
) -> Response:
    """Decide that both sides are one patient."""
    try:
        with context.acting(actor, "study.same-patient", study_uid=study_uid, reason=reason) as action:
            _job(action.tx, study_uid, job_id)
            moved = actions.same_patient(action.tx, [job_id], reason=reason, who=actor.author, now=action.now)
    except ValueError as fault:
        return show_study(study_uid, request, context, actor, fault=str(fault))
    return _done(study_uid, "same-patient", len(moved))


@routes.post("/studies/{study_uid}/discard", right=Right.OPERATE)
def discard(
    study_uid: str, request: Request, context: CurrentContext, actor: CurrentActor, reason: Reason = "",
) -> Response:
    """Give up a study that can never be delivered."""
    try:
        with context.acting(actor, "study.discard", study_uid=study_uid, reason=reason) as action:
            actions.discard(action.tx, study_uid, reason=reason, who=actor.author, now=action.now)
    except (ValueError, NotAllowed) as fault:
        return show_study(study_uid, request, context, actor, fault=str(fault))
    return _done(study_uid, "discard")


@routes.post("/studies/{study_uid}/undo-discard", right=Right.OPERATE)
def undo_discard(study_uid: str, context: CurrentContext, actor: CurrentActor) -> Response:
    """Bring a discarded study back."""
    with context.acting(actor, "study.undo-discard", study_uid=study_uid) as action:
        actions.undo_discard(action.tx, study_uid, who=actor.author, now=action.now)
    return _done(study_uid, "undo-discard")


@routes.post("/studies/{study_uid}/jobs/{job_id}/withdraw", right=Right.OPERATE)
def withdraw(
    study_uid: str, job_id: JobId, request: Request, context: CurrentContext, actor: CurrentActor, reason: Reason = "",
) -> Response:
    """Ask to take a delivered study back; the code for the second person is shown once."""
    try:
        with context.acting(actor, "study.withdraw", study_uid=study_uid, reason=reason) as action:
            _job(action.tx, study_uid, job_id)
            code = withdrawals.request(action.tx, job_id, reason=reason, who=actor.author, now=action.now)
    except (ValueError, NotAllowed) as fault:
        return show_study(study_uid, request, context, actor, fault=str(fault))
    return page(request, "withdraw_code.html", code=code, study_uid=study_uid)


@routes.post("/studies/{study_uid}/jobs/{job_id}/withdraw-confirm", right=Right.OPERATE)
def withdraw_confirm(
    study_uid: str, job_id: JobId, request: Request, context: CurrentContext, actor: CurrentActor, code: Word = "",
) -> Response:
    """Confirm as the second person: the study is taken back for good."""
    try:
        with context.acting(actor, "study.withdraw-confirm", study_uid=study_uid) as action:
            job = _job(action.tx, study_uid, job_id)
            withdrawals.confirm(action.tx, study_uid, job.part, code, who=actor.author, now=action.now)
    except (NotAllowed, NotFound) as fault:
        return show_study(study_uid, request, context, actor, fault=str(fault))
    return _done(study_uid, "withdrawn")
