"""The spool on a real file system: layout, durability order, faults, locks, moves between folders."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import pytest

from internal import whole_mark
from internal.empty_files import MAX_EMPTY
from internal.errors import (
    AlreadyRunning,
    BytesDamaged,
    BytesMissing,
    ConfigurationInvalid,
    StorageFailed,
    StorageFull,
    StorageNotMounted,
)
from internal.spool import Entry, EntryKind, Spool
from internal.spool_entry import arrived_at_of, parse_name
from internal.spool_writer import IncomingInstance, SpoolWriter

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere seal() is commit()")


@pytest.fixture(autouse=True)
def _no_empty_file_stays_open() -> Iterator[None]:
    """Some thirty for each writer: peers in the same process that use select() fail beyond 1,024 descriptors."""
    yield
    for writer in [each for each in gc.get_objects() if type(each) is SpoolWriter]:
        writer._empty.close()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.open(tmp_path / "spool")


def keep(writer: SpoolWriter, data: bytes = b"image") -> Entry:
    incoming = writer.begin()
    incoming.writev([data[:2], memoryview(data)[2:]])
    return incoming.commit()


def test_layout_is_private_and_the_node_stays(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    node = Spool.open(root).node
    assert Spool.open(root).node == node
    assert sorted(path.name for path in root.iterdir()) == ["bad", "cur", "new", "out", "run", "spool.id", "tmp"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in root.iterdir() if path.is_dir())
    assert root.stat().st_mode & 0o077 == 0


def test_a_folder_with_content_but_no_id_is_not_taken_for_an_empty_spool(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    Spool.open(root)
    (root / "spool.id").unlink()
    with pytest.raises(StorageNotMounted):
        Spool.open(root)
    with pytest.raises(StorageNotMounted):
        Spool.open(tmp_path / "absent", create=False)
    assert not (tmp_path / "absent").exists()


def test_a_freshly_made_file_system_counts_as_empty(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    assert Spool.open(tmp_path).node


def test_a_damaged_id_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "spool.id").write_text("?")
    with pytest.raises(ConfigurationInvalid):
        Spool.open(tmp_path)


def test_many_starters_agree_on_one_node(tmp_path: Path) -> None:
    nodes: list[str] = []
    threads = [threading.Thread(target=lambda: nodes.append(Spool.open(tmp_path / "s").node)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(nodes) == 12 and len(set(nodes)) == 1


def test_an_instance_goes_from_tmp_through_new_to_cur(spool: Spool, tmp_path: Path) -> None:
    writer = spool.writer("receive-0")
    before = time.time_ns() // 1_000_000
    bell = spool.doorbell()
    entry = keep(writer)
    assert entry.kind is EntryKind.INSTANCE
    assert before <= entry.arrived_at <= time.time_ns() // 1_000_000
    assert entry.arrived_at == arrived_at_of(entry.id)
    assert spool.scan_new() == [entry] and spool.oldest_new_at() == entry.arrived_at
    assert spool.doorbell() >= bell
    with spool.open_entry(entry.id) as file:
        assert file.read() == b"image"
    spool.to_cur([entry])
    spool.to_cur([entry])
    assert spool.scan_new() == [] and spool.oldest_new_at() is None
    with spool.open_entry(entry.id) as file:
        assert file.read() == b"image"
    assert list((tmp_path / "spool" / "tmp" / "receive-0").iterdir()) == []
    assert list(spool.all_ids()) == [entry]
    spool.return_to_new([entry.id, "no-id"])
    assert spool.scan_new() == [entry]
    shutil.rmtree(tmp_path / "spool" / "cur")
    (tmp_path / "spool" / "cur").mkdir()  # somebody has tidied up empty folders
    spool.to_cur([entry])
    assert spool.scan_new() == [] and list(spool.all_ids()) == [entry]


def test_kinds_are_mixed_in_order_and_foreign_names_left_out(spool: Spool, tmp_path: Path) -> None:
    writer = spool.writer("a")
    entries = [
        keep(writer), writer.add_record(EntryKind.ASSOCIATION, b"{}"), keep(writer),
        writer.add_record(EntryKind.REQUEST, b'{"a":1}'),
    ]  # fmt: skip
    (tmp_path / "spool" / "new" / "README.dcm").write_bytes(b"")
    (tmp_path / "spool" / "new" / ".hidden").write_bytes(b"")
    assert spool.scan_new() == entries
    assert spool.scan_new(limit=2) == entries[:2]
    assert spool.read(entries[3]) == b'{"a":1}'


def test_set_aside_keeps_the_bytes_and_the_reason(spool: Spool, tmp_path: Path) -> None:
    entry = keep(spool.writer("a"))
    spool.set_aside(entry, "no study UID")
    assert spool.scan_new() == []
    bad = tmp_path / "spool" / "bad"
    assert (bad / entry.file_name).read_bytes() == b"image"
    assert (bad / f"{entry.id}.reason").read_text() == "no study UID\n"


def test_a_missing_file_and_a_foreign_id_are_named(spool: Spool) -> None:
    entry = keep(spool.writer("a"))
    (spool._new / entry.file_name).unlink()
    for entry_id in (entry.id, "../../etc/passwd", "", "0" * 12):
        with pytest.raises(BytesMissing):
            spool.open_entry(entry_id)


def test_a_record_of_absurd_size_is_refused(spool: Spool) -> None:
    entry = keep(spool.writer("a"))
    os.truncate(spool._new / entry.file_name, 65 * 1024 * 1024)
    with pytest.raises(BytesDamaged):
        spool.read(entry)


def test_ids_never_go_back_when_the_clock_does(spool: Spool) -> None:
    writer = spool.writer("a")
    ids = []
    for at in (5_000, 5_000, 4_000, 1_000, 6_000, 2_000):
        with mock.patch("time.time_ns", return_value=at * 1_000_000):
            ids.append(writer.add_record(EntryKind.ASSOCIATION, b"{}").id)
    assert ids == sorted(ids) and len(set(ids)) == len(ids)
    assert all(entry_id.replace("-", "").isalnum() and entry_id.islower() for entry_id in ids)


def test_two_slots_never_make_one_id(spool: Spool) -> None:
    first, second = spool.writer("a"), spool.writer("b")
    with mock.patch("time.time_ns", return_value=7_000_000_000):
        assert first.add_record(EntryKind.ASSOCIATION, b"").id != second.add_record(EntryKind.ASSOCIATION, b"").id


def test_a_slot_has_one_writer_and_sweeps_only_its_own_folder(spool: Spool, tmp_path: Path) -> None:
    first, other = spool.writer("a"), spool.writer("b")
    half, mine = other.begin(), first.begin()
    half.write(b"half")
    mine.write(b"mine")
    with pytest.raises(AlreadyRunning, match=str(os.getpid())):
        Spool.open(tmp_path / "spool").writer("a", wait_s=0)
    first.close()
    spool.writer("a")
    assert list((tmp_path / "spool" / "tmp" / "a").iterdir()) == []
    assert half.commit() in spool.scan_new()


@pytest.mark.parametrize("slot", ["", "../x", "A", "a/b", "a" * 40])
def test_a_slot_is_no_path(spool: Spool, slot: str) -> None:
    with pytest.raises(ValueError, match="slot"):
        spool.writer(slot)


def test_locks_end_with_their_process(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    spool = Spool.open(root)
    code = "import sys; from pathlib import Path; from internal.spool import Spool; " \
        "lock = Spool.open(Path(sys.argv[1])).lock('deliver'); print('held', flush=True); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", code, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin and child.stdout and child.stdout.readline() == b"held\n"
    with pytest.raises(AlreadyRunning, match=f"deliver.*{child.pid}"):
        spool.lock("deliver", wait_s=0.1)
    child.kill()
    child.communicate()
    with spool.lock("deliver", wait_s=5):
        pass
    spool.lock("deliver", wait_s=0).release()


def test_published_documents_are_replaced_whole(spool: Spool) -> None:
    assert spool.read_published("policy.json") is None
    spool.publish("policy.json", b"1")
    spool.publish("policy.json", b"22")
    assert spool.read_published("policy.json") == b"22"
    for name in ("../x", "", ".x", "a/b"):
        with pytest.raises(ValueError, match="run/"):
            spool.publish(name, b"")


def test_files_made_ahead_are_used_bounded_and_gone_at_the_end(spool: Spool, tmp_path: Path) -> None:
    folder = tmp_path / "spool" / "tmp" / "a"
    writer = spool.writer("a")
    for _ in range(3 * MAX_EMPTY):
        writer.prepare()
    ahead = set(folder.iterdir())
    assert len(ahead) == MAX_EMPTY and spool.scan_new() == []
    entry = keep(writer)
    assert set(folder.iterdir()) < ahead and spool.scan_new() == [entry]
    with spool.open_entry(entry.id) as file:
        assert file.read() == b"image"
    writer.close()
    assert list(folder.iterdir()) == []


def begin_sealable(writer: SpoolWriter, data: bytes = b"image") -> IncomingInstance:
    writer.prepare()
    incoming = writer.begin()
    incoming.writev([data[:2], memoryview(data)[2:]])
    return incoming


@linux_only
def test_a_sealed_instance_is_seen_once_it_is_handed_over(spool: Spool, tmp_path: Path) -> None:
    writer = spool.writer("a")
    bell = spool.doorbell()
    incoming = begin_sealable(writer)
    entry = incoming.seal()
    assert spool.scan_new() == [] and spool.doorbell() == bell
    incoming.abort()  # too late: somebody may have been told
    incoming.hand_over()
    incoming.hand_over()
    assert spool.scan_new() == [entry]
    with spool.open_entry(entry.id) as file:
        assert file.read() == b"image"
    spool.to_cur([entry])
    writer.tidy()
    assert list(spool.all_ids()) == [entry]
    writer.close()
    assert list((tmp_path / "spool" / "tmp" / "a").iterdir()) == []


def order_of(writer: SpoolWriter, use: Callable[[], object]) -> list[str]:
    """What `use` fsyncs, marks, renames and links, in this order, by the names that the spool gives."""
    calls: list[str] = []
    real = {name: getattr(os, name) for name in ("fsync", "setxattr", "rename", "link", "unlink")}

    def named(fd: int) -> str:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        return path.name if path.is_dir() else path.parent.parent.name

    def note(name: str, first: str | int, *rest: object, **named_arguments: object) -> object:
        calls.append(f"{name} {named(first)}" if isinstance(first, int) else name)
        return real[name](first, *rest, **named_arguments)

    with contextlib.ExitStack() as stack:
        for name in real:
            stack.enter_context(mock.patch(f"os.{name}", partial(note, name)))
        use()
    return calls


@linux_only
def test_each_order_makes_bytes_and_name_durable_before_it_returns(spool: Spool) -> None:
    writer = spool.writer("a")
    incoming = writer.begin()  # nothing was made ready
    incoming.write(b"image")
    assert order_of(writer, incoming.seal) == ["fsync tmp", "rename", "fsync spool", "fsync new"]
    assert order_of(writer, writer.prepare) == ["fsync a"]  # names in tmp/ to come
    incoming = begin_sealable(writer)
    assert order_of(writer, incoming.seal) == ["setxattr tmp", "fsync tmp"]
    assert order_of(writer, incoming.hand_over) == ["link"]
    incoming = begin_sealable(writer)
    assert order_of(writer, incoming.commit) == ["fsync tmp", "rename", "fsync new", "unlink"]


@linux_only
def test_between_two_instances_is_one_wait_at_most_and_a_name_in_tmp_goes_after_that_in_new_is_durable(
    spool: Spool,
) -> None:
    writer = spool.writer("a")
    writer.prepare()
    waits: list[str] = []
    unlinks = 0
    for _ in range(3 * MAX_EMPTY):
        incoming = writer.begin()
        incoming.write(b"image")
        incoming.seal()
        incoming.hand_over()
        calls = order_of(writer, writer.prepare)
        waited = [call for call in calls if call in ("fsync a", "fsync new")]  # once also the way to new/
        assert len(waited) <= 1
        assert "unlink" not in calls[:calls.index("fsync new") if "fsync new" in calls else None]
        waits += waited
        unlinks += calls.count("unlink")
    assert waits.count("fsync a") >= 3 and waits.count("fsync new") >= 3
    assert unlinks >= waits.count("fsync new") * 24


@linux_only
@pytest.mark.parametrize("code", [errno.ENOTSUP, errno.ENOSPC])
def test_where_no_mark_can_be_put_the_other_order_is_taken(spool: Spool, code: int) -> None:
    writer = spool.writer("a")
    incoming = begin_sealable(writer)
    with mock.patch("os.setxattr", side_effect=OSError(code, "")) as setxattr:
        entry = incoming.seal()
        incoming.hand_over()
        assert spool.scan_new() == [entry]
        for _ in range(2 * MAX_EMPTY):
            incoming = begin_sealable(writer)
            incoming.seal()
        files = MAX_EMPTY if code == errno.ENOTSUP else 2 * MAX_EMPTY + 1  # a file system does not learn it
        assert setxattr.call_count <= files
    assert len(spool.scan_new()) == 2 * MAX_EMPTY + 1


@linux_only
def test_what_cannot_be_handed_over_stops_receiving_until_it_can(spool: Spool) -> None:
    writer = spool.writer("a")
    incoming = begin_sealable(writer)
    entry = incoming.seal()
    with mock.patch("os.link", side_effect=OSError(errno.EIO, "")):
        incoming.hand_over()
        with pytest.raises(StorageFailed, match="handed on"):
            writer.begin()
        assert not writer.reopen()
        writer.tidy()
    assert spool.scan_new() == []
    assert writer.reopen() and spool.scan_new() == [entry]
    assert keep(writer) in spool.scan_new()


@linux_only
def test_what_was_held_back_is_handed_over_without_another_image(spool: Spool) -> None:
    writer = spool.writer("a")
    incoming = begin_sealable(writer)
    entry = incoming.seal()
    with mock.patch("os.link", side_effect=OSError(errno.ENOSPC, "")):
        incoming.hand_over()
    writer.tidy()
    assert spool.scan_new() == [entry]


@linux_only
def test_after_a_failed_fsync_nothing_was_sealed(spool: Spool, tmp_path: Path) -> None:
    writer = spool.writer("a")
    incoming = begin_sealable(writer)
    with mock.patch("os.fsync", fail_once(errno.EIO)), pytest.raises(StorageFailed):
        incoming.seal()
    incoming.hand_over()
    assert writer.read_only and spool.scan_new() == []
    writer._lock.release()
    spool.writer("a")
    assert spool.scan_new() == []


@linux_only
def test_an_image_whose_file_was_removed_from_tmp_is_refused(spool: Spool, tmp_path: Path) -> None:
    writer = spool.writer("a")
    incoming = begin_sealable(writer)
    shutil.rmtree(tmp_path / "spool" / "tmp" / "a")
    with pytest.raises(StorageFailed, match="removed"):
        incoming.seal()
    assert spool.scan_new() == []


@linux_only
def test_what_was_removed_before_it_was_handed_on_is_said_and_holds_nothing_up(
    spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = spool.writer("a")
    incoming = begin_sealable(writer)
    incoming.seal()
    for path in (tmp_path / "spool" / "tmp" / "a").iterdir():
        path.unlink()
    before = len(list(Path("/proc/self/fd").iterdir()))
    incoming.hand_over()
    writer.tidy()
    assert "an image that was answered is gone" in caplog.text
    assert len(list(Path("/proc/self/fd").iterdir())) < before and writer.reopen()


@linux_only
def test_a_failed_fsync_of_new_is_not_believed_later(spool: Spool, tmp_path: Path) -> None:
    """Its repetition may succeed without the names being there: those in tmp/ stay until the next start."""
    writer = spool.writer("a")
    incoming = begin_sealable(writer)
    entry = incoming.seal()
    incoming.hand_over()
    with mock.patch("os.fsync", fail_once(errno.EIO)):
        writer.tidy()
    assert writer.read_only
    writer.tidy()
    assert writer.reopen()
    keep(writer)
    assert any(path.stat().st_size for path in (tmp_path / "spool" / "tmp" / "a").iterdir())
    writer._lock.release()
    spool.writer("a")
    assert list((tmp_path / "spool" / "tmp" / "a").iterdir()) == [] and spool.scan_new()[0] == entry


@linux_only
def test_a_record_does_not_lift_what_stops_receiving(spool: Spool) -> None:
    writer = spool.writer("a")
    incoming = begin_sealable(writer)
    incoming.seal()
    with mock.patch("os.link", side_effect=OSError(errno.EIO, "")):
        incoming.hand_over()
        with pytest.raises(StorageFailed, match="handed on"):
            writer.add_record(EntryKind.REQUEST, b"{}")
    assert writer.read_only


@linux_only
def test_a_name_in_tmp_that_cannot_go_now_goes_later(spool: Spool, tmp_path: Path) -> None:
    writer = spool.writer("a")
    for _ in range(3):
        incoming = begin_sealable(writer)
        incoming.seal()
        incoming.hand_over()
    with mock.patch("os.unlink", side_effect=OSError(errno.EIO, "")):
        writer.tidy()
    folder = tmp_path / "spool" / "tmp" / "a"
    assert sum(path.stat().st_size > 0 for path in folder.iterdir()) == 3
    writer.tidy()
    assert sum(path.stat().st_size > 0 for path in folder.iterdir()) == 0


@linux_only
def test_threads_that_seal_and_tidy_at_once_lose_nothing(spool: Spool, tmp_path: Path) -> None:
    writer = spool.writer("a")
    accepted: list[Entry] = []
    failures: list[BaseException] = []

    def accept() -> None:
        try:
            for _ in range(200):
                incoming = begin_sealable(writer)
                accepted.append(incoming.seal())
                incoming.hand_over()
                writer.tidy()
        except BaseException as error:
            failures.append(error)

    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=accept) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switching)
    assert failures == [] and len(accepted) == 1200
    assert {entry.id for entry in spool.scan_new(sys.maxsize)} == {entry.id for entry in accepted}
    writer.close()
    assert list((tmp_path / "spool" / "tmp" / "a").iterdir()) == []


def test_what_is_set_aside_twice_is_kept_twice(spool: Spool, tmp_path: Path) -> None:
    entry = keep(spool.writer("a"), b"broken")
    spool.set_aside(entry, "first")
    bad = tmp_path / "spool" / "bad"
    (spool._new / entry.file_name).write_bytes(b"mended")  # by a person
    spool.set_aside(entry, "second")
    assert (bad / entry.file_name).read_bytes() == b"broken" and (bad / f"{entry.id}.reason").read_text() == "first\n"
    assert (bad / f"{entry.id}.1.dcm").read_bytes() == b"mended"
    assert (bad / f"{entry.id}.1.reason").read_text() == "second\n" and spool.scan_new() == []


def test_only_where_marks_are_known_to_hold_are_they_put(tmp_path: Path) -> None:
    table = f"1 0 0:1 / / rw - ext4 /dev/x rw\n2 1 0:2 / {tmp_path} rw - zfs tank rw\n"
    with mock.patch("internal.spool._mounts", return_value=table.splitlines()):
        spool = Spool.open(tmp_path / "spool")
    writer = spool.writer("a")
    with mock.patch("os.setxattr") as setxattr:
        entry = begin_sealable(writer).seal()
    assert not setxattr.called and spool.scan_new() == [entry]


@linux_only
def test_room_that_was_reserved_for_more_is_given_back(spool: Spool) -> None:
    writer = spool.writer("a")
    writer.prepare()
    for size in (400_000, 400_000, 400_000, 5_000):
        incoming = begin_sealable(writer, os.urandom(size))
        entry = incoming.seal()
        incoming.hand_over()
    found = spool.locate(entry.id).stat()
    assert found.st_size == 5_000 and found.st_blocks * 512 < 50_000


def test_opening_ahead_never_raises(spool: Spool, tmp_path: Path) -> None:
    writer = spool.writer("a")
    (tmp_path / "spool" / "tmp" / "a").rmdir()
    writer.prepare()
    with pytest.raises(StorageFailed):
        writer.begin()


def test_abort_leaves_nothing(spool: Spool, tmp_path: Path) -> None:
    incoming = spool.writer("a").begin()
    incoming.write(b"x")
    incoming.abort()
    incoming.abort()
    assert list((tmp_path / "spool" / "tmp" / "a").iterdir()) == [] and spool.scan_new() == []


def test_below_the_floor_nothing_is_begun(tmp_path: Path) -> None:
    writer = Spool.open(tmp_path / "s", min_free_bytes=1 << 60).writer("a")
    with pytest.raises(StorageFull):
        writer.begin()
    assert list((tmp_path / "s" / "tmp" / "a").iterdir()) == []


def fail_once(code: int) -> object:
    """An os.fsync that fails at its first call and tells which descriptors it saw."""
    real, calls = os.fsync, []

    def fsync(fd: int) -> None:
        calls.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        if len(calls) == 1:
            raise OSError(code, os.strerror(code))
        real(fd)

    fsync.calls = calls  # type: ignore[attr-defined]
    return fsync


def test_after_a_failed_fsync_a_record_is_written_once_more_to_another_file(spool: Spool) -> None:
    writer = spool.writer("a")
    with mock.patch("os.fsync", fail_once(errno.EIO)) as fsync:
        entry = writer.add_record(EntryKind.REQUEST, b"{}")
    assert fsync.calls[0] not in fsync.calls[1:]
    assert spool.scan_new() == [entry] and writer.read_only is None


def test_after_a_failed_fsync_an_instance_is_lost_and_the_writer_read_only_until_reopened(spool: Spool) -> None:
    writer = spool.writer("a")
    incoming = writer.begin()
    incoming.write(b"x")
    with mock.patch("os.fsync", fail_once(errno.EIO)), pytest.raises(StorageFailed):
        incoming.commit()
    assert spool.scan_new() == []
    with pytest.raises(StorageFailed, match="durable"):
        writer.begin()
    with mock.patch("os.fsync", side_effect=OSError(errno.EIO, "")):
        assert not writer.reopen()
    assert writer.reopen()
    assert spool.scan_new() == [] and keep(writer) in spool.scan_new()


def test_when_the_name_cannot_be_made_durable_nobody_is_told_that_it_is(spool: Spool) -> None:
    writer = spool.writer("a")
    incoming = writer.begin()
    real = os.fsync

    def only_files(fd: int) -> None:
        if Path(f"/proc/self/fd/{fd}").is_dir():
            raise OSError(errno.EIO, "")
        real(fd)

    with mock.patch("os.fsync", only_files), pytest.raises(StorageFailed):
        incoming.commit()
    assert writer.read_only


@pytest.mark.parametrize(("code", "error"), [
    (errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EFBIG, StorageFull), (errno.EIO, StorageFailed),
    (errno.EROFS, StorageFailed),
])  # fmt: skip
def test_disk_errors_have_their_meaning(spool: Spool, code: int, error: type[Exception]) -> None:
    writer = spool.writer("a")
    incoming = writer.begin()
    with mock.patch("os.write", side_effect=OSError(code, "")), pytest.raises(error):
        incoming.write(b"x")
    with mock.patch("os.writev", side_effect=OSError(code, "")), pytest.raises(error):
        incoming.writev([b"x"])
    incoming.abort()
    with mock.patch("os.open", side_effect=OSError(code, "")), pytest.raises(error):
        writer.begin()
    assert keep(writer) in spool.scan_new()


def test_a_full_disk_at_fsync_is_full_not_broken(spool: Spool) -> None:
    writer = spool.writer("a")
    incoming = writer.begin()
    with mock.patch("os.fsync", fail_once(errno.ENOSPC)), pytest.raises(StorageFull):
        incoming.commit()
    assert keep(writer) in spool.scan_new()


def test_a_short_write_is_completed(spool: Spool) -> None:
    real = os.writev
    incoming = spool.writer("a").begin()
    with mock.patch("os.writev", lambda fd, parts: real(fd, [bytes(parts[0])[:1]])):
        incoming.writev([b"abc", b"def"])
    assert incoming.size_bytes == 6
    entry = incoming.commit()
    with spool.open_entry(entry.id) as file:
        assert file.read() == b"abcdef"


@linux_only
@pytest.mark.parametrize("count", [2, 513, 1024])
@pytest.mark.parametrize("is_short", [True, False])
def test_the_mark_is_that_of_all_parts_that_were_written(spool: Spool, count: int, is_short: bool) -> None:
    real = os.writev
    parts = [b"%d" % number for number in range(count)]
    writer = spool.writer("a")
    incoming = begin_sealable(writer, b"")
    with mock.patch("os.writev", (lambda fd, parts: real(fd, [bytes(parts[0])[:1]])) if is_short else real):
        incoming.writev(parts[:1])
        incoming.writev(parts[1:], last=True)
    incoming.writev([], last=True)
    incoming.seal()
    path = Path(incoming._path)
    mark = whole_mark.read(path)
    assert path.read_bytes() == b"".join(parts) and mark is not None and whole_mark.is_whole(path, mark)
    incoming.hand_over()
    writer.close()


def test_writers_and_a_reader_and_fresh_folders_lose_nothing(spool: Spool) -> None:
    """Eight threads accept while another moves everything to cur/ and replaces new/ as often as it can."""
    writer = spool.writer("a")
    accepted: list[Entry] = []
    done = threading.Event()

    def accept() -> None:
        for _ in range(60):
            accepted.append(keep(writer))

    def index() -> None:
        while not done.is_set():
            spool.to_cur(spool.scan_new())
            spool.refresh_new()

    with mock.patch("internal.spool._REFRESH_ABOVE_BYTES", -1):
        before = spool._new.stat().st_ino
        mover = threading.Thread(target=index)
        mover.start()
        threads = [threading.Thread(target=accept) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done.set()
        mover.join()
        spool.to_cur(spool.scan_new())
        spool.refresh_new()
        assert spool._new.stat().st_ino != before
    assert len(accepted) == 480
    assert {entry.id for entry in spool.all_ids()} == {entry.id for entry in accepted}


def test_no_name_counts_as_durable_before_a_sync_that_began_after_it(spool: Spool) -> None:
    """Concurrent commits share directory syncs, but each commit ends after one that began after its own rename."""
    writer = spool.writer("a")
    real_sync, real_rename = os.fsync, os.rename
    renamed_at: dict[str, int] = {}
    sync_began: list[int] = []
    lock = threading.Lock()
    clock = iter(range(10**9))

    def fsync(fd: int) -> None:
        if fd == writer._new._fd:
            with lock:
                sync_began.append(next(clock))
            real_sync(fd)

    def rename(source: str, name: str, *, dst_dir_fd: int) -> None:
        real_rename(source, name, dst_dir_fd=dst_dir_fd)
        with lock:
            renamed_at[name] = next(clock)

    failures: list[str] = []

    def accept() -> None:
        for _ in range(40):
            name = keep(writer).file_name
            with lock:
                if not any(began > renamed_at[name] for began in sync_began):
                    failures.append(name)

    with mock.patch("os.fsync", fsync), mock.patch("os.rename", rename):
        threads = [threading.Thread(target=accept) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == [] and 0 < len(sync_began) <= 240


def test_network_file_systems_are_refused(tmp_path: Path) -> None:
    table = f"1 0 0:1 / / rw - ext4 /dev/x rw\n2 1 0:2 / {tmp_path} rw - nfs4 server:/x rw\n"
    with mock.patch("internal.spool._mounts", return_value=table.splitlines()), \
            pytest.raises(ConfigurationInvalid, match="nfs4"):
        Spool.open(tmp_path / "spool")


def test_names_that_are_not_ours() -> None:
    for name in ("", ".", "x.dcm", "018f3a2b4c5d-0000-a-b.txt", "018f3a2b4c5z-0.dcm", "018f3a2b4c5d.dcm", "..dcm"):
        assert parse_name(name) is None
    assert arrived_at_of("0000000003e8-0000-a-b") == 1000
