"""What a person decides about single studies: `same-patient` today; each decision has a reason and is kept.

Reads and writes the database directly, whether or not the router runs. Changes when people may decide something new.
"""

from __future__ import annotations

import argparse
import getpass
import sys

from interface.cli_queue import now_ms, opened
from internal import decisions, index, jobs
from internal.config import Settings
from internal.decisions import Kind
from internal.errors import NotAllowed, NotFound
from internal.states import Event
from internal.store import Tx

_SIDES = frozenset({"patient-mismatch", "mixed-patients"})


def person(options: argparse.Namespace) -> str:
    """Return who acts: --by, else the account that runs the command."""
    return str(options.by or getpass.getuser())[:64]


def confirm_patient(options: argparse.Namespace, settings: Settings) -> int:
    """Decide that both sides of a held study are one patient, and try its jobs again."""
    with opened(settings) as store, store.transaction() as tx:
        done = 0
        for job_id in jobs.find_jobs(tx, options.study):
            job = jobs.job(tx, job_id)
            sides = str(job.detail.get("sides", ""))
            if job.reason_code not in _SIDES or not sides:
                continue
            decisions.decide(tx, Kind.PATIENT, job.study_uid, part=job.part, body={"sides": sides},
                             reason=options.reason, who=person(options), now=now_ms(),
                             text="a person confirmed that it is the same patient")
            done += len(jobs.act(tx, [job_id], Event.RETRY, who=person(options), now=now_ms()))
    if not done:
        print(f"{options.study}: nothing is held because of its patient", file=sys.stderr)
        return 1
    print(f"{done} jobs go on")
    return 0


def one_study(tx: Tx, token: str) -> str:
    """Return the one Study Instance UID that `token` means; raises NotFound, NotAllowed when it means several."""
    found = index.find_studies(tx, token)
    if not found:
        raise NotFound(f"no study with the UID or accession number {token!r} has been received")
    if len(found) > 1:
        raise NotAllowed(f"{token!r} means {len(found)} studies; name one by its UID: {', '.join(found[:5])}")
    return found[0]
