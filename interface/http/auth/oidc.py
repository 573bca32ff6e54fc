"""Single sign-on: the authorization code flow of OpenID Connect with state, nonce and PKCE.

Flow: /login/oidc sends the browser to the provider and keeps what belongs to this attempt in a short-lived cookie;
/login/oidc/callback exchanges the code, checks the ID token and begins a session. Imports authlib (extra `oidc`) for
the rules of the tokens, `outbound` for every request. Changes when another provider needs another way.
Source: OpenID Connect Core 3.1, RFC 7636 (PKCE), RFC 9700 (best current practice).
"""

from __future__ import annotations

import base64
import hmac
import json
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote_plus, urlencode, urlsplit

from fastapi import Request
from fastapi.responses import RedirectResponse, Response

from interface.http.actor import CurrentActor
from interface.http.auth import members
from interface.http.auth.login import begin_session, login_failed_page, safe_next
from interface.http.context import CurrentContext
from interface.http.pages.render import page
from interface.http.problems import Problem
from interface.http.rights import Right
from interface.http.routes import Routes
from interface.outbound import SessionOptions, check_base_url, open_session
from internal.config.web import OidcSettings
from internal.errors import ConfigurationInvalid, CredentialsRefused, NotAllowed, RouterError, Transient

routes = Routes(in_schema=False)

