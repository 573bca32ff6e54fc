"""The destination "sftp": a folder on another machine through SSH, each file complete before it has its name.

A worker calls `step` with the job it holds. Imports paramiko (extra `sftp`), naming and relay. Only a server whose host
key is in `known_hosts` is believed. Changes when files have to be brought there in another way.
Source: draft-ietf-secsh-filexfer-02; OpenSSH PROTOCOL 3.3 (posix-rename@openssh.com).
"""

from __future__ import annotations

import hashlib
import logging
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from interface.naming import build_parts
from interface.relay import Answer, conclude, send_all
from internal.errors import BytesDamaged, ConfigurationInvalid, CredentialsRefused, Transient
from internal.failpoints import hit
from internal.model import ItemState, Probe
from internal.ports import Frozen, Work
from internal.states import Outcome

_CHUNK: Final = 32 * 1024
_CONNECT_S: Final = 15.0

logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # it would log every fault that we report ourselves


@dataclass(frozen=True, slots=True)
class SftpOptions:
    """A server and how to log in there; `password` reveals it (or the key's passphrase) when a connection is made."""

    name: str
    host: str
    port: int
    user: str
    known_hosts: Path
    folder: str = "."
    template: str = "{accession}/{study}/{sop}.dcm"
    password: Callable[[], str] = field(default=str, repr=False)
    key: Path | None = None
    timeout_s: float = 60.0


