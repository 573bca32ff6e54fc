"""Every kind of destination by name, and the destinations that a configuration asks for.

The deliver role builds its lanes from `build`; check and the command line use it for probes and environments.
Imports the destinations and internal.config. Changes when a kind of destination is added: one line in KINDS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from interface.dicomweb_client import Dicomweb, DicomwebOptions
from interface.dimse.requestor import Node
from interface.dimse.store_scu import DimseOptions, DimseStore
from interface.dimse.tls import client_context
from interface.folder import Folder, FolderOptions
from interface.mroc import Mroc, MrocOptions, is_own_choice
from interface.outbound import Session, SessionOptions
from interface.s3 import S3, S3Options
from interface.satusehat.client import SatusehatOptions
from interface.satusehat.delivery import Satusehat
from interface.sftp import Sftp, SftpOptions
from interface.watch import WatchOptions
from interface.web_auth import ClientCredentials, Fixed, Login, basic, bearer
from interface.webhook import Webhook, WebhookOptions
from internal.config import Settings
from internal.errors import ConfigurationInvalid
from internal.late import Late, LatePolicy
from internal.ports import Destination

PLATFORM = "satusehat"


def build_satusehat(settings: Settings, name: str) -> Destination:
    """Return the platform's destination as configured."""
    platform = settings.satusehat
    return Satusehat(SatusehatOptions(
        name=name, base_url=platform.url, organization_id=platform.organization_id,
        client_key=platform.client_key.reveal, secret=platform.secret_key.reveal,
        token_path=f"{platform.auth_pathsuffix}/accesstoken", fhir_path=platform.fhir_pathsuffix,
        dicom_path=platform.dicom_pathsuffix, tz_name=platform.tz_name, order_window_s=platform.order_window,
        index_lag_s=platform.index_lag, request_timeout_s=platform.request_timeout, user_agent=platform.user_agent,
        skip_sop_classes=frozenset(platform.skip_sop_classes), confirm_images=platform.confirm_images,
        reregister_max_s=settings.router.reregister_max, push_parallel=platform.push_parallel,
        fhir_per_minute=platform.fhir_per_minute, bandwidth_bytes_per_s=platform.bandwidth,
    ))


def build_folder(settings: Settings, name: str) -> Destination:
    """Return the destination of section [folder:NAME]; raises ConfigurationInvalid when there is none."""
    section = settings.folders.get(name)
    if section is None:
        raise ConfigurationInvalid(f"[router] send_to names {name}, but there is no section [folder:{name}]")
    return Folder(FolderOptions(name, section.path, section.template))


def build_dimse(settings: Settings, name: str) -> Destination:
    """Return the destination of section [dimse:NAME]; raises ConfigurationInvalid for TLS files that are no use."""
    section = settings.section(f"dimse:{name}")
    tls = client_context(section.tls_ca, section.tls_certificate, section.tls_key) if section.tls else None
    own = settings.satusehat.calling_ae_title or settings.satusehat.ae_title
    return DimseStore(DimseOptions(
        name=name, node=Node(section.host, section.port, section.ae_title, section.timeout, tls, section.tls_name),
        calling_aet=section.calling_ae_title or own, pass_calling=section.pass_calling, transcode=section.transcode,
        commitment=section.commitment, commitment_timeout_s=section.commitment_timeout,
        scratch=settings.data_dir / "scratch",
    ))


def build_dicomweb(settings: Settings, name: str) -> Destination:
    """Return the destination of section [dicomweb:NAME]; raises ConfigurationInvalid for TLS files that are no use."""
    section = settings.section(f"dicomweb:{name}")
    options = SessionOptions(
        user_agent=settings.satusehat.user_agent, stall_timeout_s=section.timeout, connections=section.parallel,
        ca_file=section.ca if section.ca.name else None,
        certificate=section.certificate if section.certificate.name else None,
        key=section.key if section.key.name else None)
    logins: dict[str, Callable[[], Login]] = {
        "none": Fixed, "basic": lambda: basic(section.user, section.secret.reveal),
        "bearer": lambda: bearer(section.secret.reveal),
        "oauth2": lambda: ClientCredentials(Session(section.token_url, options), section.user, section.secret.reveal,
                                            section.scope)}
    return Dicomweb(DicomwebOptions(name, Session(section.url, options), logins[section.auth](), section.batch,
                                    section.batch_size))


