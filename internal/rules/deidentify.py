"""De-identification by the Basic Profile, new UIDs and shifted dates.

Imports confidentiality, edits, values. Driven by the standard's table; recursive; the same study gives the same
pseudonym, UIDs and dates at every attempt, because all are made with the router's key. Whatever may show the patient
in its pixels or text is refused unless a rule masks or accepts it. Changes with the profile or its options.
Source: PS3.15 annex E, CID 7050.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from internal import dictionary
from internal.element_bytes import PIXEL_TAGS
from internal.elements import DataSet, Element
from internal.rules import paths, values
from internal.rules.confidentiality import EDITION, Row, row_of
from internal.rules.edits import EditFailed, Edits, Mask
from internal.scan import MAX_DEPTH

_PATIENT_NAME, _PATIENT_ID = 0x00100010, 0x00100020
_STANDARD_UIDS: Final = "1.2.840.10008."
_TEMPORAL: Final = 0x00280303
_CODES: Final = {
    "basic": ("113100", "Basic Application Confidentiality Profile"),
    "pixels": ("113101", "Clean Pixel Data Option"),
    "dates": ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    "shifted": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "device": ("113109", "Retain Device Identity Option"),
    "uids": ("113110", "Retain UIDs Option"),
    "institution": ("113112", "Retain Institution Identity Option"),
}
_DUMMIES: Final = {
    "AE": "ANONYMIZED", "AS": "000Y", "CS": "ANONYMIZED", "DA": "19000101", "DS": "0", "DT": "19000101000000",
    "IS": "0", "LO": "ANONYMIZED", "LT": "ANONYMIZED", "PN": "ANONYMIZED", "SH": "ANONYMIZED", "ST": "ANONYMIZED",
    "TM": "000000", "UC": "ANONYMIZED", "UR": "urn:anonymized", "UT": "ANONYMIZED", "AT": "00000000",
}  # fmt: skip
_NAMING: Final = frozenset({"AE", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
# SOP classes whose pixels or content show text: ultrasound, secondary capture, documents, SR, visible light, video.
_TEXT_CLASSES: Final = (
    "1.2.840.10008.5.1.4.1.1.6.", "1.2.840.10008.5.1.4.1.1.3", "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.104.", "1.2.840.10008.5.1.4.1.1.88.", "1.2.840.10008.5.1.4.1.1.77.1.",
    "1.2.840.10008.5.1.4.1.1.11.", "1.2.840.10008.5.1.4.1.1.9.",
)
# UIDs that say what kind of thing something is: SOP classes, transfer syntaxes, coding schemes, templates, contexts.
_KINDS: Final = frozenset({
    0x00000002, 0x00000003, 0x00020002, 0x00020010, 0x00020012, 0x00041510, 0x00041512, 0x0004151A, 0x00080016,
    0x0008001A, 0x0008001B, 0x00080062, 0x0008010C, 0x0008010D, 0x00080117, 0x00080118, 0x00081150, 0x0008115A,
    0x00083002, 0x0040DB0C, 0x0040DB0D, 0x04000010, 0x04000510,
})
_RETIRED: Final = frozenset({"1.2.840.10008.5.1.4.1.1.6"})  # ultrasound
_CAPTURES: Final = frozenset({"SCREEN SAVE", "SCREENSAVE", "SCREEN_SAVE", "DOSE_INFO", "SCREEN CAPTURE"})
_TEXT_MODALITIES: Final = frozenset({"US", "IVUS", "ES", "XC", "OT", "SR", "DOC", "SC", "GM", "OP", "ECG"})


@dataclass(frozen=True, slots=True)
class Profile:
    """The Basic Profile with its options: `retained` of uids, dates, device, institution; `shifted` dates."""

    retained: frozenset[str] = frozenset()
    shifted: bool = False
    accepts_burned_in: bool = False

    def retains(self, row: Row) -> bool:
        """Return whether an option keeps an attribute that the Basic Profile would change."""
        return bool(row.options & self.retained)


def why_may_show_patient(dataset: DataSet) -> str:
    """Return why the pixels or text of an instance may show who the patient is, "" if nothing speaks for it."""
    sop_class, modality = _text(dataset, 0x00080016), _text(dataset, 0x00080060)
    if sop_class in _RETIRED or sop_class.startswith(_TEXT_CLASSES):
        return "its kind of object often shows the patient in pixels or text"
    if not sop_class.startswith(_STANDARD_UIDS):
        return "nobody knows what its private kind of object shows"
    if modality in _TEXT_MODALITIES:
        return f"images of modality {modality} often show the patient"
    if _text(dataset, 0x00280301).upper() == "YES":
        return "it says itself that it has burned-in annotation"
    if _text(dataset, 0x00080064) or _CAPTURES & set(_text(dataset, 0x00080008).upper().split("\\")):
        return "it is a captured screen"
    if 0x00420011 in dataset:
        return "it carries a document"
    return ""


def deidentify(edits: Edits, profile: Profile, days: int) -> None:
    """Apply the profile to the data set as it is now; raises EditFailed where it may show the patient.

    `days`: by how much dates move where they are shifted.
    """
    why = why_may_show_patient(edits.dataset)
    if why and not (profile.accepts_burned_in or edits.masks):
        raise EditFailed(f"{why}; mask the region or accept it in the rule", "may-show-patient")
    pseudonym = _text(edits.dataset, _PATIENT_ID) if edits.is_deidentified else _pseudonym(edits)
    _clean(edits.dataset, profile, edits, days, 0)
    for tag in (_PATIENT_ID, _PATIENT_NAME):
        _put(edits.dataset, tag, pseudonym)
    _say_so(edits.dataset, profile, edits.masks)
    edits.is_deidentified = True


def _pseudonym(edits: Edits) -> str:
    original = edits.patient_key()
    digest = edits.keys.digest("pseudonym", original)
    pseudonym = "P" + base64.b32encode(digest[:10]).decode("ascii")
    edits.pseudonyms[pseudonym] = original
    return pseudonym


def _clean(dataset: DataSet, profile: Profile, edits: Edits, days: int, depth: int) -> bool:
    """Clean one data set or item; return whether anything was changed."""
    if depth > MAX_DEPTH:
        raise EditFailed("sequences are nested too deep")
    changed = False
    for element in dataset.elements:
        tag = element.tag
        row = row_of(tag)
        if tag >> 16 & 1 or (row is None and dictionary.vr_of(tag) == dictionary.UNKNOWN_VR):
            changed |= dataset.remove(tag)  # nobody can know what it holds
        elif row is None and paths.vr_at(dataset, tag) == "PN":
            dataset.put(tag, element.vr, b"")
            changed = True
        elif row is None or profile.retains(row):
            changed |= _inside(dataset, tag, element, profile, edits, days, depth)
        else:
            changed |= _change(dataset, tag, element, row, profile, edits, days, depth)
    return changed


def _inside(
    dataset: DataSet, tag: int, element: Element, profile: Profile, edits: Edits, days: int, depth: int,
) -> bool:
    """Go into a sequence that stays."""
    if not element.is_sequence:
        return False
    items = dataset.items(tag)
    done = [_clean(item, profile, edits, days, depth + 1) for item in items]
    if any(done):
        dataset.put_items(tag, items)
        return True
    return False


def _change(
    dataset: DataSet, tag: int, element: Element, row: Row, profile: Profile, edits: Edits, days: int, depth: int,
) -> bool:
    action = row.strictest
    vr = paths.vr_at(dataset, tag)
    if profile.shifted and "dates" in row.options and vr in ("DA", "DT", "TM"):
        return vr != "TM" and _shift(dataset, tag, vr, days)
    if action == "X":
        return dataset.remove(tag)
    if element.is_sequence:
        if action == "Z":
            dataset.put_items(tag, [])
            return True
        done = _inside(dataset, tag, element, profile, edits, days, depth)
        return _blank(dataset, tag) or done if action == "D" else done
    if vr == "UI":
        return _new_uid(dataset, tag, edits)
    if action == "Z":
        dataset.put(tag, element.vr, b"")
        return True
    _dummy(dataset, tag, element, vr)
    return True


def _blank(dataset: DataSet, tag: int) -> bool:
    """Leave no text in the items of a sequence that identifies as a whole: codes and their meanings are names too."""
    items = dataset.items(tag)
    for item in items:
        for element in item.elements:
            inner = element.tag
            if element.is_sequence:
                _blank(item, inner)
            elif (vr := paths.vr_at(item, inner)) in _NAMING:
                _dummy(item, inner, element, vr)
    dataset.put_items(tag, items)
    return True


def _dummy(dataset: DataSet, tag: int, element: Element, vr: str) -> None:
    if not dataset.length(tag):
        return
    if vr in _DUMMIES:
        _put(dataset, tag, _DUMMIES[vr], vr)
    else:
        dataset.put(tag, element.vr, bytes(8))


def _put(dataset: DataSet, tag: int, text: str, vr: str = "") -> None:
    known = dataset.find(tag)
    vr = vr or dictionary.vr_of(tag)
    order = (known or dataset).encoding.order
    dataset.put(tag, known.vr if known is not None else vr, values.to_bytes(text, vr, "1-n", "", order))


def _text(dataset: DataSet, tag: int) -> str:
    """Return a value, "" if there is none. Raises EditFailed where there is one that cannot be read."""
    text = paths.text_at(dataset, tag, "") if dataset.length(tag) else ""
    if text is None:
        raise EditFailed(f"{dictionary.name_of(tag)} has a value that cannot be read")
    return text


def _say_so(dataset: DataSet, profile: Profile, masks: list[Mask]) -> None:
    """Write down that and how it was de-identified. Source: PS3.15 E.1.1, PS3.3 C.7.1.1, C.12.1.1.3."""
    codes = ["basic", *(["pixels"] if masks else []), *(["shifted"] if profile.shifted else []),
             *sorted(profile.retained)]
    _put(dataset, 0x00120062, "YES")
    _put(dataset, 0x00120063, f"{EDITION} annex E Basic Profile")
    items = []
    for code, meaning in (_CODES[one] for one in codes):
        item = dataset.new_item()
        for tag, text in ((0x00080100, code), (0x00080102, "DCM"), (0x00080104, meaning)):
            _put(item, tag, text)
        items.append(item)
    dataset.remove(0x00120064)
    dataset.put_items(0x00120064, items)
    kept = "UNMODIFIED" if "dates" in profile.retained else "MODIFIED" if profile.shifted else "REMOVED"
    _put(dataset, _TEMPORAL, kept)
    if masks:
        _put(dataset, 0x00280301, "NO")


# --- UIDs and dates ------------------------------------------------------------------------------------------------

def new_uid(edits: Edits, uid: str) -> str:
    """Return the UID that takes the place of another; well-known ones stay. Source: PS3.5 B.2."""
    if not uid or uid.startswith(_STANDARD_UIDS):
        return uid
    number = int.from_bytes(edits.keys.digest("uid", uid)[:16], "big")
    return f"2.25.{number}"


def _new_uid(dataset: DataSet, tag: int, edits: Edits) -> bool:
    before = _text(dataset, tag)
    after = "\\".join(new_uid(edits, uid) for uid in before.split("\\"))
    if after != before:
        _put(dataset, tag, after, "UI")
    return after != before


def remap_uids(edits: Edits) -> None:
    """Give every UID of the study a new one, in every reference, at every depth; UIDs of kinds and codes stay."""
    def act(dataset: DataSet, tag: int, vr: str) -> bool:
        return vr == "UI" and tag not in _KINDS and _new_uid(dataset, tag, edits)

    _each(edits.dataset, act, 0)


def shift_dates(dataset: DataSet, days: int) -> None:
    """Move every date (DA, DT) by `days`, at every depth; times of day stay."""
    _each(dataset, lambda inner, tag, vr: vr in ("DA", "DT") and _shift(inner, tag, vr, days), 0)


def _shift(dataset: DataSet, tag: int, vr: str, days: int) -> bool:
    before = _text(dataset, tag)
    if not before:
        return False
    try:
        after = "\\".join(_shifted(one, days) for one in before.split("\\"))
    except (ValueError, OverflowError):
        raise EditFailed(f"{dictionary.name_of(tag)} is no date that could be shifted") from None
    _put(dataset, tag, after, vr)
    return True


def _shifted(text: str, days: int) -> str:
    """Return DA or DT moved by days; one that has no day yet cannot be moved exactly and becomes January 1st."""
    if not text:
        return text
    day, rest = (text[:8], text[8:]) if text[:8].isdigit() and len(text) >= 8 else (f"{text[:4]}0101", "")
    moved = date(int(day[:4]), int(day[4:6]), int(day[6:])) + timedelta(days=days)
    return f"{moved.year:04}{moved.month:02}{moved.day:02}{rest}"


def _each(dataset: DataSet, act: Callable[[DataSet, int, str], bool], depth: int) -> bool:
    if depth > MAX_DEPTH:
        raise EditFailed("sequences are nested too deep")
    changed = False
    for element in dataset.elements:
        tag = element.tag
        if tag in PIXEL_TAGS:
            continue
        if element.is_sequence:
            items = dataset.items(tag)
            done = [_each(item, act, depth + 1) for item in items]  # every item, whatever the one before it said
            if any(done):
                dataset.put_items(tag, items)
                changed = True
        else:
            changed |= act(dataset, tag, paths.vr_at(dataset, tag))
    return changed
