"""What must never stand in a log line: known secrets in every spelling, and values that follow telling names.

Flow: `logs` passes each finished piece of text through one `Redactor`. Imports: standard library only.
Changes when a secret turns out to have another spelling. A last line of defence: callers do not log secrets at all.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections import deque
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

MASK = "***"
MIN_SECRET = 4
"""Shorter secrets are not searched for: masking every `a` would make the log useless. Loading warns of them."""

_MAX_TOKENS = 16
_PATTERNS = (
    # Authorization headers and tokens, in headers, URLs, forms and JSON.
    (re.compile(r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]{4,}"), r"\1" + MASK),
    (re.compile(r"(?i)(authorization[\"']?\s*[:=]\s*b?[\"']?(?:[a-z]+\s+)?)[^\s\"',;]+"), r"\1" + MASK),
    (re.compile(
        r"(?i)((?:access_token|refresh_token|id_token|client_secret|client_id|client_key|secret_key|api_?key|passw(?:or)?d"
        r"|secret|token)(?:=|:(?=\S)|[\"']\s*:\s*)b?[\"']?)(?!\*\*\*)[^\s\"'&,;}\]]+"), r"\1" + MASK),
    (re.compile(r"(://)[^/\s@\"']{1,500}@"), r"\1" + MASK + "@"),
)  # fmt: skip


class Redactor:
    """Masks secrets in texts. Secrets can be added at any time; tokens are kept for the last 16 only."""

    def __init__(self) -> None:
        self._secrets: frozenset[str] = frozenset()
        self._tokens: deque[str] = deque(maxlen=_MAX_TOKENS)
        self._known = re.compile(r"(?!)")
        self._lock = threading.Lock()

    def set_secrets(self, secrets: Iterable[str]) -> None:
        """Replace the secrets known from the configuration; tokens added since stay."""
        with self._lock:
            self._secrets = frozenset(secret for secret in secrets if len(secret) >= MIN_SECRET)
            self._compile()

    def add_token(self, token: str) -> None:
        """Mask `token` from now on: an access token, which no configuration knows."""
        if len(token) < MIN_SECRET:
            return
        with self._lock:
            if token not in self._tokens:
                self._tokens.append(token)
                self._compile()

    def mask(self, text: str) -> str:
        """The text with `***` in place of every secret."""
        text = self._known.sub(MASK, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def _compile(self) -> None:
        spellings = {each for secret in (*self._secrets, *self._tokens) for each in _spellings(secret)}
        # The longest first, so that no piece of a longer spelling is left over.
        ordered = sorted(spellings, key=lambda each: (-len(each), each))
        self._known = re.compile("|".join(map(re.escape, ordered)) or r"(?!)")


def _spellings(secret: str) -> set[str]:
    """A secret as it is written in JSON, repr (each in the other too), URLs, hexadecimal and base64."""
    content = secret.encode("utf-8", "surrogatepass")
    percent = {quote(content, safe=""), quote(content), quote_plus(content)}
    found = {
        *(twice for once in _escapes(secret) for twice in _escapes(once)), repr(content)[2:-1],
        repr(b"\"'" + content)[5:-1], content.hex(), content.hex().upper(), *percent,
        *(re.sub(r"%[0-9A-F]{2}", lambda code: code[0].lower(), each) for each in percent),
    }  # fmt: skip
    for before in range(3):
        # In base64 a secret inside a longer text (`user:secret`) starts at one of three positions; the characters
        # that it shares with its neighbours are left out.
        coded = base64.b64encode(b"\0" * before + content).decode("ascii").rstrip("=")
        whole = coded[(before * 8 + 5) // 6 : (before + len(content)) * 8 // 6]
        found |= {whole, whole.replace("+", "-").replace("/", "_")}
    return {each for each in found if len(each) >= MIN_SECRET}


def _escapes(text: str) -> set[str]:
    """The text as it stands inside quotes: of JSON, of repr alone, of repr of a text that has both kinds of quotes."""
    return {
        text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1],
        repr("\"'" + text)[4:-1], text.encode("unicode_escape").decode("ascii"),
    }  # fmt: skip
