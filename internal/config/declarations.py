"""Every setting of the router, declared once: key, kind, default, limits, help, environment names.

Flow: `loading` reads router.conf, environment and command line against these declarations and gives a `Settings`;
`rendering` prints template and documentation from them. Imports: errors, declare, url, values.
Changes when a setting is added: one field below; loading, `main.py config`, router.conf.template and docs follow.

A field has the name of its key. Those made by declare_duration are seconds, those made by declare_size bytes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from internal import errors
from internal.config.alerting import ALERT_SECTION, AlertSettings, MailSettings
from internal.config.declare import (
    NAMED,
    Setting,
    declare,
    declare_choice,
    declare_duration,
    declare_list,
    declare_number,
    declare_path,
    declare_secret,
    declare_size,
    declare_text,
)
from internal.config.lookups import LOOKUP_SECTION, LookupSettings
from internal.config.places import (
    DESTINATION_KINDS,
    DESTINATION_SECTIONS,
    RESERVED_NAMES,
    WATCH_SECTION,
    WatchSettings,
)
from internal.config.url import (
    normalise_base_url,
    parse_database_url,
    parse_http_url,
    parse_secret_url,
)
from internal.config.values import (
    Kind,
    Secret,
    parse_accession_rule,
    parse_ae_title,
    parse_bind_address,
    parse_bool,
    parse_commitment_caller,
    parse_day_hours,
    parse_destination_name,
    parse_fhir_id,
    parse_header_value,
    parse_path_suffix,
    parse_time_zone,
    parse_uid,
)
from internal.config.web import AuditSettings, HttpSettings, OidcSettings


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake or remark: where it stands (`origin`, with the line of a file), which setting, what, what to do."""

    origin: str
    setting: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.origin}: " if self.origin else ""
        what = f"{self.setting} {self.message}" if self.setting else self.message
        return f"{where}{what}{f' ({self.hint})' if self.hint else ''}"


class ConfigurationInvalid(errors.ConfigurationInvalid):
    """The configuration is not valid: `problems` has every mistake found, `warnings` what else was noticed."""

    def __init__(self, problems: Sequence[Problem], warnings: Sequence[Problem] = ()) -> None:
        self.problems = tuple(problems)
        self.warnings = tuple(warnings)
        super().__init__("\n".join(str(problem) for problem in self.problems))


_AE = "1 to 16 characters"


