"""Small synthetic studies, made by script: own UIDs, an invented patient, any accession number."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

from internal import dicomfile


@dataclass(frozen=True, slots=True)
class Image:
    """One file to send, with the identity of its data set bytes."""

    path: Path
    sop_uid: str
    study_uid: str
    dataset_sha256: str


@dataclass(frozen=True, slots=True)
class Study:
    """A synthetic study and what its order needs."""

    study_uid: str
    accession_number: str
    patient_id: str
    modality: str
    images: list[Image] = field(default_factory=list)


def dataset_sha256(path: Path) -> str:
    """Return the SHA-256 of the bytes behind the file meta group."""
    with path.open("rb") as file:
        file.seek(dicomfile.read_meta(file).dataset_offset)
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_study(
    folder: Path, accession_number: str, images: int = 4, *, modality: str = "CT", side: int = 64, seed: int = 0,
    series: int = 1, study_date: str = "",
) -> Study:
    """Write `images` files of `side` x `side` pixels under `folder` and return the study."""
    noise = random.Random(f"{seed}{accession_number}")
    study = Study(generate_uid(prefix=None), accession_number, f"MR{noise.randrange(10**6):06d}", modality)
    folder.mkdir(parents=True, exist_ok=True)
    series_uids = [generate_uid(prefix=None) for _ in range(series)]
    for number in range(images):
        path = folder / f"{accession_number or 'none'}-{number:04d}.dcm"
        dataset = _dataset(path, study, series_uids[number % series], number, side, noise, study_date)
        dataset.save_as(path, enforce_file_format=True)
        study.images.append(Image(path, str(dataset.SOPInstanceUID), study.study_uid, dataset_sha256(path)))
    return study


def _dataset(
    path: Path, study: Study, series_uid: str, number: int, side: int, noise: random.Random, study_date: str
) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(generate_uid(prefix=None))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), Dataset(), file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = study.study_uid
    dataset.SeriesInstanceUID = series_uid
    dataset.AccessionNumber = study.accession_number
    dataset.PatientID = study.patient_id
    dataset.PatientName = "Contoh^Pasien"
    dataset.PatientBirthDate = "19800101"
    dataset.PatientSex = "O"
    dataset.StudyDate = study_date
    dataset.StudyTime = "101112" if study_date else ""
    dataset.StudyDescription = "Synthetic"
    dataset.Modality = study.modality
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = number + 1
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows = dataset.Columns = side
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit = 15
    dataset.PixelRepresentation = 0
    dataset.PixelData = noise.randbytes(2 * side * side)
    return dataset
