"""Users and API keys: adding, roles, new passwords, disabling, revoking. What is secret is shown once."""

from __future__ import annotations

from typing import Annotated

from fastapi import Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from interface.http.actor import CurrentActor
from interface.http.auth import accounts
from interface.http.context import CurrentContext
from interface.http.pages.render import page
from interface.http.pages.wording import mark
from interface.http.problems import Problem
from interface.http.rights import SCOPES, Right
from interface.http.routes import Routes
from internal import sessions
from internal import users as user_rows
from internal.errors import NotFound
from internal.overview import DAY_MS
from internal.users import Role

_ROLES = {Role.VIEWER: mark("Viewer"), Role.OPERATOR: mark("Operator"), Role.ADMIN: mark("Administrator")}

routes = Routes(in_schema=False)

Word = Annotated[str, Form(max_length=64)]


@routes.get("/users", right=Right.ADMINISTER)
def users(request: Request, context: CurrentContext) -> HTMLResponse:
    """Show accounts and keys."""
    with context.reading() as tx:
        people, keys = user_rows.list_users(tx), sessions.list_keys(tx)
    return page(request, "users.html", users=people, keys=keys, role_names=_ROLES,
                scopes=sorted(str(one) for one in SCOPES))


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        raise Problem("invalid") from None


@routes.post("/users", right=Right.ADMINISTER)
def add(request: Request, context: CurrentContext, actor: CurrentActor, name: Word = "", role: Word = "") -> Response:
    """Add an account; its first password is shown once."""
    user, password = accounts.add(context, actor, name, _role(role))
    return page(request, "secret_once.html", title=mark("First password of"), name=user.name, secret=password)


@routes.post("/users/keys", right=Right.ADMINISTER)
def issue_key(
    request: Request, context: CurrentContext, actor: CurrentActor, name: Word = "",
    days: Annotated[str, Form(max_length=5)] = "",
    right: Annotated[list[str], Form(max_length=10)] = [],  # noqa: B006 - FastAPI copies it
) -> Response:
    """Make a key; it is shown once."""
    if not set(right) <= set(SCOPES) or not right or (days and not days.isdecimal()):
        raise Problem("invalid")
    ends = context.clock.now_ms() + int(days) * DAY_MS if days else None
    key, text = accounts.issue_key(context, actor, name, [Right(one) for one in right], expires_at=ends)
    return page(request, "secret_once.html", title=mark("API key of"), name=key.name, secret=text)


@routes.post("/users/keys/{key_id}/revoke", right=Right.ADMINISTER)
def revoke_key(key_id: str, context: CurrentContext, actor: CurrentActor) -> Response:
    """Make a key worth nothing."""
    accounts.revoke_key(context, actor, key_id)
    return RedirectResponse("/users?done=key-revoked", status_code=303)


@routes.post("/users/{name}", right=Right.ADMINISTER)
def change(
    name: str, request: Request, context: CurrentContext, actor: CurrentActor, verb: Word = "", role: Word = "",
) -> Response:
    """Give an account another role or password, disable or enable it."""
    match verb:
        case "role":
            accounts.set_role(context, actor, name, _role(role))
        case "reset":
            return page(request, "secret_once.html", title=mark("New password of"), name=name,
                        secret=accounts.reset_password(context, actor, name))
        case "disable" | "enable":
            accounts.set_disabled(context, actor, name, disabled=verb == "disable")
        case _:
            raise NotFound("there is no such change")
    return RedirectResponse("/users?done=user", status_code=303)
