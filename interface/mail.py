"""Sends one short plain-text message over SMTP, protected as configured; used by `alerts`.

Imports outbound for its TLS rules and webhook for what counts as inside the hospital. Changes when mail has to leave in
another way. Source: RFC 5321, RFC 3207 (STARTTLS), RFC 8314 (TLS), RFC 3834 (automatic messages).
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid
from pathlib import Path

from interface.outbound import build_tls_context
from interface.webhook import is_inside
from internal.errors import CredentialsRefused, Refused, Transient

_TIMEOUT_S = 20.0


@dataclass(frozen=True, kw_only=True)
class MailOptions:
    """Which server, and who sends. `security`: starttls, tls or none; `ca_file` is trusted beside the usual ones."""

    host: str
    port: int = 587
    security: str = "starttls"
    user: str = ""
    password: Callable[[], str] = field(default=str, repr=False)
    sender: str = ""
    timeout_s: float = _TIMEOUT_S
    ca_file: Path | None = None


def send_mail(options: MailOptions, to: Sequence[str], subject: str, text: str) -> None:
    """Hand one message to the server; on return the server has answered 250 for every recipient.

    Raises Transient (not reachable, 4xx, a recipient refused for now), CredentialsRefused, or Refused (5xx, or an
    unprotected connection that would leave the hospital's network). No exception text carries the password.
    """
    if options.security == "none" and not is_inside(options.host, options.port):
        raise Refused(f"mail to {options.host} would leave the hospital's network unprotected", code="mail-insecure")
    message = _build(options, to, subject, text)
    try:
        with _connected(options) as server:
            if options.user:
                server.login(options.user, options.password())
            refused = server.send_message(message)
    except smtplib.SMTPAuthenticationError as error:
        raise CredentialsRefused(f"{options.host} refused the login (SMTP {error.smtp_code})") from None
    except smtplib.SMTPRecipientsRefused as error:
        codes = {code for code, _ in error.recipients.values()}
        raise _answered(options, max(codes, default=550), "every recipient") from None
    except smtplib.SMTPResponseException as error:
        raise _answered(options, error.smtp_code, "the message") from None
    except smtplib.SMTPNotSupportedError:
        raise Refused(f"{options.host} does not offer what [mail] asks for ({options.security}, login)",
                      code="mail-unsupported") from None
    except ssl.SSLError as error:
        raise Transient(f"TLS with {options.host} failed ({error.reason or 'certificate'})", code="tls") from None
    except (OSError, smtplib.SMTPException) as error:
        raise Transient(f"{options.host} cannot be reached ({type(error).__name__})", code="mail-connect") from None
    if refused:
        raise Transient(f"{options.host} refused {len(refused)} of {len(to)} recipients", code="mail-recipients")


@contextmanager
def _connected(options: MailOptions) -> Iterator[smtplib.SMTP]:
    """Yield a connection and say goodbye; how that ends changes nothing about what the server has answered."""
    server = _connect(options)
    try:
        yield server
    finally:
        with suppress(OSError, smtplib.SMTPException):
            server.quit()
        server.close()


def _connect(options: MailOptions) -> smtplib.SMTP:
    if options.security == "tls":
        return smtplib.SMTP_SSL(options.host, options.port, timeout=options.timeout_s,
                                context=build_tls_context(options.ca_file))
    server = smtplib.SMTP(options.host, options.port, timeout=options.timeout_s)
    if options.security == "starttls":
        try:
            server.starttls(context=build_tls_context(options.ca_file))
        except BaseException:
            server.close()
            raise
    return server


def _build(options: MailOptions, to: Sequence[str], subject: str, text: str) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    sender = options.sender or options.user
    message["From"] = sender
    message["To"] = ", ".join(to)
    message["Subject"] = " ".join(subject.split())
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2] or "router.invalid")
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    return message


def _answered(options: MailOptions, code: int, what: str) -> Transient | Refused:
    words = f"{options.host} refused {what} (SMTP {code})"
    return Refused(words, code=f"mail-{code}") if code >= 500 else Transient(words, code=f"mail-{code}")