@dataclass(frozen=True, kw_only=True)
class SatusehatSettings:
    """Section [satusehat]: the official router's keys, and how studies go to the platform."""

    organization_id: str = declare_text(
        parse_fhir_id, "", "Organization ID of the hospital in SATUSEHAT.",
        "ID organisasi rumah sakit di SATUSEHAT.",
        env=("ORG_ID", "ORGANIZATION_ID", "SS_ORG_ID"), required=True, fill_in=True)
    client_key: Secret = declare_secret(  # noqa: RUF009 - an immutable value
        "Client key (client_id) from the SATUSEHAT developer portal.",
        "Client key (client_id) dari portal pengembang SATUSEHAT.",
        env=("CLIENT", "CLIENT_KEY", "SS_CLIENT_ID"), required=True, fill_in=True)
    secret_key: Secret = declare_secret(  # noqa: RUF009 - an immutable value
        "Secret key (client_secret) that belongs to the client key.",
        "Secret key (client_secret) pasangan client key.",
        env=("SECRET", "SECRET_KEY", "SS_CLIENT_SECRET"), required=True, fill_in=True)
    url: str = declare(
        Kind.URL, normalise_base_url, "https://api-satusehat-dev.dto.kemkes.go.id",
        "Base URL of SATUSEHAT, with or without https://. Staging: api-satusehat-stg.dto.kemkes.go.id, "
        "production: api-satusehat.kemkes.go.id.",
        "URL dasar SATUSEHAT, dengan atau tanpa https://. Staging: api-satusehat-stg.dto.kemkes.go.id, "
        "produksi: api-satusehat.kemkes.go.id.",
        allowed="https, or http for this machine", env=("URL", "API_URL"), fill_in=True)
    dicom_pathsuffix: str = declare_text(
        parse_path_suffix, "/dicom/v1/dicomWeb/studies", "Path of the DICOM store below url.",
        "Path penyimpanan DICOM di bawah url.")
    fhir_pathsuffix: str = declare_text(
        parse_path_suffix, "/fhir-r4/v1", "Path of the FHIR API below url.", "Path API FHIR di bawah url.")
    auth_pathsuffix: str = declare_text(
        parse_path_suffix, "/oauth2/v1", "Path of the OAuth2 service below url.",
        "Path layanan OAuth2 di bawah url.")
    tz_name: str = declare_text(
        parse_time_zone, "Asia/Jakarta", "Time zone of devices that do not state one.",
        "Zona waktu alat yang tidak menyebutkannya.", allowed="IANA name, or WIB, WITA, WIT")
    ae_title: str = declare_text(
        parse_ae_title, "DCMROUTER", "AE title of this router; devices must call it by this name.",
        "AE title router ini; alat harus memanggil dengan nama ini.", allowed=_AE, env=("AE_TITLE",))
    dicom_port: int = declare_number(
        0, 65535, 11112, "TCP port for DICOM; 0 takes any free one.",
        "Port TCP untuk DICOM; 0 memakai port bebas mana pun.")
    http_port: int = declare_number(
        0, 65535, 8080, "TCP port for pages and API; 0 takes any free one.",
        "Port TCP untuk halaman dan API; 0 memakai port bebas mana pun.")
    mroc_client_url: str = declare(
        Kind.URL, parse_http_url, "", "URL of an MROC client beside the router; empty for none.",
        "URL klien MROC di samping router; kosong bila tidak ada.", allowed="http or https")
    calling_ae_title: str = declare_text(
        parse_ae_title, "", "AE title the router uses when it calls others; empty for ae_title.",
        "AE title router saat memanggil pihak lain; kosong berarti ae_title.", allowed=_AE)
    webhook_url: Secret = declare_secret(  # noqa: RUF009 - an immutable value
        "URL told about each study that was delivered or held; empty for none.",
        "URL yang diberi tahu setiap studi terkirim atau tertahan; kosong bila tidak ada.",
        parse_secret_url, allowed="http or https", env=("WEBHOOK_URL",))
    webhook_user: str = declare_text(
        parse_header_value, "", "User name for the webhook (HTTP Basic).", "Nama pengguna webhook (HTTP Basic).",
        env=("WEBHOOK_USER",))
    webhook_password: Secret = declare_secret(  # noqa: RUF009 - an immutable value
        "Password for the webhook.", "Kata sandi webhook.", env=("WEBHOOK_PASSWORD",))
    webhook_format: str = declare_choice(
        "simple|imagingstudy|reply", "simple",
        "What the webhook gets: a short status, the ImagingStudy, or its head with SATUSEHAT's id.",
        "Isi webhook: status singkat, ImagingStudy, atau bagian awalnya dengan id SATUSEHAT.", env=("WEBHOOK_FORMAT",))
    alias_file: Path = declare_path(  # noqa: RUF009 - an immutable value
        "", "CSV file of accession numbers: what a modality sends, what it means; empty for none.",
        "Berkas CSV accession number: yang dikirim alat, dan maksudnya; kosong bila tidak ada.")
    accession_rules: tuple[str, ...] = declare_list(
        parse_accession_rule, "", "Corrections of accession numbers that may be made without asking: alias, blanks, "
        "case, zeros, cut, candidate. Only with exactly one order and a second identifier that agrees.",
        "Koreksi accession number yang boleh tanpa bertanya: alias, blanks, case, zeros, cut, candidate. Hanya bila "
        "tepat satu order dan identitas kedua cocok.", "names with commas between, or empty")
    order_window: float = declare_duration(
        "1d", "3650d", "30d", "How far an order's date may be from the study's; hospitals reuse accession numbers.",
        "Selisih tanggal terbesar antara order dan studi; nomor akses bisa terpakai ulang.")
    index_lag: float = declare_duration(
        "0s", "1h", "60s", "How long a new resource may stay invisible to the platform's search.",
        "Berapa lama sumber daya baru bisa belum terlihat pada pencarian platform.")
    workers: int = declare_number(
        1, 32, 4, "Studies sent to the platform at the same time.", "Jumlah studi yang dikirim bersamaan.")
    push_parallel: int = declare_number(
        1, 64, 16, "Images sent at the same time, over all studies; fewer after SATUSEHAT asks to slow down.",
        "Jumlah citra yang dikirim bersamaan dari semua studi; berkurang bila SATUSEHAT meminta pelan.")
    fhir_per_minute: int = declare_number(
        20, 100000, 120,
        "Most FHIR requests per minute and node; a fifth of them may look for orders of waiting studies.",
        "Permintaan FHIR terbanyak per menit tiap node; seperlimanya boleh mencari order studi yang menunggu.")
    bandwidth: int = declare_size(
        "0", "10GB", "0", "Most bytes per second and node for images (at least 64 KB); 0 for no limit.",
        "Byte per detik terbanyak tiap node untuk citra (paling sedikit 64 KB); 0 tanpa batas.")
    send_hours: str = declare_text(
        parse_day_hours, "", "Hours for sending studies, in tz_name's time; urgent ones always go. Empty: always.",
        "Jam pengiriman studi menurut waktu tz_name; yang mendesak selalu dikirim. Kosong: selalu.",
        allowed="HH:MM-HH:MM such as 19:00-06:00")
    user_agent: str = declare_text(
        parse_header_value, "satusehat-dicom-router/2.0", "User-Agent header of every request.",
        "Header User-Agent setiap permintaan.")
    skip_sop_classes: tuple[str, ...] = declare_list(
        parse_uid, "", "SOP Class UIDs that are kept here but not sent.",
        "SOP Class UID yang disimpan di sini tetapi tidak dikirim.", "UIDs with commas between")
    confirm_images: bool = declare(
        Kind.BOOL, parse_bool, "yes",
        "Whether each image is asked for (HEAD) once after its push, and pushed again if SATUSEHAT does not have it.",
        "Apakah tiap citra ditanyakan (HEAD) sekali setelah dikirim, dan dikirim lagi bila SATUSEHAT tak memilikinya.",
        allowed="yes, no")
    request_timeout: float = declare_duration(
        "1s", "1h", "60s", "How long one request may stand still before it is given up.",
        "Berapa lama satu permintaan boleh diam sebelum dihentikan.")


