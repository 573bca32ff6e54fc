"""What people's commands do to a real index and spool, while nothing else runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interface.cli import main
from interface.cli_database import iso
from internal.devices import Caller, learn
from internal.set_aside import note_bad
from internal.spool import EntryKind
from internal.states import NotYet, Refuse, State
from internal.store import Store
from tests.contract.engine.conftest import Engine

STUDY = "1.2.826.0.1.1"

Command = Callable[..., int]


@pytest.fixture
def hospital(tmp_path: Path) -> Iterator[Engine]:
    """An engine on the index and spool of a data folder."""
    store = Store.open(f"sqlite://{tmp_path / 'index.db'}")
    store.migrate()
    made = Engine(store, tmp_path)
    yield made
    made.writer.close()
    store.close()


@pytest.fixture
def command(tmp_path: Path) -> Command:
    config = tmp_path / "router.conf"
    config.write_text(f"[satusehat]\nurl = http://127.0.0.1:8899\n[router]\ndata_dir = {tmp_path}\nlanguage = en\n")
    return lambda *words: main([*words, "--config", str(config)])


def test_send_now_names_what_it_does_not_know(
    hospital: Engine, command: Command, capsys: pytest.CaptureFixture[str],
) -> None:
    hospital.receive(STUDY, accession="A1")
    hospital.index()
    assert command("send-now", "A1", "NOSUCH") == 1
    said = capsys.readouterr()
    assert "NOSUCH" in said.err
    assert "A1" not in said.err, "a study that is still coming in is known, though it has no job yet"
    hospital.assembler.run_once(0)
    assert hospital.states() == [State.QUEUED]


def test_send_now_says_that_a_held_job_does_not_move(
    hospital: Engine, command: Command, capsys: pytest.CaptureFixture[str],
) -> None:
    hospital.receive(STUDY)
    hospital.settle()
    hospital.destination.script = lambda work: Refuse("several-orders", "two orders")
    hospital.work()
    assert command("send-now", "A1") == 1
    assert "job 1: held" in capsys.readouterr().err
    assert hospital.states() == [State.HELD]


def test_send_now_wakes_what_waits(hospital: Engine, command: Command) -> None:
    hospital.receive(STUDY)
    hospital.settle()
    hospital.destination.script = lambda work: NotYet("no-order", "no ServiceRequest")
    hospital.work()
    assert command("send-now", "A1") == 0
    assert hospital.states() == [State.QUEUED]


def test_reindex_brings_back_images_and_the_ends_of_their_associations(
    hospital: Engine, command: Command, capsys: pytest.CaptureFixture[str],
) -> None:
    hospital.receive(STUDY, association="receive-0.aa.1")
    kept = {"association_id": "receive-0.aa.1", "how": "released", "studies": {STUDY: 1}, "started_at": 1,
            "ended_at": hospital.clock.ms}
    hospital.writer.add_record(EntryKind.ASSOCIATION, json.dumps(kept).encode())
    restarted = {"how": "slot-restarted", "slot": "receive-0", "boot": "bb", "ended_at": hospital.clock.ms}
    hospital.writer.add_record(EntryKind.ASSOCIATION, json.dumps(restarted).encode())
    hospital.receive("1.2.826.0.1.2", association="receive-0.cc.1")
    hospital.spool.to_cur(hospital.spool.scan_new())
    assert command("reindex") == 0
    assert "4 files, 2 rows added, 0 unreadable" in capsys.readouterr().out
    with hospital.store.reading() as tx:
        assert tx.rows("SELECT association_id, how FROM association ORDER BY association_id") == [
            ("receive-0.aa.1", "released"), ("receive-0.cc.1", "")]
    assert command("reindex") == 0
    assert "4 files, 0 rows added" in capsys.readouterr().out


def test_show_tells_who_brought_the_images(
    hospital: Engine, command: Command, capsys: pytest.CaptureFixture[str],
) -> None:
    for number in range(3):
        hospital.receive(STUDY, association=f"receive-0.aa.{number // 2}")
    hospital.settle()
    hospital.destination.script = lambda work: NotYet("no-order", "no ServiceRequest", retry_after_s=3600)
    hospital.work()
    assert command("show", "A1", "--json") == 0
    received = json.loads(capsys.readouterr().out)[0]["received"]
    assert [(one["calling_aet"], one["images"], one["associations"]) for one in received] == [("CT1", 3, 2)]
    assert command("show", "A1") == 0
    said = capsys.readouterr().out
    assert "3 images from CT1 at 10.0.0.9 in 2 associations" in said
    assert "next try" in said


def test_queue_in_a_pipe_is_not_cut(
    hospital: Engine, command: Command, capsys: pytest.CaptureFixture[str],
) -> None:
    hospital.receive(STUDY, accession="RAD-2026-000123")
    hospital.settle()
    assert command("queue") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "RAD-2026-000123" in line)
    assert "scripted" in line
    assert "queued" in line


def test_what_was_set_aside_is_listed_with_its_reason(
    hospital: Engine, command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:
    entry = hospital.receive(STUDY)
    (tmp_path / "spool" / "new" / entry.file_name).write_bytes(bytes(4096))
    hospital.index()
    longest = "1.2.826.0.1.3680043.8.498." + "7" * 38
    with hospital.store.transaction() as tx:
        note_bad(tx, "0a1b-of-a-later-day", "the disk does not give it back", hospital.clock.ms + 60_000,
                 study_uid=longest)
    reason = (tmp_path / "spool" / "bad" / f"{entry.id}.reason").read_text().strip()
    assert "DICM" in reason and (tmp_path / "spool" / "bad" / entry.file_name).read_bytes() == bytes(4096)
    assert command("bad", "--json") == 0
    later, first = json.loads(capsys.readouterr().out)
    assert later == {"entry_id": "0a1b-of-a-later-day", "reason": "the disk does not give it back",
                     "at": hospital.clock.ms + 60_000, "study_uid": longest, "association_id": "",
                     "accepted_at": None}
    assert (first["entry_id"], first["reason"], first["study_uid"]) == (entry.id, reason, "")
    assert command("bad") == 0
    lines = capsys.readouterr().out.splitlines()
    assert str(tmp_path / "spool" / "bad") in "".join(lines[:2])
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    second = next(number for number, row in enumerate(rows) if row[0] == entry.id)
    for cells, expected in ((rows[:second], later), (rows[second:], first)):
        file, at, study, why = ([row[column] for row in cells] for column in range(4))
        assert (file[0], at[0]) == (expected["entry_id"], iso(expected["at"]))
        assert "".join(study) == (expected["study_uid"] or "?") and " ".join(why).strip() == expected["reason"]


def test_what_a_peer_has_written_is_no_markup_and_no_code_for_the_terminal(
    hospital: Engine, command: Command, capsys: pytest.CaptureFixture[str],
) -> None:
    title = "[/b][red]\x1b[2J:bug:"
    hospital.receive(STUDY, accession="[/b]\x1b[31m")
    hospital.settle()
    with hospital.store.transaction() as tx:
        learn(tx, [Caller(title, "192.0.2.4", hospital.clock.ms)])
        note_bad(tx, title, title, hospital.clock.ms)
    for words, shown in ((["devices"], title), (["bad"], title), (["queue"], "[/b]"), (["show", STUDY], "[/b]")):
        assert command(*words) == 0
        said = capsys.readouterr().out
        assert shown.replace("\x1b", "\\x1b") in said
        assert "\x1b" not in said


def test_check_says_how_many_files_were_set_aside_lately(
    hospital: Engine, command: Command, capsys: pytest.CaptureFixture[str],
) -> None:
    now = time.time_ns() // 1_000_000
    for words, files in (("", {}), ("2 files cannot be read", {"f-1": 0, "f-2": 6, "f-3": 8})):
        with hospital.store.transaction() as tx:
            for name, days in files.items():
                note_bad(tx, name, "no mark", now - days * 86_400_000)
        command("check", *(word for key in ("organization_id", "client_key", "secret_key")
                           for word in ("--set", f"satusehat.{key}=100")))
        said = [line for line in capsys.readouterr().out.splitlines() if "set aside" in line]
        assert [line.partition(": ")[2] for line in said] == [
            f"WARNING: {words} and were set aside since {iso(now - 6 * 86_400_000)}; see `bad`"] * bool(files)
