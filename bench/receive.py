"""How fast images are received: ours, whole and durable, against pynetdicom, DCMTK's storescp and Orthanc.

`python -m bench.receive [--rounds N] [--case NAME ...] [--json FILE]`. DCMTK's storescu is the client. Every server
takes the same images once per round; a ratio is the median of the ratios within the rounds, so what else the machine
does meanwhile weighs little. Without `--rounds` each case has its own number of them; the largest never have more.
Images are incompressible and each sender has its own. What idling, large objects and
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
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from bench import receive_costs
from bench.servers import (
    ENVIRONMENT,
    PATH,
    TITLE,
    free_port,
    give_back,
    memory_at_hand,
    servers,
    wait_for_cheap_files,
)
from internal.dicomfile import read_meta
from internal.spool import EntryKind, Spool

#: Of everything that varies; medians of three are still noise where others use the machine.
ROUNDS = 5


@dataclass(frozen=True)
class Case:
    """`senders` associations at once, each with `count` images of `size_bytes`; `bars`: server -> least ratio.

    `rounds` unless others are asked for; `is_long`: not more even then. `without`: a server that is left out.
    """

    name: str
    title: str
    count: int
    size_bytes: int
    senders: int
    bars: dict[str, float]
    rounds: int = ROUNDS
    is_long: bool = False
    without: str = ""

    def rounds_of(self, asked: int | None) -> int:
        """Return how many rounds to measure where `asked` are wanted."""
        if asked is None:
            return self.rounds
        return min(asked, self.rounds) if self.is_long else asked

    @property
    def all_bytes(self) -> int:
        """What the pixels of all images take on the disk."""
        return self.senders * self.count * self.size_bytes


ONE = {"pynetdicom": 3.0, "Orthanc": 2.0, "storescp": 0.3, "bare loop": 0.5}
EIGHT = {"pynetdicom": 4.0, "storescp": 0.4}
CASES = (
    Case("one-500k", "500 x 0.5 MB", 500, 500_000, 1, ONE, rounds=7),
    Case("one-50k", "5,000 x 50 KB", 5000, 50_000, 1, {}, rounds=3, is_long=True),
    Case("one-20m", "20 x 20 MB", 20, 20_000_000, 1, {}),
    Case("eight-500k", "8 at once, 300 x 0.5 MB each", 300, 500_000, 8, EIGHT),
    Case("eight-20m", "8 at once, 20 x 20 MB each", 20, 20_000_000, 8, {}, rounds=3, is_long=True),
    Case("eight-50k", "8 at once, 5,000 x 50 KB each", 5000, 50_000, 8, {}, rounds=1, is_long=True,
         without="pynetdicom, large PDU"),  # three minutes more, for what no bar asks
)  # fmt: skip
_FIRST_IMAGE = 100_000
#: The images, what one server keeps of them, and what ours delivers or may not use.
_DISK_SHARES = 3
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
        root = generate_uid()[:50].rstrip(".")
        uid = f"{root}.{_FIRST_IMAGE}"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        whole = BytesIO()
        dataset.save_as(whole)
        # Of equal length and put in place of the first one: encoding each image would take longer than measuring.
        for index in range(case.count):
            image = whole.getvalue().replace(uid.encode(), f"{root}.{_FIRST_IMAGE + index}".encode())
            (own / f"{index:05d}.dcm").write_bytes(image)
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
            if name == case.without:
                continue
            folder = base / f"{name}-{number}"
            folder.mkdir()
            port = free_port()
            wait_for_cheap_files(base / f"files-{name}-{number}")
            os.sync()  # what was written before is no load on this one
            with server(port, folder), memory_at_hand(2 * case.all_bytes):
                measured.seconds.setdefault(name, []).append(send(port, folders))
            if name == "ours" and case.senders > 1:
                measured.shares.append(share_at_first_end(folder))
            give_back(folder)
        folder = base / f"bare-{number}"
        folder.mkdir()
        wait_for_cheap_files(base / f"files-bare-{number}")
        os.sync()
        with memory_at_hand(2 * case.all_bytes):
            measured.seconds.setdefault("bare loop", []).append(bare_loop(folder, case))
        give_back(folder)
    give_back(base / "images")
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


def titled(case: Case, rounds: int) -> str:
    """Return the case's title with the number of its rounds."""
    return f"{case.title}, {rounds} round{'s' * (rounds != 1)}"


def rows_of(case: Case, measured: Measured) -> list[dict[str, Any]]:
    """Return the rows of one case: rates, then ratios."""
    images = case.count * case.senders
    title = titled(case, len(measured.seconds["ours"]))
    rows = [
        row(title, f"{name}, images/s", [images / seconds for seconds in values])
        for name, values in measured.seconds.items()
    ]
    rows += [
        at_least(title, f"ours : {name}", measured.ratio(name), case.bars.get(name))
        for name in measured.seconds if not name.startswith("ours")
    ]  # fmt: skip
    unsynced = measured.ratio("storescp", "ours, fsync off")
    bar = UNSYNCED_BAR if case.name == "one-500k" else None
    rows.append(at_least(title, "ours, fsync off : storescp", unsynced, bar))
    if measured.shares:
        bar = FAIRNESS_BAR if case.name == "eight-500k" else None
        rows.append(at_least(title, "done by the slowest when the first ends", measured.shares, bar))
    return rows


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Write `rows` to standard error as a table."""
    for each in rows:
        sys.stderr.write(
            f"{each['case']:43}{each['figure']:46}{each['median']:10.4g}  ({each['lowest']:.4g} .. "
            f"{each['highest']:.4g})  {each['bar']} {each['holds']}\n"
        )


def measure_cost(name: str, samples: int, base: Path) -> list[dict[str, Any]]:
    """Return the rows of one of receive_costs.COSTS."""
    figures = receive_costs.COSTS[name](samples, base)
    give_back(base)
    return [row(f.case, f.figure, f.values, f"{f.sign} {f.bar:g}" if f.sign else "", f.holds) for f in figures]


def missing_bytes(cases: Sequence[Case], folder: Path) -> int:
    """Return how many bytes the disk of `folder` lacks for the largest of `cases`, 0 if there is room."""
    needed = max((case.all_bytes * _DISK_SHARES for case in cases), default=0)
    return max(0, needed - shutil.disk_usage(folder).free)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cases asked for; the table goes to standard error, JSON to the file."""
    cases = {case.name: case for case in CASES}
    names = [*cases, *receive_costs.COSTS]
    parser = argparse.ArgumentParser(prog="python -m bench.receive", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--case", action="append", choices=names)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    if not shutil.which("storescu", path=PATH):
        parser.error("DCMTK's storescu is not installed")
    wanted = options.case or names
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as base:
        if missing := missing_bytes([cases[name] for name in wanted if name in cases], Path(base)):
            parser.error(f"the disk of temporary files lacks {missing / 1e9:.1f} GB")
        for name in wanted:
            folder = Path(base, name)
            folder.mkdir()
            if name in cases:
                case = cases[name]
                found = rows_of(case, measure(case, case.rounds_of(options.rounds), folder))
            else:
                found = measure_cost(name, options.rounds or ROUNDS, folder)
            show(found)
            rows += found
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