@dataclass(frozen=True, kw_only=True)
class RouterSettings:
    """Section [router]: where everything lies, when a study is complete, when something is tried again."""

    data_dir: Path = declare_path(  # noqa: RUF009 - an immutable value
        "data", "Folder for everything the router writes; a relative path starts at router.conf's folder.",
        "Folder semua data router; path relatif dihitung dari folder router.conf.")
    default_send_to: tuple[str, ...] = declare_list(
        parse_destination_name, "satusehat",
        "Destinations of a study that no [rule:NAME] sends anywhere: satusehat and names of destinations.",
        "Tujuan studi yang tidak diarahkan oleh [rule:NAME] mana pun: satusehat dan nama tujuan.",
        "names with commas between, or none", env=("ROUTER_ROUTER_SEND_TO",), aliases=("send_to",))
    pseudonym_key: Secret = declare_secret(  # noqa: RUF009 - an immutable value
        "Key for pseudonyms, new UIDs and shifted dates; empty: one is made in data_dir. Several nodes need the same.",
        "Kunci untuk pseudonim, UID baru dan tanggal geser; kosong: dibuat di data_dir. Beberapa node harus sama.")
    settle: float = declare_duration(
        "0s", "7d", "60s", "A study counts as complete after this long without a new image.",
        "Studi dianggap lengkap setelah selama ini tanpa gambar baru.")
    settle_cr_dx: float = declare_duration(
        "0s", "7d", "20s", "The same for CR and DX.", "Hal yang sama untuk CR dan DX.")
    settle_release_min: float = declare_duration(
        "0s", "7d", "10s", "Shortest wait after the device released its association.",
        "Waktu tunggu terpendek setelah alat menutup asosiasi.")
    settle_max: float = declare_duration(
        "0s", "7d", "30m", "Longest wait for a study that keeps growing.",
        "Waktu tunggu terlama untuk studi yang terus bertambah.")
    patience: float = declare_duration(
        "1s", "3650d", "90d", "How long a study is tried or waits for its order before a person is asked.",
        "Berapa lama studi dicoba atau menunggu order sebelum petugas diminta.")
    escalate: float = declare_duration(
        "1m", "365d", "1d", "A study that waits longer than this raises an alarm once (event, webhook).",
        "Studi yang menunggu lebih lama dari ini memunculkan peringatan satu kali (event, webhook).")
    order_poll_min: float = declare_duration(
        "100ms", "1d", "30s", "First pause before an order is looked for again.",
        "Jeda pertama sebelum order dicari lagi.")
    order_poll_max: float = declare_duration(
        "100ms", "7d", "15m", "Longest pause before an order is looked for again.",
        "Jeda terlama sebelum order dicari lagi.")
    retry_min: float = declare_duration(
        "100ms", "1h", "5s", "First pause after a fault.", "Jeda pertama setelah gangguan.")
    retry_max: float = declare_duration(
        "100ms", "1d", "15m", "Longest pause after a fault.", "Jeda terlama setelah gangguan.")
    reregister_max: float = declare_duration(
        "0s", "1d", "10m", "Longest pause before the ImagingStudy of a growing study is updated again.",
        "Jeda terlama sebelum ImagingStudy dari studi yang bertambah diperbarui lagi.")
    parse_metadata: bool = declare(
        Kind.BOOL, parse_bool, "yes", "Read every header in full once its study settled, in the background.",
        "Baca setiap header lengkap di latar belakang setelah studinya lengkap.", allowed="yes, no")
    http_bind: str = declare_text(
        parse_bind_address, "127.0.0.1", "Address for pages and API; all for every address of this machine.",
        "Alamat untuk halaman dan API; all untuk semua alamat komputer ini.", allowed="IP address, localhost or all")
    language: str = declare_choice("id|en", "id", "Language of the pages.", "Bahasa halaman.")
    log_format: str = declare_choice("text|json", "text", "Form of the log lines.", "Bentuk baris log.")

    @property
    def send_to(self) -> tuple[str, ...]:
        """`default_send_to` by its older name."""
        return self.default_send_to


