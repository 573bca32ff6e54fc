"""/api/v1/studies: find studies, their images, their way and their receipts.

Every answer with patient data is written into the audit trail before it leaves. Changes when people may ask more of a
study.
"""

from __future__ import annotations

from typing import Any

from fastapi.responses import Response

from interface.destinations import PLATFORM
from interface.http.actor import Actor, CurrentActor
from interface.http.api import shapes
from interface.http.api.jobs import course_shape, event_shape, receipts_of
from interface.http.api.parameters import PAGE, AfterId, Limit, SearchBody, StudyUid
from interface.http.context import CurrentContext, WebContext
from interface.http.downloads import content_disposition, csv_text
from interface.http.rights import Right
from interface.http.routes import Routes
from internal import index, study_list, timeline
from internal.errors import NotFound
from internal.study_list import Search, StudyRow

MAX_EXPORT = 10_000
_COLUMNS = ("study_uid", "accession_numbers", "patient_id", "patient_name", "study_date", "modalities", "description",
            "instances", "callers", "state", "reason_code")

routes = Routes("/api/v1/studies", tags=["studies"])


@routes.post("/search", right=Right.VIEW)
def search(body: SearchBody, context: CurrentContext, actor: CurrentActor) -> shapes.StudyPage:
    """Find studies. The search stands in the body, so that no patient's data is ever part of an address."""
    with context.reading() as tx:
        page = study_list.find(tx, Search(**body.criteria()), body.after, body.limit)
    context.note_view(actor, [row.study_uid for row in page.studies], "search")
    return shapes.StudyPage(studies=[study_shape(row) for row in page.studies], after=page.after)


@routes.post("/export", right=Right.VIEW, response_class=Response, responses={200: {
    "description": "A table with a byte order mark; no cell is a formula.",
    "content": {"text/csv": {"schema": {"type": "string"}}}}})
def export(body: SearchBody, context: CurrentContext, actor: CurrentActor) -> Response:
    """Return the studies that match, at most 10,000, as CSV for a spreadsheet."""
    rows: list[StudyRow] = []
    after = body.after
    while len(rows) < MAX_EXPORT:
        with context.reading() as tx:
            page = study_list.find(tx, Search(**body.criteria()), after, min(500, MAX_EXPORT - len(rows)))
        rows += page.studies
        after = page.after
        if not after:
            break
    context.note_download(actor, [row.study_uid for row in rows], "export")
    text = csv_text(_COLUMNS, map(_cells, rows))
    return Response(text, media_type="text/csv; charset=utf-8",
                    headers={"Content-Disposition": content_disposition("studies.csv")})


@routes.get("/{study_uid}", right=Right.VIEW)
def study(study_uid: StudyUid, context: CurrentContext, actor: CurrentActor) -> shapes.Study:
    """Return one study."""
    row = _row(context, actor, study_uid, "study")
    return study_shape(row)


@routes.get("/{study_uid}/instances", right=Right.VIEW)
def instances(
    study_uid: StudyUid, context: CurrentContext, actor: CurrentActor, after: AfterId = "", limit: Limit = PAGE,
) -> shapes.InstancePage:
    """Return what was received of a study, image by image."""
    _row(context, actor, study_uid, "instances")
    with context.reading() as tx:
        rows = index.instances_of(tx, study_uid, after=after, limit=limit + 1)
    shown = rows[:limit]
    return shapes.InstancePage(instances=[_instance_shape(one) for one in shown],
                               after=shown[-1].id if len(rows) > limit else "")


@routes.get("/{study_uid}/timeline", right=Right.VIEW)
def study_timeline(study_uid: StudyUid, context: CurrentContext, actor: CurrentActor) -> shapes.Timeline:
    """Return a study's way: each delivery with its stages, cause and who has to act, and what happened when."""
    with context.reading() as tx:
        story = timeline.story(tx, study_uid, PLATFORM)
    if story is None:
        raise NotFound("no such study has been received")
    context.note_view(actor, [study_uid], "timeline")
    return shapes.Timeline(
        study_uid=study_uid, first_arrived_at=story.first_arrived_at, last_arrived_at=story.last_arrived_at,
        settled=story.is_settled, conflict=story.has_conflict, set_aside=story.set_aside,
        courses=[course_shape(one) for one in story.courses], events=[event_shape(one) for one in story.events])


@routes.get("/{study_uid}/receipts", right=Right.VIEW)
def receipts(study_uid: StudyUid, context: CurrentContext, actor: CurrentActor) -> shapes.StudyReceipts:
    """Return what proves that a study has arrived, image by image, for every destination."""
    _row(context, actor, study_uid, "receipts")
    with context.reading() as tx:
        return shapes.StudyReceipts(study_uid=study_uid, jobs=receipts_of(tx, study_uid))


def study_shape(row: StudyRow) -> shapes.Study:
    """Return a study as the API shows it."""
    return shapes.Study(
        study_uid=row.study_uid, listed_at=row.listed_at, patient_name=row.patient_name, patient_id=row.patient_id,
        study_date=row.study_date, description=row.description, instances=row.instances,
        accession_numbers=list(row.accession_numbers), modalities=list(row.modalities), callers=list(row.callers),
        state=row.outcome, deliveries=[shapes.Delivery(
            job_id=one.job_id, destination=one.destination, state=str(one.state), reason_code=one.reason_code)
            for one in row.deliveries])


def _row(context: WebContext, actor: Actor, study_uid: str, what: str) -> StudyRow:
    with context.reading() as tx:
        found = study_list.rows_of(tx, [study_uid])
    if study_uid not in found:
        raise NotFound("no such study has been received")
    context.note_view(actor, [study_uid], what)
    return found[study_uid]


def _instance_shape(one: Any) -> shapes.Instance:
    header = one.header
    return shapes.Instance(
        id=one.id, sop_uid=header.sop_uid, series_uid=header.series_uid, sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=header.transfer_syntax_uid, modality=header.modality,
        instance_number=header.instance_number, sha256=one.sha256, bytes=one.dataset_bytes,
        arrived_at=one.arrival.arrived_at, calling_aet=one.arrival.calling_aet, current=one.current,
        held=one.purged_at is None)


def _cells(row: StudyRow) -> list[object]:
    return [row.study_uid, " ".join(row.accession_numbers), row.patient_id, row.patient_name, row.study_date,
            " ".join(row.modalities), row.description, row.instances, " ".join(row.callers), row.outcome,
            " ".join(sorted({one.reason_code for one in row.deliveries if one.reason_code}))]
