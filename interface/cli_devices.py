"""`devices`: who has called, and admitting, holding or refusing a caller.

Reads and writes the database directly; works whether or not the router runs. Changes when people may say something
else about a device.
"""

from __future__ import annotations

import argparse
import dataclasses
import json

from interface.acting import changing
from interface.cli_database import iso, now_ms, opened
from interface.cli_settings import tell_receiver
from interface.cli_table import DataTable
from internal import admission, devices, peers
from internal.config import Settings
from internal.devices import Verdict
from internal.errors import NotFound
from internal.store import Store

VERBS: dict[str, Verdict | None] = {
    "admit": Verdict.ACCEPT, "hold": Verdict.HOLD, "refuse": Verdict.REFUSE, "forget": None,
}


def parse_caller(text: str) -> tuple[str, str]:
    """Return (AE title, address) of ``AET@ADDRESS``, IPv6 with or without brackets.

    Without an IP address behind the last @ all of it is the title.
    """
    aet, at, address = text.rpartition("@")
    try:
        return (aet.strip(), peers.parse_address(address)) if at and aet.strip() else (text.strip(), "")
    except ValueError:
        return text.strip(), ""


def run_devices(options: argparse.Namespace, settings: Settings) -> int:
    """List callers, or write down a decision about some; jobs that waited for it go on at once."""
    with opened(settings) as store:
        if options.verb is None:
            return _show(store, options, settings)
        if not options.callers:
            raise NotFound("name at least one AE title, or AET@ADDRESS")
        default = Verdict(settings.dicom.unknown_callers)
        with changing(store, settings, f"device.{options.verb}", subject=" ".join(options.callers)) as tx:
            released = [job_id for text in options.callers for job_id in admission.decide(
                tx, *parse_caller(text), VERBS[options.verb], default=default, who="cli", now=now_ms())]
        tell_receiver(store, settings)
    print(f"{len(options.callers)} callers: {options.verb}; {len(released)} jobs go on")
    return 0


def _show(store: Store, options: argparse.Namespace, settings: Settings) -> int:
    with store.reading() as tx:
        rows = devices.list_devices(tx)
    if options.json:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
        return 0
    table = DataTable("AE title", "address", "decision", "first seen", "last seen",
                      title=f"[dicom] unknown_callers = {settings.dicom.unknown_callers}")
    for row in rows:
        table.add_data(row.aet, row.address or "any", row.verdict or "none", iso(row.first_seen_at),
                       iso(row.last_seen_at))
    table.print()
    return 0
