"""The scan of router.conf: the same entries as Python's configparser, but with lines and every mistake."""

from __future__ import annotations

import configparser
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from internal.config import ConfigurationInvalid
from internal.config.conffile import MAX_LINES, read_conf, scan
from tests.examples import examples


def by_configparser(text: str) -> dict[tuple[str, str], str]:
    parser = configparser.RawConfigParser(default_section="\0")
    parser.read_file(text.splitlines(keepends=True))
    return {(each, key): parser.get(each, key) for each in parser.sections() for key in parser.options(each)}


LINES = st.one_of(
    st.builds("{}{}{}{}".format, st.sampled_from(["", "", " ", "   ", "\t"]), st.sampled_from(["a", "b", "c", "d e"]),
              st.sampled_from(["=", " = ", ":", " : ", "  ="]),
              st.text(alphabet="ab%$;#=:[]\\ \t\"'ä", max_size=12)),
    st.sampled_from(["", "  ", "# c", "  ; c", "[satusehat]", "[router]", "[spool] # x", "  more", "\tmore", "[[x]]"]),
)


@settings(max_examples=examples(500), deadline=None)
@given(st.lists(LINES, max_size=14).map(lambda lines: "\n".join(["[first]", *lines])))
def test_the_same_entries_as_configparser(text: str) -> None:
    conf = scan(text, "router.conf")
    try:
        expected = by_configparser(text)
    except configparser.Error:
        assert conf.problems
        return
    assert not conf.problems
    assert {name: entry.text for name, entry in conf.entries.items()} == expected


@given(st.text(max_size=300))
def test_any_text_is_scanned(text: str) -> None:
    conf = scan(text, "router.conf")
    lines = text.count("\n") + text.count("\r") + 1
    assert all(1 <= entry.line <= lines for entry in conf.entries.values())


def test_lines_are_those_an_editor_shows() -> None:
    text = "# note\n[satusehat]\n\nAE_Title = X\nlist = a,\n\n  # note\n   b\nurl: h\n"
    conf = scan(text.replace("\n", "\r\n"), "r.conf")
    assert {key: (entry.text, entry.line, entry.continued_at) for (_, key), entry in conf.entries.items()} == {
        "ae_title": ("X", 4, 0), "list": ("a,\n\nb", 5, 8), "url": ("h", 9, 0)}
    assert conf.sections == {"satusehat": 2}


def test_every_mistake_is_reported_and_no_value_shown() -> None:
    conf = scan("x = 1\n[a]\nhunter2\nk = 1\n= hunter2\nk = hunter2\n[A]\n", "r.conf")
    assert [problem.origin for problem in conf.problems] == [f"file r.conf line {line}" for line in (1, 3, 5, 6, 7)]
    assert not any("hunter2" in str(problem) for problem in conf.problems)


@pytest.mark.skipif(os.name == "nt", reason="no /dev on Windows")
def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match="more than"):
        scan("\n" * MAX_LINES, "r.conf")
    with pytest.raises(ConfigurationInvalid, match="is not a file"):
        read_conf(Path("/dev/zero"))


@pytest.mark.skipif(os.name == "nt", reason="no mode bits on Windows")
def test_who_may_read_it_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "r.conf"
    path.write_text("")
    for mode, expected in ((0o600, False), (0o640, False), (0o644, True)):
        path.chmod(mode)
        assert read_conf(path).readable_by_all is expected
