"""The process that parses headers in full: one line of JSON in, one answer out, under limits of the kernel.

Layer 1, started by `parser` as ``python -m internal.parse_child``; holds nothing between two files. Whatever a hostile
file makes it do, it can only end itself. Changes when the limits or the protocol with `parser` change.
"""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any, BinaryIO

from internal.errors import NotDicom

#: The lowest priority there is.
_NICE = 19


def main(argv: list[str]) -> int:
    """Answer requests on standard input until that closes; ``argv`` are the memory (bytes) and CPU (s) allowed."""
    memory_bytes, cpu_s = int(argv[0]), float(argv[1])
    limit_process(memory_bytes)
    warnings.simplefilter("ignore")  # they quote values of patients
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    from internal.header_json import header_json

    _answer(answers, {"ready": True})
    for line in requests:
        limit_cpu(cpu_s)
        request = json.loads(line)
        try:
            with Path(request["path"]).open("rb") as file:
                file.seek(request["offset"])
                body = header_json(file, request["transfer_syntax_uid"])
        except MemoryError:
            _answer(answers, {"reason": "parsing it needs more memory than is allowed"})
        except NotDicom as refusal:
            _answer(answers, {"reason": str(refusal)})
        except Exception as error:  # noqa: BLE001 - the top: said without the value that the parser tripped over
            _answer(answers, {"reason": f"the parser failed ({type(error).__name__})"})
        else:
            _answer(answers, {"bytes": len(body)}, body)
    return 0


def _answer(answers: BinaryIO, head: dict[str, Any], body: bytes = b"") -> None:
    answers.write(json.dumps(head).encode("ascii") + b"\n" + body)
    answers.flush()


def limit_process(memory_bytes: int) -> None:
    """Bound the address space, forbid new files larger than nothing and core dumps, and yield to everybody else."""
    if hasattr(os, "nice"):
        os.nice(_NICE)
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def limit_cpu(cpu_s: float) -> None:
    """Let the kernel end this process after `cpu_s` more seconds of computing."""
    if sys.platform != "win32":
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = math.ceil(used.ru_utime + used.ru_stime + cpu_s)
        resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
