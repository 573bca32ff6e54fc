"""The destination "dimse": a DICOM node that gets studies by C-STORE, over associations that are kept and reused.

A worker calls `step` with the job it holds. Imports pool, requestor, echo, relay, commitment_scu and the codec.
Changes when a node is to be fed in another way. Source: PS3.4 B, PS3.7 9.1.1.

An image goes as it lies here where the node takes its encoding; else uncompressed, decoded without loss and compared.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from interface.dimse.commitment_scu import Commitment
from interface.dimse.echo import ask
from interface.dimse.pool import FALLBACKS, Pair, Pool, fits
from interface.dimse.requestor import AssociationLost, Node, Reply, Requestor
from interface.dimse.statuses import Meaning, describe, meaning_of
from interface.relay import Answer, conclude, send_all
from internal.codec import Codec
from internal.errors import PixelsRefused, Transient
from internal.failpoints import hit
from internal.model import ItemState, Probe
from internal.ports import Frozen, Work
from internal.states import Outcome

_BATCH: Final = 32
_TRIES: Final = 4
_COPY_BYTES: Final = 1024 * 1024
_NOT_TAKEN: Final = "it takes neither this kind of image nor its encoding"


@dataclass(frozen=True, slots=True)
class DimseOptions:
    """A node, the AE title under which it is called (or that of the device: `pass_calling`), and how images go there.

    For `commitment_linger_s` the answer to a request is awaited on its own association.
    `scratch` is a folder for files that are decoded on the way, made when it is needed.
    """

    name: str
    node: Node
    calling_aet: str
    pass_calling: bool = False
    transcode: bool = True
    commitment: bool = False
    commitment_timeout_s: float = 3600.0
    commitment_linger_s: float = 2.0
    scratch: Path | None = None


class DimseStore:
    """C-STORE SCU; one association for each worker, kept between studies."""

    kind = "dimse"
    by_accession = False

    def __init__(self, options: DimseOptions) -> None:
        self.name = options.name
        self._options = options
        self._pool = Pool(options.node)
        self._codec = Codec(children=1)
        self._commitment = Commitment(options.node, options.calling_aet, options.commitment_timeout_s,
                                      options.commitment_linger_s) if options.commitment else None
        self._recoded = 0

    @property
    def environment(self) -> str:
        """Return AE title and address: what receipts are keyed by."""
        node = self._options.node
        return f"dimse:{node.aet}@{node.host}:{node.port}"

    def step(self, work: Work) -> Outcome:
        """Send what is due; with commitment, ask for it and wait for the answer before the study is done."""
        outcome = send_all(work, self._send, _BATCH)
        if outcome is None and self._commitment is not None:
            outcome = self._commitment.step(work)
        return outcome or conclude(work, self.name, "images")

    def may_poll(self) -> bool:
        """Return True: whether an answer has come in is looked up here, the node is not asked."""
        return True

    def report(self) -> dict[str, int]:
        """Return how many associations were opened and how many images were decoded on the way."""
        return {"associations_opened": self._pool.opened, "recoded": self._recoded}

    def probe(self) -> Iterator[Probe]:
        """C-ECHO the node."""
        node = self._options.node
        try:
            status = ask(node, self._options.calling_aet)
        except AssociationLost as fault:
            yield Probe("dimse", False, str(fault), "Periksa alamat, port dan AE title di kedua sisi / check address, "
                        "port and AE titles at both sides")
            return
        if status is None:
            yield Probe("dimse", True, f"{node} takes associations, but no C-ECHO")
        else:
            yield Probe("dimse", status == 0, f"{node} answers C-ECHO with {describe(status)}")

    def close(self) -> None:
        """Release the associations and end the decoder."""
        self._pool.close()
        self._codec.close()

    # -- sending ---------------------------------------------------------------------------------------------------

    def _send(self, batch: Sequence[Frozen]) -> Iterator[Answer]:
        for calling_aet, some in self._groups(batch):
            yield from self._send_group(calling_aet, some)

    def _groups(self, batch: Sequence[Frozen]) -> Iterator[tuple[str, list[Frozen]]]:
        """Cut a batch where the calling AE title changes or one association could not carry all encodings."""
        group: list[Frozen] = []
        calling_now = ""
        for frozen in batch:
            calling = self._calling(frozen)
            if group and (calling != calling_now or not fits([_pair(one) for one in (*group, frozen)])):
                yield calling_now, group
                group = []
            calling_now = calling
            group.append(frozen)
        if group:
            yield calling_now, group

    def _calling(self, frozen: Frozen) -> str:
        own = self._options.calling_aet
        return (frozen.item.instance.arrival.calling_aet.strip() or own) if self._options.pass_calling else own

    def _send_group(self, calling_aet: str, group: Sequence[Frozen]) -> Iterator[Answer]:
        """Yield an answer for each; an image on which an association breaks is charged when others get through."""
        broke: list[tuple[Frozen, AssociationLost]] = []
        answered = 0
        pairs = [_pair(one) for one in group]
        requestor, kept = self._pool.take(calling_aet, pairs)
        silent = kept  # nothing has come over it since
        left = list(reversed(group))
        try:
            while left:
                frozen = left.pop()
                try:
                    answer = self._store(requestor, frozen)
                except AssociationLost as fault:
                    requestor.cut()
                    if silent:
                        left.append(frozen)  # it was kept too long: that says nothing about the image
                    else:
                        broke.append((frozen, fault))
                        if len(broke) > 1 and not answered:
                            raise
                    requestor, kept = self._pool.take(calling_aet, pairs)
                    silent = kept
                    continue
                if kept and _was_not_offered(answer):
                    left.append(frozen)  # the node may take it since: that is for a new association to say
                    requestor.release()
                    requestor, kept = self._pool.take(calling_aet, pairs)
                    silent = kept
                    continue
                silent = False
                answered += 1
                yield answer
        except BaseException:
            requestor.cut()
            raise
        self._pool.give_back(calling_aet, requestor)
        for frozen, why in broke:
            if not answered and not frozen.item.answer.get("tries"):
                raise why
            yield _again(frozen, str(why))

    def _store(self, requestor: Requestor, frozen: Frozen) -> Answer:
        header = frozen.header
        found = requestor.find_context(header.sop_class_uid, (header.transfer_syntax_uid,))
        if found is not None:
            with frozen.open() as file:
                size = frozen.size_bytes - _skip_meta(file)
                reply = requestor.store(found[0], header.sop_class_uid, header.sop_uid, file, size)
            return _answer(frozen, reply, header.transfer_syntax_uid)
        fallback = requestor.find_context(header.sop_class_uid, FALLBACKS)
        if fallback is None:
            return Answer(frozen, ItemState.REFUSED, {"text": _NOT_TAKEN})
        if not self._options.transcode:
            return Answer(frozen, ItemState.REFUSED, {"text": "it does not take this encoding (transcode = no)"})
        try:
            with self._recode(frozen, fallback[1]) as (file, size):
                reply = requestor.store(fallback[0], header.sop_class_uid, header.sop_uid, file, size)
        except PixelsRefused as refused:
            text = f"it does not take this encoding, and it cannot be decoded here ({refused.code})"
            return Answer(frozen, ItemState.REFUSED, {"text": text})
        return _answer(frozen, reply, fallback[1])

    @contextmanager
    def _recode(self, frozen: Frozen, transfer_syntax_uid: str) -> Iterator[tuple[BinaryIO, int]]:
        """Yield the data set in another encoding, and its size; raises PixelsRefused."""
        scratch = self._options.scratch
        if scratch is not None:
            scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            source, target = Path(folder, "in.dcm"), Path(folder, "out.dcm")
            with frozen.open() as file, source.open("wb") as copy:
                while chunk := file.read(_COPY_BYTES):
                    copy.write(chunk)
            made = self._codec.transcode(source, transfer_syntax_uid, target)
            self._recoded += 1
            with target.open("rb") as file:
                file.seek(made.dataset_offset)
                yield file, made.size_bytes - made.dataset_offset


def _pair(frozen: Frozen) -> Pair:
    return frozen.header.sop_class_uid, frozen.header.transfer_syntax_uid


def _was_not_offered(answer: Answer) -> bool:
    """Return whether the image was refused without the node: its encoding was not agreed on."""
    return answer.state is ItemState.REFUSED and not {"status", "tries"} & answer.said.keys()


def _skip_meta(file: BinaryIO) -> int:
    """Read past preamble and file meta, whose group length is ours and right; return their length in bytes."""
    head = file.read(144)
    (length,) = struct.unpack_from("<I", head, 140)
    file.read(length)
    return 144 + int(length)


def _answer(frozen: Frozen, reply: Reply, transfer_syntax_uid: str) -> Answer:
    """Return what a reply means; raises Transient when the node takes nothing now."""
    hit("push.mid")
    meaning = meaning_of(reply.status)
    said = {"status": f"0x{reply.status:04X}", "text": describe(reply.status)}
    if reply.comment:
        said["comment"] = reply.comment
    if transfer_syntax_uid != frozen.header.transfer_syntax_uid:
        said["transfer_syntax"] = transfer_syntax_uid
    match meaning:
        case Meaning.LATER:
            raise Transient(f"the node answers {describe(reply.status)}", code=f"dimse-{reply.status:04x}")
        case Meaning.AGAIN:
            return _again(frozen, describe(reply.status))
        case Meaning.STORED:
            return Answer(frozen, ItemState.STORED, said)
        case Meaning.KNOWN:
            return Answer(frozen, ItemState.UNVERIFIED, said)
        case Meaning.REFUSED:
            return Answer(frozen, ItemState.REFUSED, said)


def _again(frozen: Frozen, text: str) -> Answer:
    """Charge a failure to the image: it is tried again, and refused at the fourth."""
    tries = int(frozen.item.answer.get("tries", 0)) + 1
    if tries < _TRIES:
        return Answer(frozen, ItemState.SENT, {"tries": tries, "text": text})
    return Answer(frozen, ItemState.REFUSED, {"tries": tries, "text": f"{text}, {tries} times"})
