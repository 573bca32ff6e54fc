"""SQL for the people who may come in: account, role, password hash; disabled accounts stay as rows.

Used by the pages, the API and `main.py user`; imports errors, passwords and store. Nothing here writes the audit trail:
the caller does, in the same transaction. Changes when more has to be known of a person.
"""
# ruff: noqa: S608 - SQL is composed of our own column lists only; every value is bound

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from internal.errors import NotAllowed, NotFound
from internal.store import Row, Tx

_COLUMNS = "name, role, must_change, subject, created_at, created_by, disabled_at, last_login_at, password <> ''"
_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}", re.ASCII)


class Role(StrEnum):
    """What an account may do, each including those before it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class User:
    """One account; times in UTC epoch ms, None for never. `subject`: "<issuer> <sub>" of single sign-on."""

    name: str
    role: Role
    must_change: bool
    subject: str
    created_at: int
    created_by: str
    disabled_at: int | None
    last_login_at: int | None
    has_password: bool


def parse_name(text: str) -> str:
    """Return the account name in lower case. Raises NotAllowed for one that cannot be one."""
    name = text.strip().lower()
    if not _NAME.fullmatch(name):
        raise NotAllowed("a user name has 1 to 64 of a-z, 0-9, . _ @ - and begins with a letter or digit")
    return name


def add_user(
    tx: Tx, name: str, role: Role, password_hash: str, *, author: str, now: int, must_change: bool = True,
    subject: str = "",
) -> User:
    """Add an account; its password was given by somebody else unless `must_change` is False. NotAllowed: it exists."""
    name = parse_name(name)
    if find_user(tx, name) is not None:
        raise NotAllowed(f"there is a user {name} already")
    tx.execute("INSERT INTO account (name, role, password, must_change, subject, created_at, created_by)"
               " VALUES (?, ?, ?, ?, ?, ?, ?)",
               (name, str(role), password_hash, int(must_change), subject, now, author))
    return get_user(tx, name)


def find_user(tx: Tx, name: str) -> User | None:
    """Return the account of this name (any case), None if there is none."""
    row = tx.row(f"SELECT {_COLUMNS} FROM account WHERE name = ?", (name.strip().lower(),))
    return _user(row) if row else None


def get_user(tx: Tx, name: str) -> User:
    """Return the account of this name. Raises NotFound."""
    user = find_user(tx, name)
    if user is None:
        raise NotFound("there is no user of this name")
    return user


def find_by_subject(tx: Tx, subject: str) -> User | None:
    """Return the account that single sign-on knows as `subject`, None if there is none."""
    row = tx.row(f"SELECT {_COLUMNS} FROM account WHERE subject = ? AND subject <> ''", (subject,))
    return _user(row) if row else None


def list_users(tx: Tx) -> list[User]:
    """Return every account, disabled ones last."""
    return [_user(row) for row in tx.rows(
        f"SELECT {_COLUMNS} FROM account ORDER BY disabled_at IS NOT NULL, name LIMIT 1000")]


def password_hash_of(tx: Tx, name: str) -> str:
    """Return the stored hash of an enabled account, "" if there is none to compare with."""
    return str(tx.value("SELECT password FROM account WHERE name = ? AND disabled_at IS NULL",
                        (name.strip().lower(),)) or "")


def set_password(tx: Tx, name: str, password_hash: str, *, must_change: bool) -> None:
    """Replace the password; the caller ends the account's sessions. Raises NotFound."""
    get_user(tx, name)
    tx.execute("UPDATE account SET password = ?, must_change = ? WHERE name = ?",
               (password_hash, int(must_change), name.strip().lower()))


def set_role(tx: Tx, name: str, role: Role) -> None:
    """Change what an account may do, from its next request on. Raises NotFound; NotAllowed for the last admin."""
    user = get_user(tx, name)
    if user.role is Role.ADMIN and role is not Role.ADMIN:
        _keep_an_admin(tx, user.name)
    tx.execute("UPDATE account SET role = ? WHERE name = ?", (str(role), user.name))


def set_disabled(tx: Tx, name: str, disabled_at: int | None) -> None:
    """Disable an account, or (None) enable it again. Raises NotFound; NotAllowed for the last admin."""
    user = get_user(tx, name)
    if disabled_at is not None and user.role is Role.ADMIN:
        _keep_an_admin(tx, user.name)
    tx.execute("UPDATE account SET disabled_at = ? WHERE name = ?", (disabled_at, user.name))


def note_login(tx: Tx, name: str, now: int) -> None:
    """Write down that this account has come in."""
    tx.execute("UPDATE account SET last_login_at = ? WHERE name = ?", (now, name))


def has_users(tx: Tx) -> bool:
    """Return whether anybody was ever given an account."""
    return tx.value("SELECT 1 FROM account LIMIT 1") is not None


def _keep_an_admin(tx: Tx, name: str) -> None:
    # Every admin row is locked: two people must not take each other's role away at the same moment.
    others = [row for row in tx.rows("SELECT name FROM account WHERE role = 'admin' AND disabled_at IS NULL"
                                     f" ORDER BY name{tx.for_update}") if row[0] != name]
    if not others:
        raise NotAllowed("this is the last admin: make another one first")


def _user(row: Row) -> User:
    return User(row[0], Role(row[1]), bool(row[2]), row[3], row[4], row[5], row[6], row[7], bool(row[8]))
