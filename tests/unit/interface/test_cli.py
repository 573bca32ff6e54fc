"""Options may stand before the command, and `run` may be left out."""

from __future__ import annotations

import pytest

from interface.cli import _command_first, build_parser


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ["run"]),
        (["-v"], ["run", "-v"]),
        (["-v", "--config", "x"], ["run", "-v", "--config", "x"]),
        (["--config", "queue", "show", "A1"], ["show", "--config", "queue", "A1"]),
        (["queue", "--state", "held"], ["queue", "--state", "held"]),
        (["--role", "receive"], ["run", "--role", "receive"]),
        (["--help"], ["--help"]),
    ],
)
def test_command_first(given: list[str], expected: list[str]) -> None:
    assert _command_first(given) == expected


def test_a_word_that_is_no_command_is_refused_with_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        build_parser().parse_args(_command_first(["queu"]))
    assert refused.value.code == 2
    assert "queue" in capsys.readouterr().err
