"""What a writer that died has left in its folder of tmp/: whole files go into new/, half written ones away.

Layer 2, imports new_directory, spool_entry and whole_mark. Used by the spool when a slot gets its next writer. A whole
one may have been answered with Success and must not be lost (ADR 0024). Changes when a writer leaves other things.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from internal import whole_mark
from internal.new_directory import fsync_directory
from internal.spool_entry import Entry, EntryKind, parse_name

#: What follows the name of an entry of bad/ in that of the file with the reason.
REASON = ".reason"

_TORN = ("The file was marked as whole but is not what was marked: the power failed before its sender was answered, "
         "or the disk lost what it had promised to keep. Send the image again.")
_FOREIGN = "The file carries a mark that the router did not put: look at it, and import it if it is an image."

log = logging.getLogger("router.spool")


def take_in(folder: Path, new: Path, bad: Path, is_kept: Callable[[Entry], bool]) -> list[tuple[str, Entry]]:
    """Empty `folder`: what is whole gets its name in new/ (durable on return) unless `is_kept` says it is kept already.

    A file whose content does not fit its mark goes to `bad` with the reason. Returns whole ones that the disk did not
    let into new/, which stay and are to be tried again. Never raises; what is amiss is logged.
    """
    safe: list[Path] = []
    held_back: list[tuple[str, Entry]] = []
    taken_in = 0
    try:
        left = sorted(folder.iterdir())
    except OSError as error:
        _stays(folder, error)
        return []
    for path in left:
        try:
            entry = _whole(path, bad)
            if entry is None:
                continue
            if not is_kept(entry):
                held_back.append((str(path), entry))
                os.link(path, new / entry.file_name)
                held_back.pop()
                taken_in += 1
            safe.append(path)
        except OSError as error:
            _stays(path, error)
    try:
        if safe and sys.platform != "win32":
            fsync_directory(new)
        for path in safe:
            path.unlink()
    except OSError as error:
        _stays(folder, error)
    if taken_in:
        log.info("Images that a receiver had kept when it ended were taken in", extra={"fields": {"images": taken_in}})
    return held_back


def _whole(path: Path, bad: Path) -> Entry | None:
    """Return the entry that the file is, whole; None once it is swept (never whole) or in bad/ (not what it says)."""
    try:
        mark = whole_mark.read(path)
        entry = parse_name(f"{mark.entry_id}.{EntryKind.INSTANCE}") if mark else None
        if mark and entry is None:
            raise ValueError("no id of ours")
    except ValueError:
        _put_aside(path, free_name(bad / f"unknown-{path.parent.name}-{path.name}"), _FOREIGN)
        return None
    if mark is None or entry is None:
        path.unlink()
        return None
    if not whole_mark.is_whole(path, mark):
        _put_aside(path, free_name(bad / entry.file_name, path), _TORN)
        return None
    return entry


def free_name(target: Path, source: Path | None = None) -> Path:
    """Return `target`, or a name beside it if another file than `source` has that."""
    free, number = target, 0
    while free.exists() and not (source is not None and source.exists() and free.samefile(source)):
        number += 1
        free = target.with_name(f"{target.stem}.{number}{target.suffix}")
    return free


def _put_aside(path: Path, target: Path, reason: str) -> None:
    target.with_suffix(REASON).write_text(reason + "\n", encoding="utf-8")
    path.rename(target)
    log.warning("Entry set aside", extra={"fields": {"entry": target.stem, "reason": reason}})


def _stays(path: Path, error: OSError) -> None:
    log.error("%s cannot be taken in (%s) and stays there: mend the disk or make room on it", path, error.strerror)
