"""`tls-init`: a key and a self-signed certificate for the TLS port, made on this machine.

Changes when certificates have to say something else. Source: PS3.15 B.12, RFC 5280.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

from internal.config import Settings
from internal.errors import ConfigurationInvalid

VALID_DAYS = 825
_RSA_BITS = 2048


def tls_init(options: argparse.Namespace, settings: Settings) -> int:
    """Write [dicom] tls_key (0600) and tls_certificate; refuses to replace either."""
    names = tuple(dict.fromkeys([*options.names, socket.gethostname() or "localhost", "localhost", "127.0.0.1"]))
    key_path, certificate_path = settings.tls_key, settings.tls_certificate
    for path in (key_path, certificate_path):
        if path.exists():
            raise ConfigurationInvalid(f"{path} exists already: move it away to make a new one")
    key, certificate = make_certificate(names, datetime.now(UTC))
    for path, data, mode in ((key_path, key, 0o600), (certificate_path, certificate, 0o644)):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(path, data, mode)
    print(f"key          {key_path}\ncertificate  {certificate_path} (give it to the devices)\n"
          f"names        {', '.join(names)}\nNow set [dicom] tls_port, 2762 for instance, and start the router again.")
    return 0


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def make_certificate(names: tuple[str, ...], now: datetime) -> tuple[bytes, bytes]:
    """Return (private key, certificate) as PEM: RSA, self-signed, for these host names and IP addresses.

    RSA since that is all that a peer of the BCP 195 profiles need know with TLS 1.2 (RFC 7525 4.2).
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                       critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, certificate.public_bytes(pem)


def _general_name(name: str) -> object:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name.encode("idna").decode("ascii"))
