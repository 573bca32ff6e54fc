"""How fast images are received: ours, whole and durable, against pynetdicom, DCMTK's storescp and Orthanc.

`python -m bench.receive [--rounds N] [--case NAME ...] [--json FILE]`. DCMTK's storescu is the client. Every server
takes the same images once per round; a ratio is the median of the ratios within the rounds, so what else the machine
does meanwhile weighs little. Images are incompressible and each sender has its own. What idling, large objects and
setting up cost is measured by bench.receive_costs. Changes when another load is worth measuring.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from bench import receive_costs
from bench.servers import ENVIRONMENT, TITLE, free_port, servers
from internal.dicomfile import read_meta
from internal.spool import EntryKind, Spool


@dataclass(frozen=True)
class Case:
    """`senders` associations at once, each with `count` images of `size_bytes`; `bars`: server -> least ratio."""

    name: str
    title: str
    count: int
    size_bytes: int
    senders: int
    bars: dict[str, float]


ONE = {"pynetdicom": 3.0, "Orthanc": 2.0, "storescp": 0.3, "bare loop": 0.5}
EIGHT = {"pynetdicom": 4.0, "storescp": 0.4}
CASES = (
    Case("one-500k", "500 x 0.5 MB", 500, 500_000, 1, ONE),
    Case("one-50k", "5,000 x 50 KB", 5000, 50_000, 1, {}),
    Case("one-20m", "20 x 20 MB", 20, 20_000_000, 1, {}),
    Case("eight-500k", "8 at once, 300 x 0.5 MB each", 300, 500_000, 8, EIGHT),
    Case("eight-50k", "8 at once, 600 x 50 KB each", 600, 50_000, 8, {}),
)
UNSYNCED_BAR = 0.9
FAIRNESS_BAR = 0.5


def make_images(folder: Path, case: Case) -> list[Path]:
    """Write a folder of images for each sender, a study of its own; return the folders."""
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    if "DataSetTrailingPadding" in dataset:
        del dataset.DataSetTrailingPadding
    dataset.Rows, dataset.Columns = 500, case.size_bytes // 1000
    dataset.PixelData = os.urandom(dataset.Rows * dataset.Columns * 2)
    folders = []
    for sender in range(case.senders):
        own = folder / str(sender)
        own.mkdir(parents=True)
        folders.append(own)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
        for index in range(case.count):
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            dataset.save_as(own / f"{index:05d}.dcm")
    return folders


def send(port: int, folders: Sequence[Path]) -> float:
    """Send each folder with a storescu of its own; seconds from the first start to the last end."""
    command = ["storescu", "-aec", TITLE, "+sd", "127.0.0.1", str(port)]
    began_s = time.perf_counter()
    clients = [
        subprocess.Popen([*command, str(folder)], env=ENVIRONMENT, stderr=subprocess.DEVNULL) for folder in folders
    ]
    codes = [client.wait() for client in clients]
    seconds = time.perf_counter() - began_s
    if any(codes):
        raise RuntimeError("storescu failed")
    return seconds


def bare_loop(folder: Path, case: Case) -> float:
    """Seconds for write, fsync, rename and fsync of the directory of the same number of bytes, in one thread."""
    data = os.urandom(case.size_bytes)
    (folder / "tmp").mkdir()
    (folder / "new").mkdir()
    directory = os.open(folder / "new", os.O_RDONLY)
    began_s = time.perf_counter()
    for index in range(case.count * case.senders):
        path = folder / "tmp" / str(index)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.write(fd, data)
        os.fsync(fd)
        os.close(fd)
        path.rename(folder / "new" / str(index))
        os.fsync(directory)
    seconds = time.perf_counter() - began_s
    os.close(directory)
    return seconds


def share_at_first_end(folder: Path) -> float:
    """Which share of its images the slowest association had in when the first one had all of its own."""
    spool = Spool.open(folder / "data" / "spool", create=False)
    done_at: dict[str, list[int]] = {}
    for entry in spool.all_ids():
        if entry.kind is EntryKind.INSTANCE:
            with spool.open_entry(entry.id) as file:
                arrival = read_meta(file).arrival
            if arrival is not None:
                done_at.setdefault(arrival.association_id, []).append(entry.arrived_at)
    first_end = min(max(times) for times in done_at.values())
    return min(sum(at <= first_end for at in times) / len(times) for times in done_at.values())


def give_back(folder: Path) -> None:
    """Free the disk space but keep the files: ext4 is slow in making files where many have just been deleted."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.truncate(path, 0)


