"""An index with one study in each state, made through the router's own functions. Everybody is invented."""

from __future__ import annotations

import time

from internal import jobs, settings_rows
from internal.devices import Caller, learn
from internal.model import ItemState
from internal.set_aside import note_bad
from internal.states import Finish, Later, NotYet, Outcome, Refuse
from internal.store import Store
from tests.contract.store.samples import add, claim, instance, settle_study

ENVIRONMENT = "https://staging.example|100000001"
#: Number of the study: what its delivery came to.
OUTCOMES: dict[int, Outcome | None] = {
    1: Finish(), 2: NotYet("no-order", "no ServiceRequest has this accession number"),
    3: Refuse("several-orders", "two orders"),
    4: Refuse("patient-mismatch", "another", {
        "images": {"name": "UTAMI^DEWI", "birth_date": "19900412", "sex": "F", "mrn": "RM904"},
        "order": {"name": "Dewi Utomo", "birth_date": "1990-04-12", "sex": "female", "mrn": ""},
        "differences": ["name"], "sides": "x"}),
    5: Later("timeout", "the platform did not answer in time", blame="job"), 6: None,
    7: Refuse("no-accession", "the images carry no accession number"), 8: Finish(),
}
NAMES = ("SANTOSO^BUDI", "RAHAYU^SITI", "WIBOWO^AGUS", "UTAMI^DEWI", "HIDAYAT^EKO", "KUSUMA^RINA", "SAPUTRA^JOKO",
         "PERMATA^SRI")


def uid_of(number: int) -> str:
    """Return the Study Instance UID of one of the studies."""
    return f"2.25.9000{number}"


def receive(store: Store, number: int, *, modality: str = "CT", images: int = 3) -> str:
    """Index a study that has just come."""
    uid, now = uid_of(number), time.time_ns() // 1_000_000
    batch = [instance(image, study=uid, part=f"ACC90{number}", at=now + image, modality=modality,
                      patient_name=NAMES[number % len(NAMES) - 1], patient_id=f"RM90{number}", study_date="20261120",
                      study_description="THORAX", series_description="AXIAL") for image in range(1, images + 1)]
    add(store, *batch, now=now)
    return uid


def end(store: Store, number: int, outcome: Outcome | None) -> None:
    """Settle a received study and let a worker's step end like this."""
    now = time.time_ns() // 1_000_000
    settle_study(store, uid_of(number), part=f"ACC90{number}", now=now, environment=ENVIRONMENT)
    if outcome is None:
        return
    job = claim(store, now=now + 10, environment=ENVIRONMENT)
    assert job is not None and job.study_uid == uid_of(number)
    with store.transaction() as tx:
        if isinstance(outcome, Finish):
            for one in jobs.items(tx, job, list(ItemState), 100):
                (sent,) = jobs.mark_sent(tx, job, [(one, "sha", 10, {})])
                jobs.settle_items(tx, job, [(sent, ItemState.STORED, {"at": now})])
            jobs.record_facts(tx, job, {"imaging_study_id": "is-1", "service_request_id": "sr-1", "patient_id": "p-1"})
        jobs.settle(tx, job, outcome, now=now + 20, due_at=now + 3_600_000)


def fill(store: Store) -> None:
    """Write every study, one that is still coming in, a device nobody has decided on, a file that was set aside."""
    for number, outcome in OUTCOMES.items():
        receive(store, number, modality=("CT", "MR", "CR", "US")[number % 4])
        end(store, number, outcome)
    receive(store, 9)
    now = time.time_ns() // 1_000_000
    with store.transaction() as tx:
        learn(tx, [Caller("MRI_BARU", "192.0.2.44", now)])
        note_bad(tx, "0b5f-18c2a7d09e1-receive-0-7", "this file has no <DICM> mark & no data set", now)
        for meant in ("ACC990", "ACC991"):
            settings_rows.change(tx, "alias", "ACC99", {"to": meant}, settings_rows.Ground(), who="user:ani", now=now)
