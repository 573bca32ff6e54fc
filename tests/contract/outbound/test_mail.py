"""Mail over a real SMTP server: STARTTLS, TLS and plain inside, refusals by kind, no secret in any words."""

from __future__ import annotations

import email
import email.policy
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from interface.cli_tls import make_certificate
from interface.mail import MailOptions, send_mail
from internal.errors import CredentialsRefused, Refused, RouterError, Transient
from tests.contract.destinations.mail_server import PASSWORD, USER, MailServer

Start = Callable[..., MailServer]


def certificate_in(folder: Path) -> tuple[Path, Path]:
    key, certificate = make_certificate(("localhost",), datetime.now(UTC))
    (folder / "key").write_bytes(key)
    (folder / "cert").write_bytes(certificate)
    return folder / "cert", folder / "key"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate_in(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def start(certificate: tuple[Path, Path]) -> Iterator[Start]:
    running: list[MailServer] = []

    def started(security: str) -> MailServer:
        running.append(MailServer(security, *(certificate if security != "none" else ())))
        return running[-1]

    yield started
    for server in running:
        server.close()


def options(server: MailServer, security: str, ca_file: Path | None, *, password: str = PASSWORD) -> MailOptions:
    return MailOptions(host="localhost" if ca_file else "127.0.0.1", port=server.port, security=security,
                       user=USER if ca_file else "", password=lambda: password, sender="router@rs.example",
                       timeout_s=5, ca_file=ca_file)


@pytest.mark.parametrize("security", ["starttls", "tls", "none"])
def test_a_message_arrives_whole(start: Start, certificate: tuple[Path, Path], security: str) -> None:
    server = start(security)
    ca_file = certificate[0] if security != "none" else None
    send_mail(options(server, security, ca_file), ["it@rs.example", "jaga@rs.example"],
              "PERINGATAN: alat CT1\r\nBcc: x@evil.example", "Baris satu\nselesai: é")
    envelope = server.taken[0]
    message = email.message_from_bytes(envelope.content, policy=email.policy.default)
    assert envelope.rcpt_tos == ["it@rs.example", "jaga@rs.example"]
    assert message["Subject"] == "PERINGATAN: alat CT1 Bcc: x@evil.example" and message["Bcc"] is None
    assert message["Auto-Submitted"] == "auto-generated" and message["Date"] and message["Message-ID"]
    assert message.get_content().strip().splitlines() == ["Baris satu", "selesai: é"]


def test_a_wrong_password_and_a_wrong_certificate_are_told_apart(
    start: Start, certificate: tuple[Path, Path], tmp_path: Path,
) -> None:
    server = start("starttls")
    with pytest.raises(CredentialsRefused) as refused:
        send_mail(options(server, "starttls", certificate[0], password="falsch-123"), ["a@b.example"], "s", "t")
    assert "falsch-123" not in str(refused.value)
    stranger, _ = certificate_in(tmp_path)
    with pytest.raises(Transient) as distrusted:
        send_mail(options(server, "starttls", stranger), ["a@b.example"], "s", "t")
    assert distrusted.value.code == "tls" and server.taken == []


@pytest.mark.parametrize(("answer", "error", "code"), [
    ("451 try later", Transient, "mail-451"), ("554 no such thing", Refused, "mail-554")])
def test_refusals_by_kind(start: Start, answer: str, error: type[RouterError], code: str) -> None:
    server = start("none")
    server.refusals.append(answer)
    with pytest.raises(error) as refused:
        send_mail(options(server, "none", None), ["a@b.example"], "s", "t")
    assert getattr(refused.value, "code", "") == code


def test_a_server_without_tls_gets_no_password(start: Start) -> None:
    server = start("none")
    with pytest.raises(Refused) as refused:
        send_mail(options(server, "starttls", None), ["a@b.example"], "s", "t")
    assert refused.value.code == "mail-unsupported" and server.taken == []


def test_nobody_there_and_unprotected_mail_to_the_outside() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(Transient):
            send_mail(MailOptions(host="127.0.0.1", port=taken.getsockname()[1], security="none", sender="a@b.example"),
                      ["a@b.example"], "s", "t")
    with pytest.raises(Refused) as refused:
        send_mail(MailOptions(host="8.8.8.8", security="none", sender="a@b.example"), ["a@b.example"], "s", "t")
    assert refused.value.code == "mail-insecure"
