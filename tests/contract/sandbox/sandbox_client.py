"""A real sandbox process on a free port, a small client for it, and builders of valid requests."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, generate_uid

ROOT = Path(__file__).resolve().parents[3]
ORG = "100099001"
ACSN = f"http://sys-ids.kemkes.go.id/acsn/{ORG}"
DCM = "http://dicom.nema.org/resources/ontology/DCM"
READY = "SATUSEHAT sandbox ready on "


class Sandbox:
    """One sandbox process and an HTTP session that talks to it."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        command = [sys.executable, "-m", "sandbox", "--port", "0", "--data", str(data), *arguments]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline().strip()
        self.errors: list[str] = []
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()
        if not line.startswith(READY):
            self.stop()
            raise AssertionError(f"not ready: {line!r} {self.errors}")
        self.url = line.removeprefix(READY)
        self.address = (self.url.split("/")[2].split(":")[0], int(self.url.rsplit(":", 1)[1]))
        self.session = requests.Session()
        self._token = ""

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line)

    def control(self, method: str, path: str, body: Any = None, status: int | None = None) -> Any:
        answer = self.session.request(method, f"{self.url}/_sandbox{path}", json=body, timeout=30)
        assert status is None or answer.status_code == status, answer.text
        assert status is not None or answer.ok, answer.text
        return answer.json()

    def fetch_token(self, **form: str) -> requests.Response:
        credentials = {"client_id": "sandbox-client", "client_secret": "sandbox-secret", **form}
        return self.session.post(f"{self.url}/oauth2/v1/accesstoken?grant_type=client_credentials", data=credentials,
                                 timeout=30)

    @property
    def bearer(self) -> dict[str, str]:
        if not self._token:
            self._token = self.fetch_token().json()["access_token"]
        return {"Authorization": f"Bearer {self._token}"}

    def forget_token(self) -> None:
        """Fetch a new token for the next request: somebody may have revoked this one."""
        self._token = ""

    def fhir(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        return self.session.request(method, f"{self.url}/fhir-r4/v1{path}", json=body,
                                    headers={**self.bearer, **headers}, timeout=30)

    def push(self, data: Any, study_id: str = "", **headers: str) -> requests.Response:
        named = {"Content-Type": "application/dicom", "Accept": "application/dicom+json", **self.bearer}
        if study_id:
            named["X-ImagingStudy-ID"] = study_id
        return self.session.post(f"{self.url}/dicom/v1/dicomWeb/studies", data=data,
                                 headers={**named, **headers}, timeout=60)

    def state(self) -> Any:
        return self.control("GET", "/state")

    def order(self, accession: str, **fields: Any) -> dict[str, str]:
        made: dict[str, str] = self.control("POST", "/orders", {"accession_number": accession, **fields}, 201)
        return made

    def raw(self, data: bytes) -> bytes:
        """Send bytes, then read until the peer closes or nothing comes for five seconds."""
        with socket.create_connection(self.address, timeout=5) as sock:
            sock.sendall(data)
            received = b""
            try:
                while piece := sock.recv(65_536):
                    received += piece
            except (ConnectionResetError, TimeoutError):
                pass
            return received

    def kill(self) -> None:
        self.process.kill()
        self._gone()

    def stop(self) -> int:
        self.process.terminate()
        return self._gone()

    def _gone(self) -> int:
        status = self.process.wait(20)
        self._reader.join(20)
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()
        if hasattr(self, "session"):
            self.session.close()
        return status


def until(condition: Callable[[], Any], what: str, within_s: float = 15.0) -> Any:
    """Poll `condition` until it is true; fails with `what` after `within_s`."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {within_s} s: {what}")


def make_instance(study: str, series: str, sop: str, pixels: bytes = b"\1\2" * 64,
                  syntax: str = "1.2.840.10008.1.2.1", **fields: Any) -> bytes:
    """A small CT instance as Part 10 bytes, written by pydicom."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, sop
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.PatientName, dataset.Modality = "Contoh^Pasien", "CT"
    for name, value in fields.items():
        setattr(dataset, name, value)
    dataset.Rows, dataset.Columns, dataset.BitsAllocated, dataset.SamplesPerPixel = 8, 8, 16, 1
    dataset.add_new(0x7FE00010, "OW", pixels)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, sop
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def build_imaging_study(order: dict[str, str], study: str, series: str, sops: list[str]) -> dict[str, Any]:
    """A valid ImagingStudy for an order (fact sheet section 5)."""
    return {
        "resourceType": "ImagingStudy", "status": "available",
        "identifier": [
            {"use": "usual", "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203",
                                                  "code": "ACSN"}]},
             "system": ACSN, "value": order["accession_number"]},
            {"system": "urn:dicom:uid", "value": f"urn:oid:{study}"}],
        "modality": [{"system": DCM, "code": "CT"}],
        "subject": {"reference": f"Patient/{order['patient_id']}"}, "started": "2025-01-02T03:04:05+07:00",
        "basedOn": [{"reference": f"ServiceRequest/{order['service_request_id']}"}],
        "numberOfSeries": 1, "numberOfInstances": len(sops), "description": "Kepala",
        "series": [{"uid": series, "number": 1, "modality": {"system": DCM, "code": "CT"}, "description": "PA",
                    "numberOfInstances": len(sops), "started": "2025-01-02T03:04:10+07:00",
                    "instance": [{"uid": sop, "number": number, "title": "ORIGINAL\\PRIMARY",
                                  "sopClass": {"system": "urn:ietf:rfc:3986",
                                               "code": "urn:oid:1.2.840.10008.5.1.4.1.1.2"}}
                                 for number, sop in enumerate(sops, 1)]}]}


