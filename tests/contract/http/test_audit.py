"""What people do and look at is in the audit trail, and the trail goes to a repository by syslog."""

from __future__ import annotations

import io
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree as Xml

import apsw
import pytest

from interface.audit_export import Exporter, Wire, syslog_line
from interface.audit_message import render
from interface.cli import main
from interface.cli_tls import make_certificate
from interface.http.actor import Actor
from interface.http.rights import rights_of_role
from internal import audit_trail
from internal.audit_trail import Entry, HeadFile
from internal.errors import NotFound, StorageFailed, StorageFull
from internal.store import Store
from internal.users import Role
from tests.contract.http.doors import Doors, now_ms

NURSE = Actor("user:siti", "siti", rights_of_role(Role.VIEWER), "192.0.2.5", "s-1", "viewer")


@dataclass
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def command(doors: Doors, *arguments: str) -> Done:
    """Run a command of main.py on the data of `doors`."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([*arguments, "--set", f"router.data_dir={doors.settings.data_dir}"])
    return Done(code, out.getvalue(), err.getvalue())


def test_looking_at_a_patient_is_written_once_in_ten_minutes(doors: Doors) -> None:
    for _ in range(3):
        doors.context.note_view(NURSE, ["1.2.3"], "timeline")
    doors.context.note_view(NURSE, ["1.2.3"], "thumbnail")
    doors.context.note_view(NURSE, ["1.2.4", "1.2.5"], "search")
    doors.context.note_view(NURSE, ["1.2.4", "1.2.5"], "search")
    doors.context.note_view(NURSE, [], "search")
    found = doors.audit("patient")
    assert [(entry.action, entry.study_uid) for entry in found] == [
        ("patient.list", ""), ("patient.view", "1.2.3"), ("patient.view", "1.2.3")]
    assert found[0].fields["studies"] == ["1.2.4", "1.2.5"] and found[0].address == "192.0.2.5"
    with doors.store.transaction() as tx:
        tx.execute("UPDATE audit SET at = at - 600001")
    doors.context.note_view(NURSE, ["1.2.3"], "timeline")
    assert len(doors.audit("patient")) == 4


def test_every_study_of_a_download_is_named_each_time(doors: Doors) -> None:
    uids = [f"1.2.{number}" for number in range(450)]
    for _ in range(2):
        doors.context.note_download(NURSE, uids, "export")
    entries = list(reversed(doors.audit("patient.download")))
    assert [len(entry.fields["studies"]) for entry in entries] == [200, 200, 50] * 2
    assert [uid for entry in entries[:3] for uid in entry.fields["studies"]] == uids
    assert {(entry.author, entry.address, entry.session) for entry in entries} == {("user:siti", "192.0.2.5", "s-1")}
    assert command(doors, "audit", "verify").returncode == 0


def test_nothing_is_shown_that_cannot_be_written_down(own_doors: Doors) -> None:
    with own_doors.store.transaction() as tx:
        tx.execute("ALTER TABLE audit_head RENAME TO gone")
    with pytest.raises(apsw.Error):
        own_doors.context.note_view(NURSE, ["1.2.3"], "timeline")


def test_a_change_that_fails_leaves_no_entry(doors: Doors) -> None:
    with pytest.raises(ZeroDivisionError), doors.context.acting(NURSE, "lane.pause"):
        raise ZeroDivisionError
    assert doors.audit() == []


@pytest.mark.attack("S69")
def test_commands_are_in_the_trail_with_the_account_that_ran_them(
    doors: Doors, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("USER", "somebody-else")
    added = command(doors, "user", "add", "Wati", "--role", "operator")
    assert added.returncode == 0, added.stderr
    password = added.stdout.strip()
    assert doors.visitor().login("wati", password).headers["location"] == "/password"
    assert command(doors, "user", "disable", "wati").stdout == "wati: disabled\n"
    assert doors.visitor().login("wati", password).status_code == 401
    assert command(doors, "user", "enable", "wati").returncode == 0
    again = command(doors, "user", "reset-password", "wati").stdout.strip()
    assert doors.visitor().login("wati", again).status_code == 303
    assert command(doors, "user", "disable", "admin").returncode == 1, "the last admin"
    listed = json.loads(command(doors, "user", "list", "--json").stdout)
    assert {one["name"]: one["role"] for one in listed}["wati"] == "operator"
    assert command(doors, "lane", "satusehat", "pause", "--reason", "maintenance").returncode == 0
    assert command(doors, "devices", "admit", "CT1@192.0.2.9").returncode == 0
    assert command(doors, "alias", "add", "A1", "A2", "--by", "dr. Sri").returncode == 0
    made = [entry for entry in reversed(doors.audit()) if entry.author.startswith("cli:")]
    assert [(entry.action, entry.subject) for entry in made] == [
        ("user.add", "wati"), ("user.disable", "wati"), ("user.enable", "wati"), ("user.reset-password", "wati"),
        ("lane.pause", "satusehat"), ("device.admit", "CT1@192.0.2.9"), ("alias.add", "A1")]
    assert {entry.author for entry in made} == {f"cli:{_account()}"}
    assert made[-1].fields == {"by": "dr. Sri", "after": "A2"}
    assert password not in str(made) and again not in str(made)


def _account() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


@pytest.mark.attack("S68")
def test_verify_names_what_was_tampered_with(doors: Doors) -> None:
    for number in range(4):
        with doors.context.acting(NURSE, "lane.pause", subject=f"lane{number}"):
            pass
    good = command(doors, "audit", "verify")
    assert (good.returncode, good.stdout.startswith("4 entries, 0 faults")) == (0, True)
    with doors.store.transaction() as tx:
        tx.execute("UPDATE audit SET subject = 'other' WHERE seq = 2")
    bad = command(doors, "audit", "verify")
    assert (bad.returncode, "entry 2 was changed" in bad.stderr) == (1, True)
    with doors.store.transaction() as tx:
        tx.execute("UPDATE audit SET subject = 'lane1' WHERE seq = 2")
        tx.execute("DELETE FROM audit WHERE seq = 4")
        tx.execute("UPDATE audit_head SET seq = 3, hash = (SELECT hash FROM audit WHERE seq = 3)")
    assert "its end was cut off" in command(doors, "audit", "verify").stderr
    HeadFile(doors.settings.data_dir).path.unlink()
    assert "is missing" in command(doors, "audit", "verify").stderr


def test_the_trail_is_written_out_and_that_is_in_it_too(doors: Doors) -> None:
    for number in range(3):
        with doors.context.acting(NURSE, "lane.pause", subject=f"lane{number}"):
            pass
    lines = command(doors, "audit", "export", "--after", "1").stdout.splitlines()
    assert [json.loads(line)["subject"] for line in lines] == ["lane1", "lane2"]
    xml = command(doors, "audit", "export", "--form", "dicom").stdout.splitlines()
    assert len(xml) == 4 and all(Xml.fromstring(line).tag == "AuditMessage" for line in xml)
    assert [entry.action for entry in doors.audit("audit")] == ["audit.export", "audit.export"]


# --- DICOM audit messages over syslog -------------------------------------------------------------------------------


def entry(action: str, **given: object) -> Entry:
    values = {"seq": 7, "at": 1_700_000_000_123, "author": "user:siti", "address": "192.0.2.5", "session": "s",
              "subject": "x", "study_uid": "", "fields": {}, "hash": "0" * 64} | given
    return Entry(action=action, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("action", "event", "kind", "letter", "outcome"), [
    ("login", "110114", "110122", "E", "0"), ("login.failed", "110114", "110122", "E", "4"),
    ("logout", "110114", "110123", "E", "0"), ("patient.view", "110103", None, "R", "0"),
    ("patient.download", "110106", None, "R", "0"), ("study.retry", "110103", None, "U", "0"),
    ("user.role", "110113", "110137", "E", "0"), ("key.issue", "110113", "110137", "E", "0"),
    ("audit.export", "110101", None, "R", "0"), ("lane.pause", "110113", "110131", "E", "0"),
])
def test_each_action_is_the_event_of_the_standard(
    action: str, event: str, kind: str | None, letter: str, outcome: str,
) -> None:
    message = Xml.fromstring(render(entry(action, study_uid="1.2.3")))
    identification = message.find("EventIdentification")
    assert identification is not None
    assert identification.attrib == {"EventActionCode": letter, "EventDateTime": "2023-11-14T22:13:20.123Z",
                                     "EventOutcomeIndicator": outcome}
    assert identification.find("EventID").attrib["csd-code"] == event  # type: ignore[union-attr]
    found = identification.find("EventTypeCode")
    assert (found.attrib["csd-code"] if found is not None else None) == kind
    person = message.find("ActiveParticipant")
    assert person is not None and person.attrib["NetworkAccessPointID"] == "192.0.2.5"
    study = message.find("ParticipantObjectIdentification")
    assert study is not None and study.attrib["ParticipantObjectID"] == "1.2.3"
    assert message.find("AuditSourceIdentification") is not None


@pytest.mark.attack("S55", "S59")
def test_markup_line_breaks_and_patients_do_not_get_into_a_message() -> None:
    text = render(entry("study.accession", subject="<x a='1'>\r\n\x1b[31m&\u2028é", fields={
        "before": {"patient_name": "SECRET^NAME"}, "studies": ["1.2.3"]}))
    assert text.isascii() and text.isprintable() and "SECRET" not in text
    Xml.fromstring(text)


def _read_length(file: BinaryIO) -> int | None:
    """The number before the next message (RFC 5425 4.3), None at the end."""
    digits = b""
    while one := file.read(1):
        if one == b" ":
            return int(digits)
        digits += one
    return None


class Repository:
    """An audit record repository: syslog over UDP, TCP or TLS with octet counting."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.messages: list[bytes] = []
        self.arrived = threading.Condition()
        self.certificate = folder / "repository.pem"
        self._context: ssl.SSLContext | None = None
        if kind == "tls":
            key, certificate = make_certificate(("localhost",), datetime.now(UTC))
            self.certificate.write_bytes(certificate)
            (folder / "repository.key").write_bytes(key)
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(self.certificate, folder / "repository.key")
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"{kind}://localhost:{self._socket.getsockname()[1]}"
        if kind != "udp":
            self._socket.listen()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                if self.kind == "udp":
                    self._add(self._socket.recv(65535))
                    continue
                connection, _ = self._socket.accept()
                if self._context is not None:
                    connection = self._context.wrap_socket(connection, server_side=True)
                with connection, connection.makefile("rb") as file:
                    while (size := _read_length(file)) is not None:
                        self._add(file.read(size))
            except (OSError, ValueError):
                if self._socket.fileno() < 0:
                    return

    def _add(self, message: bytes) -> None:
        with self.arrived:
            self.messages.append(message)
            self.arrived.notify_all()

    def wait(self, count: int) -> list[bytes]:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.messages) >= count, 20), self.messages
        return self.messages

    def close(self) -> None:
        if self.kind == "udp":
            self._socket.close()
            return
        port = self._socket.getsockname()[1]
        self._socket.close()
        try:  # wakes accept()
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            pass


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Callable[[str], Repository]]:
    opened: list[Repository] = []

    def start(kind: str) -> Repository:
        opened.append(Repository(kind, tmp_path))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def exporter(doors: Doors, url: str, ca_file: Path | None = None, owner: str = "n1") -> Exporter:
    return Exporter(lambda: doors.store, doors.context.clock, url, ca_file, owner)


