"""The verbs of the platform: search, read, create and update over FHIR, push over DICOMweb.

`delivery` calls them one at a time (pushes from several threads); each returns what the platform said, checked, or
raises. Imports outbound, oauth2, answers, orders and internal. Changes when the platform gets or changes a verb.
Source: satusehat facts 2 and 3; FHIR R4 http; PS3.18 10.5.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from interface.histogram import PUSH_BOUNDS_MS, Histogram
from interface.outbound import LARGE_CHUNK_BYTES, Deadline, FileBody, Reply, Session
from interface.satusehat.answers import Answer, Meaning, StoreReply, classify
from interface.satusehat.effects import build_error, not_understood, raise_for
from interface.satusehat.governor import Governor
from interface.satusehat.oauth2 import TokenSource
from interface.satusehat.orders import is_id
from internal import failpoints
from internal.errors import Transient, UnknownOutcome
from internal.fhir.imaging_study import STUDY_UID_SYSTEM, build_acsn_system, build_uid_value
from internal.model import Header
from internal.ports import Frozen

MAX_PAGES = 10
#: Statuses that say "stored", or "some are", before the body is read.
ACCEPTED = range(200, 300)
MAX_IMAGING_STUDY_BYTES = 64 * 1024 * 1024

Resource = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class SatusehatOptions:
    """Everything the destination needs to know; times in seconds. `base_url` without a slash at the end.

    `client_key` and `secret` reveal their values only when a token is asked for. `order_window_s`: how far an order may
    be from the study's date. `index_lag_s`: how long a created resource may stay invisible to searches.
    `reregister_first_s` doubles with each registration up to `reregister_max_s`. `refusal_interval_s`: pause after
    refused credentials. `push_parallel`: pushes in flight. `fhir_per_minute`, `bandwidth_bytes_per_s`: see governor.
    `push_floor_bytes_per_s`: the slowest upload put up with. `confirm_images`: ask for each image after its push.
    """

    base_url: str
    organization_id: str
    client_key: Callable[[], str] = field(repr=False)
    secret: Callable[[], str] = field(repr=False)
    name: str = "satusehat"
    token_path: str = "/oauth2/v1/accesstoken"  # noqa: S105 - a path
    fhir_path: str = "/fhir-r4/v1"
    dicom_path: str = "/dicom/v1/dicomWeb/studies"
    tz_name: str = "Asia/Jakarta"
    order_window_s: float = 30 * 86400.0
    index_lag_s: float = 60.0
    request_timeout_s: float = 60.0
    connect_timeout_s: float = 10.0
    user_agent: str = "satusehat-dicom-router/2.0"
    reregister_first_s: float = 10.0
    reregister_max_s: float = 600.0
    refusal_interval_s: float = 300.0
    push_parallel: int = 16
    fhir_per_minute: int = 120
    bandwidth_bytes_per_s: int = 0
    push_floor_bytes_per_s: int = 16 * 1024
    skip_sop_classes: frozenset[str] = frozenset()
    confirm_images: bool = True
    ca_file: Path | None = None
    proxy_url: str | None = field(default=None, repr=False)


class Verdict(StrEnum):
    """What became of one pushed instance."""

    STORED = "stored"  #: the reply names it among the stored ones
    EXISTS = "exists"  #: it is there already; the reply does not say whether with the same bytes
    REFUSED = "refused"  #: it will not be taken as it is


@dataclass(frozen=True, slots=True)
class Pushed:
    """The answer to one push; `code` and `text` are the platform's, without patient data."""

    verdict: Verdict
    status: int
    code: str
    text: str


class Presence(StrEnum):
    """What the platform says about one instance."""

    HERE = "here"
    ABSENT = "absent"  #: or not shown: a platform that shows none at all says the same
    UNKNOWN = "unknown"


