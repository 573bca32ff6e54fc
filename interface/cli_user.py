"""`user`: the people who may come in, for whoever has the machine: also when nobody can log in any more.

Reads and writes the database directly; works whether or not the router runs. Changes when accounts get more properties.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from interface.acting import changing, command_author
from interface.cli_database import iso, now_ms, opened
from interface.cli_table import DataTable
from internal import passwords, sessions, users
from internal.config import Settings
from internal.errors import NotAllowed
from internal.store import Store
from internal.users import Role


def user(options: argparse.Namespace, settings: Settings) -> int:
    """List accounts, or add, disable, enable one, or give it a new password."""
    with opened(settings) as store:
        if options.verb == "list":
            return _list(store, options)
        if not options.name:
            raise NotAllowed(f"user {options.verb} NAME")
        name = users.parse_name(options.name)
        if options.verb == "add":
            return _add(store, settings, name, Role(options.role))
        if options.verb == "reset-password":
            return _reset(store, settings, name)
        with changing(store, settings, f"user.{options.verb}", subject=name) as tx:
            users.set_disabled(tx, name, now_ms() if options.verb == "disable" else None)
            sessions.end_sessions_of(tx, name)
    print(f"{name}: {options.verb}d")
    return 0


def _list(store: Store, options: argparse.Namespace) -> int:
    with store.reading() as tx:
        found = users.list_users(tx)
    if options.json:
        print(json.dumps([dataclasses.asdict(one) for one in found], indent=1))
        return 0
    table = DataTable("user", "role", "state", "last login")
    for one in found:
        state = "disabled" if one.disabled_at else "password to be changed" if one.must_change else "ok"
        table.add_data(one.name, str(one.role), state, iso(one.last_login_at))
    table.print()
    return 0


def _add(store: Store, settings: Settings, name: str, role: Role) -> int:
    password = passwords.random_password()
    hashed = passwords.hash_password(password)
    with changing(store, settings, "user.add", subject=name, after={"role": str(role)}) as tx:
        users.add_user(tx, name, role, hashed, author=command_author().name, now=now_ms())
    return _tell(name, password)


def _reset(store: Store, settings: Settings, name: str) -> int:
    password = passwords.random_password()
    hashed = passwords.hash_password(password)
    with changing(store, settings, "user.reset-password", subject=name) as tx:
        users.set_password(tx, name, hashed, must_change=True)
        sessions.end_sessions_of(tx, name)
        sessions.forget_login_failures(tx, name, "")
    return _tell(name, password)


def _tell(name: str, password: str) -> int:
    print(f"{name}: the password below is shown once; it has to be changed at the first login", file=sys.stderr)
    print(password)
    return 0
