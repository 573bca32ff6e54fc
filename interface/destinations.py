"""Every kind of destination by name, and the destinations that a configuration asks for.

The deliver role builds its lanes from `build`; check and the command line use it for probes and environments.
Imports the destinations and internal.config. Changes when a kind of destination is added: one line in KINDS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from interface.folder import Folder, FolderOptions
from interface.mroc import Mroc, MrocOptions, is_own_choice
from interface.satusehat.client import SatusehatOptions
from interface.satusehat.delivery import Satusehat
from interface.webhook import Webhook, WebhookOptions
from internal.config import Settings
from internal.errors import ConfigurationInvalid
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
        skip_sop_classes=frozenset(platform.skip_sop_classes),
        reregister_max_s=settings.router.reregister_max, push_parallel=platform.push_parallel,
        fhir_per_minute=platform.fhir_per_minute, bandwidth_bytes_per_s=platform.bandwidth,
    ))


def build_folder(settings: Settings, name: str) -> Destination:
    """Return the destination of section [folder:NAME]; raises ConfigurationInvalid when there is none."""
    section = settings.folders.get(name)
    if section is None:
        raise ConfigurationInvalid(f"[router] send_to names {name}, but there is no section [folder:{name}]")
    return Folder(FolderOptions(name, section.path))


KINDS: dict[str, Callable[[Settings, str], Destination]] = {
    Satusehat.kind: build_satusehat,
    Folder.kind: build_folder,
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
    """Return one destination for each name in [router] send_to, in that order; connects to nothing.

    Raises ConfigurationInvalid for a name without a section, and for a base URL that is not safe.
    """
    names = dict.fromkeys(settings.router.send_to)
    return [KINDS[Satusehat.kind if name == PLATFORM else Folder.kind](settings, name) for name in names]