class Client:
    """The platform as one organization sees it; thread-safe. Every verb ends with its deadline, whatever happens."""

    def __init__(
        self, options: SatusehatOptions, session: Session, tokens: TokenSource, governor: Governor,
    ) -> None:
        self.governor = governor
        self.push_times = Histogram(PUSH_BOUNDS_MS)
        self._options = options
        self._session = session
        self._tokens = tokens
        self._acsn_system = build_acsn_system(options.organization_id)

    def fetch_service_requests(self, accession_number: str, *, poll: bool = False) -> list[Resource]:
        """Return every ServiceRequest that the platform finds under our ACSN system and `accession_number`.

        `poll`: it was not there before; such calls have their own small share of the budget.
        """
        return self._search("ServiceRequest", self._acsn_system, accession_number, poll=poll)

    def fetch_imaging_studies(self, *, accession_number: str = "", study_uid: str = "") -> list[Resource]:
        """Return every ImagingStudy found under the accession number, or else under the Study Instance UID."""
        if accession_number:
            return self._search("ImagingStudy", self._acsn_system, accession_number)
        return self._search("ImagingStudy", STUDY_UID_SYSTEM, build_uid_value(study_uid) if study_uid else "")

    def read_imaging_study(self, imaging_study_id: str) -> Resource | None:
        """Return the ImagingStudy, None when it does not exist (any more); raises NotFound when it is withheld."""
        answer = self._call("GET", f"{self._options.fhir_path}/ImagingStudy/{quote(imaging_study_id, safe='')}")
        if answer.meaning is Meaning.ABSENT:
            return None
        return self._require_imaging_study(answer, imaging_study_id)

    def read_shown(self, resource_type: str, resource_id: str) -> Resource | None:
        """Return a resource as far as the platform shows it to us, None when it is withheld, refused or absent."""
        answer = self._call("GET", f"{self._options.fhir_path}/{resource_type}/{quote(resource_id, safe='')}")
        if answer.meaning in (Meaning.ABSENT, Meaning.SUPPRESSED, Meaning.REFUSED):
            return None
        if answer.meaning is not Meaning.OK:
            raise_for(answer)
        resource = dict(answer.body.content)
        return resource if resource.get("resourceType") == resource_type else None

    def read_client_flag(self) -> bool:
        """Return the platform's flag SATUSEHAT_CLIENT_ENABLE; what is missing or unknown there is False."""
        answer = self._call("GET", f"{self._options.fhir_path}/dcm_cfg")
        if answer.status != 200 and answer.meaning not in (Meaning.ABSENT, Meaning.WRONG_PATH, Meaning.REFUSED):
            raise_for(answer)
        return answer.status == 200 and answer.body.content.get("SATUSEHAT_CLIENT_ENABLE") is True

    def create_imaging_study(self, resource: Mapping[str, Any], deadline: Deadline) -> Resource:
        """POST `resource` and return what the platform made of it, or found under If-None-Exist.

        Call `governor.admit_call` before the deadline begins.

        Raises UnknownOutcome when it may exist now, Refused with code "duplicate" when one exists already, and
        Transient, Refused or CredentialsRefused when it was surely not made.
        """
        accession = next(entry["value"] for entry in resource["identifier"] if entry["system"] == self._acsn_system)
        condition = urlencode({"identifier": f"{self._acsn_system}|{accession}"})
        answer = self._call("POST", f"{self._options.fhir_path}/ImagingStudy", resource=resource, deadline=deadline,
                            headers={"If-None-Exist": condition})
        if answer.meaning is Meaning.SUPPRESSED:
            raise not_understood(f"the result of the POST is withheld: {answer.text}")
        return self._require_imaging_study(answer, None)

    def update_imaging_study(self, imaging_study_id: str, resource: Mapping[str, Any]) -> Resource | None:
        """PUT `resource`, whose id is `imaging_study_id`, and return it as stored, None when it is gone; repeatable."""
        target = f"{self._options.fhir_path}/ImagingStudy/{quote(imaging_study_id, safe='')}"
        answer = self._call("PUT", target, resource=resource)
        if answer.meaning is Meaning.ABSENT:
            return None
        return self._require_imaging_study(answer, imaging_study_id)

    def push_instance(
        self, frozen: Frozen, imaging_study_id: str, on_bytes: Callable[[int], None] | None = None,
    ) -> Pushed:
        """Send one instance as it is frozen and return what became of it; repeatable with the same bytes.

        Raises UnknownOutcome when the reply is lost or says nothing, Transient when it was surely not taken: also when
        the connection broke before the last byte had left, since nobody then has the whole of it.
        Faults after the first byte blame the job, not the lane: this one instance may be what breaks the connection.
        """
        with self.governor.push_slot():
            began_s = time.monotonic()
            try:
                answer = self._push(frozen, imaging_study_id, on_bytes)
                self.push_times.add((time.monotonic() - began_s) * 1000)
            except UnknownOutcome as lost:
                if lost.status in ACCEPTED:
                    raise not_understood(f"the reply came with HTTP {lost.status} and cannot be read: {lost}") from None
                lost.blame_lane = False
                raise
            if answer.meaning is Meaning.THROTTLED:
                wait_s = self.governor.throttled(answer.retry_after_s)
                raise Transient(answer.text, code="http-429", retry_after_s=wait_s)
            self.governor.passed()
        if failpoints.active("lie.reply"):
            return Pushed(Verdict.STORED, answer.status, answer.code, "stored")
        return _judge_push(answer, frozen.item.instance.header.sop_uid)

    def _push(self, frozen: Frozen, imaging_study_id: str, on_bytes: Callable[[int], None] | None) -> Answer:
        options = self._options
        headers = {"Content-Type": "application/dicom", "Accept": "application/dicom+json",
                   "X-ImagingStudy-ID": imaging_study_id}
        # The slowest link that is put up with is shared by all pushes in flight.
        floor_bytes_per_s = options.push_floor_bytes_per_s / options.push_parallel
        buffered_bytes = min(frozen.size_bytes, LARGE_CHUNK_BYTES)
        deadline = self._session.open_deadline(
            options.request_timeout_s + frozen.size_bytes / floor_bytes_per_s, buffered_bytes / floor_bytes_per_s)

        def send(authorized: Mapping[str, str]) -> Reply:
            with frozen.open() as source:
                body = FileBody(source, frozen.size_bytes, on_bytes, self.governor.chunk_bytes)
                try:
                    return self._session.exchange("POST", options.dicom_path, headers={**headers, **authorized},
                                                  body=body, deadline=deadline)
                except UnknownOutcome as lost:
                    if body.has_left or lost.status is not None:
                        raise
                    raise Transient(str(lost), code=lost.code, blame_lane=False) from None

        return self._authorized(send, deadline)

    def look_for(self, header: Header) -> Presence:
        """Ask by HEAD whether the platform has an instance; raises as the other verbs do."""
        answer = self._ask_instance("HEAD", header, None, 1024)
        if failpoints.active("lie.reply"):
            return Presence.HERE
        if answer.status == 200:
            return Presence.HERE
        return Presence.ABSENT if answer.status in (404, 410) else Presence.UNKNOWN

    def fetch_instance(self, header: Header, sink: Callable[[bytes], None], limit_bytes: int) -> bool:
        """Hand the file that the platform holds to `sink`, piece by piece; False when it does not show one."""
        return self._ask_instance("GET", header, sink, limit_bytes).status == 200

    def _ask_instance(
        self, method: str, header: Header, sink: Callable[[bytes], None] | None, limit_bytes: int,
    ) -> Answer:
        options = self._options
        target = "/".join((options.dicom_path, _segment(header.study_uid), "series", _segment(header.series_uid),
                           "instances", _segment(header.sop_uid)))
        headers = {"Accept": "application/dicom; transfer-syntax=*"}
        with self.governor.push_slot():
            floor_s = limit_bytes / options.push_floor_bytes_per_s
            deadline = self._session.open_deadline(options.request_timeout_s + floor_s)
            answer = self._authorized(lambda authorized: self._session.exchange(
                method, target, headers={**headers, **authorized}, deadline=deadline, limit_bytes=limit_bytes,
                sink=sink), deadline)
        if answer.meaning is Meaning.THROTTLED:
            self.governor.throttled(answer.retry_after_s)
        if answer.status == 401 or answer.status == 429 or answer.status >= 500:
            raise_for(answer)
        return answer

    def probe_dicom(self) -> Answer:
        """Ask the DICOM endpoint for an instance that does not exist and return its answer."""
        deadline = self._session.open_deadline(self._options.request_timeout_s)
        target = f"{self._options.dicom_path}/2.25.0/series/2.25.0/instances/2.25.0"
        return self._authorized(lambda headers: self._session.exchange(
            "GET", target, headers={"Accept": "application/dicom", **headers}, deadline=deadline), deadline)

    def _search(self, resource_type: str, system: str, value: str, *, poll: bool = False) -> list[Resource]:
        """Search by identifier with the value written both ways that servers understand; the caller compares values."""
        if not value.strip():
            raise ValueError("an empty identifier matches every resource of the system and is never looked up")
        found: dict[str, Resource] = {}
        for written in spell_token(value):
            query = urlencode({"identifier": f"{system}|{written}"})
            for resource in self._search_pages(resource_type, query, poll=poll):
                found.setdefault(str(resource.get("id")), resource)
        return list(found.values())

    def _search_pages(self, resource_type: str, query: str, *, poll: bool) -> list[Resource]:
        found: list[Resource] = []
        seen: set[str] = set()
        while query not in seen and len(seen) < MAX_PAGES:
            seen.add(query)
            answer = self._call("GET", f"{self._options.fhir_path}/{resource_type}?{query}", poll=poll)
            if answer.meaning is not Meaning.OK:
                raise_for(answer)
            bundle = answer.body.content
            if bundle.get("resourceType") != "Bundle":
                raise not_understood("a search was not answered with a Bundle")
            found += [resource for resource in _resources(bundle) if resource.get("resourceType") == resource_type]
            following = _find_next(bundle)
            if following is None:
                return found
            query = following
        raise Transient(f"the platform lists more than {MAX_PAGES} pages of {resource_type}", code="too-many-pages",
                        blame_lane=False)

    def _require_imaging_study(self, answer: Answer, imaging_study_id: str | None) -> Resource:
        if answer.meaning is not Meaning.OK:
            raise_for(answer)
        resource = dict(answer.body.content)
        found = resource.get("id")
        if resource.get("resourceType") != "ImagingStudy" or not is_id(found) or imaging_study_id not in (None, found):
            raise not_understood("the answer does not name the ImagingStudy")
        return resource

    def _call(
        self, method: str, target: str, *, resource: Mapping[str, Any] | None = None, deadline: Deadline | None = None,
        headers: Mapping[str, str] | None = None, poll: bool = False,
    ) -> Answer:
        if deadline is None:
            self.governor.admit_call(poll=poll)
        over = deadline or self._session.open_deadline(self._options.request_timeout_s)
        sent = {"Accept": "application/json", **(headers or {})}
        body = None
        if resource is not None:
            sent["Content-Type"] = "application/json"
            body = json.dumps(resource, ensure_ascii=False, separators=(",", ":")).encode()
        answer = self._authorized(lambda authorized: self._session.exchange(
            method, target, headers={**sent, **authorized}, body=body, deadline=over,
            limit_bytes=MAX_IMAGING_STUDY_BYTES), over)
        if answer.meaning is Meaning.THROTTLED:
            self.governor.throttled(answer.retry_after_s)
        return answer

    def _authorized(self, send: Callable[[Mapping[str, str]], Reply], deadline: Deadline) -> Answer:
        """Send with the cached token; after a 401 drop it and send once more with a new one."""
        token = self._tokens.fetch_token(deadline)
        answer = classify(send({"Authorization": f"Bearer {token}"}))
        if answer.meaning is not Meaning.TOKEN:
            return answer
        self._tokens.drop_token(token)
        deadline.sent = False
        token = self._tokens.fetch_token(deadline)
        return classify(send({"Authorization": f"Bearer {token}"}))


