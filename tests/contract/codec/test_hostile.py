"""Hostile pixels: refused by what they claim, or ended with the child that decoded them; the next image is drawn."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy
import psutil
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from internal import dicomfile
from internal.codec import Codec, Limits
from internal.codec.syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from internal.errors import PixelsRefused
from tests.contract.codec.conftest import sample
from tests.examples import examples

J2K = "1.2.840.10008.1.2.4.90"
RLE = "1.2.840.10008.1.2.5"


def image(path: Path, stream: bytes, syntax: str, rows: int, columns: int, **more: object) -> Path:
    """Write a compressed grey image of which header and stream may disagree."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = rows, columns, 1
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.PhotometricInterpretation = 7, 0, "MONOCHROME2"
    for name, value in more.items():
        setattr(dataset, name, value)
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path, enforce_file_format=True)
    return path


def raw(path: Path, syntax: str, body: bytes) -> Path:
    path.write_bytes(dicomfile.canonical_meta("1.2.840.10008.5.1.4.1.1.7", "1.2.3", syntax) + body)
    return path


def bomb(width: int, height: int) -> bytes:
    """Return a JPEG 2000 stream of a few hundred bytes that claims any size (S24)."""
    stream = bytearray(imagecodecs.jpeg2k_encode(
        numpy.zeros((16, 16), "u1"), level=0, codecformat="j2k", reversible=True))
    struct.pack_into(">2I", stream, 8, width, height)
    struct.pack_into(">2I", stream, 24, width, height)
    return bytes(stream)


def refusal(codec: Codec, path: Path) -> str:
    with pytest.raises(PixelsRefused) as caught:
        codec.draw(path, edge=64)
    with pytest.raises(PixelsRefused):
        codec.transcode(path, EXPLICIT_LITTLE, path.with_name("out"))
    return caught.value.code


@pytest.mark.attack("S24")
def test_a_stream_that_claims_another_size_is_not_decoded(codec: Codec, tmp_path: Path) -> None:
    assert refusal(codec, image(tmp_path / "bomb", bomb(40000, 40000), J2K, 16, 16)) == "damaged"


@pytest.mark.attack("S24")
def test_a_claim_beyond_the_cap_is_not_decoded(codec: Codec, tmp_path: Path) -> None:
    assert refusal(codec, image(tmp_path / "bomb", bomb(40000, 40000), J2K, 40000, 40000)) == "too-large"


@pytest.mark.attack("S24")
def test_a_claim_within_the_cap_ends_inside_the_memory_of_the_child(tmp_path: Path) -> None:
    path = image(tmp_path / "bomb", bomb(20000, 20000), J2K, 20000, 20000)
    with Codec(limits=Limits(memory_bytes=600 * 1024**2, cpu_s=20, wall_s=60)) as codec:
        assert refusal(codec, path) in ("too-large", "damaged", "died")
        assert codec.draw(sample("CT_small.dcm"), edge=64).width == 64


@pytest.mark.attack("S24")
def test_what_takes_too_long_is_ended_and_the_next_image_is_drawn(tmp_path: Path) -> None:
    noise = numpy.random.default_rng(1).integers(0, 256, (1500, 1500)).astype("u1")
    stream = imagecodecs.jpeg2k_encode(noise, level=0, codecformat="j2k", reversible=True)
    path = image(tmp_path / "slow", stream, J2K, 1500, 1500)
    with Codec(limits=Limits(wall_s=0.02)) as codec:
        with pytest.raises(PixelsRefused) as caught:
            codec.draw(path, edge=64)
        assert caught.value.code == "too-slow"
    with Codec() as codec:
        assert codec.draw(path, edge=64).frames == 1


@pytest.mark.long(seconds=12)
def test_processor_time_is_bounded_for_each_order(tmp_path: Path) -> None:
    noise = numpy.random.default_rng(1).integers(0, 256, (6000, 6000)).astype("u1")
    stream = imagecodecs.jpeg2k_encode(noise, level=0, codecformat="j2k", reversible=True)
    path = image(tmp_path / "slow", stream, J2K, 6000, 6000)
    with Codec(limits=Limits(cpu_s=0, wall_s=60)) as codec, pytest.raises(PixelsRefused) as caught:
        codec.transcode(path, EXPLICIT_LITTLE, tmp_path / "out")
    assert caught.value.code == "too-slow"


