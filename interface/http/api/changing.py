"""How a request of the API changes something: once per Idempotency-Key, in one transaction with its audit entry.

    def retry(job_id: JobId, change: CurrentChange) -> Answer:
        return change.make("study.retry", lambda action: ..., asked=job_id, subject=str(job_id))

Imports the context and replays. Changes when a change needs something else in common.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header
from pydantic import BaseModel

from interface.acting import Action
from interface.http.actor import Actor, CurrentActor
from interface.http.api.shapes import ProbeShape
from interface.http.context import CurrentContext, WebContext
from interface.http.problems import Problem
from internal import replays
from internal.replays import Replay

Answer = dict[str, Any]
ON_ITS_WAY = "a request with this Idempotency-Key is on its way, or was when the router stopped: look what became of it"
IdempotencyKey = Annotated[str | None, Header(
    alias="Idempotency-Key", min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$",
    description="A name that the caller makes up for this very request. Repeated within a day with the same body, it"
                " gives the first answer and changes nothing; with another body it is refused (422).")]


@dataclass(frozen=True, slots=True)
class Change:
    """One request that may change something."""

    context: WebContext
    actor: Actor
    key: str | None

    def make(
        self, name: str, change: Callable[[Action], Answer], *, asked: Any = None, subject: str = "",
        study_uid: str = "", kept: Callable[[Answer], Answer] | None = None, **fields: object,
    ) -> Answer:
        """Run `change` and write the audit entry `name` in one transaction; return its answer, or the one from before.

        `asked` is what makes the request (body, path): JSON or a model. `kept`: what of the answer is kept, where some
        of it is shown only once. Raises Problem: "replayed" for the same key with another request, "conflict" while
        such a request is on its way.
        """
        before = self.find(name, asked)
        if before is not None:
            return before
        with self.context.acting(self.actor, name, subject=subject, study_uid=study_uid, **fields) as action:
            answer = change(action)
            if self.key is not None:
                replay = Replay(digest_of(name, asked), kept(answer) if kept else answer)
                if not replays.keep(action.tx, self.owner, self.key, replay, action.now):
                    raise Problem("conflict", ON_ITS_WAY)
        return answer

    def once(
        self, name: str, change: Callable[[], Answer], *, asked: Any = None,
        kept: Callable[[Answer], Answer] | None = None,
    ) -> Answer:
        """As `make`, for a change that has its transaction and its audit entry of its own.

        A process that dies in between leaves the key taken: the caller has to look what became of it.
        """
        before = self.find(name, asked)
        if before is not None:
            return before
        if self.key is None:
            return change()
        with self.context.store.transaction() as tx:
            if not replays.keep(tx, self.owner, self.key, Replay(digest_of(name, asked), None),
                                self.context.clock.now_ms()):
                raise Problem("conflict", ON_ITS_WAY)
        try:
            answer = change()
        except BaseException:
            with self.context.store.transaction() as tx:
                replays.forget(tx, self.owner, self.key)
            raise
        with self.context.store.transaction() as tx:
            replays.answer(tx, self.owner, self.key, kept(answer) if kept else answer)
        return answer

    def tested(self, name: str, subject: str, lines: Sequence[ProbeShape]) -> Answer:
        """Write the audit entry of a test; return its lines as an answer for `once`."""
        with self.context.acting(self.actor, name, subject=subject, ok=all(line.ok for line in lines)):
            return {"lines": [line.model_dump() for line in lines]}

    @property
    def owner(self) -> str:
        """Return whose keys are compared: those of others never meet."""
        return self.actor.author

    def find(self, name: str, asked: Any) -> Answer | None:
        """Return the answer to this very request from before, None if there is none. Raises Problem "replayed"."""
        if self.key is None:
            return None
        with self.context.reading() as tx:
            found = replays.find(tx, self.owner, self.key, self.context.clock.now_ms())
        if found is None:
            return None
        if found.request_sha256 != digest_of(name, asked):
            raise Problem("replayed")
        if found.answer is None:
            raise Problem("conflict", ON_ITS_WAY)
        return dict(found.answer)


def digest_of(name: str, asked: Any) -> str:
    """Return the digest of what a request asks for."""
    shown = asked.model_dump() if isinstance(asked, BaseModel) else [
        one.model_dump() if isinstance(one, BaseModel) else one for one in asked] if isinstance(asked, list) else asked
    return hashlib.sha256(json.dumps([name, shown], sort_keys=True, default=str).encode()).hexdigest()


def _current_change(context: CurrentContext, actor: CurrentActor, idempotency_key: IdempotencyKey = None) -> Change:
    return Change(context, actor, idempotency_key)


CurrentChange = Annotated[Change, Depends(_current_change)]
