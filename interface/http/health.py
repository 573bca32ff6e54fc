"""/health/live and /health/ready: open to everybody, without login and without the database's help.

Reads the status files of the other roles. Changes when a role can be unwell in another way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse

from interface.http.context import CurrentContext
from interface.http.rights import Right
from interface.http.routes import Routes
from internal.errors import RouterError
from internal.spool import Spool

STALE_AFTER_MS = 15_000
ROLES = ("receive", "deliver")

routes = Routes("/health", in_schema=False)


def read_roles(spool: Spool, now_ms: int) -> dict[str, dict[str, Any]]:
    """Return each role's last status with `ok`: written in the last 15 s, and its port (if it has one) is open."""
    found: dict[str, dict[str, Any]] = {}
    for role in ROLES:
        status = _parse(spool.read_published(f"{role}.json"))
        age_ms = now_ms - int(status.get("alive_at", 0))
        listening = bool(status.get("listening", True))
        found[role] = {"ok": age_ms <= STALE_AFTER_MS and listening, "age_ms": age_ms if status else None}
    return found


def _parse(raw: bytes | None) -> Mapping[str, Any]:
    try:
        status = json.loads(raw or b"{}")
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}


@routes.get("/live", right=Right.OPEN)
def live(context: CurrentContext) -> dict[str, Any]:
    """Say that this process answers."""
    return {"status": "ok", "environment": context.environment, "version": context.version}


@routes.get("/ready", right=Right.OPEN)
def ready(context: CurrentContext) -> JSONResponse:
    """Say whether every role, the database and the disk are well, and if not, which is not and since when."""
    roles = read_roles(context.spool, context.clock.now_ms())
    reasons = [f"role {role} does not answer" for role, status in roles.items() if not status["ok"]]
    try:
        with context.reading() as tx:
            tx.value("SELECT 1")
    except RouterError as error:
        reasons.append(f"database: {error}")
    body = {"status": "not ready" if reasons else "ok", "environment": context.environment, "roles": roles,
            "reasons": reasons}
    return JSONResponse(body, status_code=503 if reasons else 200)
