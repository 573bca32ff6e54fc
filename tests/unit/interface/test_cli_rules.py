"""`main.py rules`: what people see and may change, without a running router."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from interface.cli import main
from interface.roles import open_store
from internal import audit_trail
from internal.config import load

CONF = """
[satusehat]
organization_id = 1
client_key = aaaa
secret_key = bbbb
[router]
data_dir = data
[folder:pacs]
path = pacs
[rule:relay]
when = called = DICOMRELAY and EthnicGroup present
do =
    set PatientID = EthnicGroup
    map StationName using table stations.csv
send_to = pacs
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "router.conf"
    path.write_text(CONF)
    path.chmod(0o600)
    (tmp_path / "stations.csv").write_text("CT01_OC0,CT-A\n")
    (tmp_path / "data").mkdir()
    store = open_store(load(path, {}))
    store.migrate()
    store.close()
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    dataset = dcmread(str(get_testdata_file("CT_small.dcm")))
    dataset.EthnicGroup = "99-17"
    dataset.save_as(tmp_path / "one.dcm")
    return tmp_path / "one.dcm"


def rules(conf: Path, *words: str) -> int:
    return main(["rules", "--config", str(conf), *words])


def test_the_tester_shows_what_fires_what_changes_and_where_it_goes(
    conf: Path, image: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    assert rules(conf, "test", str(image), "--called", "DICOMRELAY", "--json") == 0
    (study,) = json.loads(capsys.readouterr().out)
    assert (study["destinations"], study["fired"], study["by_default"]) == ([["pacs", 1]], ["relay"], False)
    (file,) = study["files"]
    assert [(test["text"], test["held"], test["saw"]) for test in file["rules"][0]["tests"]] == [
        ("called = DICOMRELAY", True, "DICOMRELAY"), ("EthnicGroup present", True, "99-17")]
    changes = {row[0]: tuple(row[1:]) for row in file["copies"][0]["changes"]}
    assert changes["(0010,0020) PatientID"] == ("1CT1", "99-17")
    assert changes["(0008,1010) StationName"] == ("CT01_OC0", "CT-A")
    assert any("(0400,0561)" in name for name in changes)
    assert rules(conf, "test", str(image), "--called", "OTHER") == 0
    shown = capsys.readouterr().out
    assert "satusehat (1)" in shown
    assert "false  called = DICOMRELAY   (is: OTHER)" in shown
    assert "as received" in shown


def test_a_file_that_is_none_and_a_rule_that_cannot_be_done_are_said(
    conf: Path, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text.dcm").write_text("no image")
    assert rules(conf, "test", str(tmp_path / "text.dcm")) == 1
    assert "no DICM prefix" in capsys.readouterr().out
    conf.write_text(CONF.replace("set PatientID = EthnicGroup", "set PatientID = PatientComments else hold"))
    assert rules(conf, "test", str(image), "--called", "DICOMRELAY") == 1
    assert "HELD" in capsys.readouterr().out


def test_check_names_file_and_line(conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rules(conf, "check") == 0
    (tmp_path / "stations.csv").unlink()
    conf.write_text(CONF.replace("set PatientID", "set PatientIDD"))
    assert rules(conf, "check") == 1
    said = capsys.readouterr().err
    line = CONF.split("\n").index("    set PatientID = EthnicGroup") + 1
    assert f"file router.conf line {line}: [rule:relay] do PatientIDD is no DICOM keyword" in said
    assert "(did you mean PatientID?)" in said
    assert f"line {line + 1}: [rule:relay] do table stations.csv cannot be read" in said


def test_rules_of_the_catalogue_are_put_listed_rolled_back_and_removed(
    conf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    text = tmp_path / "night.txt"
    text.write_text("when = time in 22:00-06:00\nsend_to = pacs\n")
    assert rules(conf, "put", "night", str(text), "--by", "dr. Sari") == 0
    text.write_text("when = time in 23:00-06:00\nsend_to = pacs\n")
    assert rules(conf, "put", "night", str(text)) == 0
    text.write_text("when = time in noon\nsend_to = pacs\n")
    assert rules(conf, "put", "night", str(text)) != 0
    assert rules(conf, "rollback", "night", "1") == 0
    capsys.readouterr()
    assert rules(conf, "list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["rules"]
    assert [(rule["name"], rule["when"]) for rule in listed][1] == ("night", "time in 22:00-06:00")
    assert rules(conf, "history", "night") == 0
    shown = capsys.readouterr().out
    assert "dr. Sari" in shown
    assert re.search(r"3 \(revision 1\s+again\)|3 \(revision 1 again\)|revision 1", shown)
    assert rules(conf, "remove", "night") == 0
    assert rules(conf, "reveal", "PNOBODY", "--reason", "a call") != 0
    store = open_store(load(conf, {}))
    with store.reading() as tx:
        told = [(one.action, one.subject) for one in audit_trail.entries(tx, limit=20)]
    store.close()
    assert {("settings.change", "rule/night"), ("settings.rollback", "rule/night"),
            ("pseudonym.reveal", "PNOBODY")} <= set(told)
    for wrong in (("put", "night"), ("put", "Not A Name", str(text)), ("rollback", "night", "x"), ("reveal",),
                  ("put", "relay", str(text)), ("dry-run", "--since", "soon"), ("test",)):
        assert rules(conf, *wrong) != 0


def test_a_dry_run_of_nothing_and_studies_that_go_nowhere(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from internal.config import load
    from internal.spool import Spool

    Spool.open(load(conf, {}).spool_dir)
    assert rules(conf, "dry-run", "--since", "2026-01-01") == 0
    assert "0 studies" in capsys.readouterr().out
    assert rules(conf, "nowhere", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []
