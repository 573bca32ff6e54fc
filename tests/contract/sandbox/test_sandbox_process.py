"""Starting, stopping, being killed: what was acknowledged is there afterwards."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.contract.sandbox.sandbox_client import ACSN, ROOT, Sandbox, Study, build_imaging_study, make_instance, until

Start = Callable[..., Sandbox]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "sandbox", *arguments], cwd=ROOT, capture_output=True, text=True,
                          timeout=30, check=False)


def test_restart_keeps_everything(start: Start) -> None:
    first = start("--index-delay", "3600")
    study = Study(first, "R-1", instances=2)
    for data in study.files:
        assert first.push(data, study.id).status_code == 200
    first.order("R-2", indexed=True)
    first.control("POST", "/privacy", {"patient_id": study.order["patient_id"], "mode": "suppressed"})
    before = first.state()
    assert first.stop() == 0
    second = start()
    after = second.state()
    assert {name: after[name] for name in ("resources", "created", "instances")} == {
        name: before[name] for name in ("resources", "created", "instances")}
    second._token = first._token
    assert second.fhir("GET", "/dcm_cfg").status_code == 200, "the token lives on"
    assert second.fhir("GET", f"/ServiceRequest?identifier={ACSN}%7CR-1").json()["total"] == 0, "still not indexed"
    assert second.fhir("GET", f"/ServiceRequest?identifier={ACSN}%7CR-2").json()["total"] == 1
    assert second.push(study.files[0], study.id).status_code == 200
    assert sorted(one["times_received"] for one in second.state()["instances"]) == [1, 2]


def test_kill_keeps_everything_acknowledged(start: Start) -> None:
    sandbox = start()
    order = sandbox.order("K-1")
    sops = [f"1.2.3.4.{number}" for number in range(400)]
    answer = sandbox.fhir("POST", "/ImagingStudy", build_imaging_study(order, "1.2.3", "1.2.3.4", sops))
    study_id = answer.json()["id"]
    acknowledged: dict[str, str] = {}
    enough = threading.Event()
    bearer = sandbox.bearer

    def push(part: list[str]) -> None:
        with requests.Session() as session:
            for sop in part:
                data = make_instance("1.2.3", "1.2.3.4", sop, sop.encode() * 500)
                try:
                    reply = session.post(f"{sandbox.url}/dicom/v1/dicomWeb/studies", data=data, timeout=10, headers={
                        **bearer, "Content-Type": "application/dicom", "X-ImagingStudy-ID": study_id})
                except requests.RequestException:
                    return
                assert reply.status_code == 200
                acknowledged[sop] = hashlib.sha256(data).hexdigest()
                if len(acknowledged) >= 60:
                    enough.set()

    threads = [threading.Thread(target=push, args=(sops[first::3],)) for first in range(3)]
    for thread in threads:
        thread.start()
    assert enough.wait(30)
    sandbox.kill()
    for thread in threads:
        thread.join(30)
    second = start()
    kept = {one["sop_uid"]: one["sha256"] for one in second.state()["instances"]}
    assert len(acknowledged) < len(sops), "killed in the middle"
    assert acknowledged.items() <= kept.items()
    for sop, sha256 in kept.items():
        url = f"{second.url}/dicom/v1/dicomWeb/studies/1.2.3/series/1.2.3.4/instances/{sop}"
        assert hashlib.sha256(second.session.get(url, headers=second.bearer).content).hexdigest() == sha256
    assert list((second.data / "uploads").iterdir()) == []
    assert second.fhir("GET", f"/ImagingStudy/{study_id}").status_code == 200


def test_stops_at_once_while_requests_wait(start: Start) -> None:
    sandbox = start()
    sandbox.control("POST", "/faults", [{"path": "/fhir-r4", "delay_s": 3000}])
    bearer = sandbox.bearer

    def wait_in_vain() -> None:
        with pytest.raises(requests.RequestException):
            requests.get(f"{sandbox.url}/fhir-r4/v1/Patient", headers=bearer, timeout=30).raise_for_status()

    waiting = threading.Thread(target=wait_in_vain)
    waiting.start()
    until(lambda: sandbox.control("GET", "/faults")[0]["hits"] == 1, "the request is being held")
    assert sandbox.stop() == 0
    waiting.join(30)


def test_a_port_in_use_is_one_sentence_and_status_2(sandbox: Sandbox, tmp_path: Path) -> None:
    result = run("--port", str(sandbox.address[1]), "--data", str(tmp_path))
    assert result.returncode == 2 and result.stdout == ""
    assert str(sandbox.address[1]) in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_data_folder_in_use_or_unusable_is_one_sentence_and_status_2(sandbox: Sandbox, tmp_path: Path) -> None:
    result = run("--port", "0", "--data", str(sandbox.data))
    assert result.returncode == 2 and "in use by another sandbox" in result.stderr
    (tmp_path / "file").write_text("x")
    result = run("--port", "0", "--data", str(tmp_path / "file"))
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [
    ("--port", "x"), ("--port", "70000"), ("--token-ttl", "0"), ("--index-delay", "-1"), ("--date-floor", "x"),
    ("--latency-ms", "1.5"), ("--nonsense",), ("--host", "256.1.1.1", "--port", "0")])
def test_bad_options_are_status_2(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.returncode == 2 and result.stdout == "" and "Traceback" not in result.stderr


def test_options_reach_the_running_sandbox(start: Start) -> None:
    sandbox = start("--token-ttl", "77", "--latency-ms", "1", "--index-delay", "2.5", "--allow-duplicates",
                    "--no-strict-imagingstudy-id", "--auth-error-form", "outcome", "--if-none-exist", "all",
                    "--date-floor", "2001-02-03")
    assert sandbox.control("GET", "/settings") == {
        "token_ttl_s": 77, "latency_ms": 1, "index_delay_s": 2.5, "allow_duplicates": True,
        "strict_imagingstudy_id": False, "auth_error_form": "outcome", "if_none_exist": "all",
        "date_floor": "2001-02-03"}
    assert sandbox.fetch_token().json()["expires_in"] == "77"


def test_a_temporary_folder_is_named_and_removed(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-m", "sandbox", "--port", "0"], cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={"TMPDIR": str(tmp_path)})
    assert process.stdout is not None
    assert process.stdout.readline().startswith("SATUSEHAT sandbox ready on http://127.0.0.1:")
    (folder,) = tmp_path.iterdir()
    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0 and str(folder) in errors and not folder.exists()


def test_the_log_names_no_patient(sandbox: Sandbox) -> None:
    sandbox.order("LOG-1", name="Rahasia Sekali", patient_id="P01234509876", birth_date="1961-02-03")
    sandbox.fhir("GET", "/Patient/P01234509876")
    sandbox.fhir("GET", "/Patient?name=Rahasia&birthdate=1961-02-03")
    sandbox.fhir("POST", "/Patient", {"resourceType": "Patient", "name": "Rahasia", "birthDate": "1961-02-03"})
    log = "".join(sandbox.errors)
    assert "GET /fhir-r4/v1/Patient/{id} -> 200" in log
    for secret in ("Rahasia", "P01234509876", "1961", sandbox.bearer["Authorization"].split()[1], "sandbox-secret"):
        assert secret not in log
