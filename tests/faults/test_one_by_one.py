"""Faults that stop the whole lane or the whole router: one after another, each with a study of its own."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest
import requests

from internal.store import Store
from tests.faults.conftest import Keep
from tests.faults.oracle import find_wrongs
from tests.faults.stand import Fault, Stand, Verdict, wait_done
from tests.system.images import Study
from tests.system.rig import ROOT, wait_for

TOKEN = {"method": "POST", "path": "/oauth2"}
ORDER = {"method": "GET", "path": "/fhir-r4/v1/ServiceRequest"}
PUSH = {"method": "POST", "path": "/dicom"}
Act = Callable[[Stand, Study], None]

LOCKER = """
import sys, apsw
db = apsw.Connection(sys.argv[1]); db.setbusytimeout(5000)
db.execute(sys.argv[2])
print("held", flush=True); sys.stdin.read()
"""


def bring(stand: Stand, id_: str, text: str, act: Act, images: int = 3) -> Verdict:
    """Let one fault happen to a study of its own and judge everything that has been sent so far."""
    fault = Fault(id_, text, images=images)
    study = stand.make(fault)
    try:
        act(stand, study)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        _recover(stand)
        return Verdict(id_, text, f"{error}"[:300])
    wrongs = find_wrongs(stand.rig.state(), stand.told())
    return Verdict(id_, text, "; ".join(wrongs[:3]) or "survived")


def _recover(stand: Stand) -> None:
    """Give the next fault what this one has left broken."""
    process = stand.rig.sandbox_process
    if process is None or process.poll() is not None:
        stand.rig.start_sandbox("--allow-duplicates", "--index-delay", "1")
    stand.rig.clear_faults()
    if not stand.rig.is_ready():
        stand.rig.kill_router()
        stand.rig.start_router()


def deferred(stand: Stand, study: Study, *codes: str) -> None:
    """Wait until the study waits for a fault with one of these codes to pass."""

    def reached() -> bool:
        return any(row.state == "deferred" and row.reason_code in codes for row in stand.jobs_of(study))

    try:
        wait_for(reached, 20, f"{study.accession_number} deferred as {codes}", every_s=0.2)
    except AssertionError as error:
        now = [(str(row.state), row.reason_code) for row in stand.jobs_of(study)]
        raise AssertionError(f"{error}; now {now}") from None


def lane_wide(*codes: str, **fault: object) -> Act:
    """Return an act: a fault of the platform stops the lane, passes, and a person opens the lane at once."""

    def act(stand: Stand, study: Study) -> None:
        stand.order(study.accession_number)
        stand.rig.faults(fault)
        requests.post(f"{stand.rig.sandbox_url}/_sandbox/tokens/revoke", timeout=10)
        stand.send_all(study)
        deferred(stand, study, *codes)
        stand.rig.clear_faults()
        stand.resume()
        stand.rig.run("retry", study.study_uid)
        wait_done(stand, study)

    return act


def absurd_pause(stand: Stand, study: Study) -> None:
    """A Retry-After of 30 years pauses the lane for an hour at most."""
    stand.order(study.accession_number)
    stand.rig.faults({**ORDER, "status": 429, "headers": {"Retry-After": "1000000000"}})
    stand.send_all(study)
    deferred(stand, study, "http-429")
    ahead_s = max(row.due_at for row in stand.jobs_of(study)) / 1000 - time.time()
    assert 0 < ahead_s <= 3600, f"paused for {ahead_s:.0f} s"
    stand.rig.clear_faults()
    assert stand.rig.stop_router() == 0
    stand.rig.start_router()
    stand.resume()
    assert stand.rig.run("send-now", study.study_uid).returncode == 0
    wait_done(stand, study)


def platform_down(stand: Stand, study: Study) -> None:
    stand.order(study.accession_number)
    process = stand.rig.sandbox_process
    assert process is not None
    process.terminate()
    process.wait(20)
    stand.send_all(study)
    deferred(stand, study, "connect", "reset")
    stand.rig.start_sandbox("--allow-duplicates", "--index-delay", "1")
    wait_done(stand, study)


def revoked_for_all(stand: Stand, study: Study) -> None:
    """Every worker meets the 401 at once; one new token is asked for."""
    others = [study, *(stand.make(Fault(f"D5N{number}", "")) for number in range(4))]
    for one in others:
        stand.order(one.accession_number)
    before = stand.rig.state()["requests"]["POST /oauth2/v1/accesstoken"]
    requests.post(f"{stand.rig.sandbox_url}/_sandbox/tokens/revoke", timeout=10)
    for one in others:
        stand.send_all(one)
    for one in others:
        wait_done(stand, one)
    asked = stand.rig.state()["requests"]["POST /oauth2/v1/accesstoken"] - before
    assert asked == 1, f"{asked} tokens were asked for"


@contextmanager
def holding(stand: Stand, statement: str) -> Iterator[None]:
    """Let another process hold the database with `statement`."""
    path = str(stand.data / "index.db")
    with subprocess.Popen([sys.executable, "-c", LOCKER, path, statement], cwd=ROOT, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout and process.stdout.readline() == "held\n"
        yield
        process.stdin.close()
        process.wait(10)


def locked(stand: Stand, study: Study) -> None:
    """Images are accepted without a database; the index catches up."""
    stand.order(study.accession_number)
    with holding(stand, "BEGIN EXCLUSIVE"):
        stand.send_all(study)
    wait_done(stand, study)


def long_reader(stand: Stand, study: Study) -> None:
    stand.order(study.accession_number)
    with holding(stand, "BEGIN; SELECT COUNT(*) FROM instance"):
        stand.send_all(study)
        wait_done(stand, study)


def killed(role: str) -> Act:
    """Return an act: kill -9 of one role in the middle of sending."""

    def act(stand: Stand, study: Study) -> None:
        stand.order(study.accession_number)
        stand.store(study.images[:1])
        stand.rig.roles()[role].kill()
        stand.send_all(study)
        wait_done(stand, study)
        wait_for(stand.rig.is_ready, 30, "every role is back")

    return act


def term_under_load(stand: Stand, study: Study) -> None:
    """SIGTERM while images come in and others go out: exit status 0 within the limit, nothing lost."""
    stand.order(study.accession_number)
    sender = threading.Thread(target=lambda: stand.store(study.images))
    sender.start()
    wait_for(lambda: any(image in stand.acknowledged for image in study.images), 20, "one is in", every_s=0.01)
    status = stand.rig.stop_router(timeout_s=25)
    sender.join(20)
    assert status == 0, f"exit status {status}"
    stand.rig.start_router()
    stand.send_all(study)
    wait_done(stand, study)


def half_open(stand: Stand, study: Study) -> None:
    """SIGTERM while sockets are open that never say a word or have said one byte."""
    sockets = [socket.create_connection(("127.0.0.1", stand.rig.dicom_port)) for _ in range(8)]
    for one in sockets[::2]:
        one.sendall(b"\x01")
    status = stand.rig.stop_router(timeout_s=25)
    for one in sockets:
        one.close()
    assert status == 0, f"exit status {status}"
    stand.rig.start_router()
    deliver(stand, study)


def term_twice(stand: Stand, study: Study) -> None:
    process = stand.rig.router_process
    assert process is not None
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.wait(25)
    assert not psutil.wait_procs(children, timeout=25)[1], "a role stayed behind"
    stand.rig.start_router()
    deliver(stand, study)


def two_copies(stand: Stand, study: Study) -> None:
    second = stand.rig.run("run", timeout_s=60)
    assert second.returncode == 2 and second.stderr.strip(), (second.returncode, second.stderr[-300:])
    assert "Traceback" not in second.stderr
    deliver(stand, study)


def stale_locks(stand: Stand, study: Study) -> None:
    """What a killed router leaves behind does not keep the next one from starting."""
    stand.order(study.accession_number)
    stand.send_all(study)
    stand.rig.kill_router()
    stand.rig.start_router()
    wait_done(stand, study)


def deliver(stand: Stand, study: Study) -> None:
    """What a router that works does."""
    stand.order(study.accession_number)
    stand.send_all(study)
    wait_done(stand, study)


def lost_log(stand: Stand, study: Study) -> None:
    """The database's log is deleted while the router is stopped: rows are rebuilt from the files."""
    deliver(stand, study)
    stand.rig.kill_router()
    for file in (stand.data).glob("index.db-*"):
        file.unlink()
    rebuild(stand)
    wait_done(stand, study)


