"""The bytes of the upper layer's own PDUs: A-ASSOCIATE, A-RELEASE, A-ABORT; pure, bounded, for hostile input.

Imports nothing of ours. P-DATA-TF is read in place by `association`. Changes when the upper layer protocol does.
Source: PS3.8 9.3, PS3.7 annex D.3.3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from internal.dicomfile import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

ASSOCIATE_RQ: Final = 0x01
ASSOCIATE_AC: Final = 0x02
ASSOCIATE_RJ: Final = 0x03
P_DATA_TF: Final = 0x04
RELEASE_RQ: Final = 0x05
RELEASE_RP: Final = 0x06
ABORT: Final = 0x07

APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
#: 128 contexts with every known transfer syntax each are about 150 KB; 400 of these at once are 77 MB.
MAX_ASSOCIATE_BYTES: Final = 192 * 1024
MAX_CONTEXTS: Final = 128
MAX_TRANSFER_SYNTAXES: Final = 128
RELEASE_REQUEST: Final = struct.pack(">BxII", RELEASE_RQ, 4, 0)
RELEASE_RESPONSE: Final = struct.pack(">BxII", RELEASE_RP, 4, 0)
_FIXED: Final = struct.Struct(">H2x16s16s32s")

ABORT_BY_USER: Final = (0, 0)
ABORT_UNSPECIFIED: Final = (2, 0)
ABORT_UNRECOGNIZED_PDU: Final = (2, 1)
ABORT_UNEXPECTED_PDU: Final = (2, 2)
ABORT_INVALID_PARAMETER: Final = (2, 6)


class PduError(Exception):
    """The peer broke the upper layer protocol; `abort` is the source and reason of the A-ABORT that answers it."""

    def __init__(self, message: str, abort: tuple[int, int] = ABORT_INVALID_PARAMETER) -> None:
        super().__init__(message)
        self.abort = abort


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """A presentation context of an A-ASSOCIATE-RQ. Source: PS3.8 9.3.2.2."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContextResult:
    """Our answer to a presentation context: `result` 0 accepted, 3 abstract, 4 transfer syntaxes not supported."""

    context_id: int
    result: int
    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class Rejection:
    """Result, source and reason of an A-ASSOCIATE-RJ. Source: PS3.8 9.3.4."""

    result: int
    source: int
    reason: int

    def __str__(self) -> str:
        return f"{self.result}/{self.source}/{self.reason}"


LOCAL_LIMIT_EXCEEDED: Final = Rejection(2, 3, 2)
TEMPORARY_CONGESTION: Final = Rejection(2, 3, 1)


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """An A-ASSOCIATE-RQ as received; titles without padding. `max_pdu_bytes` 0 means that the peer sets no limit."""

    protocol_version: int
    called_aet: str
    calling_aet: str
    application_context: str
    contexts: tuple[ProposedContext, ...]
    max_pdu_bytes: int
    implementation: str
    roles: tuple[tuple[str, int, int], ...]
    fixed: bytes


def check_first(kind: int, length: int) -> None:
    """Raise PduError unless a first PDU of this type and length can be an A-ASSOCIATE-RQ that is taken."""
    if kind != ASSOCIATE_RQ:
        raise PduError("the first PDU is no A-ASSOCIATE-RQ", ABORT_UNEXPECTED_PDU)
    if length > MAX_ASSOCIATE_BYTES:
        raise PduError("the A-ASSOCIATE-RQ is too long")


