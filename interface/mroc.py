"""The destination "mroc": copies of a delivered study for an MROC client beside the router, as in the official one.

Only where this hospital set `mroc_client_url` to something of its own and the platform's flag is true. A worker of its
own lane calls `step` with a job of kind "mroc"; nothing else ever waits for it. Imports outbound, webhook and internal.
Changes when the partner's interface does. Source: satusehat facts 3 (POST /files: patientId, organizationId,
accessionNumber, repeated parts "files"; flag GET {fhir}/dcm_cfg SATUSEHAT_CLIENT_ENABLE, missing = false).
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from interface.outbound import FileBody, Reply, Session, SessionOptions
from interface.webhook import is_inside
from internal.errors import Transient
from internal.model import Item, ItemState, Probe
from internal.ports import Frozen, Work
from internal.states import Finish, Later, More, Outcome

#: What the official router's template says; nobody has decided anything with it.
OFFICIAL_DEFAULTS = frozenset({"http://localhost:8000", "http://127.0.0.1:8000", "http://0.0.0.0:8081"})
BATCH = 32
BATCH_BYTES = 256 * 1024 * 1024
MAX_REPLY_BYTES = 64 * 1024
FLOOR_BYTES_PER_S = 64 * 1024
_DISABLED_TEXT = "the platform's flag SATUSEHAT_CLIENT_ENABLE is not true"


@dataclass(frozen=True, kw_only=True)
class MrocOptions:
    """Where the client listens and what the platform says; `is_enabled` asks the platform's flag. Times in seconds."""

    url: str
    organization_id: str
    is_enabled: Callable[[], bool]
    timeout_s: float = 60.0
    user_agent: str = "satusehat-dicom-router/2.0"


def is_own_choice(url: str) -> bool:
    """Return whether this hospital set an MROC client of its own: not empty, not the official default."""
    return bool(url) and url.rstrip("/").lower() not in OFFICIAL_DEFAULTS


class Mroc:
    """POSTs instances as multipart forms; a 2xx is the receipt of every file in it."""

    kind = "mroc"
    by_accession = True

    def __init__(self, options: MrocOptions, name: str = "mroc") -> None:
        self.name = name
        self._options = options
        parts = urlsplit(options.url)
        self._host, self._scheme = parts.hostname or "", parts.scheme
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._target = f"{parts.path.rstrip('/')}/files"
        self._session = Session(f"{parts.scheme}://{parts.netloc}", SessionOptions(
            user_agent=options.user_agent, stall_timeout_s=options.timeout_s, connections=2))

    @property
    def environment(self) -> str:
        """Return the client's address: what receipts are keyed by."""
        return f"mroc:{self._options.url}"

    def step(self, work: Work) -> Outcome:
        """Send what is due while the platform's flag is true; else mark it as not sent."""
        if self._scheme != "https" and not is_inside(self._host, self._port):
            return Later("mroc-insecure", f"http to {self._host} would leave the hospital's network", blame="lane")
        if not self._options.is_enabled():
            return self._skip(work)
        while items := self._batch(work):
            self._send(work, items)
            if work.should_yield():
                return More()
        total = work.count_items().get(ItemState.STORED, 0)
        work.event("mroc-sent", f"{total} images were given to the MROC client {self._host}", instances=total)
        return Finish()

    def may_poll(self) -> bool:
        """Nothing is waited for at an MROC client."""
        return True

    def report(self) -> dict[str, int]:
        """Nothing slows an MROC client down."""
        return {}

    def probe(self) -> Iterator[Probe]:
        """Say where copies would go; sends nothing."""
        yield Probe("mroc", True, f"{self._scheme}://{self._host}, while the platform's flag SATUSEHAT_CLIENT_ENABLE"
                    " is true")

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _skip(self, work: Work) -> Outcome:
        while items := work.items((ItemState.DUE, ItemState.SENT), 1000):
            answer = {"at": work.clock.now_ms(), "text": _DISABLED_TEXT}
            work.settle_items([(item, ItemState.SKIPPED, answer) for item in items])
        return Finish(_DISABLED_TEXT)

    def _batch(self, work: Work) -> list[Item]:
        batch: list[Item] = []
        size = 0
        for item in work.items((ItemState.SENT, ItemState.DUE), BATCH):
            size += item.instance.dataset_bytes
            if batch and size > BATCH_BYTES:
                break
            batch.append(item)
        return batch

    def _send(self, work: Work, items: Sequence[Item]) -> None:
        frozen = work.freeze(items)
        fields = {"patientId": str(work.facts.get("patient_id", "")),
                  "organizationId": self._options.organization_id,
                  "accessionNumber": str(work.facts.get("accession_number", work.job.part))}
        reply = self._post(fields, frozen)
        if not 200 <= reply.status < 300:
            raise Transient(f"the MROC client answered HTTP {reply.status}", code=f"mroc-{reply.status}",
                            retry_after_s=reply.retry_after_s)
        answer = {"at": work.clock.now_ms(), "status": reply.status, "text": "taken"}
        work.settle_items([(one.item, ItemState.STORED, answer) for one in frozen])

    def _post(self, fields: dict[str, str], frozen: Sequence[Frozen]) -> Reply:
        form = MultipartForm(fields, frozen)
        deadline = self._session.open_deadline(self._options.timeout_s + form.size_bytes / FLOOR_BYTES_PER_S)
        with form.open() as body:
            return self._session.exchange(
                "POST", self._target, deadline=deadline, headers={"Content-Type": form.content_type},
                body=FileBody(body, form.size_bytes), limit_bytes=MAX_REPLY_BYTES)


class MultipartForm:
    """A multipart/form-data body over frozen instances, streamed one file at a time. Source: RFC 7578."""

    def __init__(self, fields: dict[str, str], frozen: Sequence[Frozen]) -> None:
        boundary = f"router-{secrets.token_hex(16)}"
        self.content_type = f"multipart/form-data; boundary={boundary}"
        head = "".join(f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{_one_line(value)}\r\n'
                       for name, value in fields.items())
        self._pieces: list[bytes | Frozen] = [head.encode()]
        for one in frozen:
            self._pieces += [
                (f'--{boundary}\r\nContent-Disposition: form-data; name="files"; '
                 f'filename="{_one_line(one.item.instance.header.sop_uid)}.dcm"\r\n'
                 "Content-Type: application/dicom\r\n\r\n").encode(), one, b"\r\n"]
        self._pieces.append(f"--{boundary}--\r\n".encode())
        self.size_bytes = sum(len(one) if isinstance(one, bytes) else one.size_bytes for one in self._pieces)

    def open(self) -> BinaryIO:
        """Return a reader over exactly `size_bytes` bytes; the caller closes it."""
        return cast(BinaryIO, io.BufferedReader(_Chain(self._pieces), 128 * 1024))


class _Chain(io.RawIOBase):
    """Reads one piece after the other; a file is open only while it is read."""

    def __init__(self, pieces: Sequence[bytes | Frozen]) -> None:
        self._left = list(pieces)
        self._files = ExitStack()
        self._source: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while True:
            if self._source is None:
                if not self._left:
                    return 0
                piece = self._left.pop(0)
                self._source = self._files.enter_context(
                    io.BytesIO(piece) if isinstance(piece, bytes) else piece.open())
            data = self._source.read(len(buffer))
            if data:
                buffer[:len(data)] = data
                return len(data)
            self._files.close()
            self._source = None

    def close(self) -> None:
        self._files.close()
        super().close()


def _one_line(text: str) -> str:
    """Return text that cannot end a header or a part: no control characters, no quotes."""
    return "".join(char for char in text if char.isprintable() and char != '"')[:128]
