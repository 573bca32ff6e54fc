"""The main job end to end: the real storescu, the real router, the real sandbox."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from internal.config import load
from internal.store import Store
from tests.system.images import Study, make_study
from tests.system.rig import Rig, check_oracle, send_until_acknowledged, wait_for

pytestmark = pytest.mark.dcmtk


class Running(Rig):
    """Sandbox and router for all tests that disturb no other's study; it knows everything that it was sent."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.made: list[Study] = []

    def make(self, folder: Path, accession_number: str, images: int, **form: Any) -> Study:
        """Write a study to be sent."""
        self.made.append(make_study(folder, accession_number, images, **form))
        return self.made[-1]

    def check(self, *delivered: Study) -> None:
        """Hold the sandbox against everything that was sent: these studies are there, and nothing is that was not."""
        check_oracle(self, self.made, [image for study in delivered for image in study.images])

    def registered(self, study: Study) -> dict[str, Any]:
        """Return the one ImagingStudy of a study."""
        (found,) = [one for one in self.state()["resources"]["ImagingStudy"]
                    if f"urn:oid:{study.study_uid}" in [identifier["value"] for identifier in one["identifier"]]]
        return dict(found)

    def arrived(self, study: Study) -> list[dict[str, Any]]:
        """Return what the sandbox says of each image of a study."""
        return [one for one in self.state()["instances"] if one["study_uid"] == study.study_uid]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    rig = Running(tmp_path_factory.mktemp("delivery"))
    rig.write_config()
    try:
        rig.start_sandbox()
        rig.start_router()
        yield rig
    finally:
        rig.close()


def test_single_file(running: Running, tmp_path: Path) -> None:
    study = running.make(tmp_path / "s", "ACC0001", 1)
    running.order(study)
    assert running.storescu(str(study.images[0].path)).returncode == 0
    job = running.wait_state(study, "done")
    assert (job["instances"], job["receipts"]) == (1, 1)
    running.check(study)
    assert running.registered(study)["id"] == job["imaging_study_id"]
    advice = running.run("check")
    assert advice.returncode == 0
    assert re.search(r"WARNING: [12] callers are not listed and accepted: .*'STORESCU' at 127\.0\.0\.1", advice.stdout)


@pytest.mark.long(seconds=15)
def test_headers_are_parsed_beside_delivery_where_the_hospital_wants_it(rig: Rig, tmp_path: Path) -> None:
    rig.write_config(parse_metadata="no")
    rig.start_sandbox()
    rig.start_router()
    study = make_study(tmp_path / "s", "ACC0002", 3)
    rig.order(study)
    assert rig.storescu("--scan-directories", str(tmp_path / "s")).returncode == 0
    rig.wait_state(study, "done")
    assert described(rig) == []
    assert rig.stop_router() == 0
    rig.write_config()
    rig.start_router()
    ((instances, unparsed),) = wait_for(lambda: described(rig), 60, "metadata", every_s=0.3)
    assert (len(instances), unparsed) == (3, {})


def described(rig: Rig) -> list[tuple[list[str], dict[str, str]]]:
    """Return instances and what could not be parsed of every series."""
    store = Store.open(load(rig.config, {}, {}, require_platform=True).database_url, read_only=True)
    try:
        with store.reading() as tx:
            rows = tx.rows("SELECT instances, unparsed FROM series_metadata")
    finally:
        store.close()
    return [(json.loads(instances), json.loads(unparsed)) for instances, unparsed in rows]


def test_folder_of_three_studies_in_one_association(running: Running, tmp_path: Path) -> None:
    studies = [running.make(tmp_path / "s", f"ACC10{n}", 3, series=2) for n in range(3)]
    for study in studies:
        running.order(study)
    sent = running.storescu("--scan-directories", "--recurse", str(tmp_path / "s"))
    assert sent.returncode == 0, sent.stderr
    for study in studies:
        running.wait_state(study, "done")
    running.check(*studies)


def test_two_associations_for_one_study_make_one_imaging_study(running: Running, tmp_path: Path) -> None:
    study = running.make(tmp_path / "s", "ACC2", 4)
    running.order(study)
    for image in study.images[:2]:
        assert running.storescu(str(image.path)).returncode == 0
    running.wait_state(study, "done")
    for image in study.images[2:]:
        assert running.storescu(str(image.path)).returncode == 0
    wait_for(lambda: (running.job_of(study) or {}).get("receipts") == 4, 40, "late images delivered", every_s=0.3)
    running.check(study)
    listed = {i["uid"] for series in running.registered(study)["series"] for i in series["instance"]}
    assert listed == {image.sop_uid for image in study.images}
    assert all(instance["times_received"] == 1 for instance in running.arrived(study))


@pytest.mark.parametrize(("option", "syntax"), [("-xs", "1.2.840.10008.1.2.4.70"), ("-xv", "1.2.840.10008.1.2.4.90")])
def test_compressed_files_are_stored_as_sent(running: Running, tmp_path: Path, option: str, syntax: str) -> None:
    study = running.make(tmp_path / "s", f"ACC{option[-1]}", 1)
    running.order(study)
    image = study.images[0]
    # The bytes need not be a real code stream: neither storescu nor the router may look at them.
    dataset = pydicom.dcmread(image.path)
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xe0made by a test\xff\xd9 "])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset.save_as(image.path, enforce_file_format=True)
    assert running.storescu(option, str(image.path)).returncode == 0
    running.wait_state(study, "done")
    assert [i["sop_uid"] for i in running.arrived(study)] == [image.sop_uid]


def test_abort_in_the_middle_delivers_what_was_acknowledged(running: Running, tmp_path: Path) -> None:
    study = running.make(tmp_path / "s", "ACC4", 3)
    running.order(study)
    running.storescu("--abort", "--scan-directories", str(tmp_path / "s"))
    job = running.wait_state(study, "done")
    assert job["receipts"] == 3
    running.check(study)


def test_no_order_waits_and_goes_on_by_itself(running: Running, tmp_path: Path) -> None:
    study = running.make(tmp_path / "s", "ACC5", 1)
    assert running.storescu(str(study.images[0].path)).returncode == 0
    running.wait_state(study, "waiting", code="no-order")
    running.order(study)
    running.wait_state(study, "done")


def test_missing_accession_waits_and_is_never_looked_up(rig: Rig, tmp_path: Path) -> None:
    rig.start_sandbox()
    rig.start_router()
    study = make_study(tmp_path / "s", "", 1)
    stranger = make_study(tmp_path / "other", "OTHER", 1)
    rig.order(stranger)
    assert rig.storescu(str(study.images[0].path)).returncode == 0
    rig.wait_state(study, "waiting", code="no-accession")
    requests_seen = rig.state()["requests"]
    assert not any("ServiceRequest" in name for name in requests_seen), requests_seen
    shown = rig.run("show", study.study_uid)
    assert "Accession Number" in shown.stdout


def test_two_orders_for_one_accession_are_held_with_both_shown(running: Running, tmp_path: Path) -> None:
    study = running.make(tmp_path / "s", "ACC7", 1)
    first, second = running.order(study), running.order(study)
    assert running.storescu(str(study.images[0].path)).returncode == 0
    running.wait_state(study, "held", code="several-orders")
    shown = running.run("show", "ACC7").stdout
    for order in (first, second):
        assert any(str(value) in shown for value in order.values())


def test_cancel_and_retry(running: Running, tmp_path: Path) -> None:
    study = running.make(tmp_path / "s", "ACC8", 1)
    assert running.storescu(str(study.images[0].path)).returncode == 0
    running.wait_state(study, "waiting")
    assert running.run("cancel", "ACC8").returncode == 0
    running.wait_state(study, "cancelled")
    running.order(study)
    assert running.run("retry", study.study_uid).returncode == 0
    running.wait_state(study, "done")


def test_wrong_credentials_are_deferred_with_one_attempt_per_interval(rig: Rig, tmp_path: Path) -> None:
    rig.write_config(satusehat="")
    rig.config.write_text(rig.config.read_text().replace("sandbox-secret", "wrong-secret"))
    rig.start_sandbox()
    rig.start_router()
    studies = [make_study(tmp_path / "s", f"ACC9{n}", 1) for n in range(3)]
    for study in studies:
        rig.order(study)
        assert rig.storescu(str(study.images[0].path)).returncode == 0
    wait_for(lambda: any(row["state"] == "deferred" for row in rig.queue()), 30, "deferred", every_s=0.3)
    wait_for(lambda: len(rig.queue()) == 3, 30, "all planned", every_s=0.3)
    assert rig.state()["requests"]["POST /oauth2/v1/accesstoken"] == 1
    assert "wrong-secret" not in rig.log()


def test_restart_continues_and_identity_never_reaches_the_log(running: Running, tmp_path: Path) -> None:
    study = running.make(tmp_path / "s", "ACC11", 5)
    send_until_acknowledged(running.dicom_port, study.images, deadline_s=30, acknowledged=lambda _image: None)
    assert running.stop_router() == 0
    running.order(study)
    running.start_router()
    running.wait_state(study, "done")
    running.check(study)
    for hidden in (study.patient_id, "Contoh", "Pasien", "19800101", "sandbox-secret"):
        assert hidden not in running.log()
