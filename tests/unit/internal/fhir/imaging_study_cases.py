"""Invented studies for the golden files.

`python -m tests.unit.internal.fhir.imaging_study_cases` writes the files anew: read the difference before committing
it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internal.fhir.imaging_study import Built, build
from internal.model import Arrival, Header, Instance, Inventory, Series

GOLDEN = Path(__file__).parent / "golden"
NOW_MS = 1_760_000_000_000  # 2025-10-09T08:53:20Z
STUDY_UID = "1.2.826.0.1.99.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


def make_instance(sop_uid: str, *, series_uid: str = f"{STUDY_UID}.1", arrived_at: int = NOW_MS - 60_000,
                  sop_class_uid: str = DX, **fields: Any) -> Instance:
    """One accepted instance with invented values; `fields` are those of Header."""
    given = {
        "modality": "DX", "study_date": "20251009", "study_time": "101112.123", "series_date": "20251009",
        "series_time": "101200", "series_number": "1", "instance_number": "1", "image_type": ("ORIGINAL", "PRIMARY"),
        "study_description": "Thorax PA", "series_description": "PA", "accession_number": "RAD2510090001",
        "patient_name": "CONTOH^BUDI", "patient_id": "3171010101010001", "patient_birth_date": "19800101",
    } | fields
    header = Header(sop_class_uid=sop_class_uid, sop_uid=sop_uid, study_uid=STUDY_UID, series_uid=series_uid,
                    transfer_syntax_uid="1.2.840.10008.1.2.1", **given)
    return Instance(id=f"e-{sop_uid}", header=header, part="RAD2510090001", sha256="0" * 64, dataset_offset=300,
                    dataset_bytes=1000, location="spool:n1/x", arrival=Arrival(arrived_at=arrived_at))


def make_inventory(*instances: Instance, revision: int = 1) -> Inventory:
    """An inventory of `instances`, series in the order of first appearance."""
    series: dict[str, list[Instance]] = {}
    for instance in instances:
        series.setdefault(instance.header.series_uid, []).append(instance)
    return Inventory(study_uid=STUDY_UID, part="RAD2510090001", revision=revision, first_arrived_at=NOW_MS - 60_000,
                     series=tuple(Series(uid, tuple(members)) for uid, members in series.items()))


def make(inventory: Inventory, existing: Mapping[str, Any] | None = None, **changes: Any) -> Built:
    """`build` with the arguments the golden files are made with."""
    arguments: dict[str, Any] = {
        "organization_id": "100099001", "accession_number": "RAD2510090001", "patient_id": "P01234567890",
        "service_request_id": "0b9f6c52-6f0e-4c55-9a53-3f0c1d7e2a10", "tz_name": "Asia/Jakarta", "now_ms": NOW_MS,
        "existing": existing, "imaging_study_id": None if existing is None else existing.get("id"),
    } | changes
    return build(inventory, **arguments)


@dataclass(frozen=True)
class Case:
    """A named study and what the platform already holds of it."""

    name: str
    inventory: Inventory
    existing: Mapping[str, Any] | None = None


def _one(**fields: Any) -> Inventory:
    return make_inventory(make_instance("1.2.3.1", **fields))


FOREIGN = {
    "resourceType": "ImagingStudy", "id": "6a1f0000-0000-4000-8000-000000000001",
    "meta": {"versionId": "MTc", "lastUpdated": "2025-10-09T01:00:00+00:00", "tag": [{"code": "kept"}]},
    "identifier": [
        {"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY_UID}"},
        {"system": "http://sys-ids.kemkes.go.id/acsn/100099001", "value": "RAD2510090001", "use": "usual"},
        {"system": "http://sys-ids.kemkes.go.id/creator", "value": "100099001"},
    ],
    "status": "registered", "subject": {"reference": "Patient/P01234567890"},
    "basedOn": [{"reference": "ServiceRequest/0b9f6c52-6f0e-4c55-9a53-3f0c1d7e2a10"}],
    "modality": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "OT"}],
    "started": "2025-10-09T00:00:00", "description": "Diperbaiki oleh radiografer", "endpoint": [],
    "note": [{"text": "ditambahkan di SATUSEHAT"}], "numberOfSeries": 2, "numberOfInstances": 2,
    "series": [
        {"uid": f"{STUDY_UID}.9", "modality": {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "SR"},
         "numberOfInstances": 1,
         "instance": [{"uid": "9.9.9", "sopClass": {"system": "urn:ietf:rfc:3986",
                                                    "code": "urn:oid:1.2.840.10008.5.1.4.1.1.88.22"}}]},
        {"uid": f"{STUDY_UID}.1", "description": "No Description", "bodySite": {"code": "51185008"},
         "modality": {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "OT"},
         "instance": [{"uid": "9.9.8", "number": 7, "sopClass": {"system": "urn:ietf:rfc:3986",
                                                                 "code": f"urn:oid:{DX}"}}]},
    ],
}

CASES = [
    Case("normal", _one()),
    Case("two_series_sorted", make_inventory(
        make_instance("1.2.3.12", series_uid="1.2.9", series_number="10", sop_class_uid=CT, modality="CT",
                      instance_number="2", series_description="Thorax 5mm"),
        make_instance("1.2.3.11", series_uid="1.2.9", series_number="10", sop_class_uid=CT, modality="CT",
                      instance_number="1", series_description="Thorax 5mm"),
        make_instance("1.2.3.10", series_uid="1.2.8", series_number="2", sop_class_uid=CT, modality="CT",
                      instance_number="10", series_description="Scout"))),
    Case("no_times", _one(study_time="", series_time="")),
    Case("short_times", _one(study_time="1011", series_time="10")),
    Case("impossible_times", _one(study_time="240000", series_time="126099")),
    Case("no_dates", _one(study_date="", series_date="", study_time="101112")),
    Case("impossible_dates", _one(study_date="00000000", series_date="20231301")),
    Case("future", _one(study_date="20251010", series_date="20991231")),
    Case("too_old", _one(study_date="19000101", series_date="20100101")),
    Case("device_offset", _one(timezone_offset="+0900", study_time="101112")),
    Case("bad_offset", _one(timezone_offset="+9900", study_time="101112")),
    Case("no_numbers", _one(series_number="", instance_number="")),
    Case("bad_numbers", _one(series_number="A1", instance_number="-4")),
    Case("no_modality", _one(modality="", sop_class_uid=CT)),
    Case("unknown_everything", _one(modality="ZZ", sop_class_uid="1.2.3.4.5", image_type=())),
    Case("dr", _one(modality="DR")),
    Case("single_image_type", _one(image_type=("DERIVED",))),
    Case("no_image_type", _one(image_type=())),
    Case("no_descriptions", _one(study_description="", series_description="  ")),
    Case("non_ascii", _one(study_description="Röntgen ‘dada’ 胸部\x1b[0m\r\nbaris", series_description="Kepala – é")),
    Case("sr_ko_pr", make_inventory(
        make_instance("1.2.3.1", series_uid="1.2.1", series_number="1", modality="SR",
                      sop_class_uid="1.2.840.10008.5.1.4.1.1.88.22", image_type=()),
        make_instance("1.2.3.2", series_uid="1.2.2", series_number="2", modality="PR",
                      sop_class_uid="1.2.840.10008.5.1.4.1.1.11.1", image_type=()),
        make_instance("1.2.3.3", series_uid="1.2.3", series_number="3", modality="KO",
                      sop_class_uid="1.2.840.10008.5.1.4.1.1.88.59", image_type=()),
        make_instance("1.2.3.4", series_uid="1.2.4", series_number="4", modality="CT", sop_class_uid=CT))),
    Case("late_image", make_inventory(
        make_instance("1.2.3.2", instance_number="2", arrived_at=NOW_MS - 1_000, study_description="Lain"),
        make_instance("1.2.3.1", arrived_at=NOW_MS - 60_000))),
    Case("united", _one(), FOREIGN),
]


def golden_path(case: Case) -> Path:
    """Where the golden file of `case` lies."""
    return GOLDEN / f"{case.name}.json"


def as_golden(built: Built) -> dict[str, Any]:
    """What a golden file holds."""
    return {
        "remarks": [[remark.code, remark.text, remark.series_uid] for remark in built.remarks],
        "resource": built.resource,
    }


if __name__ == "__main__":
    for each in CASES:
        text = json.dumps(as_golden(make(each.inventory, each.existing)), indent=1, ensure_ascii=False)
        golden_path(each).write_text(text + "\n", encoding="utf-8")
