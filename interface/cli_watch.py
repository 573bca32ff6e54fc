"""`main.py watch`: what was taken from watched folders, and which files were refused and why.

Reads the ledger only. Changes when more is remembered of a file.
"""

from __future__ import annotations

import argparse
import json

from interface.cli_database import iso, opened
from interface.cli_table import DataTable, say
from internal import watched
from internal.config import Settings

_SHOWN = 20


def watch(options: argparse.Namespace, settings: Settings) -> int:
    """List the watched folders with their newest refused files."""
    folders = settings.named.get("watch", {})
    with opened(settings) as store, store.reading() as tx:
        found = {name: (watched.totals(tx, name), watched.refused(tx, name, _SHOWN)) for name in folders}
    if options.json:
        print(json.dumps([
            {"name": name, "path": str(folders[name].path), "files": files, "accepted": accepted, "refused": refused,
             "refused_files": [{"path": one.path, "at": one.at, "reason": one.reason} for one in some]}
            for name, ((files, accepted, refused), some) in found.items()], indent=1))
        return 0
    table = DataTable("folder", "path", "files seen", "images taken", "refused")
    for name, (totals, _) in found.items():
        table.add_data(name, str(folders[name].path), *map(str, totals))
    table.print()
    for name, (_, some) in found.items():
        for one in some:
            say(f"{name}: {one.path} ({iso(one.at)}): {one.reason}")
    return 0