@dataclass(frozen=True, kw_only=True)
class SpoolSettings:
    """Section [spool]: how images are kept."""

    fsync: bool = declare(
        Kind.BOOL, parse_bool, "yes", "Write each image to the disk before it is acknowledged; no is for tests only.",
        "Tulis setiap gambar ke disk sebelum dijawab sukses; no hanya untuk uji coba.", allowed="yes, no")
    min_free: int = declare_size(
        "0", "1000TB", "2GB", "With less free space than this, images are refused for the time being.",
        "Bila ruang kosong kurang dari ini, gambar ditolak untuk sementara.")
    purge: str = declare_choice(
        "confirmed|never", "confirmed",
        "What may be removed: images confirmed at every destination and older than keep, or nothing.",
        "Yang boleh dihapus: gambar yang terkonfirmasi di semua tujuan dan lebih tua dari keep, atau tidak ada.")
    keep: float = declare_duration(
        "0s", "3650d", "30d", "How long confirmed images are kept after the last one of their study came.",
        "Berapa lama gambar terkonfirmasi disimpan setelah gambar terakhir studinya datang.")
    low_space: int = declare_size(
        "0", "1000TB", "5GB", "With less free space than this, confirmed images go before keep, oldest first.",
        "Bila ruang kosong kurang dari ini, gambar terkonfirmasi dihapus sebelum keep, dari yang tertua.")
    purge_unverified: bool = declare(
        Kind.BOOL, parse_bool, "no", "Whether images that were at the destination before count as confirmed.",
        "Apakah gambar yang sudah ada di tujuan sebelumnya dihitung terkonfirmasi.", allowed="yes, no")


