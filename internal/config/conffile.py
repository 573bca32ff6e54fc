"""router.conf as entries with line numbers, by the rules of Python's configparser (interpolation off).

Flow: `sources` looks settings up in what `read_conf` gives. Imports: declarations.
Changes when the file's syntax changes. The official router reads this file with configparser, so the rules are the
same: `=` or `:`, comments on lines of their own, deeper indented lines continue a value, keys in any case.
Own code instead of configparser because every mistake must be reported, each with its line.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from internal.config.declarations import ConfigurationInvalid, Problem

MAX_FILE_BYTES = 256 * 1024
MAX_LINES = 5000


@dataclass(slots=True)
class Entry:
    """One key with its value as written; `line` is where it stands, `continued_at` where a second line of it does.

    `lines` says where each line of `text` stands.
    """

    text: str
    line: int
    continued_at: int = 0
    lines: list[int] = field(default_factory=list)


@dataclass(slots=True)
class ConfFile:
    """What one file says: sections (with the line of each) and their entries, keys and section names in lower case."""

    name: str = ""
    sections: dict[str, int] = field(default_factory=dict)
    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    readable_by_all: bool = False

    def origin(self, line: int) -> str:
        """Where a line of this file is, for messages and `source_of`."""
        return f"file {self.name} line {line}"


def read_conf(path: Path) -> ConfFile:
    """Read and scan a file of at most 256 KB. Raises ConfigurationInvalid when it cannot be read or is not UTF-8."""
    origin = f"file {path.name}"
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ConfigurationInvalid([Problem(origin, "", "is not a file")])
        with path.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        hint = "copy router.conf.template to router.conf and fill in the first three values"
        raise ConfigurationInvalid([Problem(origin, "", f"does not exist in {path.absolute().parent}", hint)]) from None
    except (OSError, ValueError) as error:
        raise ConfigurationInvalid([Problem(origin, "", f"cannot be read: {_reason(error)}")]) from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigurationInvalid([Problem(origin, "", f"is larger than {MAX_FILE_BYTES // 1024} KB")])
    conf = scan(_decode(content, origin), path.name)
    conf.readable_by_all = is_open_to_all(status)
    return conf


def is_open_to_all(status: os.stat_result) -> bool:
    """Whether every user of this machine may read the file; never said of Windows, whose mode bits mean nothing."""
    return os.name != "nt" and bool(status.st_mode & stat.S_IROTH)


def scan(text: str, name: str, section: str | None = None) -> ConfFile:
    """Split a configuration text into numbered entries; mistakes of syntax are collected in `problems`.

    `section`: that in which the first line stands.
    """
    lines = re.split(r"\r\n|\r|\n", text)
    if len(lines) > MAX_LINES:
        raise ConfigurationInvalid([Problem(f"file {name}", "", f"has more than {MAX_LINES} lines")])
    scanner = _Scanner(ConfFile(name), section)
    for number, line in enumerate(lines, start=1):
        scanner.take(line, number)
    for entry in scanner.conf.entries.values():
        entry.text = entry.text.rstrip()
    return scanner.conf


class _Scanner:
    """The scan between two lines: current section, current entry and its indent."""

    def __init__(self, conf: ConfFile, section: str | None) -> None:
        self.conf = conf
        self._section = section
        self._entry: Entry | None = None
        self._indent = 0
        self._headless = False

    def take(self, line: str, number: int) -> None:
        text = line.strip()
        if text.startswith(("#", ";")):
            return
        if not text:
            if self._entry is not None:
                self._entry.text += "\n"
                self._entry.lines.append(number)
            return
        indent = len(line) - len(line.lstrip())
        if self._entry is not None and indent > self._indent:
            self._entry.text += "\n" + text
            self._entry.lines.append(number)
            self._entry.continued_at = self._entry.continued_at or number
            return
        self._indent = indent
        header = re.match(r"\[(.+)\]", text)
        if header is not None:
            self._open_section(header[1].strip().lower(), number)
        else:
            self._add_entry(text, number)

    def _open_section(self, section: str, number: int) -> None:
        first = self.conf.sections.setdefault(section, number)
        if first != number:
            self._report(number, f"[{_shown(section)}]", f"stands a second time; the first is on line {first}")
        self._section, self._entry = section, None

    def _add_entry(self, text: str, number: int) -> None:
        self._entry = None
        if self._section is None:
            if not self._headless:
                self._report(number, "", "stands before any section", "put a line with [satusehat] above it")
            self._headless = True
            return
        at = min((i for i in (text.find("="), text.find(":")) if i >= 0), default=0)
        if at == 0:
            # The text is not shown: it may be the second half of a broken secret.
            self._report(number, "", "is neither [section] nor key = value")
            return
        key = text[:at].rstrip().lower()
        entry = Entry(text[at + 1 :].strip(), number, lines=[number])
        first = self.conf.entries.setdefault((self._section, key), entry)
        if first is not entry:
            name = f"[{_shown(self._section)}] {_shown(key)}"
            self._report(number, name, f"stands a second time; the first is on line {first.line}")
        self._entry = entry

    def _report(self, number: int, setting: str, message: str, hint: str = "") -> None:
        self.conf.problems.append(Problem(self.conf.origin(number), setting, message, hint))


def _decode(content: bytes, origin: str) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigurationInvalid([Problem(origin, "", "is saved as UTF-16", "save it as UTF-8 in your editor")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        origin, hint = f"{origin} line {line}", "save it as UTF-8 in your editor"
        problem = Problem(origin, "", "has a byte that is not UTF-8", hint)
        raise ConfigurationInvalid([problem]) from None


def _shown(name: str) -> str:
    """A name from the file, short and without control characters."""
    return "".join(c if c.isprintable() else "?" for c in name[:40])


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
