"""Whom we answer, and the limits: the last good copy of run/policy.json and of the settings rules.

Imports the spool and settings. The database's projection of devices reaches the receiver only this way; limits stand in
router.conf and are read again at SIGHUP. Changes when a device can be more than accepted or refused.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from interface.dimse.pdu import APPLICATION_CONTEXT, AssociateRequest, Rejection
from interface.dimse.settings import ReceiveSettings
from internal.errors import RouterError
from internal.spool import POLICY_NAME, Spool

_MAX_CALLERS = 100_000
#: What SIGHUP takes over, by its key in router.conf; associations that stand keep theirs. All else needs a restart.
LIMITS = {
    "max_associations": "max_associations", "max_associations_per_address": "max_associations_per_address",
    "max_pdu_bytes": "max_pdu", "max_object_bytes": "max_object", "association_timeout_s": "associate_timeout",
    "idle_timeout_s": "idle_timeout", "stall_timeout_s": "pdu_timeout", "min_bytes_per_s": "min_rate",
}

#: Reads the settings anew; raises RouterError.
Reload = Callable[[], ReceiveSettings]

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
    """Return the policy in `data` over `settings`; raises ValueError if it is not of the agreed shape."""
    document = json.loads(data)
    callers: Any = document.get("callers", []) if isinstance(document, dict) else None
    if not isinstance(callers, list) or len(callers) > _MAX_CALLERS:
        raise ValueError("not of the shape {callers: []}")
    return Policy(settings, dict(_parse_caller(caller) for caller in callers))


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

    def __init__(self, spool: Spool, settings: ReceiveSettings, reload: Reload | None = None) -> None:
        self._spool = spool
        self._reload = reload
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
            self.current = parse_policy(self.current.settings, data)
        except (ValueError, RecursionError) as error:
            log.error("run/%s is not usable (%s); the last good one stays in force", POLICY_NAME, type(error).__name__)

    def reload(self, *, quiet: bool = False) -> None:
        """Take over the limits as the settings say now; settings that cannot be read change nothing."""
        if self._reload is None:
            return
        level = logging.DEBUG if quiet else logging.WARNING
        try:
            wanted = self._reload()
        except RouterError as error:
            log.log(level, "the settings cannot be read again; the limits before stay in force: %s", error)
            return
        old = self.current.settings
        changed = {each.name: value for each in fields(wanted)
                   if (value := getattr(wanted, each.name)) != getattr(old, each.name)}
        limits = {name: value for name, value in changed.items() if name in LIMITS}
        self.current = replace(self.current, settings=replace(old, **limits))
        if limits:
            log.log(level, "limits in force from now on: %s",
                    ", ".join(f"{LIMITS[name]} {getattr(old, name)} -> {value}" for name, value in limits.items()))
        if later := sorted(changed.keys() - LIMITS.keys()):
            log.log(level, "changed, but in force only after a restart: %s", ", ".join(later))