@dataclass(frozen=True, kw_only=True)
class DicomSettings:
    """Section [dicom]: the receiver and its limits."""

    dicom_bind: str = declare_text(
        parse_bind_address, "all", "Address for DICOM; all for every address of this machine.",
        "Alamat untuk DICOM; all untuk semua alamat komputer ini.", allowed="IP address, localhost or all")
    called_aets: tuple[str, ...] = declare_list(
        parse_ae_title, "", "Further AE titles under which devices may call.",
        "AE title lain yang boleh dipakai alat untuk memanggil.", "AE titles with commas between")
    unknown_callers: str = declare_choice(
        "accept|hold|refuse", "accept", "Devices that are not in the list: accept, keep without sending, or refuse.",
        "Alat yang tidak terdaftar: terima, simpan tanpa mengirim, atau tolak.")
    commitment_callers: tuple[str, ...] = declare_list(
        parse_commitment_caller, "",
        "Devices that may ask for storage commitment, and so delete their own images, with the address of the answer.",
        "Alat yang boleh meminta storage commitment, lalu menghapus citranya sendiri, dengan alamat jawabannya.",
        "AET@HOST:PORT with commas between")
    commitment_same_association: tuple[str, ...] = declare_list(
        parse_ae_title, "",
        "Those of commitment_callers that keep the association open for the answer; else it comes on a new one.",
        "Alat dari commitment_callers yang menunggu jawaban di asosiasi yang sama; selain itu di asosiasi baru.",
        "AE titles with commas between")
    commitment_policy: str = declare_choice(
        "stored|delivered", "stored",
        "What a commitment promises: the image is stored here, or SATUSEHAT has confirmed it.",
        "Arti komitmen: citra tersimpan di sini, atau SATUSEHAT sudah mengonfirmasinya.")
    commit_keep: float = declare_duration(
        "1d", "3650d", "90d",
        "Committed images are kept at least this long, and until every destination has confirmed.",
        "Citra yang dijamin disimpan paling sedikit selama ini, dan sampai setiap tujuan mengonfirmasi.")
    tls_port: int = declare_number(
        0, 65535, 0, "TCP port for DICOM over TLS beside dicom_port, usually 2762; 0 for none.",
        "Port TCP untuk DICOM melalui TLS di samping dicom_port, biasanya 2762; 0 bila tidak ada.")
    tls_certificate: Path = declare_path(  # noqa: RUF009 - an immutable value
        "", "Certificate of this router (PEM); empty for the one that tls-init writes.",
        "Sertifikat router ini (PEM); kosong berarti yang ditulis tls-init.")
    tls_key: Path = declare_path(  # noqa: RUF009 - an immutable value
        "", "Private key of that certificate (PEM).", "Kunci privat sertifikat itu (PEM).")
    tls_client_ca: Path = declare_path(  # noqa: RUF009 - an immutable value
        "", "Only devices with a certificate of this CA (PEM) may use tls_port; empty for any device.",
        "Hanya alat dengan sertifikat dari CA ini (PEM) yang boleh memakai tls_port; kosong berarti alat mana pun.")
    children: int = declare_number(
        0, 64, 0, "Receiving processes; 0 chooses by the number of processors.",
        "Jumlah proses penerima; 0 mengikuti jumlah prosesor.")
    max_associations: int = declare_number(
        1, 10000, 400, "Associations at the same time.", "Jumlah asosiasi bersamaan.")
    max_associations_per_address: int = declare_number(
        1, 10000, 250, "The same from one address.", "Hal yang sama dari satu alamat.")
    max_pdu: int = declare_size(
        "16KB", "1MB", "128KB", "Largest PDU offered to devices; 128 KB was fastest with several senders.",
        "PDU terbesar yang ditawarkan ke alat; 128 KB tercepat dengan beberapa pengirim.")
    max_object: int = declare_size(
        "1MB", "1TB", "8GB", "Largest single image that is accepted.", "Gambar tunggal terbesar yang diterima.")
    associate_timeout: float = declare_duration(
        "100ms", "5m", "10s", "Time for a new connection to ask for an association.",
        "Waktu bagi koneksi baru untuk meminta asosiasi.")
    idle_timeout: float = declare_duration(
        "100ms", "1d", "120s", "An association that is silent this long between messages is closed.",
        "Asosiasi yang diam selama ini di antara pesan akan ditutup.")
    pdu_timeout: float = declare_duration(
        "100ms", "1h", "30s",
        "Time in which one PDU that has begun must be complete, besides what it takes at min_rate (0: 1 KB/s).",
        "Waktu sampai satu PDU yang sudah dimulai harus lengkap, di luar lamanya pada laju min_rate (0: 1 KB/s).")
    min_rate: int = declare_size(
        "0", "1GB", "1KB", "Slowest transfer that is put up with, per second; 0 for no limit.",
        "Laju kirim terendah yang diterima, per detik; 0 tanpa batas.")


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings:
    """Section [database]: where index and jobs are kept."""

    url: Secret = declare_secret(  # noqa: RUF009 - an immutable value
        "postgresql://user:password@host/name; empty for SQLite in data_dir.",
        "postgresql://pengguna:sandi@host/nama; kosong untuk SQLite di data_dir.",
        parse_database_url, allowed="postgresql://... or empty")


