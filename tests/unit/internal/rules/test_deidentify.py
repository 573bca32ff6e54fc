"""De-identification against the standard's own table, and what must not leave at all."""

from __future__ import annotations

import io

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from internal.rules import EditFailed, RulesInvalid
from internal.rules.confidentiality import row_of

from .rewriting import after, compiled, encoded, file_of, image, rewritten, rule


@pytest.mark.parametrize(("tag", "action", "options"), [
    (0x00100010, "Z", set()), (0x00100020, "Z/D", set()), (0x00100030, "Z", set()), (0x00080050, "Z", set()),
    (0x00080018, "U", {"uids"}), (0x0020000D, "U", {"uids"}), (0x00080020, "Z", {"dates"}),
    (0x00080022, "X/Z", {"dates"}), (0x00080080, "X/Z/D", {"institution"}), (0x00181000, "X/Z/D", {"device"}),
    (0x00081010, "X/Z/D", {"device"}), (0x00081140, "X/Z/U*", set()), (0x04000561, "X", set()),
    (0x60023000, "X", set()), (0x50100010, "X", set()), (0x00102160, "X", set()), (0x00420011, "D", set()),
    (0x00081030, "X", set()), (0x0040A124, "U", {"uids"}), (0xFFFAFFFA, "X", set()), (0x00181002, "U",
                                                                                      {"uids", "device"}),
])
def test_known_rows_of_the_standard(tag: int, action: str, options: set[str]) -> None:
    row = row_of(tag)
    assert row is not None
    assert (row.action, set(row.options)) == (action, options)


@pytest.mark.parametrize("tag", [0x00080060, 0x00280010, 0x7FE00010, 0x00180050, 0x00200013, 0x00100021 + 0x100])
def test_what_is_no_identity_has_no_row(tag: int) -> None:
    assert row_of(tag) is None


SECRETS = ("DOE", "JANE", "P-SECRET-1", "19800229", "RS SECRET", "SECRET-SCANNER", "1.2.3.4.5", "20260131", "SECRET")


def subject(**values: object) -> Dataset:
    """Return an image that says who its patient is in every corner."""
    inner, code, deep = Dataset(), Dataset(), Dataset()
    inner.ReferencedSOPInstanceUID, inner.ReferencedSOPClassUID = "1.2.3.4.5", "1.2.840.10008.5.1.4.1.1.2"
    deep.PatientID, deep.PersonName, deep.UID = "P-SECRET-1", "DOE^JANE", "1.2.3.4.5"
    code.ContentSequence = Sequence([deep])
    code.CodeMeaning = "kept"
    found = image(
        PatientID="P-SECRET-1", PatientBirthDate="19800229", InstitutionName="RS SECRET", StationName="SECRET-SCANNER",
        ReferencedImageSequence=Sequence([inner]), ProcedureCodeSequence=Sequence([code]), EthnicGroup="SECRET",
        StudyDescription="SECRET", FrameOfReferenceUID="1.2.3.9", DeviceSerialNumber="SECRET-SCANNER",
        AccessionNumber="SECRET", OriginalAttributesSequence=Sequence([deep]), SliceThickness="1.5",
        AcquisitionDateTime="20260131101500.5+0700", **values)
    found.add_new(0x00090010, "LO", "ACME")
    found.add_new(0x00091001, "LO", "SECRET")
    found.add_new(0x60003000, "OW", b"SECRET")
    found.add_new(0x60004000, "LT", "SECRET")
    return found


