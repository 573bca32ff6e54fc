"""Files that leave through a browser: safe names, and tables that no spreadsheet mistakes for formulas.

Pure. Changes when another kind of file is offered. Source: RFC 6266, RFC 8187, RFC 4180, OWASP CSV injection.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from urllib.parse import quote

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def content_disposition(name: str) -> str:
    """Return the header value that makes a browser save a file as `name`, whatever characters that has."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100].lstrip(".") or "download"
    encoded = quote(re.sub(r"[\x00-\x1f\x7f/\\]", "_", name)[:100].lstrip("."), safe="", errors="replace")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded or plain}"


def csv_text(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as CSV with a byte order mark; a cell that a spreadsheet would calculate begins with '."""
    out = io.StringIO()
    out.write("\ufeff")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return out.getvalue()


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text
