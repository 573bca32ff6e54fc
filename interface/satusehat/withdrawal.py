"""Taking back at SATUSEHAT: the ImagingStudy becomes entered-in-error; its instances only the ministry can remove.

`delivery` hands jobs of kind "withdraw" here. Imports client, run and internal. Changes when the platform gets a way
to remove instances. Source: FHIR R4 ImagingStudy.status; satusehat facts 2.4 (no DELETE is offered).
"""

from __future__ import annotations

from interface.satusehat.client import Client
from interface.satusehat.orders import find_identifiers
from interface.satusehat.run import Run
from internal.fhir import union
from internal.fhir.imaging_study import STUDY_UID_SYSTEM, build_uid_value
from internal.states import Finish, Outcome, Refuse

ENTERED_IN_ERROR = "entered-in-error"


def withdraw(client: Client, run: Run) -> Outcome:
    """PUT what stands there with the status entered-in-error and read it in the answer; repeatable, never creates."""
    imaging_study_id = run.fact("imaging_study_id")
    resource = client.read_imaging_study(imaging_study_id)
    if resource is None:
        return Finish("the ImagingStudy does not exist any more")
    if build_uid_value(run.work.job.study_uid) not in find_identifiers(resource, STUDY_UID_SYSTEM):
        return Refuse("foreign-imaging-study", "the ImagingStudy is of another study; it was not touched",
                      {"imaging_study_id": imaging_study_id})
    if resource.get("status") != ENTERED_IN_ERROR:
        updated = client.update_imaging_study(imaging_study_id, {
            **union.comparable(resource), "status": ENTERED_IN_ERROR})
        if updated is not None and updated.get("status") != ENTERED_IN_ERROR:
            return Refuse("withdraw-refused", "SATUSEHAT did not take the status entered-in-error",
                          {"imaging_study_id": imaging_study_id})
    run.work.record_facts(withdrawn_at=run.work.clock.now_ms())
    run.work.event("withdrawn", f"The ImagingStudy {imaging_study_id} stands as entered-in-error at SATUSEHAT")
    return Finish("entered in error; the images themselves only the ministry can remove")
