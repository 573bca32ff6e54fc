"""What every handler works with: settings, the spool, the database, and the two doors to the audit trail.

    def handler(context: CurrentContext, actor: CurrentActor) -> ...:
        with context.reading() as tx:                          # one snapshot, for looking
            ...
        with context.acting(actor, "lane.pause", subject=name) as action:    # one transaction, for changing
            lanes.pause(action.tx, ...)
            action.fields["after"] = {...}                     # committed together with the audit entry
        context.note_view(actor, [study_uid], "timeline")      # before patient data leaves

Handlers are plain `def`: the framework runs them in threads, and no cursor crosses an await. Imports the store and the
audit trail. Changes when handlers need something else in common.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Annotated

from fastapi import Depends, Request

from interface import actions
from interface.acting import Action, Author, acting
from interface.http.actor import Actor
from interface.http.limits import Limits
from interface.http.tasks import Tasks
from interface.roles import SystemClock
from internal import audit_trail
from internal.config import Settings
from internal.errors import Transient
from internal.pictures import Pictures
from internal.ports import Clock
from internal.spool import Spool
from internal.store import Store, Tx

#: Longest wait for a free connection or a lock, and longest time that one reading may take, in seconds.
WAIT_S = 5.0
READ_LIMIT_S = 10.0
#: An entry holds this many study UIDs.
_STUDIES_EACH = 200
_OPEN_AGAIN_S = 1.0


class WebContext:
    """What handlers share; one for each application."""

    def __init__(
        self, settings: Settings, spool: Spool, environment: str, version: str, clock: Clock | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.settings = settings
        self.spool = spool
        self.environment = environment
        self.version = version
        self.clock: Clock = clock or SystemClock()
        self.limits = limits or Limits()
        self.audit_head = audit_trail.HeadFile(settings.data_dir)
        self.tasks = Tasks()
        self.pictures = Pictures(spool, settings.data_dir / "pictures", settings.http.picture_cache)
        self._opening = threading.Lock()
        self._opened: Store | None = None
        self._not_before_s = 0.0

    @cached_property
    def environments(self) -> dict[str, str]:
        """Return the present environment of every destination; made once, since it opens trust stores."""
        return actions.environments(self.settings)

    @property
    def store(self) -> Store:
        """The database, opened at first use. Raises Transient until the deliver role has brought it up to date."""
        opened = self._opened
        if opened is not None:
            return opened
        with self._opening:
            if self._opened is None:
                if time.monotonic() < self._not_before_s:
                    raise Transient("the database could not be reached a moment ago", code="database-unreachable")
                self._not_before_s = time.monotonic() + _OPEN_AGAIN_S  # nobody waits in line for a dead database
                self._opened = self._open()
            return self._opened

    @contextmanager
    def reading(self) -> Iterator[Tx]:
        """Read one consistent snapshot; at most four at once. Raises Transient (503), also for what takes too long."""
        with self.store.reading() as tx:
            yield tx

    @contextmanager
    def acting(
        self, actor: Actor, name: str, *, subject: str = "", study_uid: str = "", **fields: object,
    ) -> Iterator[Action]:
        """Change something in one transaction that also writes the audit entry `name`; an exception undoes both.

        `name` is such as ``lane.pause``; `fields` (and `action.fields` inside) are JSON: before, after, reason.
        """
        by = Author(actor.author, actor.address, actor.session)
        with acting(self.store, self.audit_head, by, name, now=self.clock.now_ms(), subject=subject,
                    study_uid=study_uid, fields=fields) as action:
            yield action

    def note_view(self, actor: Actor, study_uids: Sequence[str], what: str) -> None:
        """Write down whose data is about to be shown; durable on return, or the data is not to be shown.

        One study makes a ``patient.view`` entry, several make ``patient.list`` entries of at most 200 each. The same
        again in the same session within ten minutes is not written twice.
        """
        if not study_uids:
            return
        now = self.clock.now_ms()
        single = len(study_uids) == 1
        action = "patient.view" if single else "patient.list"
        subject = what if single else f"{what} {hashlib.sha256(' '.join(study_uids).encode()).hexdigest()[:16]}"
        study_uid = study_uids[0] if single else ""
        with self.reading() as tx:
            if audit_trail.viewed_lately(tx, actor.session, action, subject, study_uid, now):
                return
        self._note(actor, action, subject, study_uids)

    def note_download(self, actor: Actor, study_uids: Sequence[str], what: str) -> None:
        """Write down whose data is about to leave as a file (``patient.download``), each time; durable on return."""
        if study_uids:
            self._note(actor, "patient.download", what, study_uids)

    def _note(self, actor: Actor, action: str, subject: str, study_uids: Sequence[str]) -> None:
        """Write the entry, or all those that it takes to name every study, in one transaction."""
        if len(study_uids) == 1:
            with self.acting(actor, action, subject=subject, study_uid=study_uids[0]):
                return
        *others, last = [{"studies": list(study_uids[at:at + _STUDIES_EACH]), "count": len(study_uids)}
                         for at in range(0, len(study_uids), _STUDIES_EACH)]
        with self.acting(actor, action, subject=subject) as made:
            made.fields |= last
            for fields in others:
                audit_trail.append(made.tx, action, author=actor.author, address=actor.address, session=actor.session,
                                   now=made.now, subject=subject, fields=fields)

    def close(self) -> None:
        """End what runs in the background and close the database."""
        self.tasks.close()
        self.pictures.close()
        with self._opening:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def _open(self) -> Store:
        url = self.settings.database_url
        probe = Store.open(url, read_only=True, wait_s=WAIT_S)
        try:
            if not probe.is_up_to_date():
                raise Transient("the database is being brought up to date", code="database-old")
        finally:
            probe.close()
        return Store.open(url, wait_s=WAIT_S, read_limit_s=READ_LIMIT_S)


def current_context(request: Request) -> WebContext:
    """Return the context of this application."""
    context: WebContext = request.app.state.context
    return context


CurrentContext = Annotated[WebContext, Depends(current_context)]
