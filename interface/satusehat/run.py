"""One step's view of one study at SATUSEHAT: what is known of it, and whether a found ImagingStudy is ours.

Shared by the phases resolve, register, push and confirm. Imports orders and internal.
Changes when a phase has to hand something new to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from interface.satusehat.orders import find_identifiers, find_patient_id, find_reference_id, is_id
from internal.fhir.imaging_study import STUDY_UID_SYSTEM, build_acsn_system, build_uid_value
from internal.model import Instance, Inventory
from internal.ports import Work
from internal.states import Refuse

WITHDRAWN = ("entered-in-error", "cancelled")
MAX_SHOWN = 20

Resource = dict[str, Any]


@dataclass
class Run:
    """A step under way.

    `resource` and `order` are the ImagingStudy and the ServiceRequest as the platform last showed them in this step.
    """

    work: Work
    organization_id: str
    resource: Mapping[str, Any] | None = None
    order: Mapping[str, Any] | None = None
    skip_sop_classes: frozenset[str] = frozenset()

    @property
    def accession_number(self) -> str:
        """Return the accession that is sent: the corrected one, else as received, trimmed; "" is never looked up."""
        return (self.work.job.accession or self.work.job.part).strip(" \0")

    def fact(self, name: str) -> str:
        """Return the fact `name` as text, "" when it is not known."""
        value = self.work.facts.get(name)
        return value if isinstance(value, str) else ""

    def number(self, name: str) -> int:
        """Return the fact `name` as a whole number, -1 when it is not known."""
        value = self.work.facts.get(name)
        return value if isinstance(value, int) else -1

    def inventory(self) -> Inventory:
        """Return everything that is to be at the platform: all that was accepted, without what is not sent."""
        held = self.work.inventory()
        if not self.skip_sop_classes:
            return held
        series = (replace(one, instances=tuple(i for i in one.instances if not self.is_skipped(i)))
                  for one in held.series)
        return replace(held, series=tuple(one for one in series if one.instances))

    def is_skipped(self, instance: Instance) -> bool:
        """Return whether the hospital's setting keeps this instance here."""
        return instance.header.sop_class_uid in self.skip_sop_classes

    def is_of_sibling(self, resource: Mapping[str, Any]) -> bool:
        """Return whether `resource` was registered by this study's own job under another of its accessions."""
        return any(one.get("imaging_study_id") == resource.get("id") for one in self.work.siblings())

    def find_differences(self, resource: Mapping[str, Any]) -> list[str]:
        """Return in what `resource` is not the ImagingStudy of this study and order; empty: it is ours."""
        uids = {value.removeprefix("urn:oid:") for value in find_identifiers(resource, STUDY_UID_SYSTEM)}
        differences = []
        if uids != {self.work.job.study_uid}:
            differences.append("study UID")
        if find_patient_id(resource) != self.fact("patient_id"):
            differences.append("subject")
        if self.fact("service_request_id") not in _orders(resource) and not self.is_of_sibling(resource):
            differences.append("basedOn")
        return differences

    def is_listed(self, resource: Mapping[str, Any]) -> bool:
        """Return whether `resource` names our order and our accession number, beside those of siblings."""
        return (self.fact("service_request_id") in _orders(resource)
                and self.accession_number in find_identifiers(resource, build_acsn_system(self.organization_id)))

    def concerns(self, resource: Mapping[str, Any]) -> bool:
        """Return whether `resource` carries our accession number or our Study Instance UID at all."""
        if not is_id(resource.get("id")):
            return False
        if self.accession_number in find_identifiers(resource, build_acsn_system(self.organization_id)):
            return True
        uids = find_identifiers(resource, STUDY_UID_SYSTEM)
        return build_uid_value(self.work.job.study_uid) in uids or self.work.job.study_uid in uids

    def refuse_foreign(self, resources: list[Mapping[str, Any]]) -> Refuse:
        """Return the outcome for ImagingStudies that are not ours: never touched, both sides shown."""
        differences = sorted({one for resource in resources for one in self.find_differences(resource)})
        ours = {"accession_number": self.accession_number, "study_uid": self.work.job.study_uid,
                "subject": f"Patient/{self.fact('patient_id')}",
                "basedOn": [f"ServiceRequest/{self.fact('service_request_id')}"]}
        theirs = [self._show(resource) for resource in resources[:MAX_SHOWN]]
        return Refuse("foreign-imaging-study",
                      f"SATUSEHAT already has an ImagingStudy here that is not this study's: {', '.join(differences)} "
                      "differ; it was not touched", {"ours": ours, "theirs": theirs, "differences": differences})

    def check(self, resource: Mapping[str, Any]) -> Refuse | None:
        """Return why the registered `resource` must not be touched, None when it may be."""
        if self.find_differences(resource):
            return self.refuse_foreign([resource])
        if resource.get("status") in WITHDRAWN:
            return Refuse("imaging-study-withdrawn", f"the ImagingStudy {resource.get('id')} stands as "
                          f"{resource['status']} at SATUSEHAT", {"theirs": [self._show(resource)]})
        return None

    def _show(self, resource: Mapping[str, Any]) -> Resource:
        return {
            "id": str(resource.get("id", ""))[:64], "status": str(resource.get("status", ""))[:32],
            "accession_number": find_identifiers(resource, build_acsn_system(self.organization_id))[:5],
            "study_uid": [value[:80] for value in find_identifiers(resource, STUDY_UID_SYSTEM)[:5]],
            "subject": f"Patient/{find_patient_id(resource)}",
            "basedOn": [f"ServiceRequest/{one}" for one in _orders(resource)[:5]],
        }


def _orders(resource: Mapping[str, Any]) -> list[str]:
    listed = resource.get("basedOn")
    return [find_reference_id(one, "ServiceRequest") for one in listed] if isinstance(listed, list) else []


def find_sop_uids(resource: Mapping[str, Any]) -> frozenset[str]:
    """Return the SOP Instance UIDs that an ImagingStudy lists."""
    found = set()
    series = resource.get("series")
    for one in series if isinstance(series, list) else []:
        instances = one.get("instance") if isinstance(one, Mapping) else None
        for instance in instances if isinstance(instances, list) else []:
            if isinstance(instance, Mapping) and isinstance(instance.get("uid"), str):
                found.add(instance["uid"])
    return frozenset(found)


def find_inventory_uids(inventory: Inventory) -> frozenset[str]:
    """Return the SOP Instance UIDs of every instance ever accepted."""
    return frozenset(instance.header.sop_uid for instance in inventory.instances)
