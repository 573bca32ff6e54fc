"""A web role on a real port of this machine, and people who come to it with a cookie jar or an API key."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests

from interface.http.auth.doorkeeper import cookie_name, csrf_token
from interface.http.context import WebContext
from interface.http.limits import Limits
from interface.http.web_role import Server, listen, server_config
from internal import audit_trail, passwords, sessions, users
from internal.config import Settings, load
from internal.spool import Spool
from internal.store import Store
from internal.users import Role

#: A password costs a third of a second; those of tests are made cheaper.
CHEAP = passwords.Cost(n=2**4, r=1, p=1)
_COOKIES = {cookie_name(secure) for secure in (False, True)}
PASSWORD = "correct horse battery"


class Doors:
    """One running web role with its own folder and database."""

    def __init__(self, folder: Path, database_url: str = "", settings: Mapping[str, str] | None = None,
                 limits: Limits | None = None, configuration: str = "") -> None:
        given = {"router.data_dir": str(folder), "http.requests_per_minute": "1000000", **(settings or {})}
        if database_url.startswith("postgres"):
            given["database.url"] = database_url
        folder.mkdir(parents=True, exist_ok=True)
        path = folder.with_suffix(".conf") if configuration else None
        if path is not None:
            path.write_text(configuration, encoding="utf-8")
            path.chmod(0o600)
        self.settings: Settings = load(path, {}, given, require_platform=False)
        self.store = Store.open(self.settings.database_url)
        self.store.migrate()
        self.spool = Spool.open(self.settings.spool_dir, fsync=False, create=True, min_free_bytes=0)
        self._visitors: list[Visitor] = []
        self.context = WebContext(self.settings, self.spool, "sandbox", "2.0.0", limits=limits)
        config = server_config(self.context)
        self._socket: socket.socket = listen("127.0.0.1", 0)
        self.port: int = self._socket.getsockname()[1]
        scheme = "https" if config.is_ssl else "http"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._server = Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self.part()
        self._server.stop()
        self._thread.join(10)
        self._socket.close()
        self.context.close()
        self.store.close()

    def part(self) -> None:
        """Let every visitor hang up: a server that ends waits for connections."""
        for visitor in self._visitors:
            visitor.session.close()
        self._visitors.clear()

    def empty(self) -> None:
        """Take out every row and file that a test has left."""
        self.part()
        with self.store.transaction() as tx:
            tx.execute("PRAGMA defer_foreign_keys = ON")
            for (name,) in tx.rows("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
                                   " AND name <> 'schema_migration'"):
                tx.execute(f"DELETE FROM {name}")
        for path in self.settings.data_dir.iterdir():
            if path.is_dir() and path != self.settings.spool_dir:
                shutil.rmtree(path)
            elif path.is_file() and not path.name.startswith("index.db"):
                path.unlink()

    def add_user(self, name: str, role: Role, *, must_change: bool = False, password: str = PASSWORD) -> None:
        """Add an account whose password is known."""
        with self.store.transaction() as tx:
            users.add_user(tx, name, role, passwords.hash_password(password, CHEAP), author="test",
                           now=now_ms(), must_change=must_change)

    def key(self, *rights: str, expires_at: int | None = None) -> str:
        """Return a new API key."""
        with self.store.transaction() as tx:
            return sessions.issue_key(tx, "test key", rights, author="test", now=now_ms(), expires_at=expires_at)[0]

    def visitor(self, key: str = "") -> Visitor:
        """Return somebody who is not logged in, or has an API key."""
        self._visitors.append(Visitor(self.url, key))
        return self._visitors[-1]

    def with_session(self, name: str) -> Visitor:
        """Return somebody who has a session, without the time that a password takes."""
        with self.store.transaction() as tx:
            token, _ = sessions.start_session(tx, name, "127.0.0.1", now_ms())
        visitor = self.visitor()
        visitor.session.cookies.set(cookie_name(self.url.startswith("https")), token, domain="127.0.0.1", path="/")
        return visitor

    def logged_in(self, name: str, password: str = PASSWORD) -> Visitor:
        """Return somebody who has logged in."""
        visitor = self.visitor()
        reply = visitor.login(name, password)
        assert reply.status_code == 303, (reply.status_code, reply.text)
        return visitor

    def audit(self, action: str = "") -> list[Any]:
        """Return the audit entries, newest first."""
        with self.store.reading() as tx:
            return audit_trail.entries(tx, action=action)


class Visitor:
    """A browser or a program: cookies are kept, redirects are not followed."""

    def __init__(self, url: str, key: str = "") -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False
        if key:
            self.session.headers["Authorization"] = f"Bearer {key}"

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Make one request."""
        return self.session.request(method, self.url + path, allow_redirects=False, timeout=20, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        """GET."""
        return self.request("GET", path, **options)

    def post(self, path: str, form: Mapping[str, str] | None = None, **options: Any) -> requests.Response:
        """POST a form with this session's token, as the pages do."""
        return self.request("POST", path, data={"csrf": self.csrf(), **(form or {})}, **options)

    def login(self, name: str, password: str, **form: str) -> requests.Response:
        """Send the login form."""
        return self.post("/login", {"name": name, "password": password, **form})

    @property
    def token(self) -> str:
        """The session cookie's value, "" for none."""
        return next((cookie.value or "" for cookie in self.session.cookies if cookie.name in _COOKIES), "")

    def csrf(self) -> str:
        """Return the token that forms of this session carry."""
        return csrf_token(self.token) if self.token else ""


def now_ms() -> int:
    """Return this machine's clock."""
    return time.time_ns() // 1_000_000
