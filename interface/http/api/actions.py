"""What a person may order, over the API: the same functions as command line and pages, each in the audit trail.

Every POST takes an Idempotency-Key. Changes when people get another order to give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import Field

from interface import actions
from interface.acting import Action
from interface.http.api import shapes
from interface.http.api.changing import Answer, CurrentChange
from interface.http.api.parameters import Accession, Body, JobId, MaybeWhy, Reason, StudyUid, Why
from interface.http.context import CurrentContext
from interface.http.rights import Right
from interface.http.routes import Routes
from internal import corrections, jobs, study_list, withdrawals
from internal.errors import NotAllowed, NotFound
from internal.model import Job
from internal.store import Tx

routes = Routes("/api/v1", tags=["actions"])


class Retry(Body):
    """`resend`: what counts as delivered is looked at again too; no image with a receipt is sent twice."""

    resend: bool = False


class SendNow(Body):
    """`urgent`: before everything else, also outside of send_hours."""

    urgent: bool = False


class Correction(Body):
    """The accession number of the order that a delivery goes to; the received images stay as they are."""

    accession_number: Accession
    reason: Reason


class Confirmation(Body):
    """The code that the first person was given."""

    code: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{1,64}$")]


class Proposal(shapes.Shape):
    """What an accession number was probably meant to be; `certain`: one order fits and a second identifier agrees."""

    accession_number: str
    rule: str
    certain: bool
    orders: int


class Proposals(shapes.Shape):
    """The proposals for one delivery."""

    received: str
    sent_as: str
    proposals: list[Proposal]


class SentOn(shapes.Shape):
    """What `send-now` did; those in `stopped` need a retry."""

    studies: list[str]
    woken: list[shapes.Moved]
    stopped: list[shapes.Moved]


class Asked(shapes.Shape):
    """`code` is for the second person, shown this once and good for a day."""

    study_uid: str
    code: str | None


class Started(shapes.Shape):
    """The job that does it."""

    job_id: int


class State(shapes.Shape):
    """The state a job has now."""

    job_id: int
    state: str


# --- studies -------------------------------------------------------------------------------------------------------

@routes.post("/studies/{study_uid}/retry", right=Right.OPERATE)
def retry_study(study_uid: StudyUid, body: Retry, change: CurrentChange) -> shapes.Acted:
    """Try every delivery of a study again now."""
    return _act(change, "study.retry", study_uid, None, body, _retrying(change, body))


@routes.post("/studies/{study_uid}/cancel", right=Right.OPERATE)
def cancel_study(study_uid: StudyUid, change: CurrentChange, body: MaybeWhy | None = None) -> shapes.Acted:
    """Stop every delivery of a study; the images are kept."""
    return _act(change, "study.cancel", study_uid, None, body, _cancelling(change))


@routes.post("/studies/{study_uid}/send-now", right=Right.OPERATE)
def send_study_now(study_uid: StudyUid, body: SendNow, change: CurrentChange) -> SentOn:
    """Do not wait until the study is quiet: send what is there."""

    def make(action: Action) -> Answer:
        _check_study(action.tx, study_uid)
        done = actions.send_now(action.tx, [study_uid], _deliveries(action.tx, study_uid), urgent=body.urgent,
                                who=change.actor.author, now=action.now)
        return SentOn(studies=done.studies, woken=_moved(done.woken), stopped=_moved(done.stopped)).model_dump()

    return SentOn(**change.make("study.send-now", make, asked=[study_uid, body], study_uid=study_uid,
                                urgent=body.urgent))


@routes.post("/studies/{study_uid}/accept-partial", right=Right.OPERATE)
def accept_partial(study_uid: StudyUid, body: Why, change: CurrentChange) -> shapes.Acted:
    """Let a study held as partly delivered go without the images that were refused or cannot be read."""
    return _act(change, "study.accept-partial", study_uid, None, body,
                lambda action, _ids: jobs.accept_partial(action.tx, study_uid, who=change.actor.author, now=action.now))


@routes.post("/studies/{study_uid}/discard", right=Right.OPERATE)
def discard(study_uid: StudyUid, body: Why, change: CurrentChange) -> shapes.Acted:
    """Give up a study that is held or cancelled everywhere; its images are removed in 30 days."""

    def make(action: Action) -> Answer:
        _check_study(action.tx, study_uid)
        actions.discard(action.tx, study_uid, reason=body.reason, who=change.actor.author, now=action.now)
        return _acted(jobs.Acted([], []))

    return shapes.Acted(**change.make("study.discard", make, asked=[study_uid, body], study_uid=study_uid,
                                      reason=body.reason))


@routes.post("/studies/{study_uid}/undo-discard", right=Right.OPERATE)
def undo_discard(study_uid: StudyUid, change: CurrentChange) -> shapes.Acted:
    """Bring a discarded study back while its images are still here; retry sends it."""

    def make(action: Action) -> Answer:
        actions.undo_discard(action.tx, study_uid, who=change.actor.author, now=action.now)
        return _acted(jobs.Acted([], []))

    return shapes.Acted(**change.make("study.undo-discard", make, asked=study_uid, study_uid=study_uid))


# --- single deliveries ---------------------------------------------------------------------------------------------

@routes.post("/jobs/{job_id}/retry", right=Right.OPERATE)
def retry_job(job_id: JobId, body: Retry, change: CurrentChange) -> shapes.Acted:
    """Try one job again now."""
    return _act(change, "study.retry", "", job_id, body, _retrying(change, body))


@routes.post("/jobs/{job_id}/cancel", right=Right.OPERATE)
def cancel_job(job_id: JobId, change: CurrentChange, body: MaybeWhy | None = None) -> shapes.Acted:
    """Stop one job; the images are kept."""
    return _act(change, "study.cancel", "", job_id, body, _cancelling(change))


@routes.post("/jobs/{job_id}/same-patient", right=Right.OPERATE)
def same_patient(job_id: JobId, body: Why, change: CurrentChange) -> shapes.Acted:
    """Decide that both sides of a held delivery are one patient, and try it again."""

    def make(action: Action) -> Answer:
        job = _job(action, job_id)
        done = actions.same_patient(action.tx, [job.job_id], reason=body.reason, who=change.actor.author,
                                    now=action.now)
        if not done:
            raise NotAllowed("this job is not held because of its patient")
        return _acted(jobs.Acted([(one, jobs.job(action.tx, one).state) for one in done], []))

    return shapes.Acted(**change.make("study.same-patient", make, asked=[job_id, body], subject=str(job_id),
                                      reason=body.reason))


@routes.get("/jobs/{job_id}/proposals", right=Right.VIEW)
def proposals(job_id: JobId, context: CurrentContext) -> Proposals:
    """Return the orders that a delivery without its order may have been meant for."""
    with context.reading() as tx:
        job = jobs.job(tx, job_id)
        table = corrections.aliases(tx)
        found = corrections.proposals(tx, job, table)
    return Proposals(received=job.part, sent_as=job.accession or job.part, proposals=[
        Proposal(accession_number=one.accession_number, rule=str(one.rule), certain=one.is_certain, orders=one.orders)
        for one in found])


@routes.post("/jobs/{job_id}/accession", right=Right.OPERATE)
def correct_accession(job_id: JobId, body: Correction, change: CurrentChange) -> State:
    """Send a delivery under another accession number: a corrected one, or that of the order chosen for it."""

    def make(action: Action) -> Answer:
        job = _job(action, job_id)
        try:
            state = corrections.correct(action.tx, job_id, body.accession_number, reason=body.reason,
                                        who=change.actor.author, now=action.now)
        except ValueError as fault:
            raise NotAllowed(str(fault)) from None
        action.fields |= {"before": job.accession or job.part, "after": body.accession_number}
        return {"job_id": job_id, "state": str(state)}

    return State(**change.make("study.accession", make, asked=[job_id, body], subject=str(job_id),
                               reason=body.reason))


@routes.post("/jobs/{job_id}/withdraw", right=Right.OPERATE)
def withdraw(job_id: JobId, body: Why, change: CurrentChange) -> Asked:
    """Ask to take back what a delivery registered; a second person confirms with the code, within a day."""

    def make(action: Action) -> Answer:
        job = _job(action, job_id)
        code = withdrawals.request(action.tx, job_id, reason=body.reason, who=change.actor.author, now=action.now)
        return {"study_uid": job.study_uid, "code": code}

    return Asked(**change.make("study.withdraw", make, asked=[job_id, body], subject=str(job_id), reason=body.reason,
                               kept=lambda answer: {**answer, "code": None}))


@routes.post("/jobs/{job_id}/withdraw/confirm", right=Right.OPERATE)
def confirm_withdrawal(job_id: JobId, body: Confirmation, change: CurrentChange) -> Started:
    """Confirm as another person: the ImagingStudy becomes entered-in-error, and the study is never sent again."""

    def make(action: Action) -> Answer:
        job = _job(action, job_id)
        return {"job_id": withdrawals.confirm(action.tx, job.study_uid, job.part, body.code,
                                              who=change.actor.author, now=action.now)}

    return Started(**change.make("study.withdraw-confirm", make, asked=[job_id, body], subject=str(job_id)))


# --- in common -----------------------------------------------------------------------------------------------------

Verb = Callable[[Action, Sequence[int]], jobs.Acted]


def _act(
    change: CurrentChange, name: str, study_uid: str, job_id: int | None, body: Body | None, verb: Verb,
) -> shapes.Acted:
    """Apply `verb` to one job, or to every delivery of a study."""

    def make(action: Action) -> Answer:
        if job_id is not None:
            return _acted(verb(action, [_job(action, job_id).job_id]))
        _check_study(action.tx, study_uid)
        return _acted(verb(action, _deliveries(action.tx, study_uid)))

    told = body.model_dump() if body is not None else {}
    return shapes.Acted(**change.make(name, make, asked=[study_uid, job_id, told], study_uid=study_uid,
                                      subject="" if job_id is None else str(job_id), **told))


def _retrying(change: CurrentChange, body: Retry) -> Verb:
    present = change.context.environments
    return lambda action, ids: actions.retry(action.tx, ids, present, who=change.actor.author, now=action.now,
                                             resend=body.resend)


def _cancelling(change: CurrentChange) -> Verb:
    return lambda action, ids: actions.cancel(action.tx, ids, who=change.actor.author, now=action.now)


def _job(action: Action, job_id: int) -> Job:
    """Return the job and let the audit entry name its study."""
    job = jobs.job(action.tx, job_id)
    action.study_uid = job.study_uid
    return job


def _check_study(tx: Tx, study_uid: str) -> None:
    if study_uid not in study_list.rows_of(tx, [study_uid]):
        raise NotFound("no such study has been received")


def _deliveries(tx: Tx, study_uid: str) -> list[int]:
    return [row.job_id for row in jobs.jobs_of(tx, study_uid) if row.kind == "deliver"]


def _moved(pairs: Sequence[tuple[int, object]]) -> list[shapes.Moved]:
    return [shapes.Moved(job_id=job_id, state=str(state)) for job_id, state in pairs]


def _acted(acted: jobs.Acted) -> Answer:
    return shapes.Acted(moved=_moved(acted.moved), refused=[
        shapes.NotMoved(job_id=job_id, why=why) for job_id, why in acted.refused]).model_dump()
