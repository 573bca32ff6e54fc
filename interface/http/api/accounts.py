"""/api/v1/users and /api/v1/keys: accounts and API keys, for admins.

What is secret is shown once, in the answer that makes it. Changes when accounts get another property.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import Path
from pydantic import Field

from interface.http.api import shapes
from interface.http.api.changing import Answer, CurrentChange
from interface.http.api.parameters import Body, Line, Name
from interface.http.auth import accounts
from interface.http.context import CurrentContext
from interface.http.rights import Right
from interface.http.routes import Routes
from internal import sessions, users
from internal.users import Role

routes = Routes("/api/v1", tags=["accounts"])
RoleWord = Literal["viewer", "operator", "admin"]
KeyId = Annotated[str, Path(pattern=r"^[0-9a-f]{1,32}$")]


class NewUser(Body):
    """Name and role of a new account."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.@-]{0,63}$")]
    role: RoleWord


class RoleChange(Body):
    """The role an account is to have."""

    role: RoleWord


class NewKey(Body):
    """Who uses a new key, what it may do (view, operate, administer, metrics, orders), and until when."""

    name: Annotated[Line, Field(min_length=1, max_length=100)]
    rights: Annotated[list[Literal["view", "operate", "administer", "metrics", "orders"]],
                      Field(min_length=1, max_length=5)]
    expires_at: Annotated[int, Field(ge=0, le=2**53)] | None = None


class UserWithPassword(shapes.Shape):
    """A new password, shown this once; it has to be changed at the first login."""

    user: shapes.UserShape
    password: str | None


class KeyWithSecret(shapes.Shape):
    """A new key, shown this once: send it as Authorization: Bearer."""

    key: shapes.KeyShape
    secret: str | None


@routes.get("/users", right=Right.ADMINISTER)
def list_users(context: CurrentContext) -> list[shapes.UserShape]:
    """Return every account."""
    with context.reading() as tx:
        return [_user(one) for one in users.list_users(tx)]


@routes.post("/users", right=Right.ADMINISTER)
def add_user(body: NewUser, change: CurrentChange) -> UserWithPassword:
    """Add an account with a random password, which is shown once."""

    def make() -> Answer:
        user, password = accounts.add(change.context, change.actor, body.name, Role(body.role))
        return UserWithPassword(user=_user(user), password=password).model_dump()

    return UserWithPassword(**change.once("user.add", make, asked=body, kept=_without("password")))


@routes.post("/users/{name}/role", right=Right.ADMINISTER)
def set_role(name: Name, body: RoleChange, change: CurrentChange) -> shapes.UserShape:
    """Give an account another role; it has to log in again."""
    return shapes.UserShape(**change.once("user.role", lambda: _user(accounts.set_role(
        change.context, change.actor, name, Role(body.role))).model_dump(), asked=[name, body]))


@routes.post("/users/{name}/disable", right=Right.ADMINISTER)
def disable(name: Name, change: CurrentChange) -> shapes.UserShape:
    """Disable an account; its sessions end at once."""
    return _set_disabled(change, name, disabled=True)


@routes.post("/users/{name}/enable", right=Right.ADMINISTER)
def enable(name: Name, change: CurrentChange) -> shapes.UserShape:
    """Enable an account again."""
    return _set_disabled(change, name, disabled=False)


@routes.post("/users/{name}/reset-password", right=Right.ADMINISTER)
def reset_password(name: Name, change: CurrentChange) -> UserWithPassword:
    """Give an account a new random password, which is shown once; its sessions end."""

    def make() -> Answer:
        password = accounts.reset_password(change.context, change.actor, name)
        with change.context.reading() as tx:
            return UserWithPassword(user=_user(users.get_user(tx, name)), password=password).model_dump()

    return UserWithPassword(**change.once("user.reset-password", make, asked=name, kept=_without("password")))


@routes.get("/keys", right=Right.ADMINISTER)
def list_keys(context: CurrentContext) -> list[shapes.KeyShape]:
    """Return every API key ever made, newest first, without secrets."""
    with context.reading() as tx:
        return [_key(one) for one in sessions.list_keys(tx)]


@routes.post("/keys", right=Right.ADMINISTER)
def issue_key(body: NewKey, change: CurrentChange) -> KeyWithSecret:
    """Make an API key; it is shown once, and has at most the rights of its maker."""

    def make() -> Answer:
        key, secret = accounts.issue_key(change.context, change.actor, body.name, [Right(one) for one in body.rights],
                                         expires_at=body.expires_at)
        return KeyWithSecret(key=_key(key), secret=secret).model_dump()

    return KeyWithSecret(**change.once("key.issue", make, asked=body, kept=_without("secret")))


@routes.post("/keys/{key_id}/revoke", right=Right.ADMINISTER)
def revoke_key(key_id: KeyId, change: CurrentChange) -> shapes.KeyShape:
    """Revoke a key, at once and for ever."""
    return shapes.KeyShape(**change.once("key.revoke", lambda: _key(accounts.revoke_key(
        change.context, change.actor, key_id)).model_dump(), asked=key_id))


def _set_disabled(change: CurrentChange, name: str, *, disabled: bool) -> shapes.UserShape:
    return shapes.UserShape(**change.once(
        "user.disable" if disabled else "user.enable",
        lambda: _user(accounts.set_disabled(change.context, change.actor, name, disabled=disabled)).model_dump(),
        asked=[name, disabled]))


def _without(field: str) -> Callable[[Answer], Answer]:
    return lambda answer: {**answer, field: None}


def _user(one: users.User) -> shapes.UserShape:
    return shapes.UserShape(name=one.name, role=str(one.role), must_change=one.must_change, created_at=one.created_at,
                            created_by=one.created_by, disabled_at=one.disabled_at, last_login_at=one.last_login_at)


def _key(one: sessions.ApiKey) -> shapes.KeyShape:
    return shapes.KeyShape(key_id=one.key_id, name=one.name, rights=list(one.rights), created_at=one.created_at,
                           created_by=one.created_by, expires_at=one.expires_at, revoked_at=one.revoked_at,
                           used_at=one.used_at)
