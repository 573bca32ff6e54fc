"""The DICOM store: STOW-RS of one or many instances, HEAD and GET of one.

Between the dispatcher and `instances`. Imports `multipart`, `part10`, `uploads`, `resources`. Changes when the
platform's DICOM endpoint changes. Source: PS3.18 section 10.5, fact sheet satusehat.md section 3.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from sandbox.catalogue import values_at
from sandbox.http11 import HttpRefused, Reply, Request
from sandbox.instances import InstanceTable, Kept
from sandbox.multipart import MultipartReader, parse_boundary
from sandbox.options import ORGANIZATION_ID, Options
from sandbox.outcome import build_one
from sandbox.part10 import NotDicom, Part10Head
from sandbox.resources import ResourceTable
from sandbox.uploads import Upload

DICOM_PATH = "/dicom/v1/dicomWeb/studies"
FAILURE_REASON = 272
ACSN_SYSTEM = f"http://sys-ids.kemkes.go.id/acsn/{ORGANIZATION_ID}"
CACHED_STUDIES = 256

_VRS = {"00081150": "UI", "00081155": "UI", "00081190": "UR", "00081197": "US", "00081198": "SQ", "00081199": "SQ",
        "00090097": "LT"}
_KEYWORDS = {"00081150": "ReferencedSOPClassUID", "00081155": "ReferencedSOPInstanceUID", "00081190": "RetrieveURL",
             "00081197": "FailureReason", "00081198": "FailedSOPSequence", "00081199": "ReferencedSOPSequence"}

Attributes = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Registered:
    """What an ImagingStudy of one version says about itself."""

    version_ns: int
    ours: bool
    study_uids: frozenset[str]
    instances: frozenset[tuple[str, str]]


class DicomStore:
    """Stores and returns instances."""

    def __init__(self, instances: InstanceTable, resources: ResourceTable, options: Options) -> None:
        self._instances = instances
        self._resources = resources
        self._options = options
        self._registered: dict[str, Registered] = {}

    def store(self, request: Request, study_uid: str | None, base_url: str) -> Reply:
        """STOW-RS: 200 all stored, 202 some, 409 none; 400 when X-ImagingStudy-ID does not allow them.

        Same UIDs and bytes count again, same UIDs and other bytes are a failure with reason 272.
        A body that is cut short stores nothing.
        """
        study_id = request.headers.get("x-imagingstudy-id", "")
        registered = self._registration(study_id) if self._options.strict_imagingstudy_id else None
        if isinstance(registered, str):
            return build_one("value", registered)
        stored: list[Attributes] = []
        failed: list[Attributes] = []
        with contextlib.ExitStack() as stack:
            uploads: list[Upload] = []
            for pieces in _parts(request):
                try:
                    uploads.append(stack.enter_context(self._instances.uploads.receive(pieces)))
                except NotDicom as error:
                    failed.append(_failure(None, str(error)))
            for upload in uploads:
                if registered and (problem := _not_registered(registered, upload.head)):
                    return build_one("value", problem)
            for upload in uploads:
                self._keep(upload, study_id, study_uid, base_url, stored, failed)
        status = 409 if not stored else 202 if failed else 200
        studies = sorted({upload.head.study_uid for upload in uploads})
        return _build_store_reply(request, status, f"{base_url}{DICOM_PATH}", studies, stored, failed)

    def _keep(self, upload: Upload, study_id: str, study_uid: str | None, base_url: str, stored: list[Attributes],
              failed: list[Attributes]) -> None:
        head = upload.head
        if study_uid is not None and study_uid != head.study_uid:
            failed.append(_failure(head, "Study Instance UID of path and instance differ"))
            return
        url = f"{base_url}{instance_path(head)}"
        if self._instances.keep(upload, study_id) is Kept.CONFLICT:
            failed.append(_failure(head, f"Instance already exists: {url} already exists"))
        else:
            stored.append({"00081150": head.sop_class_uid, "00081155": head.sop_uid, "00081190": url})

    def _registration(self, study_id: str) -> Registered | str:
        """The ImagingStudy named by the header, or the text of what is wrong with it."""
        if not study_id:
            return "Header X-ImagingStudy-ID is missing"
        version_ns = self._resources.version_ns("ImagingStudy", study_id)
        if version_ns is None:
            return f"X-ImagingStudy-ID: Resource not found ImagingStudy/{study_id[:64]}"
        found = self._registered.get(study_id)
        if found is None or found.version_ns != version_ns:
            found = self._read_registration(study_id)
            if len(self._registered) >= CACHED_STUDIES:
                self._registered.clear()
            self._registered[study_id] = found
        if not found.ours:
            return "X-ImagingStudy-ID: this ImagingStudy belongs to another organization"
        return found

    def _read_registration(self, study_id: str) -> Registered:
        stored = self._resources.read("ImagingStudy", study_id)
        if stored is None:
            return Registered(0, False, frozenset(), frozenset())
        resource = stored.resource()
        identifiers = [one for _, one in values_at(resource, "identifier") if isinstance(one, dict)]
        return Registered(
            stored.version_ns, any(one.get("system") == ACSN_SYSTEM for one in identifiers),
            frozenset(str(one.get("value")).removeprefix("urn:oid:") for one in identifiers
                      if one.get("system") == "urn:dicom:uid"),
            frozenset((str(series.get("uid")), str(uid)) for _, series in values_at(resource, "series")
                      if isinstance(series, dict) for _, uid in values_at(series, "instance.uid")))

    def retrieve(self, request: Request, study_uid: str, series_uid: str, sop_uid: str) -> Reply:
        """GET or HEAD of one instance: the bytes as received, single part; 404 when it is not here."""
        path = self._instances.find(study_uid, series_uid, sop_uid)
        if path is None:
            return Reply(404)
        return Reply(200, b"", "application/dicom", path=path)


def instance_path(head: Part10Head) -> str:
    """The WADO-RS path of an instance."""
    return f"{DICOM_PATH}/{head.study_uid}/series/{head.series_uid}/instances/{head.sop_uid}"


def _parts(request: Request) -> Iterator[Iterator[bytes | memoryview]]:
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/dicom":
        yield request.body.chunks()
    elif kind == "multipart/related":
        reader = MultipartReader(request.body.chunks(), parse_boundary(content_type))
        for headers, pieces in reader.parts():
            if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/dicom":
                raise HttpRefused(415, "every part must be application/dicom")
            yield pieces
        for _ in request.body.chunks():
            pass
    else:
        raise HttpRefused(415, "Content-Type must be application/dicom or multipart/related")


def _not_registered(registered: Registered, head: Part10Head) -> str:
    if registered.study_uids and head.study_uid not in registered.study_uids:
        return f"X-ImagingStudy-ID: the ImagingStudy is not about study {head.study_uid}"
    if (head.series_uid, head.sop_uid) not in registered.instances:
        return f"X-ImagingStudy-ID: the ImagingStudy does not list instance {head.sop_uid} in series {head.series_uid}"
    return ""


def _failure(head: Part10Head | None, detail: str) -> Attributes:
    uids = {"00081150": head.sop_class_uid, "00081155": head.sop_uid} if head else {}
    return {**uids, "00081197": FAILURE_REASON, "00090097": detail}


def _build_store_reply(request: Request, status: int, studies_url: str, studies: list[str], stored: list[Attributes],
                       failed: list[Attributes]) -> Reply:
    found: Attributes = {}
    if stored and len(studies) == 1:
        found["00081190"] = f"{studies_url}/{studies[0]}"
    if failed:
        found["00081198"] = failed
    if stored:
        found["00081199"] = stored
    accept = request.headers.get("accept", "").lower()
    if "application/dicom+json" in accept or "application/json" in accept:
        text = json.dumps(build_dicom_json(found), separators=(",", ":"))
        return Reply(status, text.encode(), "application/dicom+json")
    return Reply(status, build_native_xml(found).encode(), "application/dicom+xml")


def build_dicom_json(attributes: Attributes) -> dict[str, Any]:
    """DICOM JSON Model of `attributes` (tag -> value, or list of items). Source: PS3.18 annex F."""
    return {tag: {"vr": _VRS[tag], "Value": [build_dicom_json(item) for item in value] if isinstance(value, list)
                  else [value]} for tag, value in attributes.items()}


def build_native_xml(attributes: Attributes) -> str:
    """Native DICOM Model of `attributes`. Source: PS3.19 section A.1."""
    return f'<?xml version="1.0" encoding="UTF-8"?><NativeDicomModel>{_xml(attributes)}</NativeDicomModel>'


def _xml(attributes: Attributes) -> str:
    found = []
    for tag, value in attributes.items():
        name = f' keyword="{_KEYWORDS[tag]}"' if tag in _KEYWORDS else ' privateCreator="GOOGLE"'
        if isinstance(value, list):
            inner = "".join(f'<Item number="{number}">{_xml(item)}</Item>' for number, item in enumerate(value, 1))
        else:
            inner = f'<Value number="1">{escape(str(value))}</Value>'
        found.append(f'<DicomAttribute tag="{tag}" vr="{_VRS[tag]}"{name}>{inner}</DicomAttribute>')
    return "".join(found)
