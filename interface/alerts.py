"""The lane "alerts": tells people by e-mail and webhook what is wrong, from its own queue, never in the way.

The deliver role's watcher raises alerts and plans a job per alert and channel; a worker calls `step`. A channel that
does not work delays only its own messages. Imports mail, webhook, alert_texts, outbound and internal.
Changes when people can be told over another channel.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from urllib.parse import urlsplit

from interface.alert_texts import Message, build_message, fill_form, fill_json
from interface.mail import MailOptions, send_mail
from interface.outbound import Session, SessionOptions
from interface.webhook import is_inside
from internal.alerts import LANE, Condition
from internal.conditions import Limits
from internal.config import AlertSettings, Settings, environment_name
from internal.errors import CredentialsRefused, Refused, RouterError, Transient
from internal.fhir import dates
from internal.model import Probe
from internal.ports import Work
from internal.states import Finish, Later, Outcome
from internal.watcher import Rule

MAIL, WEBHOOK = "mail", "webhook"
MAX_REPLY_BYTES = 64 * 1024
_TIMEOUT_S = 15.0
_LOGIN_PAUSE_S = 900.0
#: Watched where no [alert:NAME] says anything: shown in pages and API, told to nobody.
DEFAULT_RULE = "default"


@dataclass(frozen=True, kw_only=True)
class AlertsOptions:
    """The rules by name, the mail server (None: none), and how messages are written. `router` names this installation.
    """

    rules: Mapping[str, AlertSettings] = field(repr=False)
    mail: MailOptions | None = None
    router: str = "router"
    language: str = "id"
    zone: tzinfo
    user_agent: str = "satusehat-dicom-router/2.0"
    timeout_s: float = _TIMEOUT_S


class Alerts:
    """Tells one message per step; see ports.Destination."""

    kind = "alert"
    by_accession = True
    name = LANE

    def __init__(self, options: AlertsOptions) -> None:
        self._options = options
        self._sessions: dict[str, Session] = {}

    @property
    def environment(self) -> str:
        """Return the one environment of this lane: a changed address gets what the old one did not take."""
        return LANE

    def may_poll(self) -> bool:
        """Nothing is waited for here."""
        return True

    def report(self) -> dict[str, int]:
        """Nothing slows this lane down."""
        return {}

    def probe(self) -> Iterator[Probe]:
        """Look whether the webhook addresses may be used as they are; sends nothing."""
        for name, rule in self._options.rules.items():
            if not rule.webhook_url:
                continue
            try:
                self._refuse_transport(rule)
                yield Probe(name, True, urlsplit(rule.webhook_url.reveal()).hostname or "")
            except RouterError as fault:
                yield Probe(name, False, str(fault),
                            "Periksa webhook_url dan DNS / check webhook_url and DNS")

    def step(self, work: Work) -> Outcome:
        """Tell the newest state of one alert over one channel; whatever goes wrong, only this message waits."""
        facts = work.facts
        rule = self._options.rules.get(str(facts.get("rule")))
        channel = str(facts.get("channel"))
        if rule is None or channel not in channels_of(rule):
            return Finish("the rule does not tell this any more")
        message = build_message(facts, router=self._options.router, language=self._options.language,
                                zone=self._options.zone)
        try:
            return Finish(self.tell(str(facts["rule"]), rule, channel, message))
        except CredentialsRefused as refusal:
            return Later("mail-login", str(refusal), retry_after_s=_LOGIN_PAUSE_S)
        except Transient as fault:
            raise Transient(str(fault), code=fault.code, retry_after_s=fault.retry_after_s, blame_lane=False) from None

    def tell(self, name: str, rule: AlertSettings, channel: str, message: Message) -> str:
        """Send `message` over one channel now; return whom it was told. Raises Transient, Refused, CredentialsRefused.
        """
        if channel == MAIL:
            if self._options.mail is None:
                raise Refused("no mail server is set in [mail]", code="mail-missing")
            send_mail(self._options.mail, rule.mail_to, f"[SATUSEHAT] {message.title}", message.text)
            return f"told {len(rule.mail_to)} by e-mail"
        return self._post(name, rule, message)

    def send_test(self, name: str, now: int) -> list[tuple[str, bool, str]]:
        """Send a test message of one rule now; return (channel, whether it worked, what was said). Raises KeyError."""
        rule = self._options.rules[name]
        facts = {"rule": name, "news": "test", "condition": str(Condition(rule.when[0])) if rule.when else "waiting",
                 "subject": "", "detail": {}, "raised_at": now, "cleared_at": None}
        message = build_message(facts, router=self._options.router, language=self._options.language,
                                zone=self._options.zone)
        said = []
        for channel in channels_of(rule):
            try:
                said.append((channel, True, self.tell(name, rule, channel, message)))
            except RouterError as fault:
                said.append((channel, False, str(fault)))
        return said

    def close(self) -> None:
        """Close the connections."""
        for session in self._sessions.values():
            session.close()

    def _post(self, name: str, rule: AlertSettings, message: Message) -> str:
        self._refuse_transport(rule)
        parts = urlsplit(rule.webhook_url.reveal())
        form = rule.webhook_type == "form"
        headers = {"Content-Type": "application/x-www-form-urlencoded" if form else "application/json"}
        if rule.webhook_authorization:
            headers["Authorization"] = rule.webhook_authorization.reveal()
        try:
            body = (fill_form if form else fill_json)(rule.webhook_body.reveal(), message.fields)
        except ValueError:
            raise Refused(f"[alert:{name}] webhook_body is no {rule.webhook_type}", code="alert-body") from None
        session = self._session(name, f"{parts.scheme}://{parts.netloc}")
        reply = session.exchange(
            "POST", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), headers=headers, body=body,
            deadline=session.open_deadline(self._options.timeout_s), limit_bytes=MAX_REPLY_BYTES)
        if 200 <= reply.status < 300:
            return f"told {parts.hostname} (HTTP {reply.status})"
        raise Transient(f"{parts.hostname} answered HTTP {reply.status}", code=f"webhook-{reply.status}",
                        retry_after_s=reply.retry_after_s, blame_lane=False)

    def _session(self, name: str, base_url: str) -> Session:
        if name not in self._sessions:
            self._sessions[name] = Session(base_url, SessionOptions(
                user_agent=self._options.user_agent, connect_timeout_s=min(self._options.timeout_s, 10.0),
                stall_timeout_s=self._options.timeout_s, connections=1))
        return self._sessions[name]

    def _refuse_transport(self, rule: AlertSettings) -> None:
        """Raise Refused for http beyond the hospital's network, Transient when DNS knows no such host."""
        parts = urlsplit(rule.webhook_url.reveal())
        if parts.scheme != "https" and not is_inside(parts.hostname or "", parts.port or 80):
            raise Refused(f"http to {parts.hostname} would leave the hospital's network: use https",
                          code="webhook-insecure")


