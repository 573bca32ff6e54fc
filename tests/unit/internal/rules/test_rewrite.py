"""What a rewrite changes, and what it must never change."""

from __future__ import annotations

import io
import struct
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from internal import dicomfile, element_bytes, elements, scan
from internal.elements import Element
from internal.errors import NotDicom
from internal.rules import EditFailed
from tests.examples import examples

from .rewriting import (
    ARRIVED_AT,
    BIG,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    after,
    compiled,
    encoded,
    file_of,
    image,
    rewritten,
    rule,
)

SYNTAXES = (EXPLICIT, IMPLICIT, BIG, DEFLATED)
ACTIONS = (
    'set PatientID = "X{PatientID}"', "upper PatientName", "delete StudyTime", 'set AccessionNumber = "A-1"',
    'set RequestAttributesSequence[0].ScheduledProcedureStepID = "S1"', 'add (0011,"ACME",01) LO "v"',
    "remap uids", "shift dates -3", "delete private", "set InstitutionName = StationName",
    'replace PatientID "[0-9]+" with "N"', "pad PatientID 12 \"0\"", "trim PatientName", "lower PatientID",
)


@pytest.mark.parametrize(("action", "keyword", "value"), [
    ('set PatientID = "N7"', "PatientID", "N7"), ("set PatientID = EthnicGroup", "PatientID", "99-17"),
    ('set PatientID = "{EthnicGroup}/{PatientID}"', "PatientID", "99-17/P1"),
    ('set PatientID = "{{{PatientID}}}"', "PatientID", "{P1}"),
    ("set PatientID = StationName", "PatientID", "P1"), ("set PatientID = StationName else skip", "PatientID", "P1"),
    ("set StationName = PatientID", "StationName", "P1"), ('replace PatientName "DOE" with "ROE"', "PatientName",
                                                           "ROE^JANE"),
    (r'replace StudyDate "(\d{4})(\d{2})(\d{2})" with "\1\3\2"', "StudyDate", "20260102"),
    ("lower PatientName", "PatientName", "doe^jane"), ("pad PatientID 6 \"0\"", "PatientID", "0000P1"),
    ("pad right PatientID 4 \"x\"", "PatientID", "P1xx"), ("delete EthnicGroup", "EthnicGroup", None),
    ("upper StationName", "StationName", None),
    ("shift dates 30", "StudyDate", "20260201"), ('map PatientID using table t', "PatientID", "MAPPED"),
    ("map StationName from PatientID using table t", "StationName", "MAPPED"),
    ("map EthnicGroup using table t", "EthnicGroup", "99-17"), ('set SeriesNumber = "7"', "SeriesNumber", 7),
    ('set LargestImagePixelValue = "7"', "LargestImagePixelValue", 7),
])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_what_each_action_does(action: str, keyword: str, value: object, syntax: str) -> None:
    subject = image(EthnicGroup="99-17", StudyDate="20260102")
    if "replace StudyDate" in action:
        subject.StudyDate = "20260201"
    found = after(subject, action, syntax=syntax, table={("t", "P1"): "MAPPED"})
    assert found.get(keyword) == value
    assert found.PixelData == image().PixelData


def test_a_rule_of_several_actions_is_done_in_order_or_not_at_all() -> None:
    found = after(image(), 'set PatientID = "{PatientID}2"', 'set PatientID = "{PatientID}3"')
    assert found.PatientID == "P123"
    found = after(image(), 'set PatientID = "other"', "set PatientName = StationName else skip")
    assert found.PatientID == "P1"
    assert 0x04000561 not in found
    with pytest.raises(EditFailed, match="StationName is empty") as caught:
        after(image(), 'set PatientID = "other"', "set PatientName = StationName else hold")
    assert caught.value.code == "source-empty"


