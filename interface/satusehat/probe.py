"""What `check` says about SATUSEHAT: name, TLS, token, FHIR and DICOM endpoint, one line each, changing nothing there.

Called through the destination's `probe`. Imports outbound, oauth2, client and internal.
Changes when there is another thing on the way that can be wrong.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from interface.outbound import Deadline, Session, build_tls_context, is_loopback
from interface.satusehat.answers import Meaning
from interface.satusehat.client import Client, SatusehatOptions
from interface.satusehat.effects import raise_for
from interface.satusehat.oauth2 import TokenSource
from internal.errors import RouterError
from internal.model import Probe

#: An accession number no hospital gives: looking for it proves the whole way and finds nothing.
PROBE_ACCESSION = "ROUTER-CHECK"

_REACHABLE = frozenset({Meaning.OK, Meaning.ABSENT, Meaning.REFUSED, Meaning.WRONG_PATH, Meaning.UNREADABLE,
                        Meaning.EXISTS, Meaning.SUPPRESSED})


def probe_platform(
    options: SatusehatOptions, session: Session, tokens: TokenSource, client: Client,
) -> Iterator[Probe]:
    """Yield one line for each stage; after a stage that failed the later ones are not tried."""
    parts = urlsplit(options.base_url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    stages: list[tuple[str, Callable[[], str], str]] = [
        ("DNS", lambda: _resolve(host, port, options),
         "Periksa DNS dan sambungan internet / check DNS and the network"),
        ("TLS", lambda: _handshake(parts.scheme, host, port, options),
         "Periksa jam komputer, proxy dan firewall / check this computer's clock, proxy and firewall"),
        ("token", lambda: _token(tokens, session.open_deadline(options.request_timeout_s)),
         "Periksa client_key, secret_key dan url (lingkungan yang sama) / check client_key, secret_key and url"),
        ("FHIR", lambda: _fhir(client),
         "Periksa fhir_pathsuffix dan organization_id / check fhir_pathsuffix and organization_id"),
        ("DICOM endpoint", lambda: _dicom(client), "Periksa dicom_pathsuffix / check dicom_pathsuffix"),
    ]
    for name, attempt, advice in stages:
        try:
            yield Probe(name, True, attempt())
        except (RouterError, OSError) as fault:
            yield Probe(name, False, _words(fault), advice)
            return


def _words(fault: RouterError | OSError) -> str:
    if isinstance(fault, ssl.SSLCertVerificationError):
        return f"TLS: {fault.verify_message}"
    if isinstance(fault, socket.gaierror):
        return "DNS does not know this name"
    return str(fault) if isinstance(fault, RouterError) else f"no connection ({type(fault).__name__})"


def _resolve(host: str, port: int, options: SatusehatOptions) -> str:
    if options.proxy_url:
        return "through the proxy"
    found = {info[4][0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    return f"{host} = {', '.join(sorted(str(address) for address in found)[:4])}"


def _handshake(scheme: str, host: str, port: int, options: SatusehatOptions) -> str:
    if options.proxy_url and not is_loopback(host):
        return "through the proxy"
    with socket.create_connection((host, port), timeout=options.connect_timeout_s) as plain:
        if scheme != "https":
            return "not used on this machine"
        with build_tls_context(options.ca_file).wrap_socket(plain, server_hostname=host) as secured:
            return str(secured.version())


def _token(tokens: TokenSource, deadline: Deadline) -> str:
    tokens.fetch_token(deadline)
    return "granted"


def _fhir(client: Client) -> str:
    client.fetch_service_requests(PROBE_ACCESSION)
    return "answers"


def _dicom(client: Client) -> str:
    answer = client.probe_dicom()
    if answer.meaning not in _REACHABLE:
        raise_for(answer)
    return f"answers (HTTP {answer.status})"