def damaged(stand: Stand, study: Study) -> None:
    """4 KB of the database are overwritten: it is set aside by a person and rebuilt from the files."""
    deliver(stand, study)
    stand.rig.kill_router()
    database = stand.data / "index.db"
    store = Store.open(stand.store_url())
    store.checkpoint()
    store.close()
    data = bytearray(database.read_bytes())
    data[5 * 4096:6 * 4096] = b"\xa5" * 4096
    database.write_bytes(data)
    for file in (stand.data).glob("index.db*"):
        file.unlink()
    rebuild(stand)
    wait_done(stand, study)


def rebuild(stand: Stand) -> None:
    reply = stand.rig.run("reindex")
    assert reply.returncode == 0, reply.stderr
    stand.rig.start_router()


LANE_WIDE = [
    ("D2a", "token endpoint answers 500", lane_wide("token-http-500", status=500, **TOKEN)),
    ("D2b", "token endpoint answers a web page with 200",
     lane_wide("token-reply-not-understood", status=200, body="<html>login</html>", **TOKEN)),
    ("D2c", "token endpoint does not answer", lane_wide("timeout", delay_s=5, **TOKEN)),
    ("D5", "every worker meets a dead token at once: one is asked for", revoked_for_all),
    ("D7", "403 web page of a firewall", lane_wide("http-403", status=403, **PUSH)),
    ("D8", "404 with an empty body", lane_wide("http-404", status=404, body="", **ORDER)),
    ("D16", "the platform is down, then up", platform_down),
    ("D13d", "429 with an absurd Retry-After", absurd_pause),
]

