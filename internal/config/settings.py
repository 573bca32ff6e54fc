"""The whole configuration as one frozen value: what every other module asks for a setting.

Flow: made by `loading`. Imports: declarations, declare, url, values.
Changes when a path or an address is to be derived from settings in another way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from internal.config.alerting import AlertSettings, MailSettings
from internal.config.declarations import (
    SECTIONS,
    SETTINGS,
    SINGLE_SECTIONS,
    DatabaseSettings,
    DicomSettings,
    Problem,
    RouterSettings,
    SatusehatSettings,
    SpoolSettings,
    declared_section,
)
from internal.config.declare import NAMED
from internal.config.places import DESTINATION_KINDS, FolderSettings
from internal.config.rule_text import RuleText
from internal.config.url import secret_parts
from internal.config.values import Secret
from internal.config.web import AuditSettings, HttpSettings, OidcSettings


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The whole configuration, checked; paths are absolute, secrets masked in every repr.

    `named` are the sections [kind:name] by kind and name, in the order found. `sources` says of each setting where its
    value came from; `rules` are the sections [rule:NAME] as written, their tables lie in `base`; `warnings` is what the
    person should read.
    """

    satusehat: SatusehatSettings
    router: RouterSettings
    spool: SpoolSettings
    dicom: DicomSettings
    database: DatabaseSettings
    http: HttpSettings = field(default_factory=HttpSettings)
    oidc: OidcSettings = field(default_factory=OidcSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    mail: MailSettings = field(default_factory=MailSettings)
    named: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))
    rules: tuple[RuleText, ...] = ()
    base: Path = Path()
    warnings: tuple[Problem, ...] = ()
    sources: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    def source_of(self, name: str) -> str:
        """Say where `section.key` came from: `file router.conf line 7`, `environment ORG_ID`, `command line`,
        `credential secret_key` or `default`. Raises KeyError for a name that is no setting."""
        section, _, key = name.rpartition(".")
        declared = declared_section(section) if section in self.section_names() else None
        if not any(setting.name == f"{declared}.{key}" for setting in SETTINGS):
            raise KeyError(name)
        return self.sources.get(name, "default")

    def section(self, name: str) -> Any:
        """The dataclass of a section by its name in router.conf (`router`, `folder:pacs`). Raises KeyError."""
        kind, colon, rest = name.partition(":")
        if colon:
            return self.named.get(kind, {})[rest]
        if name not in SINGLE_SECTIONS:
            raise KeyError(name)
        return getattr(self, name)

    def section_names(self, declared: str | None = None) -> list[str]:
        """The sections there are, as in router.conf; with `declared` those of one declaration (`folder:NAME`)."""
        return [name for pattern in ([declared] if declared else SECTIONS) for name in (
            [f"{pattern.removesuffix('NAME')}{each}" for each in self.named.get(pattern.removesuffix(NAMED), {})]
            if pattern.endswith(NAMED) else [pattern])]

    @property
    def folders(self) -> Mapping[str, FolderSettings]:
        """Sections [folder:NAME] by name."""
        return self.named.get("folder", {})

    @property
    def destinations(self) -> Mapping[str, str]:
        """The kind of each destination that has a section, by its name; the platform, which has its own, left out."""
        return {name: kind for kind in DESTINATION_KINDS for name in self.named.get(kind, {})}

    def destination_names(self) -> tuple[str, ...]:
        """Every name that a study can be sent to: the platform and all sections of destinations."""
        return ("satusehat", *self.destinations)

    def lane_names(self) -> tuple[str, ...]:
        """The destinations that have a lane: of default_send_to, of rules, and all that have a section."""
        named = [name for rule in self.rules for name in rule.entries.get("send_to", "").replace(",", " ").split()]
        known = self.destination_names()
        wanted = (*self.router.default_send_to, *(name for name in named if name in known), *self.destinations)
        return tuple(dict.fromkeys(wanted))

    @property
    def alerts(self) -> Mapping[str, AlertSettings]:
        """Sections [alert:NAME] by name."""
        return self.named.get("alert", {})

    @property
    def data_dir(self) -> Path:
        """Absolute path of the folder for everything the router writes; created by nobody here."""
        return self.router.data_dir

    @property
    def spool_dir(self) -> Path:
        """Absolute path of the spool."""
        return self.router.data_dir / "spool"

    @property
    def database_path(self) -> Path:
        """Absolute path of the SQLite file, used unless [database] url is set."""
        return self.router.data_dir / "index.db"

    @property
    def tls_key(self) -> Path:
        """Absolute path of the private key for the TLS port."""
        return self.dicom.tls_key if self.dicom.tls_key.name else self.router.data_dir / "tls" / "router.key"

    @property
    def tls_certificate(self) -> Path:
        """Absolute path of the certificate for the TLS port."""
        given = self.dicom.tls_certificate
        return given if given.name else self.router.data_dir / "tls" / "router.crt"

    @property
    def database_url(self) -> str:
        """What `Store.open` takes: the PostgreSQL URL with its password, or sqlite:///absolute/path. Never log it."""
        return self.database.url.reveal() or self.database_path.absolute().as_uri().replace("file:", "sqlite:", 1)

    def secrets(self) -> tuple[str, ...]:
        """Every secret in the clear, and the secret parts of URLs, for the filter of the log alone."""
        sections = [self.section(name) for name in self.section_names()]
        values = [getattr(part, each.name) for part in sections for each in dataclasses.fields(part)]
        whole = [value.reveal() for value in values if isinstance(value, Secret) and value]
        return tuple(dict.fromkeys((*whole, *(part for value in whole for part in secret_parts(value)))))


def environment_key(settings: Settings) -> str:
    """`<base url>|<organization id>`: what facts, receipts and tokens are keyed by."""
    return f"{settings.satusehat.url}|{settings.satusehat.organization_id}"
