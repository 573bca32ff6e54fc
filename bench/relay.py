"""Relaying to a DICOM node: ours against a relay made of DCMTK programs, and against sending directly.

`python -m bench.relay [--rounds N] [--count N] [--json FILE]` prints one row per bar. The whole time runs from start
of `storescu` until the last image lies at the receiving `storescp`. "Sending on" is the second half alone: the images
lie in the router, its lane is opened, and the last one arrives. The other relay is storescp, dcmodify and storescu, one
process of each for each file, as a script would do it; it writes nothing durably, ours syncs every image.
Changes when a bar does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.receive import Case, make_images
from bench.servers import ENVIRONMENT, ROOT, TITLE, accepts, free_port, give_back, process, role, wait_until

IMAGE_BYTES = 500_000
#: So many files go through the relay of programs; its rate does not depend on their number.
SCRIPT_FILES = 40
DIRECT, SCRIPT = "storescu directly", "storescp + dcmodify + storescu"
WHOLE, ON = "ours, whole", "ours, sending on"
WHOLE_RULES, ON_RULES = f"{WHOLE}, with rules", f"{ON}, with rules"
SCRIPTS_BAR, DIRECT_BAR, RULES_BAR = 10.0, 0.5, 0.8
_RELAY_S = 300.0

CONFIGURATION = """
[satusehat]
dicom_port = {port}
http_port = {http_port}
ae_title = {title}
[router]
data_dir = data
send_to = pacs
settle = 0s
settle_cr_dx = 0s
settle_release_min = 0s
settle_max = 0s
[dicom]
dicom_bind = 127.0.0.1
[dimse:pacs]
host = 127.0.0.1
port = {to}
ae_title = PACS
"""
RULES = """
[rule:patient]
do =
    set PatientID = "RELAYED"
    upper PatientName
    set InstitutionName = "RELAY {StationName}"
