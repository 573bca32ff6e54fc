"""The command line: one parser for every command, and the composition of `run`.

Each command's work lives in its own module and is imported only when asked for. Changes when a command is added.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from interface.cli_rules_options import add_rules
from internal import __version__
from internal.config import Settings, load, render_config, render_template
from internal.errors import ConfigurationInvalid, RouterError

log = logging.getLogger("router")

EXIT_OK, EXIT_FAILED, EXIT_CANNOT_START = 0, 1, 2
_TAKES_VALUE = frozenset({"--config", "--set", "--role", "--slot", "--by", "--reason", "--confirm", "--since",
                          "--calling", "--called", "--address", "--position"})
#: Command -> module and function; what a command does not need costs half of its time to load.
_COMMANDS = {
    "queue": ("cli_queue", "queue"), "show": ("cli_queue", "show"), "retry": ("cli_queue", "retry"),
    "cancel": ("cli_queue", "cancel"), "send-now": ("cli_queue", "send_now"), "reindex": ("cli_queue", "reindex"),
    "accept-partial": ("cli_queue", "accept_partial"), "bad": ("cli_queue", "bad"),
    "same-patient": ("cli_cases", "same_patient"), "discard": ("cli_cases", "discard"),
    "storage": ("cli_cases", "storage"), "accession": ("cli_cases", "accession"), "alias": ("cli_cases", "alias"),
    "order": ("cli_cases", "order"), "withdraw": ("cli_withdraw", "withdraw"), "lane": ("cli_lanes", "lane"),
    "settings": ("cli_settings", "settings_command"), "verify": ("cli_verify", "verify"), "user": ("cli_user", "user"),
    "audit": ("cli_audit", "audit"), "watch": ("cli_watch", "watch"), "devices": ("cli_devices", "run_devices"),
    "alerts": ("cli_alerts", "run_alerts"), "tls-init": ("cli_tls", "tls_init"), "rules": ("cli_rules", "run_rules"),
    "run": ("cli_run", "run"),
}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; its help text is what README and docs are checked against."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", metavar="FILE", help="configuration file (default: router.conf beside main.py)")
    common.add_argument(
        "--set", metavar="SECTION.KEY=VALUE", action="append", default=[], dest="overrides",
        help="override one setting; wins over environment and file",
    )
    common.add_argument("-v", "--verbose", action="count", default=0, help="more detail; -vv adds protocol detail")
    parser = argparse.ArgumentParser(
        prog="main.py", description="SATUSEHAT DICOM Router: receives images, keeps them safely, delivers them.",
        epilog="Without a command: run.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, parents=[common])

    run = add("run", "receive, index and deliver until stopped (the default)")
    run.add_argument("--role", choices=("receive", "deliver", "web"), help="run one role alone in this process")
    run.add_argument("--slot", type=int, help=argparse.SUPPRESS)
    run.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
    run.add_argument("--control-fd", type=int, help=argparse.SUPPRESS)
    add("check", "try everything a delivery needs; one line each, ok or what to do")
    add("config", "print every setting, its value and where it came from; secrets are masked")
    add("template", "print router.conf.template")
    add("sandbox", "run a local SATUSEHAT for training and tests (its own options: sandbox --help)")
    send = add("send", "send files, folders or zip files to a DICOM node by C-STORE")
    send.add_argument("host", metavar="HOST")
    send.add_argument("port", metavar="PORT", type=int)
    send.add_argument("paths", metavar="PATH", nargs="+", type=Path)
    send.add_argument("--calling", metavar="AET", default="DCMSENDER", help="own AE title (default DCMSENDER)")
    send.add_argument("--called", metavar="AET", default="DCMROUTER", help="the other side's AE title (DCMROUTER)")
    _add_queue_commands(add)
    _add_case_commands(add)
    add_rules(add)
    return parser


def _add_queue_commands(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    queue = add("queue", "list what is on its way: state, reason, next try")
    queue.add_argument("--state", help="only jobs in this state, such as waiting or held")
    queue.add_argument("--reason", metavar="CODE", help="only jobs with this reason, such as no-order or not-proven")
    queue.add_argument("--json", action="store_true", help="a JSON list of objects")
    show = add("show", "tell the story of one study in plain words")
    show.add_argument("study", metavar="STUDY_UID|ACCESSION")
    show.add_argument("--json", action="store_true", help="the same as JSON")
    for name, text in (
        ("retry", "try these jobs again now"),
        ("cancel", "stop these jobs; the images are kept"),
        ("send-now", "do not wait until these studies are quiet: send what is there"),
    ):
        verb = add(name, text)
        verb.add_argument("targets", metavar="STUDY_UID|ACCESSION|JOB_ID", nargs="*")
        verb.add_argument("--state", help="all jobs in this state")
        if name == "send-now":
            verb.add_argument("--urgent", action="store_true", help="before everything else, also outside send_hours")
    verify = add("verify", "ask SATUSEHAT whether it has what was delivered; what is missing is sent again")
    verify.add_argument("study", metavar="STUDY_UID|ACCESSION", nargs="?")
    verify.add_argument("--since", metavar="YYYY-MM-DD", help="every study delivered since this day")
    verify.add_argument("--json", action="store_true", help="the findings as JSON")
    lane = add("lane", "show the lanes of all destinations; pause, resume or set one")
    lane.add_argument("name", metavar="NAME", nargs="?")
    lane.add_argument("verb", metavar="pause|resume|set", nargs="?", choices=("pause", "resume", "set"))
    lane.add_argument("--reason", help="shown in queue while the lane is paused")
    lane.add_argument("--bandwidth", metavar="SIZE", help="with set: bytes per second, 0 for no limit, or file")
    lane.add_argument("--send-hours", metavar="HH:MM-HH:MM", help="with set: when it may send, '' for always, or file")
    lane.add_argument("--json", action="store_true", help="the list as JSON")
    accept = add("accept-partial", "let studies go without the images that were refused or could not be read")
    accept.add_argument("targets", metavar="STUDY_UID|ACCESSION", nargs="+")
    bad = add("bad", "list the files that were set aside because they could not be read")
    bad.add_argument("--json", action="store_true", help="a JSON list of objects")
    devices = add("devices", "list who has called; admit, hold, refuse or forget callers")
    devices.add_argument("verb", choices=("admit", "hold", "refuse", "forget"), nargs="?")
    devices.add_argument("callers", metavar="AET[@ADDRESS]", nargs="*")
    devices.add_argument("--json", action="store_true", help="the list as JSON")
    watch = add("watch", "show what was taken from watched folders, and which files were refused")
    watch.add_argument("--json", action="store_true", help="the list as JSON")
    kept = add("settings", "settings changed while the router ran: who changed what, and the way back")
    kept.add_argument("verb", choices=("list", "history", "diff", "rollback"))
    kept.add_argument("kind", metavar="KIND", nargs="?", help="such as lane, device or alias")
    kept.add_argument("name", metavar="NAME", nargs="?")
    kept.add_argument("--revision", type=int, metavar="N", help="with diff and rollback: which one")
    kept.add_argument("--json", action="store_true", help="as JSON")
    alerts = add("alerts", "list what is wrong; say that you know of it, or try how people are told")
    alerts.add_argument("verb", choices=("ack", "test"), nargs="?")
    alerts.add_argument("target", metavar="ID|NAME", nargs="?", help="the alert for ack, the rule for test")
    alerts.add_argument("--all", action="store_true", help="past ones too")
    alerts.add_argument("--json", action="store_true", help="the list as JSON")
    tls = add("tls-init", "make a key and a certificate for [dicom] tls_port")
    tls.add_argument("names", metavar="NAME|ADDRESS", nargs="*", help="host names and addresses devices use")
    add("reindex", "rebuild missing index rows from the stored files")


def _add_case_commands(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Decisions of a person about one study: each names it, gives a reason and says who decides."""

    def decision(name: str, text: str) -> argparse.ArgumentParser:
        command = add(name, text)
        command.add_argument("study", metavar="STUDY_UID|ACCESSION")
        command.add_argument("--by", metavar="NAME", help="who decides (default: this account)")
        return command

    confirm = decision("same-patient", "both sides of a held study are the same patient: go on")
    confirm.add_argument("--reason", required=True, help="kept with the study")
    discard = decision("discard", "give up a held or cancelled study: its images are removed after 30 days")
    discard.add_argument("--reason", help="kept with the study; needed unless --undo")
    discard.add_argument("--undo", action="store_true", help="bring it back while its images are still there")
    accession = decision("accession", "send a study under another accession number; without NEW: proposals")
    accession.add_argument("new", metavar="NEW", nargs="?", help="the number of the order")
    accession.add_argument("--reason", help="kept with the study; needed with NEW")
    order = add("order", "say that the order of an accession number is there now: what waits for it looks at once")
    order.add_argument("verb", choices=("came",))
    order.add_argument("accession", metavar="ACCESSION")
    order.add_argument("--urgent", action="store_true", help="before everything else, also outside send_hours")
    order.add_argument("--by", metavar="NAME", help="who says so (default: this account)")
    alias = add("alias", "the table of accession numbers: what a modality sends, what it means")
    alias.add_argument("action", choices=("list", "add", "remove"))
    alias.add_argument("sent", metavar="SENT", nargs="?", help="as the modality sends it")
    alias.add_argument("meant", metavar="MEANT", nargs="?", help="as the order has it")
    alias.add_argument("--by", metavar="NAME", help="who changes it (default: this account)")
    withdraw = decision("withdraw", "take a delivered study back; a second person confirms")
    withdraw.add_argument("--reason", help="ask for it; prints a code for the second person")
    withdraw.add_argument("--confirm", metavar="CODE", help="confirm it as the second person (--by)")
    withdraw.add_argument("--letter", action="store_true", help="print the letter that asks to remove the images")
    user = add("user", "list who may log in; add, disable, enable somebody, or give a new password")
    user.add_argument("verb", choices=("list", "add", "disable", "enable", "reset-password"))
    user.add_argument("name", metavar="NAME", nargs="?")
    user.add_argument("--role", choices=("viewer", "operator", "admin"), default="viewer", help="for add")
    user.add_argument("--json", action="store_true", help="the list as JSON")
    audit = add("audit", "verify the audit trail, or write it out, oldest first")
    audit.add_argument("verb", choices=("verify", "export"))
    audit.add_argument("--form", choices=("json", "dicom"), default="json",
                       help="export: a JSON object per line, or a DICOM audit message (PS3.15 A.5) per line")
    audit.add_argument("--after", metavar="SEQ", type=int, default=0, help="export: only entries behind this one")
    add("storage", "say what the images on disk are kept for, in bytes")


