"""The destination "dicomweb": a server that gets studies by STOW-RS, many images in one request.

A worker calls `step` with the job it holds. Imports outbound, web_auth, relay and the reader of store replies.
Changes when a server is to be fed in another way. Source: PS3.18 10.5, RFC 2387 (multipart/related).

A request is streamed from the spool and has a Content-Length. Every image is judged by what the answer says of it,
never by the status alone; where one image spoils a batch, the others are sent without it.
"""

from __future__ import annotations

import io
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final, cast

from interface.dimse.messages import PROCESSING_FAILURE
from interface.dimse.statuses import Meaning, describe, meaning_of
from interface.outbound import FileBody, Reply, Session
from interface.relay import Answer, conclude, send_all
from interface.satusehat.answers import StoreReply, read_body
from interface.web_auth import Login
from internal.errors import CredentialsRefused, Transient
from internal.failpoints import hit
from internal.model import ItemState, Probe
from internal.ports import Frozen, Work
from internal.states import Outcome

_MAX_UNREAD: Final = 3
_MAX_TRIES: Final = 4
_DEADLINE_S: Final = 3600.0
#: Without a list of images: the request as a whole was not taken. It may be a single image that spoils it.
_SPOILT: Final = frozenset({400, 406, 409, 411, 413, 415, 422})
_UNREAD = "accepted (HTTP {status}), but the reply does not say what became of it"


@dataclass(frozen=True, slots=True)
class DicomwebOptions:
    """A DICOMweb service and how large a request may grow (images, bytes). `session` begins at its base URL."""

    name: str
    session: Session
    login: Login = field(repr=False)
    batch: int = 50
    batch_bytes: int = 64 * 1024 * 1024


