"""Pure parsers of the sandbox against arbitrary input: they answer or refuse, and nothing else."""

from __future__ import annotations

import datetime
import itertools
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.http11 import Body, HttpRefused, PeerGone, Wire, body_length, parse_head
from sandbox.moments import is_before, is_future, parse_moment
from sandbox.multipart import MultipartReader, parse_boundary
from sandbox.part10 import NotDicom, Part10Head, read_part10_head
from sandbox.patch import PatchRefused, apply_patch
from sandbox.privacy import mask_name
from sandbox.rules import is_loinc_code
from sandbox.search import parse_query
from tests.examples import examples

# Other work on the machine must not fail a test.
calm = settings(deadline=None, suppress_health_check=list(HealthCheck))


@calm
@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda data: b"GET /x HTTP/1.1\r\n" + data))
def test_any_head_is_parsed_or_refused(data: bytes) -> None:
    try:
        head = parse_head(data)
        length = body_length(head)
    except HttpRefused as refused:
        assert 400 <= refused.status <= 505
    else:
        assert head.path is not None and (length is None or length >= 0)


def body_of(data: bytes, length: int | None) -> bytes:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        return Body(Wire(ours), length, ours, expects_continue=False).read_all(10_000)


@settings(calm, max_examples=examples(50))
@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6))
def test_chunked_bodies_come_back_whole(pieces: list[bytes]) -> None:
    data = b"".join(b"%X;x=y\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    assert body_of(data + b"0\r\nTrailer: x\r\n\r\n", None) == b"".join(pieces)
    with pytest.raises((PeerGone, HttpRefused)):
        body_of(data, None)


@settings(calm, max_examples=examples(50))
@given(st.binary(max_size=60))
def test_any_chunked_bytes_end_somehow(data: bytes) -> None:
    try:
        body_of(data, None)
    except (PeerGone, HttpRefused):
        pass


def test_counted_bodies_and_the_limit() -> None:
    assert body_of(b"abcdef", 4) == b"abcd"
    with pytest.raises(PeerGone):
        body_of(b"abc", 4)
    with pytest.raises(HttpRefused):
        body_of(b"x", 10_001)


def split(data: bytes, cuts: list[int]) -> Iterator[memoryview]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    for first, last in itertools.pairwise(places):
        yield memoryview(data[first:last])


@calm
@given(parts=st.lists(st.binary(max_size=80), max_size=5), cuts=st.lists(st.integers(0, 10_000), max_size=12),
       preamble=st.sampled_from([b"", b"preamble\r\n"]))
def test_multipart_comes_back_however_it_is_cut(parts: list[bytes], cuts: list[int], preamble: bytes) -> None:
    parts = [part for part in parts if b"--edge" not in part]
    data = preamble + b"".join(b"--edge\r\nContent-Type: application/dicom\r\n\r\n%s\r\n" % part for part in parts)
    reader = MultipartReader(split(data + b"--edge--\r\n", cuts), b"edge")
    assert [(headers, b"".join(pieces)) for headers, pieces in reader.parts()] == [
        ({"content-type": "application/dicom"}, part) for part in parts]


@calm
@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_any_multipart_ends_or_is_refused(data: bytes, cuts: list[int]) -> None:
    try:
        for _, pieces in MultipartReader(split(data, cuts), b"e").parts():
            for _ in pieces:
                pass
    except HttpRefused:
        pass


def test_boundaries() -> None:
    assert parse_boundary('multipart/related; type="application/dicom"; boundary="a b"') == b"a b"
    assert parse_boundary("multipart/related;BOUNDARY=ab;x=y") == b"ab"


def head_of(data: bytes, folder: Path) -> Part10Head:
    path = folder / "file"
    path.write_bytes(data)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return read_part10_head(descriptor, len(data), data[:100])
    finally:
        os.close(descriptor)


def explicit(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


META = explicit(2, 3, b"UI", b"1.2.3\0") + explicit(2, 0x10, b"UI", b"1.2.840.10008.1.2.1\0")
DATASET = (explicit(8, 0x16, b"UI", b"1.2.840.1") + explicit(8, 0x18, b"UI", b"1.2.3\0")
           + explicit(0x20, 0xD, b"UI", b"1.2") + explicit(0x20, 0xE, b"UI", b"1.2.1"))
PREFIX = bytes(128) + b"DICM"


def test_a_file_without_group_length_is_read(tmp_path: Path) -> None:
    head = head_of(PREFIX + META + DATASET, tmp_path)
    assert (head.study_uid, head.series_uid, head.sop_uid) == ("1.2", "1.2.1", "1.2.3")
    assert head.dataset_offset == len(PREFIX + META)


@pytest.mark.parametrize("data", [
    PREFIX + META + DATASET[:-1], PREFIX + META + DATASET.replace(b"1.2.3\0", b"1.2.4\0"), PREFIX + DATASET,
    PREFIX + META + explicit(8, 5, b"CS", b"") * 30_000 + DATASET, PREFIX + META + explicit(8, 5, b"  ", b"") + DATASET,
    PREFIX + META + b"\x09\0\1\0UN\0\0\xff\xff\xff\x7f" + DATASET])
def test_files_that_are_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(NotDicom):
        head_of(data, tmp_path)


@settings(calm, max_examples=examples(150))
@given(st.binary(max_size=200), st.sampled_from([b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.2.1.99",
                                                 b"1.2.840.10008.1.2.2\0", b"1.2.840.10008.1.2.1\0"]))
def test_any_bytes_are_a_head_or_not_dicom(tmp_path_factory: pytest.TempPathFactory, data: bytes,
                                           syntax: bytes) -> None:
    meta = explicit(2, 3, b"UI", b"1.2.3\0") + explicit(2, 0x10, b"UI", syntax)
    for whole in (data, PREFIX + data, PREFIX + meta + data, PREFIX + meta + data + DATASET):
        try:
            assert head_of(whole, tmp_path_factory.getbasetemp()).sop_uid
        except NotDicom:
            pass


@pytest.mark.parametrize(("text", "type_name", "right"), [
    ("2025", "dateTime", True), ("2025-02", "dateTime", True), ("2025-02-29", "dateTime", False),
    ("2024-02-29", "date", True), ("2025-01-01T00:00:00", "dateTime", False), ("2025-01-01", "instant", False),
    ("2025-01-01T00:00:00.123Z", "instant", True), ("2025-01-01T24:00:00Z", "dateTime", False),
    ("2025-01-01T00:00:00+15:00", "dateTime", False), ("2025-01-01T00:00:00Z", "date", False),
    ("2025-01-01\n", "date", False), ("٢٠٢٥", "dateTime", False), ("0000", "date", False)])
def test_moments(text: str, type_name: str, right: bool) -> None:
    assert (parse_moment(text, type_name) is not None) == right


@calm
@given(st.text(max_size=30))
def test_any_text_is_a_moment_or_not(text: str) -> None:
    for type_name in ("date", "dateTime", "instant"):
        parse_moment(text, type_name)


def test_today_in_eastern_indonesia_is_not_the_future() -> None:
    today = datetime.datetime.now(datetime.timezone(datetime.timedelta(hours=9))).date()
    moment, later = (parse_moment((today + datetime.timedelta(days=days)).isoformat(), "date") for days in (0, 1))
    assert moment is not None and not is_future(moment)
    assert later is not None and is_future(later)
    floor = datetime.date(2014, 6, 3)
    assert [is_before(text, floor) for text in ("2013", "2014", "2014-05", "2014-06", "2014-06-02T23:00:00Z")] == [
        True, False, True, False, True]


def test_loinc_check_digits() -> None:
    assert all(map(is_loinc_code, ("24648-8", "46322-4", "11525-3", "42132-1", "24828-6", "79103-8", "18748-4")))
    assert not any(map(is_loinc_code, ("24648-9", "24684-8", "", "x", "24648", "24648-88")))


json_values = st.recursive(st.none() | st.integers() | st.text(max_size=3),
                           lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner,
                                                                                       max_size=3), max_leaves=6)


operations_given = st.fixed_dictionaries({
    "op": st.sampled_from(["add", "replace"]), "path": st.text("/a0-~1", max_size=6), "value": json_values})


@calm
@given(json_values, st.lists(operations_given | json_values, max_size=3))
def test_any_patch_is_applied_or_refused(value: object, operations: list[object]) -> None:
    resource = {"resourceType": "X", "id": "1", "a": [value, {"a": value}]}
    before = repr(resource)
    try:
        patched = apply_patch(resource, operations)
    except PatchRefused:
        pass
    else:
        assert (patched["id"], patched["resourceType"]) == ("1", "X")
    assert repr(resource) == before


names_given = st.sampled_from(["identifier", "_count", "_sort", "subject", "basedOn", "name", "_page_token"])


@calm
@given(st.lists(st.tuples(names_given, st.text(max_size=20)), max_size=5))
def test_any_query_is_parsed_or_refused(pairs: list[tuple[str, str]]) -> None:
    try:
        query = parse_query(pairs)
    except HttpRefused:
        return
    for _, clause, values in query.criteria:
        assert clause.count("?") == len(values)


@calm
@given(st.text(max_size=40))
def test_masked_names_show_first_letters_only(name: str) -> None:
    masked = mask_name(name)
    assert [len(word) for word in masked.split()] == [len(word) for word in name.split()]
    assert all(set(word[1:]) <= {"*"} for word in masked.split())
