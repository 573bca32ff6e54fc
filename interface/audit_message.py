"""One audit entry as a DICOM audit message in XML: pure.

Patient names and ids never leave this way: a study is named by its Study Instance UID. Imports the audit trail's Entry.
Changes when an action has to be told apart. Source: PS3.15 A.5.1 (schema), A.5.2 (codes), A.5.3 (messages); RFC 3881.
"""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from typing import NamedTuple
from xml.etree import ElementTree as Xml

from internal.audit_trail import Entry

_MAX_DETAIL = 1000


class _Code(NamedTuple):
    value: str
    text: str


class _Kind(NamedTuple):
    event: _Code
    action: str  # C create, R read, U update, D delete, E execute
    type: _Code | None = None
    outcome: str = "0"  # 0 success, 4 minor failure


_AUTHENTICATION = _Code("110114", "User Authentication")
_ACCESSED = _Code("110103", "DICOM Instances Accessed")
_LOG_USED = _Code("110101", "Audit Log Used")
_SECURITY = _Code("110113", "Security Alert")
_ATTRIBUTES = _Code("110137", "User Security Attributes Changed")
_CONFIGURATION = _Code("110131", "Software Configuration")

# The longest beginning that fits counts.
_KINDS = {
    "login": _Kind(_AUTHENTICATION, "E", _Code("110122", "Login")),
    "login.failed": _Kind(_AUTHENTICATION, "E", _Code("110122", "Login"), "4"),
    "logout": _Kind(_AUTHENTICATION, "E", _Code("110123", "Logout")),
    "password.": _Kind(_SECURITY, "E", _ATTRIBUTES),
    "user.": _Kind(_SECURITY, "E", _ATTRIBUTES),
    "key.": _Kind(_SECURITY, "E", _ATTRIBUTES),
    "patient.": _Kind(_ACCESSED, "R"),
    "patient.download": _Kind(_Code("110106", "Export"), "R"),
    "study.": _Kind(_ACCESSED, "U"),
    "audit.": _Kind(_LOG_USED, "R"),
    "": _Kind(_SECURITY, "E", _CONFIGURATION),
}


def render(entry: Entry) -> str:
    """Return the message as one line of ASCII XML."""
    kind = _KINDS[max((begin for begin in _KINDS if entry.action.startswith(begin)), key=len)]
    message = Xml.Element("AuditMessage")
    _identify(message, kind, entry)
    person = Xml.SubElement(message, "ActiveParticipant", {
        "UserID": _printable(entry.author), "UserIsRequestor": "true",
        **({"NetworkAccessPointID": _printable(entry.address), "NetworkAccessPointTypeCode": "2"}
           if entry.address else {})})
    _code(person, "RoleIDCode", _Code("110153", "Source Role ID"))
    source = Xml.SubElement(message, "AuditSourceIdentification", {"AuditSourceID": socket.gethostname() or "router"})
    _code(source, "AuditSourceTypeCode", _Code("4", "Application Server Process or Thread"))
    studies = entry.fields.get("studies")
    for uid in [entry.study_uid] if entry.study_uid else studies if isinstance(studies, list) else []:
        _object(message, str(uid), "3", _Code("110180", "Study Instance UID"), type_code="2")
    if entry.subject:
        _object(message, entry.subject, "13" if kind.event is _SECURITY else "24", _Code("12", "URI"), type_code="2",
                detail=f"seq={entry.seq} action={entry.action} sha256={entry.hash}")
    text = str(Xml.tostring(message, encoding="us-ascii"), "ascii")
    return "<?xml version='1.0' encoding='UTF-8'?>" + text


def _identify(message: Xml.Element, kind: _Kind, entry: Entry) -> None:
    at = datetime.fromtimestamp(entry.at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    event = Xml.SubElement(message, "EventIdentification", {
        "EventActionCode": kind.action, "EventDateTime": at, "EventOutcomeIndicator": kind.outcome})
    _code(event, "EventID", kind.event)
    if kind.type is not None:
        _code(event, "EventTypeCode", kind.type)
    outcome = Xml.SubElement(event, "EventOutcomeDescription")
    outcome.text = _printable(entry.action)


def _object(
    message: Xml.Element, identifier: str, role: str, id_type: _Code, *, type_code: str, detail: str = "",
) -> None:
    found = Xml.SubElement(message, "ParticipantObjectIdentification", {
        "ParticipantObjectID": _printable(identifier), "ParticipantObjectTypeCode": type_code,
        "ParticipantObjectTypeCodeRole": role})
    _code(found, "ParticipantObjectIDTypeCode", id_type, system="DCM" if len(id_type.value) == 6 else "RFC-3881")
    Xml.SubElement(found, "ParticipantObjectName").text = _printable(identifier)
    if detail:
        Xml.SubElement(found, "ParticipantObjectDescription").text = _printable(detail)


def _code(parent: Xml.Element, name: str, code: _Code, system: str = "DCM") -> None:
    Xml.SubElement(parent, name, {"csd-code": code.value, "codeSystemName": system, "originalText": code.text})


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_MAX_DETAIL])
