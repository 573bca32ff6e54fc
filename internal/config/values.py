"""Values of settings: how each kind of text in router.conf, an environment variable or an option becomes a value.

Flow: the lowest part of the configuration; `declarations` names these parsers, `loading` applies them.
Imports: standard library only. Changes when a kind of value is added or its spelling changes.
Texts are hostile: every parser bounds the length it looks at, and no message repeats a secret.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import zoneinfo
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from enum import StrEnum
from fractions import Fraction
from pathlib import Path

from internal.peers import canonical

MASK = "***"
MAX_TEXT = 4096
_DURATION_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SIZE_BYTES = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_YES = frozenset({"yes", "true", "on", "1", "ya"})
_NO = frozenset({"no", "false", "off", "0", "tidak"})
_INDONESIAN_ZONES = {"WIB": "Asia/Jakarta", "WITA": "Asia/Makassar", "WIT": "Asia/Jayapura"}
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")


class WrongValue(ValueError):
    """A text is not a value of its kind; the message says why, without the text itself when it may be a secret."""


class Kind(StrEnum):
    """The kinds of value a setting can have, as named in the documentation."""

    STR = "text"
    INT = "number"
    BOOL = "yes/no"
    DURATION = "duration"
    SIZE = "size"
    URL = "URL"
    PATH = "path"
    CHOICE = "choice"
    LIST = "list"
    SECRET = "secret"  # noqa: S105 - the name of a kind, not a secret


class Secret:
    """A value that no repr, str, format or log line shows; `reveal()` gives it to the one caller that must send it.

    `shown` is the masked form for people, for example a database URL without its password.
    """

    __slots__ = ("_value", "shown")

    def __init__(self, value: str = "", shown: str = MASK) -> None:
        self._value = value
        self.shown = shown if value else ""

    def reveal(self) -> str:
        """Give the value itself. Never put it in a log line, an exception text or a URL."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode("utf-8", "replace"), other._value.encode("utf-8", "replace"))

    def __hash__(self) -> int:
        return hash(self._value)

    def __str__(self) -> str:
        return self.shown

    def __repr__(self) -> str:
        return f"Secret({self.shown!r})"


def nearest(word: str, words: Sequence[str]) -> str:
    """The one of `words` most like `word`, or empty. Looks at 64 characters at most, so a long word costs nothing."""
    found = get_close_matches(word[:64], words, n=1, cutoff=0.6)
    return found[0] if found else ""


def parse_text(text: str) -> str:
    """Printable text on one line, at most 4096 characters. Raises WrongValue."""
    if len(text) > MAX_TEXT:
        raise WrongValue(f"longer than {MAX_TEXT} characters")
    if not all(c.isprintable() for c in text):
        raise WrongValue("has a control character or a line break in it")
    return text


def parse_commitment_caller(text: str) -> str:
    """``AET@HOST:PORT``: who may ask for storage commitment, and where the answer goes. Raises WrongValue."""
    split_commitment_caller(text)
    return text


def split_commitment_caller(text: str) -> tuple[str, str, int]:
    """Return AE title, host and port of ``AET@HOST:PORT``; IPv6 stands there in brackets. Raises WrongValue."""
    found = re.fullmatch(r"(?P<aet>[^@]{1,16})@(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,253}):(?P<port>\d{1,5})",
                         text)
    if found is None or not 1 <= int(found["port"]) <= 65535:
        raise WrongValue("is not AET@HOST:PORT")
    return parse_ae_title(found["aet"]), canonical(found["host"].strip("[]")), int(found["port"])


def parse_header_value(text: str) -> str:
    """Text that may stand in an HTTP header: printable ASCII, at most 200 characters. Source: RFC 9110 5.5."""
    if not re.fullmatch(r"[\x20-\x7e]{1,200}", text):
        raise WrongValue("must be 1 to 200 plain ASCII characters")
    return text


