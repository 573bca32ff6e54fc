"""The same router on PostgreSQL, and with a second kind of destination."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.images import dataset_sha256, make_study
from tests.system.rig import Rig, check_oracle, send_until_acknowledged, wait_for


@pytest.fixture
def postgresql_url(tmp_path: Path) -> Iterator[str]:
    pgserver = pytest.importorskip("pgserver")
    server = pgserver.get_server(tmp_path / "pg", cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()


@pytest.mark.postgres
def test_delivery_and_restart_on_postgresql(rig: Rig, tmp_path: Path, postgresql_url: str) -> None:
    rig.write_config(extra=f"[database]\nurl = {postgresql_url}")
    rig.start_sandbox()
    rig.start_router()
    study = make_study(tmp_path / "s", "PG1", 4)
    rig.order(study)
    send_until_acknowledged(rig.dicom_port, study.images[:2], deadline_s=20, acknowledged=lambda _image: None)
    rig.wait_state(study, "done")
    send_until_acknowledged(rig.dicom_port, study.images[2:], deadline_s=20, acknowledged=lambda _image: None)
    rig.kill_router()
    rig.start_router()
    wait_for(lambda: (rig.job_of(study) or {}).get("receipts") == 4, 40, "late images after a kill", every_s=0.3)
    rig.wait_state(study, "done")
    check_oracle(rig, [study], study.images)
    assert not (tmp_path / "data" / "index.db").exists()


def test_a_folder_is_a_destination_of_its_own(rig: Rig, tmp_path: Path) -> None:
    """SATUSEHAT is down; the folder gets its copies all the same."""
    rig.write_config(send_to="satusehat, archive", extra=f"[folder:archive]\npath = {tmp_path / 'archive'}")
    rig.start_router()
    study = make_study(tmp_path / "s", "FOLDER1", 3)
    send_until_acknowledged(rig.dicom_port, study.images, deadline_s=20, acknowledged=lambda _image: None)
    wait_for(
        lambda: any(row["lane"] == "archive" and row["state"] == "done" for row in rig.queue()), 30, "folder done",
        every_s=0.3,
    )
    files = list((tmp_path / "archive").rglob("*.dcm"))
    assert sorted(map(dataset_sha256, files)) == sorted(image.dataset_sha256 for image in study.images)
    assert (rig.job_of(study) or {})["state"] in ("queued", "active", "deferred")


def test_reindex_rebuilds_a_lost_database_without_sending_twice(rig: Rig, tmp_path: Path) -> None:
    rig.start_sandbox()
    rig.start_router()
    study = make_study(tmp_path / "s", "LOSTDB", 3)
    rig.order(study)
    send_until_acknowledged(rig.dicom_port, study.images, deadline_s=20, acknowledged=lambda _image: None)
    rig.wait_state(study, "done")
    assert rig.stop_router() == 0
    for file in (tmp_path / "data").glob("index.db*"):
        file.unlink()
    rebuilt = rig.run("reindex")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert "3 rows added" in rebuilt.stdout
    rig.start_router()
    rig.wait_state(study, "done")
    state = check_oracle(rig, [study], study.images)
    assert len(state["resources"]["ImagingStudy"]) == 1
