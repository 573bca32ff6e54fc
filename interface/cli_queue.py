"""`queue`, `show`, `retry`, `cancel`, `send-now` and `reindex`: what is on its way, why not, and a person's word.

Reads and writes the database directly; works whether or not the router runs. Changes when people may ask or order
something new.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Column

from interface import actions
from interface.acting import changing
from interface.cli_database import iso, now_ms, opened
from interface.cli_lanes import print_trouble
from interface.cli_table import DataTable, say
from interface.explain import explain, state_text
from interface.roles import open_spool, open_store
from internal import config, index, jobs, rule_rows, set_aside
from internal.associations import receptions_of
from internal.config import Settings
from internal.errors import BytesMissing, NotDicom, NotFound
from internal.indexer import READ_BYTES, read_instance, read_record
from internal.model import Instance, Item, Job
from internal.spool import EntryKind, Spool
from internal.states import Event, State
from internal.store import Store, Tx

_REINDEX_BATCH = 100
_QUEUE_ROWS = 10_000


def age_text(age_ms: int) -> str:
    """Return an age for people: minutes, hours or days, whichever has one or two digits."""
    minutes = max(age_ms, 0) // 60_000
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} d"


def _heading(settings: Settings) -> str:
    return f"environment: {config.environment_name(settings.satusehat.url)} ({settings.satusehat.url})"


def queue(options: argparse.Namespace, settings: Settings) -> int:
    """List jobs, and studies that are still coming in; with --json the jobs as a list of objects."""
    state = _state(options.state)
    with opened(settings) as store, store.reading() as tx:
        rows = [dataclasses.asdict(row) for row in
                jobs.list_jobs(tx, state=state, reason_code=options.reason, limit=_QUEUE_ROWS)]
        unsettled = [] if state or options.reason else index.studies_to_settle(tx, _QUEUE_ROWS)
        receiving = [index.study(tx, one.study_uid) for one in unsettled]
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    language, now = settings.router.language, now_ms()
    whole = (Column(name, no_wrap=True) for name in ("job", "accession", "mod.", "images", "lane"))
    table = DataTable(*whole, "state", Column("reason", ratio=1), "tries", "age", Column("next try", no_wrap=True),
                      title=_heading(settings))
    for row in rows:
        reason = explain(row["reason_code"]).text(language) or row["reason"]
        table.add_data(
            str(row["job_id"]), row["accession_number"], row["modality"], f"{row['receipts']}/{row['instances']}",
            row["lane"], state_text(row["state"], language), reason, str(row["attempts"]),
            age_text(now - (row["waiting_since"] or row["opened_at"])) if row["state"] != "done" else "",
            iso(row["due_at"])[5:16].replace("T", " ") if row["state"] in ("deferred", "waiting") else "",
        )
    for study in filter(None, receiving):
        table.add_data(
            "", ", ".join(study.accession_numbers), ", ".join(study.modalities), str(study.instances), "",
            state_text("receiving", language), "", "", "",
        )
    table.print()
    with opened(settings) as store, store.reading() as tx:
        print_trouble(tx, settings)
    return 0


def _state(text: str | None) -> State | None:
    if text is None:
        return None
    try:
        return State(text)
    except ValueError:
        raise NotFound(f"no state {text!r}; states are {', '.join(State)}") from None


def show(options: argparse.Namespace, settings: Settings) -> int:
    """Print each matching study's timeline, jobs, reasons and receipts."""
    with opened(settings) as store, store.reading() as tx:
        studies = [_story(tx, uid) for uid in index.find_studies(tx, options.study)]
    if not studies:
        raise NotFound(f"no study with the UID or accession number {options.study!r} has been received")
    if options.json:
        print(json.dumps(studies, indent=1))
        return 0
    print(_heading(settings))
    for story in studies:
        _print_story(story, settings.router.language)
    return 0


def _story(tx: Tx, study_uid: str) -> dict[str, Any]:
    study = index.study(tx, study_uid)
    assert study is not None
    routed = rule_rows.routing_of(tx, study_uid)
    return {
        "study_uid": study_uid,
        "accession_numbers": list(study.accession_numbers),
        "modalities": list(study.modalities),
        "instances": study.instances,
        "series": study.series,
        "received": [dataclasses.asdict(one) for one in receptions_of(tx, study_uid)],
        "first_received_at": study.first_arrived_at,
        "last_received_at": study.last_arrived_at,
        "settled": study.revision == study.settled_revision,
        "routing": dataclasses.asdict(routed) if routed else None,
        "jobs": [_job_story(tx, jobs.job(tx, row.job_id)) for row in jobs.jobs_of(tx, study_uid)],
        "events": [
            {"at": e.at, "job_id": e.job_id, "code": e.code, "text": e.text, **e.fields}
            for e in jobs.events_of(tx, study_uid)
        ],
    }


