"""The web role: the HTTP port. Today liveness and readiness; pages and API are added here by family.

Reads the status files of the other roles; holds no state. Changes when a family of routes is added.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from interface.logs import PHRASES
from interface.roles import STATUS_EVERY_S, StatusFile, ignore_hangup, lock_wait_s, open_spool, stop_with_parent
from internal.config import Settings
from internal.errors import AlreadyRunning
from internal.spool import Spool

log = logging.getLogger("router.web")

STALE_AFTER_MS = 15_000
ROLES = ("receive", "deliver")
_NICE = 5


def read_roles(spool: Spool, now_ms: int) -> dict[str, dict[str, Any]]:
    """Return each role's last status with `ok`: written in the last 15 s, and its port (if it has one) is open."""
    found: dict[str, dict[str, Any]] = {}
    for role in ROLES:
        raw = spool.read_published(f"{role}.json")
        status = _parse(raw)
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


def create_app(spool: Spool, environment: str, version: str) -> FastAPI:
    """Return the application; every route is declared here or in a router included here."""
    app = FastAPI(title="SATUSEHAT DICOM Router", version=version, docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health/live")
    def live() -> dict[str, Any]:
        return {"status": "ok", "environment": environment, "version": version}

    @app.get("/health/ready")
    def ready() -> JSONResponse:
        roles = read_roles(spool, time.time_ns() // 1_000_000)
        ok = all(role["ok"] for role in roles.values())
        body = {"status": "ok" if ok else "not ready", "environment": environment, "roles": roles}
        return JSONResponse(body, status_code=200 if ok else 503)

    return app


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; raises AlreadyRunning with a sentence when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if os.name != "nt":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise AlreadyRunning(
            f"HTTP port {port} on {host} cannot be opened ({error.strerror}): end the program that uses it or set "
            "another http_port in router.conf"
        ) from error
    listener.listen(128)
    return listener


@contextmanager
def _published(status: StatusFile) -> Iterator[None]:
    ended = threading.Event()

    def loop() -> None:
        while not ended.is_set():
            status.publish(force=True)
            ended.wait(STATUS_EVERY_S)

    threading.Thread(target=loop, name="status", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def run_web(settings: Settings, environment: str, version: str, *, supervised: bool) -> int:
    """Run the web role until SIGTERM; return the exit status."""
    if hasattr(os, "nice"):
        os.nice(_NICE)
    spool = open_spool(settings)
    with spool.lock("web", lock_wait_s(supervised=supervised)):
        listener = listen(settings.router.http_bind, settings.satusehat.http_port)
        config = uvicorn.Config(
            create_app(spool, environment, version), log_config=None, access_log=False, timeout_graceful_shutdown=5,
            server_header=False,
        )
        server = uvicorn.Server(config)
        ignore_hangup()
        if supervised:
            stop = threading.Event()
            stop_with_parent(stop, on_stop=lambda: setattr(server, "should_exit", True))
        log.info(PHRASES["starting_http"].format(port=listener.getsockname()[1]))
        with _published(StatusFile(spool, "web", dict)):
            server.run(sockets=[listener])
    return 0
