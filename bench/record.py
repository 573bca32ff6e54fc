"""Write the dated tables of docs/: test results of `make proof`, figures of the benches.

`python -m bench.record --proof JUNIT.xml ...` fills docs/reliability.md, `--soak JUNIT.xml` its soak;
`python -m bench.record` runs every bench of this folder and fills docs/performance.md; with `--only NAME` it runs that
one and takes the others from their last run (build/bench). Only the text between the page's markers is replaced.
Changes when a table does.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine
from bench.attacks import attack_table

ROOT = Path(__file__).resolve().parent.parent
_FILE = ("--json", "FILE")
#: BENCH_ROUNDS=1 makes a short run whose medians say less, BENCH_ROUNDS=7 a steady one; without it each bench takes
#: its own number.
_ROUNDS = ("--rounds", os.environ["BENCH_ROUNDS"], *_FILE) if os.environ.get("BENCH_ROUNDS") else _FILE
#: Arguments of each bench; one that writes its JSON to a file gets the name in place of FILE, the others print it.
BENCHES = {"receive": _ROUNDS, "push": ("--json",), "relay": _ROUNDS, "pages": ("--json",),
           "rules": _ROUNDS}
#: With whom a bench compares; their versions stand above its table.
PEERS = {"receive": ("DCMTK", "pynetdicom", "Orthanc"), "relay": ("DCMTK",)}
#: Long enough for seven rounds, which on a noisy machine are the steadier table.
BENCH_TIMEOUT_S = 5400
#: The property under which a test records a fault of the catalogue: a JSON list of id, fault and result.
FAULT = "fault"
SURVIVED, NOT_RUN = "survived", "not run: "


class RecordFailed(Exception):
    """A table cannot be written."""


@dataclass
class Suite:
    """The results of one test file."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0


def read_junit(texts: Iterable[str]) -> dict[str, Suite]:
    """Return the results in JUnit files (pytest's own, so trusted) by test module."""
    suites: dict[str, Suite] = {}
    for text in texts:
        for case in ET.fromstring(text).iter("testcase"):
            suite = suites.setdefault(_module(case.get("classname", "")), Suite())
            suite.seconds += float(case.get("time", 0))
            outcomes = {child.tag for child in case}
            if outcomes & {"failure", "error"}:
                suite.failed += 1
            elif "skipped" in outcomes:
                suite.skipped += 1
            else:
                suite.passed += 1
    return suites


def read_figures(texts: Iterable[str]) -> list[str]:
    """Return a Markdown line for each test that recorded figures (pytest's record_property); faults are no figures."""
    lines = []
    for text in texts:
        for case in ET.fromstring(text).iter("testcase"):
            found = [f"{p.get('name')} {p.get('value')}" for p in case.iter("property")
                     if p.get("name") not in ("attack", FAULT)]
            if found:
                lines.append(f"- `{case.get('name')}`: {', '.join(found)}")
    return lines


