"""What an answer of the platform means: one table of (status, family of the body, marker) -> meaning.

`oauth2` and `client` hand every reply in here and act on the meaning alone; nothing else looks at a status code.
Pure; imports interface.outbound's Reply. Changes when the platform is seen to answer in a new way.
Source: satusehat facts 1, 2.2, 2.5 and 3.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from html import unescape
from typing import Any
from xml.etree import ElementTree

from interface.outbound import Reply

MAX_TEXT = 600
MAX_ISSUES = 20
MAX_XML_DEPTH = 12


class Family(StrEnum):
    """What kind of body it is, whatever the content type says."""

    EMPTY = "empty"
    FAULT = "fault"  #: Apigee {"fault": {...}}
    ERROR_CODE = "error-code"  #: {"ErrorCode": ..., "Error": ...}
    OUTCOME = "operation-outcome"
    BUNDLE = "bundle"
    RESOURCE = "resource"  #: any other FHIR resource
    DICOM = "dicom"  #: DICOM JSON or NativeDicomModel XML of a store transaction
    JSON = "json"  #: JSON of no known kind
    HTML = "html"
    TEXT = "text"
    BROKEN = "broken"  #: says or looks as if it were JSON or XML, and cannot be read


class Meaning(StrEnum):
    """What the answer is for us."""

    OK = "ok"  #: carried out; the body has still to name what we asked for
    SUPPRESSED = "suppressed"  #: carried out, result withheld: nothing to be seen (yet)
    ABSENT = "absent"  #: this resource does not exist
    TOKEN = "token"  #: the token is not accepted  # noqa: S105
    NO_PRODUCT = "no-product"  #: the credentials are not for this API or environment
    BLOCKED = "blocked"  #: stopped before the platform, or not permitted at all
    DUPLICATE = "duplicate"  #: a resource with this identifier exists
    EXISTS = "exists"  #: an instance with this SOP Instance UID exists
    REFUSED = "refused"  #: will not be taken as it is
    WRONG_PATH = "wrong-path"  #: nothing answers under this path
    REDIRECT = "redirect"  #: never followed
    THROTTLED = "throttled"  #: not carried out, ask later
    UNAVAILABLE = "unavailable"  #: surely not carried out
    FAULT = "fault"  #: may or may not have been carried out
    GATEWAY = "gateway"  #: the same, and whoever asks now will hear it
    UNREADABLE = "unreadable"  #: success by status, but the body does not say what happened


@dataclass(frozen=True, slots=True)
class StoreReply:
    """What a store transaction says: UIDs it stored, and UIDs it did not with the reason. Source: PS3.18 10.5.3."""

    stored: frozenset[str]
    failed: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Body:
    """A body that was read: its family, its content, and words for people without patient data."""

    family: Family
    content: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    codes: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    store: StoreReply | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A classified reply. `code` is a short machine name, `text` is for people; neither holds patient data."""

    meaning: Meaning
    status: int
    body: Body
    retry_after_s: float | None = None

    @property
    def code(self) -> str:
        """Return the RuleNumber when there is one, else the status."""
        return f"rule-{self.body.rules[0]}" if self.body.rules else f"http-{self.status}"

    @property
    def text(self) -> str:
        """Return status and the platform's own words."""
        return f"HTTP {self.status}: {self.body.text or 'no text'}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table: the first that fits gives the meaning. `families` None: any."""

    meaning: Meaning
    statuses: range
    families: frozenset[Family] | None = None
    marker: Callable[[Body], bool] | None = None

    def fits(self, status: int, body: Body) -> bool:
        """Return whether this line is about such an answer."""
        return (
            status in self.statuses and (self.families is None or body.family in self.families)
            and (self.marker is None or self.marker(body))
        )


def _one(status: int) -> range:
    return range(status, status + 1)


def _says(*phrases: str) -> Callable[[Body], bool]:
    return lambda body: any(phrase in f"{' '.join(body.codes)} {body.text}".lower() for phrase in phrases)


def _store_says_exists(body: Body) -> bool:
    texts = body.store.failed.values() if body.store else (body.text,)
    return any("already exist" in text.lower() for text in texts)


