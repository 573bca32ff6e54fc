"""Trying rules on the pages: with files somebody drops, with a stored study, with the studies of the last days.

Nothing is sent and nothing is kept: what was dropped is gone when the answer is out. Over rule_tester in internal/.
Changes when people want to try rules in another way.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import PurePath
from typing import Annotated, Any, BinaryIO
from zoneinfo import ZoneInfo

from fastapi import File, Form, Request, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from interface.http.actor import CurrentActor
from interface.http.context import CurrentContext, WebContext
from interface.http.pages.pen import Pen
from interface.http.pages.render import page, part, pen_of
from interface.http.pages.wording import mark
from interface.http.problems import Problem
from interface.http.rights import Right
from interface.http.routes import Routes
from interface.http.tasks import Line, Task
from interface.rule_book import build_book
from internal import index, rule_rows, rule_tester
from internal.errors import BytesMissing, ConfigurationInvalid, NotFound, Refused
from internal.model import Arrival
from internal.rule_tester import DryRun, Given, TestedStudy
from internal.rulebook import RuleBook
from internal.rules import RuleSet

MAX_UPLOAD_BYTES = 64 * 1024 * 1024
MAX_UPLOADS = 20
_MAX_LINES = 200
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")

routes = Routes(in_schema=False)

Word = Annotated[str, Form(max_length=64)]


@routes.get("/rules/test", right=Right.OPERATE)
def ask(request: Request, context: CurrentContext, study: str = "") -> HTMLResponse:
    """Ask for files or a study; a link from a study's page names it by its UID."""
    yesterday = _today(context) - timedelta(days=1)
    return page(request, "rule_trial.html", study_uid=study[:64], since=f"{yesterday:%Y-%m-%d}",
                megabytes=MAX_UPLOAD_BYTES // 1024 // 1024)


@routes.post("/rules/test", right=Right.OPERATE, max_body_bytes=MAX_UPLOAD_BYTES)
def try_files(
    request: Request, context: CurrentContext, files: Annotated[list[UploadFile], File(max_length=MAX_UPLOADS)],
    calling: Word = "", called: Word = "", address: Word = "", everything: Word = "",
) -> HTMLResponse:
    """Show what the rules would do with files, as if they had come just now as the form says."""
    arrival = Arrival(context.clock.now_ms(), calling_aet=calling.strip(), called_aet=called.strip(),
                      peer_address=address.strip())
    given = [Given(PurePath(one.filename or "").name[:80] or f"{number}", _opener(one.file))
             for number, one in enumerate(files, start=1) if one.size]
    if not given:
        return _shown(request, [], pen_of(request)._("Choose at least one file."))
    try:
        book, rules = _compiled(context)
    except ConfigurationInvalid as fault:
        return _shown(request, [], str(fault))
    return _shown(request, rule_tester.test_files(book, rules, given, arrival, everything=bool(everything)))


def _opener(file: BinaryIO) -> Any:
    """Return what opens an upload; the framework closes it."""
    def open_again() -> BinaryIO:
        file.seek(0)
        return file

    return open_again


@routes.post("/rules/test/study", right=Right.OPERATE)
def try_study(
    request: Request, context: CurrentContext, actor: CurrentActor, study: Word = "", everything: Word = "",
) -> HTMLResponse:
    """Show what the rules would do with a study that is held here."""
    try:
        with context.reading() as tx:
            inventory = index.inventory(tx, study.strip())
        context.note_view(actor, [inventory.study_uid], "rules")
        book, rules = _compiled(context)
        found = rule_tester.test_study(book, rules, context.spool, inventory, everything=bool(everything))
    except NotFound:
        return _shown(request, [], pen_of(request)._("No such study has been received."))
    except BytesMissing:
        return _shown(request, [], pen_of(request)._("The images of this study are no longer kept here."))
    except (Refused, ConfigurationInvalid) as fault:
        return _shown(request, [], str(fault))
    return _shown(request, [found])


def _compiled(context: WebContext) -> tuple[RuleBook, RuleSet]:
    """Return the rules as they are written now. Raises ConfigurationInvalid with every mistake."""
    book = build_book(context.settings)
    with context.reading() as tx:
        rows = rule_rows.catalogue_texts(tx)
    return book, book.compile(rows)


def _shown(request: Request, studies: Sequence[TestedStudy], says: str = "") -> HTMLResponse:
    return part(request, "rule_tried.html", studies=studies, says=says)


# --- the studies of the last days -----------------------------------------------------------------------------------

@routes.post("/rules/dry-run", right=Right.OPERATE)
def dry_run(request: Request, context: CurrentContext, actor: CurrentActor, since: Word = "") -> Response:
    """Ask the rules of every study that is held here since a day; what would go elsewhere or be held is listed."""
    book, rules = _compiled(context)
    book.in_force = rules
    start = _start_of(context, since)
    pen = pen_of(request)

    def work(task: Task) -> None:
        with context.reading() as tx:
            task.total = len(index.studies_since(tx, start, rule_tester.MAX_DRY))
        elsewhere = held = 0
        for one in rule_tester.dry_run(book, context.store, context.spool, start):
            task.done += 1
            is_held = bool(one.hold or one.faults)
            held += is_held
            elsewhere += one.differs
            if (is_held or one.differs) and len(task.lines) < _MAX_LINES:
                task.lines.append(_line(one, pen, held=is_held))
            if task.stopping:
                return
        task.lines[:0] = [
            Line("", True, pen.n("%(num)s study would go elsewhere than it went.",
                                 "%(num)s studies would go elsewhere than they went.", elsewhere)),
            Line("", not held, pen.n("%(num)s study would be held.", "%(num)s studies would be held.", held))]

    task = context.tasks.start(Task(mark("Dry run"), actor.author, "/rules/test", subject=since), work)
    return RedirectResponse(f"/progress/{task.task_id}", status_code=303)


def _line(one: DryRun, pen: Pen, *, held: bool) -> Line:
    goes = ", ".join(f"{name} ({count})" for name, count in one.destinations) or pen._("nowhere")
    went = ", ".join(one.sent_before) or pen._("nowhere")
    text = pen._("would go to %(goes)s; went to %(went)s") % {"goes": goes, "went": went}
    why = "; ".join(filter(None, (one.hold, *one.faults)))
    return Line(one.study_uid, not held, text, pen._("Would be held: %(why)s") % {"why": why} if held else "")


def _today(context: WebContext) -> datetime:
    zone = ZoneInfo(context.settings.satusehat.tz_name)
    return datetime.fromtimestamp(context.clock.now_ms() / 1000, zone)


def _start_of(context: WebContext, since: str) -> int:
    """Return the first moment of a day in epoch ms. Raises Problem for what is no day."""
    try:
        if not _DAY.fullmatch(since):
            raise ValueError
        day = datetime.fromisoformat(since).replace(tzinfo=ZoneInfo(context.settings.satusehat.tz_name))
    except ValueError:
        raise Problem("invalid", "since: expected a day such as 2026-11-28") from None
    return int(day.timestamp() * 1000)
