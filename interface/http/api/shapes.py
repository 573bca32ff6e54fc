"""What the API answers: the shapes that other systems rely on, beside and not equal to the router's own values.

Moments are UTC in epoch milliseconds and end in `_at`; None where there is none. Changes when the API tells more; a
field never changes its meaning.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from interface.explain import explain
from interface.explanation import Explanation


class Shape(BaseModel):
    """Read from the router's values by the names of their attributes."""

    model_config = ConfigDict(from_attributes=True)


class Words(Shape):
    """A text in Bahasa Indonesia and English."""

    id: str
    en: str


class Error(Shape):
    """The one shape of every answer that is no success."""

    error: str
    message: Words
    next_step: Words
    detail: list[str]


class Reason(Shape):
    """Why something has not arrived: code, meaning, next step, and who acts (router, radiographer, SIMRS, IT,
    platform). Empty texts where there is nothing to explain."""

    code: str
    meaning: Words
    next_step: Words
    who: str

    @classmethod
    def of(cls, code: str) -> Reason:
        """Return the explanation of a reason code."""
        one: Explanation = explain(code)
        return cls(code=code, meaning=Words(id=one.meaning_id, en=one.meaning_en),
                   next_step=Words(id=one.next_id, en=one.next_en), who=one.who if code else "")


class Delivery(Shape):
    """One delivery of a listed study."""

    job_id: int
    destination: str
    state: str
    reason_code: str


class Study(Shape):
    """One study as received; `state` is that of its most urgent delivery, ``receiving`` or ``nowhere``."""

    study_uid: str
    listed_at: int
    patient_name: str
    patient_id: str
    study_date: str
    description: str
    instances: int
    accession_numbers: list[str]
    modalities: list[str]
    callers: list[str]
    state: str
    deliveries: list[Delivery]


class StudyPage(Shape):
    """Some studies, newest first; `after` leads on, "" on the last page."""

    studies: list[Study]
    after: str


class JobShape(Shape):
    """One duty: bring a study (under one accession number) to a destination."""

    job_id: int
    kind: str
    destination: str
    environment: str
    study_uid: str
    accession_number: str
    state: str
    reason: Reason
    words: str
    attempts: int
    due_at: int
    instances: int
    receipts: int
    imaging_study_id: str | None
    created_at: int
    updated_at: int
    opened_at: int
    waiting_since_at: int | None


class JobPage(Shape):
    """Some jobs, newest first; `after` leads on, 0 on the last page."""

    jobs: list[JobShape]
    after: int


class Instance(Shape):
    """One image as received; sha256 and bytes are those of its data set. `held`: its bytes are still here."""

    id: str
    sop_uid: str
    series_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    modality: str
    instance_number: str
    sha256: str
    bytes: int
    arrived_at: int
    calling_aet: str
    current: bool
    held: bool


class InstancePage(Shape):
    """Some images of one study; `after` leads on, "" on the last page."""

    instances: list[Instance]
    after: str


class Step(Shape):
    """One stage of a delivery: received, order, registered, sent, confirmed; progress done, now, blocked or todo."""

    stage: str
    progress: str
    at: int | None


class CourseShape(Shape):
    """One job of a study with its stages and how many of its images have their receipt."""

    job_id: int
    kind: str
    destination: str
    accession_number: str
    state: str
    reason: Reason
    steps: list[Step]
    arrived: int
    refused: int
    total: int


class EventShape(Shape):
    """Something that happened; `who` is "" where the router itself did it."""

    event_id: int
    at: int
    study_uid: str
    job_id: int | None
    code: str
    text: str
    fields: dict[str, Any]
    who: str


class Timeline(Shape):
    """A study's way from the modality to the confirmation."""

    study_uid: str
    first_arrived_at: int
    last_arrived_at: int
    settled: bool
    conflict: bool
    set_aside: int
    courses: list[CourseShape]
    events: list[EventShape]


class EventPage(Shape):
    """Events in the order of their transactions; `cursor` goes on from here, also when nothing came."""

    events: list[EventShape]
    cursor: str


class Receipt(Shape):
    """What proves that one image has arrived; sha256 is that of the bytes that left."""

    sop_uid: str
    series_uid: str
    state: str
    sha256: str
    dataset_sha256: str
    bytes: int
    sends: int
    at: int | None
    status: int | None
    text: str


class JobReceipt(Shape):
    """The receipts of one job in its present environment."""

    job_id: int
    destination: str
    environment: str
    accession_number: str
    state: str
    imaging_study_id: str | None
    receipts: list[Receipt]


class StudyReceipts(Shape):
    """The receipts of a study, job by job."""

    study_uid: str
    jobs: list[JobReceipt]


class Moved(Shape):
    """A job that a request has moved, and the state it has now."""

    job_id: int
    state: str


class NotMoved(Shape):
    """A job that a request could not move, and why not."""

    job_id: int
    why: str


class Acted(Shape):
    """What a request has done to jobs."""

    moved: list[Moved]
    refused: list[NotMoved]


class LaneShape(Shape):
    """The way to one destination; `open` False while it is paused, by a person or because it does not answer."""

    name: str
    environment: str
    open: bool
    paused_until_at: int | None
    paused_by: str
    reason: Reason
    words: str
    failures: int
    down_since_at: int | None
    alert: str


class ProbeShape(Shape):
    """One line of a test: what was tried, whether it works, and what to do if not."""

    name: str
    ok: bool
    text: str
    advice: str


class DeviceShape(Shape):
    """A calling AE title at an address ("" means any); verdict accept, hold, refuse, or "" while nobody has decided."""

    aet: str
    address: str
    first_seen_at: int | None
    last_seen_at: int | None
    last_image_at: int | None
    verdict: str


class AlertShape(Shape):
    """Something that is or was wrong by a rule; never patient data."""

    alert_id: int
    rule: str
    condition: str
    subject: str
    title: Words
    detail: Words
    raised_at: int
    told_at: int | None
    acknowledged_at: int | None
    acknowledged_by: str
    cleared_at: int | None


class AlertPage(Shape):
    """Some alerts, newest first; `after` leads on, 0 on the last page."""

    alerts: list[AlertShape]
    after: int


class SettingShape(Shape):
    """One setting in force and where it came from; secrets are masked."""

    section: str
    key: str
    value: str
    source: str


class UserShape(Shape):
    """One account."""

    name: str
    role: str
    must_change: bool
    created_at: int
    created_by: str
    disabled_at: int | None
    last_login_at: int | None


class KeyShape(Shape):
    """One API key, without its secret."""

    key_id: str
    name: str
    rights: list[str]
    created_at: int
    created_by: str
    expires_at: int | None
    revoked_at: int | None
    used_at: int | None
