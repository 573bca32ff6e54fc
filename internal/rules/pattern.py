"""Regular expressions that cannot hang: a bound on pattern, value and time.

Imports failures. The engine is `regex`, whose searches end after a time given; Python's own cannot be stopped.
Changes when patterns are run in another way.
"""

from __future__ import annotations

from typing import Any, Final

import regex  # type: ignore[import-untyped]

from internal.rules.failures import EditFailed, PatternTooSlow

MAX_PATTERN: Final = 500
MAX_VALUE: Final = 10_240
TIMEOUT_S: Final = 0.25
_MAX_RESULT: Final = 65_534


class Pattern:
    """One compiled pattern. Raises ValueError with what is wrong with its text."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_PATTERN:
            raise ValueError(f"a pattern has at most {MAX_PATTERN} characters")
        self.text = text
        try:
            self._compiled: Any = regex.compile(text, regex.VERSION0)
        except (regex.error, RecursionError, OverflowError, MemoryError) as error:
            raise ValueError(f"the pattern cannot be read: {str(error)[:80]}") from None

    def finds(self, value: str) -> bool:
        """Return whether the pattern occurs anywhere in the value's first 10,240 characters. Raises PatternTooSlow."""
        try:
            return self._compiled.search(value[:MAX_VALUE], timeout=TIMEOUT_S) is not None
        except TimeoutError:
            raise PatternTooSlow(_too_slow(self.text)) from None

    def replace(self, value: str, replacement: str) -> str:
        r"""Return the value with every occurrence replaced; ``\1`` stands for a group.

        Raises PatternTooSlow, and EditFailed where the value or the result is too long: neither is ever cut.
        """
        if len(value) > MAX_VALUE:
            raise EditFailed(f"a value longer than {MAX_VALUE} characters is not searched for a pattern")
        try:
            result = str(self._compiled.sub(replacement, value, timeout=TIMEOUT_S))
        except TimeoutError:
            raise PatternTooSlow(_too_slow(self.text)) from None
        if len(result) > _MAX_RESULT:
            raise EditFailed(f"the result would be longer than {_MAX_RESULT} characters")
        return result

    def check_replacement(self, replacement: str) -> None:
        """Raise ValueError if the replacement is none, or names a group that is not there."""
        try:
            regex.compile("()" * self._compiled.groups).sub(replacement, "", timeout=TIMEOUT_S)
        except (regex.error, IndexError, TimeoutError) as error:
            raise ValueError(f"the replacement cannot be used: {str(error)[:80]}") from None


def _too_slow(text: str) -> str:
    return f"the pattern {text[:60]!r} takes longer than {TIMEOUT_S:g} s on a value; make it simpler"