def test_nothing_of_the_patient_is_left_anywhere() -> None:
    body = encoded(subject())
    done = rewritten(body, compiled(rule(do="deidentify", send_to="research")), "research")
    content = file_of(body, done)
    for secret in SECRETS:
        assert secret.encode() not in content
    found = dcmread(io.BytesIO(content))
    assert found.PixelData == image().PixelData
    assert (found.SliceThickness, found.Modality) == (1.5, "CT")
    assert (found.PatientIdentityRemoved, found.LongitudinalTemporalInformationModified) == ("YES", "REMOVED")
    assert "PS3.15" in found.DeidentificationMethod
    assert [item.CodeValue for item in found.DeidentificationMethodCodeSequence] == ["113100"]
    assert found.PatientID == found.PatientName
    assert list(done.pseudonyms) == [found.PatientID]
    assert done.pseudonyms[found.PatientID] == "P-SECRET-1"
    assert found.StudyDate == ""
    assert 0x04000561 not in found
    assert found.file_meta.MediaStorageSOPInstanceUID == found.SOPInstanceUID == done.header.sop_uid


def test_references_inside_the_study_still_fit() -> None:
    found = after(subject(), "deidentify")
    assert found.SOPInstanceUID.startswith("2.25.")
    assert found.ReferencedImageSequence[0].ReferencedSOPInstanceUID == found.SOPInstanceUID
    assert found.ReferencedImageSequence[0].ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    other = after(image(SOPInstanceUID="1.2.3.4.6"), "deidentify")
    assert other.StudyInstanceUID == found.StudyInstanceUID
    assert other.SOPInstanceUID != found.SOPInstanceUID


def test_each_option_keeps_its_own_and_says_so() -> None:
    found = after(subject(), "deidentify retain uids retain device retain institution retain dates")
    assert (found.SOPInstanceUID, found.StationName, found.InstitutionName) == ("1.2.3.4.5", "SECRET-SCANNER",
                                                                              "RS SECRET")
    assert (found.StudyDate, found.PatientBirthDate) == ("20260131", "")
    assert [item.CodeValue for item in found.DeidentificationMethodCodeSequence] == [
        "113100", "113106", "113109", "113112", "113110"]
    assert found.LongitudinalTemporalInformationModified == "UNMODIFIED"
    moved = after(subject(), "deidentify shift dates")
    assert moved.StudyDate < "20260131"
    assert moved.AcquisitionDateTime[:8] == moved.StudyDate
    assert moved.AcquisitionDateTime[8:] == "101500.5+0700"
    assert moved.StudyTime == "101500"
    assert (moved.LongitudinalTemporalInformationModified, moved.PatientBirthDate) == ("MODIFIED", "")