def spell_token(value: str) -> list[str]:
    """Return the ways to write `value` in a token search: escaped as FHIR asks, and plain as some servers expect.

    Plain only where no server can read an empty code out of it. Source: FHIR R4 search 3.1.1.4.
    """
    escaped = "".join(f"\\{char}" if char in "\\,|$" else char for char in value)
    if escaped == value or any(not part.strip(" |") for part in value.split(",")):
        return [escaped]
    return [escaped, value]


def _judge_push(answer: Answer, sop_uid: str) -> Pushed:
    """Return the verdict on `sop_uid`; success only where the reply names it."""
    store = answer.body.store
    if answer.meaning is Meaning.OK and store is not None:
        if sop_uid in store.failed:
            return _judge_failed(answer, store, sop_uid)
        if sop_uid in store.stored:
            return Pushed(Verdict.STORED, answer.status, answer.code, "stored")
        raise not_understood("the reply does not name the instance")
    if answer.meaning in (Meaning.EXISTS, Meaning.REFUSED, Meaning.DUPLICATE, Meaning.ABSENT):
        if store is not None and store.failed:
            return _judge_failed(answer, store, sop_uid)
        verdict = Verdict.EXISTS if answer.meaning is Meaning.EXISTS else Verdict.REFUSED
        return Pushed(verdict, answer.status, answer.code, answer.text)
    if answer.meaning in (Meaning.OK, Meaning.SUPPRESSED):
        raise not_understood(f"a push was answered with {answer.body.family}")
    raise build_error(answer)


