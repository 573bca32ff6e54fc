"""`audit`: verify the trail, or write it out.

Reads and writes the database directly; works whether or not the router runs. Changes when the trail is to be written
out in another form.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from interface.acting import changing
from interface.audit_message import render
from interface.cli_database import iso, opened
from internal import audit_trail
from internal.config import Settings
from internal.store import Store

_BATCH = 1000


def audit(options: argparse.Namespace, settings: Settings) -> int:
    """Verify the trail, or write it to standard output."""
    with opened(settings) as store:
        return _verify(store, settings) if options.verb == "verify" else _export(store, options, settings)


def _verify(store: Store, settings: Settings) -> int:
    head = audit_trail.HeadFile(settings.data_dir)
    kept = head.read()
    with store.reading() as tx:
        seq, digest = audit_trail.head(tx)
        found = 0
        for fault in audit_trail.faults(tx, kept):
            found += 1
            print(fault, file=sys.stderr)
    if kept is None and seq:
        print(f"{head.path} is missing: whether the end of the trail was cut off cannot be said", file=sys.stderr)
        found += 1
    print(f"{seq} entries, {found} faults; the last one has SHA-256 {digest}")
    return 1 if found else 0


def _export(store: Store, options: argparse.Namespace, settings: Settings) -> int:
    seq = options.after
    while True:
        with store.reading() as tx:
            entries = audit_trail.entries_after(tx, seq, _BATCH)
        for entry in entries:
            print(render(entry) if options.form == "dicom" else _json_line(entry))
        if len(entries) < _BATCH:
            break
        seq = entries[-1].seq
    with changing(store, settings, "audit.export", subject=options.form, after=options.after):
        return 0


def _json_line(entry: audit_trail.Entry) -> str:
    return json.dumps(dataclasses.asdict(entry) | {"time": iso(entry.at)}, ensure_ascii=False)
