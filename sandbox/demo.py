"""The demo: sandbox and router as processes, orders, real images, and the proof that every one of them arrived.

`make demo` runs it (`python -m sandbox.demo [--once]`). It imports nothing of the router: it drives `main.py` as a
user would and asks the sandbox what it holds. Everything lies in `.demo/`. Changes when a newcomer should see more.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import requests
from rich import box
from rich.console import Console
from rich.table import Table

from sandbox.processes import (
    ROOT,
    DemoFailed,
    Process,
    claim_folder,
    clean_environment,
    command_line,
    free_port,
    listens,
    wait_for,
)
from sandbox.samples import SamplesMissing, SampleStudy, make_samples

TIMEOUT_S = 180.0
LATE_ORDER_S = 20.0
ORGANIZATION = "100099001"
AE_TITLE = "DCMROUTER"

CONFIG = """\
# Written by the demo; a real router.conf starts from router.conf.template.
[satusehat]
organization_id = {organization}
client_key = sandbox-client
secret_key = sandbox-secret
url = http://127.0.0.1:{sandbox}
ae_title = {ae_title}
dicom_port = {dicom}
http_port = {http}

[router]
data_dir = data
settle = 2s
settle_cr_dx = 1s
order_poll_min = 2s

[spool]
min_free = 64MB
"""


@dataclass
class Ports:
    """The ports of this demo; each is the usual one unless that is taken."""

    sandbox: int
    dicom: int
    http: int


@dataclass
class Demo:
    """One run in `folder`; `studies` (sent by the demo) and `more` (left to the person) are filled by `prepare`."""

    folder: Path
    console: Console
    ports: Ports
    deadline: float
    processes: list[Process] = field(default_factory=list)
    studies: list[SampleStudy] = field(default_factory=list)
    more: list[SampleStudy] = field(default_factory=list)

    @property
    def config(self) -> Path:
        """The throwaway router.conf."""
        return self.folder / "router.conf"

    def start(self) -> None:
        """Start sandbox and router and return when both accept."""
        self.config.write_text(CONFIG.format(organization=ORGANIZATION, ae_title=AE_TITLE, **vars(self.ports)))
        self.config.chmod(0o600)
        port = str(self.ports.sandbox)
        sandbox = Process(
            "sandbox",
            ["sandbox", "--port", port, "--data", str(self.folder / "sandbox")],
            self.folder / "sandbox.log",
        )
        self.processes.append(sandbox)
        wait_for("the sandbox", lambda: listens(self.ports.sandbox), self.processes, self.deadline)
        router = Process("router", ["run", "-v", "--config", str(self.config)], self.folder / "router.log")
        self.processes.append(router)
        wait_for("the router", self._router_ready, self.processes, self.deadline)

    def _router_ready(self) -> bool:
        try:
            with _session() as session:
                ready = session.get(f"http://127.0.0.1:{self.ports.http}/health/ready", timeout=2).status_code == 200
        except requests.RequestException:
            return False
        return ready and listens(self.ports.dicom)

    def stop(self) -> None:
        """Stop what was started, the router first."""
        for process in reversed(self.processes):
            process.stop()

    def prepare(self) -> None:
        """Write the sample studies and register an order for each but the last; two more are for the person to send."""
        self.studies = make_samples(self.folder / "samples")
        self.more = make_samples(self.folder / "more", 2)
        for study in [*self.studies[:-1], *self.more]:
            self.register_order(study)

    def register_order(self, study: SampleStudy) -> None:
        """Create Patient, Encounter and ServiceRequest of `study` at the sandbox."""
        born = study.birth_date
        order = {
            "accession_number": study.accession_number,
            "modality": study.modality,
            "name": " ".join(reversed(study.patient_name.split("^"))),
            "gender": {"M": "male", "F": "female"}[study.sex],
            "birth_date": f"{born[:4]}-{born[4:6]}-{born[6:]}",
        }
        with _session() as session:
            reply = session.post(self._sandbox_url("orders"), json=order, timeout=10)
        if not reply.ok:
            raise DemoFailed(f"the sandbox refused an order ({reply.status_code}): {reply.text[:200]}")

    def _sandbox_url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports.sandbox}/_sandbox/{name}"

    def send(self) -> None:
        """Send every sample with the router's own sender, whose progress bar is shown."""
        command = command_line(
            *["send", "127.0.0.1", str(self.ports.dicom), str(self.folder / "samples")],
            *["--calling", "DEMO", "--called", AE_TITLE, "--config", str(self.config)],
        )
        left = max(1.0, self.deadline - time.monotonic())
        done = subprocess.run(command, env=clean_environment(os.environ), timeout=left, check=False)
        if done.returncode:
            raise DemoFailed(f"`main.py send` ended with exit code {done.returncode}")

    def queue(self) -> dict[str, dict[str, Any]]:
        """Return the router's jobs for SATUSEHAT, by accession number."""
        command = command_line("queue", "--json", "--config", str(self.config))
        done = subprocess.run(
            command, env=clean_environment(os.environ), capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise DemoFailed(f"`main.py queue --json` failed: {done.stderr.strip()[-300:]}")
        return {job["accession_number"]: job for job in json.loads(done.stdout)}

    def deliver(self) -> dict[str, dict[str, Any]]:
        """Wait until every study is done; the order of the last one comes only after its images have waited."""
        late, jobs, sent_at = self.studies[-1], self.queue(), time.monotonic()
        ordered = False
        with self.console.status("delivering ...") as status:
            while not all(jobs.get(study.accession_number, {}).get("state") == "done" for study in self.studies):
                for process in self.processes:
                    process.check()
                if time.monotonic() > self.deadline:
                    raise DemoFailed(f"not delivered in {TIMEOUT_S:.0f} s: {self._unfinished(jobs)}")
                job = jobs.get(late.accession_number, {})
                if not ordered and (job.get("state") == "waiting" or time.monotonic() > sent_at + LATE_ORDER_S):
                    self._order_late(late, job)
                    ordered = True
                status.update(f"delivering ... {self._progress(jobs)}")
                time.sleep(0.3)
                jobs = self.queue()
        return jobs

    def _order_late(self, study: SampleStudy, job: dict[str, Any]) -> None:
        self.console.print(
            f"[yellow]{study.accession_number}[/] has images but no order yet: "
            f"{job.get('state', 'not indexed')} ({job.get('reason', '')}). Registering its order now."
        )
        self.register_order(study)

    def _progress(self, jobs: dict[str, dict[str, Any]]) -> str:
        states = [jobs.get(study.accession_number, {}).get("state", "settling") for study in self.studies]
        return ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))

    def _unfinished(self, jobs: dict[str, dict[str, Any]]) -> str:
        parts = []
        for study in self.studies:
            job = jobs.get(study.accession_number, {"state": "not in the queue"})
            if job["state"] != "done":
                parts.append(f"{study.accession_number} is {job['state']} ({job.get('reason', '')})")
        return "; ".join(parts)

    def verify(self, jobs: dict[str, dict[str, Any]]) -> list[str]:
        """Print the table and return what is not at the sandbox as it was sent; empty means all is well."""
        with _session() as session:
            state = session.get(self._sandbox_url("state"), timeout=30).json()
        table = Table(title="What arrived at the sandbox", title_justify="left", box=box.SIMPLE)
        table.add_column("accession", no_wrap=True)
        for heading in ("modality", "instances sent", "arrived"):
            table.add_column(heading)
        table.add_column("ImagingStudy id", overflow="fold")
        table.add_column("state", no_wrap=True)
        problems: list[str] = []
        for study in self.studies:
            job = jobs[study.accession_number]
            found = missing_instances(study, job["imaging_study_id"], state)
            problems += found
            arrived = f"{len(study.files) - len(found)} of {len(study.files)}"
            row = [study.accession_number, study.modality, str(len(study.files)), arrived]
            table.add_row(*row, str(job["imaging_study_id"]), job["state"])
        self.console.print(table)
        return problems

    def explain(self) -> None:
        """Say where to look and what to send next, with the ports in use."""
        python, config = _shown(Path(sys.executable)), _shown(self.config)
        first, second = (_shown(self.folder / "more" / study.accession_number) for study in self.more)
        order = '{"accession_number": "MY-ORDER-1"}'
        login = _shown(self.folder / "data" / "first-login.txt")
        self.console.print(
            "\n[bold]The router and the sandbox stay up.[/]  Ctrl-C stops both.\n\n"
            f"The pages                http://127.0.0.1:{self.ports.http}   (name and password: {login})\n"
            f"What the router did      {python} main.py queue --config {config}\n"
            f"One study in words       {python} main.py show {self.studies[0].accession_number} --config {config}\n"
            f"Is everything all right  {python} main.py check --config {config}\n"
            f"What the sandbox holds   curl {self._sandbox_url('state')}\n"
            f"Logs                     {_shown(self.folder)}/router.log, {_shown(self.folder)}/sandbox.log\n\n"
            "Send more; these two studies have their orders:\n\n"
            f"  {python} main.py send 127.0.0.1 {self.ports.dicom} {first} --called {AE_TITLE}\n"
            f"  storescu --call {AE_TITLE} -xv 127.0.0.1 {self.ports.dicom} --scan-directories --recurse {second}\n\n"
            "An image of your own waits until the sandbox has an order with its accession number:\n\n"
            f"  curl -X POST {self._sandbox_url('orders')} -d '{order}'\n",
            highlight=False,
            soft_wrap=True,
        )

    def stay(self) -> NoReturn:
        """Keep running until Ctrl-C; DemoFailed if a process ends."""
        while True:
            for process in self.processes:
                process.check()
            time.sleep(0.5)


