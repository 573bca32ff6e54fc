"""The child that decodes, ``python -m internal.codec MEMORY_BYTES``: one JSON order a line in, one answer a line out.

Limits itself before it reads the first order; a codec that runs wild takes this process with it and nothing else.
Ends when its standard input closes. Changes when an order is added.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from internal.codec.picture import draw
from internal.codec.reading import opened
from internal.codec.transcoding import same_content, transcode
from internal.errors import PixelsRefused

_NICER_BY = 5


def main(memory_bytes: int) -> int:
    """Answer orders until standard input closes."""
    _limit(memory_bytes)
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # whatever a codec writes to standard output must not look like an answer
    answers.write("{}\n")
    answers.flush()
    for line in sys.stdin.buffer:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()
    return 0


def _limit(memory_bytes: int) -> None:
    if sys.platform == "win32":
        return
    import resource

    os.nice(_NICER_BY)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # too large a file is an error of the write, not the end


def _limit_order(cpu_s: float, output_bytes: int) -> None:
    """Bound the processor time of this order, not of all before it, and the size of what it writes."""
    if sys.platform == "win32":
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + cpu_s) + 1, hard))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (output_bytes, hard))


def _answer(order: dict[str, Any]) -> dict[str, Any]:
    _limit_order(order["cpu_s"], order["output_bytes"])
    try:
        return _carry_out(order)
    except PixelsRefused as refusal:
        return {"refused": refusal.code, "message": str(refusal)}
    except FileNotFoundError:
        return {"missing": True}
    except MemoryError:
        return {"refused": "too-large", "message": "it needs more memory than it is given"}
    except OSError as error:
        return {"failed": error.errno or 0}
    except Exception as error:  # noqa: BLE001 - the top of this process: hostile pixels must not end it
        return {"refused": "damaged", "message": f"it cannot be decoded ({type(error).__name__})"}


def _carry_out(order: dict[str, Any]) -> dict[str, Any]:
    source = Path(order["source"])
    if order["do"] == "draw":
        return draw(source, edge=order["edge"], frame=order["frame"], kind=order["kind"])
    target = Path(order["target"])
    if order["do"] == "transcode":
        return transcode(source, order["syntax"], target)
    with opened(source) as one, opened(target) as other:
        return {"same": same_content(one, other)}


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