class Dicomweb:
    """STOW-RS client; every worker sends requests of its own over shared connections."""

    kind = "dicomweb"
    by_accession = False

    def __init__(self, options: DicomwebOptions) -> None:
        self.name = options.name
        self._options = options
        self._session = options.session
        self._requests = 0

    @property
    def environment(self) -> str:
        """Return the base URL: what receipts are keyed by."""
        return f"dicomweb:{self._session.base_url}"

    def step(self, work: Work) -> Outcome:
        """Send what is due in batches and write down what the answers say of each image."""
        outcome = send_all(work, lambda batch: self._send(work, batch), self._options.batch)
        return outcome or conclude(work, self.name, "images")

    def may_poll(self) -> bool:
        """Nothing is waited for at a DICOMweb server."""
        return True

    def report(self) -> dict[str, int]:
        """Return how many requests were made."""
        return {"requests": self._requests}

    def probe(self) -> Iterator[Probe]:
        """Ask for one study: tells whether address, TLS and login work; changes nothing there."""
        advice = "Periksa url, jenis auth dan sertifikat / check url, auth and certificates"
        try:
            deadline = self._session.open_deadline(30.0)
            reply = self._session.exchange(
                "GET", "/studies?limit=1", deadline=deadline,
                headers={"Accept": "application/dicom+json", **self._options.login.headers(deadline)})
        except (Transient, CredentialsRefused) as fault:
            yield Probe("dicomweb", False, str(fault), advice)
            return
        ok = reply.status in (200, 204, 404, 405, 501)  # a server may take images without letting anybody search
        yield Probe("dicomweb", ok, f"{self._session.base_url} answers HTTP {reply.status}", "" if ok else advice)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    # -- sending ---------------------------------------------------------------------------------------------------

    def _send(self, work: Work, batch: Sequence[Frozen]) -> Iterator[Answer]:
        todo = list(reversed(list(self._cut(batch))))
        while todo:
            some = todo.pop()
            reply = self._post(some)
            work.renew()
            hit("push.mid")
            store = read_body(reply).store
            if store is None and reply.status in _SPOILT and len(some) > 1:
                half = len(some) // 2
                todo += [some[half:], some[:half]]
                continue
            yield from self._judge(work, some, reply, store)

    def _cut(self, batch: Sequence[Frozen]) -> Iterator[list[Frozen]]:
        group: list[Frozen] = []
        size = 0
        for frozen in batch:
            if group and size + frozen.size_bytes > self._options.batch_bytes:
                yield group
                group, size = [], 0
            group.append(frozen)
            size += frozen.size_bytes
        if group:
            yield group

    def _post(self, some: Sequence[Frozen]) -> Reply:
        """Send one request, a second time with a new login after a 401; raises Transient, CredentialsRefused."""
        for _ in range(2):
            deadline = self._session.open_deadline(_DEADLINE_S)
            login = self._options.login.headers(deadline)
            boundary = f"dicom-{secrets.token_hex(16)}"
            self._requests += 1
            with Multipart(some, boundary) as body:
                reply = self._session.exchange(
                    "POST", "/studies", deadline=deadline, body=FileBody(cast(BinaryIO, body), body.size_bytes),
                    headers={"Accept": "application/dicom+json, application/dicom+xml;q=0.8", **login,
                             "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}'})
            if reply.status != 401 or not self._options.login.forget():
                break
        if reply.status == 401:
            raise CredentialsRefused(f"{self.name} refuses our login (HTTP 401)", code="login-refused")
        return reply

    def _judge(self, work: Work, some: Sequence[Frozen], reply: Reply, store: StoreReply | None) -> Iterator[Answer]:
        said = {"status": f"HTTP {reply.status}"}
        if store is None and not 200 <= reply.status < 300:
            if reply.status not in _SPOILT:
                raise _fault(self.name, reply)
            for frozen in some:
                yield Answer(frozen, ItemState.REFUSED, {**said, "text": f"refused with HTTP {reply.status}"})
            return
        for frozen in some:
            uid = frozen.header.sop_uid
            if store is not None and uid in store.failed:
                yield self._judge_failed(frozen, store.failed[uid], said)
            elif store is not None and uid in store.stored and reply.status < 300:
                yield Answer(frozen, ItemState.STORED, {**said, "text": "stored"})
            else:
                yield self._unread(work, frozen, said, reply.status)

    def _judge_failed(self, frozen: Frozen, reason: str, said: dict[str, Any]) -> Answer:
        found = re.search(r"FailureReason ([0-9]{1,5})\b", reason)
        number = int(found[1]) if found else PROCESSING_FAILURE
        meaning = meaning_of(number)
        said = {**said, "text": describe(number), "comment": reason[:200]}
        if meaning is Meaning.KNOWN or "already exist" in reason.lower():
            return Answer(frozen, ItemState.UNVERIFIED, {**said, "text": "was there already"})
        if meaning is Meaning.LATER:
            raise Transient(f"{self.name} answers {describe(number)}", code=f"dimse-{number:04x}")
        tries = int(frozen.item.answer.get("tries", 0)) + 1
        if meaning is Meaning.AGAIN and tries < _MAX_TRIES:
            return Answer(frozen, ItemState.SENT, {**said, "tries": tries})
        return Answer(frozen, ItemState.REFUSED, said)

    def _unread(self, work: Work, frozen: Frozen, said: dict[str, Any], status: int) -> Answer:
        """Taken by status, not named: asked again twice, then a receipt of its own that a person is shown."""
        tries = int(frozen.item.answer.get("tries", 0)) + 1
        text = _UNREAD.format(status=status)
        if tries < _MAX_UNREAD or status >= 300:
            return Answer(frozen, ItemState.SENT, {**said, "tries": tries, "text": text})
        work.alert("reply-not-understood", f"{self.name}: replies are not understood; images are counted as accepted")
        return Answer(frozen, ItemState.UNREAD, {**said, "tries": tries, "text": text})


class Multipart(io.RawIOBase):
    """A multipart/related body over frozen images, read from the front; one file is open at a time."""

    def __init__(self, some: Sequence[Frozen], boundary: str) -> None:
        self._head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode("ascii")
        tail = f"--{boundary}--\r\n".encode("ascii")
        self.size_bytes = sum(len(self._head) + one.size_bytes + 2 for one in some) + len(tail)
        self._parts = self._pieces(some, tail)
        self._now: BinaryIO = io.BytesIO()

    def _pieces(self, some: Sequence[Frozen], tail: bytes) -> Iterator[BinaryIO]:
        for frozen in some:
            yield io.BytesIO(self._head)
            yield frozen.open()
            yield io.BytesIO(b"\r\n")
        yield io.BytesIO(tail)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer` with next bytes and return how many, 0 at the end."""
        while not (count := int(self._now.readinto(buffer))):  # type: ignore[attr-defined]
            self._now.close()
            following = next(self._parts, None)
            if following is None:
                return 0
            self._now = following
        return count

    def close(self) -> None:
        """Close the file that is open."""
        self._now.close()
        super().close()


def _fault(name: str, reply: Reply) -> Transient:
    """Return what a status without verdicts means: all but 500 concern every study that would go there now."""
    return Transient(f"{name} answers HTTP {reply.status}", code=f"stow-{reply.status}",
                     retry_after_s=reply.retry_after_s, blame_lane=reply.status != 500)