def build_sftp(settings: Settings, name: str) -> Destination:
    """Return the destination of section [sftp:NAME]."""
    section = settings.section(f"sftp:{name}")
    return Sftp(SftpOptions(
        name=name, host=section.host, port=section.port, user=section.user, known_hosts=section.known_hosts,
        folder=section.folder, template=section.template, password=section.password.reveal,
        key=section.key if section.key.name else None, timeout_s=section.timeout))


def build_s3(settings: Settings, name: str) -> Destination:
    """Return the destination of section [s3:NAME]."""
    section = settings.section(f"s3:{name}")
    return S3(S3Options(
        name=name, bucket=section.bucket, access_key=section.access_key.reveal, secret_key=section.secret_key.reveal,
        endpoint=section.endpoint, region=section.region, template=section.template, timeout_s=section.timeout,
        ca_file=section.ca if section.ca.name else None))


KINDS: dict[str, Callable[[Settings, str], Destination]] = {
    Satusehat.kind: build_satusehat,
    Folder.kind: build_folder,
    DimseStore.kind: build_dimse,
    Dicomweb.kind: build_dicomweb,
    Sftp.kind: build_sftp,
    S3.kind: build_s3,
}


def build_webhook(settings: Settings) -> Webhook | None:
    """Return the outbox of the hospital's system, None where no webhook_url is set."""
    platform = settings.satusehat
    if not platform.webhook_url:
        return None
    return Webhook(WebhookOptions(
        url=platform.webhook_url.reveal, user=platform.webhook_user, password=platform.webhook_password.reveal,
        form=platform.webhook_format, organization_id=platform.organization_id, tz_name=platform.tz_name,
        language=settings.router.language, user_agent=platform.user_agent,
    ))


def build_mroc(settings: Settings, destinations: Sequence[Destination]) -> Mroc | None:
    """Return the lane to an MROC client, None unless this hospital set one of its own and delivers to the platform."""
    platform = settings.satusehat
    lane = next((one for one in destinations if isinstance(one, Satusehat)), None)
    if lane is None or not is_own_choice(platform.mroc_client_url):
        return None
    return Mroc(MrocOptions(url=platform.mroc_client_url, organization_id=platform.organization_id,
                            is_enabled=lane.read_client_flag, user_agent=platform.user_agent))


def build(settings: Settings) -> list[Destination]:
    """Return every destination that a study may go to: those of default_send_to first, then all others.

    Connects to nothing. Raises ConfigurationInvalid for a base URL that is not safe, or a file that is no use.
    """
    kinds = {PLATFORM: Satusehat.kind, **settings.destinations}
    return [KINDS[kinds[name]](settings, name) for name in settings.lane_names()]


def build_standbys(settings: Settings, destinations: Sequence[Destination]) -> dict[str, Destination]:
    """Return who stands in for whom: the stand-in by the name of the destination that it helps out."""
    by_name = {one.name: one for one in destinations}
    sections = {name: settings.section(f"{kind}:{name}") for name, kind in settings.destinations.items()}
    return {name: by_name[one.failover_to] for name, one in sections.items() if one.failover_to in by_name}


def late_of(settings: Settings, name: str) -> LatePolicy:
    """Return what a destination does with images that come after their study was delivered."""
    kind = settings.destinations.get(name)
    if kind is None:
        return LatePolicy()
    section = settings.section(f"{kind}:{name}")
    return LatePolicy(Late(section.late), int(section.late_cutoff * 1000), Late(section.late_after_cutoff))


def build_watches(settings: Settings) -> list[WatchOptions]:
    """Return the folders that are watched for images."""
    return [WatchOptions(name, one.path, one.every, one.stable, one.remove, settings.dicom.max_object)
            for name, one in settings.named.get("watch", {}).items()]


def workers_of(settings: Settings, kind: str, name: str) -> int:
    """Return how many studies go to a destination at the same time."""
    section = settings.section(f"{kind}:{name}") if name in settings.destinations else None
    parallel = getattr(section, "associations", None) or getattr(section, "parallel", None)
    return parallel or settings.satusehat.workers
