"""Pictures look as the object asks: against DCMTK's own rendering, and rule by rule."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imagecodecs
import numpy
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset

from internal.codec import Codec
from internal.errors import PixelsRefused
from tests.contract.codec.conftest import sample


def drawn(codec: Codec, path: Path, edge: int = 2048, frame: int | None = None) -> numpy.ndarray:
    picture = codec.draw(path, edge=edge, frame=frame, kind="png")
    image = imagecodecs.png_decode(picture.data)
    assert image.shape[:2] == (picture.height, picture.width)
    return image


def image(path: Path, words: numpy.ndarray, **more: object) -> Path:
    """Write an uncompressed grey image (frames, rows, columns)."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = words.shape[:3]
    dataset.SamplesPerPixel = 1
    dataset.BitsAllocated = dataset.BitsStored = 8 * words.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(words.dtype.kind == "i")
    dataset.PhotometricInterpretation = "MONOCHROME2"
    for name, value in more.items():
        setattr(dataset, name, value)
    dataset.PixelData = words.tobytes() + b"\x00" * (words.nbytes % 2)
    dataset["PixelData"].VR = "OW" if words.dtype.itemsize > 1 else "OB"
    dataset.save_as(path, enforce_file_format=True)
    return path


RAMP = numpy.arange(64, dtype="<u2").reshape(1, 8, 8) * 64


@pytest.mark.dcmtk
@pytest.mark.parametrize(("name", "options"), [
    ("693_UNCR.dcm", ["+Wi", "1"]), ("MR-SIEMENS-DICOM-WithOverlays.dcm", ["+Wi", "1", "-O"]),
    ("vlut_04.dcm", ["+Wl", "1"]), ("mlut_18.dcm", ["+Wm"]), ("examples_palette.dcm", []), ("SC_rgb_small_odd.dcm", []),
    ("SC_ybr_full_uncompressed.dcm", []), ("SC_ybr_full_422_uncompressed.dcm", []), ("RG3_UNCR.dcm", ["+Wi", "1"]),
    ("SC_rgb_jpeg_dcmtk.dcm", []), ("US1_UNCR.dcm", []), ("ExplVR_BigEnd.dcm", []),
])
def test_it_looks_as_dcmtk_draws_it(codec: Codec, tmp_path: Path, name: str, options: list[str]) -> None:
    source = sample(name)
    subprocess.run(["dcmj2pnm", *options, "+on", source, tmp_path / "theirs.png"], check=True, capture_output=True)
    theirs = imagecodecs.png_decode((tmp_path / "theirs.png").read_bytes()).astype(int)
    ours = drawn(codec, source).astype(int)
    if theirs.ndim > ours.ndim:
        ours = numpy.stack([ours] * 3, axis=-1)
    assert abs(theirs - ours).mean() < 3


def test_window_functions(codec: Codec, tmp_path: Path) -> None:
    linear = drawn(codec, image(tmp_path / "a", RAMP, WindowCenter="2048", WindowWidth="1024")).ravel()
    assert linear[0] == 0 and linear[-1] == 255 and abs(int(linear[32]) - 127) <= 2
    exact = drawn(codec, image(tmp_path / "b", RAMP, WindowCenter="2048", WindowWidth="1024",
                               VOILUTFunction="LINEAR_EXACT")).ravel()
    assert exact[32] == 128
    sigmoid = drawn(codec, image(tmp_path / "c", RAMP, WindowCenter="2048", WindowWidth="1024",
                                 VOILUTFunction="SIGMOID")).ravel()
    assert sigmoid[32] == 128 and 0 < sigmoid[24] < exact[28]


def test_rescale_comes_before_the_window(codec: Codec, tmp_path: Path) -> None:
    path = image(tmp_path / "a", RAMP, RescaleSlope="2", RescaleIntercept="-1024",
                 WindowCenter="3072", WindowWidth="2048", VOILUTFunction="LINEAR_EXACT")
    assert drawn(codec, path).ravel()[32] == 128


def test_monochrome1_is_the_negative(codec: Codec, tmp_path: Path) -> None:
    two = drawn(codec, image(tmp_path / "two", RAMP)).astype(int)
    one = drawn(codec, image(tmp_path / "one", RAMP, PhotometricInterpretation="MONOCHROME1")).astype(int)
    assert abs(one + two - 255).max() <= 1


def test_signed_words_and_spare_bits(codec: Codec, tmp_path: Path) -> None:
    signed = (RAMP.astype("<i2") - 2048)
    expected = drawn(codec, image(tmp_path / "u", RAMP))
    assert numpy.array_equal(drawn(codec, image(tmp_path / "s", signed)), expected)
    overlaid = (signed & 0x0FFF) | 0x5000
    path = image(tmp_path / "o", overlaid.astype("<i2"), BitsStored=12, HighBit=11)
    assert numpy.array_equal(drawn(codec, path), expected)


def test_the_middle_frame_is_shown_or_the_one_that_is_asked_for(codec: Codec, tmp_path: Path) -> None:
    frames = numpy.zeros((5, 16, 16), "u1")
    for number in range(5):
        frames[number, :, number] = 255
    path = image(tmp_path / "frames", frames, WindowCenter="128", WindowWidth="256")
    assert codec.draw(path, edge=16).frame == 2
    for number, asked in ((2, None), (0, 0), (4, 4)):
        assert drawn(codec, path, frame=asked)[0].argmax() == number
    with pytest.raises(PixelsRefused):
        codec.draw(path, edge=16, frame=5)


def test_one_bit_frames(codec: Codec, tmp_path: Path) -> None:
    bits = numpy.zeros((3, 5, 5), "u1")
    bits[1, 2, 3] = 1
    packed = numpy.packbits(bits.ravel(), bitorder="little").reshape(1, 1, -1)
    path = image(tmp_path / "bits", packed, NumberOfFrames=3, Rows=5, Columns=5,
                 BitsAllocated=1, BitsStored=1, HighBit=0)
    picture = drawn(codec, path)
    assert picture.argmax() == 13 and (picture > 0).sum() == 1


def test_a_flat_image_is_no_error(codec: Codec, tmp_path: Path) -> None:
    assert drawn(codec, image(tmp_path / "flat", RAMP * 0)).max() == 0


def test_small_pictures_are_averages(codec: Codec, tmp_path: Path) -> None:
    checks = numpy.indices((64, 64)).sum(axis=0) % 2 * 255
    path = image(tmp_path / "checks", checks.astype("u1")[None], WindowCenter="128", WindowWidth="256")
    small = drawn(codec, path, edge=32)
    assert small.shape == (32, 32) and abs(small.astype(int) - 127).max() <= 2


@pytest.mark.parametrize(("name", "code"), [("reportsi.dcm", "no-pixels"), ("rtplan.dcm", "no-pixels")])
def test_no_picture_says_why(codec: Codec, name: str, code: str) -> None:
    with pytest.raises(PixelsRefused) as refusal:
        codec.draw(sample(name), edge=64)
    assert refusal.value.code == code


def test_video_says_why(codec: Codec, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(sample("SC_rgb_small_odd_jpeg.dcm"))
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    dataset.save_as(tmp_path / "video")
    with pytest.raises(PixelsRefused) as refusal:
        codec.draw(tmp_path / "video", edge=64)
    assert refusal.value.code == "unsupported"
