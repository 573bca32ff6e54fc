"""What the sandbox can be told: command line options, and the part of them that may change while it runs.

First step of the flow (command line -> Options -> every other module). Imports the standard library only.
Changes when an option is added or renamed.
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ORGANIZATION_ID = "100099001"
CLIENT_ID = "sandbox-client"
CLIENT_SECRET = "sandbox-secret"  # noqa: S105 - a public constant: this platform holds invented data only

AUTH_ERROR_FORMS = ("fault", "outcome")
IF_NONE_EXIST_FORMS = ("encounter", "all", "none")
DEFAULT_DATE_FLOOR = datetime.date(2014, 6, 3)


class OptionInvalid(ValueError):
    """A value offered for an option is outside its range; the text names the option and the range."""


@dataclass(slots=True)
class Options:
    """Everything a running sandbox consults; fields named in `CHANGEABLE` may change while it runs.

    Units are in the names. `data` is None for a temporary folder. `date_floor` is the oldest date accepted in
    clinical resources. Source: fact sheet satusehat.md section 8.
    """

    host: str = "127.0.0.1"
    port: int = 8899
    data: Path | None = None
    token_ttl_s: int = 3599
    latency_ms: int = 0
    index_delay_s: float = 0.0
    allow_duplicates: bool = False
    strict_imagingstudy_id: bool = True
    auth_error_form: str = "fault"
    if_none_exist: str = "encounter"
    date_floor: datetime.date = DEFAULT_DATE_FLOOR
    verbose: bool = False


def _number(low: float, high: float, kind: type) -> Callable[[object], object]:
    def read(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError
        number = kind(value)
        if not low <= number <= high:
            raise ValueError
        return number

    return read


def _boolean(value: object) -> object:
    if isinstance(value, bool):
        return value
    raise ValueError


def _one_of(choices: tuple[str, ...]) -> Callable[[object], object]:
    def read(value: object) -> object:
        if value in choices:
            return value
        raise ValueError

    return read


def _date(value: object) -> object:
    if isinstance(value, str):
        return datetime.date.fromisoformat(value)
    raise ValueError


CHANGEABLE: dict[str, tuple[Callable[[object], object], str]] = {
    "token_ttl_s": (_number(1, 10**7, int), "a whole number of seconds from 1 to 10000000"),
    "latency_ms": (_number(0, 600_000, int), "a whole number of milliseconds from 0 to 600000"),
    "index_delay_s": (_number(0, 86_400, float), "seconds from 0 to 86400"),
    "allow_duplicates": (_boolean, "true or false"),
    "strict_imagingstudy_id": (_boolean, "true or false"),
    "auth_error_form": (_one_of(AUTH_ERROR_FORMS), "fault or outcome"),
    "if_none_exist": (_one_of(IF_NONE_EXIST_FORMS), "encounter, all or none"),
    "date_floor": (_date, "a date such as 2014-06-03"),
}


def change(options: Options, name: str, value: object) -> None:
    """Set one changeable option from an untrusted value; raises OptionInvalid and then changes nothing."""
    if name not in CHANGEABLE:
        raise OptionInvalid(f"{name[:40]} is not one of {', '.join(CHANGEABLE)}")
    read, allowed = CHANGEABLE[name]
    try:
        setattr(options, name, read(value))
    except (ValueError, OverflowError) as error:
        raise OptionInvalid(f"{name} must be {allowed}") from error


def changeable_values(options: Options) -> dict[str, object]:
    """The changeable options and their present values, ready for JSON."""
    found = {name: getattr(options, name) for name in CHANGEABLE}
    return {name: value.isoformat() if isinstance(value, datetime.date) else value for name, value in found.items()}


def build_parser() -> argparse.ArgumentParser:
    """The command line of `python -m sandbox` (and of the router's `sandbox` command)."""
    parser = argparse.ArgumentParser(prog="sandbox", description="A strict local SATUSEHAT with invented data.")
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    add("--port", type=int, default=8899, help="port to listen on, 0 picks a free one (default 8899)")
    add("--data", type=Path, default=None, metavar="DIR", help="where everything is kept (default: a temporary folder)")
    add("--token-ttl", default="3599", metavar="S", help="seconds a token is valid (default 3599)")
    add("--latency-ms", default="0", metavar="N", help="milliseconds added to every answer (default 0)")
    add("--index-delay", default="0", metavar="S", help="seconds until a written resource can be found by search")
    add("--allow-duplicates", action="store_true", help="accept resources whose identifier exists already")
    add("--strict-imagingstudy-id", action=argparse.BooleanOptionalAction, default=True,
        help="refuse images whose X-ImagingStudy-ID is missing, unknown or does not list them (default on)")
    add("--auth-error-form", choices=AUTH_ERROR_FORMS, default="fault", help="shape of a 401 answer (default fault)")
    add("--if-none-exist", choices=IF_NONE_EXIST_FORMS, default="encounter",
        help="resource types for which If-None-Exist is honoured (default encounter)")
    add("--date-floor", default=DEFAULT_DATE_FLOOR.isoformat(), metavar="DATE",
        help="oldest accepted date (default 2014-06-03)")
    add("-v", "--verbose", action="store_true", help="one line per request on stderr")
    return parser


def parse_options(argv: list[str]) -> Options:
    """Read the command line; a mistake ends the process with status 2, as argparse does, with one sentence."""
    parser = build_parser()
    given = parser.parse_args(argv)
    if not 0 <= given.port <= 65_535:
        parser.error("--port must be a number from 0 to 65535")
    options = Options(host=given.host, port=given.port, data=given.data, verbose=given.verbose)
    named = {"token_ttl_s": given.token_ttl, "latency_ms": given.latency_ms, "index_delay_s": given.index_delay,
             "allow_duplicates": given.allow_duplicates, "strict_imagingstudy_id": given.strict_imagingstudy_id,
             "auth_error_form": given.auth_error_form, "if_none_exist": given.if_none_exist,
             "date_floor": given.date_floor}
    for name, value in named.items():
        try:
            change(options, name, value)
        except OptionInvalid as error:
            parser.error(str(error))
    return options
