"""Settings of the places that studies go to beside the platform, and of folders that are watched for images.

Flow: `declarations` lists these sections. Imports: declare, url, values.
Changes when a destination or a way in gets another setting; a field has the name of its key.
"""
# ruff: noqa: RUF009 - every default is made by a builder of dataclass fields

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internal.config.declare import (
    declare,
    declare_choice,
    declare_duration,
    declare_number,
    declare_path,
    declare_secret,
    declare_size,
    declare_text,
)
from internal.config.url import parse_service_url
from internal.config.values import (
    Kind,
    Secret,
    parse_ae_title,
    parse_bool,
    parse_destination_name,
    parse_header_value,
    parse_host,
    parse_path_template,
)

FOLDER_SECTION = "folder:NAME"
WATCH_SECTION = "watch:NAME"
#: Names that other lanes of the router have.
RESERVED_NAMES = frozenset({"satusehat", "webhook", "mroc"})

_TEMPLATE = "{accession}/{study}/{sop}.dcm"
_FIELDS = ("parts in braces: accession, study, series, sop, modality, date, year, month, day, calling; "
           "sop must be among them")


def _yes_no(default: str, help_en: str, help_id: str) -> Any:
    return declare(Kind.BOOL, parse_bool, default, help_en, help_id, allowed="yes, no")


def _template(help_en: str, help_id: str) -> Any:
    return declare_text(parse_path_template, _TEMPLATE, help_en, help_id, allowed=_FIELDS)


def _late() -> Any:
    return declare_choice(
        "all|new|never", "new", "What goes when images come after the study was delivered: all of it again, the new "
        "ones, nothing.", "Yang dikirim bila gambar datang setelah studi terkirim: semua lagi, yang baru, tidak ada.")


def _late_cutoff() -> Any:
    return declare_duration(
        "0s", "3650d", "0s", "From this long after the delivery on, late_after_cutoff counts instead; 0s for never.",
        "Sejak selama ini setelah terkirim, yang berlaku late_after_cutoff; 0s berarti tidak pernah.")


def _late_after_cutoff() -> Any:
    return declare_choice(
        "all|new|never", "new", "The same as late, for images that come after the cut-off.",
        "Seperti late, untuk gambar yang datang setelah batas itu.")


def _failover_to() -> Any:
    return declare_text(
        parse_destination_name, "", "Destination that stands in while this one is dead; empty for none.",
        "Tujuan pengganti selama tujuan ini mati; kosong bila tidak ada.", allowed="name of another destination")


def _failover_after() -> Any:
    return declare_duration(
        "1s", "365d", "10m", "How long it must be dead before the other one stands in.",
        "Berapa lama tujuan ini mati sebelum digantikan.")


def _plain_http() -> Any:
    return _yes_no("no", "Allow http, without TLS, to another machine: images and passwords travel in the clear.",
                   "Izinkan http tanpa TLS ke komputer lain: citra dan sandi berjalan tanpa enkripsi.")


def _parallel(most: int, default: int) -> Any:
    return declare_number(1, most, default, "Studies sent there at the same time.",
                          "Jumlah studi yang dikirim ke sana bersamaan.")


def _timeout(default: str) -> Any:
    return declare_duration("1s", "1h", default, "How long a request or a transfer may stand still.",
                            "Berapa lama permintaan atau pengiriman boleh diam.")


def _ca() -> Any:
    return declare_path("", "Certificates (PEM) that its certificate must come from; empty for the usual authorities.",
                        "Sertifikat (PEM) penerbit sertifikatnya; kosong berarti otoritas yang umum.")


def _certificate() -> Any:
    return declare_path("", "Our client certificate (PEM); empty for none.",
                        "Sertifikat klien kita (PEM); kosong bila tidak ada.")


def _key() -> Any:
    return declare_path("", "Private key of that certificate (PEM).", "Kunci privat sertifikat itu (PEM).")


@dataclass(frozen=True, kw_only=True)
class FolderSettings:
    """A section [folder:NAME]: one folder that studies can be sent to."""

    path: Path = declare_path(
        "", "Folder that gets a copy of each study sent to NAME.",
        "Folder yang menerima salinan setiap studi yang dikirim ke NAME.", required=True)
    template: str = _template("Where an image lies below path.", "Letak sebuah citra di bawah path.")
    late: str = _late()
    late_cutoff: float = _late_cutoff()
    late_after_cutoff: str = _late_after_cutoff()
    failover_to: str = _failover_to()
    failover_after: float = _failover_after()