def missing_instances(study: SampleStudy, imaging_study_id: str, state: dict[str, Any]) -> list[str]:
    """Return one line for each file of `study` that is not held with its own bytes and listed in its ImagingStudy."""
    held = {instance["sop_uid"]: instance for instance in state["instances"]}
    resources = {resource["id"]: resource for resource in state["resources"].get("ImagingStudy", [])}
    series = resources.get(imaging_study_id, {}).get("series", [])
    listed = {instance["uid"] for one in series for instance in one.get("instance", [])}
    problems = []
    for file in study.files:
        instance = held.get(file.sop_uid)
        if instance is None:
            problems.append(f"{file.path} is not at the sandbox")
        elif instance["dataset_sha256"] != file.dataset_sha256:
            problems.append(f"{file.path} has other bytes at the sandbox")
        elif file.sop_uid not in listed:
            problems.append(f"{file.path} is not listed in ImagingStudy {imaging_study_id}")
    return problems


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # no proxy between us and the loopback
    return session


def _shown(path: Path) -> str:
    """Return `path` as a person types it from the repository's folder (symbolic links kept)."""
    absolute = path.absolute()
    return str(absolute.relative_to(ROOT)) if absolute.is_relative_to(ROOT) else str(absolute)


def _choose_ports(console: Console) -> Ports:
    taken: list[int] = []
    for name, usual in (("sandbox", 8899), ("DICOM", 11112), ("HTTP", 8080)):
        taken.append(free_port(usual, taken))
        if taken[-1] != usual:
            console.print(f"Port {usual} ({name}) is in use; this demo takes {taken[-1]}.")
    return Ports(*taken)


