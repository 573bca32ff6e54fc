"""The destination "satusehat": resolve, identify, register, push, confirm; phases derive from facts, never stored.

The worker calls `step` with the job it holds. Each answer of the platform is committed before the next request leaves.
Imports the other modules of this package and internal. Changes when the order of the phases changes.
Source: the map, section 4; satusehat facts 2-4.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

from interface.logs import PHRASES
from interface.outbound import SessionOptions, open_session
from interface.satusehat.audit import Audit
from interface.satusehat.client import Client, SatusehatOptions
from interface.satusehat.governor import Governor, Limits
from interface.satusehat.identification import Identification
from interface.satusehat.oauth2 import Credentials, TokenSource
from interface.satusehat.orders import Accepted, Wanted, choose
from interface.satusehat.probe import probe_platform
from interface.satusehat.pushing import Pushing
from interface.satusehat.registration import Registration, refuse_gone
from interface.satusehat.run import Run, find_inventory_uids, find_sop_uids
from interface.satusehat.withdrawal import withdraw
from internal import withdrawals
from internal.errors import NotFound, Refused
from internal.failpoints import hit
from internal.fhir import dates
from internal.model import LEFT_OUT, Inventory, ItemState, Probe
from internal.ports import Work
from internal.states import Finish, More, NotYet, Outcome, Refuse

MAX_REFUSED_SHOWN = 50
MAX_ITEMS = 100_000
#: Kept-alive connections beside those of the pushes.
SPARE_CONNECTIONS = 8


class Satusehat:
    """Delivers studies to SATUSEHAT; one lane, any number of workers. Tokens, connections and threads are shared."""

    kind = "satusehat"
    by_accession = True

    def __init__(self, options: SatusehatOptions) -> None:
        dates.zone(options.tz_name)
        self.name = options.name
        self._options = options
        self._session = open_session(options.base_url, SessionOptions(
            user_agent=options.user_agent, connect_timeout_s=options.connect_timeout_s,
            stall_timeout_s=options.request_timeout_s, ca_file=options.ca_file, proxy_url=options.proxy_url,
            connections=options.push_parallel + SPARE_CONNECTIONS))
        self._tokens = TokenSource(
            self._session, Credentials(options.client_key, options.secret), token_path=options.token_path,
            refusal_interval_s=options.refusal_interval_s)
        self._governor = Governor(Limits(
            options.fhir_per_minute, options.push_parallel, options.bandwidth_bytes_per_s))
        self._client = Client(options, self._session, self._tokens, self._governor)
        self._identification = Identification(self._client)
        self._registration = Registration(options, self._session, self._client)
        self.audit = Audit(self._client)
        self._pushing = Pushing(self._client, options.push_parallel)

    @property
    def environment(self) -> str:
        """Return base URL and organization: what facts, receipts and tokens are keyed by."""
        return f"{self._options.base_url}|{self._options.organization_id}"

    def limit_bandwidth(self, bytes_per_s: int) -> None:
        """Use at most so many bytes per second for images from now on; 0: no limit."""
        self._governor.limit_bandwidth(bytes_per_s)

    def step(self, work: Work) -> Outcome:
        """Bring the study as far as it goes; see ports.Destination for what may be raised."""
        run = Run(work, self._options.organization_id, skip_sop_classes=self._options.skip_sop_classes)
        return self._step(run)

    def _step(self, run: Run) -> Outcome:
        try:
            if run.work.job.kind == withdrawals.KIND:
                return withdraw(self._client, run)
            for phase in (self._set_aside, self._resolve, self._identification.identify, self._registration.register,
                          self._pushing.push):
                outcome = phase(run)
                if outcome is not None:
                    return outcome
            return self._confirm(run)
        except NotFound as withheld:
            return NotYet("withheld", f"SATUSEHAT shows nothing here: {withheld}")
        except Refused as refusal:
            return Refuse(refusal.code, f"SATUSEHAT refused: {refusal}", {"status": refusal.status})

    def may_poll(self) -> bool:
        """Return whether the waiting room may ask for an order now."""
        return self._governor.may_poll()

    def report(self) -> dict[str, Any]:
        """Return how far the lane is slowed down, push times, and how far the platform's clock is ahead."""
        offset_s = self._session.clock_offset_s
        report: dict[str, Any] = {**self._governor.report(), "push_ms": self._client.push_times.shown()}
        return report | ({} if offset_s is None else {"clock_offset_s": round(offset_s)})

    def probe(self) -> Iterator[Probe]:
        """Try DNS, TLS, token, FHIR and DICOM endpoint, one line each, until one fails."""
        return probe_platform(self._options, self._session, self._tokens, self._client)

    def read_client_flag(self) -> bool:
        """Return whether the platform wants MROC clients to be used."""
        return self._client.read_client_flag()

    def close(self) -> None:
        """End the threads and close the connections."""
        self._pushing.close()
        self._session.close()

    def _set_aside(self, run: Run) -> Outcome | None:
        """Mark what the hospital keeps here, once for each revision; a study of nothing else is done."""
        work, skip = run.work, self._options.skip_sop_classes
        if not skip or run.number("skipped_revision") >= work.job.revision:
            return None
        due = work.items((ItemState.DUE,), MAX_ITEMS)
        kept = [item for item in due if run.is_skipped(item.instance)]
        if kept:
            answer = {"at": work.clock.now_ms(), "text": "kept here: skip_sop_classes"}
            work.settle_items([(item, ItemState.SKIPPED, answer) for item in kept])
            work.event("skipped", f"{len(kept)} images are kept here and not sent (skip_sop_classes)")
        if not run.inventory().instances:
            return Finish("nothing of it is sent (skip_sop_classes)")
        work.record_facts(skipped_revision=work.job.revision)
        return None

    def _resolve(self, run: Run) -> Outcome | None:
        """Find the order once; an empty accession number is never looked up."""
        work = run.work
        if run.fact("service_request_id") and run.fact("patient_id"):
            return None
        if not run.accession_number:
            return NotYet("no-accession", "the images carry no accession number: no order can be looked up")
        if work.job.waiting_since is None:
            work.event("order-search", PHRASES["obtaining_ids"])
        found = self._client.fetch_service_requests(run.accession_number, poll=work.job.waiting_since is not None)
        chosen = choose(found, Wanted(
            self._options.organization_id, run.accession_number, self._find_study_day(run.inventory(), work),
            self._options.order_window_s, self._options.tz_name))
        if not isinstance(chosen, Accepted):
            return chosen
        work.record_facts(service_request_id=chosen.service_request_id, patient_id=chosen.patient_id)
        run.order = chosen.order
        work.event("order-found", PHRASES["obtained_ids"],
                   service_request_id=chosen.service_request_id)
        return None

    def _find_study_day(self, inventory: Inventory, work: Work) -> date:
        """Return the study date of the first instance that has a plausible one, else the day of receipt."""
        now = work.clock.now_ms()
        for instance in sorted(inventory.instances, key=lambda i: (i.arrival.arrived_at, i.id)):
            day = dates.parse_plausible_da(instance.header.study_date, now)
            if day is not None:
                return day
        return dates.build_local_day(inventory.first_arrived_at, tz_name=self._options.tz_name)

    def _confirm(self, run: Run) -> Outcome:
        """Read the ImagingStudy back and compare it with everything accepted; only then is the study done."""
        work = run.work
        imaging_study_id = run.fact("imaging_study_id")
        resource = self._client.read_imaging_study(imaging_study_id)
        if resource is None:
            return refuse_gone(imaging_study_id)
        refusal = run.check(resource)
        if refusal is not None:
            return refusal
        missing = find_inventory_uids(run.inventory()) - find_sop_uids(resource)
        if missing or not run.is_listed(resource):
            work.record_facts(registered_revision=None)
            return NotYet("registration-changed", f"the ImagingStudy does not list {len(missing)} of the instances: "
                          "it will be updated", retry_after_s=1.0)
        outcome = self.audit.compare_unproven(run)
        if outcome is None and self._options.confirm_images:
            outcome = self.audit.ask_for_stored(run)
        if outcome is not None:
            return outcome
        counts = work.count_items()
        if counts.get(ItemState.DUE, 0) or counts.get(ItemState.SENT, 0):
            return More()
        work.record_facts(confirmed_at=work.clock.now_ms())
        return self._conclude(work, counts)

    def _conclude(self, work: Work, counts: dict[ItemState, int]) -> Outcome:
        total = sum(count for state, count in counts.items() if state not in LEFT_OUT)
        unverified = counts.get(ItemState.UNVERIFIED, 0)
        unread = counts.get(ItemState.UNREAD, 0)
        arrived = counts.get(ItemState.STORED, 0) + unverified + unread
        if arrived < total:
            refused = work.items((ItemState.REFUSED, ItemState.CONFLICT), MAX_REFUSED_SHOWN)
            detail = {"arrived": arrived, "total": total, "refused": [
                {"sop_uid": item.instance.header.sop_uid, "answer": dict(item.answer)} for item in refused]}
            text = f"partly delivered {arrived}/{total}: SATUSEHAT refused the others"
            return Refuse("partly-delivered", text, detail)
        hit("study.before_done")
        work.event("sent", PHRASES["sent"], instances=total)
        notes = [f"{unverified} were there already, content not verified"] if unverified else []
        notes += [f"{unread} accepted, reply not understood"] if unread else []
        return Finish("; ".join(notes))
