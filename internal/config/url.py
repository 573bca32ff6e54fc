"""URLs in settings: base URLs, database URLs, and which SATUSEHAT environment a base URL stands for.

Flow: parsers for settings that are URLs; the environment names every start line and listing shows.
Imports: values. Changes when the platform gets another host, or another kind of URL becomes a setting.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, unquote, urlsplit

from internal.config.values import MASK, Secret, WrongValue, nearest

ENVIRONMENT_HOSTS = {
    "api-satusehat-dev.dto.kemkes.go.id": "development",
    "api-satusehat-stg.dto.kemkes.go.id": "staging",
    "api-satusehat.kemkes.go.id": "production",
}
"""Hosts of the platform. Source: facts, satusehat.md section 0."""

_API_PATHS = ("/oauth2", "/fhir-r4", "/dicom/v1", "/consent/v1", "/kyc/v1")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_DEFAULT_PORTS = {"https": 443, "http": 80}
_MAX_URL = 2048
_MIN_WEBHOOK_KEY = 12


def normalise_base_url(text: str) -> str:
    """The one spelling of SATUSEHAT's base URL: scheme, lower-case host, port unless default, path without end slash.

    A bare host gets https (http when it is this machine, for the sandbox). http is refused for any other host, since
    it would carry the secret in the clear. Raises WrongValue for that, for user names, queries and fragments, and for
    a URL that already holds an API path.
    """
    bare = "://" not in text
    parts = _split("https://" + text if bare else text)
    scheme = "http" if bare and is_loopback(parts.hostname or "") else parts.scheme
    if parts.query or parts.fragment:
        raise WrongValue("must not have a ? or # part")
    if scheme == "http" and not is_loopback(parts.hostname or ""):
        raise WrongValue("must begin with https:// (http:// is only for this machine: localhost, 127.0.0.1, ::1)")
    path = parts.path.rstrip("/")
    if any(api in path for api in _API_PATHS):
        raise WrongValue("must be the base URL alone; the API paths are added by the *_pathsuffix settings")
    if path and not re.fullmatch(r"(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)+", path):
        raise WrongValue("has a path that is not made of plain names")
    return f"{scheme}://{_authority(parts, scheme)}{path}"


def parse_service_url(text: str) -> str:
    """The base URL of a web service without query, fragment, user name and slash at the end. Raises WrongValue."""
    parts = _split(text)
    if parts.query or parts.fragment:
        raise WrongValue("must not have a ? or # part")
    path = parts.path.rstrip("/")
    if path and not re.fullmatch(r"(/(?!\.\.?(/|$))[A-Za-z0-9._~%-]+)+", path):
        raise WrongValue("has a path that is not made of plain names")
    return f"{parts.scheme}://{_authority(parts, parts.scheme)}{path}"


def parse_http_url(text: str) -> str:
    """An absolute http or https URL without user name and fragment; http is allowed for any host. Raises WrongValue."""
    parts = _split(text)
    if parts.fragment:
        raise WrongValue("must not have a # part")
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{_authority(parts, parts.scheme)}{parts.path}{query}"


def parse_secret_url(text: str) -> Secret:
    """As parse_http_url, kept as a secret: webhook services put keys in the path or the query."""
    url = parse_http_url(text)
    parts = urlsplit(url)
    return Secret(url, f"{parts.scheme}://{parts.netloc}/{MASK}" if parts.path.strip("/") or parts.query else url)


def parse_database_url(text: str) -> Secret:
    """A postgresql:// URL, kept as a secret; the masked form shows user, host and database. Raises WrongValue."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise WrongValue("is not a URL") from None
    if len(text) > _MAX_URL or not re.fullmatch(r"[\x21-\x7e]+", text):
        raise WrongValue("has characters that must be written as %XX, or is too long")
    if "#" in text or "@" in parts.path + parts.query:
        raise WrongValue("has a password with / ? # or @ in it, which must be written as %XX")
    if parts.scheme not in ("postgresql", "postgres"):
        raise WrongValue("must begin with postgresql://, or be empty for SQLite")
    user = f"{parts.username}:{MASK}@" if parts.username else ""
    host = f"{parts.hostname or ''}{f':{port}' if port else ''}"
    return Secret(text, f"postgresql://{user}{host}{parts.path}{'?' + MASK if parts.query else ''}")


def secret_parts(secret: str) -> tuple[str, ...]:
    """The pieces of a secret URL that must not be shown on their own; none of a secret that is no URL.

    Of a database's the password as written and decoded, of others path and query. The name of the database is none of
    them, nor a short path such as /api/hook: masking common words would spoil the log. In the clear: for the filter of
    the log alone.
    """
    if not secret.startswith(("http://", "https://", "postgresql://", "postgres://")):
        return ()
    parts = urlsplit(secret)
    password = parts.password or ""
    web = (parts.path.strip("/"), parts.query) if parts.scheme.startswith("http") else ()
    pieces = [piece for piece in web if len(piece) >= _MIN_WEBHOOK_KEY]
    return tuple(dict.fromkeys(part for part in (password, unquote(password), *pieces) if part))


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine by its spelling: localhost, 127.0.0.0/8 or ::1. No name is looked up."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def environment_name(url: str) -> str:
    """`development`, `staging`, `production`, `sandbox` (this machine) or `custom`. Raises WrongValue."""
    host = urlsplit(normalise_base_url(url)).hostname or ""
    return "sandbox" if is_loopback(host) else ENVIRONMENT_HOSTS.get(host, "custom")


def likely_host(url: str) -> str:
    """The platform's host that a custom `url` is nearly spelled like, else empty: a typing error worth a warning."""
    host = urlsplit(url).hostname or ""
    if host in ENVIRONMENT_HOSTS or "kem" not in host:
        return ""
    return nearest(host, tuple(ENVIRONMENT_HOSTS))


def _split(text: str) -> SplitResult:
    """Split an http(s) URL whose every part is plain; raises WrongValue, never with the text."""
    if len(text) > _MAX_URL or not re.fullmatch(r"[\x21\x23-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7a\x7e]+", text):
        raise WrongValue("is not a URL: it is too long, or has blanks or unusual characters")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise WrongValue("is not a URL, or its port is not a number up to 65535") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise WrongValue("must begin with https:// or http://")
    if "@" in parts.netloc:
        raise WrongValue("must not hold a user name or password")
    if port == 0 or not _is_host(host):
        raise WrongValue("has no valid host name or port")
    return parts


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
        return "%" not in host
    except ValueError:
        labels = host.rstrip(".").split(".")
        # A last label of digits only is a mistyped IPv4 address, which some resolvers read as another machine.
        return len(host) <= 253 and all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit()


def _authority(parts: SplitResult, scheme: str) -> str:
    host = (parts.hostname or "").rstrip(".")
    shown = f"[{host}]" if ":" in host else host
    return shown if parts.port in (None, _DEFAULT_PORTS[scheme]) else f"{shown}:{parts.port}"


def parse_syslog_url(text: str) -> str:
    """udp://, tcp:// or tls:// with host and port, nothing else. Raises WrongValue. Source: RFC 5424 to 5426, 6587."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise WrongValue("is not an address such as tls://host:6514") from None
    if parts.scheme not in ("udp", "tcp", "tls") or not parts.hostname or not port:
        raise WrongValue("is not an address such as tls://host:6514")
    if parts.username or parts.path.strip("/") or parts.query or parts.fragment:
        raise WrongValue("has more than protocol, host and port")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}"