@dataclass(frozen=True, slots=True)
class Ignored:
    """A key of the official router or a fork that is accepted and not used; `key` may end in `*`."""

    key: str
    note: str


SECTIONS: Mapping[str, type[Any]] = MappingProxyType({
    "satusehat": SatusehatSettings, "router": RouterSettings, "spool": SpoolSettings, "dicom": DicomSettings,
    "database": DatabaseSettings, "http": HttpSettings, "oidc": OidcSettings, "audit": AuditSettings,
    "mail": MailSettings, **DESTINATION_SECTIONS, WATCH_SECTION: WatchSettings,
    LOOKUP_SECTION: LookupSettings, ALERT_SECTION: AlertSettings,
})  # fmt: skip

SETTINGS: tuple[Setting, ...] = tuple(
    Setting(section=section, key=each.name, **each.metadata["setting"])
    for section, declared in SECTIONS.items() for each in dataclasses.fields(declared))
"""Every setting in the order of template and documentation; those of [folder:NAME] stand for any number of folders."""

SINGLE_SECTIONS = tuple(section for section in SECTIONS if not section.endswith(NAMED))
"""The sections that stand there once; all others are patterns such as folder:NAME."""

#: Named sections that cannot be: other lanes have these names.
RESERVED = frozenset(f"{kind}:{name}" for kind in DESTINATION_KINDS for name in RESERVED_NAMES)


def declared_section(section: str) -> str | None:
    """The section as declared: itself, the pattern of a named one (`folder:NAME` for `folder:pacs`), None if neither.

    A name is 1 to 32 of a-z, 0-9, - and _.
    """
    if section in SINGLE_SECTIONS:
        return section
    kind, _, name = section.partition(":")
    pattern = f"{kind}{NAMED}"
    return pattern if pattern in SECTIONS and re.fullmatch(r"[a-z0-9_-]{1,32}", name) else None


_FORK = "belongs to another router"
IGNORED: tuple[Ignored, ...] = (
    Ignored("dcm_dir", "images are kept in [router] data_dir and are never purged at start"),
    Ignored("encrypt", _FORK), Ignored("flask_port", _FORK), Ignored("inotify_dir", _FORK),
    Ignored("mongodb_url", _FORK), Ignored("pacs_db_name", _FORK), Ignored("whatsapp_provider", _FORK),
    Ignored("firebase_*", _FORK), Ignored("halosis_*", _FORK),
)  # fmt: skip
"""Keys accepted in [satusehat] with a note. Source: facts, satusehat.md 4.1."""