@dataclass(frozen=True, kw_only=True)
class DimseSettings:
    """A section [dimse:NAME]: a DICOM node that gets studies by C-STORE."""

    host: str = declare_text(parse_host, "", "Name or address of the node.", "Nama atau alamat node itu.",
                             required=True)
    port: int = declare_number(1, 65535, 104, "Its TCP port.", "Port TCP-nya.")
    ae_title: str = declare_text(parse_ae_title, "", "Its AE title.", "AE title-nya.", allowed="1 to 16 characters",
                                 required=True)
    calling_ae_title: str = declare_text(
        parse_ae_title, "", "AE title under which the router calls it; empty for that of [satusehat].",
        "AE title router saat memanggilnya; kosong berarti yang di [satusehat].", allowed="1 to 16 characters")
    pass_calling: bool = _yes_no(
        "no", "Call it under the AE title of the device that sent the image.",
        "Panggil dengan AE title alat yang mengirim citra itu.")
    associations: int = declare_number(
        1, 16, 2, "Associations at the same time, one study on each.",
        "Jumlah asosiasi bersamaan, satu studi di masing-masing.")
    transcode: bool = _yes_no(
        "yes", "Decompress images of which it does not accept the encoding; no pixel value changes.",
        "Dekompresi citra yang pengodeannya tidak diterima; nilai piksel tidak berubah.")
    commitment: bool = _yes_no(
        "no", "Ask for storage commitment; the study is done only when all images are committed.",
        "Minta storage commitment; studi selesai hanya bila semua citra dijamin.")
    commitment_timeout: float = declare_duration(
        "10s", "30d", "1h", "How long to wait for the answer before asking again.",
        "Berapa lama menunggu jawabannya sebelum meminta lagi.")
    tls: bool = _yes_no("no", "Speak TLS with it.", "Pakai TLS dengannya.")
    tls_ca: Path = _ca()
    tls_name: str = declare_text(parse_host, "", "Name that its certificate must have; empty for host.",
                                 "Nama yang harus ada di sertifikatnya; kosong berarti host.")
    tls_certificate: Path = _certificate()
    tls_key: Path = _key()
    timeout: float = _timeout("60s")
    late: str = _late()
    late_cutoff: float = _late_cutoff()
    late_after_cutoff: str = _late_after_cutoff()
    failover_to: str = _failover_to()
    failover_after: float = _failover_after()


@dataclass(frozen=True, kw_only=True)
class DicomwebSettings:
    """A section [dicomweb:NAME]: a server that gets studies by STOW-RS."""

    url: str = declare(
        Kind.URL, parse_service_url, "", "Base URL of its DICOMweb service; /studies is added.",
        "URL dasar layanan DICOMweb-nya; ditambah /studies.", allowed="https or http", required=True)
    plain_http: bool = _plain_http()
    auth: str = declare_choice("none|basic|bearer|oauth2", "none", "How we say who we are.",
                               "Cara kita memperkenalkan diri.")
    user: str = declare_text(parse_header_value, "", "User name (basic) or client id (oauth2).",
                             "Nama pengguna (basic) atau client id (oauth2).")
    secret: Secret = declare_secret(
        "Password (basic), token (bearer) or client secret (oauth2).",
        "Kata sandi (basic), token (bearer) atau client secret (oauth2).")
    token_url: str = declare(
        Kind.URL, parse_service_url, "", "Where oauth2 gets its tokens (client credentials).",
        "Tempat oauth2 mendapat token (client credentials).", allowed="https or http")
    scope: str = declare_text(parse_header_value, "", "Scope asked for with oauth2.", "Scope yang diminta oauth2.")
    ca: Path = _ca()
    certificate: Path = _certificate()
    key: Path = _key()
    batch: int = declare_number(1, 1000, 50, "Most images in one request.", "Citra terbanyak dalam satu permintaan.")
    batch_size: int = declare_size("1MB", "2GB", "64MB", "A request is closed when it is this large.",
                                   "Permintaan ditutup bila sudah sebesar ini.")
    parallel: int = _parallel(16, 2)
    timeout: float = _timeout("60s")
    late: str = _late()
    late_cutoff: float = _late_cutoff()
    late_after_cutoff: str = _late_after_cutoff()
    failover_to: str = _failover_to()
    failover_after: float = _failover_after()


