"""Rules: what goes where and why; those that are not in router.conf are written, taken out and brought back here.

Changes when people may do something new with a rule. Trying rules is in rule_trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from interface.http.actor import CurrentActor
from interface.http.context import CurrentContext, WebContext
from interface.http.pages.render import page
from interface.http.rights import Right
from interface.http.routes import Routes
from interface.lane_control import ground_of
from interface.rule_book import build_book, entries_of, lines_of
from internal import catalogue, rule_rows, settings_rows
from internal.errors import NotAllowed, NotFound
from internal.rules import RulesInvalid, RuleText
from internal.store import Tx

_MOST_NOWHERE = 50
_MOST_REVISIONS = 50

routes = Routes(in_schema=False)

Lines = Annotated[str, Form(max_length=64 * 1024)]
Name = Annotated[str, Form(max_length=64)]
Position = Annotated[int, Form(ge=-1000, le=1000)]


@dataclass(frozen=True, slots=True)
class RuleView:
    """One rule for people: its lines, and whether it stands in router.conf."""

    name: str
    in_file: bool
    entries: dict[str, str]

    @property
    def enabled(self) -> bool:
        """Return whether it has a say."""
        return self.entries.get("enabled", "yes").lower() not in ("no", "tidak", "off", "false", "0")


@dataclass(frozen=True, slots=True)
class Past:
    """One revision of a rule; `lines` None where it was taken out."""

    revision: int
    at: int
    author: str
    restores: int | None
    lines: str | None


@routes.get("/rules", right=Right.OPERATE)
def list_rules(request: Request, context: CurrentContext) -> HTMLResponse:
    """Show every rule in its order, what is wrong with them, and the studies that go nowhere."""
    with context.reading() as tx:
        rows = rule_rows.catalogue_texts(tx)
        in_force = rule_rows.newest_revision(tx)
        nowhere = rule_rows.routed_nowhere(tx, _MOST_NOWHERE)
    problems, revision = _judged(context, rows)
    views = [_view(one, in_file=True) for one in context.settings.rules] + [_view(one, in_file=False) for one in rows]
    return page(request, "rules.html", rules=views, problems=problems, nowhere=nowhere,
                default=context.settings.router.default_send_to, in_force=not problems and revision == in_force)


def _view(text: RuleText, *, in_file: bool) -> RuleView:
    return RuleView(text.name, in_file, {key: value.strip() for key, value in text.entries.items()})


def _judged(context: WebContext, rows: list[RuleText]) -> tuple[list[str], str]:
    """Return every mistake in the rules as they are written, else the revision of their set."""
    try:
        return [], build_book(context.settings).compile(rows).revision
    except RulesInvalid as error:
        return list(map(str, error.problems)), ""


@routes.get("/rules/new", right=Right.ADMINISTER)
def new_rule(request: Request) -> HTMLResponse:
    """Ask for a rule."""
    return _form(request, "", "when = \ndo =\n    \nsend_to = ", 0, ())


@routes.post("/rules/new", right=Right.ADMINISTER)
def add_rule(
    request: Request, context: CurrentContext, actor: CurrentActor, name: Name = "", lines: Lines = "",
    position: Position = 0,
) -> Response:
    """Write a rule that is not there yet."""
    name = name.strip()
    with context.reading() as tx:
        known = name in catalogue.current(tx, rule_rows.KIND)
    if known:
        fault = f"rule {name} stands already: change it there"
        return _form(request, "", lines, position, (), fault=fault, given=name)
    return _write(request, context, actor, name, lines, position, is_new=True)


@routes.get("/rule/{name}", right=Right.ADMINISTER)
def rule(name: str, request: Request, context: CurrentContext) -> HTMLResponse:
    """Show one rule of the database to be changed, and its history."""
    with context.reading() as tx:
        past = _history(tx, name)
        body = catalogue.current(tx, rule_rows.KIND).get(name)
    shown = body or next((one.body for one in past if one.body is not None), None) or {"entries": {}, "position": 0}
    return _form(request, name, lines_of(shown["entries"]), int(shown.get("position", 0)), past)


def _history(tx: Tx, name: str) -> list[catalogue.Revision]:
    found = list(catalogue.history(tx, rule_rows.KIND, name, limit=_MOST_REVISIONS))
    if not found:
        raise NotFound("there is no such rule here; those of router.conf are changed there")
    return found


@routes.post("/rule/{name}", right=Right.ADMINISTER)
def change_rule(
    name: str, request: Request, context: CurrentContext, actor: CurrentActor, lines: Lines = "",
    position: Position = 0,
) -> Response:
    """Write a new revision of a rule; a set with a mistake is not written, and what was typed stays."""
    return _write(request, context, actor, name, lines, position)


def _write(
    request: Request, context: WebContext, actor: CurrentActor, name: str, lines: str, position: int, *,
    is_new: bool = False,
) -> Response:
    try:
        body = {"entries": entries_of(lines, f"rule {name[:32]}"), "position": position}
        _change(context, actor, name, body)
    except NotAllowed as fault:
        past: list[catalogue.Revision] = []
        if not is_new:
            with context.reading() as tx:
                past = _history(tx, name)
        return _form(request, "" if is_new else name, lines, position, past, fault=str(fault), given=name)
    return RedirectResponse("/rules?done=rule", status_code=303)


def _change(context: WebContext, actor: CurrentActor, name: str, body: dict[str, Any] | None) -> None:
    with context.acting(actor, "settings.change", subject=f"{rule_rows.KIND}/{name}") as action:
        before = catalogue.newest(action.tx, rule_rows.KIND, name)
        done = settings_rows.change(action.tx, rule_rows.KIND, name, body, ground_of(context.settings),
                                    who=actor.author, now=action.now)
        action.fields |= {"before": before.body if before else None, "after": done.body, "revision": done.revision}


@routes.post("/rule/{name}/remove", right=Right.ADMINISTER)
def remove_rule(name: str, context: CurrentContext, actor: CurrentActor) -> Response:
    """Take a rule out; its history stays."""
    with context.reading() as tx:
        _history(tx, name)
    _change(context, actor, name, None)
    return RedirectResponse("/rules?done=rule", status_code=303)


@routes.post("/rule/{name}/rollback", right=Right.ADMINISTER)
def roll_back(
    name: str, request: Request, context: CurrentContext, actor: CurrentActor,
    revision: Annotated[int, Form(ge=1, le=1_000_000_000)],
) -> Response:
    """Bring back what an earlier revision said, as a new one."""
    try:
        with context.acting(actor, "settings.rollback", subject=f"{rule_rows.KIND}/{name}",
                            restores=revision) as action:
            before = catalogue.newest(action.tx, rule_rows.KIND, name)
            done = settings_rows.rollback(action.tx, rule_rows.KIND, name, revision, ground_of(context.settings),
                                          who=actor.author, now=action.now)
            action.fields |= {"before": before.body if before else None, "after": done.body,
                              "revision": done.revision}
    except NotAllowed as fault:
        with context.reading() as tx:
            past = _history(tx, name)
            then = catalogue.revision(tx, rule_rows.KIND, name, revision).body or {"entries": {}}
        return _form(request, name, lines_of(then["entries"]), int(then.get("position", 0)), past, fault=str(fault))
    return RedirectResponse("/rules?done=rule", status_code=303)


def _form(
    request: Request, name: str, lines: str, position: int, past: Sequence[catalogue.Revision], *,
    fault: str = "", given: str = "",
) -> HTMLResponse:
    history = [Past(one.revision, one.at, one.author, one.restores,
                    None if one.body is None else lines_of(one.body["entries"])) for one in past]
    return page(request, "rule.html", status=409 if fault else 200, name=name, given=given, lines=lines,
                position=position, history=history, faults=fault.split("\n") if fault else [],
                removed=bool(past) and past[0].body is None)
