"""The options of `main.py rules`, apart from its work, which is imported only when it is asked for.

Imports nothing of ours. Changes with the verbs of the command.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

VERBS = ("list", "check", "test", "dry-run", "put", "remove", "history", "rollback", "nowhere", "reveal")


def add_rules(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Declare the command's options."""
    rules = add("rules", "check, test and change the rules")
    rules.add_argument("verb", choices=VERBS, nargs="?", default="list")
    rules.add_argument("words", metavar="FILE|NAME|REVISION", nargs="*")
    rules.add_argument("--calling", metavar="AET", default="", help="test as if this AE had sent the files")
    rules.add_argument("--called", metavar="AET", default="", help="test as if they had been sent to this AE")
    rules.add_argument("--address", metavar="IP", default="", help="test as if they had come from here")
    rules.add_argument("--all", action="store_true", help="test: every attribute, not only those that change")
    rules.add_argument("--since", metavar="YYYY-MM-DD|yesterday", default="yesterday", help="dry-run: studies since")
    rules.add_argument("--position", type=int, default=0, help="put: order among the rules that are not in router.conf")
    rules.add_argument("--by", metavar="NAME", help="who changes or asks (default: this account)")
    rules.add_argument("--reason", help="reveal: kept in the audit trail")
    rules.add_argument("--json", action="store_true", help="the result as JSON")
