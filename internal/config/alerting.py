"""Settings of who is alerted of what: section [mail] and the rules [alert:NAME].

Flow: registered in `declarations`. Imports: declare, url, values. Changes when alerts can watch or tell something new.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from internal.config.declare import (
    declare,
    declare_choice,
    declare_duration,
    declare_list,
    declare_number,
    declare_secret,
    declare_text,
)
from internal.config.url import parse_secret_url
from internal.config.values import Kind, Secret, WrongValue, nearest, parse_ae_title, parse_header_value

ALERT_SECTION = "alert:NAME"
ALERT_CONDITIONS = ("device-silent", "waiting", "lane-down", "disk", "credentials", "clock", "set-aside")
"""Words of internal.alerts.Condition, which a test compares."""


def parse_condition(text: str) -> str:
    """The name of something that can be watched. Raises WrongValue."""
    if text not in ALERT_CONDITIONS:
        likely = nearest(text, ALERT_CONDITIONS)
        raise WrongValue(f"did you mean {likely}?" if likely else f"is not one of {', '.join(ALERT_CONDITIONS)}")
    return text


def parse_mail_address(text: str) -> str:
    """An address such as it@rs.example: ASCII, no display name. Source: RFC 5321 4.1.2. Raises WrongValue."""
    if len(text) > 254 or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]*)", text):
        raise WrongValue("is not an e-mail address such as it@rs.example")
    return text


def parse_host(text: str) -> str:
    """A host name or an IP address. Raises WrongValue."""
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,253}", text):
        raise WrongValue("is not a host name or an IP address")
    return text


@dataclass(frozen=True, kw_only=True)
class MailSettings:
    """Section [mail]: the mail server that takes alerts."""

    host: str = declare(
        Kind.STR, parse_host, "", "Mail server (SMTP) for alerts; empty for none.",
        "Server surel (SMTP) untuk peringatan; kosong bila tidak ada.")
    port: int = declare_number(
        1, 65535, 587, "Its port: 587 with starttls, 465 with tls, 25 with none.",
        "Port-nya: 587 dengan starttls, 465 dengan tls, 25 dengan none.")
    security: str = declare_choice(
        "starttls|tls|none", "starttls", "How the connection is protected; none only inside the hospital's network.",
        "Pengaman sambungan; none hanya di dalam jaringan rumah sakit.")
    user: str = declare_text(
        parse_header_value, "", "User name at the mail server; empty for no login.",
        "Nama pengguna di server surel; kosong bila tanpa login.")
    password: Secret = declare_secret(  # noqa: RUF009 - an immutable value
        "Password at the mail server.", "Kata sandi di server surel.")
    sender: str = declare(
        Kind.STR, parse_mail_address, "", "Sender address of alerts; empty for the user name if that is an address.",
        "Alamat pengirim peringatan; kosong berarti nama pengguna bila berupa alamat.")


@dataclass(frozen=True, kw_only=True)
class AlertSettings:
    """A section [alert:NAME]: what is watched, and who is told. Never patient data."""

    when: tuple[str, ...] = declare_list(
        parse_condition, ", ".join(ALERT_CONDITIONS), "What is watched.", "Yang diawasi.",
        f"{', '.join(ALERT_CONDITIONS)}")
    devices: tuple[str, ...] = declare_list(
        parse_ae_title, "", "AE titles for device-silent; empty for every device that has usual hours.",
        "AE title untuk device-silent; kosong berarti semua alat yang punya jam kebiasaan.",
        "AE titles with commas between, or empty")
    silent_hours: int = declare_number(
        1, 1000, 4, "A device is silent after this many of its own usual hours without an image.",
        "Alat dianggap diam setelah sekian jam kebiasaannya sendiri tanpa citra.")
    waiting: float = declare_duration(
        "1m", "365d", "1d", "Alert when a study has been waiting for its order for longer than this.",
        "Peringatan bila ada studi menunggu order lebih lama dari ini.")
    lane_down: float = declare_duration(
        "1m", "30d", "15m", "Alert when a destination has not answered for longer than this.",
        "Peringatan bila suatu tujuan tidak menjawab lebih lama dari ini.")
    disk_days: int = declare_number(
        1, 3650, 7, "Alert when the disk is full in this many days at the rate of the last 7 days.",
        "Peringatan bila disk penuh dalam sekian hari menurut laju 7 hari terakhir.")
    clock_off: float = declare_duration(
        "2s", "1d", "60s", "Alert when this machine's clock differs from SATUSEHAT's by more than this.",
        "Peringatan bila jam komputer ini berbeda dari SATUSEHAT lebih dari ini.")
    repeat: float = declare_duration(
        "10m", "30d", "12h", "An alert that goes on is sent again after this long, until somebody acknowledges it.",
        "Peringatan yang berlanjut dikirim lagi setelah selama ini, sampai ada yang menandai sudah tahu.")
    mail_to: tuple[str, ...] = declare_list(
        parse_mail_address, "", "E-mail addresses that are told; needs [mail].",
        "Alamat surel yang diberi tahu; perlu [mail].", "addresses with commas between, or empty")
    webhook_url: Secret = declare_secret(  # noqa: RUF009 - an immutable value
        "URL that is told by POST; empty for none. http only inside the hospital's network.",
        "URL yang diberi tahu dengan POST; kosong bila tidak ada. http hanya di dalam jaringan rumah sakit.",
        parse_secret_url, allowed="http or https")
    webhook_type: str = declare_choice(
        "json|form", "json", "How webhook_body is sent: JSON, or a form (name=value&name=value).",
        "Cara webhook_body dikirim: JSON, atau formulir (nama=nilai&nama=nilai).")
    webhook_body: Secret = declare_secret(  # noqa: RUF009 - an immutable value
        'Body with {text} and other placeholders; empty for {"text": "{text}"}. Masked: some services want keys here.',
        'Isi dengan {text} dan penanda lain; kosong berarti {"text": "{text}"}. Disamarkan karena bisa berisi kunci.')
    webhook_authorization: Secret = declare_secret(  # noqa: RUF009 - an immutable value
        "Authorization header of the webhook, such as Bearer followed by a token; empty for none.",
        "Header Authorization webhook, misalnya Bearer diikuti token; kosong bila tidak ada.")