def main(argv: Sequence[str]) -> int:
    """Run one command; return its exit status (0 done, 1 failed, 2 cannot start as configured)."""
    arguments = _command_first(list(argv))
    if arguments[0] == "sandbox":
        from sandbox.app import main as run_sandbox

        return run_sandbox(arguments[1:])
    options = _parsed(arguments)
    try:
        return _dispatch(options)
    except ConfigurationInvalid as error:
        for line in (str(error), *map(str, getattr(error, "warnings", ()))):
            print(line, file=sys.stderr)
        return EXIT_CANNOT_START
    except RouterError as error:
        print(f"{options.command}: {error}", file=sys.stderr)
        return EXIT_CANNOT_START if options.command == "run" else EXIT_FAILED
    except BrokenPipeError:
        # `queue | head` closed the pipe; keep the interpreter from complaining while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; `rules test --called X FILE` too, where argparse leaves words behind an option over."""
    parser = build_parser()
    options, left = parser.parse_known_args(arguments)
    if left and (options.command != "rules" or any(word.startswith("-") for word in left)):
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    if left:
        options.words += left
    return options


def _command_first(argv: list[str]) -> list[str]:
    """Let common options stand before the command, and `run` be left out."""
    known = {*_COMMANDS, "check", "config", "template", "sandbox", "send"}
    if argv and argv[0] in ("-h", "--help", "--version"):
        return argv
    for position, word in enumerate(argv):
        if position and argv[position - 1] in _TAKES_VALUE:
            continue
        if word in known:
            return [word, *argv[:position], *argv[position + 1:]]
        if not word.startswith("-"):
            break
    return ["run", *argv] if not argv or argv[0].startswith("-") else argv


