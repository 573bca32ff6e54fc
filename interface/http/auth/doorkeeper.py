"""Before every route: who is it, may they, does the form come from their own session, is the body of a decent size.

Flow: `GuardedRoute.handle` asks `admit`; handlers read the actor from request.state. Imports sessions, rights, context.
Changes when callers can be recognised in another way. Source: OWASP API Security 2023, RFC 6750 (Bearer), RFC 6265.
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import parse_qs, urlsplit

import anyio
from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from interface.http.actor import Actor, anonymous
from interface.http.auth.body import BodyGuard, content_length
from interface.http.context import WebContext
from interface.http.problems import Problem
from interface.http.rights import SCOPES, Right, rights_of_key, rights_of_role
from internal import sessions
from internal.config import is_loopback
from internal.store import Tx

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_MAX_FORM_BYTES = 128 * 1024
_MAX_TOKEN_CHARS = 200


def cookie_name(secure: bool) -> str:
    """Return the name of the session cookie; under TLS browsers themselves guard its prefix. Source: RFC 6265bis."""
    return "__Host-router" if secure else "router"


def csrf_token(token: str) -> str:
    """Return what forms of the session with this cookie carry: nobody can make it without the cookie."""
    return hmac.new(token.encode(), b"csrf", hashlib.sha256).hexdigest()


class Gatekeeper:
    """The doorkeeper of one application (routes.Doorkeeper)."""

    def __init__(self, context: WebContext) -> None:
        self._context = context

    async def admit(self, scope: Scope, receive: Receive, right: Right, max_body_bytes: int, in_api: bool) -> Receive:
        """Let the request through or raise Problem; the actor is in the scope's state afterwards.

        Order: size by its own word, identity, right, origin. Nothing of the body is read before the right is known,
        and of a form only what holds its token.
        """
        request = Request(scope)
        body = BodyGuard(request.headers, max_body_bytes, self._context.limits)
        actor = await self._actor(request, right)
        scope.setdefault("state", {})["actor"] = actor
        if not actor.may(right) and not self._is_local_scrape(right, actor):
            _turn_away(actor, right)
        guarded = body.watch(receive)
        if request.method in _SAFE_METHODS:
            return guarded
        if actor.is_key and not in_api:
            raise Problem("not-allowed", "a key changes things over the API only")
        _check_origin(request)
        return await _check_csrf(request, guarded, actor) if actor.csrf else guarded

    async def _actor(self, request: Request, right: Right) -> Actor:
        address = request.client.host if request.client else ""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        token = request.cookies.get(cookie_name(request.url.scheme == "https"), "")
        if scheme.lower() == "bearer" and key:
            found = await anyio.to_thread.run_sync(self._by_key, key.strip(), address)
            if found is None and right is not Right.OPEN:
                raise Problem("not-signed-in", headers={"WWW-Authenticate": "Bearer"})
        elif token and len(token) <= _MAX_TOKEN_CHARS and not _is_asset(request, right):
            found = await anyio.to_thread.run_sync(self.by_token, token, address)
        else:
            found = None
        return found or anonymous(address)

    def _is_local_scrape(self, right: Right, actor: Actor) -> bool:
        """Return whether a program of this machine reads /metrics and the settings let it, without a key."""
        return right is Right.METRICS and self._context.settings.http.open_metrics and is_loopback(actor.address)

    def _by_key(self, text: str, address: str) -> Actor | None:
        now = self._context.clock.now_ms()
        with self._context.reading() as tx:
            key = sessions.check_key(tx, text, now)
            maker = sessions.account_behind(tx, key) if key else None
        if key is None or (maker is not None and maker.disabled_at is not None):
            return None
        # A key never outlives what its maker may do: whoever is dismissed may still hold it.
        rights = rights_of_key(key.rights) & (rights_of_role(maker.role) if maker else SCOPES)
        if now - (key.used_at or 0) > sessions.SEEN_EVERY_MS:
            with self._context.store.transaction() as tx:
                sessions.touch_key(tx, key.key_id, now)
        return Actor(f"key:{key.key_id}", key.name, rights, address, session=f"key-{key.key_id}")

    def by_token(self, token: str, address: str) -> Actor | None:
        """Return the actor of a session's cookie, None if it is none (any more)."""
        now = self._context.clock.now_ms()
        with self._context.reading() as tx:
            session = self._session(tx, token, now)
        if session is None:
            return None
        if now - session.seen_at > sessions.SEEN_EVERY_MS:
            with self._context.store.transaction() as tx:
                sessions.touch_session(tx, session.session_id, now)
        user = session.user
        rights = frozenset({Right.ACCOUNT}) if user.must_change else rights_of_role(user.role)
        return Actor(f"user:{user.name}", user.name, rights, address, session.session_id, str(user.role),
                     csrf_token(token), user.must_change)

    def _session(self, tx: Tx, token: str, now: int) -> sessions.Session | None:
        http = self._context.settings.http
        return sessions.find_session(
            tx, token, idle_ms=int(http.session_idle * 1000), longest_ms=int(http.session_max * 1000), now=now)


def _is_asset(request: Request, right: Right) -> bool:
    """Return whether nobody needs to know who asks: these come by the dozen, and while the database is away."""
    return right is Right.OPEN and request.url.path.startswith(("/static/", "/health/"))


def _turn_away(actor: Actor, right: Right) -> None:
    if not actor.session:
        raise Problem("not-signed-in", headers={"WWW-Authenticate": "Bearer"})
    if actor.must_change:
        raise Problem("password-change")
    raise Problem("not-allowed", f"this needs the right {right}")


def _check_origin(request: Request) -> None:
    """Refuse what a page of somebody else makes a browser send; other programs send neither header."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    if site not in ("same-origin", "none"):
        raise Problem("csrf")
    if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise Problem("csrf")


async def _check_csrf(request: Request, receive: Receive, actor: Actor) -> Receive:
    """Compare the token in X-CSRF-Token or in the form's field `csrf`; return a receive that gives the body again."""
    given = request.headers.get("x-csrf-token", "")
    if not given and request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        body = await _read_form(request, receive)
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=1000)
        given = fields.get("csrf", [""])[0]
        receive = _again(body, receive)
    if not hmac.compare_digest(given.encode("utf-8", "replace"), actor.csrf.encode()):
        raise Problem("csrf")
    return receive


async def _read_form(request: Request, receive: Receive) -> bytes:
    if content_length(request.headers) > _MAX_FORM_BYTES:
        raise Problem("too-large")
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > _MAX_FORM_BYTES:
            raise Problem("too-large")
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    given = False

    async def read() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return read
