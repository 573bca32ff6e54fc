"""Folders on another machine and buckets: conflicts, logins, strangers, and what is told of them."""

from __future__ import annotations

import getpass
import ssl
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from interface import s3 as s3_module
from interface.s3 import S3, S3Options
from interface.sftp import Sftp, SftpOptions
from internal.model import ItemState
from internal.ports import Destination
from internal.states import Finish, Later, Refuse
from tests.contract.destinations.bucket import ACCESS, BUCKET, SECRET, Bucket
from tests.contract.destinations.images import make_instance, new_study_uid
from tests.contract.destinations.memory_work import Ledger, SkewClock, drive, step_once
from tests.contract.destinations.peers import Sshd, free_port, running


def study(destination: Destination, instances: int = 3, **changes: Any) -> Ledger:
    ledger = Ledger(new_study_uid(), "A1", destination.environment)
    ledger.add(make_instance(ledger.study_uid, number, "A1", **changes) for number in range(1, instances + 1))
    return ledger


def other_content(ledger: Ledger) -> Ledger:
    other = Ledger(ledger.study_uid, ledger.part, ledger.environment)
    other.add([make_instance(ledger.study_uid, 1, "A1"), make_instance(ledger.study_uid, 2, "A1", pad=5)])
    return other


# -- sftp ------------------------------------------------------------------------------------------------------------

def sftp(sshd: Sshd, **changes: Any) -> Sftp:
    given: dict[str, Any] = {"key": sshd.folder / "client", "folder": str(sshd.files), "timeout_s": 5.0,
                             "known_hosts": sshd.known_hosts, "port": sshd.port} | changes
    return Sftp(SftpOptions("far", "127.0.0.1", user=getpass.getuser(), **given))


@pytest.mark.sshd
def test_a_file_with_other_content_is_a_conflict_and_stays(sshd: Sshd) -> None:
    to = sftp(sshd)
    ledger = study(to, 2)
    drive(to, ledger, SkewClock())
    other = other_content(ledger)
    outcome = drive(to, other, SkewClock())
    assert isinstance(outcome, Refuse) and "other content" in outcome.reason
    assert other.count() == {ItemState.STORED: 1, ItemState.CONFLICT: 1}
    path = sshd.files / ledger.items[2].answer["path"]
    assert path.read_bytes() == ledger.files[ledger.instances[1].id]
    assert not list(sshd.files.rglob("*.part"))
    to.close()