@pytest.mark.parametrize(("subject", "action", "message"), [
    (image(EthnicGroup="x" * 16), 'set AccessionNumber = "{EthnicGroup}+"', "17 characters"),
    (image(SpecificCharacterSet="ISO_IR 100"), 'set PatientID = "Žluť"', "no such letters"),
    (image(), 'set PatientID = "Müller"', "no such letters"),
    (image(SpecificCharacterSet="ISO_IR 101"), 'set PatientID = "Müller"', "no such letters"),
    (image(EthnicGroup="a\\b"), "set PatientID = EthnicGroup", "2 values where 1"),
    (image(), 'set RequestAttributesSequence[3].ScheduledProcedureStepID = "x"', "no item 3"),
    (image(StudyDate="18500101"), "shift dates -36500", "not a value|could be shifted|characters"),
])
def test_what_does_not_fit_holds_the_study(subject: Dataset, action: str, message: str) -> None:
    if subject.StudyDate == "18500101":
        subject.StudyDate = "00500101"
    body = encoded(subject).replace(b"ISO_IR 101", b"ISO_IR 999")
    with pytest.raises(EditFailed, match=message) as caught:
        rewritten(body, compiled(rule(do=action, **{"for": "pacs"})))
    assert "xxxx" not in str(caught.value)


def test_letters_are_written_in_the_data_sets_own_character_set() -> None:
    for charset, codec in (("ISO_IR 100", "latin-1"), ("ISO_IR 192", "utf-8"), ("ISO_IR 144", "iso8859-5")):
        text = "Иван" if charset == "ISO_IR 144" else "Müller"
        body = encoded(image(SpecificCharacterSet=charset))
        done = rewritten(body, compiled(rule(do=f'set PatientName = "{text}"', **{"for": "pacs"})))
        content = file_of(body, done)
        assert text.encode(codec) in content
        assert dcmread(io.BytesIO(content)).PatientName == text


def test_original_attributes_say_what_was_there_when_and_by_whom() -> None:
    found = after(image(StudyTime="1015"), 'set PatientID = "N"', "delete StudyTime", 'set StationName = "S"')
    (item,) = found[0x04000561].value
    (before,) = item.ModifiedAttributesSequence
    assert {element.keyword for element in before} == {"PatientID", "StudyTime"}
    assert (before.PatientID, before.StudyTime) == ("P1", "1015")
    arrived = datetime.fromtimestamp(ARRIVED_AT / 1000, UTC)
    assert item.AttributeModificationDateTime == f"{arrived:%Y%m%d%H%M%S.%f}+0000"
    assert (item.ModifyingSystem, item.ReasonForTheAttributeModification) == ("SATUSEHAT_ROUTER", "COERCE")
    again = after(found_without_meta(found), 'set PatientID = "M"')
    assert len(again[0x04000561].value) == 2
    assert again[0x04000561].value[1].ModifiedAttributesSequence[0].PatientID == "N"


def found_without_meta(dataset: Dataset) -> Dataset:
    """Return the data set alone."""
    plain = Dataset()
    plain.update(dataset)
    return plain


def test_an_edit_that_changes_nothing_leaves_the_bytes_alone() -> None:
    body = encoded(image())
    done = rewritten(body, compiled(rule(do='set PatientID = "P1"\nupper PatientName', **{"for": "pacs"})))
    assert b"".join(p if isinstance(p, bytes) else body[p[0] : p[1]] for p in done.pieces) == body
    assert done.changed == ()


def test_long_values_are_referred_to_and_not_copied() -> None:
    pixels = bytes(range(256)) * 1024
    body = encoded(image(Rows=256, Columns=512, PixelData=pixels))
    done = rewritten(body, compiled(rule(do='set PatientID = "N"', **{"for": "pacs"})))
    spans = [part for part in done.pieces if not isinstance(part, bytes)]
    assert spans
    assert sum(len(part) for part in done.pieces if isinstance(part, bytes)) < 65536
    assert body[spans[-1][0] : spans[-1][1]].endswith(pixels)


