"""Small real DICOM files with invented patients, one study at a time."""

from __future__ import annotations

import io
import secrets
import time
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from internal.model import Arrival, Header, Instance

#: Neither is the beginning of any UID that `new_study_uid` can make: the one may be replaced by the other in the bytes.
IMPLEMENTATION, OTHER_IMPLEMENTATION = "1.2.826.0.2.99.77", "1.2.826.0.2.99.78"


def make_instance(study_uid: str, number: int, accession: str, *, pixels: int = 512, pad: int = 0,
                  study_date: str | None = None, **changes: Any) -> tuple[Instance, bytes]:
    """One CT instance: its row and its Part 10 bytes; `pad` changes the content, not the UIDs."""
    today = time.strftime("%Y%m%d", time.gmtime(time.time() - 86_400))
    series_uid = f"{study_uid}.1"
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"{series_uid}.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_uid, series_uid
    dataset.StudyDate = today if study_date is None else study_date
    dataset.StudyTime, dataset.Modality, dataset.PatientName = "080000", "CT", "CONTOH^SITI"
    dataset.PatientID, dataset.InstanceNumber, dataset.SeriesNumber = "3171010101010001", number, 1
    dataset.PixelData, dataset["PixelData"].VR = bytes([pad % 256]) * pixels, "OW"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, dataset.SOPInstanceUID
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, IMPLEMENTATION
    dataset.file_meta = meta
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    data = out.getvalue()
    fields = {
        "accession_number": accession, "study_date": dataset.StudyDate, "study_time": "080000", "modality": "CT",
        "series_number": "1", "instance_number": str(number), "study_description": "Kepala",
        "patient_name": "CONTOH^SITI", "patient_id": "3171010101010001",
    } | changes
    header = Header(sop_class_uid=CTImageStorage, sop_uid=dataset.SOPInstanceUID, study_uid=study_uid,
                    series_uid=series_uid, transfer_syntax_uid=ExplicitVRLittleEndian, **fields)
    arrival = Arrival(arrived_at=time.time_ns() // 1_000_000 + number)
    return Instance(id=f"e{number}-{study_uid[-12:]}", header=header, part=accession.strip(" \0"), sha256="",
                    dataset_offset=0, dataset_bytes=len(data), location="spool:n/x", arrival=arrival), data


def new_study_uid() -> str:
    """A Study Instance UID nobody has used."""
    return f"1.2.826.0.1.99.{secrets.randbelow(10**24)}"
