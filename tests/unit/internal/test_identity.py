"""Can two descriptions be one patient? Golden cases of Indonesian names, and properties over any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internal.identity import Person, Verdict, compare, find_strangers, fingerprint, fold_id, name_words

SAME = [
    ("NY. SITI AMINAH", "Siti Aminah"),
    ("AMINAH^SITI^^NY", "Siti Aminah"),
    ("SITI AMINAH, NY", "AMINAH SITI"),
    ("TN. SUKARNO", "SOEKARNO"),
    ("SUHARTO", "Suharto"),
    ("BY. NY. DEWI LESTARI", "Dewi Lestari"),
    ("AN. BUDI", "Budi Santoso"),
    ("MUH. RIZKI", "Muhammad"),
    ("MOCHAMMAD", "Muhammad Ilham"),
    ("Dr. José Pereira, Sp.PD", "JOSE PEREIRA"),
    ("I^MADE^WIRA", "Made Wira"),
    ("SITIAMINAH", "SITI AMINAH"),
    ("M ARIFIN", "Muhammad Arifin"),
    ("TJIPTO", "Cipto"),
    ("H. ABDUL RAHMAN BIN ALI", "Abdul Rahman"),
    ("Wang^XiaoDong=王^小東", "XiaoDong Wang"),
    ("AN", "An"),
]
OTHER = [
    ("NY. SITI AMINAH", "NY. RATNA DEWI"),
    ("TN. BUDI", "TN. AGUS"),
    ("UMAR BIN ALI", "HASAN BIN YUSUF"),
    ("BY. NY. DEWI", "BY. NY. RATNA"),
    ("SUHARTO", "SUKARNO"),
]
UNKNOWN = [("", "Siti"), ("S*** A*****", "Ratna Dewi"), ("XXXXXX", "Ratna"), ("####", "Ratna"), ("^^^^", "Ratna")]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_one_common_word_is_enough(one: str, other: str) -> None:
    assert compare(Person(one), Person(other)).name is Verdict.AGREES


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_no_common_word_differs(one: str, other: str) -> None:
    assert compare(Person(one), Person(other)).differences == ("name",)


@pytest.mark.parametrize(("one", "other"), UNKNOWN)
def test_absent_or_masked_is_not_comparable(one: str, other: str) -> None:
    assert compare(Person(one), Person(other)).name is Verdict.NOT_COMPARABLE


@pytest.mark.parametrize(("one", "other", "verdict"), [
    ("19800101", "1980-01-01", Verdict.AGREES), ("19800101", "1980", Verdict.AGREES),
    ("19800102", "1980-01-01", Verdict.DIFFERS), ("", "1980-01-01", Verdict.NOT_COMPARABLE),
    ("19000101", "1980-01-01", Verdict.NOT_COMPARABLE), ("********", "1980-01-01", Verdict.NOT_COMPARABLE),
    ("1980", "1980-07", Verdict.AGREES), ("198001", "1980-07", Verdict.DIFFERS),
])
def test_birth_dates_as_far_as_both_are_known(one: str, other: str, verdict: Verdict) -> None:
    assert compare(Person(birth_date=one), Person(birth_date=other)).birth_date is verdict


@pytest.mark.parametrize(("one", "other", "verdict"), [
    ("M", "male", Verdict.AGREES), ("F", "female", Verdict.AGREES), ("M", "female", Verdict.DIFFERS),
    ("O", "female", Verdict.NOT_COMPARABLE), ("", "male", Verdict.NOT_COMPARABLE), ("L", "male", Verdict.AGREES),
    ("P", "female", Verdict.AGREES), ("M", "unknown", Verdict.NOT_COMPARABLE),
])
def test_only_male_against_female_differs(one: str, other: str, verdict: Verdict) -> None:
    assert compare(Person(sex=one), Person(sex=other)).sex is verdict


def test_record_numbers_without_case_separators_and_zeros() -> None:
    assert fold_id("00-12.34 a") == fold_id("1234A") == "1234A"
    assert compare(Person(mrn="0012"), Person(mrn="13")).differences == ("mrn",)
    assert compare(Person(mrn="0000"), Person(mrn="13")).mrn is Verdict.NOT_COMPARABLE


def test_second_identifier_needs_agreement_and_no_difference() -> None:
    assert compare(Person("Siti", sex="F"), Person("SITI")).has_second_identifier
    assert not compare(Person(sex="F"), Person(sex="F")).has_second_identifier
    assert not compare(Person("Siti", "19800101"), Person("SITI", "1981-01-01")).has_second_identifier


def test_strangers_are_found_among_spellings_of_one_patient() -> None:
    spellings = [Person("NY. SITI AMINAH", "19800101", "F", "0012"), Person("AMINAH^SITI", "19800101", "", "12")]
    assert find_strangers(spellings) is None
    stranger = Person("AGUS", "19700101", "M", "99")
    assert find_strangers([*spellings, stranger]) == (spellings[0], stranger)


def test_a_person_never_shows_in_repr() -> None:
    assert "Siti" not in repr(Person("Siti", "19800101", "F", "MR1"))


people = st.builds(Person, name=st.text(max_size=40), birth_date=st.text(max_size=12), sex=st.text(max_size=8),
                   mrn=st.text(max_size=20))


@given(people, people)
def test_comparison_is_symmetric_and_never_raises(one: Person, other: Person) -> None:
    assert compare(one, other) == compare(other, one)
    assert fingerprint([one, other]) == fingerprint([other, one, one])


@given(people)
def test_nobody_differs_from_himself(one: Person) -> None:
    assert compare(one, one).differences == ()


@given(st.lists(st.sampled_from(["SITI", "AMINAH", "DEWI", "BUDI", "AGUS"]), min_size=1, max_size=4, unique=True),
       st.randoms(use_true_random=False), st.sampled_from(["NY. ", "TN ", "By. Ny. ", "an.", ""]))
def test_order_case_and_titles_do_not_count(words: list[str], random: object, title: str) -> None:
    shuffled = list(words)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    written = f"{title} {'^'.join(shuffled)}".lower()
    assert sorted(name_words(written)) == sorted(name_words(" ".join(words)))