def test_private_elements_get_a_block_of_their_creator() -> None:
    subject = image()
    subject.add_new(0x00110010, "LO", "OTHER")
    found = after(subject, 'add (0011,"ACME",01) LO "v"', 'add (0011,"ACME",02) DS "1.5"')
    assert found[0x00110011].value == "ACME"
    assert (found[0x00111101].value, found[0x00111102].value) == ("v", 1.5)
    assert 0x00110010 not in after(subject, "delete private")


def test_masked_regions_are_black_in_every_frame_and_nothing_else_is() -> None:
    pixels = bytes([255]) * 4 * 8 * 2 * 3
    found = after(image(NumberOfFrames="3", PixelData=pixels), "mask 2,1,3,2")
    frames = [found.PixelData[at : at + 64] for at in range(0, 192, 64)]
    for frame in frames:
        rows = [frame[at : at + 16] for at in range(0, 64, 16)]
        masked = bytes([255] * 4 + [0] * 6 + [255] * 6)
        assert rows == [bytes([255]) * 16, masked, masked, bytes([255]) * 16]


@pytest.mark.parametrize("subject", [image(Rows=5), image(BitsAllocated=12), image(NumberOfFrames="2")])
def test_pixels_that_are_not_as_the_header_says_are_not_masked(subject: Dataset) -> None:
    with pytest.raises(EditFailed):
        after(subject, "mask 0,0,1,1")


# --- properties -----------------------------------------------------------------------------------------------------

TEXT = st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x17F, exclude_characters="\\\x7f^="),
               max_size=16)


@st.composite
def subjects(draw: st.DrawFn) -> tuple[Dataset, str]:
    """Return an image with random text, sequences and private elements, and a transfer syntax."""
    ascii_only = draw(st.booleans())
    words = TEXT.map(lambda text: "".join(c for c in text if c.isascii())) if ascii_only else TEXT
    item = Dataset()
    item.ScheduledProcedureStepID, item.CodeValue = draw(words)[:16].encode("ascii", "ignore").decode(), "1"
    subject = image(
        PatientID=draw(words), PatientName=draw(words), StudyDescription=draw(words), StationName="ST1",
        RequestAttributesSequence=draw(st.lists(st.just(item), max_size=2)),
        PixelData=bytes(draw(st.lists(st.integers(0, 255), min_size=64, max_size=64))),
    )
    if not ascii_only:
        subject.SpecificCharacterSet = "ISO_IR 192"
    if draw(st.booleans()):
        subject.add_new(0x00190010, "LO", "ACME 1")
        subject.add_new(0x00191001, "OB", draw(st.binary(max_size=9)).ljust(10, b"\0"))
    return subject, draw(st.sampled_from(SYNTAXES))


@given(subjects(), st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=4, unique=True))
@settings(max_examples=examples(60), deadline=None)
def test_a_rewrite_keeps_pixels_and_charset_is_deterministic_and_says_what_was(
    made: tuple[Dataset, str], actions: list[str],
) -> None:
    subject, syntax = made
    body = encoded(subject, syntax)
    rules = compiled(rule(do="\n".join(actions), **{"for": "pacs"}))
    try:
        done = rewritten(body, rules, syntax=syntax)
    except EditFailed:
        return  # held, nothing leaves
    content = file_of(body, done)
    assert content == file_of(body, rewritten(body, rules, syntax=syntax))
    before = dcmread(io.BytesIO(dicomfile.canonical_meta("1.2", "1.3", syntax) + body))
    found = dcmread(io.BytesIO(content))
    assert found.PixelData == before.PixelData
    assert found.get("SpecificCharacterSet") == before.get("SpecificCharacterSet")
    assert [tag for tag in found.keys()] == sorted(found.keys())  # noqa: SIM118, C416
    originals = found.get(0x04000561)
    kept = dict(originals.value[0].ModifiedAttributesSequence[0].items()) if originals else {}
    for element in before:
        if element.tag in kept:
            assert found[0x04000561].value[0].ModifiedAttributesSequence[0][element.tag] == element
        else:
            assert found[element.tag] == element
    assert done.header.patient_id.strip(" ") == str(found.get("PatientID", "")).strip(" ")