_COOKIE = "router-oidc"
_COOKIE_S = 600
_REQUEST_S = 10.0
_DISCOVERY_S = 3.0
_DESCRIPTION_GOOD_S = 600.0
_FAULT_GOOD_S = 5.0
_MAX_REPLY_BYTES = 256 * 1024
_LEEWAY_S = 60
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one login on its way has to bring back; kept in the browser alone."""

    state: str
    nonce: str
    verifier: str
    next: str

    @classmethod
    def fresh(cls, target: str) -> Attempt:
        """Return a new one, with 256 random bits each."""
        return cls(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48), safe_next(target))

    @classmethod
    def parse(cls, text: str) -> Attempt:
        """Read the cookie. Raises CredentialsRefused for anything that is none."""
        try:
            values = json.loads(base64.urlsafe_b64decode(text[:4000]))
            return cls(*(str(values[name]) for name in ("state", "nonce", "verifier", "next")))
        except (ValueError, KeyError, TypeError):
            raise CredentialsRefused("this login was not begun here, or took too long") from None

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode()


@routes.get("/login/oidc", right=Right.OPEN)
def begin(request: Request, context: CurrentContext, next: str = "/") -> Response:  # noqa: A002 - in the URL
    """Send the browser to the provider."""
    settings = context.settings.oidc
    if not settings.issuer:
        raise Problem("not-found")
    from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
    from authlib.oauth2.rfc7636 import create_s256_code_challenge

    attempt = Attempt.fresh(next)
    address = str(_discovery(request).description(settings).get("authorization_endpoint", ""))
    check_base_url(address)
    url = prepare_grant_uri(
        address, settings.client_id, "code", scope="openid profile email",
        redirect_uri=_callback(settings), state=attempt.state, nonce=attempt.nonce, code_challenge_method="S256",
        code_challenge=create_s256_code_challenge(attempt.verifier))
    response = RedirectResponse(url, status_code=303)
    # Lax: the provider's redirect back to us is a navigation that another site has begun.
    response.set_cookie(_COOKIE, str(attempt), max_age=_COOKIE_S, httponly=True, samesite="lax",
                        secure=request.url.scheme == "https", path="/login/oidc")
    return response


@routes.get("/login/oidc/callback", right=Right.OPEN)
def callback(
    request: Request, context: CurrentContext, actor: CurrentActor, code: str = "", state: str = "",
) -> Response:
    """Exchange the code for an ID token, check it, and begin a session."""
    settings = context.settings.oidc
    if not settings.issuer:
        raise Problem("not-found")
    try:
        attempt = Attempt.parse(request.cookies.get(_COOKIE, ""))
    except CredentialsRefused:  # nobody tried to come in: any page can make any browser ask for this address
        return login_failed_page(request, context)
    try:
        if not code or not hmac.compare_digest(state.encode(), attempt.state.encode()):
            raise CredentialsRefused("the provider's answer does not belong to this login")
        claims = identify(settings, _discovery(request), code[:2000], attempt, context.clock.now_ms() // 1000)
        name = members.admit(context, settings, claims, actor.address)
    except (CredentialsRefused, NotAllowed) as refusal:
        members.note_refused(context, actor, str(refusal))
        return login_failed_page(request, context)
    begun = begin_session(request, context, actor, name, attempt.next, how="oidc")
    # A redirect would still count as the provider's navigation, for which browsers keep the new cookie back.
    response = page(request, "continue.html", target=begun.headers["location"])
    response.headers.append("set-cookie", begun.headers["set-cookie"])
    response.delete_cookie(_COOKIE, path="/login/oidc")
    return response


def _callback(settings: OidcSettings) -> str:
    return f"{settings.public_url}/login/oidc/callback"


def discover(settings: OidcSettings) -> Mapping[str, Any]:
    """Fetch the provider's description of itself. Raises Transient, or ConfigurationInvalid when it is another's."""
    found = _fetch(f"{settings.issuer}/.well-known/openid-configuration", limit_s=_DISCOVERY_S)
    if str(found.get("issuer", "")).rstrip("/") != settings.issuer:
        raise ConfigurationInvalid("[oidc] issuer: the provider calls itself something else")
    return found


class Discovery:
    """The provider's description, fetched once in ten minutes: anybody may ask for /login/oidc, as often as they like.

    A fault is remembered for some seconds, so that no crowd of threads waits for a provider that is away.
    """

    def __init__(self) -> None:
        self._fetching = threading.Lock()
        self._known: Mapping[str, Any] | None = None
        self._fault: RouterError | None = None
        self._good_until_s = 0.0

    def description(self, settings: OidcSettings) -> Mapping[str, Any]:
        """Return it. Raises as `discover`."""
        with self._fetching:
            if time.monotonic() >= self._good_until_s:
                self._known, self._fault, good_s = None, None, _DESCRIPTION_GOOD_S
                try:
                    self._known = discover(settings)
                except RouterError as fault:
                    self._fault, good_s = fault, _FAULT_GOOD_S
                self._good_until_s = time.monotonic() + good_s
            if self._fault is not None:
                raise self._fault.with_traceback(None)
            return self._known or {}


def _discovery(request: Request) -> Discovery:
    found: Discovery | None = getattr(request.app.state, "oidc_discovery", None)
    if found is None:
        found = request.app.state.oidc_discovery = Discovery()
    return found


def identify(
    settings: OidcSettings, discovery: Discovery, code: str, attempt: Attempt, now_s: int,
) -> Mapping[str, Any]:
    """Exchange `code` and return the checked claims of the ID token. Raises CredentialsRefused, Transient."""
    from authlib.oidc.core import CodeIDToken
    from joserfc import jwt
    from joserfc.errors import JoseError
    from joserfc.jwk import KeySet

    provider = discovery.description(settings)
    tokens = _exchange(settings, provider, code, attempt)
    try:
        keys = KeySet.import_key_set(_fetch(str(provider.get("jwks_uri", ""))))  # type: ignore[arg-type]
        token = jwt.decode(str(tokens.get("id_token", "")), keys, algorithms=_ALGORITHMS)
        claims = CodeIDToken(
            token.claims, token.header,
            {"iss": {"essential": True, "values": [provider["issuer"]]}, "aud": {"essential": True,
             "value": settings.client_id}, "nonce": {"essential": True}},
            {"client_id": settings.client_id, "nonce": attempt.nonce, "access_token": tokens.get("access_token")})
        claims.validate(now=now_s, leeway=_LEEWAY_S)
    except (JoseError, ValueError, _authlib_error()) as fault:
        raise CredentialsRefused(f"the ID token is not acceptable ({type(fault).__name__})") from None
    return dict(claims)


def _authlib_error() -> type[Exception]:
    from authlib.common.errors import AuthlibBaseError

    return AuthlibBaseError  # type: ignore[no-any-return]


def _exchange(
    settings: OidcSettings, provider: Mapping[str, Any], code: str, attempt: Attempt,
) -> Mapping[str, Any]:
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": _callback(settings),
            "code_verifier": attempt.verifier}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    secret = settings.client_secret.reveal()
    if "client_secret_basic" in provider.get("token_endpoint_auth_methods_supported", ["client_secret_basic"]):
        pair = f"{quote_plus(settings.client_id)}:{quote_plus(secret)}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    else:
        form |= {"client_id": settings.client_id, "client_secret": secret}
    return _fetch(str(provider.get("token_endpoint", "")), urlencode(form).encode(), headers)


def _fetch(
    url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, *, limit_s: float = _REQUEST_S,
) -> Mapping[str, Any]:
    """Return a JSON object from the provider. Raises Transient, CredentialsRefused for a refusal of the request."""
    parts = urlsplit(url)
    session = open_session(f"{parts.scheme}://{parts.netloc}", SessionOptions(stall_timeout_s=limit_s))
    try:
        reply = session.exchange(
            "GET" if body is None else "POST", parts.path + (f"?{parts.query}" if parts.query else ""), body=body,
            headers={"Accept": "application/json", **(headers or {})}, limit_bytes=_MAX_REPLY_BYTES,
            deadline=session.open_deadline(limit_s))
    finally:
        session.close()
    if reply.status in (400, 401, 403):
        raise CredentialsRefused(f"the identity provider answered {reply.status}")
    try:
        value = json.loads(reply.body) if reply.status == 200 else None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Transient(f"the identity provider answered {reply.status} without a usable body", code="oidc")
    return value
