"""`main.py verify`: ask SATUSEHAT again for what counts as delivered, and send again what it does not have.

Reads the rows, asks over the network, and writes only where something is missing; works whether or not the router
runs. Changes when a delivered study can be checked in another way.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.progress import Progress

from interface.acting import changing
from interface.cli_database import now_ms, opened
from interface.destinations import build
from interface.satusehat.audit import Finding
from interface.satusehat.delivery import Satusehat
from interface.satusehat.withdrawal import ENTERED_IN_ERROR
from internal import index, jobs
from internal.config import Settings
from internal.errors import NotFound
from internal.fhir import dates
from internal.model import Job
from internal.states import Event, State
from internal.store import Store
from internal.withdrawals import WITHDRAWN


def verify(options: argparse.Namespace, settings: Settings) -> int:
    """Check delivered studies; 0 when SATUSEHAT has everything, 1 when something is missing (and is sent again)."""
    platforms = {one.name: one for one in build(settings) if isinstance(one, Satusehat)}
    with opened(settings) as store:
        chosen = [job for job in _choose(store, options, settings) if job.destination in platforms]
        if not chosen:
            raise NotFound("nothing that counts as delivered to SATUSEHAT matches")
        found = list(_look(store, settings, platforms, chosen))
    for platform in platforms.values():
        platform.close()
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        for row in found:
            print(f"{row['accession_number'] or '-'}  {row['study_uid']}: {row['text']}")
        wrong = sum(not row["ok"] for row in found)
        print(f"{len(found)} studies checked, {len(found) - wrong} in order, {wrong} not")
    return 0 if all(row["ok"] for row in found) else 1


def _choose(store: Store, options: argparse.Namespace, settings: Settings) -> Sequence[Job]:
    """Return the done jobs that the arguments mean."""
    if (options.study is None) == (options.since is None):
        raise NotFound("name one study, or a day with --since YYYY-MM-DD")
    with store.reading() as tx:
        if options.study is not None:
            ids = jobs.find_jobs(tx, options.study)
        else:
            since_ms = _since_ms(options.since, settings)
            ids = [row.job_id for state in (State.DONE, State.HELD)
                   for row in jobs.list_jobs(tx, state=state, limit=1_000_000) if row.updated_at >= since_ms]
        found = [jobs.job(tx, job_id) for job_id in ids]
    return [job for job in found if job.kind == jobs.DELIVER and (job.state is State.DONE or _is_taken_back(job))]


def _is_taken_back(job: Job) -> bool:
    return job.state is State.HELD and job.reason_code == WITHDRAWN


def _since_ms(text: str, settings: Settings) -> int:
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=dates.zone(settings.satusehat.tz_name))
    except ValueError:
        raise NotFound("--since is a day such as 2026-01-31") from None
    return int(day.timestamp() * 1000)


def _look(
    store: Store, settings: Settings, platforms: dict[str, Satusehat], chosen: Sequence[Job],
) -> Iterator[dict[str, Any]]:
    with Progress(console=Console(stderr=True)) as progress:
        for job in progress.track(chosen, description="verify"):
            platform = platforms[job.destination]
            if job.environment != platform.environment:
                yield _row(job, Finding(), f"belongs to {job.environment}: not looked at")
                continue
            if _is_taken_back(job):
                yield _look_at_taken_back(platform, job)
                continue
            with store.reading() as tx:
                items = jobs.items_of(tx, job.job_id, job.environment)
                inventory = index.inventory(tx, job.study_uid, job.part)
            finding = platform.audit.check(str(job.facts.get("imaging_study_id", "")), inventory, items)
            yield _row(job, finding, describe(finding))
            _note(store, settings, job, finding)


def _look_at_taken_back(platform: Satusehat, job: Job) -> dict[str, Any]:
    """Nothing is missing of a study that was taken back; whether that is complete is asked."""
    status = platform.audit.read_status(str(job.facts.get("imaging_study_id", "")))
    if status in ("", ENTERED_IN_ERROR):
        return _row(job, Finding(), "taken back: entered in error at SATUSEHAT, never sent again")
    text = f"taken back here, but its ImagingStudy stands as {status!r} at SATUSEHAT: see `show`"
    return _row(job, Finding(), text) | {"ok": False}


def _row(job: Job, finding: Finding, text: str) -> dict[str, Any]:
    return {"job_id": job.job_id, "study_uid": job.study_uid, "accession_number": job.part, "ok": finding.ok,
            "receipts": finding.receipts, "answered_for": finding.here, "skipped": finding.skipped, "text": text,
            "missing": [item.instance.header.sop_uid for item in finding.missing], "unlisted": list(finding.unlisted)}


def describe(finding: Finding) -> str:
    """Return in one sentence what was found."""
    if finding.skipped:
        sent = replace(finding, skipped=0)
        kept = f"{finding.skipped} images are kept here (skip_sop_classes)"
        return f"{describe(sent)}; {kept}" if sent != Finding() else f"nothing of it is sent: {kept}"
    if finding.gone:
        return "the ImagingStudy is not at SATUSEHAT any more"
    wrong = [f"{len(finding.unlisted)} images are not listed"] if finding.unlisted else []
    wrong += [f"{len(finding.missing)} images are not there"] if finding.missing else []
    if wrong:
        return f"{', '.join(wrong)}: sent again"
    if finding.here:
        return f"complete: SATUSEHAT has {finding.here} of {finding.receipts} images"
    return f"registered with all images, {finding.receipts} receipts; SATUSEHAT does not answer for single images"


def _note(store: Store, settings: Settings, job: Job, finding: Finding) -> None:
    """Write the finding into the timeline; where something is missing, reopen the job with what has to go again."""
    now = now_ms()
    with changing(store, settings, "study.verify", study_uid=job.study_uid, subject=f"job {job.job_id}",
                  ok=finding.ok) as tx:
        jobs.add_event(tx, now, "verified", describe(finding), study_uid=job.study_uid, job_id=job.job_id,
                       fields={"ok": finding.ok, "answered_for": finding.here}, who="cli")
        if finding.ok or not jobs.act(tx, [job.job_id], Event.REOPEN, who="verify", now=now).moved:
            return
        jobs.send_again(tx, finding.missing)
        jobs.forget_facts(tx, job.job_id, job.environment, "registered_revision")
