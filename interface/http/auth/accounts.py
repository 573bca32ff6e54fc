"""What an admin does to accounts and keys: each one call, audited, and effective at the account's next request.

Used by the Users page and the API. Imports users, sessions, passwords. Changes when accounts get another property.
"""

from __future__ import annotations

from collections.abc import Iterable

from interface.http.actor import Actor
from interface.http.context import WebContext
from interface.http.rights import SCOPES, Right
from internal import passwords, sessions, users
from internal.errors import NotAllowed
from internal.sessions import ApiKey
from internal.users import Role, User


def add(context: WebContext, actor: Actor, name: str, role: Role) -> tuple[User, str]:
    """Add an account; return it and its password, to be shown once and changed at the first login. NotAllowed."""
    name = users.parse_name(name)
    password = passwords.random_password()
    hashed = passwords.hash_password(password)
    with context.acting(actor, "user.add", subject=name, after={"role": str(role)}) as action:
        user = users.add_user(action.tx, name, role, hashed, author=actor.author, now=action.now)
    return user, password


def set_role(context: WebContext, actor: Actor, name: str, role: Role) -> User:
    """Give an account another role; it has to log in again. Raises NotFound, NotAllowed for the last admin."""
    with context.acting(actor, "user.role", subject=users.parse_name(name)) as action:
        before = users.get_user(action.tx, name)
        users.set_role(action.tx, name, role)
        sessions.end_sessions_of(action.tx, before.name)
        action.fields |= {"before": {"role": str(before.role)}, "after": {"role": str(role)}}
        return users.get_user(action.tx, name)


def reset_password(context: WebContext, actor: Actor, name: str) -> str:
    """Give an account a new random password and return it, to be shown once; its sessions end. Raises NotFound."""
    password = passwords.random_password()
    hashed = passwords.hash_password(password)
    with context.acting(actor, "user.reset-password", subject=users.parse_name(name)) as action:
        users.set_password(action.tx, name, hashed, must_change=True)
        sessions.end_sessions_of(action.tx, action.subject)
    return password


def set_disabled(context: WebContext, actor: Actor, name: str, *, disabled: bool) -> User:
    """Disable or enable an account; its sessions end. Raises NotFound, NotAllowed for the last admin and oneself."""
    name = users.parse_name(name)
    if disabled and name == actor.name:
        raise NotAllowed("nobody disables their own account")
    with context.acting(actor, "user.disable" if disabled else "user.enable", subject=name) as action:
        users.set_disabled(action.tx, name, action.now if disabled else None)
        sessions.end_sessions_of(action.tx, name)
        return users.get_user(action.tx, name)


def issue_key(
    context: WebContext, actor: Actor, name: str, rights: Iterable[Right], *, expires_at: int | None = None,
) -> tuple[ApiKey, str]:
    """Make an API key; return what is kept of it and the key itself, to be shown once.

    Raises NotAllowed for a right that keys cannot have or that the maker does not have, and for an end in the past.
    """
    wanted = frozenset(rights)
    if not wanted or not wanted <= SCOPES or not all(actor.may(right) for right in wanted):
        raise NotAllowed("a key gets some of the rights that its maker has")
    if expires_at is not None and expires_at <= context.clock.now_ms():
        raise NotAllowed("this key would have expired already")
    with context.acting(actor, "key.issue", after={"rights": sorted(wanted), "expires_at": expires_at}) as action:
        text, key = sessions.issue_key(
            action.tx, name, wanted, author=actor.author, now=action.now, expires_at=expires_at)
        action.subject = key.key_id
        action.fields["name"] = key.name
    return key, text


def revoke_key(context: WebContext, actor: Actor, key_id: str) -> ApiKey:
    """Revoke a key, at once and for ever. Raises NotFound."""
    with context.acting(actor, "key.revoke", subject=key_id) as action:
        return sessions.revoke_key(action.tx, key_id, action.now)
