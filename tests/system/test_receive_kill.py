"""kill -9 of a receive process at each dangerous point: what was answered is kept, what was not is whole or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.dimse.role import Role, until
from tests.contract.dimse.wire import Closed, Wire, data_set

#: The other order is taken where no mark can be put.
NO_MARKS = "store.mark:eio,"
POINTS = ["recv.mid:kill9:30", "store.after_write:kill9:4", "store.after_fsync:kill9:4", "store.before_link:kill9:3",
          "store.after_link:kill9:3", "assoc.after_rsp:kill9:3", NO_MARKS + "store.after_fsync:kill9:4",
          NO_MARKS + "store.after_rename:kill9:4", NO_MARKS + "store.after_dirsync:kill9:4"]  # fmt: skip


def store_until_it_dies(port: int) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The instances that were sent, and those of them that were answered with success."""
    sent: dict[str, bytes] = {}
    answered: dict[str, bytes] = {}
    with Wire(port) as wire:
        wire.associate()
        try:
            for number in range(50):
                uid = f"1.2.{number}"
                sent[uid] = data_set(uid, pixels=50_000)
                assert wire.store(number, uid, sent[uid]).status == 0
                answered[uid] = sent[uid]
        except (Closed, OSError):
            pass
    return sent, answered


@pytest.mark.parametrize("fault", POINTS)
def test_what_was_answered_survives_a_kill(tmp_path: Path, fault: str) -> None:
    role = Role(tmp_path / "spool", environment={"ROUTER_FAULT": fault})
    sent, answered = store_until_it_dies(role.port)
    assert 0 < len(answered) < 50, "the process did not die where it was told to"
    role.kill()
    again = Role(tmp_path / "spool")
    try:
        until(lambda: len(again.records("slot-restarted")) >= 2)
        kept = again.data_sets()
        assert kept.items() >= answered.items()
        assert kept.items() <= sent.items()  # byte for byte, nothing half written
        assert again.temporary_files() == []
        with Wire(again.port) as wire:
            wire.associate()
            assert wire.store(1, "1.2.99", data_set("1.2.99")).status == 0
            wire.release()
    finally:
        assert again.stop() == 0
