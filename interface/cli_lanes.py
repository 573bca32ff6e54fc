"""`main.py lane`: what each destination's lane does, and a person's word to pause or resume it.

Writes the lane's row; workers look at it at every boundary. Changes when a lane gets another brake for people.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from interface import actions
from interface.acting import changing
from interface.cli_database import iso, now_ms, opened
from interface.cli_settings import set_lane
from interface.cli_table import DataTable
from interface.destinations import build
from internal import jobs
from internal.config import Settings
from internal.errors import NotFound
from internal.lanes import BREAKER, Lane
from internal.store import Tx


def lane(options: argparse.Namespace, settings: Settings) -> int:
    """List lanes, or pause, resume or set one."""
    if options.name is None:
        return _list(options, settings)
    if options.name not in settings.lane_names():
        raise NotFound(f"no lane {options.name!r}; lanes are {', '.join(settings.lane_names())}")
    if options.verb == "set":
        return set_lane(options, settings)
    with opened(settings) as store:
        if options.verb is not None:
            with changing(store, settings, f"lane.{options.verb}", subject=options.name, reason=options.reason) as tx:
                _change(tx, options)
        with store.reading() as tx:
            found = jobs.lane(tx, options.name)
    print(f"{found.name}: {describe(found, now_ms())}")
    return 0


def _change(tx: Tx, options: argparse.Namespace) -> None:
    if options.verb == "pause":
        actions.pause_lane(tx, options.name, reason=options.reason or "", who="cli", now=now_ms())
    else:
        actions.resume_lane(tx, options.name, who="cli", now=now_ms())


def _list(options: argparse.Namespace, settings: Settings) -> int:
    with opened(settings) as store, store.reading() as tx:
        found = configured_lanes(tx, settings)
    if options.json:
        print(json.dumps([dataclasses.asdict(one) for one in found], indent=1))
        return 0
    table = DataTable("lane", "environment", "state")
    environments = {destination.name: destination.environment for destination in build(settings)}
    for one in found:
        table.add_data(one.name, environments.get(one.name, ""), describe(one, now_ms()))
    table.print()
    return 0


def configured_lanes(tx: Tx, settings: Settings) -> list[Lane]:
    """Return the lane of every destination that studies may go to."""
    return [jobs.lane(tx, name) for name in settings.lane_names()]


def describe(lane: Lane, now: int) -> str:
    """Return in words whether the lane is open, who stopped it until when, and what a person has to look at."""
    words = f"failing since {iso(lane.down_since)}; {lane.standby} takes its studies" if lane.standby else "open"
    if lane.paused_until > now and lane.paused_by == BREAKER:
        words = f"tried again {iso(lane.paused_until)}: {lane.reason}"
    elif lane.paused_until > now:
        words = f"paused: {lane.reason} (resume with `lane {lane.name} resume`)"
    return f"{words}; ALERT since {iso(lane.alert_at)}: {lane.alert}" if lane.alert_code else words


def print_trouble(tx: Tx, settings: Settings) -> None:
    """Print to the error stream what stops the lanes; nothing while all are open."""
    for one in configured_lanes(tx, settings):
        words = describe(one, now_ms())
        if words != "open":
            print(f"lane {one.name}: {words}", file=sys.stderr)
