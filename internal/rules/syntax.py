"""Reading texts of the rule language: words, quoted texts, numbers, attributes; every mistake with its place.

Imports dictionary, failures and paths. `conditions` and `actions` read their own grammar with a Cursor; nothing is ever
evaluated as code. Changes when the language gets another kind of word.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

from internal import dictionary
from internal.rules.failures import SyntaxProblem
from internal.rules.paths import EVERY_ITEM, Path, Step

MAX_TEXT: Final = 64 * 1024
_BLANK = re.compile(r"\s*")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_BARE = re.compile(r'[^\s(),="<>!]+')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_INTEGER = re.compile(r"[+-]?\d{1,9}\b")
_KEYWORD = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_TAG = re.compile(r"\(\s*([0-9A-Fa-f]{4})\s*,\s*([0-9A-Fa-f]{4})\s*\)|([0-9A-Fa-f]{8})\b")
_PRIVATE = re.compile(r'\(\s*([0-9A-Fa-f]{4})\s*,\s*"((?:[^"\\]|\\.)*)"\s*,\s*([0-9A-Fa-f]{2})\s*\)')
_INDEX = re.compile(r"\[\s*(\d{1,4}|\*)\s*\]")
_MAX_STEPS: Final = 16


class Cursor:
    """A place in a text that moves on as words are taken."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_TEXT:
            raise SyntaxProblem(f"is longer than {MAX_TEXT // 1024} KB", 0)
        self.text = text
        self.position = 0
        self._blank()

    def _blank(self) -> None:
        found = _BLANK.match(self.text, self.position)
        self.position = found.end() if found else self.position

    @property
    def at_end(self) -> bool:
        """Return whether nothing but blanks is left."""
        return self.position >= len(self.text)

    def problem(self, message: str, hint: str = "", at: int | None = None) -> SyntaxProblem:
        """Return a mistake at this place, for the caller to raise."""
        return SyntaxProblem(message, self.position if at is None else at, hint)

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Take what matches here and the blanks after it, None if it does not."""
        found = pattern.match(self.text, self.position)
        if found is not None:
            self.position = found.end()
            self._blank()
        return found

    def take_mark(self, mark: str) -> bool:
        """Take a mark such as ``(`` if it stands here."""
        if not self.text.startswith(mark, self.position):
            return False
        self.position += len(mark)
        self._blank()
        return True

    def take_word(self, *words: str) -> str:
        """Take one of these words if it stands here, "" otherwise; upper and lower case are the same."""
        found = _WORD.match(self.text, self.position)
        if found is None or found[0].lower() not in words:
            return ""
        self.take(_WORD)
        return found[0].lower()

    def peek_word(self) -> str:
        """Return the word that stands here as it is written, "" if there is none."""
        found = _WORD.match(self.text, self.position)
        return found[0] if found else ""

    def need_word(self, *words: str) -> str:
        """Take one of these words. Raises SyntaxProblem."""
        taken = self.take_word(*words)
        if not taken:
            found = self.peek_word()
            raise self.problem(f"expected {' or '.join(words)}" + (f", not {found[:40]!r}" if found else ""),
                               likely(found, words))
        return taken

    def need_mark(self, mark: str) -> None:
        """Take a mark. Raises SyntaxProblem."""
        if not self.take_mark(mark):
            raise self.problem(f"expected {mark}")

    def need_end(self) -> None:
        """Raise SyntaxProblem if anything is left."""
        if not self.at_end:
            raise self.problem(f"did not expect {self.text[self.position:self.position + 30].split()[0]!r} here")

    def take_quoted(self) -> str | None:
        """Take a quoted text, None if none stands here; backslash quotes ``"`` and itself."""
        found = self.take(_QUOTED)
        if found is None:
            if self.text.startswith('"', self.position):
                raise self.problem("a quotation mark is not closed")
            return None
        return re.sub(r'\\(["\\])', r"\1", found[1])

    def need_quoted(self, what: str) -> str:
        """Take a quoted text. Raises SyntaxProblem."""
        text = self.take_quoted()
        if text is None:
            raise self.problem(f"expected {what} in quotation marks")
        return text

    def need_value(self) -> str:
        """Take a quoted text or a word without blanks. Raises SyntaxProblem."""
        text = self.take_quoted()
        if text is not None:
            return text
        found = self.take(_BARE)
        if found is None:
            raise self.problem("expected a value")
        return found[0]

    def need_values(self) -> tuple[str, ...]:
        """Take values in brackets with commas between. Raises SyntaxProblem."""
        self.need_mark("(")
        found = [self.need_value()]
        while self.take_mark(","):
            found.append(self.need_value())
        self.need_mark(")")
        return tuple(found)

    def take_integer(self) -> int | None:
        """Take a whole number if one stands here."""
        found = self.take(_INTEGER)
        return int(found[0]) if found else None

    def need_integer(self, low: int, high: int) -> int:
        """Take a whole number from `low` to `high`. Raises SyntaxProblem."""
        at = self.position
        number = self.take_integer()
        if number is None or not low <= number <= high:
            raise self.problem(f"expected a whole number from {low} to {high}", at=at)
        return number

    def starts_path(self) -> bool:
        """Return whether an attribute could stand here."""
        return any(form.match(self.text, self.position) for form in (_PRIVATE, _TAG, _KEYWORD))

    def need_path(self) -> Path:
        """Take an attribute: ``PatientID``, ``(0010,0020)``, ``(0019,"CREATOR",0A)``, ``Sequence[0].Keyword``."""
        begin = self.position
        steps = [self._step()]
        while self.text.startswith(".", self.position):
            self.position += 1
            if steps[-1].item is None:
                steps[-1] = Step(steps[-1].tag, steps[-1].creator, EVERY_ITEM)
            self._need_sequence(steps[-1], begin)
            steps.append(self._step())
            if len(steps) > _MAX_STEPS:
                raise self.problem("goes too deep", at=begin)
        if steps[-1].item is not None:
            raise self.problem("ends with an item; name an attribute inside it", at=begin)
        path = Path(tuple(steps), self.text[begin : self.position].strip())
        self._blank()
        return path

    def _need_sequence(self, step: Step, at: int) -> None:
        if not step.creator and dictionary.vr_of(step.tag) not in ("SQ", "UN"):
            raise self.problem(f"{dictionary.name_of(step.tag)} is no sequence (its VR is "
                               f"{dictionary.vr_of(step.tag)})", at=at)

    def _step(self) -> Step:
        begin = self.position
        private = _PRIVATE.match(self.text, begin)
        tag = _TAG.match(self.text, begin)
        word = _KEYWORD.match(self.text, begin)
        if private is not None:
            self.position = private.end()
            number, creator = int(private[1], 16) << 16 | int(private[3], 16), re.sub(r"\\(.)", r"\1", private[2])
            if not number >> 16 & 1:
                raise self.problem("a private group has an odd number", at=begin)
        elif tag is not None:
            self.position = tag.end()
            number, creator = int((tag[1] or "") + (tag[2] or "") + (tag[3] or ""), 16), ""
            self._check_tag(number, begin)
        elif word is not None:
            self.position = word.end()
            number, creator = self._keyword(word[0], begin), ""
        else:
            raise self.problem("expected an attribute")
        index = _INDEX.match(self.text, self.position)
        if index is not None:
            self.position = index.end()
        item = None if index is None else EVERY_ITEM if index[1] == "*" else int(index[1])
        return Step(number, creator, item)

    def _check_tag(self, tag: int, at: int) -> None:
        if tag >> 16 & 1 and tag & 0xFFFF > 0xFF:
            raise self.problem("is a private tag without its creator", 'write it as (gggg,"CREATOR",ee)', at)
        if tag >> 16 == 2 or tag >> 16 == 0xFFFE or tag & 0xFFFF == 0:
            raise self.problem("is no attribute of a data set", at=at)

    def _keyword(self, word: str, at: int) -> int:
        tag = dictionary.tag_of(word)
        if tag is None:
            near = dictionary.likely_keyword(word)
            raise self.problem(f"{word[:64]} is no DICOM keyword", f"did you mean {near}?" if near else "", at)
        if tag >> 16 == 2 or tag >> 16 == 0:
            raise self.problem(f"{word} is no attribute of a data set", at=at)
        return tag


def likely(word: str, words: Iterable[str]) -> str:
    """Return a hint with the nearest of `words`, "" if none is near."""
    near = difflib.get_close_matches(word.lower()[:40], list(words), n=1, cutoff=0.6) if word else []
    return f"did you mean {near[0]}?" if near else ""
