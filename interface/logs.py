"""Logging: one line per fact on standard output, as text or JSON, with no secret and no patient in it.

Flow: every process calls `configure` once; every module logs through `logging.getLogger("router....")`, facts as
`event(log, INFO, PHRASES["..."], study=..., job=...)` or with `extra={"fields": {...}}`. Imports: log_redaction.
Changes when the form of a line or the treatment of another library's log changes.

    2026-01-31T08:15:02.123+07:00 INFO [deliver] DICOM sent successfully study=1.2.3 job=12

No flag shows INFO (facts, trouble), -v adds DETAIL (each instance and request), -vv DEBUG (protocol).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, TextIO

from interface.log_redaction import MASK, Redactor

DEBUG, DETAIL, INFO, WARNING, ERROR = logging.DEBUG, 15, logging.INFO, logging.WARNING, logging.ERROR
logging.addLevelName(DETAIL, "DETAIL")

PHRASES: Mapping[str, str] = MappingProxyType({
    "starting": "[Init] - Starting services",
    "spawning_dicom": "[Init] - Spawning DICOM interface on port {port} with AE title: {ae_title}.",
    "starting_http": "[Init] - Starting HTTP service on port {port}...",
    "store_request": "Received Store Request",
    "handle_store": "[Info-Assoc] - handle_store",
    "association_released": "Association Released",
    "processing_start": "Processing DICOM start",
    "accession_number": "Accession Number: {accession_number}",
    "study_iuid": "Study IUID: {study_uid}",
    "obtaining_ids": "Obtaining Patient ID and ServiceRequest ID",
    "obtained_ids": "Patient ID and ServiceRequest ID obtained",
    "failed_ids": "Failed to obtain Patient ID and ServiceRequest ID",
    "creating_imaging_study": "Start creating ImagingStudy",
    "created_imaging_study": "ImagingStudy {study_uid} created",
    "failed_creating": "Failed to create ImagingStudy for {study_uid}",
    "posting": "POST-ing ImagingStudy",
    "posted": "ImagingStudy POST-ed, id: {imaging_study_id}",
    "already_posted": "ImagingStudy already POST-ed, using PUT instead, id: {imaging_study_id}",
    "failed_posting": "Failed to POST ImagingStudy",
    "push_started": "DICOM Push started",
    "push_imaging_study": "dicom_push imagingStudyID: {imaging_study_id}",
    "instance_sent": "Sending Instance UID: {series_uid}/{sop_uid} success",
    "instance_failed": "Sending Instance UID failed: {sop_uid}",
    "already_exists": "Image already exists",
    "sent": "DICOM sent successfully",
    "could_not_process": "Could not process association: {association_id}",
})  # fmt: skip
"""The official router's words, which people and scripts search for. Source: facts, satusehat.md 4.5.

