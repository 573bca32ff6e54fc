"""`main.py check`: everything a delivery needs, one line each: ok, or what to do.

Changes nothing but one temporary file under data_dir. Changes when a delivery comes to need something else.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from interface import watch
from interface.alerts import build_alerts
from interface.cli_database import iso
from interface.cli_rules import check_rules
from interface.destinations import build, build_watches, build_webhook
from interface.lane_control import ground_of
from interface.roles import SystemClock, open_spool, open_store
from internal import config, devices, set_aside, settings_rows
from internal.conditions import DAY_MS
from internal.config import Settings
from internal.errors import RouterError, StorageNotMounted
from internal.model import Probe

_CALLERS_SHOWN = 5
_SLOW_FSYNC_S = 0.25
_ASIDE_DAYS = 7
_BUILT_AT_MS = 1_767_225_600_000  # 2026-01-01: no correct clock is before this program was written


def check(settings: Settings) -> int:
    """Print one line per probe; return 0 when all are ok, else 1."""
    print(f"environment: {config.environment_name(settings.satusehat.url)} ({settings.satusehat.url})")
    failed = 0
    for probe in _probes(settings):
        print(f"{'ok  ' if probe.ok else 'FAIL'}  {probe.name}: {probe.text}")
        if not probe.ok:
            failed += 1
            if probe.advice:
                print(f"      -> {probe.advice}")
    return 1 if failed else 0


def _probes(settings: Settings) -> Iterator[Probe]:
    yield _config(settings)
    yield from _rules(settings)
    yield _disk(settings)
    yield _port("DICOM port", settings.satusehat.dicom_port, "", settings, "receive")
    yield _port("HTTP port", settings.satusehat.http_port, settings.router.http_bind, settings, "web")
    yield _clock()
    yield from _rows(settings)
    yield from map(watch.probe, build_watches(settings))
    webhook = build_webhook(settings)
    for destination in [*build(settings), *([webhook] if webhook else []), build_alerts(settings)]:
        for probe in destination.probe():
            yield Probe(f"{destination.name} {probe.name}", probe.ok, probe.text, probe.advice)


def _config(settings: Settings) -> Probe:
    notes = "; ".join(str(warning) for warning in settings.warnings)
    return Probe("config", True, f"read; {notes}" if notes else "read, no remarks")


def _rules(settings: Settings) -> Iterator[Probe]:
    problems = check_rules(settings)
    for problem in problems:
        yield Probe("rules", False, problem, "correct it; until then the set of rules before it stays in force")
    if settings.rules and not problems:
        yield Probe("rules", True, f"{len(settings.rules)} in router.conf can be used")


def _disk(settings: Settings) -> Probe:
    """Write and fsync one small file, and look at the free space."""
    folder = settings.data_dir
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        took_s = _timed(lambda: _write_synced(folder / ".check"))
    except OSError as error:
        return Probe(
            "disk", False, f"{folder} cannot be written ({error.strerror})",
            "set [router] data_dir to a folder that this user may write",
        )
    usage = os.statvfs(folder) if hasattr(os, "statvfs") else None
    free = usage.f_bavail * usage.f_frsize if usage else 0
    if usage and free < settings.spool.min_free:
        return Probe(
            "disk", False, f"{free // 2**20} MB free, less than [spool] min_free",
            "images are refused with 0xA700 until space is made",
        )
    if took_s > _SLOW_FSYNC_S:
        return Probe("disk", False, f"fsync took {took_s * 1000:.0f} ms", "use a faster disk for data_dir")
    return Probe("disk", True, f"{folder}, {free // 2**30} GB free, fsync {took_s * 1000:.1f} ms")


def _timed(action: Callable[[], None]) -> float:
    began_s = time.monotonic()
    action()
    return time.monotonic() - began_s


def _write_synced(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, b"check")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
        path.unlink()


def _port(name: str, port: int, host: str, settings: Settings, role: str) -> Probe:
    """A port is fine when it is free, or when the router itself is the one that answers on it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        if os.name != "nt":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            return Probe(name, False, f"{port} needs administrator rights", "choose a port above 1024")
        except OSError as error:
            if _is_alive(settings, role):
                return Probe(name, True, f"{port}, this router is running on it")
            return Probe(name, False, f"{port} cannot be opened ({error.strerror})",
                         "end the program that uses it, or set another port in router.conf")
    return Probe(name, True, f"{port} is free")


def _is_alive(settings: Settings, role: str) -> bool:
    from interface.http.health import STALE_AFTER_MS

    try:
        status = open_spool(settings, create=False).read_published(f"{role}.json")
    except StorageNotMounted:
        return False
    alive_at = json.loads(status or b"{}").get("alive_at", 0)
    return SystemClock().now_ms() - int(alive_at) < STALE_AFTER_MS


def _rows(settings: Settings) -> Iterator[Probe]:
    """Settings that stand in the file and in the database; files that were set aside lately; who sends unlisted."""
    if not settings.database.url and not settings.database_path.is_file():
        return
    store = open_store(settings)
    try:
        store.migrate()
        with store.reading() as tx:
            aside, first_at = set_aside.count_open(tx, SystemClock().now_ms() - _ASIDE_DAYS * DAY_MS)
            unlisted = [one for one in devices.list_devices(tx) if not one.verdict]
            conflicts = settings_rows.conflicts(tx, ground_of(settings))
    except RouterError as fault:
        yield Probe("database", False, str(fault), "see docs/troubleshooting.md")
        return
    finally:
        store.close()
    for sentence in conflicts:
        yield Probe("settings", False, sentence, "see `settings list`; what the file says is in force")
    if aside:
        yield Probe("set aside", True, f"WARNING: {aside} files cannot be read and were set aside since"
                    f" {iso(first_at)}; see `bad`")
    policy = settings.dicom.unknown_callers
    shown = ", ".join(f"{one.aet!r} at {one.address}" for one in unlisted[:_CALLERS_SHOWN])
    if not unlisted:
        yield Probe("callers", True, f"every caller is listed; unknown ones: {policy}")
    elif policy == "accept":
        yield Probe("callers", True, f"WARNING: {len(unlisted)} callers are not listed and accepted: {shown};"
                    " admit those you know (devices admit), then set [dicom] unknown_callers to hold or refuse")
    else:
        yield Probe("callers", True, f"{len(unlisted)} callers are not listed ({policy}): {shown}")


def _clock() -> Probe:
    now = SystemClock().now_ms()
    if now < _BUILT_AT_MS:
        return Probe("clock", False, "this machine's clock is years behind", "set the time and enable NTP")
    return Probe("clock", True, time.strftime("%Y-%m-%d %H:%M:%S %z"))
