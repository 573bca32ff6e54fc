"""The router's key for new identities, and the way back from a pseudonym: encrypted, for an administrator only.

Layer 4, over rule_rows and store. The key makes pseudonyms, UIDs and shifted dates; without it nobody can go back, and
another key makes other identities. Changes when keys are kept in another way. Source: RFC 2104; Fernet (AES-128-CBC,
HMAC-SHA-256).
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography.fernet import Fernet, InvalidToken

from internal import rule_rows
from internal.errors import ConfigurationInvalid, NotFound
from internal.rules.edits import KeyBytes
from internal.store import Tx

KEY_FILE: Final = "pseudonym.key"
_KEY_BYTES: Final = 32


class Vault:
    """One key and what is sealed with it; `key_id` names the key and says nothing about it."""

    def __init__(self, secret: bytes) -> None:
        self.keys = KeyBytes(secret)
        self.key_id = hashlib.sha256(self.keys.digest("key-id", "")).hexdigest()[:16]
        self._fernet = Fernet(base64.urlsafe_b64encode(self.keys.digest("map", "")))

    def keep(self, tx: Tx, pseudonyms: Mapping[str, str], now: int) -> None:
        """Seal and keep originals by pseudonym, in the caller's transaction."""
        sealed = {pseudonym: self._fernet.encrypt(original.encode()).decode("ascii")
                  for pseudonym, original in pseudonyms.items()}
        rule_rows.keep_pseudonyms(tx, sealed, self.key_id, now)

    def reveal(self, tx: Tx, pseudonym: str) -> str:
        """Return the original of a pseudonym; the caller has written who asks and why into the audit trail.

        Raises NotFound, and ConfigurationInvalid if it was sealed with another key.
        """
        found = rule_rows.sealed_original(tx, pseudonym)
        if found is None:
            raise NotFound("no such pseudonym was made here")
        try:
            original: bytes = self._fernet.decrypt(found[1].encode("ascii"))
        except InvalidToken:
            raise ConfigurationInvalid(f"this pseudonym was made with another key ({found[0]})") from None
        return original.decode()


def open_vault(secret: str, data_dir: Path) -> Vault:
    """Return the vault of the configured secret, else of the key file in the data folder, which is made once.

    Durable on return. Raises ConfigurationInvalid if the key cannot be used.
    """
    return Vault(secret.encode()) if secret else Vault(_key_of(data_dir / KEY_FILE))


def _key_of(path: Path) -> bytes:
    try:
        return _read_key(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConfigurationInvalid(f"{path.name} cannot be read: {error.strerror}") from None
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(_KEY_BYTES).encode("ascii"))
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # never over a key that another process made meanwhile
    except FileExistsError:
        pass
    finally:
        temporary.unlink(missing_ok=True)
    return _read_key(path)


def _read_key(path: Path) -> bytes:
    key = path.read_bytes().strip()
    if len(key) != 2 * _KEY_BYTES:
        raise ConfigurationInvalid(f"{path.name} is not a key of this router")
    return key