def _dispatch(options: argparse.Namespace) -> int:
    if options.command == "template":
        print(render_template(), end="")
        return EXIT_OK
    if options.command == "send":
        from interface.cli_send import send

        return send(options)
    settings = load_settings(options)
    if options.command == "config":
        print(render_config(settings))
        return EXIT_OK
    if options.command == "check":
        from interface.cli_check import check

        return check(settings)
    module, name = _COMMANDS[options.command]
    command: Callable[[argparse.Namespace, Settings], int] = getattr(import_module(f"interface.{module}"), name)
    return command(options, settings)


def load_settings(options: argparse.Namespace) -> Settings:
    """Return the settings this command runs with; every mistake is reported at once (ConfigurationInvalid)."""
    overrides: dict[str, str] = {}
    for text in options.overrides:
        name, separator, value = text.partition("=")
        if not separator:
            raise ConfigurationInvalid(f"--set {name}: write it as --set section.key=value")
        overrides[name.strip()] = value
    path = Path(options.config) if options.config else _default_path()
    needs_platform = options.command in ("run", "check")
    return load(path, os.environ, overrides, require_platform=needs_platform)


def _default_path() -> Path | None:
    """Return router.conf of the working folder, else the one beside main.py, else None (environment only)."""
    for folder in (Path.cwd(), Path(__file__).resolve().parent.parent):
        candidate = folder / "router.conf"
        if candidate.is_file():
            return candidate
    return None
