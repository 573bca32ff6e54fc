"""A mail server for tests: real SMTP with STARTTLS or TLS and a login, answering as asked."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

T = TypeVar("T")
USER, PASSWORD = "router@rs.example", "kunci-surel-9"


class MailServer:
    """Listens on loopback; `refusals` are given to the next messages, one each."""

    def __init__(self, security: str, certificate: Path | None = None, key: Path | None = None) -> None:
        self.taken: list[Any] = []
        self.refusals: list[str] = []
        context = None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
        options: dict[str, Any] = {"authenticator": _check, "auth_required": context is not None,
                                   "auth_require_tls": context is not None, "hostname": "localhost"}
        if security == "starttls":
            options |= {"tls_context": context, "require_starttls": True}
        elif security == "tls":
            options |= {"auth_require_tls": False, "auth_required": False}  # it does not see that all is protected
        # All of asyncio in a thread of its own: Playwright may have left a running loop in the caller's.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._in_loop(self._loop.create_server(
            lambda: SMTP(self, loop=self._loop, **options), "127.0.0.1", 0,
            ssl=context if security == "tls" else None))
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Take a message, or refuse it."""
        if self.refusals:
            return self.refusals.pop(0)
        self.taken.append(envelope)
        return "250 taken"

    def close(self) -> None:
        """Stop listening."""
        self._in_loop(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _end(self) -> None:
        self._server.close()
        sessions = asyncio.all_tasks() - {asyncio.current_task()}
        for session in sessions:
            session.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)


def _check(server: Any, session: Any, envelope: Any, mechanism: str, given: Any) -> AuthResult:
    good = isinstance(given, LoginPassword) and (given.login, given.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=good, handled=False)