def parse_associate_rq(body: bytes) -> AssociateRequest:
    """Return the A-ASSOCIATE-RQ whose bytes after the PDU header are `body`; raises PduError."""
    if len(body) < _FIXED.size or len(body) > MAX_ASSOCIATE_BYTES:
        raise PduError("the A-ASSOCIATE-RQ is too short or too long")
    version, called, calling, _ = _FIXED.unpack_from(body)
    application_context = ""
    contexts: list[ProposedContext] = []
    user: dict[int, list[bytes]] = {}
    for kind, value in _items(body, _FIXED.size):
        if kind == 0x10:
            application_context = _uid(value)
        elif kind == 0x20:
            contexts.append(_parse_context(value))
        elif kind == 0x50:
            for sub_kind, sub_value in _items(value, 0):
                user.setdefault(sub_kind, []).append(sub_value)
    if len(contexts) > MAX_CONTEXTS or len({context.context_id for context in contexts}) < len(contexts):
        raise PduError("presentation contexts are too many or share an id")
    maximum = user.get(0x51, [b"\0\0\0\0"])[0]
    if len(maximum) != 4:
        raise PduError("the maximum length item is malformed")
    names = [value.decode("ascii", "replace").strip(" \0") for kind in (0x52, 0x55) for value in user.get(kind, [])[:1]]
    return AssociateRequest(
        version, _title(called), _title(calling), application_context, tuple(contexts),
        int.from_bytes(maximum, "big"), " ".join(names), tuple(_parse_roles(user.get(0x54, []))), body[4 : _FIXED.size],
    )  # fmt: skip


def _items(data: bytes, position: int) -> Iterator[tuple[int, bytes]]:
    end = len(data)
    while position < end:
        if position + 4 > end:
            raise PduError("an item is cut off")
        kind, length = struct.unpack_from(">BxH", data, position)
        position += 4
        if position + length > end:
            raise PduError("an item is longer than what holds it")
        yield kind, data[position : position + length]
        position += length


def _parse_context(value: bytes) -> ProposedContext:
    if len(value) < 4 or value[0] % 2 == 0:
        raise PduError("a presentation context has no odd id")
    abstract_syntax = ""
    transfer_syntaxes: list[str] = []
    for kind, sub_value in _items(value, 4):
        if kind == 0x30:
            abstract_syntax = _uid(sub_value)
        elif kind == 0x40 and len(transfer_syntaxes) < MAX_TRANSFER_SYNTAXES:
            transfer_syntaxes.append(_uid(sub_value))
    return ProposedContext(value[0], abstract_syntax, tuple(transfer_syntaxes))


def _parse_roles(values: Sequence[bytes]) -> Iterator[tuple[str, int, int]]:
    for value in values[:MAX_CONTEXTS]:
        if len(value) < 4 or len(value) != 4 + int.from_bytes(value[:2], "big"):
            raise PduError("a role selection item is malformed")
        yield _uid(value[2:-2]), value[-2], value[-1]