_FHIR = frozenset({Family.BUNDLE, Family.RESOURCE})
_OUTCOME = frozenset({Family.OUTCOME})

TABLE: tuple[Rule, ...] = (
    Rule(Meaning.OK, range(200, 300), _FHIR | {Family.DICOM}),
    Rule(Meaning.SUPPRESSED, range(200, 300), _OUTCOME, _says("suppressed")),
    Rule(Meaning.UNREADABLE, range(200, 300)),
    Rule(Meaning.REDIRECT, range(300, 400)),
    Rule(Meaning.NO_PRODUCT, _one(401), None, _says("noapiproductmatch", "no apiproduct match")),
    Rule(Meaning.TOKEN, _one(401)),
    Rule(Meaning.REFUSED, _one(403), _OUTCOME),
    Rule(Meaning.BLOCKED, _one(403)),
    Rule(Meaning.DUPLICATE, _one(400), _OUTCOME, _says("duplicate", "20002")),
    Rule(Meaning.DUPLICATE, _one(412)),
    Rule(Meaning.ABSENT, _one(404), _OUTCOME),
    Rule(Meaning.ABSENT, _one(410)),
    Rule(Meaning.WRONG_PATH, range(404, 406)),
    Rule(Meaning.FAULT, _one(408)),
    Rule(Meaning.EXISTS, _one(409), None, _store_says_exists),
    Rule(Meaning.THROTTLED, _one(429)),
    Rule(Meaning.REFUSED, range(400, 500)),
    Rule(Meaning.UNAVAILABLE, _one(503), None, _says("no healthy upstream")),
    Rule(Meaning.GATEWAY, range(502, 505)),
    Rule(Meaning.FAULT, range(1000)),
)


def classify(reply: Reply) -> Answer:
    """Return what `reply` means; total: every status and every body has a meaning."""
    body = read_body(reply)
    meaning = next((rule.meaning for rule in TABLE if rule.fits(reply.status, body)), Meaning.FAULT)
    return Answer(meaning, reply.status, body, reply.retry_after_s)


def read_body(reply: Reply) -> Body:
    """Return the body of `reply` by what it is, not by what its content type claims; never raises."""
    raw = reply.body.strip()
    if not raw:
        challenge = reply.headers.get("www-authenticate", "")
        return Body(Family.EMPTY, text=redact(challenge), codes=(challenge.lower(),) if challenge else ())
    if raw[:1] in (b"{", b"["):
        return _read_json(raw)
    if re.match(rb"<(!doctype html|html|head|body)\b", raw[:64], re.IGNORECASE):
        return Body(Family.HTML, text=redact(_strip_tags(raw)))
    if raw[:1] == b"<":
        return _read_xml(raw)
    if "json" in reply.media_type:
        return Body(Family.BROKEN, text="JSON that cannot be read")
    return Body(Family.TEXT, text=redact(_decode(raw)))


