"""`alerts`: what is wrong, saying that one knows, and trying the ways by which people are told.

Reads and writes the database directly; `test` sends past the queue. Changes when alerts can be handled in another way.
"""

from __future__ import annotations

import argparse
import dataclasses
import json

from interface.acting import changing, command_author
from interface.alert_texts import detail_of, title_of
from interface.alerts import build_alerts, channels_of
from interface.cli_database import iso, now_ms, opened
from interface.cli_table import DataTable
from internal import alerts
from internal.config import Settings
from internal.errors import NotFound
from internal.fhir import dates

_ROWS = 200


def run_alerts(options: argparse.Namespace, settings: Settings) -> int:
    """List alerts; `ack ID`: somebody knows; `test NAME`: send a test message of a rule over all its channels."""
    if options.verb == "test":
        return _test(options, settings)
    with opened(settings) as store:
        if options.verb == "ack":
            if not (options.target or "").isdecimal():
                raise NotFound("name the number of an alert: `alerts` lists them")
            with changing(store, settings, "alert.acknowledge", subject=options.target) as tx:
                alerts.acknowledge(tx, int(options.target), who=command_author().name, now=now_ms())
            print(f"alert {options.target}: no reminders until it is over")
            return 0
        with store.reading() as tx:
            rows = alerts.past_alerts(tx, _ROWS, open_only=not options.all)
    if options.json:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
        return 0
    language, zone = settings.router.language, dates.zone(settings.satusehat.tz_name)
    table = DataTable("alert", "rule", "since", "until", "what", "known by")
    for one in rows:
        what = f"{title_of(one.condition, one.subject, language)}: "
        what += detail_of(one.condition, one.subject, one.detail, language, zone)
        table.add_data(str(one.alert_id), one.rule, iso(one.raised_at), iso(one.cleared_at), what, one.acknowledged_by)
    table.print()
    return 0


def _test(options: argparse.Namespace, settings: Settings) -> int:
    rule = settings.alerts.get(options.target or "")
    if rule is None:
        known = ", ".join(settings.alerts) or "none yet: add a section [alert:NAME]"
        raise NotFound(f"no rule {options.target!r}; rules are {known}")
    if not channels_of(rule):
        raise NotFound(f"[alert:{options.target}] tells nobody: set mail_to or webhook_url")
    lane = build_alerts(settings)
    try:
        said = lane.send_test(options.target, now_ms())
    finally:
        lane.close()
    for channel, ok, text in said:
        print(f"{'ok' if ok else 'FAILED':7}{channel}: {text}")
    return 0 if all(ok for _, ok, _ in said) else 1
