"""Actions: ``set PatientID = EthnicGroup else hold``, ``upper PatientID``, ``delete private``, ``remap uids`` ...

Imports syntax, edits. Each verb is one function that reads its words and returns what is done; `ACTIONS` lists them.
Changes when a rule can do something new: one function, one line in ACTIONS.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from internal import dictionary
from internal.element_bytes import PIXEL_TAGS
from internal.elements import DataSet
from internal.rules import paths, values
from internal.rules.deidentify import Profile, deidentify, remap_uids, shift_dates
from internal.rules.edits import EditFailed, Edits, LookUp, Mask, SkipRule, with_name
from internal.rules.failures import SyntaxProblem
from internal.rules.paths import Path
from internal.rules.pattern import Pattern
from internal.rules.syntax import Cursor

MAX_ACTIONS: Final = 200
_TEMPLATE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
_EMPTY: Final = ("keep", "skip", "hold")
# What says how the pixels are stored, and what says how the data set is written: a rule that changes it breaks images.
_NOT_SETTABLE: Final = frozenset({0x00080005, 0x00080016, 0x00080018, 0x00020010}) | PIXEL_TAGS
_PIXEL_MODULE: Final = frozenset({
    0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102,
    0x00280103,
})
_UID_TAGS: Final = frozenset({0x0020000D, 0x0020000E, 0x00080018})
_ACCESSION: Final = 0x00080050


@dataclass(frozen=True, slots=True)
class Action:
    """One line of `do`: what it does, as written. `writes`: the top tags it may change; `sources`: where it looks up.

    `remakes_identity`: UIDs change, so that SATUSEHAT could not recognise the study any more. `may_skip`: it can leave
    the whole rule out.
    """

    text: str
    apply: Callable[[Edits], None]
    writes: frozenset[int] = frozenset()
    source: LookUp | None = None
    remakes_identity: bool = False
    deidentifies: bool = False
    may_skip: bool = False


Act = Callable[[Edits], None]


def parse_action(text: str) -> Action:
    """Return what one line says. Raises SyntaxProblem."""
    cursor = Cursor(text)
    verb = cursor.need_word(*ACTIONS)
    action = ACTIONS[verb](cursor)
    cursor.need_end()
    return action


def _settable(cursor: Cursor, *, begin: int | None = None) -> Path:
    at = cursor.position if begin is None else begin
    path = cursor.need_path()
    name = dictionary.name_of(path.tag)
    if path.is_top and (path.tag in _NOT_SETTABLE or path.tag in _PIXEL_MODULE):
        raise cursor.problem(f"{name} cannot be changed by a rule", at=at)
    if path.vr not in values.SETTABLE and not path.steps[-1].creator:
        raise cursor.problem(f"{name} has VR {path.vr}, which a rule cannot write", at=at)
    return path


def _on_empty(cursor: Cursor) -> str:
    """Read ``else keep|skip|hold``: what to do where the source is empty."""
    return cursor.need_word(*_EMPTY) if cursor.take_word("else") else "keep"


def _is_missing(path: Path, what: str, on_empty: str) -> None:
    """Leave things as they are, leave the rule, or hold the study, as the rule says."""
    if on_empty == "skip":
        raise SkipRule
    if on_empty == "hold":
        raise EditFailed(f"{path.text}: {what} is empty, and the rule says hold", "source-empty")


def _done(cursor: Cursor, path: Path, act: Act, source: LookUp | None = None, on_empty: str = "keep") -> Action:
    tags = frozenset({path.steps[0].tag})
    return Action(cursor.text, act, tags, source, remakes_identity=bool(tags & _UID_TAGS), may_skip=on_empty == "skip")


# --- the verbs -----------------------------------------------------------------------------------------------------

def _set(cursor: Cursor) -> Action:
    """``set A = "text"``, ``set A = "{B}-{C}"``, ``set A = B``; braces name attributes, doubled ones are themselves."""
    path = _settable(cursor)
    cursor.need_mark("=")
    at = cursor.position
    quoted = cursor.take_quoted()
    if quoted is None:
        return _copy(cursor, path)
    parts = _template(cursor, quoted, at)
    on_empty = _on_empty(cursor)
    fixed = not any(isinstance(part, Path) for part in parts)
    if fixed and (fault := values.check("".join(map(str, parts)), path.vr if path.vr != "UN" else "LO", path.vm)):
        raise cursor.problem(f"{path.text}: {fault}", at=at)

    def act(edits: Edits) -> None:
        texts = [edits.text(part) if isinstance(part, Path) else part for part in parts]
        if not all(texts):  # fixed parts are never empty
            _is_missing(path, "one of its sources", on_empty)
            return
        edits.put(path, "".join(texts))

    return _done(cursor, path, act, on_empty=on_empty)


def _template(cursor: Cursor, text: str, at: int) -> list[str | Path]:
    parts: list[str | Path] = []
    position = 0
    for found in _TEMPLATE.finditer(text):
        parts.append(text[position : found.start()])
        position = found.end()
        if found[1] is None:
            parts.append(found[0][0])
            continue
        inner = Cursor(found[1])
        try:
            parts.append(inner.need_path())
            inner.need_end()
        except SyntaxProblem as error:
            raise cursor.problem(f"in {{{found[1][:40]}}}: {error}", error.hint, at) from None
    parts.append(text[position:])
    return [part for part in parts if part != ""]


def _copy(cursor: Cursor, path: Path) -> Action:
    source = cursor.need_path()
    on_empty = _on_empty(cursor)

    def act(edits: Edits) -> None:
        text = edits.text(source)
        if text:
            edits.put(path, text)
        else:
            _is_missing(path, source.text, on_empty)

    return _done(cursor, path, act, on_empty=on_empty)


def _replace(cursor: Cursor) -> Action:
    r"""``replace A "pattern" with "text"``; ``\1`` is the first group."""
    path = _settable(cursor)
    at = cursor.position
    try:
        pattern = Pattern(cursor.need_quoted("a pattern"))
        cursor.need_word("with")
        replacement = cursor.need_quoted("a text")
        pattern.check_replacement(replacement)
    except ValueError as error:
        raise cursor.problem(str(error), at=at) from None
    return _done(cursor, path, lambda edits: edits.rewrite(path, lambda text: pattern.replace(text, replacement)))


def _each(change: Callable[[str], str]) -> Callable[[Cursor], Action]:
    def read(cursor: Cursor) -> Action:
        path = _settable(cursor)
        return _done(cursor, path, lambda edits: edits.rewrite(path, change))

    return read


def _pad(cursor: Cursor) -> Action:
    """``pad A 8 "0"``: to 8 characters, from the left; ``pad right A 8`` from the right, with blanks."""
    right = bool(cursor.take_word("right"))
    path = _settable(cursor)
    width = cursor.need_integer(1, 64)
    at = cursor.position
    fill = cursor.take_quoted() or " "
    if len(fill) != 1:
        raise cursor.problem("one character fills up", at=at)

    def change(text: str) -> str:
        return text and (text.ljust(width, fill) if right else text.rjust(width, fill))

    return _done(cursor, path, lambda edits: edits.rewrite(path, change))


def _map(cursor: Cursor) -> Action:
    """``map A using table "wards.csv"``, ``map A from B using lookup nik else hold``."""
    path = _settable(cursor)
    source = cursor.need_path() if cursor.take_word("from") else path
    cursor.need_word("using")
    kind = cursor.need_word("table", "lookup")
    at = cursor.position
    look_up = LookUp(kind, cursor.need_value())
    if not look_up.name or len(look_up.name) > 200:
        raise cursor.problem(f"expected the name of a {kind}", at=at)
    on_empty = _on_empty(cursor)

    def act(edits: Edits) -> None:
        key = edits.text(source)
        answer = edits.look_up(look_up, key) if key else None
        if answer is None:
            _is_missing(path, f"{source.text} in {kind} {look_up.name}" if key else source.text, on_empty)
        else:
            edits.put(path, answer)

    return _done(cursor, path, act, look_up, on_empty)


def _delete(cursor: Cursor) -> Action:
    """``delete A`` or ``delete private``: all private elements, at every depth."""
    if cursor.take_word("private"):
        return Action(cursor.text, lambda edits: _delete_all_private(edits.dataset))
    at = cursor.position
    path = cursor.need_path()
    if path.is_top and (path.tag in _NOT_SETTABLE | _PIXEL_MODULE or path.tag in _UID_TAGS):
        raise cursor.problem(f"{dictionary.name_of(path.tag)} cannot be deleted by a rule", at=at)

    def act(edits: Edits) -> None:
        path.change(edits.dataset, lambda dataset, tag, _: dataset.remove(tag))

    return _done(cursor, path, act)


def _delete_all_private(dataset: DataSet) -> None:
    _delete_private(dataset, 0)


def _delete_private(dataset: DataSet, depth: int) -> bool:
    changed = False
    for element in dataset.elements:
        tag = element.tag
        if tag >> 16 & 1:
            changed = dataset.remove(tag)
        elif element.is_sequence and depth < 32:
            items = dataset.items(tag)
            done = [_delete_private(item, depth + 1) for item in items]
            if any(done):
                dataset.put_items(tag, items)
                changed = True
    return changed


def _add(cursor: Cursor) -> Action:
    """``add (0011,"CREATOR",01) LO "text"``: a private element, in the creator's block or a new one."""
    at = cursor.position
    path = cursor.need_path()
    if not path.steps[-1].creator:
        raise cursor.problem('only private elements are added: (gggg,"CREATOR",ee); use set', at=at)
    if fault := values.check(path.steps[-1].creator, "LO", "1"):
        raise cursor.problem(f"the creator: {fault}", at=at)
    at = cursor.position
    vr = cursor.take(re.compile(r"[A-Z]{2}\b"))
    if vr is None or vr[0] not in values.SETTABLE:
        raise cursor.problem("expected a VR such as LO", at=at)
    name, at = vr[0], cursor.position
    text = cursor.need_quoted("a value")
    if fault := values.check(text, name, "1-n"):
        raise cursor.problem(fault, at=at)

    def put(dataset: DataSet, tag: int, used: str) -> bool:
        paths.put_text(dataset, tag, name, "1-n", text, used)
        return True

    return _done(cursor, path, lambda edits: with_name(path, lambda: path.change(edits.dataset, put, make=True)))