def _job_story(tx: Tx, job: Job) -> dict[str, Any]:
    return {
        "job_id": job.job_id, "lane": job.destination, "environment": job.environment,
        "accession_number": job.part, "sent_as": job.accession or job.part,
        "state": str(job.state), "reason_code": job.reason_code, "reason": job.reason,
        "attempts": job.attempts, "due_at": job.due_at, "facts": dict(job.facts), "detail": dict(job.detail),
        "items": {str(state): count for state, count in jobs.count_items(tx, job).items()},
        "receipts": [_receipt(item) for item in jobs.items_of(tx, job.job_id, job.environment)],
    }


def _receipt(item: Item) -> dict[str, Any]:
    """Return what proves that one image has arrived: `sha256` is that of the bytes that left."""
    header, answer = item.instance.header, item.answer
    return {
        "sop_uid": header.sop_uid, "series_uid": header.series_uid, "state": str(item.state), "sha256": item.sha256,
        "dataset_sha256": item.instance.sha256, "bytes": item.size_bytes, "sends": item.sends, "at": answer.get("at"),
        "status": answer.get("status"), "text": answer.get("text", ""),
    }


def _print_story(story: dict[str, Any], language: str) -> None:
    say(f"\nStudy {story['study_uid']}")
    say(f"  accession {', '.join(story['accession_numbers']) or '-'}; {', '.join(story['modalities'])}; "
        f"{story['instances']} images in {story['series']} series")
    for one in story["received"]:
        who = f"{one['calling_aet'] or '?'} at {one['host'] or '?'}"
        say(f"  {iso(one['first_at'])}  {one['images']} images from {who} in {one['associations']} associations, "
            f"the last at {iso(one['last_at'])}")
    if not story["settled"]:
        say(f"  {state_text('receiving', language)}")
    if story["routing"]:
        routed = story["routing"]
        goes = ", ".join(f"{name} ({count})" for name, count in routed["destinations"].items()) or "nowhere"
        by = ", ".join(routed["fired"]) or "default_send_to"
        say(f"  goes to {goes}, by {by} (rule set {routed['rules'] or 'none'})")
    for job in story["jobs"]:
        say(f"  job {job['job_id']} -> {job['lane']} ({job['environment']}): {state_text(job['state'], language)}")
        if job["sent_as"] != job["accession_number"]:
            say(f"    {job['accession_number'] or '(none)'} is sent as {job['sent_as']}")
        explanation = explain(job["reason_code"])
        if explanation.text(language):
            say(f"    {explanation.text(language)} [{explanation.who}]")
        if job["reason"]:
            say(f"    {job['reason']}")
        if job["state"] in ("deferred", "waiting"):
            say(f"    next try {iso(job['due_at'])}")
        if job["facts"].get("imaging_study_id"):
            say(f"    ImagingStudy {job['facts']['imaging_study_id']}")
        say("    " + ", ".join(f"{state} {count}" for state, count in sorted(job["items"].items())))
        if job["detail"]:
            say("    " + json.dumps(job["detail"], indent=1).replace("\n", "\n    "))
    for event in story["events"]:
        say(f"  {iso(event['at'])}  {event['text']}")


def retry(options: argparse.Namespace, settings: Settings) -> int:
    """Try jobs again now: held, cancelled, deferred and waiting ones, and delivered ones of another environment."""
    present = actions.environments(settings)
    return _act(options, settings, "study.retry",
                lambda tx, job_ids: actions.retry(tx, job_ids, present, who="cli", now=now_ms()))


def cancel(options: argparse.Namespace, settings: Settings) -> int:
    """Stop jobs; nothing is deleted."""
    return _act(options, settings, "study.cancel",
                lambda tx, job_ids: jobs.act(tx, job_ids, Event.CANCEL, who="cli", now=now_ms()))


def _act(
    options: argparse.Namespace, settings: Settings, action: str, verb: Callable[[Tx, list[int]], jobs.Acted],
) -> int:
    with opened(settings) as store, changing(store, settings, action, **_asked(options)) as tx:
        job_ids, missing = _targets(tx, options)
        acted = verb(tx, job_ids)
    for job_id, state in acted.moved:
        print(f"job {job_id}: {state_text(state, settings.router.language)}")
    for job_id, why in acted.refused:
        print(f"job {job_id}: {why}", file=sys.stderr)
    for target in missing:
        print(f"{target}: no such study, accession number or job", file=sys.stderr)
    return 1 if missing or not acted.moved else 0


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    """Return what the audit trail says of a command on jobs."""
    targets = list(options.targets)
    return {"subject": targets[0] if len(targets) == 1 else "", "targets": targets,
            "state": getattr(options, "state", "")}


