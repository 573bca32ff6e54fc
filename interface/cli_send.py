"""`main.py send`: the built-in C-STORE SCU with a progress bar and a table of failures."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from interface.cli_table import DataTable
from interface.dimse.scu import FileResult, SendReport, send_paths


def send(options: argparse.Namespace) -> int:
    """Send everything under the given paths; return 0 only if every DICOM file was answered with Success."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console,
        disable=not sys.stderr.isatty(),
    ) as progress:
        task = progress.add_task(f"C-STORE {options.called}@{options.host}:{options.port}", total=None)

        def on_progress(_result: FileResult, done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        report = send_paths(
            options.host, options.port, options.paths, calling=options.calling, called=options.called,
            on_progress=on_progress,
        )
    _print(report, console)
    return 0 if report.stored and not report.failed else 1


def _print(report: SendReport, console: Console) -> None:
    for path, why in report.skipped:
        console.print(f"skipped {path}: {why}", markup=False, highlight=False)
    if report.failed:
        table = DataTable("file", "status", "reason", title="Not stored")
        for failure in report.failed:
            status = "no answer" if failure.status is None else f"0x{failure.status:04X}"
            table.add_data(failure.name, status, failure.reason)
        console.print(table)
    print(f"{report.stored} sent, {len(report.failed)} failed, {len(report.skipped)} skipped")
