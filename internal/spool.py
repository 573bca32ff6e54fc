"""The spool: a maildir of instances, association records and requests; the only module that knows where bytes lie.

Layer 2, imports errors, filelock, leftovers, new_directory, spool_entry and spool_writer. A file in new/ or cur/ is the
one answer to "did we accept this?"; what a writer that died has left whole in tmp/ is brought there first.
Flow: a writer puts entries into new/ (spool_writer), the indexer reads them and moves them to cur/YYYYMMDD/HH (UTC).
Changes when the layout on disk changes.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from internal import failpoints, whole_mark
from internal.errors import (
    BytesDamaged,
    BytesMissing,
    ConfigurationInvalid,
    RouterError,
    StorageFull,
    StorageNotMounted,
)
from internal.filelock import Lock
from internal.leftovers import REASON, free_name, take_in
from internal.new_directory import fsync_directory, make_durably
from internal.report_box import ReportBox
from internal.spool_entry import Entry, EntryKind, arrived_at_of, parse_name
from internal.spool_writer import SpoolWriter, storage_error

__all__ = ["POLICY_NAME", "Entry", "EntryKind", "Lock", "Spool", "SpoolWriter"]

MAX_RECORD_BYTES = 64 * 1024 * 1024
MAX_PUBLISHED_BYTES = 16 * 1024 * 1024
_MAX_REASON_BYTES = 1024
_REFRESH_ABOVE_BYTES = 1024 * 1024
_FOLDERS = ("tmp", "new", "cur", "bad", "out", "run")
#: What the receiver is told, in run/.
POLICY_NAME = "policy.json"
_ID_FILE = "spool.id"
_IGNORED_IN_EMPTY = ("lost+found", ".spool.id")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_SLOT = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_NETWORK_TYPES = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "fuse.sshfs", "fuse.glusterfs"}
)


class Spool:
    """The spool of one node at `root`. Safe for use by many threads and processes at once."""

    def __init__(self, root: Path, node: str, fsync: bool, marks: bool, min_free_bytes: int) -> None:
        self.node = node
        self._root = root
        self._fsync = fsync
        self._marks = marks
        self._min_free_bytes = min_free_bytes
        self._new = root / "new"
        self._cur = root / "cur"
        self._reachable: set[Path] = set()
        #: Answers on their way to an association that is still open.
        self.reports = ReportBox(root / "run" / "reports")

    @classmethod
    def open(cls, root: Path, *, fsync: bool = True, create: bool = True, min_free_bytes: int = 0) -> Spool:
        """Open the spool at `root`; if it is absent or empty and `create`, make its layout (0700) and a random node id.

        `fsync=False` gives up the promise, for measurements. Writers refuse below `min_free_bytes`. Raises
        StorageNotMounted if spool.id is missing though there is content (or `create` is False), ConfigurationInvalid
        on a network file system, StorageFull or StorageFailed if the folder cannot be made.
        """
        root = root.absolute()
        kind = _file_system(root)
        if kind in _NETWORK_TYPES:
            raise ConfigurationInvalid(f"{root} lies on a network file system ({kind}); the spool needs a local disk")
        try:
            node = _read_node(root) or _make_node(root, create)
            for folder in _FOLDERS:
                make_durably(root / folder)
        except OSError as error:
            raise ConfigurationInvalid(f"The folder {root} cannot be used ({error.strerror}): choose a data_dir that "
                                       "this user may write") from None
        marks = kind in whole_mark.FILE_SYSTEMS or failpoints.active("store.mark_anywhere")
        return cls(root, node, fsync, marks, min_free_bytes)

    # -- writing ---------------------------------------------------------------------------------------------------

    def writer(self, slot: str, wait_s: float = 10.0) -> SpoolWriter:
        """Return the writer of `slot` ([a-z0-9-], e.g. ``receive-0``), after what its predecessor left was taken in.

        Raises AlreadyRunning if another process still has the slot after `wait_s` seconds.
        """
        if not _SLOT.fullmatch(slot):
            raise ValueError("a slot is made of a-z, 0-9 and -")
        lock = self.lock(f"slot-{slot}", wait_s)
        directory = self._root / "tmp" / slot
        make_durably(directory)
        self._make_reachable(directory)
        return SpoolWriter(
            slot=slot, directory=directory, new=self._new, lock=lock, fsync=self._fsync, marks=self._marks,
            check_room=self._check_room, held_back=self._take_in(directory),
        )

    def take_in_leftovers(self) -> None:
        """Take in what was left in the slots that have no writer now; some will get none, as processes become fewer."""
        for directory in (self._root / "tmp").iterdir():
            if _SLOT.fullmatch(directory.name) and directory.is_dir():
                try:
                    lock = self.lock(f"slot-{directory.name}", wait_s=0)
                except RouterError:  # it runs
                    continue
                try:
                    self._take_in(directory)
                finally:
                    lock.release()

    def _take_in(self, directory: Path) -> list[tuple[str, Entry]]:
        return take_in(directory, self._new, self._root / "bad", self._is_kept)

    def _is_kept(self, entry: Entry) -> bool:
        in_cur = self._hour(entry) / entry.file_name
        return in_cur.exists() or (self._new / entry.file_name).exists() or in_cur.exists()  # it may be moving

    def _check_room(self) -> None:
        if self._min_free_bytes and self.free_bytes() < self._min_free_bytes:
            raise StorageFull("The disk has less free space than the configured floor")

    def free_bytes(self) -> int:
        """Return the bytes that are free for us on the spool's disk."""
        if sys.platform == "win32":
            return shutil.disk_usage(self._root).free
        state = os.statvfs(self._root)
        return state.f_bavail * state.f_frsize

    # -- new/ ------------------------------------------------------------------------------------------------------

    def scan_new(self, limit: int = 1000) -> list[Entry]:
        """Return up to `limit` entries of new/, oldest first, kinds mixed; foreign names are left out."""
        entries: list[Entry] = []
        for name in sorted(_names(self._new)):
            entry = parse_name(name)
            if entry is not None:
                entries.append(entry)
                if len(entries) >= limit:
                    break
        return entries

    def doorbell(self) -> int:
        """Return the mtime of new/ (ns): another value means look again; an equal one may hide a change in one tick."""
        return self._new.stat().st_mtime_ns

    def oldest_new_at(self) -> int | None:
        """Return `arrived_at` (ms) of the oldest entry in new/, None if there is none."""
        names = _names(self._new)
        if first := parse_name(min(names, default="")):  # names of entries begin with their time
            return first.arrived_at
        entries = (parse_name(name) for name in names)  # a foreign name comes first
        return min((entry.arrived_at for entry in entries if entry is not None), default=None)

    def refresh_new(self) -> None:
        """Replace new/ by a fresh directory if it is empty and has grown beyond 1 MB; otherwise do nothing.

        rename() onto a directory succeeds only if that is empty, in one step, so a writer's name is in the old one
        (and nothing happens) or finds the new one.
        """
        if sys.platform == "win32" or self._new.stat().st_size <= _REFRESH_ABOVE_BYTES:
            return
        fresh = self._root / "new.fresh"
        try:
            fresh.mkdir(mode=0o700, exist_ok=True)
            fresh.rename(self._new)
        except OSError:
            return  # not empty: next time

    # -- reading ---------------------------------------------------------------------------------------------------

    def read(self, entry: Entry) -> bytes:
        """Return the whole content of a record; raises BytesMissing, BytesDamaged above 64 MB."""
        with self._open(entry.id, entry.kind) as file:
            data = file.read(MAX_RECORD_BYTES + 1)
        if len(data) > MAX_RECORD_BYTES:
            raise BytesDamaged(f"the record {entry.id} is larger than {MAX_RECORD_BYTES} bytes")
        return data

    def open_entry(self, entry_id: str, *, buffered: bool = True) -> BinaryIO:
        """Return a reader of an instance's file, wherever it lies now; the caller closes it. Raises BytesMissing.

        One that is not `buffered` is for whoever reads in large pieces, and may get less than asked for.
        """
        return self._open(entry_id, EntryKind.INSTANCE, buffered=buffered)

    def out_path(self, name: str) -> Path:
        """Return the path of `name` in out/, where frozen and transcoded bytes are kept."""
        if not _NAME.fullmatch(name):
            raise ValueError("a name in out/ is made of a-z, 0-9, '.', '_' and '-'")
        return self._root / "out" / name

    def locate(self, entry_id: str) -> Path:
        """Return where an instance's file lies now, for a process of its own to read it; raises BytesMissing."""
        with self.open_entry(entry_id) as file:
            return Path(file.name)

    def _open(self, entry_id: str, kind: EntryKind, *, buffered: bool = True) -> BinaryIO:
        try:
            entry = Entry(entry_id, kind, arrived_at_of(entry_id))
        except ValueError:
            raise BytesMissing(f"{entry_id!r} is not the id of a spool entry") from None
        # Strings: to make a Path costs more than to open the file.
        in_cur = f"{self._cur}/{_hour_of(entry)}/{entry.file_name}"
        for path in (in_cur, f"{self._new}/{entry.file_name}", in_cur):  # it may move to cur/ between two tries
            try:
                return open(path, "rb", io.DEFAULT_BUFFER_SIZE if buffered else 0)  # noqa: PTH123
            except FileNotFoundError:
                continue
        raise BytesMissing(f"The file of spool entry {entry_id} is not there")

    def all_ids(self) -> Iterator[Entry]:
        """Yield every entry of new/ and then cur/, each once; one that moves meanwhile is not missed."""
        waiting = self.scan_new(limit=sys.maxsize)
        yield from waiting
        seen = {entry.id for entry in waiting}
        for day in sorted(self._cur.iterdir()):
            for hour in sorted(day.iterdir()):
                for name in sorted(_names(hour)):
                    entry = parse_name(name)
                    if entry is not None and entry.id not in seen:
                        yield entry

    # -- moving ----------------------------------------------------------------------------------------------------

    def _hour(self, entry: Entry) -> Path:
        return self._cur / _hour_of(entry)

    def to_cur(self, entries: Iterable[Entry]) -> None:
        """Move indexed entries from new/ to cur/; safe to repeat. A crash may show them in new/ again."""
        self._move_all([(self._new / entry.file_name, self._hour(entry) / entry.file_name) for entry in entries])

    def return_to_new(self, ids: Iterable[str]) -> None:
        """Move entries from cur/ back to new/, to be indexed again; ids that are not in cur/ are left out."""
        entries = [entry for entry_id in ids for kind in EntryKind if (entry := parse_name(f"{entry_id}.{kind}"))]
        self._move_all([(self._hour(entry) / entry.file_name, self._new / entry.file_name) for entry in entries])

    def set_aside(self, entry: Entry, reason: str) -> None:
        """Move an entry of new/ or cur/ to bad/, with `reason` (text without patient data) beside it; never deletes."""
        sources = [folder / entry.file_name for folder in (self._new, self._hour(entry))]
        target = free_name(self._root / "bad" / entry.file_name, next(filter(Path.exists, sources), None))
        target.with_suffix(REASON).write_text(reason + "\n", encoding="utf-8")
        self._move_all([(source, target) for source in sources])

    def scan_bad(self, known: Container[str], limit: int = 1000) -> list[tuple[str, str]]:
        """Return up to `limit` entries of bad/ that are not in `known`, each with its reason."""
        names = sorted(name.removesuffix(REASON) for name in _names(self._root / "bad") if name.endswith(REASON))
        found: list[tuple[str, str]] = []
        for name in names:
            if len(found) >= limit:
                break
            if name not in known:
                with suppress(FileNotFoundError), (self._root / "bad" / f"{name}{REASON}").open("rb") as file:
                    found.append((name, file.read(_MAX_REASON_BYTES).decode(errors="replace").strip()))
        return found

    def _move_all(self, moves: Sequence[tuple[Path, Path]]) -> None:
        """Give each file its new name, durable where the spool is, before the old one goes; absent ones are left out.

        A power cut may leave both names, on no file system neither.
        """
        moved = [(source, target) for source, target in moves if _link(source, target)]
        if self._fsync and sys.platform != "win32":
            for folder in {target.parent for _, target in moved}:
                self._make_reachable(folder)
                fsync_directory(folder)
        for source, _ in moved:
            source.unlink(missing_ok=True)

    def _make_reachable(self, folder: Path) -> None:
        """Make the names that lead to a folder of the spool durable, once: who made it may have died before that."""
        if self._fsync and sys.platform != "win32" and folder not in self._reachable:
            for parent in folder.parents[:len(folder.parents) - len(self._root.parents)]:
                fsync_directory(parent)
            self._reachable.add(folder)

    def remove(self, ids: Iterable[str]) -> None:
        """Unlink instance files of cur/ for good; one that is gone already is no fault. Retention alone calls this."""
        for entry_id in ids:
            entry = Entry(entry_id, EntryKind.INSTANCE, arrived_at_of(entry_id))
            (self._hour(entry) / entry.file_name).unlink(missing_ok=True)

    # -- run/ ------------------------------------------------------------------------------------------------------

    def publish(self, name: str, data: bytes) -> None:
        """Replace run/`name` by `data` in one step; not durable. Raises StorageFull or StorageFailed."""
        target = self._run_path(name)
        temporary = target.with_name(f".{name}.{os.getpid()}.{threading.get_ident()}")
        try:
            temporary.write_bytes(data)
            temporary.replace(target)
        except OSError as error:
            raise storage_error(error) from None

    def read_published(self, name: str) -> bytes | None:
        """Return what was published under `name` last, None if nothing was (or it is beyond 16 MB)."""
        try:
            with self._run_path(name).open("rb") as file:
                data = file.read(MAX_PUBLISHED_BYTES + 1)
        except FileNotFoundError:
            return None
        return data if len(data) <= MAX_PUBLISHED_BYTES else None

    def lock(self, name: str, wait_s: float = 10.0) -> Lock:
        """Take the lock `name` for this process; raises AlreadyRunning, naming the holder, after `wait_s` seconds."""
        return Lock.acquire(self._run_path(name).with_name(f"{name}.lock"), wait_s)

    def _run_path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError("a name in run/ is made of a-z, 0-9, '.', '_' and '-'")
        return self._root / "run" / name


