"""/api/v1/jobs: what must go where, why it has not arrived, and what proves that it has.

Changes when a job tells more about itself.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from interface.http.actor import CurrentActor
from interface.http.api import shapes
from interface.http.api.parameters import PAGE, AfterNumber, JobId, Limit
from interface.http.context import CurrentContext
from interface.http.rights import Right
from interface.http.routes import Routes
from internal import job_list, jobs
from internal.events import EventRow
from internal.job_list import JobRow
from internal.model import Item
from internal.states import State
from internal.store import Tx
from internal.timeline import Course

routes = Routes("/api/v1/jobs", tags=["jobs"])
StateQuery = Annotated[State | None, Query(description="Only jobs in this state.")]
ReasonQuery = Annotated[str | None, Query(pattern=r"^[a-z0-9-]{1,64}$", description="Only jobs with this reason.")]
LaneQuery = Annotated[str | None, Query(alias="destination", pattern=r"^[A-Za-z0-9_.@:-]{1,64}$")]


@routes.get("", right=Right.VIEW)
def list_jobs(
    context: CurrentContext, actor: CurrentActor, state: StateQuery = None, reason: ReasonQuery = None,
    destination: LaneQuery = None, after: AfterNumber = 0, limit: Limit = PAGE,
) -> shapes.JobPage:
    """Return jobs, newest first."""
    with context.reading() as tx:
        rows = jobs.list_jobs(tx, state=state, reason_code=reason, destination=destination, limit=limit + 1,
                              before=after or None)
    shown = rows[:limit]
    context.note_view(actor, list(dict.fromkeys(row.study_uid for row in shown if row.study_uid)), "jobs")
    return shapes.JobPage(jobs=[job_shape(row) for row in shown],
                          after=shown[-1].job_id if len(rows) > limit else 0)


@routes.get("/{job_id}", right=Right.VIEW)
def one_job(job_id: JobId, context: CurrentContext, actor: CurrentActor) -> shapes.JobShape:
    """Return one job."""
    with context.reading() as tx:
        row = job_list.job_row(tx, job_id)
    context.note_view(actor, [row.study_uid] if row.study_uid else [], "job")
    return job_shape(row)


@routes.get("/{job_id}/receipts", right=Right.VIEW)
def job_receipts(job_id: JobId, context: CurrentContext, actor: CurrentActor) -> shapes.JobReceipt:
    """Return what proves that the images of one job have arrived."""
    with context.reading() as tx:
        study_uid = jobs.job(tx, job_id).study_uid
        receipt = job_receipt(tx, job_id)
    context.note_view(actor, [study_uid] if study_uid else [], "receipts")
    return receipt


def job_shape(row: JobRow) -> shapes.JobShape:
    """Return a job as the API shows it."""
    return shapes.JobShape(
        job_id=row.job_id, kind=row.kind, destination=row.lane, environment=row.environment, study_uid=row.study_uid,
        accession_number=row.accession_number, state=str(row.state), reason=shapes.Reason.of(row.reason_code),
        words=row.reason, attempts=row.attempts, due_at=row.due_at, instances=row.instances, receipts=row.receipts,
        imaging_study_id=row.imaging_study_id, created_at=row.created_at, updated_at=row.updated_at,
        opened_at=row.opened_at, waiting_since_at=row.waiting_since)


def course_shape(one: Course) -> shapes.CourseShape:
    """Return one delivery of a timeline as the API shows it."""
    job = one.job
    return shapes.CourseShape(
        job_id=job.job_id, kind=job.kind, destination=job.destination, accession_number=job.accession or job.part,
        state=str(job.state), reason=shapes.Reason.of(job.reason_code),
        steps=[shapes.Step(stage=str(step.stage), progress=str(step.progress), at=step.at) for step in one.steps],
        arrived=one.arrived, refused=one.refused, total=one.total)


def event_shape(one: EventRow) -> shapes.EventShape:
    """Return an event as the API shows it."""
    return shapes.EventShape(event_id=one.event_id, at=one.at, study_uid=one.study_uid, job_id=one.job_id,
                             code=one.code, text=one.text, fields=dict(one.fields), who=one.who)


def receipts_of(tx: Tx, study_uid: str) -> list[shapes.JobReceipt]:
    """Return the receipts of every delivery of a study."""
    return [job_receipt(tx, row.job_id) for row in jobs.jobs_of(tx, study_uid) if row.kind == "deliver"]


def job_receipt(tx: Tx, job_id: int) -> shapes.JobReceipt:
    """Return the receipts of one job in its present environment."""
    job = jobs.job(tx, job_id)
    return shapes.JobReceipt(
        job_id=job.job_id, destination=job.destination, environment=job.environment,
        accession_number=job.accession or job.part, state=str(job.state),
        imaging_study_id=job.facts.get("imaging_study_id"),
        receipts=[_receipt(item) for item in jobs.items_of(tx, job.job_id, job.environment)])


def _receipt(item: Item) -> shapes.Receipt:
    header, answer = item.instance.header, item.answer
    return shapes.Receipt(
        sop_uid=header.sop_uid, series_uid=header.series_uid, state=str(item.state), sha256=item.sha256,
        dataset_sha256=item.instance.sha256, bytes=item.size_bytes, sends=item.sends, at=answer.get("at"),
        status=answer.get("status"), text=str(answer.get("text", "")))
