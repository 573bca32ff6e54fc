"""Where an image lies at a destination of files: a path template filled in with parts that are safe everywhere.

Pure. Used by the destinations folder, sftp and s3. Nothing that a data set says leads out of the folder, collides with
a device name of Windows or grows beyond what file systems take. Changes when a template may name another field.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote

from internal.model import Arrival, Header

MAX_FIELD = 100
MAX_PART = 200
NO_ACCESSION = "no-accession"

_UID = re.compile(r"[0-9][0-9.]{0,63}", re.ASCII)
_DATE = re.compile(r"[0-9]{8}", re.ASCII)
_FIELD = re.compile(r"\{([a-z]+)\}")
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def build_uid_part(uid: str) -> str:
    """Return a file name for `uid`: itself where it is digits and dots, else a hash; never a path, never empty."""
    if _UID.fullmatch(uid) and not uid.endswith(".") and ".." not in uid:
        return uid
    return f"uid-{_hash(uid)[:40]}"


def build_text_part(text: str, empty: str) -> str:
    """Return `text` with all but letters, digits, `-` and `_` percent-encoded, bounded; `empty` for nothing."""
    trimmed = text.strip(" \0")
    if not trimmed:
        return empty
    escaped = quote(trimmed.encode("utf-8", "replace"), safe="").replace(".", "%2E").replace("~", "%7E")
    if len(escaped) > MAX_FIELD:
        escaped = f"{escaped[:60]}-{_hash(trimmed)[:32]}"
    return f"_{escaped}" if escaped == empty else escaped


def build_parts(template: str, header: Header, arrival: Arrival) -> tuple[str, ...]:
    """Return the folders and the file name of an image for a template that config.parse_path_template has accepted.

    `header` is that of the bytes that leave, `arrival` says who brought them.
    """
    fields = _fields(header, arrival)
    filled = (_FIELD.sub(lambda found: fields[found[1]], part) for part in template.split("/"))
    return tuple(_make_safe(part) for part in filled)


def _fields(header: Header, arrival: Arrival) -> dict[str, str]:
    date = header.study_date if _DATE.fullmatch(header.study_date) else ""
    return {
        "accession": build_text_part(header.accession_number, NO_ACCESSION),
        "study": build_uid_part(header.study_uid), "series": build_uid_part(header.series_uid),
        "sop": build_uid_part(header.sop_uid), "modality": build_text_part(header.modality, "no-modality"),
        "date": date or "no-date", "year": date[:4] or "0000", "month": date[4:6] or "00", "day": date[6:8] or "00",
        "calling": build_text_part(arrival.calling_aet, "no-calling"),
    }  # fmt: skip


def _make_safe(part: str) -> str:
    if len(part) > MAX_PART:
        part = f"{part[:120]}-{_hash(part)[:32]}{'.dcm' if part.endswith('.dcm') else ''}"
    return f"_{part}" if _DEVICE.fullmatch(part) else part


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
