"""/api/v1/settings: settings that are rows, who changed them, what a revision changed, and the way back.

Over settings_rows in internal/; the receiver is told after each change. Changes when settings in the database can be
looked at in another way.
"""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import Path as UrlPath
from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from interface.acting import Action
from interface.http.actor import CurrentActor
from interface.http.api.changing import Answer, CurrentChange
from interface.http.context import CurrentContext, WebContext
from interface.http.rights import Right
from interface.http.routes import Routes
from interface.lane_control import ground_of
from internal import admission, catalogue, settings_rows
from internal.errors import NotFound, StorageFailed, StorageFull

log = logging.getLogger("router.web")

routes = Routes("/api/v1/settings", tags=["settings"])

KindName = Annotated[str, UrlPath(max_length=32, pattern=r"^[a-z_]+$", description="lane, device, alias ...")]
SettingName = Annotated[str, UrlPath(max_length=200, description="Such as satusehat, or CT1@192.0.2.7.")]
Number = Annotated[int, UrlPath(ge=1, le=1_000_000_000)]


class RevisionShape(BaseModel):
    """One change; `body` is null where the setting was taken out, `restores` names the revision it brought back."""

    kind: str
    name: str
    revision: int
    author: str
    at: int = Field(description="UTC epoch milliseconds")
    body: dict[str, Any] | None
    restores: int | None


class DifferenceShape(BaseModel):
    """One value that a revision changed."""

    path: str
    before: Any
    after: Any


class ComparedShape(BaseModel):
    """A revision and what it changed."""

    revision: RevisionShape
    differences: list[DifferenceShape]


class Wanted(BaseModel):
    """The setting as it should be; null takes it out."""

    model_config = ConfigDict(extra="forbid")
    body: dict[str, Any] | None


class Back(BaseModel):
    """Which revision to bring back."""

    model_config = ConfigDict(extra="forbid")
    revision: int = Field(ge=1, le=1_000_000_000)


def shape_of(revision: catalogue.Revision) -> RevisionShape:
    """Return a revision as the API shows it."""
    return RevisionShape(
        kind=revision.kind, name=revision.name, revision=revision.revision, author=revision.author, at=revision.at,
        body=None if revision.body is None else dict(revision.body), restores=revision.restores)


@routes.get("/{kind}", right=Right.ADMINISTER)
def in_force(kind: KindName, context: CurrentContext) -> list[RevisionShape]:
    """Return every setting of this kind that is in force."""
    if kind not in settings_rows.KINDS:
        raise NotFound(f"kinds are {', '.join(sorted(settings_rows.KINDS))}")
    with context.reading() as tx:
        return [shape_of(one) for one in catalogue.in_force(tx, kind)]


@routes.get("/{kind}/{name:path}/revisions", right=Right.ADMINISTER)
def revisions(
    kind: KindName, name: SettingName, context: CurrentContext,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    before: Annotated[int | None, Query(ge=1, le=1_000_000_000, description="Only those below this number.")] = None,
) -> list[RevisionShape]:
    """Return the history of one setting, newest first."""
    name = settings_rows.name_of(kind, name)
    with context.reading() as tx:
        found = catalogue.history(tx, kind, name, limit=limit, before=before)
    if not found:
        raise NotFound("this was never changed here")
    return [shape_of(one) for one in found]


@routes.get("/{kind}/{name:path}/revisions/{number}", right=Right.ADMINISTER)
def revision(
    kind: KindName, name: SettingName, number: Number, context: CurrentContext,
    to: Annotated[int | None, Query(ge=1, le=1_000_000_000, description="Compare with this one, not the last.")] = None,
) -> ComparedShape:
    """Return one revision and what it changed."""
    name = settings_rows.name_of(kind, name)
    with context.reading() as tx:
        found = catalogue.revision(tx, kind, name, number)
        changed = settings_rows.compared(tx, kind, name, number, to)
    return ComparedShape(revision=shape_of(found), differences=[
        DifferenceShape(path=one.path, before=one.before, after=one.after) for one in changed])


@routes.put("/{kind}/{name:path}/current", right=Right.ADMINISTER)
def change_setting(
    kind: KindName, name: SettingName, wanted: Wanted, context: CurrentContext, actor: CurrentActor,
) -> RevisionShape:
    """Put a setting into force; what it says is checked first, and what stands in router.conf is not changed here."""
    name = settings_rows.name_of(kind, name)
    with context.acting(actor, "settings.change", subject=f"{kind}/{name}") as action:
        before = catalogue.newest(action.tx, kind, name)
        done = settings_rows.change(action.tx, kind, name, wanted.body, ground_of(context.settings), who=actor.author,
                                    now=action.now)
        action.fields |= {"before": before.body if before else None, "after": done.body, "revision": done.revision}
    tell_receiver(context)
    return shape_of(done)


@routes.post("/{kind}/{name:path}/rollback", right=Right.ADMINISTER)
def rollback(
    kind: KindName, name: SettingName, back: Back, change: CurrentChange,
) -> RevisionShape:
    """Bring back what an earlier revision said, as a new revision; the same again changes nothing."""
    name = settings_rows.name_of(kind, name)

    def make(action: Action) -> Answer:
        before = catalogue.newest(action.tx, kind, name)
        done = settings_rows.rollback(action.tx, kind, name, back.revision, ground_of(change.context.settings),
                                      who=change.actor.author, now=action.now)
        action.fields |= {"before": before.body if before else None, "after": done.body, "revision": done.revision}
        return shape_of(done).model_dump()

    shown = change.make("settings.rollback", make, asked=[kind, name, back], subject=f"{kind}/{name}",
                        restores=back.revision)
    tell_receiver(change.context)
    return RevisionShape(**shown)


def tell_receiver(context: WebContext) -> None:
    """Tell the receiver of this node at once; if that fails the deliver role does it within seconds."""
    try:
        admission.publish(context.store, context.spool)
    except (StorageFull, StorageFailed) as error:
        log.warning("The receiver is told later: %s", error)
