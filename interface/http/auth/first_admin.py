"""The first admin: made once, with a random password that only a 0600 file tells. There is no default password.

Called by the web role when the database is ready. Changes when the first login is to be told in another way.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

from interface.acting import keep_head
from interface.http.context import WebContext
from internal import audit_trail, passwords, users
from internal.errors import RouterError, Transient
from internal.new_directory import fsync_directory
from internal.users import Role

log = logging.getLogger("router.web")

NAME = "admin"
FILE_NAME = "first-login.txt"
_LOOK_S = 0.5


def await_first_admin(context: WebContext, ended: threading.Event) -> None:
    """Return when there are accounts, or `ended`; a database or disk that is away or full is tried again."""
    told = False
    while not ended.is_set():
        try:
            ensure_first_admin(context)
            return
        except (OSError, RouterError) as fault:
            if not told and not isinstance(fault, Transient):
                log.error("the first admin cannot be made yet: %s", fault)
                told = True
            ended.wait(_LOOK_S)


def ensure_first_admin(context: WebContext) -> bool:
    """Make the account `admin` if nobody was ever given one; return whether it was made.

    The file is durable before the account is. Raises Transient while the database is away, OSError if data_dir cannot
    be written.
    """
    with context.reading() as tx:
        if users.has_users(tx):
            return False
    password = passwords.random_password()
    hashed = passwords.hash_password(password)
    path = context.settings.data_dir / FILE_NAME
    now = context.clock.now_ms()
    with context.store.transaction() as tx:
        if users.has_users(tx):
            return False
        _write(path, f"{NAME}\n{password}\n")
        users.add_user(tx, NAME, Role.ADMIN, hashed, author="system", now=now)
        entry = audit_trail.append(tx, "user.add", author="system", now=now, subject=NAME,
                                   fields={"after": {"role": str(Role.ADMIN)}})
    keep_head(context.audit_head, entry, context.store)
    log.info("first login: user %s, password in %s; the file goes away at the first login", NAME, path)
    if sys.stderr is not None and sys.stderr.isatty():
        # A terminal is read by whoever started the router; anything else (a container's output) is a log.
        sys.stderr.write(f"\n  First login:  {NAME}  {password}\n\n")
    return True


def forget_first_login(data_dir: Path) -> None:
    """Remove the file: its password has been used."""
    with suppress(OSError):
        (data_dir / FILE_NAME).unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if sys.platform != "win32":
        fsync_directory(path.parent)
