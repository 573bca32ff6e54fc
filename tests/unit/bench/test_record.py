"""The tables in docs/ say what the results say."""

from __future__ import annotations

import json

import pytest

from bench import record

JUNIT = """<testsuites><testsuite>
<testcase classname="tests.system.test_kill" name="test_a" time="12.5"/>
<testcase classname="tests.system.test_kill.TestMore" name="test_b" time="1"><failure>x</failure></testcase>
<testcase classname="tests.unit.test_docs" name="test_c" time="0.1"><skipped/></testcase>
</testsuite></testsuites>"""


def test_results_are_counted_by_file() -> None:
    table = record.proof_table(record.read_junit([JUNIT]), "2025-01-02; 2 cores")
    assert table.startswith("2025-01-02; 2 cores\n")
    assert "| `tests/system/test_kill.py` | 1 | 1 | 0 | 14 |" in table
    assert "| `tests/unit/test_docs.py` | 0 | 0 | 1 | 0 |" in table
    assert "| **all** | 1 | 1 | 1 | 14 |" in table


def test_figures_become_a_table() -> None:
    rows = [{"case": "CT | 0.5 MB", "rate": 12345.6, "detail": [1]}, {"case": "DX", "p95_ms": 0.123456}]
    table = record.bench_table({"receive": ("today", {"rows": rows})})
    assert table.startswith("### bench/receive.py\n\ntoday\n\n| case |")
    assert "| case | rate | p95_ms |" in table
    assert "| CT \\| 0.5 MB | 12,346 |  |" in table
    assert "| DX |  | 0.123 |" in table


def test_rows_come_as_a_list_or_in_an_object() -> None:
    assert record.rows_of([{"a": 1}]) == record.rows_of({"rows": [{"a": 1}]}) == [{"a": 1}]


def test_only_the_marked_part_of_a_page_changes() -> None:
    page = "a\n<!-- proof:begin -->\nold\n<!-- proof:end -->\nz\n"
    assert record.replace_between(page, "proof", "new") == "a\n<!-- proof:begin -->\nnew\n<!-- proof:end -->\nz\n"
    with pytest.raises(record.RecordFailed):
        record.replace_between(page, "bench", "new")


def test_the_pages_have_their_markers() -> None:
    for page, name in (
        ("reliability.md", "proof"), ("reliability.md", "faults"), ("reliability.md", "soak"),
        ("performance.md", "bench"),
    ):
        record.replace_between((record.ROOT / "docs" / page).read_text(), name, "")


def test_recorded_figures_stand_above_the_table() -> None:
    text = (
        '<testsuites><testsuite><testcase classname="tests.system.test_soak" name="test_soak" time="1"><properties>'
        '<property name="acknowledged" value="12"/><property name="lost" value="0"/></properties></testcase>'
        "</testsuite></testsuites>"
    )
    figures = record.read_figures([text])
    assert figures == ["- `test_soak`: acknowledged 12, lost 0"]
    assert record.proof_table({}, "stamp", figures).startswith("stamp\n\n- `test_soak`: acknowledged 12, lost 0\n\n|")


def test_faults_become_a_table_of_their_own_in_the_order_of_the_catalogue() -> None:
    rows = [("D10", "other bytes", "not run: shown elsewhere"), ("D2a", "no token", "survived"), ("A1", "x", "lost 1")]
    properties = "".join(f"<property name=\"fault\" value='{json.dumps(row)}'/>" for row in rows)
    text = (f'<testsuites><testsuite><testcase classname="tests.faults.test_x" name="a" time="1"><properties>'
            f"{properties}</properties></testcase></testsuite></testsuites>")
    assert record.read_figures([text]) == []
    found = record.read_faults([text])
    assert [id_ for id_, _, _ in found] == ["A1", "D2a", "D10"]
    table = record.faults_table(found, "stamp")
    assert "**1 of 2 survived.**" in table
    assert "| D10 | other bytes | not run: shown elsewhere |" in table
