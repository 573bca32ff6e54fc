"""Transcoding loses nothing: against uncompressed twins of the samples, pydicom, DCMTK and GDCM."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy
import pydicom
import pytest
from pydicom.dataset import Dataset

from internal import dicomfile
from internal.codec import WRITABLE, Codec
from internal.codec.elements import PIXEL_DATA
from internal.codec.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, JPEG_2000_LOSSLESS, RLE_LOSSLESS
from internal.errors import BytesMissing, PixelsRefused
from tests.contract.codec.conftest import sample

#: Samples whose words fit every coding, and what pixels they hold uncompressed.
TWINS = {
    "CT_small.dcm": "CT_small.dcm", "MR_small.dcm": "MR_small.dcm", "MR_small_implicit.dcm": "MR_small.dcm",
    "MR_small_bigendian.dcm": "MR_small.dcm", "MR_small_RLE.dcm": "MR_small.dcm",
    "MR_small_jp2klossless.dcm": "MR_small.dcm", "MR_small_jpeg_ls_lossless.dcm": "MR_small.dcm",
    "SC_rgb_small_odd.dcm": "SC_rgb_small_odd.dcm", "SC_rgb_rle_2frame.dcm": "SC_rgb_2frame.dcm",
    "SC_rgb_rle_16bit_2frame.dcm": "SC_rgb_16bit_2frame.dcm", "emri_small_RLE.dcm": "emri_small.dcm",
    "emri_small_jpeg_2k_lossless.dcm": "emri_small.dcm", "emri_small_big_endian.dcm": "emri_small.dcm",
    "examples_palette.dcm": "examples_palette.dcm", "image_dfl.dcm": "image_dfl.dcm",
    "SC_ybr_full_uncompressed.dcm": "SC_ybr_full_uncompressed.dcm",
}
_OF_THE_CODING = {PIXEL_DATA, 0x00280004, 0x00280006, 0x7FE00001, 0x7FE00002}


def by_pixel(dataset: Dataset) -> numpy.ndarray:
    """Return the stored words as pydicom reads them, uncompressed, whatever the planar configuration."""
    return pydicom.pixels.pixel_array(dataset, raw=True)


def values(dataset: Dataset) -> list[tuple[int, object]]:
    found: list[tuple[int, object]] = []
    for element in dataset:
        if element.tag in _OF_THE_CODING or element.tag.element == 0:
            continue
        value = [values(item) for item in element.value] if element.VR == "SQ" else element.value
        found.append((int(element.tag), value))
    return found


@pytest.mark.parametrize("name", TWINS)
def test_every_word_survives_every_transfer_syntax(codec: Codec, tmp_path: Path, name: str) -> None:
    source, expected = sample(name), by_pixel(pydicom.dcmread(sample(TWINS[name])))
    before = values(pydicom.dcmread(source))
    for syntax in sorted(WRITABLE):
        there = codec.transcode(source, syntax, tmp_path / "there")
        assert there.size_bytes == (tmp_path / "there").stat().st_size
        written = pydicom.dcmread(there.path)
        assert written.file_meta.TransferSyntaxUID == syntax
        assert [tag for tag, _ in values(written)] == [tag for tag, _ in before]
        back = codec.transcode(there.path, EXPLICIT_LITTLE, tmp_path / "back")
        read = pydicom.dcmread(back.path)
        assert numpy.array_equal(by_pixel(read), expected), syntax
        if syntax in (IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, RLE_LOSSLESS):
            assert numpy.array_equal(by_pixel(written), expected), syntax


@pytest.mark.parametrize("name", ["CT_small.dcm", "rtplan.dcm", "reportsi.dcm", "explicit_VR-UN.dcm",
                                  "liver_1frame.dcm", "color-pl.dcm", "eCT_Supplemental.dcm", "nested_priv_SQ.dcm",
                                  "UN_sequence.dcm"])
def test_every_value_survives_every_uncompressed_transfer_syntax(codec: Codec, tmp_path: Path, name: str) -> None:
    source = sample(name)
    before = codec.transcode(source, EXPLICIT_LITTLE, tmp_path / "before")
    expected = values(pydicom.dcmread(before.path))
    for syntax in (IMPLICIT_LITTLE, EXPLICIT_BIG):
        there = codec.transcode(before.path, syntax, tmp_path / "there")
        back = codec.transcode(there.path, EXPLICIT_LITTLE, tmp_path / "back")
        assert [tag for tag, _ in values(pydicom.dcmread(there.path))] == [tag for tag, _ in expected]
        assert codec.same_content(before.path, back.path)
        if syntax == EXPLICIT_BIG:
            assert back.sha256 == before.sha256


def test_the_same_source_gives_the_same_bytes(codec: Codec, tmp_path: Path) -> None:
    source = sample("emri_small_RLE.dcm")
    one, two = (codec.transcode(source, JPEG_2000_LOSSLESS, tmp_path / name) for name in ("one", "two"))
    assert one.sha256 == two.sha256
    assert one.path.read_bytes() == two.path.read_bytes()


def test_file_meta_is_the_canonical_one(codec: Codec, tmp_path: Path) -> None:
    result = codec.transcode(sample("CT_small.dcm"), RLE_LOSSLESS, tmp_path / "out")
    original = pydicom.dcmread(sample("CT_small.dcm"))
    expected = dicomfile.canonical_meta(original.SOPClassUID, original.SOPInstanceUID, RLE_LOSSLESS)
    assert result.path.read_bytes().startswith(expected)
    assert result.dataset_offset == len(expected)


DECODERS = {
    "1.2.840.10008.1.2.5": ["dcmdrle"], "1.2.840.10008.1.2.4.70": ["dcmdjpeg", "+cn"],
    "1.2.840.10008.1.2.4.80": ["dcmdjpls"],
}


@pytest.mark.dcmtk
@pytest.mark.parametrize("syntax", DECODERS)
@pytest.mark.parametrize("name", ["CT_small.dcm", "SC_rgb_small_odd.dcm", "emri_small.dcm"])
def test_dcmtk_decodes_what_we_encode(codec: Codec, tmp_path: Path, name: str, syntax: str) -> None:
    codec.transcode(sample(name), syntax, tmp_path / "ours")
    subprocess.run([*DECODERS[syntax], tmp_path / "ours", tmp_path / "theirs"], check=True, capture_output=True)
    assert numpy.array_equal(by_pixel(pydicom.dcmread(tmp_path / "theirs")), by_pixel(pydicom.dcmread(sample(name))))
    assert subprocess.run(["dcmdump", tmp_path / "ours"], capture_output=True).returncode == 0


@pytest.mark.gdcm
@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "SC_rgb_small_odd.dcm", "emri_small.dcm"])
def test_gdcm_decodes_our_jpeg_2000(codec: Codec, tmp_path: Path, name: str) -> None:
    codec.transcode(sample(name), JPEG_2000_LOSSLESS, tmp_path / "ours")
    subprocess.run(["gdcmconv", "--raw", tmp_path / "ours", tmp_path / "theirs"], check=True, capture_output=True)
    assert numpy.array_equal(by_pixel(pydicom.dcmread(tmp_path / "theirs")), by_pixel(pydicom.dcmread(sample(name))))


@pytest.mark.gdcm
@pytest.mark.parametrize("flag", ["--rle", "--jpeg", "--jpegls", "--j2k"])
@pytest.mark.parametrize("name", ["CT_small.dcm", "SC_rgb_2frame.dcm"])
def test_we_decode_what_gdcm_encodes(codec: Codec, tmp_path: Path, name: str, flag: str) -> None:
    subprocess.run(["gdcmconv", flag, sample(name), tmp_path / "theirs"], check=True, capture_output=True)
    assert pydicom.dcmread(tmp_path / "theirs").file_meta.TransferSyntaxUID.is_encapsulated
    ours = codec.transcode(tmp_path / "theirs", EXPLICIT_LITTLE, tmp_path / "ours")
    assert numpy.array_equal(by_pixel(pydicom.dcmread(ours.path)), by_pixel(pydicom.dcmread(sample(name))))


def test_the_same_image_in_another_encoding_is_the_same(codec: Codec, tmp_path: Path) -> None:
    source = sample("CT_small.dcm")
    for syntax in sorted(WRITABLE):
        assert codec.same_content(source, codec.transcode(source, syntax, tmp_path / "other").path)
    assert not codec.same_content(source, sample("MR_small.dcm"))


@pytest.mark.parametrize("tag", ["PatientID", "PixelData"])
def test_one_changed_value_is_another_image(codec: Codec, tmp_path: Path, tag: str) -> None:
    dataset = pydicom.dcmread(sample("CT_small.dcm"))
    if tag == "PixelData":
        dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]
    else:
        dataset.PatientID = "1CT2"
    dataset.save_as(tmp_path / "changed")
    packed = codec.transcode(tmp_path / "changed", JPEG_2000_LOSSLESS, tmp_path / "packed")
    assert not codec.same_content(sample("CT_small.dcm"), packed.path)


REFUSED = [
    ("SC_rgb_jpeg_dcmtk.dcm", EXPLICIT_LITTLE, "lossy"), ("JPEG2000.dcm", EXPLICIT_LITTLE, "lossy"),
    ("JPEGLSNearLossless_08.dcm", IMPLICIT_LITTLE, "lossy"), ("reportsi.dcm", RLE_LOSSLESS, "no-pixels"),
    ("liver_1frame.dcm", RLE_LOSSLESS, "unsupported"), ("rtdose.dcm", EXPLICIT_BIG, "unsupported"),
    ("CT_small.dcm", "1.2.840.10008.1.2.4.50", "unsupported"), ("MR_truncated.dcm", IMPLICIT_LITTLE, "damaged"),
    ("SC_ybr_full_422_uncompressed.dcm", RLE_LOSSLESS, "unsupported"),
]


@pytest.mark.parametrize(("name", "syntax", "code"), REFUSED)
def test_what_cannot_be_written_says_why_and_leaves_nothing(
    codec: Codec, tmp_path: Path, name: str, syntax: str, code: str
) -> None:
    with pytest.raises(PixelsRefused) as refusal:
        codec.transcode(sample(name), syntax, tmp_path / "out")
    assert refusal.value.code == code
    assert list(tmp_path.iterdir()) == []


def test_unused_high_bits_survive(codec: Codec, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(sample("MR_small.dcm"))
    words = numpy.frombuffer(dataset.PixelData, "<u2") | 0x8000
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
    dataset.PixelData = words.tobytes()
    dataset.save_as(tmp_path / "overlaid")
    for syntax in sorted(WRITABLE):
        there = codec.transcode(tmp_path / "overlaid", syntax, tmp_path / "there")
        back = codec.transcode(there.path, EXPLICIT_LITTLE, tmp_path / "back")
        assert pydicom.dcmread(back.path).PixelData == words.tobytes(), syntax


def test_a_file_that_is_gone(codec: Codec, tmp_path: Path) -> None:
    with pytest.raises(BytesMissing):
        codec.transcode(tmp_path / "absent", RLE_LOSSLESS, tmp_path / "out")


def test_the_target_is_replaced_in_one_step(codec: Codec, tmp_path: Path) -> None:
    shutil.copy(sample("CT_small.dcm"), tmp_path / "out")
    result = codec.transcode(tmp_path / "out", RLE_LOSSLESS, tmp_path / "out")
    assert pydicom.dcmread(result.path).file_meta.TransferSyntaxUID == RLE_LOSSLESS
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
