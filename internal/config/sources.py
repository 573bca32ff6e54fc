"""Where the text of a setting is found: command line, environment, files it names, systemd credentials, router.conf.

Flow: `loading` asks for one setting after the other. Imports: conffile, declarations, values.
Changes when a source is added or their order changes. Nothing here knows what a value means.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from internal.config.conffile import ConfFile, is_open_to_all
from internal.config.declarations import Problem
from internal.config.declare import NAMED, Setting
from internal.config.values import Kind

MAX_VALUE_FILE_BYTES = 64 * 1024
# What an entrypoint script should have replaced: $ORG_ID, ${ORG_ID}, $(ORG_ID). Upper case only: a password may be $x.
_PLACEHOLDER = re.compile(r"\$(?:[A-Z][A-Z0-9_]*|\{[A-Z][A-Z0-9_]*\}|\([A-Z][A-Z0-9_]*\))")
# Docker mounts secrets with mode 0444 into a folder of the container's own: nothing to warn about.
_CONTAINER_SECRETS = ("/run/secrets/", "/var/run/secrets/")


@dataclass(frozen=True, slots=True)
class Found:
    """The text of one setting and where it came from; `continued_at` is the line where a value of a file goes on."""

    text: str
    source: str
    continued_at: int = 0
    readable_by_all: bool = False


class Sources:
    """All sources of one load. `problems` and `warnings` collect what is wrong with a source itself."""

    def __init__(self, conf: ConfFile, environ: Mapping[str, str], overrides: Mapping[str, str]) -> None:
        self.conf = conf
        self.environ = environ
        self.overrides = {name.lower(): text for name, text in overrides.items()}
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def find(self, setting: Setting, section: str) -> Found | None:
        """The text that counts for `setting` in `section`, None if no source has any. Empty texts do not count."""
        for found in self._candidates(setting, section):
            if not found.text.strip():
                continue
            if _PLACEHOLDER.fullmatch(found.text):
                message = f"is {found.text[:40]}, a placeholder that nothing has filled in: treated as not set"
                self.warnings.append(Problem(found.source, f"[{section}] {setting.key}", message))
                continue
            return found
        return None

    def _candidates(self, setting: Setting, section: str) -> Iterator[Found]:
        key = setting.key
        for name in (key, *setting.aliases):
            yield Found(self.overrides.get(f"{section}.{name}", ""), "command line")
        variables = environment_names(setting, section)
        for variable in variables:
            yield Found(self.environ.get(variable, "").strip(), f"environment {variable}")
        for variable in variables:
            file = self.environ.get(f"{variable}_FILE", "")
            if file.strip():
                yield self._from_file(Path(file), f"environment {variable}_FILE")
        if setting.kind is Kind.SECRET:
            yield from self._credentials(section, key)
        entries = [self.conf.entries.get((section, name)) for name in (key, *setting.aliases)]
        for entry in filter(None, entries):
            yield Found(entry.text, self.conf.origin(entry.line), entry.continued_at, self.conf.readable_by_all)

    def _credentials(self, section: str, key: str) -> Iterator[Found]:
        """Files of systemd's LoadCredential=, named `section.key` or `key`. Source: systemd.exec(5), CREDENTIALS."""
        folder = self.environ.get("CREDENTIALS_DIRECTORY", "")
        # The database's key is only `url`, which alone would not say whose URL it is.
        for name in (f"{section}.{key}", *([key] if key != "url" else [])):
            if folder and Path(folder, name).is_file():
                yield self._from_file(Path(folder, name), f"credential {name}")

    def _from_file(self, path: Path, source: str) -> Found:
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise OSError(0, "not a file")
            with path.open("rb") as stream:
                content = stream.read(MAX_VALUE_FILE_BYTES + 1)
            if len(content) > MAX_VALUE_FILE_BYTES:
                raise OSError(0, "too large")
            open_to_all = is_open_to_all(status) and not str(path).startswith(_CONTAINER_SECRETS)
            return Found(content.decode("utf-8-sig").strip("\r\n \t"), source, readable_by_all=open_to_all)
        except OSError as error:
            reason = error.strerror or type(error).__name__
        except ValueError:
            reason = "not UTF-8 text, or not a path"
        self.problems.append(Problem(source, "", f"names a file that cannot be read: {reason}"))
        return Found("", source)


def environment_names(setting: Setting, section: str) -> tuple[str, ...]:
    """The environment variables of a setting; for a named section, with its name in place of NAME."""
    if not setting.is_named:
        return setting.environment
    return (f"ROUTER_{section}_{setting.key}".upper().replace("-", "_").replace(":", "_"),)


def named_sections(sources: Sources, known: Sequence[Setting]) -> list[str]:
    """Sections such as [folder:pacs] that any source speaks of, in the order found; `known` are their settings."""
    kinds = tuple(dict.fromkeys(setting.section.removesuffix("NAME") for setting in known))
    names = [name for name in sources.conf.sections if name.startswith(kinds)]
    names += [name.rpartition(".")[0] for name in sources.overrides if name.startswith(kinds)]
    taken = {environment_names(setting, name)[0] for name in names for setting in known
             if name.startswith(setting.section.removesuffix("NAME"))}
    # The longest key first: webhook_url of `a` is not the url of `a_webhook`.
    by_length = sorted(known, key=lambda setting: -len(setting.key))
    for variable, text in sources.environ.items():
        if text and variable.startswith("ROUTER_") and variable.removesuffix("_FILE") not in taken:
            names += next(filter(None, (_section_of(variable, setting) for setting in by_length)), [])
    return list(dict.fromkeys(names))


def _section_of(variable: str, setting: Setting) -> list[str]:
    kind = setting.section.removesuffix(NAMED)
    found = re.fullmatch(rf"ROUTER_{kind.upper()}_([A-Z0-9_]{{1,32}})_{setting.key.upper()}(_FILE)?", variable)
    return [f"{kind}:{found[1].lower()}"] if found else []