def read_faults(texts: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return (id, fault, result) of every fault of the catalogue that tests recorded, in the catalogue's order."""
    found = {tuple(json.loads(str(p.get("value")))) for text in texts
             for case in ET.fromstring(text).iter("testcase") for p in case.iter("property") if p.get("name") == FAULT}
    return sorted(((str(id_), str(fault), str(result)) for id_, fault, result in found), key=_catalogue_order)


def _catalogue_order(row: tuple[str, str, str]) -> tuple[str, int, str]:
    number = re.match(r"[A-Z](\d+)", row[0])
    return row[0][:1], int(number[1]) if number else 0, row[0]


def faults_table(rows: Sequence[tuple[str, str, str]], stamp: str) -> str:
    """Return the Markdown of the fault catalogue: how many survived, each fault, and what was not run and why."""
    ran = [row for row in rows if not row[2].startswith(NOT_RUN)]
    survived = sum(result == SURVIVED for _, _, result in ran)
    lines = [stamp, "", f"**{survived} of {len(ran)} survived.**", "", "| id | fault | result |", "| --- | --- | --- |"]
    lines += [f"| {id_} | {_shown(fault)} | {_shown(result)} |" for id_, fault, result in rows]
    return "\n".join(lines)


def _module(classname: str) -> str:
    parts = classname.split(".")
    end = next((n + 1 for n, part in enumerate(parts) if part.startswith("test_")), len(parts))
    return "/".join(parts[:end]) + ".py"


def proof_table(suites: dict[str, Suite], stamp: str, figures: Sequence[str] = ()) -> str:
    """Return the Markdown table of `suites`, below the `figures` that tests recorded."""
    lines = [stamp, "", *([*figures, ""] if figures else [])]
    lines += ["| tests | passed | failed | skipped | seconds |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| `{name}` | {s.passed} | {s.failed} | {s.skipped} | {s.seconds:.0f} |" for name, s in sorted(suites.items())
    ]
    every = suites.values()
    total = [sum(getattr(s, name) for s in every) for name in ("passed", "failed", "skipped")]
    lines.append(f"| **all** | {total[0]} | {total[1]} | {total[2]} | {sum(s.seconds for s in every):.0f} |")
    return "\n".join(lines)


def bench_table(results: dict[str, tuple[str, Any]]) -> str:
    """Return one Markdown table per bench; `results` are the stamp and the JSON of each."""
    blocks = []
    for name, (stamp, result) in results.items():
        rows = rows_of(result)
        columns = list(dict.fromkeys(key for row in rows for key, value in row.items() if _flat(value)))
        head = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        body = ["| " + " | ".join(_shown(row.get(column)) for column in columns) + " |" for row in rows]
        blocks.append("\n".join([f"### bench/{name}.py", "", stamp, "", *head, *body]))
    return "\n\n".join(blocks)


def rows_of(result: Any) -> list[dict[str, Any]]:
    """Return the rows of a bench's JSON: a list, or {"rows": [...]}."""
    if isinstance(result, list):
        return result
    rows: list[dict[str, Any]] = result.get("rows", [result])
    return rows


def _flat(value: object) -> bool:
    return isinstance(value, str | int | float | bool | None)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return "" if value is None else str(value).replace("|", "\\|")


def replace_between(page: str, name: str, text: str) -> str:
    """Return `page` with `text` between `<!-- name:begin -->` and `<!-- name:end -->`; RecordFailed without them."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise RecordFailed(f"the page has no {begin} ... {end}")
    return f"{before}{begin}\n{text}\n{end}{after}"


def _stamp(peers: Iterable[str] = ()) -> str:
    """Return date, commit, machine, and the versions of `peers`; the file system is that of temporary files."""
    today = datetime.now(UTC).date().isoformat()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    version = f", commit {commit.stdout.strip()}" if commit.returncode == 0 else ""
    compared = "".join(f", {each}" for each in machine.versions(peers))
    return f"{today}{version}; {machine.describe(Path(tempfile.gettempdir()))}{compared}."


def _write(page: str, name: str, text: str) -> None:
    path = ROOT / "docs" / page
    path.write_text(replace_between(path.read_text(encoding="utf-8"), name, text), encoding="utf-8", newline="\n")


def run_bench(name: str) -> Any:
    """Run `python -m bench.<name>` and return its JSON; RecordFailed if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "result.json")
        arguments = [str(file) if argument == "FILE" else argument for argument in BENCHES[name]]
        command = [sys.executable, "-m", f"bench.{name}", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=BENCH_TIMEOUT_S, check=False
        )
        if done.returncode:
            raise RecordFailed(f"bench/{name}.py ended with exit code {done.returncode}")
        try:
            return json.loads(file.read_text(encoding="utf-8") if file.exists() else done.stdout)
        except ValueError as error:
            raise RecordFailed(f"bench/{name}.py gave something else than JSON") from error


def _measure(names: Sequence[str]) -> int:
    """Run benches and write the table of all that have ever run here; 1 if one could not run: the others count."""
    kept = ROOT / "build" / "bench"
    kept.mkdir(parents=True, exist_ok=True)
    status = 0
    for name in names:
        try:
            result = {"stamp": _stamp(PEERS.get(name, ())), "result": run_bench(name)}
        except RecordFailed as failure:
            sys.stderr.write(f"{failure}\n")
            status = 1
        else:
            (kept / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")
    found = {name: json.loads((kept / f"{name}.json").read_text(encoding="utf-8"))
             for name in BENCHES if (kept / f"{name}.json").is_file()}
    _write("performance.md", "bench", bench_table({name: (one["stamp"], one["result"]) for name, one in found.items()}))
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Write one table; 1 when it cannot be written or a proof has failures."""
    parser = argparse.ArgumentParser(prog="python -m bench.record", description="Write the dated tables of docs/.")
    parser.add_argument("--proof", nargs="+", type=Path, metavar="JUNIT.xml", help="results of `make proof`")
    parser.add_argument("--attacks", nargs="+", type=Path, metavar="JUNIT.xml", help="results of attack tests alone")
    parser.add_argument("--faults", nargs="+", type=Path, metavar="JUNIT.xml", help="results of tests/faults alone")
    parser.add_argument("--only", action="append", choices=list(BENCHES), help="measure this bench again")
    parser.add_argument("--soak", type=Path, metavar="JUNIT.xml", help="the result of `make soak`")
    args = parser.parse_args(argv)
    try:
        if args.attacks:
            texts = [path.read_text(encoding="utf-8") for path in args.attacks]
            _write("security.md", "attacks", attack_table(texts, _stamp()))
            return 0
        if args.faults:
            texts = [path.read_text(encoding="utf-8") for path in args.faults]
            _write("reliability.md", "faults", faults_table(read_faults(texts), _stamp()))
            return 0
        if args.proof:
            texts = [path.read_text(encoding="utf-8") for path in args.proof]
            suites = read_junit(texts)
            _write("reliability.md", "proof", proof_table(suites, _stamp(), read_figures(texts)))
            _write("security.md", "attacks", attack_table(texts, _stamp()))
            _write("reliability.md", "faults", faults_table(read_faults(texts), _stamp()))
            return 1 if any(suite.failed for suite in suites.values()) else 0
        if args.soak:
            text = args.soak.read_text(encoding="utf-8")
            _write("reliability.md", "soak", "\n".join([_stamp(), "", *read_figures([text])]))
            return 0
        return _measure(args.only or list(BENCHES))
    except RecordFailed as failure:
        sys.stderr.write(f"{failure}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
