"""What the receive role has to be told; made by the composition root from the configuration.

Imports nothing of ours. Passed on unchanged from the gate to its children. Changes when the receiver gets a setting.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class ReceiveSettings:
    """Settings of the receive role; every default is safe on a hospital network.

    `ae_titles` are the titles we answer to. `port` 0 takes a free one (published in run/receive.json). `children` 0
    receives inside the gate's own process, as on Windows. `association_timeout_s` bounds each step before the
    association is accepted (the call, over TLS the handshake, the request); `idle_timeout_s` the silence between
    two messages; `stall_timeout_s` is the window in which a message must bring `min_bytes_per_s` on average.
    `drain_s` is what SIGTERM leaves an instance in hand.
    `commitment_callers` are the AE titles that may ask for storage commitment: it lets a scanner delete.
    `commitment_nodes` are those that we ask for it, and whose answers we take.
    `commitment_same_association` are those of them that get the answer on the association of the request while it is
    open.
    `tls_port` None means no TLS; certificate, key and CA are PEM files.
    `lock_wait_s` is how long a start waits for a predecessor that still drains.
    """

    ae_titles: tuple[str, ...] = ("DCMROUTER",)
    port: int = 11112
    bind: tuple[str, ...] = ("0.0.0.0", "::")  # noqa: S104 - modalities come from the network
    children: int = 2
    max_associations: int = 400
    max_associations_per_address: int = 250
    max_pdu_bytes: int = 262_144
    max_object_bytes: int = 16 * 1024**3
    association_timeout_s: float = 10.0
    idle_timeout_s: float = 300.0
    stall_timeout_s: float = 60.0
    min_bytes_per_s: int = 100
    drain_s: float = 20.0
    fsync: bool = True
    min_free_bytes: int = 0
    unknown_callers: Literal["accept", "hold", "refuse"] = "accept"
    commitment_callers: tuple[str, ...] = ()
    commitment_nodes: tuple[str, ...] = ()
    commitment_same_association: tuple[str, ...] = ()
    tls_port: int | None = None
    tls_certificate: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    supervised: bool = False
    lock_wait_s: float = 10.0

    def to_json(self) -> str:
        """Return the settings as a JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ReceiveSettings:
        """Return the settings in `text`, absent ones at their default; raises ValueError or TypeError."""
        values: dict[str, Any] = json.loads(text)
        known = {field.name for field in fields(cls)}
        if unknown := values.keys() - known:
            raise ValueError(f"unknown settings: {', '.join(sorted(unknown))}")
        for name in ("ae_titles", "bind", "commitment_callers", "commitment_nodes", "commitment_same_association"):
            if name in values:
                values[name] = tuple(values[name])
        return cls(**values)