def redact(text: str) -> str:
    """Return `text` on one line, cut to MAX_TEXT, without national ids, SATUSEHAT patient ids and bearer tokens."""
    line = re.sub(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+", " ", text).strip()
    line = re.sub(r"(?i)\bbearer +[\w.~+/-]{8,}", "Bearer [hidden]", line)
    line = re.sub(r"(?<![\d.])\d{16}(?!\d|\.\d)", "[number hidden]", line)
    line = re.sub(r"\bP\d{11}\b", "P[hidden]", line)
    line = re.sub(r"\b(Patient/)(?!P\[)[A-Za-z0-9.-]+", r"\1[hidden]", line)
    return line[:MAX_TEXT]


def _decode(raw: bytes) -> str:
    return raw[:4 * MAX_TEXT].decode("utf-8", "replace")


def _strip_tags(raw: bytes) -> str:
    text = re.sub(r"(?is)<(script|style)\b.*?(</\1>|$)", " ", _decode(raw))
    return unescape(re.sub(r"<[^>]*>?", " ", text))


def _read_json(raw: bytes) -> Body:
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        return Body(Family.BROKEN, text="JSON that cannot be read")
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    if not isinstance(content, dict):
        return Body(Family.JSON)
    kind = content.get("resourceType")
    if kind == "OperationOutcome":
        return _read_outcome(content)
    if isinstance(kind, str):
        return Body(Family.BUNDLE if kind == "Bundle" else Family.RESOURCE, content)
    if isinstance(content.get("fault"), dict):
        return _read_fault(content)
    if "ErrorCode" in content:
        code, words = str(content["ErrorCode"]), str(content.get("Error", ""))
        return Body(Family.ERROR_CODE, content, redact(f"{code}: {words}"), (code,))
    if content.keys() & {"00081199", "00081198", "00081190"}:
        return _read_store(content)
    return Body(Family.JSON, content)


def _read_fault(content: Mapping[str, Any]) -> Body:
    fault = content["fault"]
    detail = fault.get("detail")
    code = str(detail.get("errorcode", "")) if isinstance(detail, dict) else ""
    return Body(Family.FAULT, content, redact(f"{fault.get('faultstring', '')} ({code})"), (code,))


def _read_outcome(content: Mapping[str, Any]) -> Body:
    listed = content.get("issue")
    issues = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    codes: list[str] = []
    texts: list[str] = []
    for issue in issues[:MAX_ISSUES]:
        codes.append(str(issue.get("code", "")))
        details = issue.get("details")
        said = [details.get("text") if isinstance(details, dict) else None, issue.get("diagnostics")]
        where = issue.get("expression")
        if isinstance(where, list):
            said.append(f"[{', '.join(str(one) for one in where[:5])}]")
        texts.append(" ".join(str(part) for part in said if part))
    text = "; ".join(one for one in texts if one)
    rules = tuple(dict.fromkeys(re.findall(r"RuleNumber:\s*(\d{4,6})", text)))
    return Body(Family.OUTCOME, content, redact(text or ", ".join(codes)), tuple(codes), rules)


def _read_store(content: Mapping[str, Any]) -> Body:
    stored = frozenset(_uid(item) for item in _items(content, "00081199")) - {""}
    failed = {_uid(item): redact(_failure(item)) for item in _items(content, "00081198")}
    failed.pop("", None)
    text = "; ".join(dict.fromkeys(failed.values()))
    return Body(Family.DICOM, content, redact(text), store=StoreReply(stored, failed))


def _items(content: Mapping[str, Any], tag: str) -> Iterable[Mapping[str, Any]]:
    element = content.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return [item for item in values if isinstance(item, dict)] if isinstance(values, list) else []


def _first(item: Mapping[str, Any], tag: str) -> str:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return str(values[0]) if isinstance(values, list) and values else ""


def _uid(item: Mapping[str, Any]) -> str:
    return _first(item, "00081155").strip(" '\"\0")


def _failure(item: Mapping[str, Any]) -> str:
    words = _first(item, "00090097") or _first(item, "00081196")
    reason = _first(item, "00081197")
    return f"{words or 'not stored'} (FailureReason {reason})" if reason else words or "not stored"


def _read_xml(raw: bytes) -> Body:
    root = _parse_xml(raw)
    if root is None:
        return Body(Family.BROKEN, text="XML that cannot be read")
    if _tag(root) != "NativeDicomModel":
        return Body(Family.HTML, text=redact(_strip_tags(raw)))
    return _read_store(_xml_dataset(root, 0))


def _parse_xml(raw: bytes) -> ElementTree.Element | None:
    """Return the root; a document type, through which XML can be made to explode, is refused unread."""
    if re.search(rb"<!(DOCTYPE|ENTITY)", raw, re.IGNORECASE):
        return None
    try:
        return ElementTree.fromstring(raw)  # noqa: S314 - no document type, size bounded by the session
    except (ElementTree.ParseError, ValueError, LookupError):
        return None


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _xml_dataset(element: ElementTree.Element, depth: int) -> dict[str, Any]:
    """Return a NativeDicomModel data set as DICOM JSON. Source: PS3.19 A.1, PS3.18 F.2."""
    if depth > MAX_XML_DEPTH:
        return {}
    result: dict[str, Any] = {}
    for attribute in element:
        values: list[Any] = [
            _xml_dataset(child, depth + 1) if _tag(child) == "Item" else (child.text or "").strip()
            for child in attribute if _tag(child) in ("Item", "Value")
        ]
        result[attribute.get("tag", "").upper()] = {"Value": values}
    return result