send_to = pacs
"""

Row = dict[str, Any]


@contextlib.contextmanager
def receiving(folder: Path) -> Iterator[int]:
    """Run a storescp that keeps what comes in `folder`; yield its port."""
    folder.mkdir(parents=True)
    port = free_port()
    command = ["storescp", "--fork", "+xa", "+B", "-aet", "PACS", "-od", str(folder), str(port)]
    with process(command, folder, lambda: accepts(port)):
        yield port


def send(port: int, folder: Path) -> None:
    """Send a folder with one storescu."""
    subprocess.run(["storescu", "-aec", TITLE, "+sd", "127.0.0.1", str(port), str(folder)], env=ENVIRONMENT,
                   stderr=subprocess.DEVNULL, check=True)


def arrived(folder: Path) -> int:
    """Return how many files lie in `folder` whole."""
    return sum(1 for entry in os.scandir(folder) if entry.is_file() and entry.stat().st_size >= IMAGE_BYTES)


def direct_rate(images: Path, base: Path, count: int) -> float:
    """Images per second of storescu to storescp."""
    with receiving(base / "direct") as port:
        began_s = time.perf_counter()
        send(port, images)
        seconds = time.perf_counter() - began_s
    give_back(base / "direct")
    return count / seconds


def our_rates(images: Sequence[Path], base: Path, count: int, *, rules: bool) -> tuple[float, float]:
    """Images per second through the whole router to storescp, and of sending on alone; a folder of images for each."""
    name = "ours-rules" if rules else "ours"
    with receiving(base / name / "pacs") as to:
        port, http_port = free_port(), free_port()
        path = base / name / "router.conf"
        text = CONFIGURATION.format(port=port, http_port=http_port, title=TITLE, to=to) + (RULES if rules else "")
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        with process(role(path), ROOT, lambda: accepts(port) and accepts(http_port)):
            time.sleep(2.0)  # the deliver role has no port; its start is not what is measured
            began_s = time.perf_counter()
            send(port, images[0])
            wait_until(lambda: arrived(base / name / "pacs") >= count, f"{name}: not all images arrived", _RELAY_S)
            whole_s = time.perf_counter() - began_s
            tell(path, "lane", "pacs", "pause")
            send(port, images[1])
            wait_until(lambda: is_indexed(base / name), f"{name}: not indexed", _RELAY_S)
            tell(path, "lane", "pacs", "resume")
            began_s = time.perf_counter()
            wait_until(lambda: arrived(base / name / "pacs") >= 2 * count, f"{name}: not all were sent on", _RELAY_S)
            on_s = time.perf_counter() - began_s
    give_back(base / name)
    return count / whole_s, count / on_s


def tell(configuration: Path, *words: str) -> None:
    """Run a command of the router."""
    subprocess.run([sys.executable, str(ROOT / "main.py"), *words, "--config", str(configuration)], check=True,
                   stdout=subprocess.DEVNULL)


def is_indexed(folder: Path) -> bool:
    """Return whether everything received is in the index and has settled: nothing lies in new/ for a second."""
    return not any((folder / "data" / "spool" / "new").iterdir()) and not time.sleep(1.0)


def script_rate(images: Path, base: Path) -> float:
    """Images per second of a script: each file that storescp has written is changed and sent on, one by one."""
    some = base / "some"
    some.mkdir()
    for path in sorted(images.iterdir())[:SCRIPT_FILES]:
        (some / path.name).hardlink_to(path)
    with receiving(base / "script-pacs") as to, receiving(base / "script-in") as port:
        began_s = time.perf_counter()
        with subprocess.Popen(["storescu", "-aec", "PACS", "+sd", "127.0.0.1", str(port), str(some)], env=ENVIRONMENT,
                              stderr=subprocess.DEVNULL) as sender:
            done = 0
            while done < SCRIPT_FILES:
                for path in sorted((base / "script-in").iterdir()):
                    if path.stat().st_size < IMAGE_BYTES:
                        continue
                    subprocess.run(["dcmodify", "-nb", "-m", "(0010,0020)=RELAYED", str(path)], check=True,
                                   stderr=subprocess.DEVNULL)
                    subprocess.run(["storescu", "-aec", "PACS", "127.0.0.1", str(to), str(path)], check=True,
                                   env=ENVIRONMENT, stderr=subprocess.DEVNULL)
                    path.unlink()
                    done += 1
            sender.wait()
        seconds = time.perf_counter() - began_s
        if arrived(base / "script-pacs") != SCRIPT_FILES:
            raise RuntimeError("the relay of programs lost images")
    give_back(base)
    return SCRIPT_FILES / seconds


def measure(count: int, rounds: int) -> list[Row]:
    """Return the rows: rates, and our ratios with their bars; each round measures every relay one after another."""
    rates: dict[str, list[float]] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            base = Path(folder)
            images = make_images(base / "images", Case("", "", count, IMAGE_BYTES, 2, {}))
            found = {DIRECT: direct_rate(images[0], base, count)}
            found[WHOLE], found[ON] = our_rates(images, base, count, rules=False)
            found[WHOLE_RULES], found[ON_RULES] = our_rates(images, base, count, rules=True)
            (base / "script").mkdir()
            found[SCRIPT] = script_rate(images[0], base / "script")
            for name, rate in found.items():
                rates.setdefault(name, []).append(rate)
    rows: list[Row] = [{"what": f"{name}, images/s", "value": statistics.median(some)} for name, some in rates.items()]
    rows.append(_ratio("whole, with rules : relay of programs", rates[WHOLE_RULES], rates[SCRIPT], SCRIPTS_BAR))
    rows.append(_ratio("sending on : storescu directly", rates[ON], rates[DIRECT], DIRECT_BAR))
    rows.append(_ratio("sending on, with rules : storescu directly", rates[ON_RULES], rates[DIRECT], DIRECT_BAR))
    rows.append(_ratio("whole, with rules : without", rates[WHOLE_RULES], rates[WHOLE], RULES_BAR))
    rows.append(_ratio("sending on, with rules : without", rates[ON_RULES], rates[ON], RULES_BAR))
    return rows


def _ratio(what: str, ours: Sequence[float], theirs: Sequence[float], bar: float) -> Row:
    value = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return {"what": what, "value": value, "bar": f">= {bar:g}", "holds": value >= bar}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 0 whatever it says: the page shows what holds."""
    parser = argparse.ArgumentParser(prog="python -m bench.relay", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    rows = measure(options.count, options.rounds)
    for row in rows:
        sys.stdout.write(f"{row['what']:44} {row['value']:10.2f} {row.get('bar', ''):8} {row.get('holds', '')}\n")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
