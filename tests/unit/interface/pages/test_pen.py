"""How values are written, and charts whose bars add up."""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interface.explain import EXPLANATIONS, FAMILIES
from interface.http.pages import charts, wording
from interface.http.pages.pen import Pen
from internal.overview import Share
from internal.tally import HOUR_MS

NOON = 1_800_003_600_000  # 2027-01-15 17:00 in Jakarta
INDONESIAN, ENGLISH = (Pen(language, ZoneInfo("Asia/Jakarta"), NOON) for language in ("id", "en"))


@pytest.mark.parametrize(("at", "indonesian", "english"), [
    (NOON, "16:00", "16:00"), (NOON - 24 * HOUR_MS, "14 Jan, 16:00", "14 Jan, 16:00"),
    (NOON - 160 * 24 * HOUR_MS, "8 Agu 2026, 16:00", "8 Aug 2026, 16:00"), (None, "", ""),
])
def test_moments(at: int | None, indonesian: str, english: str) -> None:
    assert (INDONESIAN.moment(at), ENGLISH.moment(at)) == (indonesian, english)


@pytest.mark.parametrize(("span", "indonesian", "english"), [
    (0, "kurang dari semenit", "less than a minute"), (60_000, "1 menit", "1 minute"),
    (HOUR_MS, "60 menit", "60 minutes"),
    (3 * HOUR_MS, "3 jam", "3 hours"), (47 * HOUR_MS, "47 jam", "47 hours"), (72 * HOUR_MS, "3 hari", "3 days"),
    (-5, "kurang dari semenit", "less than a minute"),
])
def test_spans(span: int, indonesian: str, english: str) -> None:
    assert (INDONESIAN.span(span), ENGLISH.span(span)) == (indonesian, english)


@pytest.mark.parametrize(("value", "indonesian", "english"), [
    (0, "0 B", "0 B"), (999, "999 B", "999 B"), (1_500_000, "1,5 MB", "1.5 MB"), (37_000_000_000, "37 GB", "37 GB"),
    (2_400_000_000_000_000, "2400 TB", "2400 TB"),
])
def test_sizes(value: int, indonesian: str, english: str) -> None:
    assert (INDONESIAN.size(value), ENGLISH.size(value)) == (indonesian, english)


def test_numbers_days_and_names() -> None:
    assert (INDONESIAN.number(1234567), ENGLISH.number(1234567)) == ("1.234.567", "1,234,567")
    assert (INDONESIAN.day("20260817"), INDONESIAN.day("?"), INDONESIAN.day("")) == ("17 Agu 2026", "?", "")
    assert [INDONESIAN.person(name) for name in ("SANTOSO^BUDI^A^dr.", "BUDI", "", "A^B=C^D")] == [
        "BUDI A SANTOSO", "BUDI", "", "B A"]
    assert INDONESIAN.midnight() == NOON - 16 * HOUR_MS


@given(st.text(max_size=100))
def test_any_name_is_written(name: str) -> None:
    assert len(INDONESIAN.person(name)) <= len(name) + 1


def test_commands_become_buttons_and_everything_is_escaped() -> None:
    text = wording.in_pages("<b> `retry` and `lane X resume`, `unknown --thing`", INDONESIAN._)
    assert text == ("&lt;b&gt; <b>Coba lagi</b> and <b>Lanjutkan</b>, <code>unknown --thing</code>")


@pytest.mark.parametrize("code", [*EXPLANATIONS, *(f"{prefix}404" for prefix in FAMILIES)])
def test_every_cause_has_words_and_somebody_who_acts(code: str) -> None:
    assert INDONESIAN.why(code, "") and ENGLISH.why(code, "")
    assert wording.who_acts(code) in wording.WHO.values()


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 9000))
def test_bars_stay_inside_and_add_up(delivered: int, moving: int, waiting: int, held: int, more: int) -> None:
    share = Share(delivered, moving, waiting, held)
    drawn = charts.share_bar(share, "<label>", share.total + more)
    assert "&lt;label&gt;" in drawn
    ends = [float(x) + float(width) for x, width in re.findall(r'x="([\d.]+)" y="0" width="([\d.]+)"', drawn)]
    assert all(end <= 101 for end in ends)


@given(st.dictionaries(st.integers(0, 23), st.tuples(*[st.integers(0, 100_000)] * 4), max_size=24))
def test_the_chart_of_a_day_stays_inside_its_frame(found: dict[int, tuple[int, int, int, int]]) -> None:
    midnight = NOON - 16 * HOUR_MS
    drawn = charts.hours_chart({midnight + hour * HOUR_MS: Share(*one) for hour, one in found.items()}, midnight, "day")
    tops = [float(y) for y in re.findall(r'<rect[^>]* y="(-?[\d.]+)"', drawn)]
    assert all(top >= -4 * 4 for top in tops)
    assert drawn.count('text-anchor="middle"') == 8
