"""Whom we answer: AE titles, known callers and limits, the last good copy of run/policy.json ruling.

Imports the spool and settings. The database's projection of devices and limits reaches the receiver only this way.
Changes when a device can be more than accepted or refused.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from interface.dimse.pdu import APPLICATION_CONTEXT, AssociateRequest, Rejection
from interface.dimse.settings import ReceiveSettings
from internal.spool import POLICY_NAME, Spool

_MAX_CALLERS = 100_000
#: Limits that may be changed while running, with their lowest and highest value.
_LIMITS = {
    "max_associations": (1, 10_000), "max_associations_per_address": (1, 10_000), "max_object_bytes": (1024, 1 << 50),
    "idle_timeout_s": (1, 86_400), "stall_timeout_s": (1, 3_600), "min_bytes_per_s": (0, 1 << 30),
    "association_timeout_s": (1, 600),
}  # fmt: skip

CALLED_UNKNOWN = Rejection(1, 1, 7)
CALLING_UNKNOWN = Rejection(1, 1, 3)
APPLICATION_CONTEXT_UNKNOWN = Rejection(1, 1, 2)
PROTOCOL_VERSION_UNKNOWN = Rejection(1, 2, 2)

log = logging.getLogger("router.dimse")


@dataclass(frozen=True, slots=True)
class Policy:
    """One consistent set of settings and callers; replaced as a whole, never changed."""

    settings: ReceiveSettings
    callers: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def judge(self, request: AssociateRequest, address: str) -> Rejection | None:
        """Return why the association is rejected, None if it may go on. Source: PS3.8 9.3.4."""
        if not request.protocol_version & 1:
            return PROTOCOL_VERSION_UNKNOWN
        if request.application_context != APPLICATION_CONTEXT:
            return APPLICATION_CONTEXT_UNKNOWN
        if request.called_aet not in self.settings.ae_titles:
            return CALLED_UNKNOWN
        verdict = self.callers.get((request.calling_aet, address)) or self.callers.get((request.calling_aet, ""))
        if verdict is None:
            verdict = self.settings.unknown_callers
        return CALLING_UNKNOWN if verdict == "refuse" else None


def parse_policy(settings: ReceiveSettings, data: bytes) -> Policy:
    """Return the policy in `data` over `settings`; raises ValueError if it is not of the agreed shape.

    Unknown limits and those out of range are left at the configured value.
    """
    document = json.loads(data)
    callers: Any = document.get("callers", []) if isinstance(document, dict) else None
    limits: Any = document.get("limits", {}) if isinstance(document, dict) else None
    if not isinstance(callers, list) or not isinstance(limits, dict) or len(callers) > _MAX_CALLERS:
        raise ValueError("not of the shape {callers: [], limits: {}}")
    verdicts = dict(_parse_caller(caller) for caller in callers)
    allowed: dict[str, Any] = {
        name: value for name, value in limits.items()
        if name in _LIMITS and isinstance(value, int | float) and _LIMITS[name][0] <= value <= _LIMITS[name][1]
    }
    return Policy(replace(settings, **allowed), verdicts)


def _parse_caller(caller: object) -> tuple[tuple[str, str], str]:
    """Return ((AE title, address), verdict); the address is "" where any will do."""
    if not isinstance(caller, dict):
        raise ValueError("a caller is not an object")
    aet, address, verdict = (caller.get(key) for key in ("aet", "address", "verdict"))
    if not isinstance(aet, str) or not isinstance(address, str) or verdict not in ("accept", "refuse"):
        raise ValueError("a caller is neither accepted nor refused")
    return (aet, address), str(verdict)


class PolicyFile:
    """The policy in force; `refresh` looks at run/policy.json, `current` never blocks and never fails."""

    def __init__(self, spool: Spool, settings: ReceiveSettings) -> None:
        self._spool = spool
        self._settings = settings
        self._seen: bytes | None = None
        self.current = Policy(settings)
        self.refresh()

    def refresh(self) -> None:
        """Take over run/policy.json if it has changed and is sound; otherwise the last good copy stays."""
        try:
            data = self._spool.read_published(POLICY_NAME)
        except OSError:
            return
        if data is None or data == self._seen:
            return
        self._seen = data
        try:
            self.current = parse_policy(self._settings, data)
        except (ValueError, RecursionError) as error:
            log.error("run/%s is not usable (%s); the last good one stays in force", POLICY_NAME, type(error).__name__)
