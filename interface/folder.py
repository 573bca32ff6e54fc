"""The destination "folder": one Part 10 file for each instance, placed by a path template.

The second kind of destination beside SATUSEHAT; a worker calls `step` with the job it holds. Imports internal only.
Changes when files have to lie elsewhere or be written in another way. Source: PS3.10 7.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from interface.naming import build_parts
from interface.relay import Answer, conclude, send_all
from internal.errors import RouterError
from internal.failpoints import hit
from internal.model import ItemState, Probe
from internal.ports import Frozen, Work
from internal.states import Later, Outcome

CHUNK_BYTES = 1024 * 1024
RECHECK_S = 60.0

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class FolderOptions:
    """A folder that gets a copy of each study; the last part of `root` is made when it is missing."""

    name: str
    root: Path
    template: str = "{accession}/{study}/{sop}.dcm"


class Folder:
    """Writes instances under one folder, each file complete and durable before it has its name."""

    kind = "folder"
    by_accession = False

    def __init__(self, options: FolderOptions) -> None:
        self.name = options.name
        self._root = options.root.absolute()
        self._template = options.template

    @property
    def environment(self) -> str:
        """Return the folder's path: what facts and receipts are keyed by."""
        return f"folder:{self._root}"

    def step(self, work: Work) -> Outcome:
        """Write what is due; a file that is there with equal bytes is a receipt, one with others a conflict."""
        try:
            self._make_root()
            outcome = send_all(work, partial(self._write_all, work))
        except OSError as fault:
            return _explain(fault, self._root)
        return outcome or conclude(work, self.name, "files")

    def _make_root(self) -> None:
        if not self._root.is_dir():
            # Only the last part: a missing parent is more likely a share that is not mounted.
            self._root.mkdir(mode=0o750)
            _sync_folder(self._root.parent)

    def _write_all(self, work: Work, batch: Sequence[Frozen]) -> Iterator[Answer]:
        """Write a batch with one wait for the names in each folder; raises only after what is written was answered.

        Also for a file that was there already: whoever wrote it may not have come that far.
        """
        answers: list[Answer] = []
        folders: set[Path] = set()
        fault: OSError | RouterError | None = None
        try:
            for frozen in batch:
                answer, folder = self._write(frozen)
                answers.append(answer)
                folders.add(folder)
                work.renew()  # a batch of large files outlasts a lease
        except (OSError, RouterError) as error:
            fault = error
        for folder in folders:
            _sync_folder(folder)
        yield from answers
        if fault is not None:
            raise fault

    def _write(self, frozen: Frozen) -> tuple[Answer, Path]:
        """Write one file, its bytes durable; its name is so once the folder that is returned with it is synced."""
        parts = build_parts(self._template, frozen.header, frozen.item.instance.arrival)
        path, shown = self._root.joinpath(*parts), "/".join(parts)
        existing = _hash_file(path)
        if existing is not None:
            state = ItemState.STORED if existing == frozen.sha256 else ItemState.CONFLICT
            text = "was there already" if state is ItemState.STORED else "is there with other content"
            return Answer(frozen, state, {"path": shown, "sha256": existing, "text": text}), path.parent
        _make_folders(path.parent, self._root)
        temporary = path.with_name(f".{path.name}.part")
        _write_synced(temporary, frozen)
        hit("push.mid")
        temporary.replace(path)
        said = {"path": shown, "sha256": frozen.sha256, "text": "written"}
        return Answer(frozen, ItemState.STORED, said), path.parent

    def may_poll(self) -> bool:
        """Nothing is waited for in a folder."""
        return True

    def report(self) -> dict[str, int]:
        """Nothing slows a folder down."""
        return {}

    def probe(self) -> Iterator[Probe]:
        """Look whether the folder can be written and how much room it has; writes nothing."""
        folder = self._root if self._root.exists() else self._root.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
            yield Probe("folder", False, f"{self._root} cannot be written",
                        "Buat folder atau beri izin tulis / create the folder or allow writing")
            return
        free_gb = shutil.disk_usage(folder).free / 1e9
        yield Probe("folder", True, f"{self._root}, {free_gb:.1f} GB free")


def _write_synced(path: Path, frozen: Frozen) -> None:
    """Write the frozen bytes and fsync; raises OSError, also when they do not have their recorded hash."""
    digest, size = hashlib.sha256(), 0
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with frozen.open() as source, os.fdopen(os.open(path, flags, 0o640), "wb") as target:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    if size != frozen.size_bytes or digest.hexdigest() != frozen.sha256:
        path.unlink(missing_ok=True)
        raise OSError(errno.EIO, "the bytes changed while they were copied")


def _hash_file(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _make_folders(folder: Path, root: Path) -> None:
    """Make `folder` below `root`, each new entry durable before anything is put into it."""
    above = [parent for parent in reversed(folder.parents) if parent.is_relative_to(root) and parent != root]
    for part in [*above, folder]:
        if not part.is_dir():
            part.mkdir(mode=0o750, exist_ok=True)
            _sync_folder(part.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # Windows cannot open a folder; NTFS journals its entries
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explain(fault: OSError, root: Path) -> Later:
    if fault.errno in _FULL:
        return Later("disk-full", f"{root} is full", RECHECK_S, "lane")
    if fault.errno == errno.ENOENT:
        return Later("folder-missing", f"{root} is not there: is its disk or share mounted?", RECHECK_S, "lane")
    return Later("folder-not-writable", f"{root} cannot be written ({os.strerror(fault.errno or errno.EIO)})",
                 RECHECK_S, "lane")
