"""Starting, refusing to start, stopping: one sentence for every cause, nobody left on the ports."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import requests

from tests.system.images import make_study
from tests.system.rig import MAIN, ROOT, Rig, check_oracle, send_until_acknowledged, wait_for


def _run_to_exit(rig: Rig, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(MAIN), "-v", "--config", str(rig.config), *options], capture_output=True, text=True,
        timeout=60, stdin=subprocess.DEVNULL, cwd=ROOT, check=False,
    )


def test_start_health_and_stop(rig: Rig) -> None:
    rig.start_router()
    live = requests.get(f"http://127.0.0.1:{rig.http_port}/health/live", timeout=5)
    assert live.status_code == 200
    assert live.json()["environment"] == "sandbox"
    roles = rig.roles()
    yields = {name: process.nice() - roles["main"].nice() for name, process in roles.items()}
    assert {name: yields[name] for name in ("receive", "receive0", "web", "deliver")} == {
        "receive": 0, "receive0": 0, "web": 5, "deliver": 10}
    assert rig.stop_router() == 0
    assert "environment=sandbox" in rig.log()


def test_killed_supervisor_leaves_nobody(rig: Rig) -> None:
    rig.start_router()
    children = [process for name, process in rig.roles().items() if name != "main"]
    rig.kill_router()
    assert [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []
    rig.start_router()


def test_second_copy_on_the_same_folder_says_so(rig: Rig) -> None:
    rig.start_router()
    second = _run_to_exit(rig, "--set", "satusehat.dicom_port=0", "--set", "satusehat.http_port=0")
    assert second.returncode == 2
    assert "already" in second.stderr
    assert rig.is_ready()


@pytest.mark.parametrize("key", ["dicom_port", "http_port"])
def test_port_in_use_says_which(rig: Rig, key: str) -> None:
    port = rig.dicom_port if key == "dicom_port" else rig.http_port
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        ended = _run_to_exit(rig)
    assert ended.returncode == 2
    assert f"{key.replace('_', ' ')} {port}".lower() in (ended.stdout + ended.stderr).lower()


def test_unwritable_data_folder_says_what_to_do(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    rig.write_config(data_dir=str(tmp_path / "file" / "data"))
    ended = _run_to_exit(rig)
    assert ended.returncode == 2
    assert "data_dir" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_all_mistakes_of_router_conf_at_once_before_any_port_opens(rig: Rig) -> None:
    rig.config.write_text(
        "[satusehat]\nurl = ftp://x\ndicom_port = seventy\nclient_kee = a\n[router]\nsettle = soon\n"
    )
    ended = _run_to_exit(rig)
    assert ended.returncode == 2
    for expected in ("line 2", "line 3", "line 6", "organization_id", "client_key", "secret_key", "client_kee"):
        assert expected in ended.stderr, expected


def test_official_router_conf_and_container_environment_start(rig: Rig, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("sandbox-secret\n")
    rig.config.write_text(
        "[satusehat]\norganization_id = $ORGANIZATION_ID\nclient_key = $CLIENT_KEY\nsecret_key = $SECRET_KEY\n"
        f"url = $API_URL\ndicom_port = {rig.dicom_port}\nhttp_port = {rig.http_port}\ndcm_dir = /in/\n"
        "tz_name = Asia/Jakarta\nae_title = DCMROUTER\nmroc_client_url = http://localhost:8000\n"
    )
    rig.start_router(environment={
        "ORG_ID": "100099001", "CLIENT": "sandbox-client", "SECRET_FILE": str(secret), "URL": rig.sandbox_url,
    })
    assert "dcm_dir" in rig.log()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_a_role_that_dies_comes_back(rig: Rig) -> None:
    rig.start_router()
    old = rig.roles()["web"]
    old.kill()
    wait_for(lambda: rig.roles().get("web") not in (None, old) and rig.is_ready(), 30, "web is back")


def test_images_are_accepted_while_the_database_is_away(rig: Rig, tmp_path: Path) -> None:
    """A folder in the place of the database: it cannot be opened until it is gone."""
    (tmp_path / "data" / "index.db").mkdir(parents=True)
    rig.start_sandbox()
    rig.start_router(until=rig.accepts_images)
    study = make_study(tmp_path / "s", "NODB1", 2)
    rig.order(study)
    send_until_acknowledged(rig.dicom_port, study.images, deadline_s=20, acknowledged=lambda _image: None)
    wait_for(lambda: "images stay safe in new/" in rig.log(), 20, "the log says what is wrong")
    assert not rig.is_ready()
    (tmp_path / "data" / "index.db").rmdir()
    wait_for(rig.is_ready, 40, "the router goes on by itself")
    rig.wait_state(study, "done")
    check_oracle(rig, [study], study.images)


@pytest.mark.long(seconds=35)
@pytest.mark.timeout(120)
def test_a_request_in_hand_does_not_keep_the_router_from_ending(rig: Rig, tmp_path: Path) -> None:
    rig.start_sandbox()
    rig.start_router()
    rig.faults({"method": "POST", "path": "/dicom/", "count": 1, "delay_s": 55})
    study = make_study(tmp_path / "s", "SLOW1", 1)
    rig.order(study)
    send_until_acknowledged(rig.dicom_port, study.images, deadline_s=20, acknowledged=lambda _image: None)
    wait_for(lambda: "DICOM Push started" in rig.log(), 20, "the push is under way")
    assert rig.stop_router(timeout_s=40) == 0
    assert "it is killed" not in rig.log()
    rig.clear_faults()
    rig.start_router()
    rig.wait_state(study, "done")
    check_oracle(rig, [study], study.images)


def test_hangup_ends_nobody(rig: Rig) -> None:
    rig.start_router()
    before = {name: process.pid for name, process in rig.roles().items()}
    rig.roles()["main"].send_signal(signal.SIGHUP)
    for name in ("deliver", "web"):
        rig.roles()[name].send_signal(signal.SIGHUP)
    assert requests.get(f"http://127.0.0.1:{rig.http_port}/health/live", timeout=5).status_code == 200
    assert rig.run("queue").returncode == 0
    assert {name: process.pid for name, process in rig.roles().items()} == before
    assert rig.stop_router() == 0


def test_check_says_what_to_do(rig: Rig) -> None:
    refused = rig.run("check")
    assert refused.returncode == 1
    assert "FAIL" in refused.stdout
    rig.start_sandbox()
    fine = rig.run("check")
    assert fine.returncode == 0, fine.stdout
    assert "FAIL" not in fine.stdout


def test_commands_before_the_first_start_explain_themselves(rig: Rig) -> None:
    reply = rig.run("queue")
    assert reply.returncode == 1
    assert "start the router first" in reply.stderr


def test_unknown_study(rig: Rig) -> None:
    rig.start_router()
    reply = rig.run("show", "NOSUCH")
    assert reply.returncode == 1
    assert "NOSUCH" in reply.stderr