Those about clearing folders and deleting associations are left out: this router does neither."""

PRIVATE_FIELDS = frozenset({
    "patient_id", "patient_name", "patient", "birth_date", "patient_birth_date", "nik", "mrn", "password",
    "secret", "secret_key", "client_key", "token", "access_token", "authorization",
})  # fmt: skip
"""Names of fields whose values are masked whatever they are."""

_MAX_VALUE = 2000
_MAX_FRAMES = 12
_MAX_CAUSES = 3
_REDACTOR = Redactor()
# urllib3 and uvicorn's access log write URLs with their queries (patient identifiers), pydicom and py.warnings write
# values of elements, debug logs of DICOM libraries whole identifiers: they stay quiet at every verbosity.
_QUIET = MappingProxyType({
    "urllib3": ERROR, "requests": ERROR, "uvicorn": WARNING, "uvicorn.error": WARNING, "asyncio": WARNING,
    "pynetdicom": ERROR, "psycopg": ERROR, "PIL": ERROR, "pydicom": logging.CRITICAL, "py.warnings": logging.CRITICAL,
    "uvicorn.access": logging.CRITICAL, "uvicorn.asgi": logging.CRITICAL,
})  # fmt: skip
_RESERVED = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "fields", "taskName", "color_message"}


def configure(
    verbosity: int, form: str, secrets: Iterable[str], role: str, stream: TextIO | None = None,
) -> None:
    """Send every log line of this process to `stream` (default standard output); a second call replaces the first.

    `verbosity` counts -v; `form` is `text` or `json`; `secrets` are masked wherever they turn up; `role` stands on
    each line. Commands whose output is JSON pass sys.stderr. A closed or full output loses lines, never the process.
    Errors that reach the top of a thread or of the program are logged instead of printed.
    """
    _REDACTOR.set_secrets(secrets)
    handler = LineHandler(stream if stream is not None else sys.stdout)
    handler.setFormatter(JsonFormatter(role) if form == "json" else TextFormatter(role))
    root = logging.getLogger()
    for earlier in [each for each in root.handlers if isinstance(each, LineHandler)]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(WARNING)
    logging.getLogger("router").setLevel({0: INFO, 1: DETAIL}.get(verbosity, DEBUG))
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


def mask_token(token: str) -> None:
    """Mask an access token from now on in every line of this process; call it when the token arrives."""
    _REDACTOR.add_token(token)


def event(logger: logging.Logger, level: int, phrase: str, /, **fields: object) -> None:
    """Log one fact with its fields; those that are None are left out. Never pass patient data: a study UID will do."""
    if logger.isEnabledFor(level):
        logger.log(level, phrase, extra={"fields": fields}, stacklevel=2)


class LineHandler(logging.Handler):
    """Writes each record as one line with a single write, so that lines of several processes do not mix."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream
        self._descriptor = _descriptor(stream)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; what cannot be written is dropped, for the work matters more than its log."""
        try:
            line = self.format(record) + "\n"
        except Exception:  # noqa: BLE001 - a value whose str() fails must not stop the work that logged it
            line = f"{record.levelname} a log line could not be made ({record.pathname}:{record.lineno})\n"
        try:
            if self._descriptor is not None:
                rest = line.encode("utf-8", "backslashreplace")
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            elif self._stream is not None:
                self._stream.write(line)
                self._stream.flush()
        except (OSError, ValueError):
            return


class TextFormatter(logging.Formatter):
    """`time LEVEL [role] message key=value ...` on one line."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """One line without line break, control character or secret."""
        words = [_time(record), record.levelname, f"[{self._role}]", escape(_message(record))]
        words += [f"{escape(key)}={_quoted(value)}" for key, value in _fields(record).items()]
        if record.exc_info:
            words.append(f"error={_quoted(describe_error(record.exc_info[1]))}")
        return _REDACTOR.mask(" ".join(words))


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, role, logger, message, then the fields."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """One line of ASCII JSON without secret; a field that has a reserved name gets `_` appended."""
        line: dict[str, object] = {
            "time": _time(record), "level": record.levelname, "role": self._role, "logger": record.name,
            "message": _message(record),
        }  # fmt: skip
        for key, value in _fields(record).items():
            line[f"{key}_" if key in line or key == "error" else key] = value
        if record.exc_info:
            line["error"] = describe_error(record.exc_info[1])
        return json.dumps(line)


def describe_error(error: BaseException | None) -> str:
    """An error with its place in the code, its causes behind it, on one line, secrets masked.

    The text of an error that another library raised is withheld where it may quote data: database and DICOM errors
    repeat values of patients. Type and place stay, which is what a developer needs.
    """
    parts: list[str] = []
    while error is not None and len(parts) < _MAX_CAUSES:
        frames = traceback.extract_tb(error.__traceback__)[-_MAX_FRAMES:]
        place = " < ".join(f"{Path(each.filename).name}:{each.lineno} {each.name}" for each in reversed(frames))
        parts.append(f"{type(error).__name__}: {_error_text(error)}{f' at {place}' if place else ''}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return _bounded(_REDACTOR.mask("; caused by ".join(parts)))


def _error_text(error: BaseException) -> str:
    ours = type(error).__module__.partition(".")[0] in ("internal", "interface", "sandbox", "main", "__main__")
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} (errno {error.errno})"
    if ours or isinstance(error, TypeError | AttributeError | NameError | ImportError | RecursionError):
        return _text(error)
    return "(text withheld)"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """The fields of a record, ready to be written: numbers as they are, the rest as bounded, masked text."""
    given: dict[str, Any] = dict(getattr(record, "fields", None) or {})
    if record.name.partition(".")[0] == "router":
        given |= {key: value for key, value in vars(record).items() if key not in _RESERVED}
    return {_REDACTOR.mask(str(key)): _value(str(key), value) for key, value in given.items() if value is not None}


def _value(key: str, value: object) -> object:
    if key.lower() in PRIVATE_FIELDS:
        return MASK
    shown = _text(value)
    masked = _REDACTOR.mask(shown)
    return value if isinstance(value, bool | int | float) and masked == shown else _bounded(masked)


def _message(record: logging.LogRecord) -> str:
    if isinstance(record.msg, BaseException):
        # Libraries log their exceptions as the message, with the values that they quote.
        return f"{type(record.msg).__name__}: {_REDACTOR.mask(_error_text(record.msg))}"
    try:
        message = record.getMessage()
    except (TypeError, ValueError, KeyError):
        # A % too many in a message must not cost the line.
        message = str(record.msg)
    return _bounded(_REDACTOR.mask(message))


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - str() of a foreign object may raise anything
        return f"<{type(value).__name__}>"


def _bounded(text: str) -> str:
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}... ({len(text)} characters)"


def escape(text: str) -> str:
    r"""Text without anything that moves the cursor or breaks the line: \x0a, \x1b, \u2028, \ud800."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" for c in text)


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    if text and not any(c in " =\"'" for c in text):
        return escape(text)
    return '"' + escape(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds")


def _descriptor(stream: TextIO | None) -> int | None:
    try:
        return stream.fileno() if stream is not None else None
    except (OSError, ValueError, AttributeError):
        return None


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        logging.getLogger("router").critical("Unexpected end", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        name = args.thread.name if args.thread else ""
        info = (args.exc_type, args.exc_value, args.exc_traceback)
        fields = {"fields": {"thread": name}}
        logging.getLogger("router").critical("A thread ended unexpectedly", exc_info=info, extra=fields)