@pytest.mark.sshd
def test_a_stranger_with_that_address_gets_nothing(sshd: Sshd, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    for known in (sshd.write_known("other"), empty):
        to = sftp(sshd, known_hosts=known)
        outcome = step_once(to, study(to), SkewClock())
        assert isinstance(outcome, Later) and (outcome.code, outcome.blame) == ("sftp-host-key", "lane")
        assert [line.ok for line in to.probe()] == [False]


@pytest.mark.sshd
def test_logins_folders_and_servers_that_do_not_work_say_so(sshd: Sshd) -> None:
    for changes, code in (
        ({"key": sshd.folder / "other"}, "login-refused"), ({"key": None, "password": lambda: "geheim"}, None),
        ({"folder": "/nowhere/at/all"}, "folder-missing"), ({"port": free_port()}, "sftp-connect"),
    ):
        to = sftp(sshd, **changes)
        outcome = step_once(to, study(to), SkewClock())
        assert isinstance(outcome, Later) and outcome.blame == "lane"
        assert code is None or outcome.code == code
        assert "geheim" not in outcome.reason
        assert [line.ok for line in to.probe()] == [False]


@pytest.mark.sshd
def test_a_server_that_went_away_between_two_studies_is_used_again(sshd: Sshd) -> None:
    to = sftp(sshd)
    drive(to, study(to), SkewClock())
    to._local.ssh.get_transport().close()
    assert isinstance(step_once(to, study(to), SkewClock()), Finish)
    to.close()


# -- s3 --------------------------------------------------------------------------------------------------------------

@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with running(Bucket()) as made:
        yield made


def s3(store: Bucket, **changes: Any) -> S3:
    given: dict[str, Any] = {"access_key": lambda: ACCESS, "secret_key": lambda: SECRET, "endpoint": store.url,
                             "bucket": BUCKET, "timeout_s": 5.0} | changes
    return S3(S3Options("cloud", **given))


def test_an_object_with_other_content_is_a_conflict_and_stays(bucket: Bucket) -> None:
    to = s3(bucket)
    ledger = study(to, 2)
    drive(to, ledger, SkewClock())
    before = dict(bucket.objects)
    other = other_content(ledger)
    assert isinstance(drive(to, other, SkewClock()), Refuse)
    assert other.count() == {ItemState.STORED: 1, ItemState.CONFLICT: 1}
    assert bucket.objects == before


def test_a_large_object_goes_in_parts_or_whole_but_never_over_another(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3_module, "_WHOLE_BYTES", 100)
    to = s3(bucket)
    ledger = study(to, 2)
    assert isinstance(drive(to, ledger, SkewClock()), Finish)
    before = dict(bucket.objects)
    assert isinstance(drive(to, other_content(ledger), SkewClock()), Refuse)
    assert bucket.objects == before and len(before) == 2


@pytest.mark.parametrize(("changes", "code"), [
    ({"secret_key": lambda: "wrong-secret-key"}, "login-refused"),
    ({"access_key": lambda: "AKIAWRONG"}, "login-refused"),
    ({"bucket": "lain"}, "s3-no-bucket"), ({"endpoint": "http://127.0.0.1:9"}, "s3-unavailable"),
])
def test_keys_buckets_and_servers_that_do_not_work_say_so(bucket: Bucket, changes: dict[str, Any], code: str) -> None:
    to = s3(bucket, **changes)
    outcome = step_once(to, study(to), SkewClock())
    assert isinstance(outcome, Later) and (outcome.code, outcome.blame) == (code, "lane")
    assert SECRET not in outcome.reason and "wrong-secret-key" not in outcome.reason
    assert bucket.objects == {}
    assert [line.ok for line in to.probe()] == [False]


def test_a_server_that_is_no_object_store_says_so() -> None:
    class Nothing(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_error(404)

        do_GET = do_PUT = do_HEAD = answer  # noqa: N815 - the library's names

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Nothing)
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        to = S3(S3Options("cloud", access_key=lambda: ACCESS, secret_key=lambda: SECRET, bucket=BUCKET, timeout_s=5.0,
                          endpoint=f"http://127.0.0.1:{server.server_port}"))
        assert [line.ok for line in to.probe()] == [False]
        outcome = step_once(to, study(to), SkewClock())
        assert isinstance(outcome, Later) and (outcome.code, outcome.blame) == ("s3-no-bucket", "lane")
    finally:
        server.shutdown()
        server.server_close()


def test_a_store_without_room_is_tried_again(bucket: Bucket) -> None:
    bucket.refuse = (507, "InsufficientStorage")
    to = s3(bucket)
    ledger = study(to)
    outcome = step_once(to, ledger, SkewClock())
    assert isinstance(outcome, Later) and outcome.blame == "lane"
    bucket.refuse = None
    assert isinstance(drive(to, ledger, SkewClock()), Finish)
    assert [line.ok for line in to.probe()] == [True]


def test_an_object_store_over_tls_is_believed_by_its_own_authority_alone(tmp_path: Path) -> None:
    for name in ("server", "other"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                        f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-addext",
                        "basicConstraints=critical,CA:FALSE", "-keyout",
                        str(tmp_path / f"{name}.key"), "-out", str(tmp_path / f"{name}.crt")],
                       check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    both = tmp_path / "both.crt"
    both.write_text((tmp_path / "other.crt").read_text() + (tmp_path / "server.crt").read_text())
    with running(Bucket(tls)) as store:
        for authority in (tmp_path / "server.crt", both):
            to = s3(store, ca_file=authority)
            assert isinstance(drive(to, study(to), SkewClock()), Finish)
        before = dict(store.objects)
        for stranger in (None, tmp_path / "other.crt"):
            to = s3(store, ca_file=stranger)
            outcome = step_once(to, study(to), SkewClock())
            assert isinstance(outcome, Later) and (outcome.code, outcome.blame) == ("s3-unavailable", "lane")
        assert store.objects == before
    gone = s3(store, ca_file=tmp_path / "gone.crt")
    assert [(line.ok, "cannot be read" in line.text) for line in gone.probe()] == [(False, True)]
