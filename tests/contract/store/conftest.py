"""One suite over both engines: each test gets a migrated, empty database of its own, on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from internal.store import Store

OpenStore = Callable[..., Store]


class Postgres:
    """A real server with databases made on demand, each a copy of one that was migrated once."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pgserver's own import warns about XDG_RUNTIME_DIR
            import pgserver
            from pgserver._commands import pg_ctl
        self._pg_ctl = pg_ctl
        self.server: Any = pgserver.get_server(folder)
        self._count = 0
        self._sql("CREATE DATABASE template_router")
        template = Store.open(self._url("template_router"))
        template.migrate()
        template.close()

    def _url(self, database: str) -> str:
        return str(self.server.get_uri(database=database))

    def _sql(self, sql: str) -> None:
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(sql.encode())

    def database(self, *, migrated: bool = True) -> str:
        """Return the URL of a new database."""
        self._count += 1
        name = f"router_{self._count}"
        self._sql(f"CREATE DATABASE {name}" + (" TEMPLATE template_router" if migrated else ""))
        return self._url(name)

    def forget_durability(self) -> None:
        """Let the server skip fsync: it is thrown away with the tests that share it."""
        self._sql("ALTER SYSTEM SET fsync = off")
        self._sql("SELECT pg_reload_conf()")

    def kill_connections(self, url: str) -> None:
        """End every connection to the database of `url`, as a restart or an administrator does."""
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))

    def stop_hard(self) -> None:
        """Stop the server as a crash does."""
        self._pg_ctl(["-m", "immediate", "-w", "stop"], pgdata=self.server.pgdata, user=self.server.system_user)

    def start(self) -> None:
        """Start it again, on the same address."""
        self.server.ensure_postgres_running()

    def close(self) -> None:
        """Stop the server, without the checkpoint of an orderly end: nobody needs its data again."""
        self.stop_hard()
        self.server.cleanup()


def started(folder: Path) -> Postgres:
    """Return a running server, or skip; with CI=true its absence is a failure."""
    try:
        return Postgres(folder)
    except (ImportError, OSError, AssertionError, RuntimeError, psycopg.Error) as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"PostgreSQL (pip pgserver) cannot start here: {error}")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    server = started(tmp_path_factory.mktemp("postgres"))
    server.forget_durability()
    yield server
    server.close()


@pytest.fixture
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server for one test that stops it."""
    server = started(tmp_path_factory.mktemp("postgres"))
    yield server
    server.close()


_ENGINES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


@pytest.fixture(params=_ENGINES)
def fresh_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that nobody has migrated."""
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        return server.database(migrated=False)
    return f"sqlite://{quote(str(tmp_path / 'fresh.db'))}"


@pytest.fixture(params=_ENGINES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a migrated, empty database."""
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        return server.database()
    url = f"sqlite://{quote(str(tmp_path / 'index.db'))}"
    store = Store.open(url)
    store.migrate()
    store.close()
    return url


@pytest.fixture
def open_store(database_url: str) -> Iterator[OpenStore]:
    """Open one more store, as another process would, on the test's database."""
    stores: list[Store] = []

    def opened(**options: bool) -> Store:
        stores.append(Store.open(database_url, **options))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store()