@pytest.mark.parametrize(("kind", "count"), [("udp", 20), ("tls", 120)])
def test_every_entry_arrives_once_and_in_order(
    doors: Doors, repository: Callable[[str], Repository], kind: str, count: int,
) -> None:
    there = repository(kind)
    url = there.url.replace("localhost", "127.0.0.1") if kind == "udp" else there.url
    sender = exporter(doors, url, there.certificate if kind == "tls" else None)
    assert sender.step() is False
    for number in range(count):
        with doors.store.transaction() as tx:
            audit_trail.append(tx, "lane.pause", author="user:siti", now=now_ms(), subject=f"lane{number}")
    assert sender.step() is (count > 100)
    assert sender.step() is False
    messages = there.wait(count)
    assert [f'"lane{n}"'.encode() in message for n, message in enumerate(messages)] == [True] * count
    head, _, xml = messages[0].partition(b" DICOM+RFC3881 - ")
    assert head.startswith(b"<85>1 20") and head.count(b" ") == 4
    assert Xml.fromstring(xml).tag == "AuditMessage"
    assert sender.step() is False
    assert exporter(doors, url, owner="n2").step() is False, "the position is in the database"


def test_a_long_list_goes_in_several_messages_and_holds_nothing_up(
    doors: Doors, repository: Callable[[str], Repository],
) -> None:
    there = repository("udp")
    uids = [f"{'1.2.840.' * 7}{number:08}" for number in range(200)]
    doors.context.note_view(NURSE, uids, "search")
    with doors.context.acting(NURSE, "lane.pause", subject="after"):
        pass
    exporter(doors, there.url.replace("localhost", "127.0.0.1")).step()
    messages = there.wait(2)
    with there.arrived:
        assert there.arrived.wait_for(lambda: b'"after"' in messages[-1], 20)
    assert max(map(len, messages)) <= 8192
    parts = [Xml.fromstring(message.partition(b" DICOM+RFC3881 - ")[2]) for message in messages[:-1]]
    found = [one.attrib["ParticipantObjectID"] for part in parts for one in part.iter("ParticipantObjectIdentification")
             if one.attrib["ParticipantObjectTypeCodeRole"] == "3"]
    assert found == uids


