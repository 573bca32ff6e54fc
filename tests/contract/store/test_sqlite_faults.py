"""What can happen to a SQLite file: a full disk, damage, a kill; who moves its log; what is compiled once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

from internal import claims
from internal.errors import StorageFailed, StorageFull, Transient
from internal.store import Store
from tests.contract.store.samples import add, instance

PUT = "INSERT INTO meta (key, value) VALUES (?, ?)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.db"


@pytest.fixture
def migrated(path: Path) -> Store:
    store = Store.open(f"sqlite://{path}")
    store.migrate()
    return store


def test_a_full_disk_is_said_to_be_full_and_nothing_half_is_kept(migrated: Store) -> None:
    add(migrated, instance(1))
    with migrated.transaction() as tx:
        pages = tx.value("PRAGMA page_count")
        tx.value(f"PRAGMA max_page_count = {pages + 8}")
    with pytest.raises(StorageFull):
        add(migrated, *[instance(number, study_description="x" * 400) for number in range(100, 400)])
    with migrated.transaction() as tx:
        assert tx.value("SELECT COUNT(*) FROM instance") == 1
        tx.value("PRAGMA max_page_count = 1000000")
    add(migrated, instance(2))
    migrated.close()


def test_a_damaged_page_is_found(migrated: Store, path: Path) -> None:
    add(migrated, *[instance(number) for number in range(1000)])
    migrated.checkpoint()
    migrated.close()
    Path(f"{path}-wal").unlink()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size - size // 4)
        file.write(b"\xa5" * (size // 4))
    damaged = Store.open(f"sqlite://{path}")
    assert damaged.quick_check() != []
    with pytest.raises(StorageFailed), damaged.reading() as tx:
        tx.rows("SELECT * FROM instance ORDER BY sha256")
    damaged.close()


def test_a_file_that_is_no_database(path: Path) -> None:
    path.write_bytes(b"this is not a database, however long it may be" * 100)
    with pytest.raises(StorageFailed):
        Store.open(f"sqlite://{path}")


def test_a_read_only_store_never_creates_the_file(path: Path) -> None:
    with pytest.raises(Transient):
        Store.open(f"sqlite://{path}", read_only=True)
    assert not path.exists()


def test_the_log_is_moved_only_by_checkpoint(migrated: Store, path: Path) -> None:
    migrated.checkpoint()
    with migrated.transaction() as tx:
        tx.executemany(PUT, [(f"k{number}", "x" * 500) for number in range(5000)])
    before = path.stat().st_size
    assert before < 1_000_000  # 2.5 MB were written, all of them to the log
    Store.open(f"sqlite://{path}", read_only=True).close()
    migrated.close()
    assert path.stat().st_size == before  # nor by the last connection that closes
    again = Store.open(f"sqlite://{path}")
    in_log, moved = again.checkpoint()
    assert in_log == moved > 500
    assert path.stat().st_size > 2_000_000
    again.close()


def test_a_reader_holds_a_checkpoint_back_but_not_up(migrated: Store) -> None:
    with migrated.reading() as tx:
        tx.value("SELECT COUNT(*) FROM meta")
        with migrated.transaction() as writing:
            writing.executemany(PUT, [(f"k{number}", "x" * 500) for number in range(100)])
        in_log, moved = migrated.checkpoint()
        assert moved < in_log
    in_log, moved = migrated.checkpoint()
    assert moved == in_log
    migrated.close()


_CHILD = """
import sys
from internal.store import Store
store = Store.open(sys.argv[1])
for number in range(10_000):
    with store.transaction() as tx:
        tx.execute("INSERT INTO meta (key, value) VALUES (?, '')", (f"{number:05}",))
    print(number, flush=True)
"""


def test_what_was_committed_survives_kill_9(migrated: Store, path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", _CHILD, f"sqlite://{path}"], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    seen = [int(child.stdout.readline()) for _ in range(50)]
    child.kill()
    seen += [int(line) for line in child.stdout.read().split("\n")[:-1] if line]
    child.wait()
    child.stdout.close()
    with migrated.reading() as tx:
        kept = {int(key) for (key,) in tx.rows("SELECT key FROM meta")}
    assert set(seen) <= kept
    assert migrated.quick_check() == []
    migrated.close()


_ONE_COMMIT = """
import os, sys
from internal.store import Store
store = Store.open(sys.argv[1])
with store.transaction() as tx:
    tx.execute("INSERT INTO meta (key, value) VALUES ('a', 'b')")
    os.write(2, b"before the commit")
os.write(2, b"after the commit")
"""


@pytest.mark.strace
def test_the_log_is_synced_before_a_commit_returns(migrated: Store, path: Path, tmp_path: Path) -> None:
    migrated.close()
    trace = tmp_path / "trace"
    subprocess.run(["strace", "-f", "-y", "-o", str(trace), "-e", "trace=write,pwrite64,fdatasync,fsync",
                    sys.executable, "-c", _ONE_COMMIT, f"sqlite://{path}"], check=True, capture_output=True)
    lines = trace.read_text().splitlines()
    begin = next(number for number, line in enumerate(lines) if "before the commit" in line)
    end = next(number for number, line in enumerate(lines) if "after the commit" in line)
    written = [number for number in range(begin, end) if "pwrite64" in lines[number] and "-wal>" in lines[number]]
    synced = [number for number in range(begin, end) if "sync(" in lines[number] and "-wal>" in lines[number]]
    assert written
    assert synced
    assert max(synced) > max(written)


def test_settings_that_safety_rests_on(migrated: Store) -> None:
    with migrated.transaction() as tx:
        assert tx.value("PRAGMA journal_mode") == "wal"
        assert tx.value("PRAGMA synchronous") == 2
        assert tx.value("PRAGMA foreign_keys") == 1
        assert tx.value("PRAGMA mmap_size") in (0, None)
        assert tx.value("PRAGMA wal_autocheckpoint") == 0
        assert tuple(map(int, tx.value("SELECT sqlite_version()").split("."))) > (3, 51, 2)  # the WAL-reset bug
    migrated.close()


def test_a_statement_is_compiled_once_whatever_its_values(migrated: Store) -> None:
    compiled: list[int] = []

    def note(action: int, *_: Any) -> int:
        compiled.append(action)
        return apsw.SQLITE_OK

    with migrated.transaction() as tx:
        tx._connection._db.authorizer = note  # type: ignore[attr-defined]  # SQLite asks it while it compiles
        statements = claims.claim_sql(tx)
        for sql in statements:
            tx.rows(sql, ("a", "b", 0, 1, "n"))
        assert compiled
        compiled.clear()
        for sql in statements:
            assert tx.rows(sql, ("c", "d", 1, 2, "m")) == []
        assert compiled == []
    migrated.close()
