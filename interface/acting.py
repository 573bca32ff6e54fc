"""A person's change and its audit entry in one transaction: for pages, API and commands (`changing`) alike.

Flow: the caller opens `acting`, changes rows through `action.tx`; the entry is committed with them, and its place
in the trail is then written down outside the database. Imports the audit trail. Changes when an entry has to say more.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from internal import audit_trail
from internal.config import Settings
from internal.errors import AlreadyRunning, StorageFailed, Transient
from internal.store import Store, Tx

log = logging.getLogger("router.audit")


@dataclass(frozen=True, slots=True)
class Author:
    """Who acts, from where, in which session."""

    name: str
    address: str = ""
    session: str = ""


@dataclass
class Action:
    """One change on its way: `tx` is its transaction, `fields` what the audit entry will say of it."""

    tx: Tx
    now: int
    fields: dict[str, Any] = field(default_factory=dict)
    study_uid: str = ""
    subject: str = ""


@contextmanager
def acting(
    store: Store, head: audit_trail.HeadFile, author: Author, name: str, *, now: int, subject: str = "",
    study_uid: str = "", fields: dict[str, Any] | None = None,
) -> Iterator[Action]:
    """Change something and write the audit entry `name` with it; an exception undoes both. Durable on return."""
    with store.transaction() as tx:
        action = Action(tx, now, dict(fields or {}), study_uid, subject)
        yield action
        entry = audit_trail.append(
            tx, name, author=author.name, address=author.address, session=author.session, now=now,
            subject=action.subject, study_uid=action.study_uid, fields=action.fields)
    keep_head(head, entry, store)


@contextmanager
def changing(
    store: Store, settings: Settings, action: str, *, subject: str = "", study_uid: str = "", **fields: object,
) -> Iterator[Tx]:
    """A transaction of a command, with its entry in the audit trail; an exception undoes both."""
    told = {name: value for name, value in fields.items() if value not in (None, "")}
    head, now = audit_trail.HeadFile(settings.data_dir), time.time_ns() // 1_000_000
    with acting(store, head, command_author(), action, now=now, subject=subject, study_uid=study_uid,
                fields=told) as made:
        yield made.tx


def keep_head(head: audit_trail.HeadFile, entry: audit_trail.Entry, store: Store) -> None:
    """Write down the newest entry outside the database, after its commit; a failure is only logged."""
    try:
        head.keep(entry, store)
    except (OSError, AlreadyRunning, StorageFailed, Transient) as error:
        log.warning("audit.head could not be written: %s", error)


def command_author() -> Author:
    """Return the account that runs this command, by its number and not by what the environment claims."""
    if sys.platform == "win32":
        return Author(f"cli:{os.getlogin()}")
    import pwd

    try:
        return Author(f"cli:{pwd.getpwuid(os.getuid()).pw_name}")
    except KeyError:  # a container's user without a name
        return Author(f"cli:uid{os.getuid()}")
