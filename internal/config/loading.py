"""Loading: router.conf, environment and command line become one checked `Settings`, or every mistake at once.

Flow: called once at the start of each process, before any port opens. Imports: the other modules of config but
rendering.
Changes when a check across settings changes. Which source wins is decided in sources.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from internal.config.conffile import ConfFile, read_conf
from internal.config.declarations import (
    IGNORED,
    RESERVED,
    SECTIONS,
    SETTINGS,
    SINGLE_SECTIONS,
    ConfigurationInvalid,
    Problem,
    declared_section,
)
from internal.config.declare import Setting
from internal.config.places import DESTINATION_KINDS
from internal.config.rule_text import RuleText
from internal.config.settings import Settings
from internal.config.sources import Found, Sources, environment_names, named_sections
from internal.config.url import is_loopback, likely_host
from internal.config.values import MASK, Kind, Secret, WrongValue, nearest

RULE_PREFIX = "rule:"
_MAX_PROBLEMS = 100
_MAX_HINTS = 50
_MAX_NAMED = 100
_NAMED_SETTINGS = tuple(setting for setting in SETTINGS if setting.is_named)
_NAMED_KINDS = tuple(dict.fromkeys(setting.section.removesuffix("NAME") for setting in _NAMED_SETTINGS))
# In each pair the first must not be larger than the second.
_ORDERED = (
    ("settle", "settle_max"),
    ("settle_cr_dx", "settle_max"),
    ("order_poll_min", "order_poll_max"),
    ("retry_min", "retry_max"),
)
_NONE: Mapping[str, str] = MappingProxyType({})


def load(
    path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, str] = _NONE, *,
    require_platform: bool = True,
) -> Settings:
    """Read, check and freeze the configuration. Nothing is written and no name is looked up.

    `path` is router.conf, None for none (everything from the environment); relative paths in any source start at its
    folder (the working directory if None). `overrides` are `section.key` -> text from the command line. With
    `require_platform` False the three SATUSEHAT credentials may be missing (commands that never reach the platform).
    Raises ConfigurationInvalid with every problem found; an unknown key is only a warning.
    """
    sources = Sources(read_conf(path) if path is not None else ConfFile(), environ, overrides)
    loading = _Loading(sources, path.absolute().parent if path is not None else Path.cwd())
    settings = loading.build()
    loading.note_unknown()
    _Checks(loading, settings).run(require_platform)
    warnings = _bounded([*sources.warnings, *loading.warnings])
    problems = [*sources.conf.problems, *sources.problems, *loading.problems]
    if problems:
        raise ConfigurationInvalid(_bounded(problems), warnings)
    return dataclasses.replace(settings, warnings=warnings)


class _Loading:
    """One load on its way: values and their sources so far, problems and warnings so far."""

    def __init__(self, sources: Sources, base: Path) -> None:
        self.sources = sources
        self.base = base
        self.found: dict[str, Found] = {}
        self.wrong: set[str] = set()
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def build(self) -> Settings:
        """Every section with its values; a wrong value is reported and leaves the default."""
        sections = {name: self._section(name, name) for name in SINGLE_SECTIONS}
        named: dict[str, dict[str, Any]] = {}
        names = named_sections(self.sources, _NAMED_SETTINGS)
        for kind in dict.fromkeys(name.partition(":")[0] for name in names):
            if sum(name.startswith(f"{kind}:") for name in names) > _MAX_NAMED:
                self.problems.append(Problem("", f"[{kind}:...]", f"stands more than {_MAX_NAMED} times"))
        for section in names[:_MAX_NAMED * len(_NAMED_KINDS)]:
            declared = declared_section(section)
            if declared is not None and section not in RESERVED:
                kind, _, name = section.partition(":")
                named.setdefault(kind, {})[name] = self._section(declared, section)
            else:
                message = "is not a usable name: 1 to 32 of a-z, 0-9, - and _, and not satusehat, webhook or mroc"
                self.problems.append(Problem(self._section_origin(section), f"[{_shown(section)}]", message))
        origins = MappingProxyType({name: found.source for name, found in self.found.items()})
        frozen = MappingProxyType({kind: MappingProxyType(some) for kind, some in named.items()})
        return Settings(named=frozen, rules=self._rules(), base=self.base, sources=origins, **sections)

    def _rules(self) -> tuple[RuleText, ...]:
        """The sections [rule:NAME] in the order of the file, as text: internal.rules compiles them."""
        conf, rules = self.sources.conf, []
        for section, line in conf.sections.items():
            if not section.startswith(RULE_PREFIX):
                continue
            name = section.removeprefix(RULE_PREFIX)
            if not re.fullmatch(r"[a-z0-9_-]{1,32}", name):
                self.problems.append(Problem(conf.origin(line), f"[{_shown(section)}]", "is not a usable name: 1 to 32"
                                             " of a-z, 0-9, - and _"))
                continue
            mine = {key: entry for (of, key), entry in conf.entries.items() if of == section}
            rules.append(RuleText(name, {key: entry.text for key, entry in mine.items()},
                                  {key: tuple(entry.lines) for key, entry in mine.items()} or {"when": (line,)},
                                  f"file {conf.name}"))
        return tuple(rules)

    def _section(self, declared: str, section: str) -> Any:
        values = {}
        for setting in (each for each in SETTINGS if each.section == declared):
            value = self._value(setting, section)
            if value is None and setting.kind is Kind.PATH and setting.default:
                value = Path(setting.default)
            if value is not None:
                values[setting.key] = self.base / value if isinstance(value, Path) else value
        return SECTIONS[declared](**values)

    def _value(self, setting: Setting, section: str) -> object:
        found = self.sources.find(setting, section)
        if found is None:
            return None
        name = f"{section}.{setting.key}"
        self.found[name] = found
        try:
            if found.continued_at and setting.kind is not Kind.LIST:
                raise WrongValue(f"goes on in line {found.continued_at}, which is indented; move it to the left margin")
            value = setting.parse(found.text)
        except WrongValue as error:
            self.wrong.add(name)
            self.problems.append(_wrong_value(setting, section, found, str(error)))
            return None
        if isinstance(value, Secret) and MASK in value.shown:
            self._look_at_secret(name, found)
        return value

    def _look_at_secret(self, name: str, found: Found) -> None:
        """Warn of what often goes wrong with secrets, without showing any of it."""
        label = _label(name)
        if found.readable_by_all:
            self.warnings.append(Problem(found.source, label, "is in a file that every user can read", "chmod 600"))
        if len(found.text) > 1 and found.text[0] == found.text[-1] and found.text[0] in "\"'":
            self.warnings.append(Problem(found.source, label, "has quotes around it, which count as part of it"))
        if len(found.text) < 4:
            self.warnings.append(Problem(found.source, label, "is too short to be hidden in logs"))

    def note_unknown(self) -> None:
        """Warn of sections, keys and ROUTER_ variables that are no settings; a wrong option name is a problem."""
        conf = self.sources.conf
        for section, line in conf.sections.items():
            if declared_section(section) is None and not section.startswith((RULE_PREFIX, *_NAMED_KINDS)):
                hint = self._hint(section, [name.replace("NAME", "name") for name in (*SECTIONS, "rule:NAME")])
                self.warnings.append(Problem(conf.origin(line), f"[{_shown(section)}]", "is not a section", hint))
        for (section, key), entry in conf.entries.items():
            declared = declared_section(section)
            if declared is not None and key not in _keys(declared):
                self.warnings.append(self._unknown_key(declared, key, conf.origin(entry.line)))
        for name in self.sources.overrides:
            section, _, key = name.rpartition(".")
            if key not in _keys(declared_section(section) or ""):
                hint = self._hint(name, [setting.name for setting in SETTINGS])
                self.problems.append(Problem("command line", _shown(name), "is not a setting", hint))
        self._note_unknown_variables()

    def _unknown_key(self, section: str, key: str, origin: str) -> Problem:
        label = f"[{section}] {_shown(key)}"
        for ignored in IGNORED:
            if fnmatch.fnmatchcase(key, ignored.key):
                return Problem(origin, label, f"is accepted but not used: {ignored.note}")
        elsewhere = [setting.section for setting in SETTINGS if setting.key == key]
        hint = f"it belongs in [{elsewhere[0]}]" if elsewhere else self._hint(key, _keys(section))
        return Problem(origin, label, "is not a setting", hint)

    def _note_unknown_variables(self) -> None:
        known = {name for each in SETTINGS if not each.is_named for name in each.environment}
        sections = {name.rpartition(".")[0] for name in self.found if name.startswith(_NAMED_KINDS)}
        known |= {environment_names(each, section)[0] for section in sections for each in _NAMED_SETTINGS
                  if each.section == declared_section(section)}
        for variable in self.sources.environ:
            if variable.startswith("ROUTER_") and variable.removesuffix("_FILE") not in known:
                hint = self._hint(variable, sorted(known))
                self.warnings.append(Problem(f"environment {_shown(variable)}", "", "is not a setting", hint))

    def _hint(self, word: str, words: list[str]) -> str:
        # Comparing words costs about a millisecond each; a file of rubbish must not take minutes.
        likely = nearest(word, words) if len(self.warnings) < _MAX_HINTS else ""
        return f"did you mean {likely}?" if likely else ""

    def _section_origin(self, section: str) -> str:
        line = self.sources.conf.sections.get(section)
        return self.sources.conf.origin(line) if line else ""


class _Checks:
    """What can only be checked with all values at hand."""

    def __init__(self, loading: _Loading, settings: Settings) -> None:
        self._loading = loading
        self._settings = settings

    def run(self, require_platform: bool) -> None:
        if require_platform and "satusehat" in self._settings.lane_names():
            self._required("satusehat", "satusehat")
        if require_platform:
            self._others_need_tls()
        self._oidc_is_whole()
        for section in self._settings.section_names():
            if ":" in section:
                self._required(declared_section(section) or "", section)
        self._send_to()
        self._destinations()
        self._plain_http()
        self._alerts_can_be_told()
        self._folders_apart()
        self._ports_differ()
        for low, high in _ORDERED:
            self._in_order(low, high)
        self._warn()

    def _problem(self, name: str, message: str, hint: str = "") -> None:
        found = self._loading.found.get(name)
        conf = self._loading.sources.conf.name
        origin = found.source if found else f"file {conf}" if conf else ""
        self._loading.problems.append(Problem(origin, _label(name), message, hint))

    def _warning(self, name: str, message: str, hint: str = "") -> None:
        self._loading.warnings.append(Problem(self._settings.source_of(name), _label(name), message, hint))

    def _required(self, declared: str, section: str) -> None:
        for setting in SETTINGS:
            name = f"{section}.{setting.key}"
            if setting.section == declared and setting.required and name not in self._loading.found:
                variable = environment_names(setting, section)[-1 if not setting.env else 1]
                self._problem(name, "is not set", f"fill it in, or set the environment variable {variable}")

    def _send_to(self) -> None:
        known = list(self._settings.destination_names())
        for name in self._settings.router.send_to:
            if name not in known:
                likely = nearest(name, known)
                hint = f"did you mean {likely}?" if likely else f"add a section [folder:{name}]"
                self._problem("router.default_send_to", f"names {name}, which is no destination", hint)

    def _destinations(self) -> None:
        """Names are unique over all kinds, and a stand-in is a destination that is not the platform."""
        for name, kind in self._settings.destinations.items():
            section = self._settings.section(f"{kind}:{name}")
            for other in DESTINATION_KINDS[: DESTINATION_KINDS.index(kind)]:
                if name in self._settings.named.get(other, {}):
                    self._problem(f"{kind}:{name}.late", f"has the name of [{other}:{name}]", "names are for one only")
            if section.failover_to and section.failover_to not in set(self._settings.destinations) - {name}:
                self._problem(f"{kind}:{name}.failover_to", f"names {section.failover_to}, which cannot stand in",
                              "another destination with a section of its own")
            if section.failover_to and getattr(section, "commitment", False):
                self._problem(f"{kind}:{name}.failover_to", "does not go with commitment = yes",
                              "who stands in cannot commit to what the other one has")

    def _plain_http(self) -> None:
        for section in self._settings.section_names():
            values = self._settings.section(section)
            for key in ("url", "endpoint", "token_url") if hasattr(values, "plain_http") else ():
                url = getattr(values, key, "")
                if url.startswith("http:") and not values.plain_http and not is_loopback(urlsplit(url).hostname or ""):
                    self._problem(f"{section}.{key}", "is http, which everybody on the way can read",
                                  "https, or plain_http = yes for a line that you trust")

    def _alerts_can_be_told(self) -> None:
        mail = self._settings.mail
        for name, rule in self._settings.alerts.items():
            if rule.mail_to and not mail.host:
                self._problem(f"alert:{name}.mail_to", "is set, but no mail server", "fill in [mail] host")
        if mail.host and not mail.sender and "@" not in mail.user:
            self._problem("mail.sender", "is not set", "fill it in: user is no e-mail address")
        if mail.password and mail.security == "none" and not is_loopback(mail.host):
            self._warning("mail.security", "sends the password unencrypted", "use starttls or tls")

    def _folders_apart(self) -> None:
        data_dir = self._settings.router.data_dir
        for kind in ("folder", "watch"):
            for name, folder in self._settings.named.get(kind, {}).items():
                if folder.path == data_dir or data_dir in folder.path.parents:
                    self._problem(f"{kind}:{name}.path", "lies inside data_dir, which belongs to the router alone")
                if kind == "watch" and folder.path in data_dir.parents:
                    self._problem(f"{kind}:{name}.path", "has data_dir in it, which belongs to the router alone")

    def _ports_differ(self) -> None:
        both = self._settings.satusehat
        if both.dicom_port and both.dicom_port == both.http_port:
            given = "http_port" if "satusehat.http_port" in self._loading.found else "dicom_port"
            self._problem(f"satusehat.{given}", f"is {both.dicom_port}, as is the other of dicom_port and http_port")

    def _others_need_tls(self) -> None:
        http, bind = self._settings.http, self._settings.router.http_bind
        if bool(http.certificate.name) != bool(http.key.name):
            self._problem("http.key" if http.certificate.name else "http.certificate",
                          "is not set", "certificate and key belong together")
        elif not http.certificate.name and not http.allow_plain_http and not is_loopback(bind or "0.0.0.0"):  # noqa: S104
            self._problem("router.http_bind", "lets other machines reach pages and API, which needs TLS",
                          "set [http] certificate and key; or, behind a proxy that does TLS, allow_plain_http = yes")

    def _oidc_is_whole(self) -> None:
        oidc = self._settings.oidc
        if oidc.issuer:
            for key in ("client_id", "client_secret", "public_url"):
                if not getattr(oidc, key):
                    self._problem(f"oidc.{key}", "is not set", "single sign-on needs it")

    def _in_order(self, low: str, high: str) -> None:
        router = self._settings.router
        if {f"router.{low}", f"router.{high}"} & self._loading.wrong:
            return
        if getattr(router, low) > getattr(router, high):
            given = low if f"router.{low}" in self._loading.found else high
            source = self._settings.source_of(f"router.{high if given == low else low}")
            self._problem(f"router.{given}", f"does not fit: {low} must not be longer than {high} (see {source})")

    def _warn(self) -> None:
        satusehat = self._settings.satusehat
        likely = likely_host(satusehat.url)
        if likely:
            self._warning("satusehat.url", "is not a known SATUSEHAT address", f"did you mean {likely}?")
        if satusehat.webhook_password and satusehat.webhook_url.reveal().startswith("http://"):
            self._warning("satusehat.webhook_url", "sends its password unencrypted", "use https://")
        if not self._settings.spool.fsync:
            self._warning("spool.fsync", "is off: acknowledged images can be lost in a power cut")


def _wrong_value(setting: Setting, section: str, found: Found, reason: str) -> Problem:
    shown = ""
    # URLs may carry a password, and long texts may be a secret in the wrong place.
    if setting.kind not in (Kind.SECRET, Kind.URL) and len(found.text) <= 20:
        shown = f"= {_shown(found.text)} "
    hints = [f"allowed: {setting.allowed}"] if setting.allowed else []
    if setting.kind is Kind.CHOICE and nearest(found.text.lower(), setting.allowed.split(", ")):
        hints.append(f"did you mean {nearest(found.text.lower(), setting.allowed.split(', '))}?")
    if re.search(r"\s[#;]", found.text):
        hints.append("a comment needs a line of its own")
    if found.text[:1] in ('"', "'"):
        hints.append("write it without quotes")
    return Problem(found.source, _label(f"{section}.{setting.key}"), f"{shown}{reason}", "; ".join(hints))


def _keys(declared: str) -> list[str]:
    return [key for setting in SETTINGS if setting.section == declared for key in (setting.key, *setting.aliases)]


def _label(name: str) -> str:
    section, _, key = name.rpartition(".")
    return f"[{section}] {key}"


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:40])


def _bounded(problems: list[Problem]) -> tuple[Problem, ...]:
    if len(problems) <= _MAX_PROBLEMS:
        return tuple(problems)
    rest = Problem("", "", f"and {len(problems) - _MAX_PROBLEMS} more")
    return (*problems[:_MAX_PROBLEMS], rest)
