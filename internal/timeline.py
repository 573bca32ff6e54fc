"""One study from the modality to the other side's confirmation: its stages, deliveries, and what happened when.

Reads only; asked by pages and API. Layer 3, over jobs, decisions and associations; the words for people are not here.
Changes when a study goes through another stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from internal import decisions, jobs
from internal.associations import Reception, receptions_of
from internal.decisions import Decision
from internal.events import EventRow
from internal.model import FAILED, LEFT_OUT, RECEIPTED, Job
from internal.set_aside import missing
from internal.states import State
from internal.store import Tx
from internal.study_list import StudyRow, rows_of

MAX_EVENTS = 500
#: Event code of the delivery -> the stage that it ends.
_ENDS = {"order-found": "order", "imaging-study-found": "registered", "posted": "registered", "put": "registered",
         "sent": "sent", "job-done": "confirmed"}


class Stage(StrEnum):
    """What a delivery to the platform passes, in this order."""

    RECEIVED = "received"
    ORDER = "order"
    REGISTERED = "registered"
    SENT = "sent"
    CONFIRMED = "confirmed"


class Progress(StrEnum):
    """How far a stage is."""

    DONE = "done"
    NOW = "now"
    BLOCKED = "blocked"  #: it waits for somebody
    TODO = "todo"


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of one delivery; `at` in epoch ms, None where it has no moment."""

    stage: Stage
    progress: Progress
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """One job of a study with its stages and how many of its images have their receipt.

    `stages` is empty for a job that is no delivery. `arrived`, `refused` and `total` count images.
    """

    job: Job
    steps: tuple[Step, ...]
    arrived: int
    refused: int
    total: int


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """One series as received; `sop_uid`: an image that stands for it, "" for none."""

    series_uid: str
    modality: str
    number: str
    description: str
    body_part: str
    instances: int
    sop_uid: str


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that people ask of one study; times in epoch ms; `events` newest last, at most 500."""

    study: StudyRow
    first_arrived_at: int
    last_arrived_at: int
    settled_at: int | None
    is_settled: bool
    has_conflict: bool
    purged: bool
    set_aside: int
    receptions: tuple[Reception, ...]
    courses: tuple[Course, ...]
    series: tuple[SeriesRow, ...]
    decisions: tuple[Decision, ...]
    events: tuple[EventRow, ...]


def story(tx: Tx, study_uid: str, platform: str) -> Story | None:
    """Return what is known of a study, None if we never held it; deliveries to `platform` need an order."""
    row = tx.row("SELECT first_arrived_at, last_arrived_at, settled_at, revision = settled_revision, conflict, purged"
                 " FROM study WHERE study_uid = ?", (study_uid,))
    if row is None:
        return None
    events = last_events(tx, study_uid)
    courses = [_course(tx, job_id, row[0], events, platform) for (job_id,) in tx.rows(
        "SELECT job_id FROM job WHERE study_uid = ? ORDER BY job_id", (study_uid,))]
    return Story(
        study=rows_of(tx, [study_uid])[study_uid], first_arrived_at=row[0], last_arrived_at=row[1], settled_at=row[2],
        is_settled=bool(row[3]), has_conflict=bool(row[4]), purged=bool(row[5]), set_aside=missing(tx, study_uid),
        receptions=tuple(receptions_of(tx, study_uid)), courses=tuple(courses), series=tuple(series_of(tx, study_uid)),
        decisions=tuple(decisions.decisions_of(tx, study_uid)), events=tuple(events))


def last_events(tx: Tx, study_uid: str, limit: int = MAX_EVENTS) -> list[EventRow]:
    """Return the newest events of a study in the order they were written."""
    first = tx.value("SELECT MIN(event_id) FROM (SELECT event_id FROM event WHERE study_uid = ?"
                     " ORDER BY event_id DESC LIMIT ?) AS newest", (study_uid, limit))
    return jobs.events_of(tx, study_uid, (first or 1) - 1, limit)


def series_of(tx: Tx, study_uid: str) -> list[SeriesRow]:
    """Return the series of a study by number, those without one last."""
    found = tx.rows("SELECT series_uid, MIN(sop_uid) FROM instance WHERE study_uid = ? AND is_current = 1"
                    " GROUP BY series_uid", (study_uid,))
    shown = {row[0]: row[1] for row in found}
    rows = [SeriesRow(row[0], row[1], row[2], row[3], row[4], row[5], shown.get(row[0], "")) for row in tx.rows(
        "SELECT series_uid, modality, series_number, description, body_part, instances FROM series WHERE study_uid = ?"
        " ORDER BY series_uid", (study_uid,))]
    return sorted(rows, key=lambda one: (int(one.number) if one.number.isdecimal() else 1 << 62, one.series_uid))


def _course(tx: Tx, job_id: int, received_at: int, events: Sequence[EventRow], platform: str) -> Course:
    job = jobs.job(tx, job_id)
    counts = jobs.count_items(tx, job)
    arrived = sum(counts.get(state, 0) for state in RECEIPTED)
    refused = sum(counts.get(state, 0) for state in FAILED)
    total = sum(count for state, count in counts.items() if state not in LEFT_OUT)
    own = [event for event in events if event.job_id == job_id]
    steps: list[Step] = []
    if job.kind == "deliver":
        steps = steps_of(job, received_at, own, all_sent=bool(total) and arrived == total,
                         has_order=job.destination == platform)
    return Course(job, tuple(steps), arrived, refused, total)


def steps_of(
    job: Job, received_at: int, events: Sequence[EventRow], *, all_sent: bool, has_order: bool,
) -> list[Step]:
    """Return the stages of a delivery; a destination without order and registration has three."""
    moments = {"received": received_at, **_moments(events)}
    facts = job.facts
    reached: dict[Stage, bool] = {Stage.RECEIVED: True}
    if has_order:
        reached[Stage.ORDER] = bool(facts.get("service_request_id"))
        reached[Stage.REGISTERED] = bool(facts.get("imaging_study_id"))
    reached[Stage.SENT] = all_sent
    reached[Stage.CONFIRMED] = job.state is State.DONE
    steps: list[Step] = []
    is_open = False
    for stage, over in reached.items():
        over = over or job.state is State.DONE
        progress = Progress.DONE if over and not is_open else Progress.TODO
        if not over and not is_open:
            is_open = True
            progress = _progress_of(job.state)
        steps.append(Step(stage, progress, moments.get(str(stage)) if progress is Progress.DONE else None))
    return steps


def _progress_of(state: State) -> Progress:
    if state in (State.HELD, State.CANCELLED, State.WAITING, State.DEFERRED):
        return Progress.BLOCKED
    return Progress.NOW


def _moments(events: Sequence[EventRow]) -> Mapping[str, int]:
    """Return when a stage was last passed, as far as the timeline tells."""
    return {_ENDS[event.code]: event.at for event in events if event.code in _ENDS}