def _targets(tx: Tx, options: argparse.Namespace) -> tuple[list[int], list[str]]:
    """Return the job ids that the arguments mean, and the arguments that mean none."""
    if not options.targets and options.state is None:
        raise NotFound("name at least one Study Instance UID, accession number or job id, or use --state")
    found = {target: jobs.find_jobs(tx, target) for target in options.targets}
    job_ids = [job_id for some in found.values() for job_id in some]
    if options.state is not None:
        job_ids += [row.job_id for row in jobs.list_jobs(tx, state=_state(options.state), limit=_QUEUE_ROWS)]
    return list(dict.fromkeys(job_ids)), [target for target, some in found.items() if not some]


def accept_partial(options: argparse.Namespace, settings: Settings) -> int:
    """Let studies held as partly delivered go without the instances that failed; nothing is deleted."""
    accepted = 0
    with opened(settings) as store, changing(store, settings, "study.accept-partial", **_asked(options)) as tx:
        for target in options.targets:
            studies = index.find_studies(tx, target)
            if not studies:
                print(f"{target}: no such study or accession number", file=sys.stderr)
            for study_uid in studies:
                acted = jobs.accept_partial(tx, study_uid, who="cli", now=now_ms())
                accepted += bool(acted.moved)
                for job_id, why in acted.refused:
                    print(f"job {job_id}: {why}", file=sys.stderr)
                for job_id, state in acted.moved:
                    print(f"job {job_id}: {state_text(state, settings.router.language)}")
    return 0 if accepted == len(options.targets) else 1


def bad(options: argparse.Namespace, settings: Settings) -> int:
    """List what was set aside, newest first; the files lie in the spool's bad/ with their reason beside them."""
    with opened(settings) as store, store.reading() as tx:
        rows = [dataclasses.asdict(row) for row in set_aside.list_set_aside(tx, _QUEUE_ROWS)]
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    table = DataTable("file", "set aside at", "study", "reason", title=str(settings.spool_dir / "bad"))
    for row in rows:
        table.add_data(row["entry_id"], iso(row["at"]), row["study_uid"] or "?", row["reason"])
    table.print()
    return 0


def send_now(options: argparse.Namespace, settings: Settings) -> int:
    """Settle the studies at once and wake their jobs."""
    action = "study.urgent" if options.urgent else "study.send-now"
    with opened(settings) as store, changing(store, settings, action, **_asked(options)) as tx:
        job_ids, missing = _targets(tx, options)
        named = {target: index.find_studies(tx, target) for target in options.targets}
        known = {target for target, uids in named.items() if uids}
        sent = actions.send_now(tx, [uid for uids in named.values() for uid in uids], job_ids, urgent=options.urgent,
                                who="cli", now=now_ms())
    unknown = [target for target in missing if target not in known]
    for target in unknown:
        print(f"{target}: no such study, accession number or job", file=sys.stderr)
    for job_id, state in sent.stopped:
        print(f"job {job_id}: {state_text(state, settings.router.language)}; `retry` sends it", file=sys.stderr)
    print(f"{len(sent.studies)} studies sent on, {len(sent.woken)} jobs woken")
    return 1 if unknown or sent.stopped else 0


def reindex(options: argparse.Namespace, settings: Settings) -> int:
    """Add index rows for stored files that have none; safe while the router runs, and at any repetition."""
    spool = open_spool(settings, create=False)
    store = open_store(settings)
    try:
        store.migrate()
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("reindex", total=None)
            seen, added, unreadable = _reindex(spool, store, lambda done: progress.update(task, completed=done))
    finally:
        store.close()
    print(f"{seen} files, {added} rows added, {unreadable} unreadable")
    return 1 if unreadable else 0


def _reindex(spool: Spool, store: Store, on_progress: Callable[[int], None]) -> tuple[int, int, int]:
    """Return how many entries were seen, rows added, entries unreadable."""
    seen = added = unreadable = 0
    batch: list[Instance] = []
    buffer = memoryview(bytearray(READ_BYTES))
    for entry in spool.all_ids():
        seen += 1
        on_progress(seen)
        try:
            if entry.kind is EntryKind.INSTANCE:
                batch.append(read_instance(spool, entry, buffer))
            elif entry.kind is EntryKind.ASSOCIATION:
                _add_record(store, read_record(spool, entry), spool.node)
        except BytesMissing:
            seen -= 1  # the running router has set it aside meanwhile
        except (NotDicom, OSError) as refusal:
            unreadable += 1
            print(f"{entry.id}: {refusal}", file=sys.stderr)
        if len(batch) >= _REINDEX_BATCH:
            added += _add(store, batch)
            batch = []
    return seen, added + _add(store, batch), unreadable


def _add_record(store: Store, record: dict[str, Any], node: str) -> None:
    # A restart of long ago would end the associations of a receiver that runs now.
    if record.get("how") != "slot-restarted":
        with store.transaction() as tx:
            index.add_association(tx, record, node=node)


def _add(store: Store, batch: list[Instance]) -> int:
    with store.transaction() as tx:
        outcomes = index.add_instances(tx, batch, now_ms())
    return sum(outcome in (index.Added.NEW, index.Added.CONFLICT) for outcome in outcomes)


