"""`main.py run`: the supervisor with its three roles, or one role alone."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from interface import logs
from interface.dimse.settings import ReceiveSettings
from interface.roles import lock_wait_s, open_spool
from interface.supervisor import Supervisor
from internal import __version__, config, failpoints
from internal.config import Settings
from internal.config.values import split_commitment_caller

log = logging.getLogger("router")

_MOST_CHILDREN = 4

ROLES = ("receive", "deliver", "web")


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Run until stopped; return the exit status."""
    role = options.role or "main"
    logs.configure(options.verbose, settings.router.log_format, settings.secrets(), role)
    if failpoints.is_armed():
        log.warning("ROUTER_FAULT is set: this router fails on purpose and may lose images")
    if options.role is None:
        return _supervise(options, settings)
    if options.role == "deliver":
        from interface.deliver import run_deliver

        return run_deliver(settings, supervised=options.supervised)
    if options.role == "web":
        from interface.http.web_role import run_web

        environment = config.environment_name(settings.satusehat.url)
        return run_web(settings, environment, __version__, supervised=options.supervised)
    from interface.cli import load_settings
    from interface.dimse.receive_role import run_receive

    return run_receive(
        receive_settings(settings, supervised=options.supervised), settings.spool_dir, options.slot,
        lambda slot: [*own_command(options, "receive"), "--slot", str(slot)],
        reload=lambda: receive_settings(load_settings(options), supervised=options.supervised),
    )


def receive_settings(settings: Settings, *, supervised: bool) -> ReceiveSettings:
    """Return what the receive role has to be told; 0 children in router.conf means as many as there are processors."""
    dicom = settings.dicom
    children = dicom.children or min(_MOST_CHILDREN, os.cpu_count() or 1)
    return ReceiveSettings(
        ae_titles=tuple(dict.fromkeys((settings.satusehat.ae_title, *dicom.called_aets))),
        port=settings.satusehat.dicom_port,
        bind=(dicom.dicom_bind,) if dicom.dicom_bind else ReceiveSettings().bind,
        children=children,
        max_associations=dicom.max_associations,
        max_associations_per_address=dicom.max_associations_per_address,
        max_pdu_bytes=dicom.max_pdu,
        max_object_bytes=dicom.max_object,
        association_timeout_s=dicom.associate_timeout,
        idle_timeout_s=dicom.idle_timeout,
        stall_timeout_s=dicom.pdu_timeout,
        min_bytes_per_s=dicom.min_rate,
        fsync=settings.spool.fsync,
        min_free_bytes=settings.spool.min_free,
        unknown_callers=dicom.unknown_callers,  # type: ignore[arg-type]
        commitment_callers=tuple(split_commitment_caller(text)[0] for text in dicom.commitment_callers),
        commitment_nodes=tuple(node.ae_title for node in settings.named.get("dimse", {}).values() if node.commitment),
        commitment_same_association=dicom.commitment_same_association,
        tls_port=dicom.tls_port or None,
        tls_certificate=str(settings.tls_certificate),
        tls_key=str(settings.tls_key),
        tls_client_ca=str(dicom.tls_client_ca) if dicom.tls_client_ca.name else "",
        supervised=supervised,
        lock_wait_s=lock_wait_s(supervised=supervised),
    )


def _supervise(options: argparse.Namespace, settings: Settings) -> int:
    for warning in settings.warnings:
        log.warning(str(warning))
    spool = open_spool(settings)
    with spool.lock("router"):
        log.info(
            logs.PHRASES["starting"],
            extra={"fields": {
                "version": __version__, "environment": config.environment_name(settings.satusehat.url),
                "url": settings.satusehat.url, "organization": settings.satusehat.organization_id,
                "dicom_port": settings.satusehat.dicom_port, "http_port": settings.satusehat.http_port,
                "data_dir": str(settings.data_dir),
            }},
        )
        for role in ROLES:
            # What the roles of an earlier run wrote last must not look like this run's health.
            spool.publish(f"{role}.json", b"{}")
        return Supervisor([(role, own_command(options, role)) for role in ROLES]).run()


def own_command(options: argparse.Namespace, role: str) -> Sequence[str]:
    """Return the command that starts `role` with the options this process was started with."""
    program = Path(__file__).resolve().parent.parent / "main.py"
    command = [sys.executable, str(program), "run", "--role", role, "--supervised"]
    if options.config:
        command += ["--config", str(Path(options.config).resolve())]
    for override in options.overrides:
        command += ["--set", override]
    if options.verbose:
        command.append("-" + "v" * options.verbose)
    return command
