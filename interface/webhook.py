"""The destination "webhook": tells the hospital's system what became of a study, from the outbox, never in the way.

A worker of its own lane calls `step` with a notify job whose facts hold the newest state. Imports outbound, explain and
internal. Changes when the hospital's side wants another form. Source: satusehat facts 3 (three forms, Basic auth).

http is allowed inside the hospital only: to this machine, to private addresses, and to names that resolve to nothing
else. Everything beyond needs https, because the password would travel in the clear.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from interface.explain import explain
from interface.outbound import Session, SessionOptions
from internal.errors import Transient
from internal.fhir.imaging_study import build
from internal.model import Probe
from internal.notices import ENVIRONMENT
from internal.ports import Work
from internal.states import Finish, Later, Outcome

MAX_REPLY_BYTES = 64 * 1024
SUCCESS, FAILED = "SUCCESS", "FAILED"
FORMS = ("simple", "imagingstudy", "reply")
_REPLY_FIELDS = ("resourceType", "id", "identifier", "status", "basedOn")

Resource = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class WebhookOptions:
    """Where and how to tell; `url`, `password` reveal their values only when a request leaves. Times in seconds."""

    url: Callable[[], str] = field(repr=False)
    user: str = ""
    password: Callable[[], str] = field(default=str, repr=False)
    form: str = "simple"
    organization_id: str = ""
    tz_name: str = "Asia/Jakarta"
    language: str = "id"
    timeout_s: float = 10.0
    user_agent: str = "satusehat-dicom-router/2.0"


class Webhook:
    """POSTs one body for each lasting state of a delivery; 2xx is the receipt."""

    kind = "webhook"
    by_accession = True

    def __init__(self, options: WebhookOptions, name: str = "webhook") -> None:
        self.name = name
        self._options = options
        parts = urlsplit(options.url())
        self._scheme, self._host = parts.scheme, parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._session = Session(f"{parts.scheme}://{parts.netloc}", SessionOptions(
            user_agent=options.user_agent, connect_timeout_s=min(options.timeout_s, 10.0),
            stall_timeout_s=options.timeout_s, connections=2))

    @property
    def environment(self) -> str:
        """Return the outbox's one environment: a new address gets what the old one did not take."""
        return ENVIRONMENT

    def may_poll(self) -> bool:
        """Nothing is waited for at a webhook."""
        return True

    def report(self) -> dict[str, int]:
        """Nothing slows a webhook down."""
        return {}

    def step(self, work: Work) -> Outcome:
        """Tell the newest state; whatever the other side does, only this job waits and tries again."""
        body = self._build_body(work)
        if body is None:
            return Finish("nothing to tell in this form")
        refusal = self._refuse_transport()
        if refusal is not None:
            return refusal
        reply = self._session.exchange(
            "POST", self._target, deadline=self._session.open_deadline(self._options.timeout_s),
            headers=self._headers(), body=json.dumps(body, ensure_ascii=False).encode(), limit_bytes=MAX_REPLY_BYTES)
        if 200 <= reply.status < 300:
            return Finish(f"told {self._host} (HTTP {reply.status})")
        lane = reply.status in (401, 403, 404, 429) or reply.status >= 500
        raise Transient(f"{self._host} answered HTTP {reply.status}", code=f"webhook-{reply.status}",
                        retry_after_s=reply.retry_after_s, blame_lane=lane)

    def probe(self) -> Iterator[Probe]:
        """Look whether the address may be used as it is; sends nothing."""
        try:
            refusal = self._refuse_transport()
        except Transient as fault:
            yield Probe("webhook", False, str(fault), "Periksa webhook_url dan DNS / check webhook_url and DNS")
            return
        advice = "Gunakan https, atau alamat jaringan rumah sakit / use https, or an address inside the hospital"
        yield Probe("webhook", refusal is None, refusal.reason if refusal else f"{self._scheme}://{self._host}",
                    advice if refusal else "")

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._options.user:
            pair = f"{self._options.user}:{self._options.password()}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        return headers

    def _build_body(self, work: Work) -> Resource | None:
        facts = work.facts
        accession_number = str(facts.get("accession_number", work.job.part))
        if self._options.form == "simple":
            return build_simple(accession_number, facts, self._options.language)
        if facts.get("state") != "done" or not facts.get("imaging_study_id"):
            return None
        built = build(
            work.inventory(), organization_id=self._options.organization_id, accession_number=accession_number,
            service_request_id=str(facts.get("service_request_id", "")), patient_id=str(facts.get("patient_id", "")),
            tz_name=self._options.tz_name, now_ms=work.clock.now_ms(), imaging_study_id=str(facts["imaging_study_id"]))
        if self._options.form == "reply":
            return {name: built.resource[name] for name in _REPLY_FIELDS if name in built.resource}
        return built.resource

    def _refuse_transport(self) -> Later | None:
        if self._scheme == "https" or is_inside(self._host, self._port):
            return None
        return Later("webhook-insecure", f"http to {self._host} would leave the hospital's network: use https",
                     blame="lane")


def build_simple(accession_number: str, facts: Mapping[str, Any], language: str) -> Resource:
    """Return the short form: accession number, SUCCESS or FAILED, error code, a sentence, and SATUSEHAT's id."""
    done = facts.get("state") == "done"
    code = "" if done else str(facts.get("reason_code", ""))
    body = {"accessionNumber": accession_number, "status": SUCCESS if done else FAILED, "error_code": code,
            "message": "" if done else explain(code).text(language)}
    if facts.get("imaging_study_id"):
        body["imagingStudyId"] = str(facts["imaging_study_id"])
    return body


def is_inside(host: str, port: int) -> bool:
    """Return whether every address of `host` is loopback, private or link-local; Transient when DNS knows none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise Transient(f"DNS does not know {host}", code="dns") from None
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    return bool(addresses) and all(one.is_private or one.is_loopback or one.is_link_local for one in addresses)