class Study:
    """An order with its registered ImagingStudy and the bytes of its instances."""

    def __init__(self, sandbox: Sandbox, accession: str, instances: int = 1) -> None:
        self.order = sandbox.order(accession)
        self.uid, self.series = generate_uid(), generate_uid()
        self.sops = [generate_uid() for _ in range(instances)]
        self.files = [make_instance(self.uid, self.series, sop) for sop in self.sops]
        answer = sandbox.fhir("POST", "/ImagingStudy", self.resource())
        assert answer.status_code == 201, answer.text
        self.id = answer.json()["id"]

    def resource(self) -> dict[str, Any]:
        return build_imaging_study(self.order, self.uid, self.series, self.sops)


def build_observation(study: Study, **fields: Any) -> dict[str, Any]:
    """A valid reading of a study (fact sheet section 6.3)."""
    order = study.order
    return {"resourceType": "Observation", "status": "final",
            "code": {"coding": [{"system": "http://loinc.org", "code": "24648-8"}]},
            "subject": {"reference": f"Patient/{order['patient_id']}"},
            "encounter": {"reference": f"Encounter/{order['encounter_id']}"},
            "performer": [{"reference": f"Practitioner/{order['practitioner_id']}"}],
            "basedOn": [{"reference": f"ServiceRequest/{order['service_request_id']}"}],
            "derivedFrom": [{"reference": f"ImagingStudy/{study.id}"}], "valueString": "Normal", **fields}


def build_report(study: Study, observation_id: str, **fields: Any) -> dict[str, Any]:
    """A valid report on a study (fact sheet section 6.4)."""
    order = study.order
    return {"resourceType": "DiagnosticReport", "status": "final",
            "identifier": [{"system": f"http://sys-ids.kemkes.go.id/diagnostic/{ORG}/rad", "value": "REP-1"}],
            "code": {"coding": [{"system": "http://loinc.org", "code": "24648-8"}]},
            "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD"}]}],
            "subject": {"reference": f"Patient/{order['patient_id']}"},
            "encounter": {"reference": f"Encounter/{order['encounter_id']}"},
            "performer": [{"reference": f"Practitioner/{order['practitioner_id']}"},
                          {"reference": f"Organization/{ORG}"}],
            "imagingStudy": [{"reference": f"ImagingStudy/{study.id}"}],
            "result": [{"reference": f"Observation/{observation_id}"}],
            "basedOn": [{"reference": f"ServiceRequest/{order['service_request_id']}"}],
            "issued": "2025-01-02T02:05:00+00:00", "conclusion": "Tidak tampak kelainan", **fields}