@pytest.mark.parametrize("values", [
    {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1", "Modality": "US"}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
    {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"},
    {"BurnedInAnnotation": "YES"}, {"ConversionType": "WSD"}, {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
    {"Modality": "OT"},
])
def test_what_may_show_the_patient_is_held_unless_masked_or_accepted(values: dict[str, object]) -> None:
    with pytest.raises(EditFailed) as caught:
        after(image(**values), "deidentify")
    assert caught.value.code == "may-show-patient"
    assert after(image(**values), "deidentify accept burned-in").PatientIdentityRemoved == "YES"
    masked = after(image(**values), "mask 0,0,8,1", "deidentify")
    assert masked.PixelData[:16] == bytes(16)
    assert masked.BurnedInAnnotation == "NO"
    assert "113101" in [item.CodeValue for item in masked.DeidentificationMethodCodeSequence]


def test_another_key_makes_other_identities() -> None:
    from internal.rules.edits import KeyBytes

    assert KeyBytes(b"1").digest("uid", "1.2") != KeyBytes(b"2").digest("uid", "1.2")
    assert KeyBytes(b"1").digest("uid", "1.2") != KeyBytes(b"1").digest("pseudonym", "1.2")
    assert "b'1'" not in repr(KeyBytes(b"1"))


def test_no_image_leaves_as_it_came_for_a_place_that_gets_deidentified_copies() -> None:
    rules = compiled(rule(when="Modality = CT", do="deidentify", send_to="research"), rule("two", do="upper PatientID"))
    with pytest.raises(EditFailed, match="research gets de-identified copies by rule one"):
        rewritten(encoded(image(Modality="SR")), rules, "research")
    assert rewritten(encoded(image(Modality="SR")), rules, "pacs").fired == ("two",)
    assert rewritten(encoded(image()), rules, "research").fired == ("one", "two")


def test_a_rule_that_deidentifies_cannot_skip_itself() -> None:
    for action in ("set StationName = EthnicGroup else skip", 'set StationName = "{EthnicGroup}" else skip',
                   "map StationName using table t else skip"):
        with pytest.raises(RulesInvalid, match="else skip would leave the de-identification out"):
            compiled(rule(do=f"deidentify\n{action}", send_to="research"))


@pytest.mark.parametrize("keyword", ["PersonIdentificationCodeSequence", "OperatorIdentificationSequence",
                                     "InstitutionCodeSequence", "VerifyingObserverSequence", "ContentSequence"])
def test_a_code_that_names_somebody_is_replaced_in_every_item(keyword: str) -> None:
    code, outer = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "DOE-17", "99SECRET", "JANE DOE"
    outer.PersonIdentificationCodeSequence = Sequence([code, code])
    outer.update(code)
    found = after(image(**{keyword: Sequence([outer, outer])}), "deidentify")
    assert len(found[keyword].value) == 2
    for secret in ("DOE", "SECRET", "JANE"):
        assert secret not in str(found)


def test_what_no_dictionary_knows_goes_and_names_outside_the_table_are_emptied() -> None:
    subject = image()
    subject.add_new(0x00080FF7, "LO", "SECRET")
    subject.add_new(0x00186FF3, "PN", "SECRET")
    subject.add_new(0x00404999, "UT", "SECRET")
    subject.add_new(0x00100216, "PN", "SECRET")
    content = file_of(body := encoded(subject), rewritten(body, compiled(rule(do="deidentify", send_to="pacs"))))
    assert b"SECRET" not in content


@pytest.mark.parametrize("action", ["deidentify", "remap uids", "shift dates -3", "deidentify shift dates"])
def test_a_value_that_cannot_be_read_holds_the_image(action: str) -> None:
    tag, vr = (0x00080020, b"DA") if "shift" in action else (0x00200052, b"UI")
    body = encoded(image(FrameOfReferenceUID="1.2.9"))
    head = tag.to_bytes(4, "big")
    at = body.index(bytes((head[1], head[0], head[3], head[2])) + vr)
    length = int.from_bytes(body[at + 6 : at + 8], "little")
    long = body[at : at + 4] + b"UN\0\0" + (70_000).to_bytes(4, "little") + b"1" * 70_000
    with pytest.raises(EditFailed, match="cannot be read"):
        rewritten(body[:at] + long + body[at + 8 + length :], compiled(rule(do=action, send_to="pacs")))


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.6", "1.2.840.10008.5.1.4.1.1.3",
                                       "1.2.840.10008.5.1.4.1.1.3.1", "1.3.12.2.1107.5.9.1"])
def test_retired_ultrasound_and_private_objects_are_held_unless_accepted(sop_class: str) -> None:
    with pytest.raises(EditFailed) as caught:
        after(image(SOPClassUID=sop_class), "deidentify")
    assert caught.value.code == "may-show-patient"
    assert after(image(SOPClassUID=sop_class), "deidentify accept burned-in").PatientIdentityRemoved == "YES"


def test_a_pseudonym_is_of_the_patient_as_named_when_it_is_made() -> None:
    def pseudonym(*actions: str, **values: object) -> str:
        return str(after(image(**values), *actions).PatientID)

    named = ("set PatientID = EthnicGroup", "deidentify")
    assert pseudonym(*named, EthnicGroup="A-1") != pseudonym(*named, EthnicGroup="A-2")
    assert pseudonym(*named, EthnicGroup="A-1") == pseudonym("deidentify", PatientID="A-1")
    assert pseudonym("deidentify", IssuerOfPatientID="RS1") != pseudonym("deidentify", IssuerOfPatientID="RS2")
    assert pseudonym("deidentify", "deidentify") == pseudonym("deidentify")
    for action in ("deidentify", "shift dates by patient"):
        with pytest.raises(EditFailed, match="PatientID is empty"):
            after(image(PatientID=" "), action)
