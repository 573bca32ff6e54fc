"""The nouns of the router as frozen values: what passes between the layers.

Layer 0, imports only `states`. Times named `_at` are UTC epoch milliseconds; names are those of DICOM PS3.3/PS3.6.
Changes when the router has to know something new about an image, a study or a job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from internal.states import State

#: What a request entry of the spool calls itself that asks for storage commitment.
COMMITMENT_REQUEST = "storage-commitment"
#: The same for the answer of another node to a request of ours.
COMMITMENT_ANSWER = "storage-commitment-answer"


@dataclass(frozen=True, slots=True)
class Arrival:
    """How an instance reached us; kept in the spool file's meta, so that the spool alone can rebuild the index."""

    arrived_at: int
    association_id: str = ""
    calling_aet: str = ""
    called_aet: str = ""
    peer_address: str = ""
    source: str = "dimse"


@dataclass(frozen=True, slots=True)
class Header:
    """The index fields of one data set, as text decoded with its Specific Character Set; absent is "".

    Values keep what was received except for the padding that PS3.5 6.2 allows (trailing blank or NUL);
    nothing is validated or corrected here. `image_type` is every value of (0008,0008).
    """

    sop_class_uid: str
    sop_uid: str
    study_uid: str
    series_uid: str
    transfer_syntax_uid: str
    accession_number: str = ""
    patient_id: str = ""
    patient_name: str = ""
    patient_birth_date: str = ""
    patient_sex: str = ""
    study_date: str = ""
    study_time: str = ""
    study_description: str = ""
    study_id: str = ""
    modality: str = ""
    series_number: str = ""
    series_description: str = ""
    series_date: str = ""
    series_time: str = ""
    body_part: str = ""
    instance_number: str = ""
    image_type: tuple[str, ...] = ()
    number_of_frames: str = ""
    timezone_offset: str = ""
    station_name: str = ""
    institution_name: str = ""
    character_set: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """One accepted set of bytes: a row of `instance`. Rows outlive purged bytes.

    `id` is the spool entry's id, the identity of these very bytes (the "version" of a SOP instance).
    `part` is the normalised accession. `sha256` (hex) and `dataset_bytes` describe the data set alone,
    which begins at `dataset_offset` in the file. `location` is ``spool:<node>/<id>`` or ``s3:<key>``.
    `current` is False for bytes kept beside the first ones (conflict). `purged_at` None: bytes are held.
    """

    id: str
    header: Header
    part: str
    sha256: str
    dataset_offset: int
    dataset_bytes: int
    location: str
    arrival: Arrival
    current: bool = True
    purged_at: int | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """A series of one inventory with its current instances in a stable order."""

    series_uid: str
    instances: tuple[Instance, ...]


@dataclass(frozen=True, slots=True)
class Inventory:
    """Every instance ever accepted for (study, part), purged ones included; the sole input of the ImagingStudy.

    `revision` is the study's settled revision that this reading belongs to.
    """

    study_uid: str
    part: str
    revision: int
    first_arrived_at: int
    series: tuple[Series, ...]

    @property
    def instances(self) -> tuple[Instance, ...]:
        """All instances, series by series."""
        return tuple(instance for series in self.series for instance in series.instances)


@dataclass(frozen=True, slots=True)
class Study:
    """A row of `study`: what people see and what settling looks at."""

    study_uid: str
    revision: int
    settled_revision: int
    first_arrived_at: int
    last_arrived_at: int
    instances: int
    series: int
    accession_numbers: tuple[str, ...]
    modalities: tuple[str, ...]
    study_date: str
    description: str
    conflict: bool


@dataclass(frozen=True, slots=True)
class Job:
    """One duty: bring (study, part) to a destination. Key: (kind, destination, study_uid, part).

    `environment` (base URL | organization, or a folder's path) says where its facts and receipts hold.
    `revision` is the settled revision it was claimed with; `done_revision` the last one confirmed.
    `accession` is the number it is sent under where a person corrected that, "" where it is `part`.
    `rules` is the revision of the rule set by which it was planned, "" if there were none.
    `lease` is the token of the claim ("" when not active); `facts` are those of `environment`.
    """

    job_id: int
    kind: str
    destination: str
    environment: str
    study_uid: str
    part: str
    state: State
    reason_code: str
    reason: str
    attempts: int
    due_at: int
    revision: int
    done_revision: int
    settled_revision: int
    lease: str
    lease_until: int
    created_at: int
    updated_at: int
    waiting_since: int | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    detail: Mapping[str, Any] = field(default_factory=dict)
    accession: str = ""
    rules: str = ""


class ItemState(StrEnum):
    """What has become of one instance of one job. Nothing clears an item: new bytes are a new item."""

    DUE = "due"
    SENT = "sent"  #: frozen and hashed, committed before the first byte left; the answer is not known
    STORED = "stored"  #: receipt: the other side named the instance
    UNVERIFIED = "unverified"  #: receipt: it exists there, whether with our bytes is not known
    UNREAD = "unread"  #: receipt: accepted by status, reply not understood; whether it is there is not known
    REFUSED = "refused"  #: refused for itself; does not block the others
    SKIPPED = "skipped"  #: kept here and not sent, by the hospital's setting
    CONFLICT = "conflict"  #: known to exist there with other content
    WAIVED = "waived"  #: refused or in conflict, and a person accepts that it does not arrive


#: States after which an item needs no further push.
RECEIPTED = frozenset({ItemState.STORED, ItemState.UNVERIFIED, ItemState.UNREAD})
#: Receipts that do not prove that our bytes are there.
UNPROVEN = frozenset({ItemState.UNVERIFIED, ItemState.UNREAD})
#: Answered, but not there: a study with one of these is only partly delivered.
FAILED = frozenset({ItemState.REFUSED, ItemState.CONFLICT})
#: Not there, and nobody misses it: neither delivered nor counted.
LEFT_OUT = frozenset({ItemState.SKIPPED, ItemState.WAIVED})
FINAL = RECEIPTED | FAILED | LEFT_OUT


@dataclass(frozen=True, slots=True)
class Item:
    """One instance to bring to one destination: a row of `item`, key (job, environment, instance id).

    `sha256` and `size_bytes` are those of the frozen bytes ("" and 0 while due); `sends` counts attempts of
    which bytes may have reached the other side: commits of SENT that were not taken back.
    """

    item_id: int
    job_id: int
    instance: Instance
    state: ItemState
    sha256: str = ""
    size_bytes: int = 0
    recipe: Mapping[str, Any] = field(default_factory=dict)
    sends: int = 0
    answer: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Intent:
    """A non-repeatable request that was about to leave; committed before it did.

    `deadline_at` is the latest moment at which the other side can have received it.
    `answered_at` None: the outcome is unknown.
    """

    intent_id: int
    job_id: int
    verb: str
    opened_at: int
    deadline_at: int
    answered_at: int | None
    answer: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Probe:
    """One line of `check`: what was tried, whether it works, and what to do if not."""

    name: str
    ok: bool
    text: str
    advice: str = ""
