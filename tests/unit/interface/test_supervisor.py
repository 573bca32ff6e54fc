"""What the supervisor does when a role cannot even be started."""

from __future__ import annotations

import logging
import sys

import pytest

from interface.supervisor import Supervisor


def test_a_role_that_cannot_be_started_ends_no_other(caplog: pytest.LogCaptureFixture) -> None:
    sleeper = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    supervisor = Supervisor([("deliver", ["/nonexistent/program"]), ("receive", sleeper)])
    with caplog.at_level(logging.ERROR):
        assert supervisor._tick() is None
        assert supervisor._tick() is None
    supervisor._end_all()
    assert [record.fields["status"] for record in caplog.records] == ["No such file or directory"]  # type: ignore[attr-defined]
