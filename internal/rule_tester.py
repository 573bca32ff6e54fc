"""What the rules would do, without doing it: with files somebody gives, or with studies that are held here.

Layer 4, over rulebook. The command `rules test`, the dry run and the page use it; nothing is written, nothing leaves.
What it returns holds patient data: it is for the person who asked, never for a log. Changes when people want to see
more of what rules do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

from internal import dicomfile, dictionary, elements, index, jobs, scan
from internal.elements import DataSet
from internal.errors import NotDicom, Transient
from internal.model import Arrival, Inventory
from internal.rewrite import rewrite
from internal.rulebook import RuleBook
from internal.rules import EditFailed, Facts, RuleSet
from internal.rules.conditions import Seen
from internal.rules.paths import charset_of, text_at
from internal.spool import Spool
from internal.store import Store

MAX_FILES: Final = 5000
#: Of a stored study, so many series are looked into.
MAX_SERIES: Final = 20
#: So many studies are asked for in a dry run.
MAX_DRY: Final = 1000
_MAX_ROWS: Final = 5000  # of one copy are shown
_MAX_COMPARED: Final = 50_000
_MAX_TEXT: Final = 200
_MAX_NESTING: Final = 8


@dataclass(frozen=True, slots=True)
class Judged:
    """One rule on one file: whether it fires for it, each test it made, and what it would do."""

    rule: str
    fired: bool
    tests: tuple[Seen, ...]
    actions: tuple[str, ...]
    send_to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """What one destination would get of a file: (attribute, before, after) where it differs.

    `fault`: why it would be held.
    """

    destination: str
    rules: tuple[str, ...]
    changes: tuple[tuple[str, str, str], ...]
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Tested:
    """One file with every rule and every copy; `fault` if it could not be read at all."""

    name: str
    study_uid: str
    sop_uid: str
    rules: tuple[Judged, ...] = ()
    copies: tuple[Copy, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True)
class TestedStudy:
    """Where one study would go: instances by destination, rules that decided, why it would be held."""

    study_uid: str
    destinations: tuple[tuple[str, int], ...]
    fired: tuple[str, ...]
    holds: tuple[str, ...]
    kept_by: str
    by_default: bool
    files: tuple[Tested, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """A file that somebody gives to be tried: its name for people, and how it is opened at its first byte."""

    name: str
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class _Opened:
    name: str
    file: BinaryIO
    dataset: DataSet
    facts: Facts


def files_at(paths: Iterable[Path]) -> list[Given]:
    """Return files of this machine as the tester takes them."""
    return [Given(path.name, partial(_bytes_of, path)) for path in paths]


def _bytes_of(path: Path) -> BinaryIO:
    return path.open("rb")


def test_files(
    book: RuleBook, rules: RuleSet, given: Sequence[Given], arrival: Arrival, *, everything: bool = False,
) -> list[TestedStudy]:
    """Return what `rules` would do with these files, study by study, as if they had come as `arrival` says.

    With `everything` the changes list every attribute. At most 5000 files; one that is no DICOM is reported as such.
    """
    opened: dict[str, list[_Opened]] = {}
    broken: list[Tested] = []
    try:
        for one in list(given)[:MAX_FILES]:
            try:
                file = _open(book, one, arrival)
                opened.setdefault(file.facts.header.study_uid, []).append(file)
            except (NotDicom, OSError) as error:
                reason = str(error) if isinstance(error, NotDicom) else error.strerror or "cannot be read"
                broken.append(Tested(one.name, "", "", fault=reason))
        found = [_study(book, rules, uid, [one.facts for one in some], list(enumerate(some)), everything)
                 for uid, some in opened.items()]
    finally:
        _close(one for some in opened.values() for one in some)
    return [*found, *([TestedStudy("", (), (), (), "", by_default=False, files=tuple(broken))] if broken else [])]


def test_study(
    book: RuleBook, rules: RuleSet, spool: Spool, inventory: Inventory, *, everything: bool = False,
) -> TestedStudy:
    """Return what `rules` would do with a study that is held here: where all of it goes, and one image of each series.

    Raises BytesMissing where an image's file is gone, Refused where it cannot be read.
    """
    instances = inventory.instances
    first = {one.header.series_uid: at for at, one in reversed(list(enumerate(instances)))}
    shown: list[tuple[int, _Opened]] = []
    try:
        for at in sorted(first.values())[:MAX_SERIES]:
            file = spool.open_entry(instances[at].id)
            try:
                dataset, facts = book.facts_of_file(file, instances[at])
            except BaseException:
                file.close()
                raise
            header = instances[at].header
            shown.append((at, _Opened(f"{header.modality} {header.series_number}".strip(), file, dataset, facts)))
        facts_of = [book.facts(spool, one) for one in instances]
        return _study(book, rules, inventory.study_uid, facts_of, shown, everything)
    finally:
        _close(one for _, one in shown)


def _close(opened: Iterable[_Opened]) -> None:
    for one in opened:
        one.file.close()


def _open(book: RuleBook, given: Given, arrival: Arrival) -> _Opened:
    file = given.open()
    try:
        meta = dicomfile.read_meta(file)
        file.seek(meta.dataset_offset)
        header = scan.scan(file, meta.transfer_syntax_uid)
        file.seek(0, os.SEEK_END)
        size_bytes = file.tell() - meta.dataset_offset
        dataset = elements.read(file, meta.dataset_offset, size_bytes, meta.transfer_syntax_uid)
    except BaseException:
        file.close()
        raise
    return _Opened(given.name, file, dataset, Facts(header, meta.arrival or arrival, lambda: dataset, book.zone))


def _study(
    book: RuleBook, rules: RuleSet, uid: str, facts: Sequence[Facts], shown: Sequence[tuple[int, _Opened]],
    everything: bool,
) -> TestedStudy:
    """Decide about the study from all its facts; `shown` are the files to look into, each with its place in them."""
    try:
        routing = rules.route(facts, book.default)
    except EditFailed as error:
        return TestedStudy(uid, (), (), (str(error),), "", by_default=False, files=())
    files = []
    for at, one in shown:
        names = [name for name, chosen in routing.destinations.items() if at in chosen]
        files.append(_file(book, rules, one, names, everything))
    return TestedStudy(
        uid, tuple((name, len(chosen)) for name, chosen in routing.destinations.items()), routing.fired,
        tuple(f"rule {name}: {reason}" for name, reason in routing.holds), routing.kept_by, routing.by_default,
        tuple(files))


def _file(book: RuleBook, rules: RuleSet, one: _Opened, names: Sequence[str], everything: bool) -> Tested:
    try:
        judged = tuple(Judged(rule.name, fired, tuple(trace), tuple(action.text for action in rule.actions),
                              rule.send_to) for rule, fired, trace in rules.explain(one.facts))
    except (EditFailed, NotDicom) as error:
        return Tested(one.name, one.facts.header.study_uid, one.facts.header.sop_uid, fault=str(error))
    copies = tuple(_copy(book, rules, one, name, everything) for name in names)
    return Tested(one.name, one.facts.header.study_uid, one.facts.header.sop_uid, judged, copies)


def _copy(book: RuleBook, rules: RuleSet, one: _Opened, name: str, everything: bool) -> Copy:
    try:
        firing = rules.edits_for(one.facts, name)
        if not firing and not everything:
            return Copy(name, (), ())
        done = rewrite(one.dataset, one.facts, rules, firing, book.find, book.vault.keys)
        before, after = _compared(one.dataset), _compared(done.dataset)
    except (EditFailed, NotDicom, Transient) as error:
        return Copy(name, (), (), str(error))
    changes = [(key, before.get(key, ""), after.get(key, "")) for key in sorted(before.keys() | after.keys())
               if everything or before.get(key) != after.get(key)]
    if len(changes) > _MAX_ROWS:
        changes[_MAX_ROWS:] = [("...", "", "")]
    return Copy(name, done.fired, tuple(changes))


def _compared(dataset: DataSet) -> dict[str, str]:
    """Return every attribute as people read it. Raises NotDicom for what cannot be taken apart, or has too many."""
    rows = dict(islice(_rows(dataset), _MAX_COMPARED))
    if len(rows) == _MAX_COMPARED:
        raise NotDicom(f"it has more than {_MAX_COMPARED} attributes: too many to compare")
    return rows


def _rows(dataset: DataSet, prefix: str = "", used: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield (attribute, text) of a data set and its items, as people read it."""
    used = charset_of(dataset, used)
    for element in dataset.elements:
        tag = element.tag
        name = f"{prefix}({tag >> 16:04X},{tag & 0xFFFF:04X}) {dictionary.name_of(tag) if not tag >> 16 & 1 else ''}"
        if element.is_sequence and depth < _MAX_NESTING:
            items = dataset.items(tag)
            yield name.strip(), f"{len(items)} items"
            for at, item in enumerate(items[:100]):
                yield from _rows(item, f"{name.strip()}[{at}].", used, depth + 1)
        else:
            text = text_at(dataset, tag, used)
            yield name.strip(), text[:_MAX_TEXT] if text is not None else f"{dataset.length(tag)} bytes"