def _uid(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \0")[:64]


def _title(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \0")


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxI", kind, len(body)) + body


def build_associate_ac(
    request: AssociateRequest, results: Sequence[ContextResult], max_pdu_bytes: int,
    roles: Mapping[str, tuple[bool, bool]] | None = None,
) -> bytes:
    """Return the A-ASSOCIATE-AC: the fixed fields echoed, a result per context, our maximum length and names.

    A role selection for an accepted context is answered: of what the peer proposes it may be SCU alone, or what
    `roles` says of the SOP class (SCU, SCP). Source: PS3.8 9.3.3, PS3.7 D.3.3.4.
    """
    may = roles or {}
    accepted = {result.abstract_syntax for result in results if result.result == 0}
    user = [
        _item(0x51, struct.pack(">I", max_pdu_bytes)),
        _item(0x52, IMPLEMENTATION_CLASS_UID.encode("ascii")),
        *(
            _item(0x54, struct.pack(">H", len(uid)) + uid.encode("ascii", "replace")
                  + bytes((scu & may_be_scu, scp & may_be_scp)))
            for uid, scu, scp in request.roles
            if uid in accepted
            for may_be_scu, may_be_scp in (may.get(uid, (True, False)),)
        ),
        _item(0x55, IMPLEMENTATION_VERSION_NAME.encode("ascii")),
    ]
    contexts = (
        _item(
            0x21,
            bytes((result.context_id, 0, result.result, 0))
            + _item(0x40, result.transfer_syntax.encode("ascii", "replace")),
        )
        for result in results
    )
    application_context = _item(0x10, request.application_context.encode("ascii", "replace"))
    head = struct.pack(">H2x", 1) + request.fixed
    return _pdu(0x02, head + application_context + b"".join(contexts) + _item(0x50, b"".join(user)))


@dataclass(frozen=True, slots=True)
class AssociateAccept:
    """An A-ASSOCIATE-AC: the accepted transfer syntax by context id; `max_pdu_bytes` 0 means no limit."""

    transfer_syntaxes: dict[int, str]
    max_pdu_bytes: int
    implementation: str
    roles: tuple[tuple[str, int, int], ...]


def build_associate_rq(
    called_aet: str, calling_aet: str, contexts: Sequence[ProposedContext], max_pdu_bytes: int,
    roles: Sequence[tuple[str, int, int]] = (),
) -> bytes:
    """Return the A-ASSOCIATE-RQ; `roles` are (SOP class, SCU, SCP). Source: PS3.8 9.3.2, PS3.7 D.3.3.4."""
    user = [
        _item(0x51, struct.pack(">I", max_pdu_bytes)),
        _item(0x52, IMPLEMENTATION_CLASS_UID.encode("ascii")),
        *(_item(0x54, struct.pack(">H", len(uid)) + uid.encode("ascii") + bytes((scu, scp)))
          for uid, scu, scp in roles),
        _item(0x55, IMPLEMENTATION_VERSION_NAME.encode("ascii")),
    ]
    proposed = (
        _item(0x20, bytes((context.context_id, 0, 0, 0)) + _item(0x30, context.abstract_syntax.encode("ascii"))
              + b"".join(_item(0x40, syntax.encode("ascii")) for syntax in context.transfer_syntaxes))
        for context in contexts
    )
    head = struct.pack(">H2x16s16s32x", 1, *(title.encode("ascii", "replace").ljust(16)[:16]
                                             for title in (called_aet, calling_aet)))
    body = head + _item(0x10, APPLICATION_CONTEXT.encode("ascii")) + b"".join(proposed) + _item(0x50, b"".join(user))
    return _pdu(ASSOCIATE_RQ, body)


def parse_associate_ac(body: bytes) -> AssociateAccept:
    """Return the A-ASSOCIATE-AC whose bytes after the PDU header are `body`; raises PduError."""
    if len(body) < _FIXED.size or len(body) > MAX_ASSOCIATE_BYTES:
        raise PduError("the A-ASSOCIATE-AC is too short or too long")
    accepted: dict[int, str] = {}
    user: dict[int, list[bytes]] = {}
    for kind, value in _items(body, _FIXED.size):
        if kind == 0x21 and len(value) >= 4:
            syntaxes = [sub_value for sub_kind, sub_value in _items(value, 4) if sub_kind == 0x40]
            if value[2] == 0 and syntaxes:
                accepted[value[0]] = _uid(syntaxes[0])
        elif kind == 0x50:
            for sub_kind, sub_value in _items(value, 0):
                user.setdefault(sub_kind, []).append(sub_value)
    maximum = user.get(0x51, [b"\0\0\0\0"])[0]
    if len(maximum) != 4:
        raise PduError("the maximum length item is malformed")
    names = [value.decode("ascii", "replace").strip(" \0") for kind in (0x52, 0x55) for value in user.get(kind, [])[:1]]
    return AssociateAccept(accepted, int.from_bytes(maximum, "big"), " ".join(names),
                           tuple(_parse_roles(user.get(0x54, []))))


def build_associate_rj(rejection: Rejection) -> bytes:
    """Return the A-ASSOCIATE-RJ. Source: PS3.8 9.3.4."""
    return struct.pack(">BxIxBBB", 0x03, 4, rejection.result, rejection.source, rejection.reason)


def build_abort(abort: tuple[int, int]) -> bytes:
    """Return the A-ABORT with source and reason `abort`. Source: PS3.8 9.3.8."""
    return struct.pack(">BxIxxBB", ABORT, 4, *abort)