def run(once: bool, console: Console) -> int:
    """Run the demo; with `once` return 0 when every instance is confirmed at the sandbox, else 1 with the reason."""
    folder = claim_folder(ROOT / ".demo")
    if folder.borrowed:
        console.print(f"Another demo is running; this one uses {folder.path}", soft_wrap=True)
    demo = Demo(folder.path, console, _choose_ports(console), time.monotonic() + TIMEOUT_S)
    try:
        console.print(f"Starting the sandbox (port {demo.ports.sandbox}) and the router (DICOM {demo.ports.dicom}) ...")
        demo.start()
        demo.prepare()
        count = sum(len(study.files) for study in demo.studies)
        console.print(f"Sending {len(demo.studies)} studies of invented patients, {count} images:")
        demo.send()
        if problems := demo.verify(demo.deliver()):
            raise DemoFailed("\n".join(problems))
        console.print(f"[green]All {count} images are at the sandbox, byte for byte.[/]")
        if not once:
            demo.explain()
            demo.stay()
    except (DemoFailed, SamplesMissing, subprocess.TimeoutExpired, requests.RequestException) as failure:
        _report(console, demo, failure)
        return 1
    except KeyboardInterrupt:
        console.print("Stopping ...")
        return 130 if once else 0
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave a router behind
        demo.stop()
        folder.release()
    return 0


def _report(console: Console, demo: Demo, failure: Exception) -> None:
    for process in demo.processes:
        console.print(f"--- last lines of {process.log}", highlight=False)
        console.print("\n".join(process.tail(25)), markup=False, highlight=False, soft_wrap=True)
    console.print(f"[red]The demo failed:[/] {failure}", highlight=False, soft_wrap=True)


def _interrupt(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo from the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.demo", description="See the router work.")
    parser.add_argument("--once", action="store_true", help="check that everything arrives, then exit 0 or 1")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    return run(args.once, Console(width=None if sys.stdout.isatty() else 120))


if __name__ == "__main__":
    sys.exit(main())
