"""Transactions, snapshots, migrations and faults of the store, on both engines."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from internal.errors import ConfigurationInvalid, DatabaseTooNew, Transient
from internal.store import Store, storable
from tests.contract.conftest import OpenStore, Postgres
from tests.examples import examples

PUT = "INSERT INTO meta (key, value) VALUES (?, ?)"


def keys(store: Store) -> list[str]:
    with store.reading() as tx:
        return [key for (key,) in tx.rows("SELECT key FROM meta ORDER BY key")]


def test_commit_is_seen_by_others_and_rollback_by_nobody(open_store: OpenStore) -> None:
    mine, other = open_store(), open_store()
    with mine.transaction() as tx:
        assert tx.execute(PUT, ("a", "1")) == 1
        assert keys(other) == []
    assert keys(other) == ["a"]
    with pytest.raises(ZeroDivisionError), mine.transaction() as tx:
        tx.execute(PUT, ("b", "1"))
        raise ZeroDivisionError
    assert keys(mine) == keys(other) == ["a"]


def test_counts_of_rows_changed(store: Store) -> None:
    with store.transaction() as tx:
        tx.executemany(PUT, [(f"k{number}", "x") for number in range(5)])
        assert tx.execute("UPDATE meta SET value = 'y' WHERE key < ?", ("k3",)) == 3
        assert tx.execute("UPDATE meta SET value = 'y' WHERE key = ?", ("nobody",)) == 0
        assert tx.value("SELECT COUNT(*) FROM meta WHERE value = ?", ("y",)) == 3
        assert tx.value("SELECT value FROM meta WHERE key = ?", ("nobody",)) is None
        assert tx.row("SELECT key, value FROM meta WHERE key = ?", ("k4",)) == ("k4", "x")
        assert tx.rows("DELETE FROM meta WHERE key = ? RETURNING value", ("k4",)) == [("x",)]
        tx.executemany(PUT, [])


def test_a_reader_keeps_its_snapshot(open_store: OpenStore) -> None:
    writer, reader = open_store(), open_store()
    with reader.reading() as tx:
        assert tx.value("SELECT COUNT(*) FROM meta") == 0
        with writer.transaction() as writing:
            writing.execute(PUT, ("a", "1"))
        assert tx.value("SELECT COUNT(*) FROM meta") == 0
    assert keys(reader) == ["a"]


def test_reading_cannot_write(store: Store) -> None:
    with pytest.raises(Exception, match=r"(?i)read.?only|readonly"), store.reading() as tx:
        tx.execute(PUT, ("a", "1"))
    assert keys(store) == []


def test_a_read_only_store_has_no_transactions(open_store: OpenStore) -> None:
    with pytest.raises(RuntimeError), open_store(read_only=True).transaction():
        pass


def test_transactions_do_not_nest_and_the_outer_one_survives(store: Store) -> None:
    with store.transaction() as tx:
        tx.execute(PUT, ("outer", "1"))
        with pytest.raises(RuntimeError), store.transaction():
            pass
    assert keys(store) == ["outer"]


def test_percent_signs_and_question_marks_in_literals_are_text(store: Store) -> None:
    with store.reading() as tx:
        assert tx.row("SELECT '100 %', 'really?', 'it''s ?', ?", ("x",)) == ("100 %", "really?", "it's ?", "x")
        assert tx.value("SELECT 'abc' LIKE '%b%'") in (1, True)
        assert tx.value("SELECT 7 % 4") == 3


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60) | st.text(alphabet="\0\ud800\udfffa\u00e9\U0001f600%?'\\", max_size=12))
def test_any_text_comes_back_as_storable_says(store: Store, text: str) -> None:
    with store.transaction() as tx:
        tx.execute("DELETE FROM meta")
        tx.execute(PUT, (text, text))
        assert tx.row("SELECT key, value FROM meta WHERE key = ?", (text,)) == (storable(text), storable(text))
        assert tx.value("SELECT COUNT(*) FROM meta WHERE key = ?", (storable(text),)) == 1
    if "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text):
        assert storable(text) == text


def test_threads_share_one_store(store: Store) -> None:
    with store.transaction() as tx:
        tx.execute(PUT, ("sum", "0"))
    failures: list[BaseException] = []

    def add_ten() -> None:
        try:
            for _ in range(10):
                with store.transaction() as tx:
                    value = int(tx.value(f"SELECT value FROM meta WHERE key = 'sum'{tx.for_update}"))
                    tx.execute("UPDATE meta SET value = ? WHERE key = 'sum'", (str(value + 1),))
                with store.reading() as tx:
                    assert int(tx.value("SELECT value FROM meta WHERE key = 'sum'")) > value
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=add_ten) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with store.reading() as tx:
        assert tx.value("SELECT value FROM meta WHERE key = 'sum'") == "80"


def test_a_fifth_reader_waits_and_then_is_told(database_url: str) -> None:
    store = Store.open(database_url, wait_s=0.05)
    readers = [store.reading() for _ in range(4)]
    for reader in readers:
        reader.__enter__()
    with pytest.raises(Transient, match="readers"), store.reading():
        pass
    readers[0].__exit__(None, None, None)
    assert keys(store) == []
    for reader in readers[1:]:
        reader.__exit__(None, None, None)
    store.close()


def test_changed_tells_of_other_connections_only_when_something_was_committed(open_store: OpenStore) -> None:
    watcher, writer = open_store(), open_store()
    before = watcher.changed()
    if watcher.dialect == "sqlite":  # PostgreSQL's own housekeeping may look like a change
        assert watcher.changed() == before
    with writer.transaction() as tx:
        tx.execute(PUT, ("a", "1"))
    after = watcher.changed()
    assert after != before
    with watcher.transaction() as tx:  # its own write connection is another connection too
        tx.execute(PUT, ("b", "1"))
    assert watcher.changed() != after


def test_migrate_twice_changes_nothing(store: Store) -> None:
    version = store.schema_version()
    assert version >= 1
    assert store.migrate() == version
    with store.reading() as tx:
        assert tx.value("SELECT COUNT(*) FROM schema_migration") == version


def test_processes_that_start_together_migrate_once(fresh_url: str) -> None:
    versions: list[int] = []

    def start() -> None:
        store = Store.open(fresh_url)
        versions.append(store.migrate())
        store.close()

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(versions) == 6
    assert len(set(versions)) == 1


def test_an_empty_database_has_version_0(fresh_url: str) -> None:
    store = Store.open(fresh_url)
    assert store.schema_version() == 0
    store.close()


def test_a_newer_database_is_refused_with_a_sentence(store: Store) -> None:
    with store.transaction() as tx:
        tx.execute("INSERT INTO schema_migration (version, name, applied_at) VALUES (9999, '9999_later', 0)")
    with pytest.raises(DatabaseTooNew, match="schema 9999"):
        store.migrate()


def test_a_failed_migration_leaves_no_trace(fresh_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_good.sql").write_text("CREATE TABLE good (a INTEGER)")
    (folder / "0002_bad.sql").write_text("CREATE TABLE half (a INTEGER); CREATE TABLE good (a INTEGER)")
    monkeypatch.setattr("internal.store._MIGRATIONS", folder)
    store = Store.open(fresh_url)
    with pytest.raises(Exception, match=r"(?i)already exists"):
        store.migrate()
    assert store.schema_version() == 1
    with store.transaction() as tx:
        tx.execute("CREATE TABLE half (a INTEGER)")  # not there: it was undone
    store.close()


def test_quick_check_of_a_good_database(store: Store) -> None:
    assert store.quick_check() == []
    assert len(store.checkpoint()) == 2


@pytest.mark.parametrize("url", ["", "index.db", "mysql://host/db", "sqlite://host/x.db", "sqlite:", "http://u:pw@h/"])
def test_other_urls_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(ConfigurationInvalid) as refused:
        Store.open(url)
    assert "pw" not in str(refused.value)


def test_write_lock_of_another_process_is_transient(database_url: str, open_store: OpenStore) -> None:
    holder, waiting = open_store(), Store.open(database_url, wait_s=0.05)
    with holder.transaction() as tx:
        tx.execute(PUT, ("held", "1"))
        with pytest.raises(Transient), waiting.transaction() as second:
            second.execute("UPDATE meta SET value = '2' WHERE key = 'held'")
            second.execute(PUT, ("held", "2"))
    with waiting.transaction() as tx:
        assert tx.execute("UPDATE meta SET value = '3' WHERE key = 'held'") == 1
    waiting.close()


# --- PostgreSQL alone ----------------------------------------------------------------------------------------------

@pytest.mark.postgres
def test_connections_that_were_cut_are_replaced(postgres: Postgres) -> None:
    url = postgres.database()
    store = Store.open(url)
    assert keys(store) == []
    with pytest.raises(Transient), store.transaction() as tx:
        tx.execute(PUT, ("lost", "1"))
        postgres.kill_connections(url)
        tx.execute(PUT, ("lost too", "1"))
    with store.transaction() as tx:
        tx.execute(PUT, ("kept", "1"))
    postgres.kill_connections(url)
    assert keys(store) == ["kept"]  # an idle connection that died is replaced without anybody noticing
    before = store.changed()
    postgres.kill_connections(url)
    with pytest.raises(Transient):
        store.changed()
    assert isinstance(store.changed(), type(before))
    store.close()


@pytest.mark.postgres
def test_after_a_crash_of_the_server_what_was_committed_is_there(own_postgres: Postgres) -> None:
    store = Store.open(own_postgres.database())
    with store.transaction() as tx:
        tx.execute(PUT, ("committed", "1"))
    with pytest.raises(Transient), store.transaction() as tx:
        tx.execute(PUT, ("open", "1"))
        own_postgres.stop_hard()
    with pytest.raises(Transient), store.transaction():
        pass
    own_postgres.start()
    with store.transaction() as tx:
        assert tx.rows("SELECT key FROM meta") == [("committed",)]
    store.close()


@pytest.mark.postgres
def test_a_wrong_postgresql_url_shows_no_password(postgres: Postgres) -> None:
    for url in ("postgresql://u:sesame@127.0.0.1:1/x", "postgresql://u:sesame@127.0.0.1:notaport/x"):
        with pytest.raises((Transient, ConfigurationInvalid)) as refused:
            Store.open(url)
        cause = refused.value.__cause__
        assert "sesame" not in f"{refused.value} {cause}"


@pytest.mark.postgres
def test_commits_are_durable_even_where_the_server_says_otherwise(postgres: Postgres) -> None:
    url = postgres.fresh_database()
    store = Store.open(url)
    with store.transaction() as tx:
        tx.execute(f"ALTER DATABASE {tx.value('SELECT current_database()')} SET synchronous_commit = off")
    store.close()
    store = Store.open(url)
    with store.transaction() as tx:
        assert tx.value("SHOW synchronous_commit") == "on"
    store.close()