@dataclass
class Measured:
    """Seconds by server, a value for each round; `shares` of the slowest of ours."""

    seconds: dict[str, list[float]]
    shares: list[float]

    def ratio(self, name: str, of: str = "ours") -> list[float]:
        """How many times as fast as `name` `of` was, round by round."""
        return [other / own for other, own in zip(self.seconds[name], self.seconds[of], strict=True)]


def measure(case: Case, rounds: int, base: Path) -> Measured:
    """Let each server take the case's images `rounds` times, in turn."""
    folders = make_images(base / "images", case)
    measured = Measured({}, [])
    for number in range(rounds):
        for name, server in servers(fork=case.senders > 1).items():
            folder = base / f"{name}-{number}"
            folder.mkdir()
            port = free_port()
            with server(port, folder):
                measured.seconds.setdefault(name, []).append(send(port, folders))
            if name == "ours" and case.senders > 1:
                measured.shares.append(share_at_first_end(folder))
            give_back(folder)
        folder = base / f"bare-{number}"
        folder.mkdir()
        measured.seconds.setdefault("bare loop", []).append(bare_loop(folder, case))
        give_back(folder)
    return measured


def row(case: str, what: str, values: Sequence[float], bar: str = "", holds: bool | None = None) -> dict[str, Any]:
    """Return one row of the table: the median of `values` and their range."""
    verdict = "" if holds is None else "yes" if holds else "NO"
    return {"case": case, "figure": what, "median": statistics.median(values), "lowest": min(values),
            "highest": max(values), "bar": bar, "holds": verdict}  # fmt: skip


def at_least(case: str, what: str, values: Sequence[float], bar: float | None) -> dict[str, Any]:
    """Return a row whose median should be `bar` at least."""
    if bar is None:
        return row(case, what, values)
    return row(case, what, values, f">= {bar:g}", statistics.median(values) >= bar)


def rows_of(case: Case, measured: Measured) -> list[dict[str, Any]]:
    """Return the rows of one case: rates, then ratios."""
    images = case.count * case.senders
    rows = [
        row(case.title, f"{name}, images/s", [images / seconds for seconds in values])
        for name, values in measured.seconds.items()
    ]
    rows += [
        at_least(case.title, f"ours : {name}", measured.ratio(name), case.bars.get(name))
        for name in measured.seconds if not name.startswith("ours")
    ]  # fmt: skip
    unsynced = measured.ratio("storescp", "ours, fsync off")
    rows.append(at_least(case.title, "ours, fsync off : storescp", unsynced,
                         UNSYNCED_BAR if case.name == "one-500k" else None))  # fmt: skip
    if measured.shares:
        bar = FAIRNESS_BAR if case.name == "eight-500k" else None
        rows.append(at_least(case.title, "done by the slowest when the first ends", measured.shares, bar))
    return rows


def run_case(case: Case, rounds: int) -> list[dict[str, Any]]:
    """Measure one case in a folder of its own."""
    with tempfile.TemporaryDirectory() as base:
        return rows_of(case, measure(case, rounds, Path(base)))


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Write `rows` to standard error as a table."""
    for each in rows:
        sys.stderr.write(
            f"{each['case']:34}{each['figure']:46}{each['median']:10.4g}  ({each['lowest']:.4g} .. "
            f"{each['highest']:.4g})  {each['bar']} {each['holds']}\n"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cases asked for; the table goes to standard error, JSON to the file."""
    costs: dict[str, Callable[[], list[dict[str, Any]]]] = {
        name: lambda cost=cost: [  # type: ignore[misc]
            row(f.case, f.figure, f.values, f"{f.sign} {f.bar:g}" if f.sign else "", f.holds) for f in cost()
        ]
        for name, cost in receive_costs.COSTS.items()
    }
    parser = argparse.ArgumentParser(prog="python -m bench.receive", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", action="append", choices=[*(case.name for case in CASES), *costs])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    if not shutil.which("storescu"):
        parser.error("DCMTK's storescu is not installed")
    rows: list[dict[str, Any]] = []
    for name in options.case or [*(case.name for case in CASES), *costs]:
        case = next((case for case in CASES if case.name == name), None)
        found = run_case(case, options.rounds) if case else costs[name]()
        show(found)
        rows += found
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
