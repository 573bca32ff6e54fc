"""Instances, settled studies and claimed jobs for the tests of this folder. All people are invented."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from internal import index, jobs
from internal.claims import Poll
from internal.model import Arrival, Header, Instance, Job
from internal.store import Store, Tx

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
STUDY = "2.25.1000"
LANE = "satusehat"
STAGING = "https://staging.example|100000001"
PRODUCTION = "https://production.example|100000001"
NODE = "node1"


def instance(
    number: int, *, study: str = STUDY, part: str = "ACC1", sop: str = "", content: str = "", at: int = 0,
    association: str = "", node: str = NODE, entry: str = "", series: str = "1", **header: str,
) -> Instance:
    """Return instance `number` of a study; `content` stands for its bytes."""
    entry = entry or f"e{study}-{number}"
    values = {"accession_number": part, "modality": "CT", "patient_id": "P-1", "series_number": series,
              "instance_number": str(number), **header}
    return Instance(
        id=entry,
        header=Header(CT, sop or f"{study}.{series}.{number}", study, f"{study}.{series}", EXPLICIT,
                      image_type=("ORIGINAL", "PRIMARY"), **values),
        part=part, sha256=hashlib.sha256((content or f"{study}/{number}").encode()).hexdigest(), dataset_offset=380,
        dataset_bytes=1000 + number, location=f"spool:{node}/{entry}",
        arrival=Arrival(at or 1000 + number, association, "CT1", "ROUTER", "192.0.2.7"),
    )


def add(
    store: Store, *batch: Instance, now: int = 5000, same_as: Mapping[str, str] | None = None,
) -> list[index.Added]:
    """Index a batch in a transaction of its own."""
    with store.transaction() as tx:
        return index.add_instances(tx, batch, now, same_as or {})


def plan_all(
    tx: Tx, study_uid: str = STUDY, *, part: str = "ACC1", lane: str = LANE, environment: str = STAGING,
    now: int = 6000, priority: int = jobs.NORMAL, due_at: int | None = None,
) -> jobs.PlanResult:
    """Plan everything the index holds of (study, part)."""
    held = index.inventory(tx, study_uid, part)
    return jobs.plan(tx, kind="deliver", destination=lane, environment=environment, study_uid=study_uid, part=part,
                     instances=held.instances, settled_revision=held.revision, now=now,
                     due_at=now if due_at is None else due_at, priority=priority)


def settle_study(store: Store, study_uid: str = STUDY, *, now: int = 6000, **options: object) -> jobs.PlanResult:
    """Settle a study at its current revision and plan it, in one transaction as assemble does."""
    with store.transaction() as tx:
        known = index.study(tx, study_uid)
        assert known is not None
        assert index.mark_settled(tx, study_uid, known.revision, now)
        return plan_all(tx, study_uid, now=now, **options)  # type: ignore[arg-type]


def claim(store: Store, *, lane: str = LANE, environment: str = STAGING, node: str = NODE, now: int = 7000,
          lease_ms: int = 60_000, poll: Poll = Poll.NEWEST, priorities: Sequence[int] = jobs.PRIORITIES) -> Job | None:
    """Claim in a transaction of its own."""
    with store.transaction() as tx:
        return jobs.claim(tx, destination=lane, environment=environment, node=node, now=now, lease_ms=lease_ms,
                          poll=poll, priorities=priorities)


def claimed(store: Store, *instances: Instance, **options: object) -> Job:
    """Return the claimed job of a new study with these instances (three by default)."""
    batch: Sequence[Instance] = instances or [instance(number) for number in (1, 2, 3)]
    add(store, *batch)
    settle_study(store, batch[0].header.study_uid, part=batch[0].part)
    job = claim(store, **options)  # type: ignore[arg-type]
    assert job is not None
    return job


def moved(one: Instance, **changes: object) -> Instance:
    """Return a copy with other values."""
    return replace(one, **changes)  # type: ignore[arg-type]