def _hour_of(entry: Entry) -> str:
    return _folder_of_hour(entry.arrived_at // 3_600_000)


@lru_cache(maxsize=1024)
def _folder_of_hour(hours: int) -> str:
    """Return the folder in cur/ of an hour since the epoch."""
    return time.strftime("%Y%m%d/%H", time.gmtime(hours * 3600))


def _names(directory: Path) -> list[str]:
    return os.listdir(directory)  # noqa: PTH208 - a Path for each of a million names would cost seconds


def _link(source: Path, target: Path) -> bool:
    """Return whether `source` is there and `target` is another name of it now, as it may have been before."""
    for _ in range(2):
        try:
            os.link(source, target)
            return True
        except FileExistsError:
            if not source.exists():
                return False
            if not source.samefile(target):
                source.replace(target)  # a person has put it there
            return True
        except PermissionError:  # a folder, or a file system where files have one name
            source.rename(target)
            return True
        except FileNotFoundError:
            if target.parent.exists():
                return False
            for folder in (target.parent.parent, target.parent):
                make_durably(folder)
    return False


def _read_node(root: Path) -> str | None:
    try:
        node = (root / _ID_FILE).read_text("ascii").strip()
    except FileNotFoundError:
        return None
    if not re.fullmatch(r"[0-9a-f]{8,64}", node):
        raise ConfigurationInvalid(f"{root / _ID_FILE} does not hold a node id; restore it from a backup")
    return node


def _make_node(root: Path, create: bool) -> str:
    """spool.id comes first and appears whole (a hard link of a finished file), so two starters agree on one id."""
    content = root.exists() and any(not name.startswith(_IGNORED_IN_EMPTY) for name in _names(root))
    if content and (node := _read_node(root)):  # another starter has made it meanwhile
        return node
    if content or not create:
        raise StorageNotMounted(
            f"{root} has no {_ID_FILE}: the disk that held the spool is probably not mounted. "
            f"If it is the right folder, restore {_ID_FILE} from a backup"
        )
    make_durably(root)
    root.chmod(0o700)
    temporary = root / f".spool.id.{os.getpid()}.{threading.get_ident()}"
    with temporary.open("w", encoding="ascii") as file:
        file.write(secrets.token_hex(8) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, root / _ID_FILE)
    except FileExistsError:
        pass
    temporary.unlink()
    if sys.platform != "win32":
        fsync_directory(root)
        fsync_directory(root.parent)
    node = _read_node(root)
    if node is None:
        raise StorageNotMounted(f"{root / _ID_FILE} vanished while it was made")
    return node


def _file_system(root: Path) -> str:
    """Return the type of the file system that `root` lies on, "" where the system does not tell.

    fsync and flock over a network do not mean what the spool needs them to mean.
    """
    best, kind = "", ""
    resolved = str(root.resolve())
    for line in _mounts():
        left, _, right = line.partition(" - ")
        mount = left.split(" ")[4].replace("\\040", " ")
        inside = resolved == mount or resolved.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, right.split(" ")[0]
    return kind


def _mounts() -> list[str]:
    try:
        return Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
