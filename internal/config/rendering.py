"""Texts made from the declarations: router.conf.template, docs/settings.md and the listing of `main.py config`.

Flow: the CLI prints them; a test compares the committed files with them. Imports: declarations, settings, url, values.
Changes when these texts should look different; a new setting needs no change here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from internal.config.alerting import ALERT_SECTION
from internal.config.declarations import IGNORED, SECTIONS, SETTINGS
from internal.config.declare import NAMED, Setting
from internal.config.lookups import LOOKUP_SECTION
from internal.config.places import FOLDER_SECTION, WATCH_SECTION
from internal.config.settings import Settings
from internal.config.url import environment_name
from internal.config.values import Kind, Secret, format_duration, format_size

_SECTION_HELP = {
    "satusehat": ("Platform SATUSEHAT dan nilai dari router resmi.", "The SATUSEHAT platform and the official keys."),
    "router": ("Data, kelengkapan studi, pengulangan.", "Data, completeness of studies, repetition."),
    "spool": ("Penyimpanan gambar yang diterima.", "How received images are kept."),
    "dicom": ("Penerima DICOM dan batas-batasnya.", "The DICOM receiver and its limits."),
    "database": ("Indeks dan pekerjaan.", "Index and jobs."),
    "http": ("Siapa yang boleh membuka halaman dan API.", "Who may reach pages and API."),
    "oidc": ("Masuk lewat penyedia identitas rumah sakit.", "Single sign-on through the hospital's provider."),
    "audit": ("Jejak audit di luar basis data.", "The audit trail outside the database."),
    "mail": ("Server surel untuk peringatan.", "The mail server for alerts."),
    ALERT_SECTION: (
        "Aturan peringatan; ganti NAME, boleh beberapa. Tanpa satu pun, peringatan hanya tampil di halaman dan API.",
        "A rule for alerts; replace NAME, any number of them. Without any, alerts are only shown in pages and API."),
    FOLDER_SECTION: (
        "Tujuan berupa folder; ganti NAME, boleh beberapa, lalu tulis namanya di send_to.",
        "A folder as destination; replace NAME, any number of them, and put the name into send_to."),
    "dimse:NAME": ("Tujuan berupa node DICOM (PACS), dengan C-STORE.", "A DICOM node (PACS) as destination, C-STORE."),
    "dicomweb:NAME": ("Tujuan DICOMweb, dengan STOW-RS.", "A DICOMweb server as destination, STOW-RS."),
    "sftp:NAME": ("Tujuan berupa folder di komputer lain, lewat SFTP.",
                  "A folder on another machine as destination, SFTP."),
    "s3:NAME": ("Tujuan berupa bucket penyimpanan objek (S3).", "A bucket of an object store (S3) as destination."),
    WATCH_SECTION: ("Folder yang diawasi: citra, isi CD dan zip diambil dari sana.",
                    "A watched folder: images, CD trees and zip files are taken from it."),
    LOOKUP_SECTION: ("Layanan rumah sakit yang boleh ditanya oleh aturan.",
                     "A service of the hospital that rules may ask."),
}  # fmt: skip

_TEMPLATE_RULES = """
# Aturan: ke mana studi dikirim dan apa yang diubah di jalan keluar, menurut urutan; lihat docs/rules.md.
# Rules: where a study goes and what is changed on the way out, in order; see docs/rules.md.
# [rule:NAME]
# when = called = DICOMRELAY and EthnicGroup present
# do =
#     set PatientID = EthnicGroup
# send_to = pacs
"""

_TEMPLATE_HEAD = """\
# SATUSEHAT DICOM Router
#
# 1. Salin berkas ini menjadi router.conf      Copy this file to router.conf
# 2. Isi tiga nilai pertama                    Fill in the first three values
# 3. Jalankan: python main.py -v               Run: python main.py -v
#
# Baris dengan # adalah nilai bawaan; hapus # untuk mengubahnya. Komentar harus di baris sendiri.
# Lines with # show the default; remove the # to change it. A comment needs a line of its own.
# Waktu / time: 500ms 30s 5m 2h 7d.  Ukuran / size: 64KB 512MB 2GB.  Ya-tidak / yes-no: yes no ya tidak.
# `python main.py config` menampilkan setiap nilai dan asalnya / shows each value and where it came from.
"""

_MARKDOWN_HEAD = """\
# Settings

<!-- Made from the declarations in internal/config/declarations.py; a test compares the two. -->

`router.conf` needs three values: `organization_id`, `client_key` and `secret_key`. Everything else has a default.
`python main.py config` prints each value with where it came from; `python main.py template` prints a fresh template.

Which value counts: command line, then environment variable, then the file named by a variable with `_FILE` appended
(Docker secrets), then for secrets a systemd credential (`$CREDENTIALS_DIRECTORY/<key>` or `<section>.<key>`), then
`router.conf`, then the default. An empty value, or a placeholder such as `$CLIENT_KEY` that nothing has filled in,
counts as not set. Besides the names listed here every setting has the variable `ROUTER_<SECTION>_<KEY>`.