def parse_int(text: str) -> int:
    """A whole number of at most 9 digits. Raises WrongValue."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise WrongValue("is not a whole number")
    return int(text)


def parse_bool(text: str) -> bool:
    """yes/no, true/false, on/off, 1/0 or ya/tidak, in any case. Raises WrongValue."""
    if text.lower() in _YES:
        return True
    if text.lower() in _NO:
        return False
    raise WrongValue("is neither yes nor no")


def parse_duration(text: str) -> float:
    """Seconds from `500ms`, `30s`, `5m`, `2h`, `7d` or `0`; whole milliseconds. Raises WrongValue."""
    if text == "0":
        return 0.0
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?(ms|s|m|h|d)", text.lower())
    if found is None:
        raise WrongValue("is not a duration; write a number and a unit: 500ms, 30s, 5m, 2h, 7d")
    return round(Fraction(found[1]) * _DURATION_MS[found[2]]) / 1000


def format_duration(seconds: float) -> str:
    """The shortest spelling that parse_duration reads back as the same value."""
    left_ms = round(seconds * 1000)
    for unit in ("d", "h", "m", "s"):
        if left_ms and left_ms % _DURATION_MS[unit] == 0:
            return f"{left_ms // _DURATION_MS[unit]}{unit}"
    return f"{left_ms}ms" if left_ms else "0s"


def parse_size(text: str) -> int:
    """Bytes from `64KB`, `2GB`, `512B` or `0`; units are binary (1KB = 1024 bytes). Raises WrongValue."""
    if text == "0":
        return 0
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?(?:b|([kmgt])(?:i?b)?)", text.lower())
    if found is None:
        raise WrongValue("is not a size; write a number and a unit: 64KB, 512MB, 2GB")
    return round(Fraction(found[1]) * _SIZE_BYTES[found[2] or "b"])


def format_size(size_bytes: int) -> str:
    """The shortest spelling that parse_size reads back as the same value."""
    for unit in ("t", "g", "m", "k"):
        if size_bytes and size_bytes % _SIZE_BYTES[unit] == 0:
            return f"{size_bytes // _SIZE_BYTES[unit]}{unit.upper()}B"
    return f"{size_bytes}B" if size_bytes else "0"


def within(parse: Callable[[str], float | int], low: str, high: str) -> Callable[[str], object]:
    """A parser that also refuses values outside `low`..`high` (both included, in the spelling of `parse`)."""

    def parse_within(text: str) -> object:
        value = parse(text)
        if not parse(low) <= value <= parse(high):
            raise WrongValue("is out of range")
        return value

    return parse_within


def choice(*words: str) -> Callable[[str], str]:
    """A parser of exactly one of `words`, in any case."""

    def parse_choice(text: str) -> str:
        if text.lower() not in words:
            raise WrongValue("is not one of the choices")
        return text.lower()

    return parse_choice


def many(parse: Callable[[str], str], limit: int = 200) -> Callable[[str], tuple[str, ...]]:
    """A parser of items separated by commas or line breaks, each read by `parse`; `none` is the empty list."""

    def parse_many(text: str) -> tuple[str, ...]:
        if text.lower() == "none":
            return ()
        items = [item.strip() for item in re.split(r"[,\n]", text) if item.strip()]
        if len(items) > limit:
            raise WrongValue(f"has more than {limit} items")
        return tuple(dict.fromkeys(parse(item) for item in items))

    return parse_many


def parse_path(text: str) -> Path:
    """A folder; the loader puts a relative one under router.conf's folder. Raises WrongValue."""
    parse_text(text)
    if os.name != "nt" and re.match(r"[A-Za-z]:[\\/]", text):
        raise WrongValue("is a Windows path, but this is not Windows")
    return Path(text)


def parse_secret(text: str) -> Secret:
    """A password or key, kept exactly as written. Raises WrongValue, without the text."""
    return Secret(parse_text(text))


def parse_ae_title(text: str) -> str:
    """An application entity title: 1 to 16 printable ASCII characters, no backslash. Source: PS3.5 6.2 (VR AE)."""
    if not re.fullmatch(r"[\x20-\x5b\x5d-\x7e]{1,16}", text) or not text.strip():
        raise WrongValue("must be 1 to 16 plain ASCII characters without backslash")
    return text.strip()


def parse_uid(text: str) -> str:
    """A DICOM unique identifier of at most 64 characters. Source: PS3.5 9.1."""
    if len(text) > 64 or not _UID.fullmatch(text):
        raise WrongValue("is not a DICOM UID")
    return text


def parse_destination_name(text: str) -> str:
    """The name of a destination: `satusehat`, or that of a section with or without its kind (`folder:`) before it."""
    name = re.sub(r"^(folder|dimse|dicomweb|sftp|s3):", "", text)
    if not re.fullmatch(r"[a-z0-9_-]{1,32}", name):
        raise WrongValue("is not a name of 1 to 32 of a-z, 0-9, - and _")
    return name