@pytest.mark.dcmtk
@given(subjects(), st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=4, unique=True))
@settings(max_examples=examples(8), deadline=None)
def test_dcmdump_reads_every_rewritten_file(
    tmp_path_factory: pytest.TempPathFactory, made: tuple[Dataset, str], actions: list[str],
) -> None:
    subject, syntax = made
    body = encoded(subject, syntax)
    try:
        done = rewritten(body, compiled(rule(do="\n".join(actions), **{"for": "pacs"})), syntax=syntax)
    except EditFailed:
        return
    path = tmp_path_factory.mktemp("rewritten") / "one.dcm"
    path.write_bytes(file_of(body, done))
    shown = subprocess.run(["dcmdump", "-q", "+E", str(path)], capture_output=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, b"")


@given(st.binary(max_size=400), st.sampled_from(SYNTAXES))
@settings(max_examples=examples(300), deadline=None)
def test_garbage_is_refused_and_nothing_else_happens(data: bytes, syntax: str) -> None:
    try:
        dataset = elements.read(io.BytesIO(data), 0, len(data), syntax)
        dataset.pieces()
    except NotDicom:
        pass


@given(st.integers(0, 900), st.integers(0, 255), st.sampled_from((EXPLICIT, IMPLICIT, BIG)))
@settings(max_examples=examples(300), deadline=None)
def test_a_damaged_data_set_is_held_or_rewritten_whole(at: int, value: int, syntax: str) -> None:
    body = bytearray(encoded(image(RequestAttributesSequence=[Dataset()]), syntax))
    body[at % len(body)] = value
    try:
        done = rewritten(bytes(body), compiled(rule(do='set PatientID = "N"\nremap uids', **{"for": "pacs"})),
                         syntax=syntax)
    except (EditFailed, NotDicom):
        return
    assert done.size_bytes > 0


def elements_of(data: bytes, syntax: str) -> list[Element] | None:
    try:
        return elements.read(io.BytesIO(data), 0, len(data), syntax).elements
    except NotDicom:
        return None


@given(st.integers(0, 900), st.integers(0, 255), st.sampled_from((EXPLICIT, IMPLICIT, BIG)), st.booleans())
@settings(max_examples=300, deadline=None)
def test_an_element_is_the_same_whether_one_like_it_was_met_before(at: int, value: int, syntax: str, few: bool) -> None:
    whole = encoded(image(RequestAttributesSequence=[Dataset()]), syntax)
    damaged = bytearray(whole)
    damaged[at % len(damaged)] = value
    for kinds in element_bytes.KINDS.values():
        kinds.known.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(element_bytes.Kinds, "MOST", 3 if few else 4096)
        first = elements_of(bytes(damaged), syntax)
        assert elements_of(whole, syntax) is not None
        assert elements_of(bytes(damaged), syntax) == first
        assert all(len(kinds.known) <= element_bytes.Kinds.MOST for kinds in element_bytes.KINDS.values())


def test_a_length_where_a_vr_should_be_is_not_taken_for_one_the_second_time() -> None:
    data = (struct.pack("<HH2sH", 0x0008, 0x0060, b"CS", 2) + b"CT" + struct.pack("<HHI", 0x0010, 0x0010, 4) + b"A^B "
            + struct.pack("<HHI", 0x0010, 0x0020, 0x10004) + bytes(0x10004))
    assert elements_of(data, EXPLICIT) == elements_of(data, EXPLICIT)
    (_, name, patient_id) = elements_of(data, EXPLICIT) or []
    assert (name.tag, patient_id.tag, patient_id.value_end - patient_id.value_at) == (0x00100010, 0x00100020, 0x10004)


def test_more_elements_than_any_image_has_are_refused() -> None:
    data = b"".join(struct.pack("<HH2sH", 0x0009 + 2 * (at >> 15), at & 0x7FFF, b"LO", 0)
                    for at in range(scan.MAX_ELEMENTS + 1))
    with pytest.raises(NotDicom, match="too many"):
        elements.read(io.BytesIO(data), 0, len(data), EXPLICIT)


