"""The demo's verdict and its care for ports and environment; the demo itself runs in `make test`."""

from __future__ import annotations

import copy
import socket
from pathlib import Path
from typing import Any

import pytest

from sandbox import demo, processes
from sandbox.samples import SampleFile, SampleStudy

FILES = tuple(SampleFile(f"A/IM{n}.dcm", f"1.2.{n}", "1.2", "1.2.840.10008.1.2.1", 1, 10, f"{n:064x}") for n in (1, 2))
STUDY = SampleStudy("A", "Contoh^Budi", "RM-1", "19800101", "M", "CT", "CT", "1.9", FILES)
STATE: dict[str, Any] = {
    "resources": {"ImagingStudy": [{"id": "is-1", "series": [{"instance": [{"uid": f.sop_uid} for f in FILES]}]}]},
    "instances": [{"sop_uid": f.sop_uid, "dataset_sha256": f.dataset_sha256} for f in FILES],
}


def test_all_is_well_only_if_every_instance_is_held_and_listed() -> None:
    assert demo.missing_instances(STUDY, "is-1", STATE) == []
    lost, other, unlisted = (copy.deepcopy(STATE) for _ in range(3))
    del lost["instances"][0]
    other["instances"][1]["dataset_sha256"] = "0" * 64
    del unlisted["resources"]["ImagingStudy"][0]["series"][0]["instance"][0]
    assert demo.missing_instances(STUDY, "is-1", lost) == ["A/IM1.dcm is not at the sandbox"]
    assert demo.missing_instances(STUDY, "is-1", other) == ["A/IM2.dcm has other bytes at the sandbox"]
    assert demo.missing_instances(STUDY, "is-1", unlisted) == ["A/IM1.dcm is not listed in ImagingStudy is-1"]
    assert len(demo.missing_instances(STUDY, "another", STATE)) == 2


def test_a_busy_port_is_replaced() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen(1)
        port = busy.getsockname()[1]
        assert processes.listens(port)
        assert processes.free_port(port) != port
    free = processes.free_port(0)
    assert processes.free_port(free) == free
    assert processes.free_port(free, [free]) != free


def test_two_demos_never_share_a_folder(tmp_path: Path) -> None:
    first = processes.claim_folder(tmp_path / "demo")
    (first.path / "data").mkdir()
    second = processes.claim_folder(tmp_path / "demo")
    assert second.borrowed
    assert second.path != first.path
    assert (first.path / "data").is_dir()
    second.release()
    assert not second.path.exists()
    first.release()
    third = processes.claim_folder(tmp_path / "demo")
    assert third.path == first.path
    assert not (third.path / "data").exists()
    third.release()


@pytest.mark.parametrize("name", ["ORG_ID", "SECRET_FILE", "ROUTER_ROUTER_DATA_DIR", "WEBHOOK_URL"])
def test_the_surrounding_environment_does_not_reach_the_demo(name: str) -> None:
    kept = processes.clean_environment({name: "x", "PATH": "/bin", "HTTPS_PROXY": "http://proxy"})
    assert name not in kept
    assert kept["PATH"] == "/bin"
    assert "127.0.0.1" in kept["NO_PROXY"]
