"""What the tables say of the machine."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from bench import machine


def test_the_model_of_the_processor_is_read_where_there_is_one() -> None:
    text = "processor\t: 0\nmodel\t\t: 207\nmodel name\t: Some(R)  Processor 4\nprocessor\t: 1\nmodel name\t: Other\n"
    assert machine.parse_cpu_model(text) == "Some(R) Processor 4"
    assert machine.parse_cpu_model("processor\t: 0\nBogoMIPS\t: 50.00\nmodel name\t:\n") == ""


def test_the_file_system_is_the_innermost_that_holds_the_folder() -> None:
    mounts = [("/", "overlay"), ("/var", "ext4"), ("/var/tmp", "xfs"), ("/var/tmp", "tmpfs"), ("/va", "nfs")]
    assert machine.file_system(Path("/var/tmp/a"), mounts) == "tmpfs"
    assert machine.file_system(Path("/var/tmpfile"), mounts) == "ext4"
    assert machine.file_system(Path("/home"), mounts) == "overlay"
    assert machine.file_system(Path("/home"), mounts[1:]) == ""


def test_programs_say_their_version_in_many_ways() -> None:
    assert machine.parse_version("$dcmtk: storescu v3.6.7 2022-04-22 $\n\nstorescu: DICOM storage SCU") == "3.6.7"
    assert machine.parse_version("Orthanc 1.10.1\nCopyright (C) 2012-2016") == "1.10.1"
    assert machine.parse_version("unknown") == ""


def test_neither_host_nor_path_is_named(tmp_path: Path) -> None:
    said = machine.describe(tmp_path)
    assert f"Python {platform.python_version()}" in said
    assert "cores" in said
    assert "GiB memory" in said
    assert str(tmp_path) not in said
    assert platform.node() not in said.split()


def test_only_what_is_installed_has_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(machine.PEERS, "DCMTK", lambda: "")
    (found,) = machine.versions(["DCMTK", "pynetdicom"])
    assert found.startswith("pynetdicom ")