def parse_host(text: str) -> str:
    """A host name, an IP address, a region or a bucket: at most 255 letters, digits, `-`, `.`, `_` and `:`."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._:-]{0,254})", text.strip("[]")) or "://" in text:
        raise WrongValue("is not a name or an address")
    return text.strip("[]")


PATH_FIELDS = ("accession", "study", "series", "sop", "modality", "date", "year", "month", "day", "calling")
"""What a path template may name; interface.naming fills them in."""


def parse_path_template(text: str) -> str:
    """A relative path with `{field}`s of PATH_FIELDS, {sop} among them; at most 8 parts, no `.` or `..` of its own."""
    parts = text.split("/")
    if len(text) > 200 or len(parts) > 8:
        raise WrongValue("is longer than 200 characters or deeper than 8 folders")
    for part in parts:
        plain = re.sub(r"\{([a-z]+)\}", "x", part)
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", plain) or plain.endswith("."):
            raise WrongValue("is not a path of letters, digits, . - _ and fields in braces")
    unknown = [name for name in re.findall(r"\{([a-z]+)\}", text) if name not in PATH_FIELDS]
    if unknown:
        raise WrongValue(f"names {{{unknown[0]}}}, which is none of {', '.join(PATH_FIELDS)}")
    if "{sop}" not in text:
        raise WrongValue("must name {sop}, or images would overwrite each other")
    return text


ACCESSION_RULES = ("alias", "blanks", "case", "zeros", "cut", "candidate")
"""Words of internal.accession.Rule, which a test compares."""


def parse_accession_rule(text: str) -> str:
    """The name of a rule of the accession doctor."""
    if text not in ACCESSION_RULES:
        raise WrongValue(f"is not one of {', '.join(ACCESSION_RULES)}")
    return text


def parse_fhir_id(text: str) -> str:
    """An id as FHIR defines it. Source: FHIR R4 datatypes, id."""
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,64}", text):
        raise WrongValue("must be 1 to 64 letters, digits, - or .")
    return text


def parse_path_suffix(text: str) -> str:
    """The path of an API below the base URL, with a leading and without a trailing slash."""
    path = "/" + text.strip("/")
    if len(path) > 200 or not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", path) or re.search(r"/\.\.?(/|$)", path):
        raise WrongValue("is not a path such as /fhir-r4/v1")
    return path


def parse_time_zone(text: str) -> str:
    """An IANA time zone; WIB, WITA and WIT are read as Asia/Jakarta, Asia/Makassar and Asia/Jayapura."""
    zone = _INDONESIAN_ZONES.get(text.upper(), text)
    try:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_+/-]{0,63}", zone):
            raise ValueError(zone)
        zoneinfo.ZoneInfo(zone)
    except (ValueError, KeyError, OSError):
        likely = nearest(zone, sorted(zoneinfo.available_timezones())) or "Asia/Jakarta"
        raise WrongValue(f"is not a time zone; did you mean {likely}?") from None
    return zone


def parse_bind_address(text: str) -> str:
    """A local address to listen on: an IP address, `localhost`, or empty for every address (written `all` or `*`)."""
    if text.lower() in ("all", "*"):
        return ""
    if text.lower() == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        raise WrongValue("is not an IP address") from None


def parse_day_hours(text: str) -> str:
    """A span of the day as HH:MM-HH:MM; the end may lie before the beginning: it is the next day's."""
    times = [part.strip() for part in text.split("-")]
    if len(times) != 2 or times[0] == times[1] or not all(re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", t) for t in times):
        raise WrongValue("is not a span of hours such as 19:00-06:00")
    return "-".join(times)


def parse_host_name(text: str) -> str:
    """A host name in lower case, without port. Raises WrongValue."""
    name = text.strip().rstrip(".").lower()
    if not re.fullmatch(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,62})(\.[a-z0-9]([a-z0-9-]{0,62}))*", name):
        raise WrongValue("is not a host name")
    return name


def parse_ip_address(text: str) -> str:
    """One IP address. Raises WrongValue."""
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        raise WrongValue("is not an IP address") from None


def parse_group(text: str) -> str:
    """The name of a group as an identity provider writes it; no comma. Raises WrongValue."""
    if len(text) > 200 or not text.isprintable():
        raise WrongValue("is longer than 200 characters or has unprintable ones")
    return text
