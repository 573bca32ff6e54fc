"""Start the receive role alone, for tests and benches: ``python -m interface.dimse --spool DIR``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from interface.dimse.receive_role import run_receive
from interface.dimse.settings import ReceiveSettings


def main(argv: list[str]) -> int:
    """Parse `argv` and run the gate, or with ``--slot N`` a child; returns the exit code."""
    parser = argparse.ArgumentParser(prog="interface.dimse")
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--settings-json", default="{}")
    parser.add_argument("--slot", type=int)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(process)d %(levelname)s %(name)s %(message)s", stream=sys.stderr,
    )  # fmt: skip
    command = [sys.executable, "-m", "interface.dimse", *argv]
    return run_receive(
        ReceiveSettings.from_json(options.settings_json), options.spool, options.slot,
        lambda slot: [*command, "--slot", str(slot)],
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
