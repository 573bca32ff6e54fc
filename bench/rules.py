"""What a set of 50 rules costs for one image: deciding where it goes, and rewriting its header.

`python -m bench.rules [--rounds N] [--json FILE]` prints one row per figure. The header is that of a CT image with a
few sequences; ten of the rules fire and change it, the others are asked and do not. Reading the file's header from disk
is part of it, hashing and sending the pixels is not. Changes when a bar does.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydicom.data import get_testdata_file

from internal import dicomfile, elements, scan
from internal.config import RuleText
from internal.model import Arrival
from internal.rewrite import rewrite
from internal.rules import Facts, RuleSet, compile_rules
from internal.rules.edits import KeyBytes

RULES, FIRING = 50, 10
BAR_MS = 1.0
_IMAGES = 200


def rule_set() -> RuleSet:
    """Return 50 rules with three questions each; the first ten fire."""
    texts = [RuleText(f"fires-{number}", {
        "when": 'Modality = CT and StationName present and not StudyDescription matches "^X{number}"',
        "do": f'set PatientID = "{{PatientID}}{number % 10}"\nupper PatientName', "send_to": "pacs",
    }) for number in range(FIRING)]
    texts += [RuleText(f"asked-{number}", {
        "when": f"Modality in (CT, MR) and calling = NOBODY{number} and SeriesDescription present",
        "do": 'set PatientID = "X"', "send_to": "pacs",
    }) for number in range(RULES - FIRING)]
    return compile_rules(texts, {"pacs"}, lambda source: "")


def cost_ms(act: Callable[[], object]) -> float:
    """Return the milliseconds that one call takes, over many."""
    began_s = time.process_time()
    for _ in range(_IMAGES):
        act()
    return (time.process_time() - began_s) * 1000 / _IMAGES


def measure(rounds: int) -> list[dict[str, Any]]:
    """Return the rows: deciding, rewriting, both; the bar is for both together."""
    content = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
    meta = dicomfile.read_meta(io.BytesIO(content))
    offset, size = meta.dataset_offset, len(content) - meta.dataset_offset
    header = scan.scan(content[offset:], meta.transfer_syntax_uid)
    rules, keys = rule_set(), KeyBytes(b"bench")

    def facts() -> Facts:
        return Facts(header, Arrival(0, calling_aet="CT1"),
                     lambda: elements.read_header(io.BytesIO(content), offset, size, meta.transfer_syntax_uid))

    def change() -> None:
        received = elements.read(io.BytesIO(content), offset, size, meta.transfer_syntax_uid)
        known = Facts(header, Arrival(0, calling_aet="CT1"), lambda: received)
        done = rewrite(received, known, rules, rules.edits_for(known, "pacs"), lambda source, key: None, keys)
        assert len(done.fired) == FIRING

    rounds_ms = [(cost_ms(lambda: rules.route([facts()], ["pacs"])), cost_ms(change)) for _ in range(rounds)]
    route_ms, change_ms = (statistics.median(some) for some in zip(*rounds_ms, strict=True))
    both = statistics.median(sum(one) for one in rounds_ms)
    return [{"what": f"{RULES} rules: deciding, ms per image", "value": route_ms},
            {"what": f"{RULES} rules, {FIRING} firing: rewriting, ms per image", "value": change_ms},
            {"what": f"{RULES} rules: both, ms per image", "value": both, "bar": f"< {BAR_MS:g}",
             "holds": both < BAR_MS}]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if the bar does not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.rules", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    rows = measure(options.rounds)
    for row in rows:
        sys.stdout.write(f"{row['what']:56} {row['value']:8.3f} {row.get('bar', ''):8} {row.get('holds', '')}\n")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
