"""`main.py rules`: check, test and change the rules, see their history, ask who is behind a pseudonym.

Works whether or not the router runs. What `test` prints holds patient data: it goes to the terminal of the person who
asked, never to a log. Changes when people may do something new with rules.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

from rich.console import Console

from interface.acting import changing
from interface.cli_cases import person
from interface.cli_database import iso, now_ms, opened
from interface.cli_table import DataTable
from interface.lane_control import ground_of
from interface.roles import open_spool
from interface.rule_book import build_book, entries_of, vault_of
from internal import catalogue, rule_rows, rule_tester, settings_rows
from internal.config import Settings
from internal.errors import NotFound, RouterError
from internal.model import Arrival
from internal.rule_tester import Tested, TestedStudy
from internal.rulebook import RuleBook
from internal.rules import RuleSet, RulesInvalid

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


def run_rules(options: argparse.Namespace, settings: Settings) -> int:
    """Run one of the verbs; 0 done, 1 something is wrong with rules or files."""
    verbs: dict[str, Callable[[argparse.Namespace, Settings], int]] = {
        "list": _list, "check": _check, "test": _test, "dry-run": _dry_run, "put": _put, "remove": _put,
        "history": _history, "rollback": _rollback, "nowhere": _nowhere, "reveal": _reveal,
    }
    return verbs[options.verb](options, settings)


def _compiled(book: RuleBook, settings: Settings) -> RuleSet:
    """Return the rules of router.conf and, once there is a database, of the catalogue. Raises RulesInvalid."""
    if not settings.database.url and not settings.database_path.is_file():
        return book.compile(())
    with opened(settings) as store, store.reading() as tx:
        return book.compile(rule_rows.catalogue_texts(tx))


def check_rules(settings: Settings) -> tuple[str, ...]:
    """Return every mistake in the rules, each with file and line; () if they can be used."""
    try:
        _compiled(build_book(settings), settings)
    except RulesInvalid as error:
        return tuple(map(str, error.problems))
    except RouterError as error:
        return (str(error),)
    return ()


def _check(_: argparse.Namespace, settings: Settings) -> int:
    problems = check_rules(settings)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print("the rules can be used")
    return 1 if problems else 0


def _list(options: argparse.Namespace, settings: Settings) -> int:
    rules = _compiled(build_book(settings), settings)
    rows = [{"name": rule.name, "origin": rule.text.origin, **rule.text.entries} for rule in rules.rules]
    if options.json:
        print(json.dumps({"revision": rules.revision, "rules": rows}, indent=1))
        return 0
    table = DataTable("rule", "from", "when", "do", "send_to", title=f"rule set {rules.revision or '(none)'}")
    for row in rows:
        table.add_data(row["name"], row["origin"], row.get("when", "always"), row.get("do", "").strip(),
                       row.get("send_to", "") or ("hold" if row.get("hold") else "keep" if row.get("keep") else ""))
    table.print()
    return 0


# --- trying ---------------------------------------------------------------------------------------------------------

def _test(options: argparse.Namespace, settings: Settings) -> int:
    """Show which rules fire for files and why not, what every destination would get, and where each study goes."""
    book = build_book(settings)
    rules = _compiled(book, settings)
    paths = [path for word in options.words for path in _files(Path(word))]
    if not paths:
        raise NotFound("name at least one file or folder")
    arrival = Arrival(now_ms(), calling_aet=options.calling, called_aet=options.called, peer_address=options.address)
    studies = rule_tester.test_files(book, rules, rule_tester.files_at(paths), arrival, everything=options.all)
    if options.json:
        print(json.dumps([dataclasses.asdict(study) for study in studies], indent=1))
    else:
        _print_studies(studies)
    files = [file for study in studies for file in study.files]
    return 1 if any(file.fault or any(copy.fault for copy in file.copies) for file in files) else 0


def _files(path: Path) -> list[Path]:
    return sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]


def _print_studies(studies: Sequence[TestedStudy]) -> None:
    console = Console()
    for study in studies:
        if study.study_uid:
            goes = ", ".join(f"{name} ({count})" for name, count in study.destinations) or "nowhere"
            why = "default_send_to" if study.by_default else f"rules {', '.join(study.fired)}"
            console.print(f"Study {study.study_uid}: {goes}  [{why}]", markup=False, highlight=False)
            for hold in study.holds:
                console.print(f"  held: {hold}", markup=False, highlight=False)
        for file in study.files:
            _print_file(console, file)


def _print_file(console: Console, file: Tested) -> None:
    console.print(f"\n{file.name}" + (f": {file.fault}" if file.fault else ""), markup=False, highlight=False)
    for rule in file.rules:
        console.print(f"  {'fires' if rule.fired else 'no   '}  {rule.rule}", markup=False, highlight=False)
        for test in rule.tests:
            mark = "true " if test.held else "false"
            saw = test.saw or "nothing"
            console.print(f"         {mark}  {test.text}   (is: {saw})", markup=False, highlight=False)
    for copy in file.copies:
        if copy.fault or not copy.changes:
            console.print(f"  to {copy.destination}: {(copy.fault and 'HELD, ' + copy.fault) or 'as received'}",
                          markup=False, highlight=False)
            continue
        table = DataTable("attribute", "before", "after", title=f"to {copy.destination} by {', '.join(copy.rules)}")
        for row in copy.changes:
            table.add_data(*row)
        console.print(table)


def _dry_run(options: argparse.Namespace, settings: Settings) -> int:
    """Say what the rules would do with the studies that are held here; nothing is sent or written."""
    since = _since(options.since)
    book = build_book(settings)
    with opened(settings) as store:
        book.in_force = _compiled(book, settings)
        found = list(rule_tester.dry_run(book, store, open_spool(settings, create=False), since))
    if options.json:
        print(json.dumps([dataclasses.asdict(one) for one in found], indent=1))
        return 0
    table = DataTable("study", "would go to", "by", "went to", "would be held", title=f"since {iso(since)}")
    for one in found:
        table.add_data(one.study_uid, ", ".join(f"{name} ({count})" for name, count in one.destinations) or "nowhere",
                       ", ".join(one.fired) or "default", ", ".join(one.sent_before) or "nowhere",
                       "; ".join(filter(None, (one.hold, *one.faults))), style="bold" if one.differs else "")
    table.print()
    print(f"{len(found)} studies, {sum(one.differs for one in found)} would go elsewhere,"
          f" {sum(bool(one.hold or one.faults) for one in found)} would be held")
    return 0


def _since(word: str) -> int:
    today = date.today()
    try:
        day = today - timedelta(days=1) if word == "yesterday" else today if word == "today" else date.fromisoformat(
            word)
    except ValueError:
        raise NotFound("--since takes YYYY-MM-DD, yesterday or today") from None
    return int(datetime(day.year, day.month, day.day).astimezone().timestamp() * 1000)


# --- changing -------------------------------------------------------------------------------------------------------

def read_rule(path: Path, name: str) -> dict[str, str]:
    """Return the entries of a rule from a file with its lines, as they would stand below [rule:NAME]."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError):
        raise NotFound(f"{path} cannot be read as UTF-8 text") from None
    return entries_of(text, path.name)


