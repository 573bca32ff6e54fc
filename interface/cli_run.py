"""`main.py run`: the supervisor with its three roles, or one role alone."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from interface import logs
from interface.roles import open_spool
from interface.supervisor import Supervisor
from internal import __version__, config
from internal.config import Settings

log = logging.getLogger("router")

ROLES = ("receive", "deliver", "web")


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Run until stopped; return the exit status."""
    role = options.role or "main"
    logs.configure(options.verbose, settings.router.log_format, settings.secrets(), role)
    if options.role is None:
        return _supervise(options, settings)
    if options.role == "deliver":
        from interface.deliver import run_deliver

        return run_deliver(settings, supervised=options.supervised)
    if options.role == "web":
        from interface.http.app import run_web

        environment = config.environment_name(settings.satusehat.url)
        return run_web(settings, environment, __version__, supervised=options.supervised)
    from interface.dimse.role import run_receive

    return run_receive(settings, options, own_command(options, "receive"))


def _supervise(options: argparse.Namespace, settings: Settings) -> int:
    for warning in settings.warnings:
        log.warning(str(warning))
    spool = open_spool(settings)
    with spool.lock("main"):
        log.info(
            logs.PHRASES["starting"],
            extra={"fields": {
                "version": __version__, "environment": config.environment_name(settings.satusehat.url),
                "url": settings.satusehat.url, "organization": settings.satusehat.organization_id,
                "dicom_port": settings.satusehat.dicom_port, "http_port": settings.satusehat.http_port,
                "data_dir": str(settings.data_dir),
            }},
        )
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
