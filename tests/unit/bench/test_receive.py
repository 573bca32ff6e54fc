"""What the receive bench sends, how often, and on which disk."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from bench import receive
from bench.receive import Case, Measured


def test_images_are_whole_and_each_has_its_own_uid(tmp_path: Path) -> None:
    folders = receive.make_images(tmp_path / "images", Case("", "", 3, 20_000, 2, {}))
    read = [[pydicom.dcmread(file) for file in sorted(folder.iterdir())] for folder in folders]
    every = [image for images in read for image in images]
    assert len({image.SOPInstanceUID for image in every}) == len(every) == 6
    assert all(image.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID for image in every)
    assert [len({image.StudyInstanceUID for image in images}) for images in read] == [1, 1]
    assert read[0][0].StudyInstanceUID != read[1][0].StudyInstanceUID
    assert all(len(image.PixelData) == 20_000 for image in every)
    assert all(pydicom.uid.UID(image.SOPInstanceUID).is_valid for image in every)


def test_as_many_rounds_as_asked_for_but_no_more_of_what_takes_long() -> None:
    short, long = Case("", "", 1, 1, 1, {}, rounds=7), Case("", "", 1, 1, 1, {}, rounds=3, is_long=True)
    assert [short.rounds_of(asked) for asked in (None, 1, 9)] == [7, 1, 9]
    assert [long.rounds_of(asked) for asked in (None, 1, 9)] == [3, 1, 3]


def test_every_median_with_a_bar_is_one_of_five_rounds_at_least() -> None:
    with_bars = [case for case in receive.CASES if case.bars]
    assert {case.name for case in with_bars} == {"one-500k", "eight-500k"}
    assert all(case.rounds_of(None) >= 5 for case in with_bars)


def test_the_rows_say_how_many_rounds_they_are_of() -> None:
    case = Case("x", "2 x 1 MB", 2, 1_000_000, 1, {"storescp": 0.5})
    measured = Measured({"ours": [1.0, 2.0, 4.0], "ours, fsync off": [1.0, 1.0, 1.0], "storescp": [1.0, 1.0, 1.0]}, [])
    rows = receive.rows_of(case, measured)
    assert {row["case"] for row in rows} == {"2 x 1 MB, 3 rounds"}
    (ratio,) = (row for row in rows if row["figure"] == "ours : storescp")
    assert (ratio["median"], ratio["bar"], ratio["holds"]) == (0.5, ">= 0.5", "yes")
    assert receive.titled(case, 1) == "2 x 1 MB, 1 round"


def test_a_case_that_the_disk_has_no_room_for_is_known_before_anything_is_measured(tmp_path: Path) -> None:
    assert receive.missing_bytes([], tmp_path) == 0
    assert receive.missing_bytes([Case("", "", 1, 1000, 1, {})], tmp_path) == 0
    assert receive.missing_bytes([Case("", "", 10**6, 10**12, 8, {})], tmp_path) > 10**18


def test_an_unknown_case_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        receive.main(["--case", "nothing"])
    assert "eight-20m" in capsys.readouterr().err