def channels_of(rule: AlertSettings) -> tuple[str, ...]:
    """Return how a rule tells people."""
    return tuple(channel for channel, is_set in ((MAIL, bool(rule.mail_to)), (WEBHOOK, bool(rule.webhook_url)))
                 if is_set)


def build_alerts(settings: Settings) -> Alerts:
    """Return the lane as configured; connects to nothing."""
    mail = settings.mail
    options = MailOptions(host=mail.host, port=mail.port, security=mail.security, user=mail.user,
                          password=mail.password.reveal, sender=mail.sender) if mail.host else None
    return Alerts(AlertsOptions(
        rules=settings.alerts, mail=options, language=settings.router.language,
        zone=dates.zone(settings.satusehat.tz_name), user_agent=settings.satusehat.user_agent,
        router=f"{settings.satusehat.ae_title} @ {socket.gethostname()}"
               f" ({environment_name(settings.satusehat.url)})"))


def build_rules(settings: Settings) -> Sequence[Rule]:
    """Return what is watched; with no [alert:NAME] everything, told to nobody."""
    rules = settings.alerts or {DEFAULT_RULE: AlertSettings()}
    return [_rule(name, rule) for name, rule in rules.items()]


def _rule(name: str, rule: AlertSettings) -> Rule:
    limits = Limits(
        devices=frozenset(rule.devices), silent_hours=rule.silent_hours, waiting_ms=int(rule.waiting * 1000),
        lane_down_ms=int(rule.lane_down * 1000), disk_days=rule.disk_days, clock_off_s=rule.clock_off)
    return Rule(name, tuple(map(Condition, rule.when)), limits, channels_of(rule), int(rule.repeat * 1000))
