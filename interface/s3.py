"""The destination "s3": a bucket of an object store; an object is put only where none is, and looked at afterwards.

A worker calls `step` with the job it holds. Imports obstore (extra `s3`), naming and relay. Changes when objects
have to be brought there in another way. Source: Amazon S3 API (PutObject with If-None-Match), obstore.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from interface.naming import build_parts
from interface.relay import Answer, conclude, send_all
from internal.errors import BytesDamaged, ConfigurationInvalid, CredentialsRefused, RouterError, Transient
from internal.failpoints import hit
from internal.model import ItemState, Probe
from internal.ports import Frozen, Work
from internal.states import Outcome

_CHUNK: Final = 1024 * 1024
#: Up to here an object is put in one request, which stores all of it or nothing; larger ones in parts.
_WHOLE_BYTES: Final = 64 * 1024 * 1024
_PART_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class S3Options:
    """A bucket; `endpoint` "" is Amazon's. The keys are revealed when the store is opened. Times in seconds.

    `ca_file` (PEM) is trusted beside the usual authorities.
    """

    name: str
    bucket: str
    access_key: Callable[[], str] = field(repr=False)
    secret_key: Callable[[], str] = field(repr=False)
    endpoint: str = ""
    region: str = "us-east-1"
    template: str = "{accession}/{study}/{sop}.dcm"
    timeout_s: float = 60.0
    ca_file: Path | None = None


class S3:
    """Puts instances as objects; all workers share the connections."""

    kind = "s3"
    by_accession = False

    def __init__(self, options: S3Options) -> None:
        self.name = options.name
        self._options = options
        self._store: Any = None

    @property
    def environment(self) -> str:
        """Return endpoint and bucket: what receipts are keyed by."""
        return f"s3:{self._options.endpoint or 'aws'}/{self._options.bucket}"

    def step(self, work: Work) -> Outcome:
        """Put what is due; an object that is there with equal bytes is a receipt, one with others a conflict."""
        outcome = send_all(work, lambda batch: map(self._put, batch))
        return outcome or conclude(work, self.name, "objects")

    def may_poll(self) -> bool:
        """Nothing is waited for in a bucket."""
        return True

    def report(self) -> dict[str, int]:
        """Nothing slows it down."""
        return {}

    def probe(self) -> Iterator[Probe]:
        """List one page of the bucket: tells whether address, keys and bucket are right; changes nothing."""
        import obstore

        try:
            self._call(lambda store: next(iter(obstore.list(store, chunk_size=1)), None))
        except RouterError as fault:
            yield Probe("s3", False, str(fault), "Periksa endpoint, bucket, access_key dan secret_key / check "
                        "endpoint, bucket, access_key and secret_key")
            return
        yield Probe("s3", True, f"{self.environment.removeprefix('s3:')} can be used")

    def _open(self) -> Any:
        from obstore.store import S3Store

        if self._store is None:
            one = self._options
            client: dict[str, Any] = {"timeout": timedelta(seconds=one.timeout_s),
                                      "connect_timeout": timedelta(seconds=10)}
            if one.ca_file is not None:
                client["root_certificate"] = _certificates(one.ca_file)
            more = {"endpoint": one.endpoint} if one.endpoint else {}
            self._store = S3Store(
                one.bucket, region=one.region, access_key_id=one.access_key(), secret_access_key=one.secret_key(),
                virtual_hosted_style_request=not one.endpoint, conditional_put="etag",
                client_options={**client, "allow_http": one.endpoint.startswith("http:")},
                retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=one.timeout_s)}, **more)
        return self._store

    def _call(self, action: Callable[[Any], Any]) -> Any:
        """Do something with the store; raises what its fault means. FileExistsError and FileNotFoundError pass."""
        from obstore import exceptions as faults

        try:
            return action(self._open())
        except (faults.AlreadyExistsError, FileExistsError):
            raise FileExistsError from None
        except (faults.NotFoundError, FileNotFoundError) as fault:
            if "NoSuchBucket" in str(fault):
                raise Transient(f"there is no bucket {self._options.bucket}", code="s3-no-bucket") from None
            raise FileNotFoundError from None
        except (faults.UnauthenticatedError, faults.PermissionDeniedError):
            raise CredentialsRefused(f"{self.environment} refuses our keys", code="login-refused") from None
        except (faults.BaseError, OSError) as fault:
            raise self._explain(fault) from None

    def _explain(self, fault: Exception) -> RouterError:
        words = str(fault)
        for mark in ("SignatureDoesNotMatch", "InvalidAccessKeyId", "AccessDenied"):
            if mark in words:
                return CredentialsRefused(f"{self.environment} refuses our keys ({mark})", code="login-refused")
        if "NoSuchBucket" in words:
            return Transient(f"there is no bucket {self._options.bucket}", code="s3-no-bucket")
        return Transient(f"{self.environment} cannot be used now ({type(fault).__name__})", code="s3-unavailable")

    def _put(self, frozen: Frozen) -> Answer:
        import obstore

        parts = build_parts(self._options.template, frozen.header, frozen.item.instance.arrival)
        key = "/".join(parts)
        said = {"path": key, "sha256": frozen.sha256}
        try:
            if frozen.size_bytes <= _WHOLE_BYTES:
                data = _read(frozen)
                self._call(lambda store: obstore.put(store, key, data, mode="create", use_multipart=False))
            else:
                self._put_large(key, frozen)
        except FileExistsError:
            state = ItemState.STORED if self._hash(key, frozen.size_bytes) == frozen.sha256 else ItemState.CONFLICT
            text = "was there already" if state is ItemState.STORED else "is there with other content"
            return Answer(frozen, state, {**said, "text": text})
        except FileNotFoundError:  # a put finds no object missing: what answers is no object store
            raise Transient(f"there is no bucket {self._options.bucket}", code="s3-no-bucket") from None
        hit("push.mid")
        try:
            size = self._call(lambda store: obstore.head(store, key))["size"]
        except FileNotFoundError:
            size = -1
        if size != frozen.size_bytes:
            raise Transient(f"{self.environment} does not show what was put there", code="s3-unavailable")
        return Answer(frozen, ItemState.STORED, {**said, "text": "written"})

    def _put_large(self, key: str, frozen: Frozen) -> None:
        """Put in parts; the object appears when the last one is there. Nothing is put over one that exists."""
        import obstore

        try:
            self._call(lambda store: obstore.head(store, key))
        except FileNotFoundError:
            with frozen.open() as source:
                self._call(lambda store: obstore.put(store, key, source, use_multipart=True, chunk_size=_PART_BYTES,
                                                     max_concurrency=2))
            return
        raise FileExistsError

    def _hash(self, key: str, size_bytes: int) -> str:
        """Return the SHA-256 of an object, "" when its size is another one."""
        import obstore

        found = self._call(lambda store: obstore.get(store, key))
        if found.meta["size"] != size_bytes:
            return ""
        digest = hashlib.sha256()
        for chunk in found.stream(min_chunk_size=_CHUNK):
            digest.update(chunk)
        return digest.hexdigest()


def _certificates(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise ConfigurationInvalid(f"{path} cannot be read: it holds the object store's authority") from None


def _read(frozen: Frozen) -> bytes:
    with frozen.open() as source:
        data = source.read(frozen.size_bytes)
    if len(data) != frozen.size_bytes or hashlib.sha256(data).hexdigest() != frozen.sha256:
        raise BytesDamaged("the bytes changed while they were read")
    return data
