"""DICOM over TLS: the context after BCP 195, and a handshake that nobody can stall.

Used by the receive processes; the gate never sees a byte of TLS. Changes when the secure transport profile does.
Source: PS3.15 B.12 (BCP 195 TLS Profile), RFC 9325.
"""

from __future__ import annotations

import hashlib
import logging
import selectors
import socket
import ssl
import time
from pathlib import Path

from interface.dimse.settings import ReceiveSettings
from internal.errors import ConfigurationInvalid

#: Forward secrecy and authenticated encryption only (RFC 9325 4.2); TLS 1.3 has no other suites.
_CIPHERS_1_2 = "ECDHE+AESGCM:ECDHE+CHACHA20"

log = logging.getLogger("router.dimse")


def server_context(settings: ReceiveSettings) -> ssl.SSLContext | None:
    """Return the context of the TLS port, None where there is none; raises ConfigurationInvalid.

    With a CA file, only clients with a certificate of that CA get through the handshake.
    """
    if settings.tls_port is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS_1_2)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_COMPRESSION
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
        if settings.tls_client_ca:
            context.load_verify_locations(settings.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ValueError) as error:
        reason = error.strerror or getattr(error, "reason", "") if isinstance(error, OSError) else str(error)
        raise ConfigurationInvalid(
            f"[dicom] tls_certificate, tls_key or tls_client_ca cannot be used ({reason}); main.py tls-init makes "
            "a key and a certificate"
        ) from None
    return context


def client_context(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the context for calling a node; an empty path means the usual authorities, or no certificate of ours.

    Raises ConfigurationInvalid for a file that cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca.name else None)
    except OSError:
        raise ConfigurationInvalid(f"{ca} is no readable file of certificates") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS_1_2)
    if certificate.name:
        try:
            context.load_cert_chain(certificate, key if key.name else None)
        except OSError:
            raise ConfigurationInvalid(f"{certificate} or its key cannot be used") from None
    return context


def fingerprint(certificate: str) -> str | None:
    """Return the SHA-256 (hex) of the first certificate in a PEM file, None if that has just gone."""
    try:
        text = Path(certificate).read_text("ascii", "replace")
        first = text[text.index(ssl.PEM_HEADER) :]
        der = ssl.PEM_cert_to_DER_cert(first[: first.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)])
    except (OSError, ValueError):
        return None
    return hashlib.sha256(der).hexdigest()


class ServerTls:
    """The key and certificate in force; `current` is replaced as a whole, associations that stand keep theirs."""

    def __init__(self, settings: ReceiveSettings) -> None:
        """Load them; where that fails there is no TLS until reload() succeeds, and the plain port works on."""
        self._settings = settings
        self.current: ssl.SSLContext | None = None
        self.fingerprint: str | None = None  #: SHA-256 (hex) of the certificate in force
        self.reload()

    def reload(self) -> bool:
        """Read key, certificate and CA again; what cannot be used changes nothing and is said in one sentence."""
        try:
            self.current = server_context(self._settings)
            self.fingerprint = fingerprint(self._settings.tls_certificate) if self.current else None
        except ConfigurationInvalid as error:
            log.error("%s; %s", error, "the ones before stay in force" if self.current else
                      "there is no TLS until they can be read")
            return False
        return True


def shake_hands(sock: socket.socket, context: ssl.SSLContext, seconds: float) -> ssl.SSLSocket:
    """Return the encrypted connection; raises OSError (ssl.SSLError, TimeoutError) unless it stands within `seconds`.

    The deadline is one for all messages together: a peer that sends a byte now and then does not extend it.
    """
    deadline = time.monotonic() + seconds
    sock.setblocking(False)
    secure = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
    with selectors.DefaultSelector() as selector:
        key = selector.register(secure, selectors.EVENT_READ)
        while True:
            try:
                secure.do_handshake()
                secure.setblocking(True)
                return secure
            except ssl.SSLWantReadError:
                wanted = selectors.EVENT_READ
            except ssl.SSLWantWriteError:
                wanted = selectors.EVENT_WRITE
            except OSError:
                secure.close()
                raise
            if wanted != key.events:
                key = selector.modify(secure, wanted)
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                secure.close()
                raise TimeoutError("the TLS handshake took too long")