@dataclass(frozen=True, kw_only=True)
class SftpSettings:
    """A section [sftp:NAME]: a folder on another machine, reached through SSH."""

    host: str = declare_text(parse_host, "", "Name or address of the server.", "Nama atau alamat server.",
                             required=True)
    port: int = declare_number(1, 65535, 22, "Its TCP port.", "Port TCP-nya.")
    user: str = declare_text(parse_header_value, "", "User name there.", "Nama pengguna di sana.", required=True)
    password: Secret = declare_secret(
        "Password, or passphrase of the key.", "Kata sandi, atau frasa sandi kunci.")
    key: Path = declare_path(
        "", "Private key (OpenSSH format); empty for a password.",
        "Kunci privat (format OpenSSH); kosong bila memakai kata sandi.")
    known_hosts: Path = declare_path(
        "", "File with the server's host key, as ssh-keyscan writes it; no other server is believed.",
        "Berkas berisi host key server, seperti keluaran ssh-keyscan; server lain tidak dipercaya.", required=True)
    folder: str = declare_text(parse_header_value, ".", "Folder there, which must exist.",
                               "Folder di sana, harus sudah ada.")
    template: str = _template("Where an image lies below folder.", "Letak sebuah citra di bawah folder.")
    parallel: int = _parallel(8, 2)
    timeout: float = _timeout("60s")
    late: str = _late()
    late_cutoff: float = _late_cutoff()
    late_after_cutoff: str = _late_after_cutoff()
    failover_to: str = _failover_to()
    failover_after: float = _failover_after()


@dataclass(frozen=True, kw_only=True)
class S3Settings:
    """A section [s3:NAME]: a bucket of an object store."""

    bucket: str = declare_text(parse_host, "", "Name of the bucket, which must exist.",
                               "Nama bucket, harus sudah ada.", required=True)
    endpoint: str = declare(
        Kind.URL, parse_service_url, "", "URL of the object store; empty for Amazon's.",
        "URL penyimpanan objek; kosong berarti milik Amazon.", allowed="https or http")
    plain_http: bool = _plain_http()
    ca: Path = _ca()
    region: str = declare_text(parse_host, "us-east-1", "Region of the bucket.", "Region bucket itu.")
    access_key: Secret = declare_secret(
        "Access key of the account.", "Access key akun itu.", required=True)
    secret_key: Secret = declare_secret(
        "Secret key that belongs to it.", "Secret key pasangannya.", required=True)
    template: str = _template("Key of an image in the bucket.", "Kunci sebuah citra di bucket.")
    parallel: int = _parallel(16, 2)
    timeout: float = _timeout("60s")
    late: str = _late()
    late_cutoff: float = _late_cutoff()
    late_after_cutoff: str = _late_after_cutoff()
    failover_to: str = _failover_to()
    failover_after: float = _failover_after()


@dataclass(frozen=True, kw_only=True)
class WatchSettings:
    """A section [watch:NAME]: a folder from which images are taken, CD trees and zip files too."""

    path: Path = declare_path(
        "", "Folder to take images from, with all folders in it.",
        "Folder sumber citra, beserta semua folder di dalamnya.", required=True)
    every: float = declare_duration("1s", "1d", "10s", "How often to look.", "Seberapa sering dilihat.")
    stable: float = declare_duration(
        "0s", "1d", "5s", "A file counts as complete when its size and time have not changed for this long.",
        "Berkas dianggap lengkap bila ukuran dan waktunya tidak berubah selama ini.")
    remove: bool = _yes_no(
        "no", "Remove a file once all its images are accepted; otherwise it stays and is remembered.",
        "Hapus berkas setelah semua citranya diterima; bila tidak, berkas tetap dan diingat.")


#: Sections of places that studies go to.
DESTINATION_SECTIONS: dict[str, type[Any]] = {
    FOLDER_SECTION: FolderSettings, "dimse:NAME": DimseSettings, "dicomweb:NAME": DicomwebSettings,
    "sftp:NAME": SftpSettings, "s3:NAME": S3Settings,
}  # fmt: skip
DESTINATION_KINDS = tuple(section.removesuffix(":NAME") for section in DESTINATION_SECTIONS)