def test_a_child_killed_while_idle_is_replaced(codec: Codec) -> None:
    codec.draw(sample("CT_small.dcm"), edge=64)
    for child in psutil.Process().children():
        if "internal.codec" in child.cmdline():
            child.kill()
            psutil.wait_procs([child], timeout=10)
    assert codec.draw(sample("CT_small.dcm"), edge=64).width == 64


def test_children_end_with_the_pool() -> None:
    codec = Codec()
    codec.draw(sample("CT_small.dcm"), edge=64)
    before = [child for child in psutil.Process().children() if "internal.codec" in child.cmdline()]
    codec.close()
    assert before
    assert any(not child.is_running() for child in before)


@pytest.mark.parametrize(("name", "stream"), [
    ("no segments", bytes(64)), ("cut off", b"\x01"),
    ("offset behind the end", struct.pack("<16I", 1, 9999, *[0] * 14)),
    ("segments backwards", struct.pack("<16I", 1, 4, *[0] * 14)),
    ("a literal that ends early", struct.pack("<16I", 1, 64, *[0] * 14) + b"\x7f\x00"),
    ("a bomb of runs that is too short", struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * 2),
])
def test_run_lengths_that_lie(codec: Codec, tmp_path: Path, name: str, stream: bytes) -> None:
    assert refusal(codec, image(tmp_path / "lie", stream, RLE, 64, 64)) == "damaged"


def test_more_frames_than_there_are(codec: Codec, tmp_path: Path) -> None:
    path = image(tmp_path / "lie", bomb(16, 16), J2K, 16, 16, NumberOfFrames=1_000_000)
    assert refusal(codec, path) == "damaged"


def test_fewer_pixels_than_the_header_says(codec: Codec, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(sample("CT_small.dcm"))
    dataset.Rows = 20000
    dataset.save_as(tmp_path / "lie")
    with pytest.raises(PixelsRefused) as caught:
        codec.draw(tmp_path / "lie", edge=64)
    assert caught.value.code == "damaged"


def nested(depth: int) -> bytes:
    """Return `depth` sequences of undefined length, one in the other (S19, S20)."""
    inner = struct.pack("<HHI", 0x0008, 0x1140, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return inner * depth


@pytest.mark.attack("S19")
@pytest.mark.attack("S20")
@pytest.mark.parametrize("depth", [33, 300, 100_000])
def test_sequences_nested_deeper_than_is_read(codec: Codec, tmp_path: Path, depth: int) -> None:
    assert refusal(codec, raw(tmp_path / "deep", IMPLICIT_LITTLE, nested(depth))) == "too-large"


@pytest.mark.attack("S21")
def test_a_deflated_bomb_is_not_inflated(codec: Codec, tmp_path: Path) -> None:
    pack = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    body = b"".join(pack.compress(bytes(1024**2)) for _ in range(64)) + pack.flush()
    assert refusal(codec, raw(tmp_path / "bomb", "1.2.840.10008.1.2.1.99", body)) == "too-large"


def test_a_value_longer_than_the_file(codec: Codec, tmp_path: Path) -> None:
    body = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 0xFFFFFFF0)
    assert refusal(codec, raw(tmp_path / "lie", EXPLICIT_LITTLE, body)) == "damaged"


FUZZED = ["CT_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm",
          "JPGLosslessP14SV1_1s_1f_8b.dcm", "SC_rgb_small_odd_jpeg.dcm", "MR_small_bigendian.dcm"]


@pytest.mark.attack("S23")
@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_drawn_or_refused(codec: Codec, tmp_path: Path, data: st.DataObject) -> None:
    fuzz(codec, tmp_path, data)


@pytest.mark.long(seconds=60)
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_many_damaged_files_are_drawn_or_refused(codec: Codec, tmp_path: Path, data: st.DataObject) -> None:
    fuzz(codec, tmp_path, data)


def fuzz(codec: Codec, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(sample(data.draw(st.sampled_from(FUZZED))).read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(300, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(200, len(content))):]
    path = tmp_path / "fuzzed"
    path.write_bytes(content)
    try:
        assert codec.draw(path, edge=32).data
    except PixelsRefused as refused:
        assert refused.code in ("damaged", "unsupported", "too-large", "no-pixels")
    try:
        codec.transcode(path, EXPLICIT_LITTLE, tmp_path / "out")
    except PixelsRefused as refused:
        assert refused.code in ("damaged", "unsupported", "too-large", "no-pixels", "lossy")
