"""Sample studies for the demo, the tests and training: real images, invented patients.

Stands outside the router (imports nothing of it). Takes images that pip packages carry (`pydicom-data` and pydicom's
own test files), never the network, and writes private copies: own UIDs, one invented patient per study, an accession
number. Pixel bytes stay as they are. Changes when the demo needs another kind of image.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import secrets
import sys
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from random import Random
from typing import Any

import pydicom

WIB = timezone(timedelta(hours=7), "WIB")
_NAMESPACE = uuid.UUID("6f1c1c3a-0f0b-5d43-9d0b-3b7a5f2f9a11")


class SamplesMissing(Exception):
    """The packages with the sample images are not installed."""


@dataclass(frozen=True)
class Recipe:
    """One kind of sample study: which image it is made from and how many copies make a series."""

    modality: str
    description: str
    package: str
    file: str
    instances: int


#: In the order of `--studies N`: the first six show CT, MR, CR and US, seven transfer syntaxes come with eight.
RECIPES = (
    Recipe("CT", "CT Kepala tanpa kontras", "data_store/data", "693_UNCI.dcm", 8),  # Explicit VR Little Endian
    Recipe("MR", "MRI Lumbal", "data_store/data", "MR2_J2KR.dcm", 4),  # JPEG 2000 lossless
    Recipe("CR", "Foto Thorax PA", "data_store/data", "RG3_J2KR.dcm", 2),  # JPEG 2000 lossless, 1760 x 1760
    Recipe("US", "USG Abdomen, rekaman", "data_store/data", "color3d_jpeg_baseline.dcm", 1),  # 120 frames, JPEG
    Recipe("US", "USG Obstetri", "data_store/data", "OBXXXX1A_rle.dcm", 3),  # RLE
    Recipe("MR", "MRI Kepala multi-frame", "data_store/data", "emri_small_jpeg_ls_lossless.dcm", 2),  # JPEG-LS
    Recipe("US", "USG Tiroid", "data_store/data", "JPGLosslessP14SV1_1s_1f_8b.dcm", 2),  # JPEG lossless SV1
    Recipe("MR", "MRI Genu", "pydicom/data/test_files", "MR_small_implicit.dcm", 6),  # Implicit VR Little Endian
)
DEFAULT_STUDIES = 6

_GIVEN = (
    ("F", "Dewi"), ("M", "Budi"), ("F", "Siti"), ("M", "Agus"), ("F", "Rina"), ("M", "Joko"), ("F", "Ayu"),
    ("M", "Made"), ("F", "Ratna"), ("M", "Rizky"), ("F", "Wulan"), ("M", "Hendra"), ("F", "Indah"), ("M", "Bayu"),
)  # fmt: skip
_FAMILY = ("Contoh", "Santoso", "Wijaya", "Pratama", "Lestari", "Nugroho", "Siregar", "Hidayat", "Saputra", "Utami")

#: Elements of the original that name other people, places or orders.
_FOREIGN = ("ReferringPhysicianName", "OperatorsName", "PerformingPhysicianName", "PhysiciansOfRecord",
            "OtherPatientIDs", "PatientAddress", "InstitutionAddress", "RequestAttributesSequence")  # fmt: skip


@dataclass(frozen=True)
class SampleFile:
    """One written instance; `dataset_sha256` (hex) covers the bytes after the file meta group (PS3.10 7.1)."""

    path: str
    sop_uid: str
    series_uid: str
    transfer_syntax_uid: str
    frames: int
    bytes: int
    dataset_sha256: str


@dataclass(frozen=True)
class SampleStudy:
    """One written study of one invented patient; `birth_date` is YYYYMMDD, `sex` M or F (DICOM values)."""

    accession_number: str
    patient_name: str
    patient_id: str
    birth_date: str
    sex: str
    modality: str
    description: str
    study_uid: str
    files: tuple[SampleFile, ...]


def make_samples(
    folder: Path, studies: int = DEFAULT_STUDIES, seed: str = "", acquired: datetime | None = None
) -> list[SampleStudy]:
    """Write `studies` sample studies below `folder`, each in a folder named by its accession number.

    The same `seed` and `acquired` (default: two hours ago) give the same bytes; an empty seed is a random one.
    Raises SamplesMissing when the image packages are absent.
    """
    seed = seed or secrets.token_hex(4)
    acquired = (acquired or datetime.now(UTC) - timedelta(hours=2)).astimezone(WIB)
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _make_study(folder, RECIPES[n % len(RECIPES)], f"{seed}/{n}", n, acquired + timedelta(minutes=n % 60))
        for n in range(studies)
    ]


def _make_study(folder: Path, recipe: Recipe, seed: str, number: int, acquired: datetime) -> SampleStudy:
    random = Random(seed)
    sex, given = random.choice(_GIVEN)
    born = acquired.date() - timedelta(days=random.randint(20 * 365, 80 * 365))
    study = SampleStudy(
        accession_number=f"{recipe.modality}-{_uid(seed)[-6:]}-{number % 10000:04d}",
        patient_name=f"{random.choice(_FAMILY)}^{given}",
        patient_id=f"RM-{random.randint(0, 999999):06d}",
        birth_date=f"{born:%Y%m%d}",
        sex=sex,
        modality=recipe.modality,
        description=recipe.description,
        study_uid=_uid(seed),
        files=(),
    )
    source = find_sample(recipe.package, recipe.file)
    target = folder / study.accession_number
    target.mkdir(exist_ok=True)
    files = [
        _write_instance(source, target / f"IM{i:04d}.dcm", folder, study, i, acquired, seed)
        for i in range(1, recipe.instances + 1)
    ]
    return replace(study, files=tuple(files))


def _write_instance(
    source: Path, target: Path, folder: Path, study: SampleStudy, number: int, acquired: datetime, seed: str
) -> SampleFile:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the samples themselves hold values that pydicom warns about
        dataset = pydicom.dcmread(source)
        _identify(dataset, study, number, acquired, seed)
        dataset.save_as(target, enforce_file_format=True, overwrite=True)
    raw = target.read_bytes()
    return SampleFile(
        path=target.relative_to(folder).as_posix(),
        sop_uid=dataset.SOPInstanceUID,
        series_uid=dataset.SeriesInstanceUID,
        transfer_syntax_uid=dataset.file_meta.TransferSyntaxUID,
        frames=int(dataset.get("NumberOfFrames") or 1),
        bytes=len(raw),
        dataset_sha256=hashlib.sha256(raw[dataset_offset(raw) :]).hexdigest(),
    )


def _identify(dataset: pydicom.Dataset, study: SampleStudy, number: int, acquired: datetime, seed: str) -> None:
    dataset.PatientName = study.patient_name
    dataset.PatientID = study.patient_id
    dataset.PatientBirthDate = study.birth_date
    dataset.PatientSex = study.sex
    dataset.AccessionNumber = study.accession_number
    dataset.Modality = study.modality
    dataset.StudyDescription = study.description
    dataset.StudyInstanceUID = study.study_uid
    dataset.SeriesInstanceUID = _uid(f"{seed}/1")
    dataset.SOPInstanceUID = _uid(f"{seed}/1/{number}")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyID = "1"
    dataset.SeriesNumber = 1
    dataset.InstanceNumber = number
    dataset.StudyDate = dataset.SeriesDate = f"{acquired:%Y%m%d}"
    dataset.StudyTime = dataset.SeriesTime = f"{acquired:%H%M%S}"
    dataset.TimezoneOffsetFromUTC = "+0700"
    dataset.InstitutionName = "RS Contoh"
    for element in ("AcquisitionDate", "ContentDate", "InstanceCreationDate"):
        if element in dataset:
            setattr(dataset, element, f"{acquired:%Y%m%d}")
    for element in _FOREIGN:
        if element in dataset:
            delattr(dataset, element)


def find_sample(package: str, name: str) -> Path:
    """Return the installed file `name` of `package` ("module/folder/..."); raises SamplesMissing. Never downloads."""
    module, _, below = package.partition("/")
    spec = importlib.util.find_spec(module)
    roots = spec.submodule_search_locations if spec else None
    path = Path(next(iter(roots))) / below / name if roots else None
    if path is None or not path.is_file():
        raise SamplesMissing(f"{name} of {module} is not installed; `pip install -r requirements/demo.txt` brings it")
    return path


def dataset_offset(raw: bytes) -> int:
    """Return where the data set begins in a Part 10 file that has (0002,0000) (PS3.10 7.1)."""
    if raw[128:132] != b"DICM" or raw[132:136] != b"\x02\x00\x00\x00":
        raise ValueError("not a DICOM Part 10 file with a group length")
    return 144 + int.from_bytes(raw[140:144], "little")


def _uid(seed: str) -> str:
    """Return a UID derived from a UUID (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, seed).int}"


def manifest(studies: Sequence[SampleStudy]) -> list[dict[str, Any]]:
    """Return `studies` as JSON values; `instances` is the number of files."""
    return [{**asdict(study), "instances": len(study.files)} for study in studies]


def main(argv: Sequence[str] | None = None) -> int:
    """Write sample studies and print their manifest as JSON; 1 when the images are not installed."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.samples", description="Write sample DICOM studies.")
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder to write to")
    parser.add_argument("--studies", type=int, default=DEFAULT_STUDIES, metavar="N", help="how many (default 6)")
    parser.add_argument("--seed", default="", help="the same seed gives the same UIDs, patients and accession numbers")
    args = parser.parse_args(argv)
    try:
        studies = make_samples(args.folder, args.studies, args.seed)
    except SamplesMissing as missing:
        sys.stderr.write(f"{missing}\n")
        return 1
    sys.stdout.write(json.dumps(manifest(studies), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
