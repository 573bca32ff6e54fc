"""How fast the pages are with a hospital's index of years: each page through real HTTP with a session, p95 in ms.

`python -m bench.pages` builds 200,000 studies with 5 million images in a temporary folder (about 5 GB, a minute or
two), starts the web role on it and asks every page in turn. Changes when a page is added.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests

from bench import hospital, stand
from interface.http.health import ROLES
from internal import passwords, users
from internal.store import Store
from internal.users import Role

BAR_MS = 200.0
PASSWORD = "a bench without patients"
_WARM_UP = 2
_LONG_MS = 3_600_000
Ask = Callable[["Browser", int], requests.Response]


class Browser:
    """One session with the running web role."""

    def __init__(self, url: str, process: psutil.Process) -> None:
        self.url = url
        self.process = process
        self.session = requests.Session()
        self.session.trust_env = False
        self.csrf = ""
        self.post("/login", name="bench", password=PASSWORD)
        self.csrf = _csrf(self.get("/studies").text)

    def get(self, path: str) -> requests.Response:
        """Ask for a page."""
        return self.session.get(self.url + path, timeout=60)

    def post(self, path: str, **form: str) -> requests.Response:
        """Send a form."""
        return self.session.post(self.url + path, data={"csrf": self.csrf, **form}, timeout=60)


def _csrf(html: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', html)
    if found is None:
        raise RuntimeError("not logged in")
    return found[1]


def _get(path: str) -> Ask:
    return lambda browser, number: browser.get(path.format(uid=f"2.25.{10**30 + 977 * number + 31}"))


def _receipt(browser: Browser, number: int) -> requests.Response:
    at = 977 * number + 31
    return browser.get(f"/studies/2.25.{10**30 + at}/jobs/{at + 1}/receipt")


def _search(**form: str) -> Ask:
    return lambda browser, number: browser.post(
        "/studies", **{key: value.format(n=977 * number, name=hospital.FIRST[number % len(hospital.FIRST)][:4])
                       for key, value in form.items()})


PAGES: dict[str, Ask] = {
    "Today": _get("/"), "Today, live part": _get("/today/live"), "Studies, newest": _get("/studies"),
    "Studies by accession": _search(text="ACC{n}"), "Studies by Patient ID": _search(text="RM{n}"),
    "Studies by name": _search(text="{name}"), "Studies by two names": _search(text="{name} wibo"),
    "Studies by modality": _search(modality="MG"),
    "Studies by device and modality": _search(caller="CT1", modality="MR"),
    "Studies held": _search(state="held"), "Studies waiting": _search(state="waiting", modality="US"),
    "Studies of a month": _search(first="2000-01-01", last="2100-01-01", modality="XA"),
    "Study": _get("/studies/{uid}"), "Study, live part": _get("/studies/{uid}/live"),
    "Receipt": _receipt,
    "Waiting room": _get("/waiting"), "Waiting room, one cause": _get("/waiting?reason=no-order&lane=satusehat"),
    "Held": _get("/held"), "Destinations": _get("/destinations"), "Devices": _get("/devices"),
    "Rules": _get("/rules"), "Try the rules": _get("/rules/test"),
    "Settings": _get("/settings"), "Audit trail": _get("/audit"), "Users": _get("/users"), "Login": _get("/login"),
}


def measure(browser: Browser, ask: Ask, rounds: int) -> list[float]:
    """Return how long each round took, in ms; RuntimeError for an answer that is no page."""
    took = []
    for number in range(rounds + _WARM_UP):
        began_s = time.perf_counter()
        answer = ask(browser, number)
        took.append((time.perf_counter() - began_s) * 1000)
        if answer.status_code != 200 or ("</html>" not in answer.text and "<section" not in answer.text):
            raise RuntimeError(f"{answer.url}: {answer.status_code}")
    return took[_WARM_UP:]


@contextmanager
def served(folder: Path, studies: int, days: int = hospital.DAYS) -> Iterator[Browser]:
    """Build the hospital in `folder`, run the web role on it, and log in."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    router = stand.Router(folder / "router", 9, http_port=port)
    with router.config.open("a") as config:
        config.write("[http]\nrequests_per_minute = 1000000\n")
    database = router.store_url()
    built_s = hospital.build(Path(database.removeprefix("sqlite://")), studies=studies, days=days)
    sys.stderr.write(f"{studies:,} studies, {studies * hospital.IMAGES_PER_STUDY:,} images in {built_s:.0f} s\n")
    store = Store.open(database)
    with store.transaction() as tx:
        users.add_user(tx, "bench", Role.ADMIN, passwords.hash_password(PASSWORD), author="bench",
                       now=int(time.time() * 1000), must_change=False)
    store.close()
    command = [sys.executable, str(stand.ROOT / "main.py"), "run", "--role", "web", "--config", str(router.config)]
    with router.log.open("ab") as log, \
            stand.ended(subprocess.Popen(command, cwd=stand.ROOT, stdout=log, stderr=log, text=True)) as process:
        url = f"http://127.0.0.1:{port}"
        stand.wait_until(lambda: _answers(url), 30)
        _pretend_roles(router)
        yield Browser(url, psutil.Process(process.pid))


def _pretend_roles(router: stand.Router) -> None:
    """Leave the status files of roles that are not measured here."""
    for role in ROLES:
        status = {"alive_at": int(time.time() * 1000) + _LONG_MS, "listening": True}
        router.spool.publish(f"{role}.json", json.dumps(status).encode())


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/health/live", timeout=5).ok
    except requests.ConnectionError:
        return False


def main() -> int:
    """Print one row for each page; 1 where one is slower than the bar."""
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description="Measure every page.")
    parser.add_argument("--studies", type=int, default=hospital.STUDIES)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-pages-") as folder, served(Path(folder), options.studies) as browser:
        for name, ask in PAGES.items():
            before = browser.process.cpu_times()
            took = measure(browser, ask, options.rounds)
            after = browser.process.cpu_times()
            cpu_s = after.user + after.system - before.user - before.system
            p95 = statistics.quantiles(took, n=20)[-1]
            rows.append({"page": name, "median": f"{statistics.median(took):.0f} ms", "p95": f"{p95:.0f} ms",
                         "CPU each": f"{cpu_s * 1000 / (options.rounds + _WARM_UP):.0f} ms",
                         "bar": f"< {BAR_MS:.0f} ms", "holds": "yes" if p95 < BAR_MS else "NO"})
    if options.json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return 0
    for row in rows:
        sys.stdout.write("  ".join(f"{value:<32}" if key == "page" else value for key, value in row.items()) + "\n")
    return int(any(row["holds"] == "NO" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