def test_a_deflated_bomb_is_refused() -> None:
    import zlib

    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(bytes(element_bytes.MAX_INFLATED_BYTES + 4096)) + packer.flush()
    with pytest.raises(NotDicom, match="more than 64 MB"):
        elements.read(io.BytesIO(bomb), 0, len(bomb), DEFLATED)


def test_deeply_nested_sequences_are_refused() -> None:
    data = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 200
    with pytest.raises(NotDicom):
        elements.read(io.BytesIO(data), 0, len(data), EXPLICIT)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm", "JPEG2000.dcm",
                                  "rtplan.dcm", "SC_rgb_rle_2frame.dcm"])
def test_real_files_keep_everything_but_what_the_rule_names(name: str) -> None:
    path = Path(str(get_testdata_file(name)))
    content = path.read_bytes()
    meta = dicomfile.read_meta(io.BytesIO(content))
    body = content[meta.dataset_offset :]
    done = rewritten(body, compiled(rule(do='set PatientID = "N7"', **{"for": "pacs"})),
                     syntax=meta.transfer_syntax_uid)
    before, found = dcmread(path), dcmread(io.BytesIO(file_of(body, done)))
    assert found.PatientID == "N7"
    for element in before:
        if element.tag not in (0x00100020, 0x04000561) and element.tag.element != 0:
            assert found[element.tag] == element


@pytest.mark.parametrize("mask", ["mask 8,0,4,4", "mask 0,4,8,1"])
def test_a_mask_that_hits_no_pixel_holds_the_image(mask: str) -> None:
    with pytest.raises(EditFailed, match="outside the image"):
        after(image(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"), "mask 0,0,8,1", mask, "deidentify")


def test_a_skipped_rule_leaves_no_change_inside_a_sequence_that_an_earlier_one_changed() -> None:
    step = "RequestAttributesSequence[0].ScheduledProcedureStepID"
    rules = compiled(rule(do=f'set {step} = "FIRST"'),
                     rule("two", do=f'set {step} = "SECOND"\nset StationName = EthnicGroup else skip'))
    body = encoded(image())
    done = rewritten(body, rules)
    assert done.fired == ("one",)
    found = dcmread(io.BytesIO(file_of(body, done)))
    assert found.RequestAttributesSequence[0].ScheduledProcedureStepID == "FIRST"


def test_new_uids_leave_kinds_of_objects_and_coding_schemes_alone() -> None:
    code, reference = Dataset(), Dataset()
    code.CodingSchemeUID, code.ContextUID = "1.3.6.1.4.1.9.1", "1.3.6.1.4.1.9.2"
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.3.12.2.1107.5.9.1", "1.2.3.9"
    found = after(image(SOPClassUID="1.3.12.2.1107.5.9.1", ProcedureCodeSequence=[code],
                        ReferencedImageSequence=[reference]), "remap uids")
    assert found.SOPClassUID == "1.3.12.2.1107.5.9.1"
    assert found.ReferencedImageSequence[0].ReferencedSOPClassUID == "1.3.12.2.1107.5.9.1"
    assert found.ReferencedImageSequence[0].ReferencedSOPInstanceUID.startswith("2.25.")
    assert (found.ProcedureCodeSequence[0].CodingSchemeUID, found.ProcedureCodeSequence[0].ContextUID) == (
        "1.3.6.1.4.1.9.1", "1.3.6.1.4.1.9.2")


def test_a_value_too_long_for_a_pattern_is_held_and_never_cut() -> None:
    with pytest.raises(EditFailed, match="longer than 10240 characters"):
        after(image(TextValue="x" * 10_241), 'replace TextValue "y" with "z"')
    with pytest.raises(EditFailed, match="longer than 65534 characters"):
        after(image(TextValue="x" * 10_000), 'replace TextValue "x" with "1234567"')
