"""Where an attribute stands: keywords, tags, items of sequences, private elements with their creator.

Imports elements, dictionary, values. A path reads and changes data sets; it never changes one that it did not get.
Changes when attributes can be named in another way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from internal import dictionary
from internal.elements import DataSet
from internal.rules import values
from internal.rules.failures import EditFailed

CHARACTER_SET: Final = 0x00080005
EVERY_ITEM: Final = -1


@dataclass(frozen=True, slots=True)
class Step:
    """One attribute; `tag` of a private one has its block left out (gggg00ee). `item`: which one of a sequence."""

    tag: int
    creator: str = ""
    item: int | None = None

    def tag_in(self, dataset: DataSet, character_set: str) -> int | None:
        """Return the tag that the attribute has in this data set, None if its private block is not there."""
        if not self.creator:
            return self.tag
        group = self.tag & 0xFFFF0000
        for block in range(0x10, 0x100):
            raw = dataset.raw(group | block)
            if raw is not None and values.to_text(raw, "LO", character_set, "<") == self.creator:
                return group | block << 8 | self.tag & 0xFF
        return None


@dataclass(frozen=True, slots=True)
class Path:
    """The way to an attribute: steps through sequences and the attribute itself; `text` as it was written."""

    steps: tuple[Step, ...]
    text: str

    @property
    def tag(self) -> int:
        """Return the tag of the attribute itself."""
        return self.steps[-1].tag

    @property
    def vr(self) -> str:
        """Return the VR that the dictionary gives the attribute."""
        return dictionary.vr_of(self.tag)

    @property
    def vm(self) -> str:
        """Return its multiplicity."""
        return dictionary.vm_of(self.tag) if not self.steps[-1].creator else "1-n"

    @property
    def is_top(self) -> bool:
        """Return whether it stands in the data set itself."""
        return len(self.steps) == 1

    @property
    def is_plain(self) -> bool:
        """Return whether it stands in the data set itself under a tag that needs no creator."""
        return len(self.steps) == 1 and not self.steps[0].creator

    def places(self, dataset: DataSet) -> Iterator[tuple[DataSet, int, str]]:
        """Yield (data set, tag, character set) of each place where the attribute stands. Raises NotDicom."""
        yield from _places(dataset, self.steps, charset_of(dataset, ""))

    def texts(self, dataset: DataSet) -> list[str]:
        """Return the value at each place as text, whole; a place without text is left out."""
        if self.is_plain:  # by far the most
            text = text_at(dataset, self.tag, charset_of(dataset, ""))
            return [] if text is None else [text]
        found = (text_at(*place) for place in self.places(dataset))
        return [text for text in found if text is not None]

    def is_present(self, dataset: DataSet) -> bool:
        """Return whether it stands somewhere with a value that is not empty."""
        return any(inner.length(tag) and text_at(inner, tag, used) != "" for inner, tag, used in self.places(dataset))

    def change(self, dataset: DataSet, act: Callable[[DataSet, int, str], bool], *, make: bool = False) -> None:
        """Call act(data set, tag, character set) where the attribute stands; it returns whether it changed it.

        `make`: sequences, items and private blocks that are missing on the way there are made. Raises EditFailed.
        """
        _change(dataset, self.steps, charset_of(dataset, ""), act, make)


def charset_of(dataset: DataSet, inherited: str) -> str:
    """Return (0008,0005) of a data set or item, else that of the data set around it."""
    raw = dataset.raw(CHARACTER_SET)
    return raw.decode("ascii", "replace").strip(" \0") if raw else inherited


def vr_at(dataset: DataSet, tag: int) -> str:
    """Return the VR of an element as it stands; UN gives way to the dictionary's."""
    element = dataset.find(tag)
    assert element is not None  # the caller has seen it there
    return dictionary.vr_of(tag) if element.vr == "UN" and not tag >> 16 & 1 else element.vr


def text_at(dataset: DataSet, tag: int, character_set: str) -> str | None:
    """Return the value of an element as text, None where it has none."""
    raw = dataset.raw(tag)
    element = dataset.find(tag)
    if raw is None or element is None:
        return None
    return values.to_text(raw, vr_at(dataset, tag), character_set, element.encoding.order)


def put_text(dataset: DataSet, tag: int, vr: str, vm: str, text: str, character_set: str) -> None:
    """Write a value as text. Raises EditFailed."""
    known = dataset.find(tag)
    if known is not None and known.vr in values.SETTABLE:
        vr = known.vr
    order = (known or dataset).encoding.order
    dataset.put(tag, vr, values.to_bytes(text, vr, vm, character_set, order))


def make_block(dataset: DataSet, group: int, creator: str, character_set: str) -> int:
    """Return the block (0x10..0xFF) of a private creator, taking the first free one if it has none."""
    step = Step(group << 16, creator)
    known = step.tag_in(dataset, character_set)
    if known is not None:
        return known >> 8 & 0xFF
    taken = {tag >> 8 & 0xFF for tag in dataset.tags if tag >> 16 == group} | {
        tag & 0xFF for tag in dataset.tags if tag >> 16 == group and tag & 0xFFFF < 0x100}
    free = next((block for block in range(0x10, 0x100) if block not in taken), None)
    if free is None:
        raise EditFailed(f"group {group:04X} has no free private block")
    put_text(dataset, group << 16 | free, "LO", "1", creator, character_set)
    return free


def _places(dataset: DataSet, steps: tuple[Step, ...], used: str) -> Iterator[tuple[DataSet, int, str]]:
    tag = steps[0].tag_in(dataset, used)
    if tag is None or tag not in dataset:
        return
    if len(steps) == 1:
        yield dataset, tag, used
        return
    for at, item in enumerate(dataset.items(tag)):
        if steps[0].item in (EVERY_ITEM, at):
            yield from _places(item, steps[1:], charset_of(item, used))


def _change(
    dataset: DataSet, steps: tuple[Step, ...], used: str, act: Callable[[DataSet, int, str], bool], make: bool,
) -> bool:
    step = steps[0]
    tag = step.tag_in(dataset, used)
    if tag is None:
        if not make:
            return False
        tag = step.tag | make_block(dataset, step.tag >> 16, step.creator, used) << 8
    if len(steps) == 1:
        return act(dataset, tag, used) if make or tag in dataset else False
    items = dataset.items(tag)
    if make and not items and step.item in (EVERY_ITEM, 0):
        items = [dataset.new_item(tag)]
    changed = [_change(item, steps[1:], charset_of(item, used), act, make)
               for at, item in enumerate(items) if step.item in (EVERY_ITEM, at)]
    if make and not changed:
        raise EditFailed(f"{dictionary.name_of(tag)} has no item {step.item}")
    if any(changed):
        dataset.put_items(tag, items)
    return any(changed)
