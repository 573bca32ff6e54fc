"""/api/v1/events: what happened, page by page, and a stream that says "look again" as soon as something did.

The stream names studies by UID and kinds of things, never patients; whoever reads it asks for the rest with their own
rights. One look at the database serves every listener. Changes when listeners have to be told of something else.
Source: HTML Living Standard, server-sent events.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

import anyio
from fastapi import Header, Query, Request
from fastapi.responses import StreamingResponse

from interface.http.actor import CurrentActor
from interface.http.api import shapes
from interface.http.api.jobs import event_shape
from interface.http.api.parameters import PAGE, Limit
from interface.http.context import CurrentContext, WebContext
from interface.http.problems import Problem
from interface.http.rights import Right
from interface.http.routes import Routes
from internal import events
from internal.errors import RouterError

log = logging.getLogger("router.web")

MAX_LISTENERS = 64
MAX_LISTENERS_EACH = 8
LIFE_S = 600.0
_LOOK_EVERY_S = 0.5
_BEAT_S = 15.0
_BATCH = 500
_MAX_STUDIES = 50
Cursor = Annotated[str, Query(pattern=r"^[0-9]{1,18}-[0-9]{1,18}$", description="`cursor` of the answer before.")]
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", max_length=100,
                                           description="Sent by browsers that connect again.")]

routes = Routes("/api/v1/events", tags=["events"])


@routes.get("", right=Right.VIEW)
def list_events(context: CurrentContext, cursor: Cursor = events.START, limit: Limit = PAGE) -> shapes.EventPage:
    """Return what happened after `cursor`, each event exactly once, however transactions interleave."""
    with context.reading() as tx:
        found, after = events.events_after(tx, cursor, limit)
    return shapes.EventPage(events=[event_shape(one) for one in found], cursor=after)


@routes.get("/stream", right=Right.VIEW, response_class=StreamingResponse, responses={200: {
    "description": "Events `changed` with {\"what\": [...], \"study_uids\": [...]}: look again at these. An empty"
                   " list of studies means any of them.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}}}})
async def stream(
    request: Request, context: CurrentContext, actor: CurrentActor, last_event_id: LastEventId = None,
) -> StreamingResponse:
    """Say "look again" whenever something has changed; at most ten minutes, browsers connect again by themselves."""
    feed: Feed | None = getattr(request.app.state, "feed", None)
    if feed is None:
        feed = request.app.state.feed = Feed(context)
    listener = feed.join(actor.session or actor.address)
    return StreamingResponse(feed.tell(listener, missed=last_event_id is not None), media_type="text/event-stream",
                             headers={"X-Accel-Buffering": "no"})


class Listener:
    """One open stream; what it has not been told yet is merged, never queued."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.rang = asyncio.Event()
        self.what: set[str] = set()
        self.study_uids: set[str] = set()
        self.any_study = False

    def tell(self, what: set[str], study_uids: set[str]) -> None:
        """Add to what is to be told."""
        self.what |= what
        self.study_uids |= study_uids
        self.any_study = self.any_study or not study_uids or len(self.study_uids) > _MAX_STUDIES
        self.rang.set()

    def take(self) -> dict[str, Any]:
        """Return what is to be told, and begin anew."""
        told = {"what": sorted(self.what), "study_uids": [] if self.any_study else sorted(self.study_uids)}
        self.what, self.study_uids, self.any_study = set(), set(), False
        self.rang.clear()
        return told


class Feed:
    """Looks at the database for all listeners of one application; sleeps while nobody listens."""

    def __init__(self, context: WebContext) -> None:
        self._context = context
        self._listeners: set[Listener] = set()
        self._looking: asyncio.Task[None] | None = None
        self._cursor = ""

    def join(self, owner: str) -> Listener:
        """Add a listener. Raises Problem when there are too many, of this owner or in all."""
        own = sum(listener.owner == owner for listener in self._listeners)
        if own >= MAX_LISTENERS_EACH or len(self._listeners) >= MAX_LISTENERS:
            raise Problem("too-often", "too many streams are open", headers={"Retry-After": "30"})
        listener = Listener(owner)
        self._listeners.add(listener)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return listener

    async def tell(self, listener: Listener, *, missed: bool) -> AsyncIterator[str]:
        """Yield the stream of one listener; one that comes back looks at everything again."""
        ends_at = asyncio.get_running_loop().time() + LIFE_S
        try:
            yield "retry: 3000\n\n"
            if missed:
                listener.tell({"all"}, set())
            while (left_s := ends_at - asyncio.get_running_loop().time()) > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(listener.rang.wait(), min(_BEAT_S, left_s))
                if listener.rang.is_set():
                    yield f"id: {self._cursor}\nevent: changed\ndata: {json.dumps(listener.take())}\n\n"
                else:
                    yield ": still here\n\n"
        finally:
            self._listeners.discard(listener)

    async def _look(self) -> None:
        token: int | str | None = None
        self._cursor = ""
        while self._listeners:
            try:
                changed = await anyio.to_thread.run_sync(self._context.store.changed)
                if changed != token:
                    await self._tell_all()
                    token = changed
            except RouterError as fault:
                log.debug("the feed cannot look now: %s", fault)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _tell_all(self) -> None:
        """Tell what the new events are about; a change without an event is one of a job's figures."""
        if not self._cursor:
            self._cursor = await anyio.to_thread.run_sync(self._newest)
            return
        found, self._cursor = await anyio.to_thread.run_sync(self._read, self._cursor)
        what = {topic_of(code) for code, _ in found} or {"jobs"}
        study_uids = {uid for _, uid in found if uid}
        for listener in self._listeners:
            listener.tell(what, study_uids)

    def _newest(self) -> str:
        with self._context.reading() as tx:
            return events.newest_cursor(tx)

    def _read(self, cursor: str) -> tuple[list[tuple[str, str]], str]:
        with self._context.reading() as tx:
            found, after = events.events_after(tx, cursor, _BATCH)
        return [(one.code, one.study_uid) for one in found], after


def topic_of(code: str) -> str:
    """Return what to look at again after an event of this code."""
    for prefix, topic in (("lane-", "lanes"), ("alert-", "alerts"), ("device-", "devices")):
        if code.startswith(prefix):
            return topic
    return "studies"
