"""Which presentation contexts we accept, and in which transfer syntax; a pure function.

Imports pdu. Changes when a service is added or an encoding becomes known. Source: PS3.4 B.5, PS3.5 10, PS3.6 A.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from interface.dimse.pdu import AssociateRequest, ContextResult, ProposedContext

VERIFICATION: Final = "1.2.840.10008.1.1"
STORAGE_COMMITMENT: Final = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE: Final = "1.2.840.10008.1.20.1.1"  #: the well-known instance of it
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_BIG: Final = "1.2.840.10008.1.2.2"

ACCEPTED: Final = 0
ABSTRACT_SYNTAX_NOT_SUPPORTED: Final = 3
TRANSFER_SYNTAXES_NOT_SUPPORTED: Final = 4

_SAFE_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")
_STANDARD: Final = "1.2.840.10008."
_STORAGE_ROOT: Final = "1.2.840.10008.5.1.4.1.1."
#: Storage SOP classes that lie elsewhere: PS3.4 B.5; retired hardcopy, stored print and a trial.
_OTHER_STORAGE: Final = frozenset(
    {"1.2.840.10008.5.1.4.34.1", "1.2.840.10008.5.1.4.34.7", "1.2.840.10008.5.1.4.34.10",
     "1.2.840.10008.5.1.1.27", "1.2.840.10008.5.1.1.29", "1.2.840.10008.5.1.1.30"}
)  # fmt: skip
#: Below the storage root, but objects of no patient, queries and inventories (PS3.4 GG, HH, II, KK).
_NOT_STORAGE: Final = frozenset(
    _STORAGE_ROOT + tail
    for tail in ("200.1", "200.3", "200.4", "200.5", "200.6", "200.7",
                 "201.1", "201.2", "201.3", "201.4", "201.5", "201.6")
)  # fmt: skip

_JPEG: Final = "1.2.840.10008.1.2.4."
_LOSSLESS_COMPRESSED: Final = frozenset(
    {_JPEG + tail for tail in ("57", "70", "80", "90", "92", "110", "201", "202")} | {"1.2.840.10008.1.2.5"}
)
#: Encodings that hardly anybody reads: big endian, encapsulated uncompressed, deflated (all or frames), retired JPEG.
_OTHER_LOSSLESS: Final = frozenset(
    {EXPLICIT_BIG, "1.2.840.10008.1.2.1.98", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1"}
    | {_JPEG + tail for tail in ("58", "65", "66")}
)
#: JPIP carries references to pixels instead of pixels: there would be nothing to keep.
_REFERENCES: Final = frozenset({_JPEG + tail for tail in ("94", "95", "204", "205")})
_UNCOMPRESSED: Final = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG)


def is_safe_uid(uid: str) -> bool:
    """Return whether `uid` is at most 64 digits and dots: safe, even if it breaks PS3.5 9.1 (leading zeros)."""
    return len(uid) <= 64 and _SAFE_UID.fullmatch(uid) is not None


def is_storage(abstract_syntax: str) -> bool:
    """Return whether this is a storage SOP class, also a private one or one not yet known to us."""
    if abstract_syntax.startswith(_STANDARD):
        if abstract_syntax in _NOT_STORAGE:
            return False
        return abstract_syntax.startswith(_STORAGE_ROOT) or abstract_syntax in _OTHER_STORAGE
    return is_safe_uid(abstract_syntax)


def rank(transfer_syntax: str) -> int | None:
    """Return how much we prefer this encoding of an image (0 most), None for one that we refuse.

    Lossless compressed, explicit little endian, implicit, other lossless; a lossy one only if nothing else is offered.
    """
    if transfer_syntax in _LOSSLESS_COMPRESSED:
        return 0
    if transfer_syntax == EXPLICIT_LITTLE:
        return 1
    if transfer_syntax == IMPLICIT_LITTLE:
        return 2
    if transfer_syntax in _OTHER_LOSSLESS:
        return 3
    if transfer_syntax.startswith(_JPEG) and transfer_syntax not in _REFERENCES:
        return 4
    return None


def choose(context: ProposedContext, services: Collection[str]) -> ContextResult:
    """Return our answer to one presentation context; `services` are the accepted abstract syntaxes beside storage."""
    offered = context.transfer_syntaxes
    insignificant = offered[0] if offered else IMPLICIT_LITTLE
    if context.abstract_syntax in services:
        chosen: str | None = next((syntax for syntax in _UNCOMPRESSED if syntax in offered), None)
    elif is_storage(context.abstract_syntax):
        ranked = [(place, index) for index, syntax in enumerate(offered) if (place := rank(syntax)) is not None]
        chosen = offered[min(ranked)[1]] if ranked else None
    else:
        return _result(context, ABSTRACT_SYNTAX_NOT_SUPPORTED, insignificant)
    if chosen is None:
        return _result(context, TRANSFER_SYNTAXES_NOT_SUPPORTED, insignificant)
    return _result(context, ACCEPTED, chosen)


def _result(context: ProposedContext, result: int, transfer_syntax: str) -> ContextResult:
    return ContextResult(context.context_id, result, context.abstract_syntax, transfer_syntax)


def negotiate(request: AssociateRequest, services: Collection[str]) -> list[ContextResult]:
    """Return our answer to every presentation context of `request`, in its order."""
    return [choose(context, services) for context in request.contexts]
