"""What can go wrong with rules: a text that cannot be read, an edit that cannot be done.

Imports errors and config. None of these messages repeats a value of a data set. Changes with the ways to fail.
"""

from __future__ import annotations

from collections.abc import Sequence

from internal.config import Problem
from internal.errors import ConfigurationInvalid, RouterError


class SyntaxProblem(Exception):
    """A mistake in one text at `position` (characters); `hint` says what was probably meant."""

    def __init__(self, message: str, position: int, hint: str = "") -> None:
        super().__init__(message)
        self.position = position
        self.hint = hint


class RulesInvalid(ConfigurationInvalid):
    """A set of rules that cannot be used; `problems` has every mistake, each with file and line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class EditFailed(RouterError):
    """A rewrite cannot be done: the study is held, nothing half rewritten leaves. `code` is the reason for people."""

    def __init__(self, message: str, code: str = "rewrite-failed") -> None:
        super().__init__(message)
        self.code = code


class PatternTooSlow(EditFailed):
    """A regular expression took too long on a value."""


class SkipRule(Exception):
    """A rule says that its changes are left out where a source is empty."""
