"""Login by name and password, logout, and changing one's password: the routes of everybody.

Each answer about a login that fails is the same and takes the same time. Imports users, sessions, passwords.
Changes when people come in in another way. Source: OWASP Authentication and Session Management.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Form, Request
from fastapi.responses import RedirectResponse, Response

from interface.http.actor import Actor, CurrentActor
from interface.http.auth.doorkeeper import cookie_name
from interface.http.auth.first_admin import forget_first_login
from interface.http.context import CurrentContext, WebContext
from interface.http.pages.render import page
from interface.http.rights import Right
from interface.http.routes import Routes
from internal import passwords, sessions, users
from internal.errors import NotAllowed
from internal.store import Tx
from internal.users import Role

routes = Routes(in_schema=False)

Text = Annotated[str, Form(max_length=300)]


def safe_next(text: str) -> str:
    """Return the path to go on to; anything that could lead to another host becomes "/"."""
    parts = urlsplit(text)
    inside = text.startswith("/") and not text.startswith(("//", "/\\")) and not parts.netloc and not parts.scheme
    return text if inside and text.isprintable() and "\\" not in text and len(text) < 500 else "/"


@routes.get("/login", right=Right.OPEN)
def login_page(request: Request, context: CurrentContext, next: str = "/") -> Response:  # noqa: A002 - in the URL
    """Show the form."""
    return _login_page(request, context, next)


def _login_page(
    request: Request, context: WebContext, target: str, message: str = "", status: int = 200,
) -> Response:
    return page(request, "login.html", status=status, next=safe_next(target), message=message,
                single_sign_on=bool(context.settings.oidc.issuer))


def login_failed_page(request: Request, context: WebContext) -> Response:
    """Return the login form of somebody whom single sign-on did not let in."""
    return _login_page(request, context, "/", "refused", 403)


@routes.post("/login", right=Right.OPEN)
def login(
    request: Request, context: CurrentContext, actor: CurrentActor, name: Text = "", password: Text = "",
    next: Annotated[str, Form(max_length=500)] = "/",  # noqa: A002 - in the form
) -> Response:
    """Check name and password; 303 to `next` with a new session, 401 with the form, 429 with the time to wait."""
    now = context.clock.now_ms()
    with context.reading() as tx:
        pause_ms = sessions.login_pause_ms(tx, name, actor.address, now)
        stored = "" if pause_ms else users.password_hash_of(tx, name)
    if pause_ms:
        response = _login_page(request, context, next, "wait", 429)
        response.headers["Retry-After"] = str(pause_ms // 1000 + 1)
        return response
    if not passwords.password_matches(password, stored):
        _note_failure(context, actor, name)
        return _login_page(request, context, next, "wrong", 401)
    return begin_session(request, context, actor, name.strip().lower(), safe_next(next), how="password")


def _note_failure(context: WebContext, actor: Actor, name: str) -> None:
    with context.acting(actor, "login.failed") as action:
        sessions.note_login_failure(action.tx, name, actor.address, action.now)
        # What was typed may be a password: only the name of an account that exists is written down.
        user = users.find_user(action.tx, name)
        action.subject = user.name if user else ""


def begin_session(
    request: Request, context: WebContext, actor: Actor, name: str, target: str, *, how: str,
) -> Response:
    """Start a new session for `name`, end the one this browser had, and go on to `target`."""
    with context.acting(Actor(f"user:{name}", name, frozenset(), actor.address), "login", subject=name,
                        how=how) as action:
        user = users.get_user(action.tx, name)
        if user.disabled_at is not None:
            raise NotAllowed("this account is disabled")
        if actor.session:
            sessions.end_session(action.tx, actor.session)
        token, session_id = sessions.start_session(action.tx, name, actor.address, action.now)
        action.fields["session"] = session_id
        sessions.forget_login_failures(action.tx, name, actor.address)
        users.note_login(action.tx, name, action.now)
        _forget_old(context, action.tx, action.now)
    if user.role is Role.ADMIN:
        forget_first_login(context.settings.data_dir)
    response = RedirectResponse("/password" if user.must_change else target, status_code=303)
    set_cookie(request, response, context, token)
    return response


def set_cookie(request: Request, response: Response, context: WebContext, token: str) -> None:
    """Give the browser its session: not readable by scripts, not sent with requests of other sites."""
    secure = request.url.scheme == "https"
    response.set_cookie(
        cookie_name(secure), token, max_age=int(context.settings.http.session_max), httponly=True, samesite="strict",
        secure=secure, path="/")


def _forget_old(context: WebContext, tx: Tx, now: int) -> None:
    http = context.settings.http
    sessions.forget_old_sessions(
        tx, idle_ms=int(http.session_idle * 1000), longest_ms=int(http.session_max * 1000), now=now)


@routes.post("/logout", right=Right.ACCOUNT)
def logout(request: Request, context: CurrentContext, actor: CurrentActor) -> Response:
    """End the session."""
    with context.acting(actor, "logout", subject=actor.name) as action:
        sessions.end_session(action.tx, actor.session)
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(cookie_name(request.url.scheme == "https"), path="/", httponly=True, samesite="strict",
                           secure=request.url.scheme == "https")
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


@routes.get("/password", right=Right.ACCOUNT)
def password_page(request: Request) -> Response:
    """Show the form for a new password."""
    return page(request, "password.html", message="")


@routes.post("/password", right=Right.ACCOUNT)
def change_password(
    request: Request, context: CurrentContext, actor: CurrentActor, current: Text = "", new: Text = "",
    again: Text = "",
) -> Response:
    """Replace one's own password; every other session ends, this one gets a new token."""
    try:
        hashed = _checked(context, actor, current, new, again)
    except NotAllowed as error:
        return page(request, "password.html", status=422, message=str(error))
    with context.acting(actor, "password.change", subject=actor.name) as action:
        users.set_password(action.tx, actor.name, hashed, must_change=False)
        sessions.end_sessions_of(action.tx, actor.name)
        token, action.fields["session"] = sessions.start_session(
            action.tx, actor.name, actor.address, action.now)
    response = RedirectResponse("/", status_code=303)
    set_cookie(request, response, context, token)
    return response


def _checked(context: WebContext, actor: Actor, current: str, new: str, again: str) -> str:
    """Return the hash of the new password. Raises NotAllowed with what is wrong."""
    now = context.clock.now_ms()
    with context.reading() as tx:
        pause_ms = sessions.login_pause_ms(tx, actor.name, actor.address, now)
        stored = users.password_hash_of(tx, actor.name)
    if pause_ms:
        raise NotAllowed("too many tries: wait a little")
    if not passwords.password_matches(current, stored):
        _note_failure(context, actor, actor.name)
        raise NotAllowed("the present password is not right")
    if new != again:
        raise NotAllowed("the two new passwords differ")
    if new == current:
        raise NotAllowed("the new password is the old one")
    passwords.check_strength(new, actor.name)
    return passwords.hash_password(new)
