"""Files for browsers and spreadsheets: names that stay names, cells that stay text."""

from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from interface.http.downloads import content_disposition, csv_text


@given(st.text())
def test_a_name_cannot_become_a_header_or_a_path(name: str) -> None:
    value = content_disposition(name)
    assert value.isascii() and value.isprintable()
    plain = value.split('"')[1]
    assert plain and not plain.startswith(".") and "/" not in value.split("; ")[1] and "\\" not in plain


@given(st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n")), min_size=2,
                         max_size=2), max_size=5))
def test_no_cell_is_a_formula_and_none_is_lost(rows: list[list[str]]) -> None:
    read = list(csv.reader(io.StringIO(csv_text(("a", "b"), rows).removeprefix("\ufeff"))))
    assert len(read) == len(rows) + 1
    for row, shown in zip(rows, read[1:], strict=True):
        for value, cell in zip(row, shown, strict=True):
            assert cell in (value, f"'{value}") and not cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t"))
