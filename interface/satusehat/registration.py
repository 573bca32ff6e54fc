"""The phase `register`: one ImagingStudy for one study and order, never two, never somebody else's.

Between resolve and push. Search first; POST only behind a committed intent; PUT only what was read just before.
Imports client, run and internal. Changes when the rules for creating and updating an ImagingStudy change.
Source: satusehat facts 2.2-2.6; reliability facts 2.5 D22.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interface.logs import PHRASES
from interface.outbound import Session
from interface.satusehat.client import Client, SatusehatOptions
from interface.satusehat.run import Run, find_inventory_uids, find_sop_uids
from internal.errors import CredentialsRefused, NotFound, Refused, Transient, UnknownOutcome
from internal.failpoints import hit
from internal.fhir import union
from internal.fhir.imaging_study import Built, build
from internal.model import Intent, Inventory
from internal.states import NotYet, Outcome, Refuse

CREATE = "create-imaging-study"
MAX_REMARKS = 20
MIN_LAG_RETRY_S = 1.0
MAX_LAG_RETRY_S = 15.0


class Registration:
    """Brings the platform's ImagingStudy up to the revision that the job was claimed with."""

    def __init__(self, options: SatusehatOptions, session: Session, client: Client) -> None:
        self._options = options
        self._session = session
        self._client = client

    def register(self, run: Run) -> Outcome | None:
        """Make `run.resource` the platform's ImagingStudy of this study, listing all of it; None: go on."""
        if not run.fact("imaging_study_id"):
            outcome = self._find_or_create(run)
            if outcome is not None or run.resource is not None:
                return outcome
        return self._update(run)

    def _find_or_create(self, run: Run) -> Outcome | None:
        work = run.work
        intent = work.unanswered_intent(CREATE)
        looked_at = work.clock.now_ms()
        hits = self._search(run)
        foreign = [resource for resource in hits if run.find_differences(resource)]
        if foreign:
            return run.refuse_foreign(foreign)
        if hits:
            if run.is_of_sibling(hits[0]):
                work.event("several-accessions", "This study has several accession numbers: one ImagingStudy names all")
            self._adopt(run, hits, intent)
            return None
        wait = self._find_lag(run, intent, looked_at)
        return wait if wait is not None else self._create(run)

    def _search(self, run: Run) -> list[Mapping[str, Any]]:
        """Return what the platform has under our accession number or our Study Instance UID, oldest first."""
        hits = self._client.fetch_imaging_studies(accession_number=run.accession_number)
        hits += self._client.fetch_imaging_studies(study_uid=run.work.job.study_uid)
        distinct = {str(resource["id"]): resource for resource in hits if run.concerns(resource)}
        return sorted(distinct.values(), key=_age)

    def _adopt(self, run: Run, hits: list[Mapping[str, Any]], intent: Intent | None) -> None:
        found = str(hits[0]["id"])
        run.work.record_facts(imaging_study_id=found, registered_revision=None, duplicate_at=None)
        if intent is not None:
            run.work.close_intent(intent, {"imaging_study_id": found, "found_by": "search"})
        run.work.event("imaging-study-found", f"ImagingStudy found at SATUSEHAT, id: {found}", imaging_study_id=found,
                       others=[str(resource["id"]) for resource in hits[1:]])

    def _find_lag(self, run: Run, intent: Intent | None, looked_at: int) -> NotYet | None:
        """Return how long to wait before a POST may be made: until a lost one would be visible to the search."""
        since, until = -1, -1
        if intent is not None:
            since, until = intent.opened_at, intent.deadline_at
        if run.number("duplicate_at") > until:
            since = until = run.number("duplicate_at")
        over_at = until + round(self._options.index_lag_s * 1000)
        if until < 0 or looked_at >= over_at:
            return None
        return self._wait_for_index((looked_at - since) / 1000, (over_at - looked_at) / 1000)

    def _wait_for_index(self, waited_s: float, left_s: float) -> NotYet:
        retry_s = min(max(waited_s / 2, MIN_LAG_RETRY_S), MAX_LAG_RETRY_S, left_s + 0.05)
        return NotYet("index-lag", "the ImagingStudy may exist at SATUSEHAT without being found yet: looking again",
                      retry_after_s=retry_s)

    def _create(self, run: Run) -> Outcome | None:
        work = run.work
        inventory = run.inventory()
        built = self._build(run, inventory, None)
        work.event("post", PHRASES["posting"])
        self._client.governor.admit_call()
        # The request's deadline begins before the intent's: whatever arrives there arrives before `deadline_at`.
        deadline = self._session.open_deadline(self._options.request_timeout_s)
        intent = work.open_intent(CREATE, self._options.request_timeout_s)
        hit("delivery.before_post")
        try:
            resource = self._client.create_imaging_study(built.resource, deadline)
        except UnknownOutcome as lost:
            work.event("reply-lost", f"The outcome of the POST is not known ({lost.code}); searching before another")
            return self._wait_for_index(0.0, self._options.request_timeout_s + self._options.index_lag_s)
        except Refused as refusal:
            work.close_intent(intent, {"refused": refusal.code, "text": str(refusal)})
            return self._explain_refusal(run, refusal)
        except (Transient, CredentialsRefused, NotFound) as fault:
            work.close_intent(intent, {"not_made": type(fault).__name__, "text": str(fault)})
            raise
        hit("delivery.after_post")
        if run.find_differences(resource):
            work.close_intent(intent, {"foreign": str(resource["id"])})
            return run.refuse_foreign([resource])
        self._record(run, inventory, str(resource["id"]))
        work.close_intent(intent, {"imaging_study_id": str(resource["id"])})
        self._tell(run, built, "posted", PHRASES["posted"].format(imaging_study_id=resource["id"]))
        # With If-None-Exist the answer may be an older resource that does not list everything yet.
        if find_inventory_uids(inventory) <= find_sop_uids(resource):
            run.resource = resource
        else:
            work.record_facts(registered_revision=None, next_register_at=None)
        return None

    def _explain_refusal(self, run: Run, refusal: Refused) -> Outcome:
        now, first = run.work.clock.now_ms(), run.number("duplicate_at")
        if refusal.code != "duplicate":
            return Refuse(refusal.code, f"SATUSEHAT refused the ImagingStudy: {refusal}", {"status": refusal.status})
        if first >= 0 and now >= first + round(self._options.index_lag_s * 1000):
            text = f"SATUSEHAT says that the ImagingStudy exists, but no search finds it: {refusal}"
            return Refuse("duplicate", text, {"status": refusal.status})
        if first < 0:
            run.work.record_facts(duplicate_at=now)
        return self._wait_for_index(0.0, self._options.index_lag_s)

    def _update(self, run: Run) -> Outcome | None:
        """Read the registered resource and PUT it only if it does not say yet what we have to say."""
        work, imaging_study_id = run.work, run.fact("imaging_study_id")
        resource = self._client.read_imaging_study(imaging_study_id)
        if resource is None:
            return refuse_gone(imaging_study_id)
        refusal = run.check(resource)
        if refusal is not None:
            return refusal
        run.resource = resource
        if run.number("registered_revision") >= work.job.revision:
            return None
        inventory = run.inventory()
        built = self._build(run, inventory, resource)
        if built.resource == union.comparable(resource):
            work.record_facts(registered_revision=inventory.revision)
            return None
        pause_s = (run.number("next_register_at") - work.clock.now_ms()) / 1000
        if pause_s > 0:
            text = "the study keeps growing: its ImagingStudy is updated again after a pause"
            return NotYet("re-registration-pause", text, retry_after_s=pause_s)
        return self._put(run, inventory, built, imaging_study_id)

    def _put(self, run: Run, inventory: Inventory, built: Built, imaging_study_id: str) -> Outcome | None:
        # Whoever lost the lease on a slow platform must not put back what another worker has added to since.
        run.work.renew()
        try:
            resource = self._client.update_imaging_study(imaging_study_id, built.resource)
        except Refused as refusal:
            return Refuse(refusal.code, f"SATUSEHAT refused the update of the ImagingStudy: {refusal}",
                          {"status": refusal.status})
        if resource is None:
            return refuse_gone(imaging_study_id)
        run.resource = resource
        self._record(run, inventory, imaging_study_id)
        self._tell(run, built, "put", PHRASES["already_posted"].format(imaging_study_id=imaging_study_id))
        return None

    def _build(self, run: Run, inventory: Inventory, existing: Mapping[str, Any] | None) -> Built:
        return build(
            inventory, organization_id=self._options.organization_id, accession_number=run.accession_number,
            service_request_id=run.fact("service_request_id"), patient_id=run.fact("patient_id"),
            tz_name=self._options.tz_name, now_ms=run.work.clock.now_ms(), existing=existing,
            imaging_study_id=None if existing is None else run.fact("imaging_study_id"),
        )

    def _record(self, run: Run, inventory: Inventory, imaging_study_id: str) -> None:
        count = max(run.number("registrations"), 0) + 1
        options = self._options
        pause_s = min(options.reregister_first_s * 2.0 ** min(count - 1, 30), options.reregister_max_s)
        run.work.record_facts(
            imaging_study_id=imaging_study_id, registered_revision=inventory.revision, registrations=count,
            next_register_at=run.work.clock.now_ms() + round(pause_s * 1000), duplicate_at=None,
        )

    def _tell(self, run: Run, built: Built, code: str, text: str) -> None:
        run.work.event(code, text, instances=built.resource["numberOfInstances"])
        for remark in built.remarks[:MAX_REMARKS]:
            run.work.event(remark.code, remark.text, series_uid=remark.series_uid)


def _age(resource: Mapping[str, Any]) -> tuple[str, str]:
    meta = resource.get("meta")
    return str(meta.get("lastUpdated", "")) if isinstance(meta, Mapping) else "", str(resource["id"])


def refuse_gone(imaging_study_id: str) -> Refuse:
    """Return the outcome for a registered ImagingStudy that SATUSEHAT does not know any more."""
    return Refuse("imaging-study-gone", f"the ImagingStudy {imaging_study_id} does not exist at SATUSEHAT any more",
                  {"imaging_study_id": imaging_study_id})
