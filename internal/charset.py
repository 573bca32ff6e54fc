"""Text of a data set in its Specific Character Set: reading it never fails, writing it is strict.

Layer 1, imports nothing of ours. Used by the scanner and by rewrites. Changes when DICOM defines another character set.
Source: PS3.3 C.12.1.1.2, PS3.5 6.1.2.
"""

from __future__ import annotations

import re

_CODECS = {
    "": "latin-1", "ISO_IR 6": "latin-1", "ISO 2022 IR 6": "latin-1",
    "ISO_IR 100": "latin-1", "ISO 2022 IR 100": "latin-1",
    "ISO_IR 101": "iso8859-2", "ISO 2022 IR 101": "iso8859-2",
    "ISO_IR 109": "iso8859-3", "ISO 2022 IR 109": "iso8859-3",
    "ISO_IR 110": "iso8859-4", "ISO 2022 IR 110": "iso8859-4",
    "ISO_IR 126": "iso8859-7", "ISO 2022 IR 126": "iso8859-7",
    "ISO_IR 127": "iso8859-6", "ISO 2022 IR 127": "iso8859-6",
    "ISO_IR 138": "iso8859-8", "ISO 2022 IR 138": "iso8859-8",
    "ISO_IR 144": "iso8859-5", "ISO 2022 IR 144": "iso8859-5",
    "ISO_IR 148": "iso8859-9", "ISO 2022 IR 148": "iso8859-9",
    "ISO_IR 203": "iso8859-15", "ISO 2022 IR 203": "iso8859-15",
    "ISO_IR 13": "shift_jis", "ISO 2022 IR 13": "shift_jis",
    "ISO_IR 166": "iso8859-11", "ISO 2022 IR 166": "iso8859-11",
    "ISO 2022 IR 87": "iso2022_jp", "ISO 2022 IR 159": "iso2022_jp_2",
    "ISO 2022 IR 149": "euc_kr", "ISO 2022 IR 58": "gb2312",
    "ISO_IR 192": "utf-8", "GB18030": "gb18030", "GBK": "gbk",
}  # fmt: skip

# Escape sequence after ESC -> codec of what follows. Source: PS3.3 tables C.12-3 and C.12-4.
_ESCAPES = {
    b"(B": "ascii", b"-A": "latin-1", b"-B": "iso8859-2", b"-C": "iso8859-3", b"-D": "iso8859-4", b"-F": "iso8859-7",
    b"-G": "iso8859-6", b"-H": "iso8859-8", b"-L": "iso8859-5", b"-M": "iso8859-9", b"-T": "iso8859-11",
    b"-b": "iso8859-15", b")I": "shift_jis", b"(J": "shift_jis", b"$)C": "euc_kr", b"$)A": "gb2312",
    b"$B": "iso2022_jp", b"$(D": "iso2022_jp_2",
}  # fmt: skip
_TWO_BYTE = frozenset({b"$B", b"$(D"})
_DELIMITERS = re.compile(rb"[\r\n\f\t^=\\]")


def codec_of(term: str) -> str:
    """Return the Python codec for one defined term; Latin-1, which decodes any byte, for an unknown one."""
    name = term.strip()
    return _CODECS.get(name) or _CODECS.get(name.replace("-", " ").replace("ISO IR", "ISO_IR").upper(), "latin-1")


def decode(value: bytes, character_set: str) -> str:
    r"""Return `value` as text; `character_set` is (0008,0005) as received, values separated by ``\``.

    Bytes that the character set does not define become U+FFFD.
    """
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    first = codec_of(character_set.split("\\", 1)[0])
    if b"\x1b" not in value:
        return value.decode(first, "replace")
    head, *fragments = value.split(b"\x1b")
    return head.decode(first, "replace") + "".join(_decode_fragment(fragment, first) for fragment in fragments)


def encode(text: str, character_set: str) -> bytes:
    r"""Return `text` as bytes of the data set's own character set; raises ValueError where that has no such letters.

    Without (0008,0005) only ASCII is safe. Letters that need an escape sequence of ISO 2022 are not written.
    Source: PS3.5 6.1.2.
    """
    if text.isascii():
        if "\x1b" in text:
            raise ValueError("an escape sequence cannot be written")
        return text.encode("ascii")
    first = character_set.split("\\", 1)[0].strip()
    known = first in _CODECS and first not in ("", "ISO_IR 6", "ISO 2022 IR 6")
    codec = codec_of(first) if known else ""
    try:
        if not codec or codec.startswith("iso2022"):
            raise ValueError
        value = text.encode(codec)
    except ValueError:
        raise ValueError(f"the data set's character set {first or 'ASCII'!r} has no such letters") from None
    if decode(value, character_set) != text:
        raise ValueError("the letters would not come back from the data set's character set")
    return value


def _decode_fragment(fragment: bytes, initial: str) -> str:
    escape = next((sequence for sequence in _ESCAPES if fragment.startswith(sequence)), None)
    if escape is None:
        return fragment.decode(initial, "replace")
    codec = _ESCAPES[escape]
    text = fragment[len(escape) :]
    if escape in _TWO_BYTE:
        return (b"\x1b" + escape + text).decode(codec, "replace")
    # PS3.5 6.1.2.5.3: a delimiter brings the initial character set back
    end = _DELIMITERS.search(text)
    cut = end.start() if end else len(text)
    return text[:cut].decode(codec, "replace") + text[cut:].decode(initial, "replace")
