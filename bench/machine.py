"""What a bench ran on: processor, memory, kernel, file system, and the versions of the programs it compares with.

Everything stands in tables that are published, so neither the names of hosts nor paths. Changes when a table has to say
more of a machine.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

import psutil

from bench.servers import PATH, orthanc_program

_VERSION_S = 10.0


def describe(folder: Path) -> str:
    """Return cores, processor, memory, kernel, the file system that `folder` lies in, and Python, in one line.

    What this system does not tell is left out.
    """
    try:
        model = parse_cpu_model(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        model = ""
    mounts = [(each.mountpoint, each.fstype) for each in psutil.disk_partitions(all=True)]
    parts = [
        f"{os.cpu_count()} cores" + f" ({model})" * bool(model),
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB memory",
        f"{platform.system()} {platform.release()}",
        file_system(folder.resolve(), mounts),
        f"Python {platform.python_version()}",
    ]
    return ", ".join(part for part in parts if part)


def parse_cpu_model(cpuinfo: str) -> str:
    """Return the first processor's model in the text of /proc/cpuinfo, "" where that kind of processor has none."""
    found = re.search(r"^model name[ \t]*:[ \t]*(\S.*)$", cpuinfo, re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def file_system(folder: Path, mounts: Iterable[tuple[str, str]]) -> str:
    """Return the type of the file system that `folder` lies in, "" if none of `mounts` (place, type) holds it."""
    around = [(len(Path(place).parts), number, kind)
              for number, (place, kind) in enumerate(mounts) if folder.is_relative_to(place)]
    return max(around)[2] if around else ""  # of two at one place the later one covers the other


def versions(names: Iterable[str]) -> list[str]:
    """Return each of `names` that is installed with its version; the names are those of PEERS."""
    return [f"{name} {version}" for name in names if (version := PEERS[name]())]


def parse_version(text: str) -> str:
    """Return the first version in what a program says of itself, "" if it names none."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return found[0] if found else ""


def _program_version(program: str | Path | None) -> str:
    if program is None:
        return ""
    try:
        said = subprocess.run([str(program), "--version"], capture_output=True, text=True, timeout=_VERSION_S,
                              check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return parse_version(said.stdout)


def _package_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


PEERS: dict[str, Callable[[], str]] = {
    "DCMTK": lambda: _program_version(shutil.which("storescu", path=PATH)),
    "pynetdicom": lambda: _package_version("pynetdicom"),
    "Orthanc": lambda: _program_version(orthanc_program()),
}
