"""Our own sender against files that change or break off while they are sent; what it sends is in test_peers."""

from __future__ import annotations

from pathlib import Path

from interface.dimse.scu import FileResult, send_paths
from tests.contract.destinations.line import Line
from tests.contract.dimse.role import Role
from tests.contract.dimse.test_peers import copies

_LARGE = 64 * 1024 * 1024


def test_a_file_that_breaks_off_while_it_is_sent_leaves_the_others_alone(shared: Role, tmp_path: Path) -> None:
    uids = copies(tmp_path, "CT_small.dcm", 3)
    large = tmp_path / "001.dcm"
    with large.open("ab") as file:  # larger than what sockets hold: it is still being read when it is cut
        file.truncate(_LARGE)

    def cut(carried: int) -> None:
        if carried > 1024 * 1024 and large.stat().st_size == _LARGE:
            with large.open("r+b") as file:
                file.truncate(1024)

    line = Line(shared.port, cut)
    try:
        report = send_paths("127.0.0.1", line.port, [tmp_path])
    finally:
        line.stop()
    assert [result.status for result in report.results] == [0, None, 0]
    assert "cannot be read to its end" in report.results[1].reason
    assert line.connections == 2
    stored = shared.data_sets().keys()
    assert {uids[0], uids[2]} <= stored and uids[1] not in stored


def test_a_file_that_is_gone_or_emptied_before_its_turn_is_reported(shared: Role, tmp_path: Path) -> None:
    copies(tmp_path, "CT_small.dcm", 4)

    def change(_result: FileResult, done: int, _total: int) -> None:
        if done == 1:
            (tmp_path / "001.dcm").unlink()
            (tmp_path / "002.dcm").write_bytes(b"")

    report = send_paths("127.0.0.1", shared.port, [tmp_path], on_progress=change)
    assert [result.status for result in report.results] == [0, None, None, 0]
    assert "no such file" in report.results[1].reason
    assert "no data set" in report.results[2].reason


def test_the_rest_of_the_files_is_named_when_the_node_goes_away(tmp_path: Path) -> None:
    copies(tmp_path / "images", "CT_small.dcm", 4)
    role = Role(tmp_path / "spool", environment={"ROUTER_FAULT": "recv.mid:raise:2"})
    try:
        report = send_paths("127.0.0.1", role.port, [tmp_path / "images"])
    finally:
        assert role.stop() == 0
    assert [Path(result.name).name for result in report.results] == [f"00{number}.dcm" for number in range(4)]
    assert [result.status for result in report.results] == [0, None, None, None]