class Sftp:
    """Writes instances through SFTP; one connection for each worker, kept between studies."""

    kind = "sftp"
    by_accession = False

    def __init__(self, options: SftpOptions) -> None:
        self.name = options.name
        self._options = options
        self._local = threading.local()
        self._open: list[Any] = []

    @property
    def environment(self) -> str:
        """Return user, address and folder: what receipts are keyed by."""
        one = self._options
        return f"sftp:{one.user}@{one.host}:{one.port}/{one.folder}"

    def step(self, work: Work) -> Outcome:
        """Write what is due; a file that is there with equal bytes is a receipt, one with others a conflict."""
        import paramiko

        try:
            client = self._client()
            outcome = send_all(work, lambda batch: (self._write(client, one) for one in batch))
        except (paramiko.SSHException, OSError, EOFError) as fault:
            self._drop()
            raise self._explain(fault) from None
        return outcome or conclude(work, self.name, "files")

    def may_poll(self) -> bool:
        """Nothing is waited for in a folder."""
        return True

    def report(self) -> dict[str, int]:
        """Nothing slows it down."""
        return {}

    def probe(self) -> Iterator[Probe]:
        """Log in and look whether the folder is there; changes nothing."""
        import paramiko

        advice = "Periksa alamat, known_hosts, user dan folder / check address, known_hosts, user and folder"
        try:
            mode = self._client().stat(self._options.folder).st_mode or 0
        except (paramiko.SSHException, OSError, EOFError) as fault:
            yield Probe("sftp", False, str(self._explain(fault)), advice)
        except (Transient, CredentialsRefused, ConfigurationInvalid) as fault:
            yield Probe("sftp", False, str(fault), advice)
        else:
            ok = stat.S_ISDIR(mode)
            where = self.environment.removeprefix("sftp:")
            yield Probe("sftp", ok, f"{where} is there" if ok else f"{where} is no folder", "" if ok else advice)
        finally:
            self._drop()

    def close(self) -> None:
        """Close every connection."""
        for transport in self._open:
            transport.close()

    # -- connection ------------------------------------------------------------------------------------------------

    def _client(self) -> Any:
        import paramiko

        client = getattr(self._local, "client", None)
        if client is not None and client.get_channel().get_transport().is_active():
            return client
        one = self._options
        ssh = paramiko.SSHClient()
        ssh.set_missing_host_key_policy(paramiko.RejectPolicy())
        try:
            ssh.load_host_keys(str(one.known_hosts))
        except OSError:
            raise ConfigurationInvalid(f"{one.known_hosts} cannot be read: it holds the server's host key") from None
        try:
            wait_s = min(_CONNECT_S, one.timeout_s)
            ssh.connect(one.host, one.port, one.user, **self._login(), timeout=wait_s, banner_timeout=wait_s,
                        auth_timeout=wait_s, channel_timeout=wait_s, allow_agent=False, look_for_keys=False)
        except paramiko.BadHostKeyException:
            raise Transient(f"{one.host} shows another host key than known_hosts has", code="sftp-host-key") from None
        except paramiko.AuthenticationException:
            raise CredentialsRefused(f"{one.host} refuses the login of {one.user}", code="login-refused") from None
        except paramiko.SSHException as fault:
            if "not found in known_hosts" in str(fault):
                raise Transient(f"the host key of {one.host} is not in known_hosts", code="sftp-host-key") from None
            raise
        transport = ssh.get_transport()
        transport.set_keepalive(15)
        client = ssh.open_sftp()
        client.get_channel().settimeout(one.timeout_s)
        self._local.client, self._local.ssh = client, ssh
        self._open.append(ssh)
        return client

    def _login(self) -> dict[str, Any]:
        one, secret = self._options, self._options.password()
        if one.key is not None:
            return {"key_filename": str(one.key), "passphrase": secret or None}
        return {"password": secret}

    def _drop(self) -> None:
        ssh = getattr(self._local, "ssh", None)
        if ssh is not None:
            ssh.close()
            self._open.remove(ssh)
            self._local.client = self._local.ssh = None

    # -- files -----------------------------------------------------------------------------------------------------

    def _write(self, client: Any, frozen: Frozen) -> Answer:
        parts = build_parts(self._options.template, frozen.header, frozen.item.instance.arrival)
        path, shown = "/".join((self._options.folder.rstrip("/") or "", *parts)), "/".join(parts)
        known = self._judge(client, path, frozen)
        if known is not None:
            text = "was there already" if known is ItemState.STORED else "is there with other content"
            return Answer(frozen, known, {"path": shown, "text": text})
        self._make_folders(client, parts[:-1])
        temporary = f"{path.rpartition('/')[0]}/.{parts[-1]}.part"
        with client.open(temporary, "w") as target:
            target.set_pipelined(True)
            self._copy(frozen, target)
        hit("push.mid")
        if client.stat(temporary).st_size != frozen.size_bytes:
            raise OSError("the server kept fewer bytes than were sent")
        client.posix_rename(temporary, path)
        return Answer(frozen, ItemState.STORED, {"path": shown, "sha256": frozen.sha256, "text": "written"})

    def _judge(self, client: Any, path: str, frozen: Frozen) -> ItemState | None:
        """Return what a file that is there already means; it is read back only when its size is right."""
        try:
            found = client.stat(path)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(found.st_mode or 0) or found.st_size != frozen.size_bytes:
            return ItemState.CONFLICT
        digest = hashlib.sha256()
        with client.open(path, "r") as file:
            file.prefetch(found.st_size)
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return ItemState.STORED if digest.hexdigest() == frozen.sha256 else ItemState.CONFLICT

    def _make_folders(self, client: Any, parts: tuple[str, ...]) -> None:
        for depth in range(1, len(parts) + 1):
            with suppress(OSError):  # there already; if it is not to be made, opening the file says so
                client.mkdir("/".join((self._options.folder.rstrip("/") or "", *parts[:depth])), 0o750)

    def _copy(self, frozen: Frozen, target: Any) -> None:
        digest, size = hashlib.sha256(), 0
        with frozen.open() as source:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                target.write(chunk)
        if size != frozen.size_bytes or digest.hexdigest() != frozen.sha256:
            raise BytesDamaged("the bytes changed while they were copied")

    def _explain(self, fault: Exception) -> Transient:
        host = f"{self._options.host}:{self._options.port}"
        if isinstance(fault, FileNotFoundError):
            return Transient(f"{self._options.folder} is not there on {host}", code="folder-missing")
        if isinstance(fault, PermissionError):
            return Transient(f"{self._options.folder} on {host} cannot be written", code="folder-not-writable")
        if isinstance(fault, TimeoutError):
            return Transient(f"{host} did not answer in time", code="sftp-timeout")
        return Transient(f"{host} cannot be used ({type(fault).__name__})", code="sftp-connect")
