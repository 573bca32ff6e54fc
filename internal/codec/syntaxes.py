"""The transfer syntaxes the codec knows: how the data set is encoded and how its pixels are.

Imports nothing of the router. Changes when a syntax is added. Source: PS3.5 annex A, PS3.6 A.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Coding(StrEnum):
    """How pixels are written."""

    NATIVE = "native"
    RLE = "rle"
    JPEG = "jpeg"
    JPEG_LOSSLESS = "jpeg-lossless"
    JPEG_LS = "jpeg-ls"
    JPEG_2000 = "jpeg-2000"
    HTJ2K = "htj2k"
    #: Known by name, its pixels are not decoded: video and the like.
    OPAQUE = "opaque"


@dataclass(frozen=True, slots=True)
class Syntax:
    """One transfer syntax. `exact` means that what is decoded is what was encoded, for every stream of this syntax."""

    uid: str
    name: str
    coding: Coding
    exact: bool = True
    implicit: bool = False
    big_endian: bool = False
    deflated: bool = False
    writable: bool = False

    @property
    def encapsulated(self) -> bool:
        """Are pixels in fragments?"""
        return self.coding is not Coding.NATIVE


IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
EXPLICIT_BIG: Final = "1.2.840.10008.1.2.2"
DEFLATED_LITTLE: Final = "1.2.840.10008.1.2.1.99"
RLE_LOSSLESS: Final = "1.2.840.10008.1.2.5"
JPEG_LOSSLESS_14: Final = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_SV1: Final = "1.2.840.10008.1.2.4.70"
JPEG_LS_LOSSLESS: Final = "1.2.840.10008.1.2.4.80"
JPEG_2000_LOSSLESS: Final = "1.2.840.10008.1.2.4.90"
HTJ2K_LOSSLESS: Final = "1.2.840.10008.1.2.4.201"

_JPEG: Final = "1.2.840.10008.1.2.4."
_KNOWN: Final = (
    Syntax(IMPLICIT_LITTLE, "Implicit VR Little Endian", Coding.NATIVE, implicit=True, writable=True),
    Syntax(EXPLICIT_LITTLE, "Explicit VR Little Endian", Coding.NATIVE, writable=True),
    Syntax(EXPLICIT_BIG, "Explicit VR Big Endian", Coding.NATIVE, big_endian=True, writable=True),
    Syntax(DEFLATED_LITTLE, "Deflated Explicit VR Little Endian", Coding.NATIVE, deflated=True),
    Syntax(RLE_LOSSLESS, "RLE Lossless", Coding.RLE, writable=True),
    Syntax(_JPEG + "50", "JPEG Baseline", Coding.JPEG, exact=False),
    Syntax(_JPEG + "51", "JPEG Extended", Coding.JPEG, exact=False),
    Syntax(JPEG_LOSSLESS_14, "JPEG Lossless", Coding.JPEG_LOSSLESS),
    Syntax(JPEG_LOSSLESS_SV1, "JPEG Lossless SV1", Coding.JPEG_LOSSLESS, writable=True),
    Syntax(JPEG_LS_LOSSLESS, "JPEG-LS Lossless", Coding.JPEG_LS, writable=True),
    Syntax(_JPEG + "81", "JPEG-LS Near-lossless", Coding.JPEG_LS, exact=False),
    Syntax(JPEG_2000_LOSSLESS, "JPEG 2000 Lossless", Coding.JPEG_2000, writable=True),
    Syntax(_JPEG + "91", "JPEG 2000", Coding.JPEG_2000, exact=False),
    Syntax(HTJ2K_LOSSLESS, "HTJ2K Lossless", Coding.HTJ2K),
    Syntax(_JPEG + "202", "HTJ2K Lossless RPCL", Coding.HTJ2K),
    Syntax(_JPEG + "203", "HTJ2K", Coding.HTJ2K, exact=False),
)
SYNTAXES: Final = {syntax.uid: syntax for syntax in _KNOWN}
#: What `transcode` can write.
WRITABLE: Final = frozenset(syntax.uid for syntax in _KNOWN if syntax.writable)


def syntax_of(uid: str) -> Syntax:
    """Return the syntax `uid`; one we do not know is explicit little endian with pixels that are not decoded.

    Source: PS3.5 A.4, which every encapsulated syntax follows.
    """
    return SYNTAXES.get(uid) or Syntax(uid, uid, Coding.OPAQUE, exact=False)
