"""Sample studies: own identities, untouched pixels, the variety that the demo promises."""

from __future__ import annotations

import json
import warnings
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest

from sandbox import samples

WHEN = datetime(2025, 3, 1, 2, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[samples.SampleStudy]]:
    folder = tmp_path_factory.mktemp("samples")
    return folder, samples.make_samples(folder, len(samples.RECIPES) + 1, "seed", WHEN)


def read(path: Path) -> pydicom.FileDataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path)


def test_the_default_set_shows_what_the_demo_promises() -> None:
    recipes = samples.RECIPES[: samples.DEFAULT_STUDIES]
    heads = [read(samples.find_sample(r.package, r.file)) for r in recipes]
    assert {"CT", "MR", "US"} <= {r.modality for r in recipes}
    assert {"CR", "DX"} & {r.modality for r in recipes}
    assert len({h.file_meta.TransferSyntaxUID for h in heads}) >= 4
    assert any(int(h.get("NumberOfFrames") or 1) > 1 for h in heads)


def test_pixel_bytes_are_those_of_the_source(made: tuple[Path, list[samples.SampleStudy]]) -> None:
    folder, studies = made
    for study, recipe in zip(studies, samples.RECIPES, strict=False):
        source = read(samples.find_sample(recipe.package, recipe.file))
        for file in study.files:
            copy = read(folder / file.path)
            assert copy.PixelData == source.PixelData, file.path
            assert copy.file_meta.TransferSyntaxUID == source.file_meta.TransferSyntaxUID


def test_identities_are_unique_and_the_manifest_tells_the_truth(made: tuple[Path, list[samples.SampleStudy]]) -> None:
    folder, studies = made
    assert len({s.study_uid for s in studies}) == len({s.accession_number for s in studies}) == len(studies)
    files = [file for study in studies for file in study.files]
    assert len({f.sop_uid for f in files}) == len(files)
    for study in studies:
        assert 0 < len(study.accession_number) <= 16
        for file in study.files:
            copy = read(folder / file.path)
            assert copy.file_meta.MediaStorageSOPInstanceUID == copy.SOPInstanceUID == file.sop_uid
            assert (copy.StudyInstanceUID, copy.SeriesInstanceUID) == (study.study_uid, file.series_uid)
            assert (copy.AccessionNumber, copy.PatientID) == (study.accession_number, study.patient_id)
            assert copy.PatientName == study.patient_name
            assert copy.StudyDate + copy.StudyTime[:4] >= "202503010900"
            assert (folder / file.path).stat().st_size == file.bytes
            assert all(len(uid) <= 64 for uid in (file.sop_uid, file.series_uid, study.study_uid))


def test_the_same_seed_gives_the_same_bytes(made: tuple[Path, list[samples.SampleStudy]], tmp_path: Path) -> None:
    _, studies = made
    assert samples.make_samples(tmp_path, 2, "seed", WHEN) == studies[:2]
    assert samples.make_samples(tmp_path / "b", 1, "other", WHEN)[0].study_uid != studies[0].study_uid


def test_the_command_prints_its_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert samples.main([str(tmp_path), "--studies", "1", "--seed", "s"]) == 0
    (study,) = json.loads(capsys.readouterr().out)
    assert study["modality"] == "CT"
    assert study["instances"] == len(study["files"]) == 8
    assert all((tmp_path / file["path"]).is_file() for file in study["files"])


def test_a_missing_package_is_named() -> None:
    with pytest.raises(samples.SamplesMissing, match=r"requirements/demo\.txt"):
        samples.find_sample("no_such_package/data", "a.dcm")
    with pytest.raises(samples.SamplesMissing):
        samples.find_sample("pydicom/data/test_files", "no_such_file.dcm")