def _judge_failed(answer: Answer, store: StoreReply, sop_uid: str) -> Pushed:
    if sop_uid not in store.failed:
        raise not_understood("the reply names another instance")
    text = store.failed[sop_uid]
    verdict = Verdict.EXISTS if "already exist" in text.lower() else Verdict.REFUSED
    return Pushed(verdict, answer.status, answer.code, f"HTTP {answer.status}: {text}")


def _segment(uid: str) -> str:
    """Return a UID of an image as one piece of a path, whatever a device wrote there; dots alone lead nowhere else."""
    return quote(uid, safe="") if uid.strip(".") else uid.replace(".", "%2E")


def _resources(bundle: Mapping[str, Any]) -> list[Resource]:
    entries = bundle.get("entry")
    found = [entry.get("resource") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return [resource for resource in found if isinstance(resource, dict)]


def _find_next(bundle: Mapping[str, Any]) -> str | None:
    """Return the query of the "next" link; its host is not ours to follow and may be an inner one of the platform."""
    links = bundle.get("link")
    for link in links if isinstance(links, list) else []:
        if isinstance(link, dict) and link.get("relation") == "next" and isinstance(link.get("url"), str):
            query = urlsplit(link["url"]).query
            return quote(query, safe="%&=+:/?@!$'()*,;-._~") or None
    return None
