"""How much of a peer's slowness and size is put up with; one value for the whole web role.

Times in seconds. Changes when another dimension has to be bounded. Source: facts, reliability.md 3.3 S37.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one connection and one request.

    Attributes
    ----------
    head_wait_s, head_bytes : from connecting (or the first byte) to the end of the head, and its size.
    ahead_bytes : most that is taken of further requests while complete ones are being answered.
    chunk_wait_s : longest silence within a body. body_s, body_bytes_per_s : a body has `body_s` plus its size at this
        rate. json_depth : deepest nesting of a JSON body.
    """

    head_wait_s: float = 10.0
    head_bytes: int = 32 * 1024
    ahead_bytes: int = 64 * 1024
    chunk_wait_s: float = 15.0
    body_s: float = 30.0
    body_bytes_per_s: float = 2000.0
    json_depth: int = 32
