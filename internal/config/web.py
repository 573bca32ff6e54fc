"""The sections about people who come in through HTTP: [http], [oidc] and [audit].

Read by `declarations`, which lists every section. Imports: declare, url, values. Changes when a setting of the web role
is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from internal.config.declare import (
    declare,
    declare_duration,
    declare_list,
    declare_number,
    declare_path,
    declare_secret,
    declare_size,
    declare_text,
)
from internal.config.url import normalise_base_url, parse_syslog_url
from internal.config.values import (
    Kind,
    Secret,
    parse_bool,
    parse_group,
    parse_header_value,
    parse_host_name,
    parse_ip_address,
)


@dataclass(frozen=True, kw_only=True)
class HttpSettings:
    """Section [http]: who may reach pages and API, and for how long."""

    certificate: Path = declare_path(  # noqa: RUF009 - an immutable value
        "", "Certificate (PEM, with its chain) for HTTPS; needed for any http_bind but this machine itself.",
        "Sertifikat (PEM, dengan rantainya) untuk HTTPS; wajib untuk http_bind selain komputer ini sendiri.")
    key: Path = declare_path(  # noqa: RUF009 - an immutable value
        "", "Private key of that certificate (PEM).", "Kunci privat sertifikat itu (PEM).")
    allow_plain_http: bool = declare(
        Kind.BOOL, parse_bool, "no", "Serve other machines without TLS: only behind a proxy that does TLS, or in a "
        "network where nobody can listen. Passwords and patient data travel readable.",
        "Layani komputer lain tanpa TLS: hanya di belakang proxy ber-TLS, atau di jaringan yang tidak bisa disadap. "
        "Kata sandi dan data pasien terkirim tanpa sandi.", allowed="yes, no")
    host_names: tuple[str, ...] = declare_list(
        parse_host_name, "", "Further host names (with a dot) under which people call the router.",
        "Nama host lain (yang bertitik) yang dipakai orang untuk membuka router.", "host names with commas between")
    trusted_proxies: tuple[str, ...] = declare_list(
        parse_ip_address, "", "Proxies whose X-Forwarded-For and X-Forwarded-Proto are believed.",
        "Proxy yang X-Forwarded-For dan X-Forwarded-Proto-nya dipercaya.", "IP addresses with commas between")
    session_idle: float = declare_duration(
        "1m", "1d", "30m", "A login ends after this long without use.",
        "Sesi masuk berakhir setelah selama ini tidak dipakai.")
    session_max: float = declare_duration(
        "10m", "7d", "12h", "A login ends after this long in any case.",
        "Sesi masuk berakhir setelah selama ini bagaimanapun juga.")
    open_metrics: bool = declare(
        Kind.BOOL, parse_bool, "no", "Let programs on this machine read /metrics without a key; not with a proxy here.",
        "Izinkan program di komputer ini membaca /metrics tanpa kunci; jangan bila ada proxy di sini.",
        allowed="yes, no")
    requests_per_minute: int = declare_number(
        30, 1000000, 1200, "Most requests per minute from one address.",
        "Permintaan terbanyak per menit dari satu alamat.")
    max_connections: int = declare_number(
        10, 10000, 400, "Most HTTP connections at the same time.", "Koneksi HTTP terbanyak pada saat yang sama.")
    picture_cache: int = declare_size(
        "1MB", "100GB", "512MB", "Disk space for small pictures of images; those not looked at for longest go first.",
        "Ruang disk untuk gambar kecil; yang paling lama tidak dilihat dihapus lebih dulu.")


@dataclass(frozen=True, kw_only=True)
class OidcSettings:
    """Section [oidc]: single sign-on through the hospital's own identity provider."""

    issuer: str = declare(
        Kind.URL, normalise_base_url, "", "OpenID Connect issuer; empty for none.",
        "Issuer OpenID Connect; kosong bila tidak ada.", allowed="https, or http for this machine")
    client_id: str = declare_text(
        parse_header_value, "", "Client ID of the router there.", "Client ID router di sana.")
    client_secret: Secret = declare_secret(  # noqa: RUF009 - an immutable value
        "Client secret that belongs to it.", "Client secret pasangannya.")
    public_url: str = declare(
        Kind.URL, normalise_base_url, "", "URL under which browsers reach this router; the provider sends them back "
        "to <this>/login/oidc/callback.",
        "URL router ini menurut peramban; penyedia mengembalikannya ke <ini>/login/oidc/callback.",
        allowed="https, or http for this machine")
    groups_claim: str = declare_text(
        parse_header_value, "groups", "Claim that lists a person's groups.", "Claim yang memuat grup seseorang.")
    viewer_groups: tuple[str, ...] = declare_list(
        parse_group, "", "Groups whose members may look.", "Grup yang anggotanya boleh melihat.",
        "names with commas between")
    operator_groups: tuple[str, ...] = declare_list(
        parse_group, "", "Groups whose members may act on studies.", "Grup yang anggotanya boleh menangani studi.",
        "names with commas between")
    admin_groups: tuple[str, ...] = declare_list(
        parse_group, "", "Groups whose members may change settings and users.",
        "Grup yang anggotanya boleh mengubah setelan dan pengguna.", "names with commas between")


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """Section [audit]: where the audit trail is sent beside the database."""

    syslog: str = declare_text(
        parse_syslog_url, "", "Audit record repository that gets DICOM audit messages by syslog; empty for none.",
        "Audit record repository penerima pesan audit DICOM lewat syslog; kosong bila tidak ada.",
        allowed="udp://host:514, tcp://host:601 or tls://host:6514")
    syslog_ca: Path = declare_path(  # noqa: RUF009 - an immutable value
        "", "CA certificate (PEM) of that repository; empty for the usual ones.",
        "Sertifikat CA (PEM) repository itu; kosong berarti yang umum.")
