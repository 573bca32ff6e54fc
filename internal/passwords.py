"""Hashes of passwords: scrypt with its parameters beside it, few at once, compared in constant time.

Layer 1, imports errors. Used by `users`. Changes when the cost or the rule for passwords changes.
Source: RFC 7914; OWASP Password Storage (scrypt 2^15, 8, 3); NIST SP 800-63B 5.1.1 (length, no composition rules).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
from dataclasses import dataclass

from internal.errors import NotAllowed, Transient

MIN_CHARS = 12
MAX_CHARS = 256
_SALT_BYTES = 16
_MAX_MEMORY_BYTES = 80 * 1024 * 1024
#: A hash takes 32 MB and a third of a second: a flood of logins must not take the machine.
_AT_ONCE = threading.BoundedSemaphore(2)
_WAIT_S = 5.0
_OBVIOUS = frozenset(("passwordpassword", "administrator", "satusehatsatusehat", "dicomrouterdicomrouter"))


@dataclass(frozen=True, slots=True)
class Cost:
    """Parameters of scrypt: memory is 128 * n * r bytes, time n * r * p."""

    n: int = 2**15
    r: int = 8
    p: int = 3


DEFAULT_COST = Cost()


def hash_password(password: str, cost: Cost = DEFAULT_COST) -> str:
    """Return ``scrypt$n$r$p$salt$hash``. Raises Transient when too many are being computed."""
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = _scrypt(password, salt, cost)
    return f"scrypt${cost.n}${cost.r}${cost.p}${_text(salt)}${_text(digest)}"


_NOBODY = f"scrypt${DEFAULT_COST.n}${DEFAULT_COST.r}${DEFAULT_COST.p}${_SALT_BYTES * 'A'}AAAAAA==${'A' * 43}="


def password_matches(password: str, stored: str) -> bool:
    """Return whether `password` belongs to `stored`; "" (no such account, no password) takes as long and is False.

    Raises Transient when too many are being computed.
    """
    _, n, r, p, salt, digest = (stored or _NOBODY).split("$")
    found = _scrypt(password, base64.b64decode(salt), Cost(int(n), int(r), int(p)))
    return hmac.compare_digest(found, base64.b64decode(digest)) and bool(stored)


def check_strength(password: str, name: str) -> None:
    """Raise NotAllowed with a sentence for a password that is too short, too long, or obvious."""
    if len(password) < MIN_CHARS:
        raise NotAllowed(f"a password needs at least {MIN_CHARS} characters")
    if len(password) > MAX_CHARS:
        raise NotAllowed(f"a password has at most {MAX_CHARS} characters")
    lowered = password.lower()
    if len(set(password)) < 5 or lowered in _OBVIOUS or (name.lower() in lowered and len(name) > 3):
        raise NotAllowed("this password is too easy to guess: take several words that have nothing to do with you")


def random_password() -> str:
    """Return a password of 100 bits that can be read aloud: five groups of four letters and digits."""
    letters = "abcdefghjkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(letters) for _ in range(4)) for _ in range(5))


def _scrypt(password: str, salt: bytes, cost: Cost) -> bytes:
    if not _AT_ONCE.acquire(timeout=_WAIT_S):
        raise Transient("too many logins at once", code="login-busy")
    try:
        return hashlib.scrypt(password[:MAX_CHARS].encode("utf-8", "surrogatepass"), salt=salt, n=cost.n, r=cost.r,
                              p=cost.p, maxmem=_MAX_MEMORY_BYTES, dklen=32)
    finally:
        _AT_ONCE.release()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
