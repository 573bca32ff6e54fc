"""The language of rules: what can be said, and that every mistake is named with its line."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from internal.config import RuleText
from internal.rules import PatternTooSlow, RulesInvalid
from internal.rules.actions import parse_action
from internal.rules.conditions import parse_condition
from internal.rules.failures import SyntaxProblem
from tests.examples import examples

from .rewriting import compiled, encoded, facts_of, image, rule

ITEM = Dataset()
ITEM.ScheduledProcedureStepID = "STEP7"
SUBJECT = image(
    RequestAttributesSequence=[Dataset(), ITEM], ImageType=["ORIGINAL", "PRIMARY"], SeriesNumber="12", Rows=512,
    EthnicGroup="99-17", AccessionNumber="", PatientBirthDate="19800229",
)
SUBJECT.add_new(0x00190010, "LO", "ACME 1")
SUBJECT.add_new(0x00191001, "LO", "inner")


@pytest.mark.parametrize(("text", "held"), [
    ("", True),
    ("Modality = CT", True), ("modality = CT", True), ("Modality != CT", False), ('Modality = "MR"', False),
    ("Modality in (MR, CT)", True), ("Modality not in (MR, CT)", False),
    ("(0008,0060) = CT", True), ("00080060 = CT", True),
    ("ImageType = PRIMARY", True), ("ImageType = LOCALIZER", False),
    ("PatientName matches \"^DOE\"", True), ("PatientName not matches \"^DOE\"", False),
    ("AccessionNumber missing", True), ("AccessionNumber present", False), ("EthnicGroup present", True),
    ("PixelData present", True), ("KVP missing", True),
    ("Rows >= 512", True), ("Rows < 512", False), ("SeriesNumber > 9", True), ("PatientName > 1", False),
    ("PatientBirthDate < 19800301", True),
    ("RequestAttributesSequence[1].ScheduledProcedureStepID = STEP7", True),
    ("RequestAttributesSequence[0].ScheduledProcedureStepID = STEP7", False),
    ("RequestAttributesSequence[*].ScheduledProcedureStepID = STEP7", True),
    ("RequestAttributesSequence.ScheduledProcedureStepID = STEP7", True),
    ('(0019,"ACME 1",01) = inner', True), ('(0019,"OTHER",01) = inner', False),
    ("calling = CT1 and called = DICOMRELAY", True), ("calling in (X, Y)", False),
    ("address = 10.1.0.0/16", True), ("address in (10.2.0.1, 10.1.2.3)", True), ("address != 10.1.2.3", False),
    ("source = dimse", True), ("time in 00:00-23:59", True), ("time in 03:00-04:00", False),
    ("time in 22:00-21:00", True),
    ("not (Modality = MR or Rows < 3) and not calling = Z", True),
    ("Modality = MR or Modality = CT and Rows < 3", False),
])
def test_what_a_condition_says(text: str, held: bool) -> None:
    facts = facts_of(encoded(SUBJECT), calling_aet="CT1", called_aet="DICOMRELAY", peer_address="10.1.2.3:4711")
    condition = parse_condition(text.replace("modality =", "Modality ="))
    assert condition.holds(facts) is held
    trace: list[object] = []
    assert condition.holds(facts, trace) is held  # type: ignore[arg-type]
    assert bool(trace) is bool(text)


@pytest.mark.parametrize(("peer", "text", "held"), [
    ("[2001:db8::7]:4711", "address = 2001:db8::/32", True), ("[2001:db8::7]:4711", "address = 2001:db8::8", False),
    ("2001:db8::7", "address in (2001:db8::7, 10.1.2.3)", True), ("[::ffff:10.1.2.3]:4711", "address = 10.1.2.3", True),
    ("10.1.2.3", "address = 10.1.0.0/16", True), ("", "address = 10.1.2.3", False), ("", "address != 10.1.2.3", True),
])
def test_the_address_of_a_peer_in_every_way_of_writing(peer: str, text: str, held: bool) -> None:
    facts = facts_of(encoded(SUBJECT), calling_aet="CT1", called_aet="DICOMRELAY", peer_address=peer)
    assert parse_condition(text).holds(facts) is held


@pytest.mark.parametrize(("text", "message", "hint"), [
    ("Modalty = CT", "no DICOM keyword", "Modality"),
    ("caling = CT", "no DICOM keyword", "calling"),
    ("Modality == CT", "expected a value", ""),
    ("Modality = ", "expected a value", ""),
    ("Modality CT", "expected matches or in", ""),
    ("(Modality = CT", "expected )", ""),
    ('PatientID matches "["', "cannot be read", ""),
    ("PatientID matches x", "in quotation marks", ""),
    ("Modality.PatientID = 1", "is no sequence", ""),
    ("RequestAttributesSequence[0] = 1", "ends with an item", ""),
    ("(0019,1001) = 1", "without its creator", "CREATOR"),
    ("(0002,0010) = 1", "no attribute of a data set", ""),
    ("TransferSyntaxUID = 1", "no attribute of a data set", ""),
    ("address = somewhere", "expected IP addresses", ""),
    ("time in noon", "time of day", ""),
    ("Rows > many", "no number", ""),
    ("(" * 80 + "Modality = CT" + ")" * 80, "too many brackets", ""),
    ("Modality = CT Rows = 3", "did not expect", ""),
])
def test_a_wrong_condition_says_what_and_where(text: str, message: str, hint: str) -> None:
    with pytest.raises(SyntaxProblem, match=message.replace("(", r"\(").replace(")", r"\)")) as caught:
        parse_condition(text)
    assert hint in caught.value.hint


@pytest.mark.parametrize(("text", "message"), [
    ("sett PatientID = 1", "expected set or"),
    ("set PatientID 1", "expected ="),
    ("set PixelData = \"x\"", "cannot be changed"), ("set Rows = \"5\"", "cannot be changed"),
    ("set SOPInstanceUID = \"1.2\"", "cannot be changed"), ("set SpecificCharacterSet = \"X\"", "cannot be changed"),
    ("delete StudyInstanceUID", "cannot be deleted"),
    ("set StudyDate = \"2026-131\"", "not a value of VR DA"), ("set Modality = \"ct\"", "not a value of VR CS"),
    ("set AccessionNumber = \"12345678901234567\"", "17 characters"),
    ("set PatientID = \"a\\\\b\"", "2 values"),
    ("set PatientID = \"{Nothing}\"", "no DICOM keyword"), ("set PatientID = \"x\" or", "did not expect"),
    ("replace PatientID \"(a\" with \"\"", "cannot be read"), ("replace PatientID \"a\" with \"\\1\"", "replacement"),
    ("pad PatientID 0", "whole number"), ("pad PatientID 8 \"00\"", "one character"),
    ("map PatientID using file x", "expected table or lookup"),
    ("add PatientID LO \"x\"", "only private"), ('add (0011,"A",01) XX "x"', "expected a VR"),
    ('add (0010,"A",01) LO "x"', "odd number"),
    ("shift dates tomorrow", "whole number"), ("remap", "expected uids"), ("mask 1,2,3", "expected ,"),
    ("mask 0,0,0,5", "region is empty"), ("deidentify retain names", "expected uids or dates"),
    ("deidentify retain dates shift dates", "either retained or shifted"),
    ("set ReferencedImageSequence = \"x\"", "VR SQ"),
])
def test_a_wrong_action_says_what(text: str, message: str) -> None:
    with pytest.raises(SyntaxProblem, match=message):
        parse_action(text)


def test_every_mistake_of_a_set_is_named_with_file_and_line() -> None:
    text = RuleText("one", {"when": "Modality = CT\nand PatientNam = X",
                            "do": "\nset PatientID = \"x\"\nset Foo = \"1\"",
                            "send_to": "pcs", "colour": "red"},
                    {"when": (2, 4), "do": (6, 7, 9), "send_to": (11,), "colour": (12,)}, "file router.conf")
    with pytest.raises(RulesInvalid) as caught:
        compiled(text, rule("two"), rule("one", keep="yes"))
    lines = [str(problem) for problem in caught.value.problems]
    assert any(line.startswith("file router.conf line 4: [rule:one] when PatientNam") and "PatientName?" in line
               for line in lines)
    assert any(line.startswith("file router.conf line 9: [rule:one] do Foo") for line in lines)
    assert any("line 11" in line and "did you mean pacs?" in line for line in lines)
    assert any("line 12" in line and "colour" in line for line in lines)
    assert any("[rule:two]" in line and "does nothing" in line for line in lines)
    assert any("second time" in line for line in lines)


@pytest.mark.parametrize("entries", [
    {"do": "remap uids"}, {"do": "deidentify", "send_to": "satusehat"},
    {"do": "set AccessionNumber = \"1\"", "for": "satusehat"}, {"do": "set StudyInstanceUID = \"1.2\""},
    {"send_to": "satusehat", "only": "Modality = CT"}, {"keep": "yes", "send_to": "pacs"}, {"keep": "perhaps"},
])
def test_what_would_break_a_delivery_to_satusehat_is_refused_at_load(entries: dict[str, str]) -> None:
    with pytest.raises(RulesInvalid):
        compiled(rule(**entries))


def test_a_missing_table_is_named_at_its_line() -> None:
    from internal.rules import compile_rules

    text = RuleText("one", {"do": "upper PatientID\nmap PatientID using table x.csv"}, {"do": (3, 4)}, "file r.conf")
    with pytest.raises(RulesInvalid, match=r"file r\.conf line 4: .* no table x"):
        compile_rules([text], {"pacs"}, lambda source: f"there is no table {source.name}")


CATASTROPHES = ["(x+x+)+y", "(.*)(.*)(.*)(.*)(.*)[^.]$", "(?:a|a)*b\\1?(a?){25}a{25}", "^(a|aa|aaa)+(b|bb)+$"]


@pytest.mark.parametrize("pattern", ["(.*)*(.*)*(.*)*q\\1", *CATASTROPHES])
def test_no_pattern_can_hang(pattern: str) -> None:
    """Whatever an expression does, it ends; whether it found anything or gave up does not matter here."""
    try:
        condition = parse_condition(f'PatientComments matches "{pattern}"')
    except SyntaxProblem:
        return
    facts = facts_of(encoded(image(PatientComments="ax" * 4000)))
    began_s = time.process_time()
    try:
        condition.holds(facts)
    except PatternTooSlow as error:
        assert "ax" not in str(error).replace("takes", "")
    assert time.process_time() - began_s < 30


def test_a_pattern_that_takes_too_long_is_given_up() -> None:
    condition = parse_condition(r'PatientComments matches "^(([a-z])+.)+[A-Z]([a-z])+$"')
    with pytest.raises(PatternTooSlow, match="make it simpler"):
        condition.holds(facts_of(encoded(image(PatientComments="a" * 5000))))


LETTERS = list('ModalityCTPatientIDsetandornotmatches()[]{}",.=<>!0123456789 \\\n')


@given(st.text(alphabet=st.sampled_from(LETTERS), max_size=80))
@settings(max_examples=examples(300), deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_condition, parse_action):
        try:
            parse(text)
        except SyntaxProblem as problem:
            assert 0 <= problem.position <= len(text) + 1
