"""What a person decides about single studies: `same-patient` today; each decision has a reason and is kept.

Reads and writes the database directly, whether or not the router runs. Changes when people may decide something new.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path

from interface import actions
from interface.acting import changing
from interface.cli_database import now_ms, opened
from interface.cli_table import DataTable
from interface.destinations import PLATFORM
from interface.explain import explain, state_text
from interface.roles import open_spool
from internal import corrections, holdings, index, jobs
from internal.config import Settings
from internal.decisions import KnownOrder
from internal.doctor import read_alias_file
from internal.errors import NotAllowed, NotFound
from internal.identity import Person
from internal.store import Tx


def person(options: argparse.Namespace) -> str:
    """Return who acts, as ``cli:NAME``: --by, else the account that runs the command."""
    return f"cli:{' '.join(str(options.by or getpass.getuser()).split())[:64]}"


def same_patient(options: argparse.Namespace, settings: Settings) -> int:
    """Decide that both sides of a held study are one patient, and try its jobs again."""
    with opened(settings) as store, changing(store, settings, "study.same-patient", subject=options.study,
                                             by=options.by, reason=options.reason) as tx:
        done = len(actions.same_patient(tx, jobs.find_jobs(tx, options.study), reason=options.reason,
                                        who=person(options), now=now_ms()))
    if not done:
        print(f"{options.study}: nothing is held because of its patient", file=sys.stderr)
        return 1
    print(f"{done} jobs go on")
    return 0


def discard(options: argparse.Namespace, settings: Settings) -> int:
    """Give up a study that can never be confirmed, or bring it back; its bytes stay for 30 days."""
    now, who = now_ms(), person(options)
    action = "study.discard-undo" if options.undo else "study.discard"
    with opened(settings) as store, changing(store, settings, action, subject=options.study, by=options.by,
                                             reason=options.reason) as tx:
        study_uid = one_study(tx, options.study)
        if options.undo:
            actions.undo_discard(tx, study_uid, who=who, now=now)
            print(f"{study_uid}: brought back; `retry` sends it")
            return 0
        if not options.reason:
            raise NotAllowed("--reason is needed to discard a study")
        actions.discard(tx, study_uid, reason=options.reason, who=who, now=now)
    print(f"{study_uid}: discarded; its images are removed in 30 days, `discard {study_uid} --undo` brings it back")
    return 0


def storage(options: argparse.Namespace, settings: Settings) -> int:
    """Print how many bytes are kept for which reason, and what is free."""
    del options
    with opened(settings) as store, store.reading() as tx:
        shares = holdings.shares(tx)
    table = DataTable("kept because", "images", "MB", title=f"{settings.spool_dir}")
    for share in shares:
        state, _, code = share.why.partition("/")
        reason = explain(code).text(settings.router.language) if code else ""
        table.add_data(f"{state_text(state, settings.router.language)} {reason}".strip(), str(share.instances),
                       f"{share.size_bytes / 1e6:.1f}")
    table.print()
    print(f"{open_spool(settings, create=False).free_bytes() / 1e9:.1f} GB free")
    return 0


def accession(options: argparse.Namespace, settings: Settings) -> int:
    """Show what the accession of a study may have been, or let it be sent under another one."""
    with opened(settings) as store:
        with store.reading() as tx:
            job_id = one_delivery(tx, options.study)
            if options.new is None:
                return _print_proposals(tx, job_id, settings)
        if not options.reason:
            raise NotAllowed("--reason is needed to send a study under another accession number")
        with changing(store, settings, "study.accession", subject=f"job {job_id}", by=options.by,
                      reason=options.reason, after={"accession": options.new.strip()}) as tx:
            try:
                state = corrections.correct(
                    tx, job_id, options.new, reason=options.reason, who=person(options), now=now_ms())
            except ValueError as fault:
                raise NotAllowed(str(fault)) from None
    print(f"job {job_id}: sent as {options.new.strip()}; {state_text(state, settings.router.language)}")
    return 0


def _print_proposals(tx: Tx, job_id: int, settings: Settings) -> int:
    job = jobs.job(tx, job_id)
    found = corrections.proposals(tx, job, corrections.aliases(tx) | _alias_file(settings))
    print(f"job {job_id}: received {job.part or '(none)'}, sent as {job.accession or job.part or '(none)'}")
    for one in found:
        certain = "one order, a second identifier agrees" if one.is_certain else f"{one.orders} orders known"
        print(f"  {one.accession_number}  [{one.rule}] {certain}")
    if not found:
        print("  no proposal: no known order fits")
    return 0


def order(options: argparse.Namespace, settings: Settings) -> int:
    """Wake what waits for the order of an accession number, and remember an urgent one for images still to come."""
    known = KnownOrder("person", options.accession.strip(), options.accession, Person(), urgent=options.urgent)
    if not known.order_id:
        raise NotAllowed("an accession number is needed")
    with opened(settings) as store, changing(store, settings, "order.came", subject=known.order_id,
                                             by=options.by) as tx:
        woken = corrections.order_came(tx, known, now_ms(), who=person(options))
    print(f"{len(woken)} deliveries look for their order now")
    return 0


def alias(options: argparse.Namespace, settings: Settings) -> int:
    """List, add or remove aliases; those of alias_file come first and are changed there."""
    from_file = _alias_file(settings)
    with opened(settings) as store:
        if options.action == "list":
            with store.reading() as tx:
                table = corrections.aliases(tx) | from_file
            for sent, meant in sorted(table.items()):
                print(f"{sent}\t{meant}{'  (alias_file)' if sent in from_file else ''}")
            return 0
        if not options.sent or (options.action == "add" and not options.meant):
            raise NotAllowed("alias add SENT MEANT, or alias remove SENT")
        if options.sent in from_file:
            raise NotAllowed(f"{options.sent!r} stands in alias_file: change it there")
        try:
            with changing(store, settings, f"alias.{options.action}", subject=options.sent, by=options.by,
                          after=options.meant) as tx:
                corrections.set_alias(tx, options.sent, options.meant if options.action == "add" else None,
                                      author=person(options), now=now_ms())
        except ValueError as fault:
            raise NotAllowed(str(fault)) from None
    print(f"{options.sent}: {options.action} done")
    return 0


def _alias_file(settings: Settings) -> dict[str, str]:
    path = settings.satusehat.alias_file
    return read_alias_file(path if path != Path() else None)


def one_delivery(tx: Tx, token: str) -> int:
    """Return the one delivery to the platform that `token` means; raises NotFound, NotAllowed when it means several."""
    found = [job for job in (jobs.job(tx, job_id) for job_id in jobs.find_jobs(tx, token))
             if job.kind == "deliver" and job.destination == PLATFORM]
    if not found:
        raise NotFound(f"{token!r} has no delivery to SATUSEHAT (yet: `send-now` does not wait)")
    if len(found) > 1:
        listed = ", ".join(f"#{job.job_id}" for job in found[:5])
        raise NotAllowed(f"{token!r} means {len(found)} deliveries; name one: {listed}")
    return found[0].job_id


def one_study(tx: Tx, token: str) -> str:
    """Return the one Study Instance UID that `token` means; raises NotFound, NotAllowed when it means several."""
    found = index.find_studies(tx, token)
    if not found:
        raise NotFound(f"no study with the UID or accession number {token!r} has been received")
    if len(found) > 1:
        raise NotAllowed(f"{token!r} means {len(found)} studies; name one by its UID: {', '.join(found[:5])}")
    return found[0]
