"""Values of one attribute as text and back: VR, length, multiplicity and character set are checked.

Imports charset and failures. Messages never repeat a value. Changes when DICOM gets another VR. Source: PS3.5 6.2.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from internal import charset
from internal.rules.failures import EditFailed

MAX_TEXT_BYTES: Final = 64 * 1024
_NUMBERS: Final = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_IN_CHARSET: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_SINGLE: Final = frozenset({"LT", "ST", "UT", "UR"})
_LIMITS: Final = {
    "AE": 16, "AS": 4, "CS": 16, "DA": 8, "DS": 16, "DT": 26, "IS": 12, "LO": 64, "LT": 10240, "PN": 64, "SH": 16,
    "ST": 1024, "TM": 16, "UC": 65534, "UI": 64, "UR": 65534, "UT": 65534,
}  # fmt: skip
_FORMS: Final = {
    "AE": r"[\x20-\x5b\x5d-\x7e]*", "AS": r"\d{3}[DWMY]", "CS": r"[A-Z0-9_ ]*",
    "DA": r"\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])",
    "DS": r" *[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)? *", "IS": r" *[+-]?\d+ *",
    "DT": r"\d{4}(\d\d){0,5}(\.\d{1,6})?([+-]\d{4})?",
    "TM": r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?", "UI": r"[0-2](\.(0|[1-9]\d*))+", "UR": r"[\x21-\x7e]*",
}  # fmt: skip
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_CONTROL_IN_TEXT: Final = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")
SETTABLE: Final = frozenset(_LIMITS) | frozenset(_NUMBERS) | {"AT"}


def to_text(raw: bytes, vr: str, character_set: str, order: str) -> str | None:
    r"""Return a value as text, several separated by ``\``; None where it has no text (OB, OW, SQ, too long).

    `order` is ``<`` or ``>``. Padding is taken away.
    """
    if len(raw) > MAX_TEXT_BYTES:
        return None
    form = _NUMBERS.get(vr)
    if form is not None:
        size = struct.calcsize(form)
        count = len(raw) // size
        return "\\".join(str(one) for one in struct.unpack(f"{order}{count}{form}", raw[: count * size]))
    if vr == "AT":
        pairs = struct.unpack(f"{order}{len(raw) // 4 * 2}H", raw[: len(raw) // 4 * 4])
        return "\\".join(f"{pairs[at]:04X}{pairs[at + 1]:04X}" for at in range(0, len(pairs), 2))
    if vr not in _LIMITS and vr != "UN":
        return None
    text = charset.decode(raw, character_set).rstrip(" \0")
    if vr == "UN" and _CONTROL_IN_TEXT.search(text):
        return None
    if vr in _SINGLE:
        return text
    return text.strip(" ") if "\\" not in text else "\\".join(part.strip(" ") for part in text.split("\\"))


def check(text: str, vr: str, vm: str) -> str:
    """Return what is wrong with a text for this VR and multiplicity, "" if nothing. Never repeats the text."""
    if vr not in SETTABLE:
        return f"a value of VR {vr} cannot be written by a rule"
    parts = [text] if vr in _SINGLE else text.split("\\")
    if len(parts) > _most(vm):
        return f"it would have {len(parts)} values where {vm} is allowed"
    for part in filter(None, parts):
        if fault := _check_part(part, vr):
            return fault
    return ""


def _most(vm: str) -> int:
    last = vm.rpartition("-")[2]
    return int(last) if last.isdigit() else 1 << 30


def _check_part(part: str, vr: str) -> str:
    if vr in _NUMBERS:
        return _check_number(part, vr)
    if vr == "AT":
        return "" if re.fullmatch(r"[0-9A-Fa-f]{8}", part) else "it is no tag of 8 digits"
    control = _CONTROL_IN_TEXT if vr in ("LT", "ST", "UT") else _CONTROL
    if control.search(part):
        return "it would contain control characters"
    groups = part.split("=") if vr == "PN" else [part]
    if len(groups) > 3:
        return "a person name has three groups at most"
    longest = max(map(len, groups))
    if longest > _LIMITS[vr]:
        return f"it would have {longest} characters where VR {vr} allows {_LIMITS[vr]}"
    form = _FORMS.get(vr)
    return "" if form is None or re.fullmatch(form, part) else f"it is not a value of VR {vr}"


def _check_number(part: str, vr: str) -> str:
    try:
        struct.pack("<" + _NUMBERS[vr], _number(part, vr))
    except (ValueError, struct.error, OverflowError):
        return f"it is not a value of VR {vr}"
    return ""


def _number(part: str, vr: str) -> float | int:
    return float(part) if vr in ("FL", "FD") else int(part)


def to_bytes(text: str, vr: str, vm: str, character_set: str, order: str) -> bytes:
    """Return a value as it is written, padded to an even length. Raises EditFailed, which does not repeat it."""
    if fault := check(text, vr, vm):
        raise EditFailed(fault)
    if vr in _NUMBERS:
        parts = [_number(part, vr) for part in text.split("\\") if part]
        return struct.pack(f"{order}{len(parts)}{_NUMBERS[vr]}", *parts)
    if vr == "AT":
        return b"".join(struct.pack(order + "HH", int(one[:4], 16), int(one[4:], 16))
                        for one in text.split("\\") if one)
    try:
        value = charset.encode(text, character_set) if vr in _IN_CHARSET else text.encode("ascii")
    except UnicodeError:
        raise EditFailed(f"VR {vr} allows plain ASCII letters only") from None
    except ValueError as error:
        raise EditFailed(str(error)) from None
    return padded(value, vr)


def padded(value: bytes, vr: str) -> bytes:
    """Return a value with an even length. Source: PS3.5 6.2."""
    return value + (b"\0" if vr in ("UI", "OB", "UN") else b" ") * (len(value) % 2)
