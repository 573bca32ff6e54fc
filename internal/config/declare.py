"""How a setting is declared: the `Setting` record, and one field builder for each kind of value.

Flow: `declarations` writes its dataclass fields with these builders. Imports: values.
Changes when a declaration has to say something new about a setting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from internal.config.values import (
    Kind,
    Secret,
    choice,
    many,
    parse_duration,
    parse_int,
    parse_path,
    parse_secret,
    parse_size,
    within,
)

#: How the name of a section ends of which there may be any number: [folder:NAME].
NAMED = ":NAME"


@dataclass(frozen=True, slots=True)
class Setting:
    """One declared setting: everything the loader, the template and the documentation say about it.

    `key` is also the name of the field in the section's dataclass.
    `env` are further environment variables, the preferred one first; `environment` lists all of them.
    `aliases` are older names of the key.
    """

    section: str
    key: str
    kind: Kind
    default: str
    help: str
    help_id: str
    parse: Callable[[str], object]
    allowed: str = ""
    env: tuple[str, ...] = ()
    required: bool = False
    fill_in: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Section and key, as in `Settings.source_of` and on the command line."""
        return f"{self.section}.{self.key}"

    @property
    def is_named(self) -> bool:
        """Whether its section may stand there any number of times, each with a name."""
        return self.section.endswith(NAMED)

    @property
    def environment(self) -> tuple[str, ...]:
        """Environment variables that set it, the first found wins; each also exists with `_FILE` appended."""
        return (f"ROUTER_{self.section}_{self.key}".upper(), *self.env)

    @property
    def unit(self) -> str:
        """How a value is written where it needs a unit, else empty."""
        return {Kind.DURATION: "ms, s, m, h, d", Kind.SIZE: "KB, MB, GB, TB (x1024)"}.get(self.kind, "")


def declare(
    kind: Kind, parse: Callable[[str], Any], default: str, help_en: str, help_id: str, *, empty: Any = "",
    allowed: str = "", env: tuple[str, ...] = (), required: bool = False, fill_in: bool = False,
    aliases: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with its declaration in the metadata; `empty` is the value when the default is empty."""
    options = {
        "kind": kind, "parse": parse, "default": default, "help": help_en, "help_id": help_id, "allowed": allowed,
        "env": env, "required": required, "fill_in": fill_in, "aliases": aliases,
    }  # fmt: skip
    return field(default=parse(default) if default else empty, metadata={"setting": options})


def declare_text(parse: Callable[[str], str], default: str, help_en: str, help_id: str, **options: Any) -> Any:
    """A line of text read by `parse`."""
    return declare(Kind.STR, parse, default, help_en, help_id, **options)


def declare_secret(help_en: str, help_id: str, parse: Callable[[str], Secret] = parse_secret, **options: Any) -> Any:
    """A value that is masked wherever it is shown."""
    return declare(Kind.SECRET, parse, "", help_en, help_id, empty=Secret(), **options)


def declare_number(low: int, high: int, default: int, help_en: str, help_id: str, **options: Any) -> Any:
    """A whole number from `low` to `high`."""
    parse = within(parse_int, str(low), str(high))
    return declare(Kind.INT, parse, str(default), help_en, help_id, allowed=f"{low} to {high}", **options)


def declare_duration(low: str, high: str, default: str, help_en: str, help_id: str) -> Any:
    """A time in seconds; limits and default as text with unit."""
    parse = within(parse_duration, low, high)
    return declare(Kind.DURATION, parse, default, help_en, help_id, allowed=f"{low} to {high}")


def declare_size(low: str, high: str, default: str, help_en: str, help_id: str) -> Any:
    """A size in bytes; limits and default as text with unit."""
    return declare(Kind.SIZE, within(parse_size, low, high), default, help_en, help_id, allowed=f"{low} to {high}")


def declare_choice(words: str, default: str, help_en: str, help_id: str, **options: Any) -> Any:
    """One of the words of `words`, which are separated by `|`."""
    allowed = ", ".join(words.split("|"))
    return declare(Kind.CHOICE, choice(*words.split("|")), default, help_en, help_id, allowed=allowed, **options)


def declare_list(
    parse: Callable[[str], str], default: str, help_en: str, help_id: str, allowed: str, **options: Any,
) -> Any:
    """Items separated by commas, each read by `parse`."""
    return declare(Kind.LIST, many(parse), default, help_en, help_id, empty=(), allowed=allowed, **options)


def declare_path(default: str, help_en: str, help_id: str, **options: Any) -> Any:
    """A folder."""
    return declare(Kind.PATH, parse_path, default, help_en, help_id, empty=Path(), **options)
