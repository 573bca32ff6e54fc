"""The configuration: every setting declared once, loaded from all sources, printed in every form.

Flow: main.py loads it first; every process gets the same frozen `Settings`. Layer 0, imports errors.
Inside, in this order, each importing only those before it:
values, url, declare, alerting, web, lookups, places, rule_text, declarations, settings, conffile, sources, loading,
rendering.
"""

from internal.config.alerting import ALERT_CONDITIONS, AlertSettings, MailSettings
from internal.config.declarations import (
    IGNORED,
    SECTIONS,
    SETTINGS,
    ConfigurationInvalid,
    DatabaseSettings,
    DicomSettings,
    Problem,
    RouterSettings,
    SatusehatSettings,
    SpoolSettings,
)
from internal.config.declare import Setting
from internal.config.loading import load
from internal.config.places import FOLDER_SECTION, FolderSettings
from internal.config.rendering import render_config, render_markdown, render_template
from internal.config.rule_text import RuleText
from internal.config.settings import Settings, environment_key
from internal.config.url import environment_name, is_loopback, normalise_base_url
from internal.config.values import Secret

__all__ = [
    "ALERT_CONDITIONS",
    "FOLDER_SECTION",
    "IGNORED",
    "SECTIONS",
    "SETTINGS",
    "AlertSettings",
    "ConfigurationInvalid",
    "DatabaseSettings",
    "DicomSettings",
    "FolderSettings",
    "MailSettings",
    "Problem",
    "RouterSettings",
    "RuleText",
    "SatusehatSettings",
    "Secret",
    "Setting",
    "Settings",
    "SpoolSettings",
    "environment_key",
    "environment_name",
    "is_loopback",
    "load",
    "normalise_base_url",
    "render_config",
    "render_markdown",
    "render_template",
]  # fmt: skip
