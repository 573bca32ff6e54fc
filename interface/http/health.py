"""/health/live and /health/ready: open to everybody, without login and without the database's help.

Reads the status files of the other roles. Changes when a role can be unwell in another way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fastapi.responses import JSONResponse

from interface.http.context import CurrentContext, WebContext
from interface.http.rights import Right
from interface.http.routes import Routes
from internal.errors import RouterError
from internal.spool import Spool

STALE_AFTER_MS = 15_000
ROLES = ("receive", "deliver")

routes = Routes("/health", in_schema=False)


def read_roles(spool: Spool, now_ms: int) -> dict[str, dict[str, Any]]:
    """Return each role's last status: `ok` (written in the last 15 s, its port open), `age_ms`, `since` (epoch ms)."""
    found: dict[str, dict[str, Any]] = {}
    for role in ROLES:
        status = _parse(spool.read_published(f"{role}.json"))
        alive_at = status.get("alive_at", 0)
        alive_at = int(alive_at) if isinstance(alive_at, int | float) else 0
        listening = bool(status.get("listening", True))
        age_ms = now_ms - alive_at
        found[role] = {"ok": age_ms <= STALE_AFTER_MS and listening, "age_ms": age_ms if alive_at else None,
                       "listening": listening, "since": alive_at or None}
    return found


def _parse(raw: bytes | None) -> Mapping[str, Any]:
    try:
        status = json.loads(raw or b"{}")
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}


def why_not_ready(context: WebContext, roles: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what is not well: {"what", "code", "since" (ISO 8601, None unknown), "text"}; [] when all is."""
    reasons = []
    for role, status in roles.items():
        if not status["ok"]:
            code = "role-not-listening" if status["age_ms"] is not None and not status["listening"] else "role-silent"
            reasons.append(_reason(role, code, status["since"], {
                "role-silent": f"the {role} process does not answer", "role-not-listening": f"{role} has no open port",
            }[code]))
    try:
        with context.reading() as tx:
            tx.value("SELECT 1")
    except RouterError as error:
        reasons.append(_reason("database", getattr(error, "code", "database"), None, str(error)))
    reasons += _disk(context)
    return reasons


def _disk(context: WebContext) -> list[dict[str, Any]]:
    try:
        free = context.spool.free_bytes()
    except (OSError, RouterError):
        return [_reason("disk", "disk-unreadable", None, "the disk of the spool does not answer")]
    floor = context.settings.spool.min_free
    if free >= floor:
        return []
    return [_reason("disk", "disk-full", None,
                    f"{free // 2**20} MB free, images are refused below {floor // 2**20} MB ([spool] min_free)")]


def _reason(what: str, code: str, since_ms: int | None, text: str) -> dict[str, Any]:
    since = None if since_ms is None else datetime.fromtimestamp(since_ms / 1000, UTC).isoformat(timespec="seconds")
    return {"what": what, "code": code, "since": since, "text": text}


@routes.get("/live", right=Right.OPEN)
def live(context: CurrentContext) -> dict[str, Any]:
    """Say that this process answers."""
    return {"status": "ok", "environment": context.environment, "version": context.version}


@routes.get("/ready", right=Right.OPEN)
def ready(context: CurrentContext) -> JSONResponse:
    """Say whether every role, the database and the disk are well, and if not, which is not and since when."""
    roles = read_roles(context.spool, context.clock.now_ms())
    reasons = why_not_ready(context, roles)
    body = {"status": "not ready" if reasons else "ok", "environment": context.environment, "roles": roles,
            "reasons": reasons}
    return JSONResponse(body, status_code=503 if reasons else 200)