The file follows Python's configparser: `key = value` or `key: value`, keys in any case, comments on lines of their own
(`#` or `;`), an indented line continues the value above it. `%` has no special meaning. An unknown key or section is a
warning; a wrong value stops the start with exit code 2, and all mistakes are listed at once.

- Durations: a number and `ms`, `s`, `m`, `h` or `d`.
- Sizes: a number and `B`, `KB`, `MB`, `GB` or `TB`, counted in 1024s.
- Yes or no: `yes no true false on off 1 0 ya tidak`.
- Lists: items with commas between; `none` is the empty list.
- A relative path starts at the folder of `router.conf`.
- Sections `[rule:NAME]` are no settings but a language of their own: [rules](rules.md).
"""


def render_template() -> str:
    """The text of router.conf.template: what a user fills in first, then every default as a comment."""
    blocks = [_TEMPLATE_HEAD]
    for section in SECTIONS:
        indonesian, english = _SECTION_HELP[section]
        header = f"# [{section}]" if section.endswith(NAMED) else f"[{section}]"
        blocks.append(f"\n# {indonesian}\n# {english}\n{header}\n")
        blocks.extend(_template_entry(setting) for setting in SETTINGS if setting.section == section)
    return "".join((*blocks, _TEMPLATE_RULES))


def _template_entry(setting: Setting) -> str:
    facts = [each for each in (setting.allowed, setting.unit if not setting.allowed else "") if each]
    detail = f"# ({'; '.join(facts)})\n" if facts else ""
    mark = "" if setting.fill_in else "# "
    entry = f"{mark}{setting.key} = {setting.default}".rstrip()
    return f"\n# {setting.help_id}\n# {setting.help}\n{detail}{entry}\n"


@dataclass(frozen=True, slots=True)
class Listed:
    """One setting as it counts: its value written as in router.conf (a secret masked), and where it came from."""

    setting: Setting
    value: str
    source: str


def listed_settings(settings: Settings) -> list[tuple[str, list[Listed]]]:
    """Return every section by its name, with its settings as they count."""
    return [(name, _listing(settings, section, name)) for section in SECTIONS
            for name in settings.section_names(section)]


def render_config(settings: Settings) -> str:
    """Every value as it counts, with where it came from; secrets are masked, no line break at the end."""
    url = settings.satusehat.url
    lines = [f"# SATUSEHAT environment: {environment_name(url)} ({url})"]
    for name, listed in listed_settings(settings):
        lines += ["", f"[{name}]"]
        lines += [f"{f'{one.setting.key} = {one.value}'.rstrip():<60}  # {one.source}" for one in listed]
    return "\n".join(lines)


def _listing(settings: Settings, declared: str, name: str) -> list[Listed]:
    values = settings.section(name)
    return [Listed(setting, format_value(setting, getattr(values, setting.key)),
                   settings.source_of(f"{name}.{setting.key}")) for setting in SETTINGS if setting.section == declared]


def format_value(setting: Setting, value: object) -> str:
    """A value as it would be written in router.conf; a secret is masked, an empty one stays empty."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if setting.kind is Kind.DURATION and isinstance(value, float):
        return format_duration(value)
    if setting.kind is Kind.SIZE and isinstance(value, int):
        return format_size(value)
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    if isinstance(value, Secret | Path):
        return str(value)
    return str(value) or setting.default


def render_markdown() -> str:
    """The text of docs/settings.md."""
    blocks = [_MARKDOWN_HEAD]
    for section in SECTIONS:
        blocks.append(f"\n## [{section}]\n\n{_SECTION_HELP[section][1]} *{_SECTION_HELP[section][0]}*\n\n")
        blocks.append("| key | default | kind and limits | environment | meaning |\n|---|---|---|---|---|\n")
        blocks.extend(_markdown_row(setting) for setting in SETTINGS if setting.section == section)
    blocks.append("\n## Accepted but not used\n\nKeys of the official router and of forks, so that old files load.\n\n")
    blocks.append("| key | note |\n|---|---|\n")
    blocks.extend(f"| `{ignored.key}` | {ignored.note} |\n" for ignored in IGNORED)
    return "".join(blocks)


def _markdown_row(setting: Setting) -> str:
    default = f"`{setting.default}`" if setting.default else "required" if setting.required else ""
    limits = f"{setting.kind}: {setting.allowed}" if setting.allowed else str(setting.kind)
    names = tuple(name.replace(":", "_") for name in setting.env or setting.environment)
    variables = ", ".join(f"`{name}`" for name in names)
    meaning = f"{setting.help}<br>*{setting.help_id}*".replace("|", "\\|")
    return f"| `{setting.key}` | {default} | {limits} | {variables} | {meaning} |\n"
