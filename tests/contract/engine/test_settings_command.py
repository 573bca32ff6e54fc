"""`main.py settings` and `lane NAME set`: history, differences and the way back by command."""

from __future__ import annotations

import json

import pytest

from internal import lane_settings
from internal.lane_settings import LaneSettings
from tests.contract.engine.conftest import Engine
from tests.contract.engine.test_commands import Command, command, hospital

__all__ = ["command", "hospital"]


def in_force(hospital: Engine) -> LaneSettings:
    with hospital.store.reading() as tx:
        return lane_settings.in_force(tx, "satusehat")


def test_a_lane_is_set_and_taken_back(
    hospital: Engine, command: Command, capsys: pytest.CaptureFixture[str],
) -> None:
    assert command("lane", "satusehat", "set", "--bandwidth", "2MB", "--send-hours", "19:00-06:00") == 0
    assert in_force(hospital) == LaneSettings(bandwidth=2 * 1024**2, send_hours="19:00-06:00")
    assert command("lane", "satusehat", "set", "--bandwidth", "0") == 0
    assert in_force(hospital).bandwidth == 0
    assert command("lane", "satusehat", "set", "--send-hours", "file") == 0
    assert in_force(hospital) == LaneSettings(bandwidth=0)
    assert "send_hours = as router.conf says" in capsys.readouterr().out
    assert command("settings", "rollback", "lane", "satusehat", "--revision", "1") == 0
    assert in_force(hospital) == LaneSettings(bandwidth=2 * 1024**2, send_hours="19:00-06:00")
    capsys.readouterr()
    assert command("settings", "history", "lane", "satusehat", "--json") == 0
    history = json.loads(capsys.readouterr().out)
    assert [(one["revision"], one["restores"]) for one in history] == [(4, 1), (3, None), (2, None), (1, None)]
    assert all(one["author"].startswith("cli:") for one in history)
    assert command("settings", "diff", "lane", "satusehat", "--revision", "2") == 0
    assert capsys.readouterr().out == "bandwidth: 2097152 -> 0\n"
    assert command("settings", "list") == 0


@pytest.mark.parametrize("words", [
    ("lane", "satusehat", "set"), ("lane", "satusehat", "set", "--bandwidth", "fast"),
    ("lane", "satusehat", "set", "--send-hours", "25:00-26:00"), ("settings", "history", "lane"),
    ("settings", "rollback", "lane", "satusehat"), ("settings", "rollback", "lane", "satusehat", "--revision", "3"),
    ("settings", "history", "lane", "satusehat"),
])
def test_what_cannot_be_done_is_said_and_changes_nothing(
    hospital: Engine, command: Command, capsys: pytest.CaptureFixture[str], words: tuple[str, ...],
) -> None:
    assert command(*words) == 1
    assert capsys.readouterr().err
    assert in_force(hospital) == LaneSettings()


def test_pausing_is_a_revision_too(hospital: Engine, command: Command) -> None:
    assert command("lane", "satusehat", "pause", "--reason", "repairs") == 0
    assert in_force(hospital) == LaneSettings(paused=True, reason="repairs")
    assert command("lane", "satusehat", "resume") == 0
    assert in_force(hospital) == LaneSettings()


def test_the_same_in_file_and_database_is_an_error(
    hospital: Engine, command: Command, capsys: pytest.CaptureFixture[str],
) -> None:
    assert command("lane", "satusehat", "set", "--bandwidth", "2MB") == 0
    assert command("settings", "list", "--set", "satusehat.bandwidth=1MB") == 1
    assert "lane satusehat: bandwidth is set in the configuration file and in the database" in capsys.readouterr().err
    assert command("lane", "satusehat", "set", "--bandwidth", "3MB", "--set", "satusehat.bandwidth=1MB") == 1
    assert in_force(hospital).bandwidth == 2 * 1024**2
