"""What somebody may do here: rights, and which of them a role or an API key has.

Imports only `internal.users`. Changes when a kind of caller appears that needs a right of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from internal.users import Role


class Right(StrEnum):
    """What a route needs; every route declares exactly one."""

    OPEN = "open"  #: anybody, without login: health, the login page, static files
    ACCOUNT = "account"  #: whoever is logged in, also before the first password was changed
    VIEW = "view"
    OPERATE = "operate"
    ADMINISTER = "administer"
    METRICS = "metrics"  #: /metrics
    ORDERS = "orders"  #: a HIS that says an order has come


_IMPLIED: dict[Right, frozenset[Right]] = {
    Right.OPERATE: frozenset({Right.VIEW, Right.ORDERS}),
    Right.ADMINISTER: frozenset({Right.OPERATE, Right.VIEW, Right.ORDERS, Right.METRICS}),
}

#: What an API key may be given.
SCOPES = frozenset(Right) - {Right.OPEN, Right.ACCOUNT}

_ROLES = {Role.VIEWER: Right.VIEW, Role.OPERATOR: Right.OPERATE, Role.ADMIN: Right.ADMINISTER}


def rights_of_role(role: Role) -> frozenset[Right]:
    """Return everything that an account of this role may do."""
    return _closed([_ROLES[role], Right.ACCOUNT])


def rights_of_key(words: Iterable[str]) -> frozenset[Right]:
    """Return everything that an API key with these scopes may do; unknown words give nothing."""
    return _closed(Right(word) for word in words if word in SCOPES)


def _closed(rights: Iterable[Right]) -> frozenset[Right]:
    given = frozenset(rights)
    return given.union(*(_IMPLIED.get(right, frozenset()) for right in given))