# --- studies that are held here ------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class DryRun:
    """What would become of one stored study: `differs` if it was sent elsewhere; `faults` of one image per series."""

    study_uid: str
    destinations: tuple[tuple[str, int], ...]
    fired: tuple[str, ...]
    sent_before: tuple[str, ...]
    hold: str
    faults: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Return whether it would go elsewhere than it went."""
        return {name for name, _ in self.destinations} != set(self.sent_before)


def dry_run(book: RuleBook, store: Store, spool: Spool, since: int, limit: int = MAX_DRY) -> Iterator[DryRun]:
    """Yield what the set in force would do with each study that came since `since` (epoch ms), newest first."""
    with store.reading() as tx:
        uids = index.studies_since(tx, since, limit)
    for uid in uids:
        with store.reading() as tx:
            inventory = index.inventory(tx, uid)
            before = jobs.destinations_of(tx, uid)
        plan = book.plan(spool, inventory)
        faults: list[str] = []
        for name, instances in plan.instances.items():
            first = {one.header.series_uid: one for one in reversed(instances)}
            faults += [fault for one in first.values() if (fault := book.fault_on_way(spool, one, name))]
        yield DryRun(uid, tuple((name, len(some)) for name, some in plan.instances.items()),
                     plan.routing.fired if plan.routing else (), tuple(before),
                     plan.hold.reason if plan.hold else "", tuple(dict.fromkeys(faults)))
