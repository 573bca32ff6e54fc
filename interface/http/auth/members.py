"""Which account a person of the identity provider has here, and with which role: their groups decide at each login.

Imports users and the context. Changes when groups are to mean something else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from interface.http.actor import Actor, anonymous
from interface.http.context import WebContext
from internal import sessions, users
from internal.config.web import OidcSettings
from internal.errors import NotAllowed
from internal.store import Tx
from internal.users import Role, User

_MAX_GROUPS = 1000


def role_of(settings: OidcSettings, claims: Mapping[str, Any]) -> Role | None:
    """Return the highest role that the person's groups give, None for none."""
    listed = claims.get(settings.groups_claim, [])
    groups = {str(group) for group in (listed if isinstance(listed, list) else [listed])[:_MAX_GROUPS]}
    given = ((Role.ADMIN, settings.admin_groups), (Role.OPERATOR, settings.operator_groups),
             (Role.VIEWER, settings.viewer_groups))
    return next((role for role, names in given if groups & set(names)), None)


def admit(context: WebContext, settings: OidcSettings, claims: Mapping[str, Any], address: str) -> str:
    """Return the account of this person, made or given its present role; audited when it changes.

    An account that was made here is never taken over, whatever name the provider sends. Raises NotAllowed.
    """
    role = role_of(settings, claims)
    if role is None:
        raise NotAllowed("none of this person's groups has a role here")
    subject = f"{settings.issuer} {str(claims['sub'])[:255]}"
    with context.reading() as tx:
        known = users.find_by_subject(tx, subject)
    if known is not None and known.disabled_at is not None:
        raise NotAllowed("this account is disabled")
    if known is not None and known.role is role:
        return known.name
    return _changed(context, claims, subject, role, known, address)


def _changed(
    context: WebContext, claims: Mapping[str, Any], subject: str, role: Role, known: User | None, address: str,
) -> str:
    author = Actor("system", "", frozenset(), address)
    if known is not None:
        with context.acting(author, "user.role", subject=known.name, before={"role": str(known.role)},
                            after={"role": str(role)}, by="oidc") as action:
            users.set_role(action.tx, known.name, role)
            sessions.end_sessions_of(action.tx, known.name)
        return known.name
    with context.acting(author, "user.add", after={"role": str(role)}, by="oidc") as action:
        action.subject = _free_name(action.tx, claims)
        users.add_user(action.tx, action.subject, role, "", author="oidc", now=action.now, must_change=False,
                       subject=subject)
        return action.subject


def _free_name(tx: Tx, claims: Mapping[str, Any]) -> str:
    wished = str(claims.get("preferred_username") or claims.get("email") or claims["sub"]).lower()
    name = re.sub(r"[^a-z0-9._@-]", "", wished).lstrip("._@-")[:56] or "person"
    for number in range(1, 1000):
        candidate = name if number == 1 else f"{name}-{number}"
        if users.find_user(tx, candidate) is None:
            return candidate
    raise NotAllowed("there are too many accounts of this name")


def note_refused(context: WebContext, actor: Actor, reason: str) -> None:
    """Write down that single sign-on was refused, and why."""
    with context.acting(anonymous(actor.address), "login.failed", how="oidc", reason=reason) as action:
        sessions.note_login_failure(action.tx, "", actor.address, action.now)
