"""Following the timeline without missing a line, on both engines."""

from __future__ import annotations

import random
import threading

import pytest

from internal import events, jobs
from internal.store import Store
from tests.contract.conftest import OpenStore, Postgres


def tell(store: Store, *texts: str) -> None:
    with store.transaction() as tx:
        for text in texts:
            jobs.add_event(tx, 1, "test", text)


def follow(store: Store, cursor: str, limit: int = 1000) -> tuple[list[str], str]:
    with store.reading() as tx:
        found, cursor = jobs.events_after(tx, cursor, limit)
    return [one.text for one in found], cursor


def test_a_feed_goes_on_where_it_ended(store: Store) -> None:
    assert follow(store, events.START) == ([], events.START)
    tell(store, "a", "b", "c")
    first, cursor = follow(store, events.START, limit=2)
    rest, cursor = follow(store, cursor)
    assert (first, rest) == (["a", "b"], ["c"])
    assert follow(store, cursor) == ([], cursor)
    tell(store, "d")
    assert follow(store, cursor)[0] == ["d"]


@pytest.mark.parametrize("cursor", ["", "x-1", "1", "1-", "1-2-3", "' OR 1=1"])
def test_a_cursor_that_is_none(store: Store, cursor: str) -> None:
    with pytest.raises(ValueError, match=r"int\(\)"):
        follow(store, cursor)


def test_writers_at_once_and_a_reader_that_follows(open_store: OpenStore) -> None:
    writers, reader = [open_store() for _ in range(3)], open_store()
    expected = {f"{number}/{turn}/{line}" for number in range(3) for turn in range(30) for line in range(1 + turn % 3)}

    def write(number: int) -> None:
        for turn in range(30):
            tell(writers[number], *[f"{number}/{turn}/{line}" for line in range(1 + turn % 3)])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    seen: list[str] = []
    cursor = events.START
    chance = random.Random(3)
    while any(thread.is_alive() for thread in threads):
        some, cursor = follow(reader, cursor, chance.randint(1, 7))
        seen += some
    some, cursor = follow(reader, cursor)
    seen += some
    assert len(seen) == len(set(seen))
    assert set(seen) == expected


@pytest.mark.postgres
def test_a_bare_id_would_lose_a_line_where_this_does_not(postgres: Postgres) -> None:
    url = postgres.database()
    slow, quick, reader = Store.open(url), Store.open(url), Store.open(url)

    def naive(last: int) -> list[tuple[int, str]]:
        with reader.reading() as tx:
            return [(row[0], row[1]) for row in tx.rows(
                "SELECT event_id, text FROM event WHERE event_id > ? ORDER BY event_id", (last,))]

    with slow.transaction() as tx:
        jobs.add_event(tx, 1, "test", "written first, committed last")
        tell(quick, "written second, committed first")
        by_id = naive(0)
        by_feed, cursor = follow(reader, events.START)
        assert [text for _, text in by_id] == ["written second, committed first"]
        assert by_feed == []
    assert naive(by_id[-1][0]) == []  # the slow one's line is lost for a reader that remembers the highest id
    by_feed, cursor = follow(reader, cursor)
    assert by_feed == ["written first, committed last", "written second, committed first"]
    assert follow(reader, cursor) == ([], cursor)
    for store in (slow, quick, reader):
        store.close()
