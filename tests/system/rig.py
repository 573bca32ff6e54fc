"""The real router and the real sandbox as processes, for system tests: start, kill, send, wait, and the oracle."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import psutil
import requests
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, Verification

from bench.servers import free_port
from interface.cli import main
from tests.faults.oracle import Told, find_wrongs
from tests.system.images import Image, Study

ROOT = Path(__file__).resolve().parents[2]
MAIN = ROOT / "main.py"
ORGANIZATION = "100099001"
#: DCMTK with Nagle's algorithm on needs 45 ms per C-STORE.
DCMTK_ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}


def wait_for(condition: Callable[[], Any], timeout_s: float, what: str, every_s: float = 0.05) -> Any:
    """Poll `condition` until it is true and return its value; fail with `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(every_s)
    raise AssertionError(f"not within {timeout_s} s: {what}")


class Rig:
    """One sandbox and one router with their own ports and data folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dicom_port, self.http_port, self.sandbox_port = free_port(), free_port(), free_port()
        self.sandbox_url = f"http://127.0.0.1:{self.sandbox_port}"
        self.config = folder / "router.conf"
        self.sandbox_process: subprocess.Popen[bytes] | None = None
        self.router_process: subprocess.Popen[bytes] | None = None
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1"}

    def write_config(self, *, extra: str = "", satusehat: str = "", **router: str) -> None:
        """Write router.conf with settle times low enough for a test."""
        values = {
            "data_dir": "data", "settle": "1s", "settle_cr_dx": "500ms", "settle_release_min": "300ms",
            "order_poll_min": "500ms", "retry_min": "200ms", "retry_max": "2s", "reregister_max": "2s",
        } | router
        lines = "\n".join(f"{key} = {value}" for key, value in values.items())
        self.config.write_text(
            f"[satusehat]\nurl = {self.sandbox_url}\norganization_id = {ORGANIZATION}\nclient_key = sandbox-client\n"
            f"secret_key = sandbox-secret\ndicom_port = {self.dicom_port}\nhttp_port = {self.http_port}\n"
            f"fhir_per_minute = 100000\n{satusehat}\n"
            f"[router]\n{lines}\n{extra}\n"
        )
        self.config.chmod(0o600)

    def start_sandbox(self, *options: str) -> None:
        """Start the sandbox on its port and wait until it accepts."""
        command = [sys.executable, str(MAIN), "sandbox", "--port", str(self.sandbox_port), "--data",
                   str(self.folder / "sandbox"), *options]
        log = (self.folder / "sandbox.log").open("ab")
        self.sandbox_process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=self.environment)
        log.close()
        wait_for(lambda: _accepts(self.sandbox_port), 20, "sandbox accepts")

    def start_router(
        self, *options: str, environment: dict[str, str] | None = None, until: Callable[[], Any] | None = None,
    ) -> None:
        """Start `main.py -v` and wait until both ports answer and every role is alive, or for `until`."""
        command = [sys.executable, str(MAIN), "-v", "--config", str(self.config), *options]
        log = (self.folder / "router.log").open("ab")
        self.router_process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT,
            env=self.environment | (environment or {}),
        )
        log.close()
        try:
            wait_for(until or self.is_ready, 30, "router is ready")
        except AssertionError:
            raise AssertionError(f"router did not start:\n{self.log()[-4000:]}") from None

    def accepts_images(self) -> bool:
        """Return whether the DICOM port is open."""
        return _accepts(self.dicom_port)

    def is_ready(self) -> bool:
        """Return whether /health/ready says so."""
        try:
            return requests.get(f"http://127.0.0.1:{self.http_port}/health/ready", timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def log(self) -> str:
        """Return everything the router has logged."""
        return (self.folder / "router.log").read_text(errors="replace")

    def run(self, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run one command of main.py with this rig's configuration."""
        return subprocess.run(
            [sys.executable, str(MAIN), *arguments, "--config", str(self.config)], capture_output=True, text=True,
            timeout=timeout_s, cwd=ROOT, check=False, env=self.environment,
        )

    def order(self, study: Study, **fields: Any) -> dict[str, Any]:
        """Register the order of `study` at the sandbox."""
        body = {"accession_number": study.accession_number, "modality": study.modality, **fields}
        reply = requests.post(f"{self.sandbox_url}/_sandbox/orders", json=body, timeout=10)
        reply.raise_for_status()
        return dict(reply.json())

    def faults(self, *faults: dict[str, Any]) -> None:
        """Let the sandbox misbehave."""
        requests.post(f"{self.sandbox_url}/_sandbox/faults", json=list(faults), timeout=10).raise_for_status()

    def faults_met(self) -> list[dict[str, Any]]:
        """Return the sandbox's faults with how often each has struck ("hits")."""
        return list(requests.get(f"{self.sandbox_url}/_sandbox/faults", timeout=10).json())

    def clear_faults(self) -> None:
        """Let the sandbox behave again."""
        requests.delete(f"{self.sandbox_url}/_sandbox/faults", timeout=10).raise_for_status()

    def state(self) -> dict[str, Any]:
        """Return the sandbox's /_sandbox/state."""
        return dict(requests.get(f"{self.sandbox_url}/_sandbox/state", timeout=30).json())

    def count_delivered(self) -> int:
        """Return how many instances the sandbox holds."""
        return int(requests.get(f"{self.sandbox_url}/_sandbox/counts", timeout=30).json()["instances"])

    def queue(self, *options: str) -> list[dict[str, Any]]:
        """Return what `main.py queue --json` prints, in this process: it is asked several times a second."""
        said, trouble = io.StringIO(), io.StringIO()
        with redirect_stdout(said), redirect_stderr(trouble):
            status = main(["queue", "--json", *options, "--config", str(self.config)])
        if status != 0:
            raise AssertionError(trouble.getvalue())
        return list(json.loads(said.getvalue()))

    def unfinished(self) -> list[dict[str, Any]]:
        """Return the jobs that are not done (nor cancelled), however many there are."""
        states = ("queued", "active", "deferred", "waiting", "held")
        return [row for state in states for row in self.queue("--state", state)]

    def job_of(self, study: Study) -> dict[str, Any] | None:
        """Return the satusehat job of `study`, if it has one."""
        rows = [row for row in self.queue() if row["study_uid"] == study.study_uid and row["lane"] == "satusehat"]
        return rows[0] if rows else None

    def wait_state(self, study: Study, state: str, timeout_s: float = 40, code: str | None = None) -> dict[str, Any]:
        """Wait until the study's job is in `state` (and has `code`), and return it."""

        def reached() -> dict[str, Any] | None:
            job = self.job_of(study)
            return job if job and job["state"] == state and code in (None, job["reason_code"]) else None

        try:
            return dict(wait_for(reached, timeout_s, f"{study.accession_number} {state} {code or ''}", every_s=0.2))
        except AssertionError as error:
            raise AssertionError(f"{error}; now {self.job_of(study)}\n{self.log()[-3000:]}") from None

    def storescu(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run DCMTK's storescu against the router."""
        return subprocess.run(
            ["storescu", "--call", "DCMROUTER", *arguments[:-1], "127.0.0.1", str(self.dicom_port), arguments[-1]],
            capture_output=True, text=True, timeout=60, check=False, env=DCMTK_ENVIRONMENT,
        )

    def roles(self) -> dict[str, psutil.Process]:
        """Return the router's processes by role, the supervisor as "main"."""
        assert self.router_process is not None
        parent = psutil.Process(self.router_process.pid)
        found = {"main": parent}
        for child in parent.children(recursive=True):
            try:
                command = child.cmdline()
            except psutil.Error:
                continue
            if "--role" in command:
                role = command[command.index("--role") + 1]
                slot = command[command.index("--slot") + 1] if "--slot" in command else ""
                found[role + slot] = child
        return found

    def stop_router(self, timeout_s: float = 30) -> int:
        """SIGTERM, and return the exit status."""
        assert self.router_process is not None
        self.router_process.terminate()
        return self.router_process.wait(timeout_s)

    def kill_router(self) -> None:
        """SIGKILL to the supervisor; waits until every role has noticed and left."""
        assert self.router_process is not None
        children = psutil.Process(self.router_process.pid).children(recursive=True)
        self.router_process.kill()
        self.router_process.wait()
        psutil.wait_procs(children, timeout=30)

    def close(self) -> None:
        """End whatever this rig started."""
        for process in (self.router_process, self.sandbox_process):
            if process is not None and process.poll() is None:
                children = psutil.Process(process.pid).children(recursive=True)
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                for child in psutil.wait_procs(children, timeout=10)[1]:
                    child.kill()
        shutil.rmtree(self.folder / "sandbox", ignore_errors=True)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def send_until_acknowledged(
    port: int, images: Sequence[Image], *, deadline_s: float, acknowledged: Callable[[Image], None]
) -> None:
    """Send `images` over as many associations as it takes; `acknowledged` is called right after each 0x0000.

    What a modality does: after a lost association it connects again and repeats what was not acknowledged.
    """
    left = list(images)
    deadline = time.monotonic() + deadline_s
    while left and time.monotonic() < deadline:
        ae = AE(ae_title="MODALITY")
        ae.add_requested_context(CTImageStorage)
        ae.add_requested_context(Verification)
        ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
        association = ae.associate("127.0.0.1", port, ae_title="DCMROUTER")
        if not association.is_established:
            time.sleep(0.1)
            continue
        while left and association.is_established:
            try:
                status = association.send_c_store(str(left[0].path))
            except (RuntimeError, ValueError):
                break
            if getattr(status, "Status", None) == 0x0000:
                acknowledged(left.pop(0))
            elif not status:
                break
        if association.is_established:
            association.release()
    assert not left, f"{len(left)} images were never acknowledged"


def check_oracle(rig: Rig, studies: Iterable[Study], acknowledged: Iterable[Image]) -> dict[str, Any]:
    """Nothing lost, nothing invented, nothing twice: compare what senders were told with what the sandbox holds."""
    state = rig.state()
    sent = {image.sop_uid for study in studies for image in study.images}
    wrongs = find_wrongs(state, Told(list(acknowledged), sent))
    assert not wrongs, f"{len(wrongs)} wrongs, such as {wrongs[:5]}"
    return state
