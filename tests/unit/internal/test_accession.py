"""The accession doctor proposes what is proven and decides nothing that is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internal.accession import Case, Order, Rule, check_new, days_around, decide, propose
from internal.config.values import ACCESSION_RULES
from internal.corrections import parse_aliases
from internal.identity import Person

SITI = Person("SITI AMINAH", "19800101", "F", "12")


def case(sent: str, *, day: str = "20260110") -> Case:
    return Case(sent, (SITI,), frozenset({"CT"}), day)


def order(meant: str, patient: Person = SITI, **changes: str) -> Order:
    return Order(meant, patient, **{"modality": "CT", "day": "20260110", **changes})


@pytest.mark.parametrize(("sent", "meant", "rule"), [
    ("RAD 001", "RAD001", Rule.BLANKS), ("RAD\x00001", "RAD001", Rule.BLANKS), ("rad001", "RAD001", Rule.CASE),
    ("00123", "123", Rule.ZEROS), ("123", "000123", Rule.ZEROS), ("RAD-2026-0000123", "RAD-2026-000012345", Rule.CUT),
    ("", "RAD001", Rule.CANDIDATE), ("WRONG", "RAD001", Rule.CANDIDATE), ("RAD\\001", "RAD001", Rule.BLANKS),
])
def test_each_way_to_spoil_a_number(sent: str, meant: str, rule: Rule) -> None:
    (found,) = propose(case(sent), [order(meant)], {})
    assert (found.accession_number, found.rule, found.orders, found.is_certain) == (meant, rule, 1, True)


def test_an_alias_is_proposed_even_without_a_known_order_but_never_applied_alone() -> None:
    (found,) = propose(case("X1"), [], {"X1": "RAD9"})
    assert (found.rule, found.orders, found.is_certain) == (Rule.ALIAS, 0, False)
    assert decide([found], frozenset(Rule)) is None


def test_a_rule_acts_only_with_one_order_and_a_second_identifier() -> None:
    saved = frozenset({Rule.ZEROS})
    good = propose(case("00123"), [order("123")], {})
    assert decide(good, saved) is good[0]
    assert decide(good, frozenset()) is None
    assert decide(good, frozenset({Rule.CASE})) is None
    assert decide(propose(case("00123"), [order("123"), order("123")], {}), saved) is None
    assert decide(propose(case("00123"), [order("123"), order("0123")], {}), saved) is None
    assert decide(propose(case("00123"), [order("123", Person("AGUS"))], {}), saved) is None
    assert decide(propose(case("00123"), [order("123", Person())], {}), saved) is None
    assert decide(propose(case("00123"), [order("123", Person(sex="F"))], {}), saved) is None


@pytest.mark.parametrize("changes", [{"day": "20260120"}, {"modality": "MR"}, {"day": ""}])
def test_no_candidate_of_another_day_or_modality(changes: dict[str, str]) -> None:
    assert propose(case("WRONG"), [order("RAD001", **changes)], {}) == []


def test_no_candidate_without_a_second_identifier() -> None:
    assert propose(case("WRONG"), [order("RAD001", Person("AGUS"))], {}) == []
    assert propose(Case("WRONG", (), frozenset({"CT"}), "20260110"), [order("RAD001")], {}) == []


@pytest.mark.parametrize("wrong", ["", " \0", "A\\B", "A\nB", "A" * 65, "A\u200bB"])
def test_what_may_not_be_sent(wrong: str) -> None:
    with pytest.raises(ValueError, match="accession"):
        check_new(wrong)


def test_a_long_platform_accession_is_allowed() -> None:
    assert check_new(" RAD-2026-000012345 ") == "RAD-2026-000012345"


def test_alias_files() -> None:
    assert parse_aliases("sent,meant\n# old CT\n\n0012, RAD12 \n") == {"0012": "RAD12"}
    for wrong in ("a,b,c\n", "a\n", "a,b\na,c\n", ",b\n"):
        with pytest.raises(ValueError, match="line"):
            parse_aliases(wrong)


def test_the_setting_knows_every_rule() -> None:
    assert tuple(map(str, Rule)) == ACCESSION_RULES


@given(st.text(max_size=40), st.lists(st.text(max_size=40), max_size=4), st.text(max_size=10))
def test_any_text_never_raises_and_never_proposes_itself(sent: str, meant: list[str], day: str) -> None:
    found = propose(case(sent, day=day), [order(one) for one in meant], {})
    assert sent not in {one.accession_number for one in found}
    assert len(found) == len({one.accession_number for one in found})
    days_around(day)


@given(st.text(max_size=200))
def test_alias_files_are_read_or_refused(text: str) -> None:
    try:
        parse_aliases(text)
    except ValueError as fault:
        assert "line" in str(fault)
