"""The web role as a process: its socket, TLS, the server's own limits, and the first admin.

Changes when the port is opened or bounded in another way. The routes are in `app`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import uvicorn

from interface.audit_export import Exporter
from interface.http.app import create_app
from interface.http.auth.first_admin import await_first_admin
from interface.http.connections import limited_protocol
from interface.http.context import WebContext
from interface.logs import PHRASES
from interface.roles import STATUS_EVERY_S, StatusFile, ignore_hangup, lock_wait_s, open_spool, stop_with_parent
from internal.config import Settings
from internal.errors import AlreadyRunning, ConfigurationInvalid

log = logging.getLogger("router.web")

_NICE = 5


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


class Server(uvicorn.Server):  # type: ignore[misc]  # its package has no types for us
    """uvicorn's server without its ten ticks a second, so that an idle router costs less: it is told when to end, and
    the protocol keeps the Date header. stop() may be called from any thread.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        """Wait until told to stop."""
        self._loop, self._told = asyncio.get_running_loop(), asyncio.Event()
        if not self.should_exit:  # told before there was anything to wake
            await self._told.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal as uvicorn does, at once."""
        super().handle_exit(sig, frame)
        self._wake()

    def stop(self) -> None:
        """Finish the requests in hand and end."""
        self.should_exit = True
        self._wake()

    def _wake(self) -> None:
        if self._loop is not None and self._told is not None:
            with suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._told.set)


def server_config(context: WebContext) -> uvicorn.Config:
    """Return how the server is run. Raises ConfigurationInvalid for a certificate or an extra that cannot be used."""
    http = context.settings.http
    if context.settings.oidc.issuer and importlib.util.find_spec("authlib") is None:
        raise ConfigurationInvalid("[oidc] needs the extra 'oidc': pip install 'satusehat-dicom-router[oidc]'")
    proxies = frozenset(http.trusted_proxies)
    protocol = limited_protocol(http.max_connections, context.limits, proxies)
    config = uvicorn.Config(
        # uvloop cannot always be closed after a TLS handshake that failed (EBUSY).
        create_app(context), loop="asyncio" if http.certificate.name else "auto", log_config=None, access_log=False,
        timeout_graceful_shutdown=5, server_header=False, http=protocol,
        ws="none", lifespan="off", timeout_keep_alive=15, proxy_headers=bool(proxies),
        forwarded_allow_ips=sorted(proxies),
        ssl_certfile=http.certificate if http.certificate.name else None,
        ssl_keyfile=http.key if http.certificate.name else None,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationInvalid(
            f"[http] certificate {http.certificate} and key {http.key} cannot be used ({error.strerror or error})"
        ) from error
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return config


@contextmanager
def _beside(context: WebContext, status: StatusFile) -> Iterator[None]:
    """Publish the status file and make the first admin as soon as there is a database, until the server has ended."""
    ended = threading.Event()

    def publish() -> None:
        while not ended.is_set():
            status.publish(force=True)
            ended.wait(STATUS_EVERY_S)

    audit = context.settings.audit
    threads: list[tuple[str, Callable[[], None]]] = [
        ("status", publish), ("first-admin", lambda: await_first_admin(context, ended))]
    if audit.syslog:
        exporter = Exporter(lambda: context.store, context.clock, audit.syslog,
                            audit.syslog_ca if audit.syslog_ca.name else None, context.spool.node)
        threads.append(("audit-export", lambda: exporter.run(ended)))
    for name, work in threads:
        threading.Thread(target=work, name=name, daemon=True).start()
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
        context = WebContext(settings, spool, environment, version)
        server = Server(server_config(context))
        listener = listen(settings.router.http_bind, settings.satusehat.http_port)
        ignore_hangup()
        if supervised:
            stop = threading.Event()
            stop_with_parent(stop, on_stop=server.stop)
        log.info(PHRASES["starting_http"].format(port=listener.getsockname()[1]))
        with _beside(context, StatusFile(spool, "web", dict)):
            server.run(sockets=[listener])
        context.close()
    return 0
