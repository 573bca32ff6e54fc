"""SQL for login sessions, API keys and failed logins: only hashes of what the other side holds are kept.

Used by the HTTP doors; imports users and store. Changes when somebody can be recognised in another way.
Source: OWASP Session Management, OWASP API Security 2023 (API2).
"""
# ruff: noqa: S608 - SQL is composed of our own column lists only; every value is bound

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field

from internal.errors import NotAllowed, NotFound
from internal.store import Row, Tx
from internal.users import User, find_user, get_user

#: `seen_at` and `used_at` are written this often at most: reading a page must not cost a write each time.
SEEN_EVERY_MS = 60_000
_FORGET_FAILURES_MS = 86_400_000
_MAX_SESSIONS_EACH = 20


@dataclass(frozen=True, slots=True)
class Session:
    """A login as it stands now, with the account as it is at this moment; times in epoch ms."""

    session_id: str
    user: User
    address: str
    started_at: int
    seen_at: int


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def start_session(tx: Tx, account: str, address: str, now: int) -> tuple[str, str]:
    """Begin a session; return (token for the cookie, session id). The token is kept nowhere.

    The oldest sessions of an account beyond twenty end.
    """
    token, session_id = secrets.token_urlsafe(32), secrets.token_hex(8)
    tx.execute("INSERT INTO web_session (token_sha256, session_id, account, address, started_at, seen_at)"
               " VALUES (?, ?, ?, ?, ?, ?)", (_sha256(token), session_id, account, address, now, now))
    tx.execute("DELETE FROM web_session WHERE account = ? AND session_id NOT IN (SELECT session_id FROM web_session"
               " WHERE account = ? ORDER BY started_at DESC, session_id LIMIT ?)",
               (account, account, _MAX_SESSIONS_EACH))
    return token, session_id


def find_session(tx: Tx, token: str, *, idle_ms: int, longest_ms: int, now: int) -> Session | None:
    """Return the session of a cookie's token; None if it is unknown, ended, too old, or its account is disabled."""
    row = tx.row("SELECT session_id, account, address, started_at, seen_at FROM web_session WHERE token_sha256 = ?",
                 (_sha256(token),))
    if row is None or row[4] + idle_ms < now or row[3] + longest_ms < now:
        return None
    user = get_user(tx, row[1])
    return None if user.disabled_at is not None else Session(row[0], user, row[2], row[3], row[4])


def touch_session(tx: Tx, session_id: str, now: int) -> None:
    """Write down that the session was used."""
    tx.execute("UPDATE web_session SET seen_at = ? WHERE session_id = ? AND seen_at < ?", (now, session_id, now))


def end_session(tx: Tx, session_id: str) -> None:
    """End one session; the cookie is worth nothing afterwards."""
    tx.execute("DELETE FROM web_session WHERE session_id = ?", (session_id,))


def end_sessions_of(tx: Tx, account: str, *, but: str = "") -> int:
    """End every session of an account except `but`; return how many."""
    return tx.execute("DELETE FROM web_session WHERE account = ? AND session_id <> ?", (account, but))


def forget_old_sessions(tx: Tx, *, idle_ms: int, longest_ms: int, now: int) -> int:
    """Remove sessions that are over; return how many."""
    return tx.execute("DELETE FROM web_session WHERE seen_at < ? OR started_at < ?", (now - idle_ms, now - longest_ms))


# --- API keys ------------------------------------------------------------------------------------------------------