DATABASE = [
    ("C1", "another process locks the database", locked),
    ("C10", "a reader keeps a transaction open", long_reader),
    ("C4", "the database's log is deleted", lost_log),
    ("C2", "the database is damaged and rebuilt from the files", damaged),
]

PROCESSES = [
    ("A15a", "kill -9 of the deliver role", killed("deliver")),
    ("A15b", "kill -9 of a receiving child's gate", killed("receive")),
    ("A15c", "kill -9 of the web role", killed("web")),
    ("A16", "SIGTERM under load", term_under_load),
    ("A17", "SIGTERM with half-open peers", half_open),
    ("A18", "SIGTERM and SIGINT at once", term_twice),
    ("A22", "a second copy on the same data folder", two_copies),
    ("A23", "locks left behind by kill -9", stale_locks),
]

GROUPS = {"lane": LANE_WIDE, "database": DATABASE, "processes": PROCESSES}


@pytest.mark.long(seconds=40)
@pytest.mark.timeout(400)
@pytest.mark.parametrize("group", GROUPS)
def test_one_by_one(stand: Stand, keep: Keep, group: str) -> None:
    stand.start()
    keep([bring(stand, id_, text, act) for id_, text, act in GROUPS[group]])


# --- death at a named point ------------------------------------------------------------------------------------------

#: What the supervisor, or the gate of the receiving processes, says of one that was killed.
DEATH = re.compile(r"Role ended; it is started again|receive process \d+ ended")

#: id: failpoint (with what leads there), nth hit, role that dies, what has just been done
POINTS = {
    "A1": ("recv.mid", 1, "receive0", "PDVs of an image are coming in"),
    "A2": ("store.after_write", 2, "receive0", "written, not synced"),
    "A3": ("store.after_fsync", 2, "receive0", "synced, not answered"),
    "A4": ("store.mark:eio,store.after_rename", 2, "receive0", "renamed, folder not synced"),
    "A5": ("store.mark:eio,store.after_dirsync", 2, "receive0", "safe, not answered"),
    "A5a": ("store.before_link", 1, "receive0", "answered, not in new/ yet"),
    "A5b": ("store.after_link", 1, "receive0", "in new/, which is not synced"),
    "A6": ("assoc.after_rsp", 2, "receive0", "answered, study not complete"),
    "A7": ("job.claimed", 1, "deliver", "claimed, nothing asked"),
    "A8a": ("delivery.before_post", 1, "deliver", "intent written, not posted"),
    "A8b": ("delivery.after_post", 1, "deliver", "posted, id not written down"),
    "A10c": ("push.marked_sent", 1, "deliver", "marked as sent, not one byte left"),
    "A10a": ("push.mid", 3, "deliver", "pushes are half way"),
    "A10b": ("push.after_answer", 1, "deliver", "answered, receipt not written down"),
    "A11": ("study.before_done", 1, "deliver", "all there, not called done"),
    "A13": ("recover.mid", 1, "deliver", "recovering at start, again and again"),
}


def die_at(stand: Stand, study: Study, point: str, nth: int) -> None:
    """Run a router that dies at one point until it has, then one that does not, and deliver."""
    fault, before = f"{point}:kill9:{nth}", len(stand.rig.log())
    stand.rig.start_router(environment={"ROUTER_FAULT": fault}, until=stand.rig.accepts_images)
    stand.order(study.accession_number)
    stand.store(study.images)
    wait_for(lambda: DEATH.search(stand.rig.log(), before), 30, f"something died at {point}", every_s=0.2)
    stand.rig.kill_router()
    stand.rig.start_router()
    stand.send_all(study)
    wait_done(stand, study)


@pytest.mark.long(seconds=120)
@pytest.mark.timeout(900)
def test_death_at_every_point(stand: Stand, keep: Keep) -> None:
    stand.start()
    verdicts = []
    for id_, (point, nth, _, text) in POINTS.items():
        stand.rig.kill_router()
        verdicts.append(bring(stand, id_, f"kill -9: {text}", lambda s, study, p=point, n=nth: die_at(s, study, p, n)))
        if not verdicts[-1].survived:
            stand.rig.kill_router()
            stand.rig.start_router()
    keep(verdicts)
