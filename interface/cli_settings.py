"""`main.py settings`: what was changed while the router ran, by whom, and the way back; `lane NAME set` beside it.

Reads and writes the database directly; works whether or not the router runs. Changes when settings in the database can
be looked at in another way.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from interface.acting import changing, command_author
from interface.cli_database import iso, now_ms, opened
from interface.cli_table import DataTable
from interface.lane_control import ground_of
from interface.roles import open_spool
from internal import admission, catalogue, lane_settings, settings_rows
from internal.catalogue import Difference, Revision
from internal.config import Settings
from internal.config.values import WrongValue, parse_day_hours, parse_size
from internal.errors import NotAllowed, NotFound, RouterError
from internal.store import Store

#: Takes the word of the database back: what the file says is in force again.
AS_FILE = "file"


def settings_command(options: argparse.Namespace, settings: Settings) -> int:
    """List settings, show the history of one or what a revision changed, or bring a revision back."""
    if options.verb == "list":
        return _list(options, settings)
    if options.kind is None or options.name is None:
        raise NotFound("name a kind and a name, such as: settings history lane satusehat")
    options.name = settings_rows.name_of(options.kind, options.name)
    if options.verb == "history":
        return _history(options, settings)
    if options.revision is None:
        raise NotFound(f"settings {options.verb} needs --revision N")
    return _diff(options, settings) if options.verb == "diff" else _rollback(options, settings)


def _list(options: argparse.Namespace, settings: Settings) -> int:
    kinds = [options.kind] if options.kind else sorted(settings_rows.KINDS)
    with opened(settings) as store, store.reading() as tx:
        found = [one for kind in kinds for one in catalogue.in_force(tx, kind)]
        conflicts = settings_rows.conflicts(tx, ground_of(settings))
    _print(found, options)
    for sentence in conflicts:
        print(sentence, file=sys.stderr)
    return 1 if conflicts else 0


def _history(options: argparse.Namespace, settings: Settings) -> int:
    with opened(settings) as store, store.reading() as tx:
        found = catalogue.history(tx, options.kind, options.name)
    if not found:
        raise NotFound(f"{options.kind} {options.name} was never changed here")
    _print(found, options)
    return 0


def _print(revisions: list[Revision], options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps([dataclasses.asdict(one) for one in revisions], indent=1))
        return
    table = DataTable("kind", "name", "revision", "when", "who", "what")
    for one in revisions:
        what = "taken out" if one.body is None else json.dumps(one.body)
        restored = f" (as in revision {one.restores})" if one.restores else ""
        table.add_data(one.kind, one.name, str(one.revision), iso(one.at), one.author, what + restored)
    table.print()


def _diff(options: argparse.Namespace, settings: Settings) -> int:
    with opened(settings) as store, store.reading() as tx:
        found = settings_rows.compared(tx, options.kind, options.name, options.revision)
    if options.json:
        print(json.dumps([dataclasses.asdict(one) for one in found], indent=1))
        return 0
    for one in found:
        print(describe(one))
    return 0


def describe(difference: Difference) -> str:
    """Return one changed value as a line."""
    before, after = (json.dumps(value) for value in (difference.before, difference.after))
    return f"{difference.path}: {before} -> {after}"


def _rollback(options: argparse.Namespace, settings: Settings) -> int:
    with opened(settings) as store:
        with changing(store, settings, "settings.rollback", subject=f"{options.kind}/{options.name}",
                      revision=options.revision) as tx:
            done = settings_rows.rollback(tx, options.kind, options.name, options.revision, ground_of(settings),
                                          who=command_author().name, now=now_ms())
        tell_receiver(store, settings)
    print(f"{done.kind} {done.name}: revision {done.revision} is in force, as revision {options.revision} was")
    return 0


def tell_receiver(store: Store, settings: Settings) -> None:
    """Tell the receiver of this node at once; others are told by their own deliver role within seconds."""
    try:
        admission.publish(store, open_spool(settings, create=False))
    except RouterError as error:
        print(f"the receiver is told once it runs: {error}", file=sys.stderr)


def set_lane(options: argparse.Namespace, settings: Settings) -> int:
    """Set bandwidth or hours of a lane; the router takes it up within seconds, without a restart."""
    changes: dict[str, Any] = {}
    try:
        if options.bandwidth is not None:
            changes["bandwidth"] = None if options.bandwidth == AS_FILE else parse_size(options.bandwidth)
        if options.send_hours is not None:
            text = options.send_hours
            changes["send_hours"] = None if text == AS_FILE else parse_day_hours(text) if text else ""
    except WrongValue as fault:
        raise NotAllowed(f"the value {fault}") from None
    if not changes:
        raise NotAllowed("lane NAME set needs --bandwidth or --send-hours")
    with opened(settings) as store, changing(store, settings, "lane.set", subject=options.name, **changes) as tx:
        body = lane_settings.changed(tx, options.name, **changes)
        settings_rows.change(tx, lane_settings.KIND, options.name, body, ground_of(settings),
                             who=command_author().name, now=now_ms())
        found = lane_settings.in_force(tx, options.name)
    for key in ("bandwidth", "send_hours"):
        value = getattr(found, key)
        print(f"{options.name}: {key} = {'as router.conf says' if value is None else value}")
    return 0