def _name(options: argparse.Namespace, count: int, what: str) -> str:
    if len(options.words) != count:
        raise NotFound(f"rules {options.verb} takes {what}")
    name = str(options.words[0])
    if not name or len(name) > 32 or not set(name) <= _NAME_CHARACTERS:
        raise NotFound("a rule's name is 1 to 32 of a-z, 0-9, - and _")
    return name


def _put(options: argparse.Namespace, settings: Settings) -> int:
    """Write a rule of the catalogue from a file, or take one out; a set with a mistake is not written."""
    removes = options.verb == "remove"
    name = _name(options, 1 if removes else 2, "NAME" if removes else "NAME FILE")
    body = None if removes else {"entries": read_rule(Path(options.words[1]), name), "position": options.position}
    with opened(settings) as store, changing(store, settings, "settings.change", subject=f"rule/{name}",
                                             by=options.by) as tx:
        done = settings_rows.change(tx, rule_rows.KIND, name, body, ground_of(settings), who=person(options),
                                    now=now_ms())
    return _told(done.revision)


def _rollback(options: argparse.Namespace, settings: Settings) -> int:
    name = _name(options, 2, "NAME REVISION")
    if not options.words[1].isdigit():
        raise NotFound("rules rollback takes NAME REVISION")
    number = int(options.words[1])
    with opened(settings) as store, changing(store, settings, "settings.rollback", subject=f"rule/{name}",
                                             by=options.by, restores=number) as tx:
        done = settings_rows.rollback(tx, rule_rows.KIND, name, number, ground_of(settings), who=person(options),
                                      now=now_ms())
    return _told(done.revision)


def _told(revision: int) -> int:
    print(f"revision {revision}; in force within seconds")
    return 0


def _history(options: argparse.Namespace, settings: Settings) -> int:
    name = _name(options, 1, "NAME")
    with opened(settings) as store, store.reading() as tx:
        changes = catalogue.history(tx, rule_rows.KIND, name)
    table = DataTable("revision", "at", "by", "rule")
    for change in changes:
        text = "taken out" if change.body is None else "\n".join(
            f"{key} = {value}" for key, value in change.body["entries"].items())
        again = f" (revision {change.restores} again)" if change.restores else ""
        table.add_data(f"{change.revision}{again}", iso(change.at), change.author, text)
    table.print()
    return 0


def _nowhere(options: argparse.Namespace, settings: Settings) -> int:
    """List the studies that no rule and no default sent anywhere."""
    with opened(settings) as store, store.reading() as tx:
        found = rule_rows.routed_nowhere(tx)
    if options.json:
        print(json.dumps([dataclasses.asdict(one) for one in found], indent=1))
        return 0
    table = DataTable("study", "since", "why")
    for one in found:
        table.add_data(one.study_uid, iso(one.at), f"kept by rule {one.kept_by}" if one.kept_by else "no rule sends it")
    table.print()
    return 0


def _reveal(options: argparse.Namespace, settings: Settings) -> int:
    """Print the Patient ID behind a pseudonym; who asks and why is kept in the audit trail first."""
    if len(options.words) != 1 or not (options.reason or "").strip():
        raise NotFound("rules reveal takes PSEUDONYM --reason TEXT")
    pseudonym = options.words[0].strip().upper()[:64]
    with opened(settings) as store:
        with changing(store, settings, "pseudonym.reveal", subject=pseudonym, by=options.by, reason=options.reason):
            pass  # written down before anything is shown
        with store.reading() as tx:
            print(vault_of(settings).reveal(tx, pseudonym))
    return 0
