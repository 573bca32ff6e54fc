"""Settings of the look-ups that rules may use: services of the hospital that answer one question by HTTP.

Flow: `declarations` lists the section. Imports: declare, url, values.
Changes when a look-up gets another setting; a field has the name of its key.
"""
# ruff: noqa: RUF009 - every default is made by a builder of dataclass fields

from __future__ import annotations

from dataclasses import dataclass

from internal.config.declare import declare, declare_duration, declare_secret, declare_text
from internal.config.url import parse_service_url
from internal.config.values import Kind, Secret, parse_bool, parse_header_value

LOOKUP_SECTION = "lookup:NAME"


@dataclass(frozen=True, kw_only=True)
class LookupSettings:
    """A section [lookup:NAME]: POST {"key": "..."} is answered by {"value": "..."} or 404."""

    url: str = declare(
        Kind.URL, parse_service_url, "", 'Address that gets {"key": "..."} by POST, answers {"value": "..."} or 404.',
        'Alamat yang menerima {"key": "..."} lewat POST dan menjawab {"value": "..."}, atau 404.',
        allowed="https or http", required=True)
    token: Secret = declare_secret(
        "Sent as Authorization: Bearer.", "Dikirim sebagai Authorization: Bearer.")
    header: str = declare_text(
        parse_header_value, "Authorization", "Header that carries the token.", "Header yang membawa token.")
    timeout: float = declare_duration(
        "100ms", "60s", "5s", "How long an answer may take.", "Batas waktu jawaban.")
    cache: float = declare_duration(
        "0s", "30d", "10m", "How long an answer is used again.", "Berapa lama jawaban dipakai lagi.")
    plain_http: bool = declare(
        Kind.BOOL, parse_bool, "no", "Allow http to another machine.", "Izinkan http ke mesin lain.",
        allowed="yes, no")