def _shift(cursor: Cursor) -> Action:
    """``shift dates -30`` (days), or ``shift dates by patient``: 1 to 365 days back, the same for all his studies."""
    cursor.need_word("dates")
    if cursor.take_word("by"):
        cursor.need_word("patient")
        return Action(cursor.text, lambda edits: shift_dates(edits.dataset, _days_of(edits)))
    days = cursor.need_integer(-36500, 36500)
    return Action(cursor.text, lambda edits: shift_dates(edits.dataset, days))


def _days_of(edits: Edits) -> int:
    return -1 - int.from_bytes(edits.keys.digest("days", edits.patient_key())[:4], "big") % 365


def _remap(cursor: Cursor) -> Action:
    cursor.need_word("uids")
    return Action(cursor.text, lambda edits: remap_uids(edits), remakes_identity=True)


def _deidentify(cursor: Cursor) -> Action:
    """``deidentify [retain uids] [retain|shift dates] [retain device] [retain institution] [accept burned-in]``."""
    retained: set[str] = set()
    shifted = accepts = False
    while not cursor.at_end:
        verb = cursor.need_word("retain", "shift", "accept")
        if verb == "accept":
            cursor.need_word("burned-in")
            accepts = True
        elif verb == "shift":
            cursor.need_word("dates")
            shifted = True
        else:
            retained.add(cursor.need_word("uids", "dates", "device", "institution"))
    if shifted and "dates" in retained:
        raise cursor.problem("dates are either retained or shifted")
    profile = Profile(frozenset(retained), shifted=shifted, accepts_burned_in=accepts)
    return Action(cursor.text, lambda edits: deidentify(edits, profile, _days_of(edits) if shifted else 0),
                  remakes_identity=True, deidentifies=True)


def _mask(cursor: Cursor) -> Action:
    """``mask 0,0,512,40``: left, top, width, height in pixels, in every frame; before `deidentify`."""
    numbers = [cursor.need_integer(0, 65535)]
    for _ in range(3):
        cursor.need_mark(",")
        numbers.append(cursor.need_integer(0, 65535))
    mask = Mask(*numbers)
    if not mask.width or not mask.height:
        raise cursor.problem("the region is empty")
    return Action(cursor.text, lambda edits: edits.masks.append(mask))


ACTIONS: Mapping[str, Callable[[Cursor], Action]] = {
    "set": _set, "replace": _replace, "upper": _each(str.upper), "lower": _each(str.lower),
    "trim": _each(lambda text: " ".join(text.split())), "pad": _pad, "map": _map, "delete": _delete, "add": _add,
    "shift": _shift, "remap": _remap, "deidentify": _deidentify, "mask": _mask,
}