_KEY_COLUMNS = "key_id, name, rights, created_at, created_by, expires_at, revoked_at, used_at, secret_sha256"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of another system; times in epoch ms, None for never."""

    key_id: str
    name: str
    rights: tuple[str, ...]
    created_at: int
    created_by: str
    expires_at: int | None
    revoked_at: int | None
    used_at: int | None
    secret_sha256: str = field(repr=False)


def issue_key(
    tx: Tx, name: str, rights: Iterable[str], *, author: str, now: int, expires_at: int | None = None,
) -> tuple[str, ApiKey]:
    """Make a key and return (the key, to be shown once; what is kept of it). Raises NotAllowed without a name."""
    name = " ".join(name.split())[:100]
    if not name:
        raise NotAllowed("a key needs a name that says who uses it")
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    tx.execute("INSERT INTO api_key (key_id, name, secret_sha256, rights, created_at, created_by, expires_at)"
               " VALUES (?, ?, ?, ?, ?, ?, ?)",
               (key_id, name, _sha256(secret), " ".join(sorted(set(rights))), now, author, expires_at))
    key = _find_key(tx, key_id)
    assert key is not None  # written above
    return f"rk_{key_id}_{secret}", key


def check_key(tx: Tx, text: str, now: int) -> ApiKey | None:
    """Return the key that `text` is; None if it is unknown, revoked or expired."""
    prefix, _, rest = text.partition("_")
    key_id, _, secret = rest.partition("_")
    if prefix != "rk" or len(text) > 100:
        return None
    key = _find_key(tx, key_id)
    known = hmac.compare_digest(_sha256(secret), key.secret_sha256 if key else _sha256(""))
    if key is None or not known or key.revoked_at is not None:
        return None
    return key if key.expires_at is None or key.expires_at > now else None


def account_behind(tx: Tx, key: ApiKey) -> User | None:
    """Return the account that made a key, also through keys that made keys; None if no account made it."""
    author, seen = key.created_by, {key.key_id}
    while author.startswith("key:"):
        maker = _find_key(tx, author.removeprefix("key:"))
        if maker is None or maker.key_id in seen:
            return None
        seen.add(maker.key_id)
        author = maker.created_by
    return find_user(tx, author.removeprefix("user:")) if author.startswith("user:") else None


def list_keys(tx: Tx) -> list[ApiKey]:
    """Return every key ever made, newest first."""
    return [_key(row) for row in tx.rows(
        f"SELECT {_KEY_COLUMNS} FROM api_key ORDER BY created_at DESC, key_id LIMIT 1000")]


def revoke_key(tx: Tx, key_id: str, now: int) -> ApiKey:
    """Revoke a key, at once and for ever. Raises NotFound."""
    tx.execute("UPDATE api_key SET revoked_at = ? WHERE key_id = ? AND revoked_at IS NULL", (now, key_id))
    key = _find_key(tx, key_id)
    if key is None:
        raise NotFound("there is no such key")
    return key


def touch_key(tx: Tx, key_id: str, now: int) -> None:
    """Write down that the key was used."""
    tx.execute("UPDATE api_key SET used_at = ? WHERE key_id = ?", (now, key_id))


def _find_key(tx: Tx, key_id: str) -> ApiKey | None:
    row = tx.row(f"SELECT {_KEY_COLUMNS} FROM api_key WHERE key_id = ?", (key_id,))
    return _key(row) if row else None


def _key(row: Row) -> ApiKey:
    return ApiKey(row[0], row[1], tuple(row[2].split()), *row[3:])


# --- failed logins -------------------------------------------------------------------------------------------------

# (free tries, longest pause in ms) for account and address together, for an address, for an account. The pause of an
# account is short: a stranger must not be able to lock its owner out.
_ADDRESS_FORGETS_ONE_MS = 300_000
_LIMITS = {"pair": (4, 900_000), "address": (20, 900_000), "account": (50, 30_000)}


def _subjects(account: str, address: str) -> dict[str, str]:
    name = account.strip().lower()[:200]
    return {"pair": _sha256(f"pair {name} {address}"), "address": _sha256(f"address {address}"),
            "account": _sha256(f"account {name}")}


def login_pause_ms(tx: Tx, account: str, address: str, now: int) -> int:
    """Return how long this account has to wait before it may try from this address, 0 if it may now."""
    subjects = list(_subjects(account, address).values())
    latest = tx.value("SELECT MAX(open_again_at) FROM login_failure WHERE subject IN (?, ?, ?)", subjects)
    return max(0, int(latest or 0) - now)


def note_login_failure(tx: Tx, account: str, address: str, now: int) -> None:
    """Count a failed login; beyond the free tries each one doubles the pause. Forgotten after a day without one.

    Many people share an address: of its count one is taken off for every five minutes since the failure before.
    """
    tx.execute("DELETE FROM login_failure WHERE last_at < ?", (now - _FORGET_FAILURES_MS,))
    for kind, subject in _subjects(account, address).items():
        free, longest_ms = _LIMITS[kind]
        before, last_at = tx.row(f"SELECT failures, last_at FROM login_failure WHERE subject = ?{tx.for_update}",
                                 (subject,)) or (0, now)
        over = (now - last_at) // _ADDRESS_FORGETS_ONE_MS if kind == "address" else 0
        failures = 1 + max(0, before - max(0, over))
        pause_ms = 0 if failures <= free else min(longest_ms, 1000 * 2 ** min(failures - free, 20))
        tx.execute("INSERT INTO login_failure (subject, failures, last_at, open_again_at) VALUES (?, ?, ?, ?)"
                   " ON CONFLICT (subject) DO UPDATE SET failures = excluded.failures,"
                   " last_at = excluded.last_at, open_again_at = excluded.open_again_at",
                   (subject, failures, now, now + pause_ms))


def forget_login_failures(tx: Tx, account: str, address: str) -> None:
    """Start counting anew for this account after it has come in; the address keeps its count."""
    subjects = _subjects(account, address)
    tx.execute("DELETE FROM login_failure WHERE subject IN (?, ?)", (subjects["pair"], subjects["account"]))