@pytest.mark.parametrize("fault", [StorageFull(), StorageFailed(), NotFound()], ids=lambda fault: type(fault).__name__)
def test_the_export_outlives_a_full_disk(
    doors: Doors, repository: Callable[[str], Repository], monkeypatch: pytest.MonkeyPatch, fault: Exception,
) -> None:
    monkeypatch.setattr("interface.audit_export._LOOK_S", 0.01)
    there, ended, faults = repository("tcp"), threading.Event(), [fault]

    def store() -> Store:
        if faults:
            raise faults.pop()
        return doors.store

    with doors.context.acting(NURSE, "lane.pause", subject="first"):
        pass
    thread = threading.Thread(target=Exporter(store, doors.context.clock, there.url, None, "n1").run, args=(ended,))
    thread.start()
    try:
        assert b"first" in there.wait(1)[0]
    finally:
        ended.set()
        thread.join()


def test_a_repository_that_is_away_loses_nothing_and_holds_nobody_up(
    doors: Doors, repository: Callable[[str], Repository],
) -> None:
    there = repository("tcp")
    with doors.context.acting(NURSE, "lane.pause", subject="first"):
        pass
    sender = exporter(doors, "tcp://127.0.0.1:9")
    with pytest.raises(OSError):
        sender.step()
    sender = exporter(doors, there.url)
    sender.step()
    assert b"first" in there.wait(1)[0]


@pytest.mark.attack("S61")
def test_a_repository_with_a_strange_certificate_gets_nothing(
    doors: Doors, repository: Callable[[str], Repository],
) -> None:
    there = repository("tls")
    with doors.context.acting(NURSE, "lane.pause"):
        pass
    with pytest.raises(ssl.SSLCertVerificationError):
        exporter(doors, there.url).step()
    assert there.messages == []


def test_a_connection_that_was_closed_is_noticed(repository: Callable[[str], Repository]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        wire = Wire(f"tcp://127.0.0.1:{server.getsockname()[1]}", None)
        wire.send([syslog_line(entry("login"), "host")])
        connection, _ = server.accept()
        connection.close()
        with pytest.raises(OSError):
            for _ in range(1000):
                wire.send([b"x"])
