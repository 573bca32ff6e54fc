"""Who makes a request, as the doorkeeper found out; every handler gets it as `CurrentActor`.

Imports rights. Changes when more has to be known of whoever acts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from interface.http.rights import Right


@dataclass(frozen=True, slots=True)
class Actor:
    """Whoever makes this request.

    Attributes
    ----------
    author : ``user:NAME``, ``key:ID``, or ``anonymous``: what goes into the audit trail and into `who` arguments.
    name : the bare account name or the key's name, for people. role : of an account, "" for a key.
    session : id of the login session or key, "" for anonymous; never the secret itself.
    address : where the request came from.
    csrf : token that every form of this session has to carry, "" where none is needed.
    must_change : the password has to be changed before anything else.
    """

    author: str
    name: str
    rights: frozenset[Right]
    address: str
    session: str = ""
    role: str = ""
    csrf: str = field(default="", repr=False)
    must_change: bool = False

    @property
    def is_key(self) -> bool:
        """Whether another system acts with a key, not a person."""
        return self.author.startswith("key:")

    def may(self, right: Right) -> bool:
        """Return whether this right is open or given."""
        return right is Right.OPEN or right in self.rights


def anonymous(address: str) -> Actor:
    """Return the actor of a request without credentials."""
    return Actor("anonymous", "", frozenset(), address)


def current_actor(request: Request) -> Actor:
    """Return who makes this request (the doorkeeper has put it there)."""
    actor: Actor = request.state.actor
    return actor


CurrentActor = Annotated[Actor, Depends(current_actor)]
