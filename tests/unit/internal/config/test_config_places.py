"""Destinations and watched folders in router.conf: what loads, what is refused and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from internal.config import ConfigurationInvalid, Settings, load
from internal.config.values import WrongValue, parse_destination_name, parse_path_template

CREDENTIALS = {"ORG_ID": "1", "CLIENT": "client", "SECRET": "secret"}
DIMSE = "[dimse:pacs]\nhost = 10.0.0.5\nae_title = PACS\n"


def read(folder: Path, text: str, **environ: str) -> Settings:
    path = folder / "router.conf"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return load(path, CREDENTIALS | environ)


def test_each_kind_loads_and_can_be_sent_to(tmp_path: Path) -> None:
    found = read(tmp_path, "[router]\nsend_to = satusehat, dimse:pacs, web, far, cloud, disk\n" + DIMSE + (
        "failover_to = disk\n[dicomweb:web]\nurl = https://pacs.example/dicom-web/\n"
        "[sftp:far]\nhost = far.example\nuser = u\nknown_hosts = known\n[folder:disk]\npath = out\n"
        "[s3:cloud]\nbucket = images\naccess_key = aaaa\n[watch:cd]\npath = in\n"), ROUTER_S3_CLOUD_SECRET_KEY="kkkkk")
    assert found.warnings == ()
    assert found.router.send_to == ("satusehat", "pacs", "web", "far", "cloud", "disk")
    assert found.destinations == {"disk": "folder", "pacs": "dimse", "web": "dicomweb", "far": "sftp", "cloud": "s3"}
    assert set(found.destination_names()) == {"satusehat", *found.destinations}
    pacs = found.section("dimse:pacs")
    assert (pacs.port, pacs.late, pacs.failover_to, pacs.failover_after) == (104, "new", "disk", 600.0)
    assert found.section("dicomweb:web").url == "https://pacs.example/dicom-web"
    assert found.section("sftp:far").known_hosts == tmp_path / "known"
    assert "kkkkk" in found.secrets() and "kkkkk" not in repr(found)


@pytest.mark.parametrize(("text", "words"), [
    ("[dimse:pacs]\nhost = x\n", "[dimse:pacs] ae_title is not set"),
    (DIMSE + "failover_to = pacs\n", "which cannot stand in"),
    (DIMSE + "failover_to = satusehat\n", "which cannot stand in"),
    (DIMSE + "commitment = yes\nfailover_to = disk\n[folder:disk]\npath = out\n", "does not go with commitment"),
    (DIMSE + "[folder:pacs]\npath = out\n", "has the name of [folder:pacs]"),
    ("[dicomweb:web]\nurl = http://10.0.0.9/dicom-web\n", "is http, which everybody on the way can read"),
    ("[dimse:webhook]\nhost = x\nae_title = A\n", "is not a usable name"),
    ("[watch:in]\npath = data/in\n", "lies inside data_dir"),
    ("[watch:in]\npath = .\n", "has data_dir in it"),
    ("[folder:disk]\npath = out\ntemplate = {patient}/{sop}.dcm\n", "names {patient}"),
    ("[router]\nsend_to = pcas\n" + DIMSE, "did you mean pacs?"),
])
def test_a_mistake_is_an_error_with_words(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationInvalid) as caught:
        read(tmp_path, text)
    assert words in str(caught.value)


def test_plain_http_inside_the_hospital_is_a_decision_in_writing(tmp_path: Path) -> None:
    found = read(tmp_path, "[dicomweb:web]\nurl = http://10.0.0.9:8042/dicom-web\nplain_http = yes\n")
    assert found.section("dicomweb:web").url == "http://10.0.0.9:8042/dicom-web"


@pytest.mark.parametrize("text", ["{sop}", "{accession}/{study}/{sop}.dcm", "in/{year}-{month}/x_{sop}.dcm"])
def test_templates_of_paths(text: str) -> None:
    assert parse_path_template(text) == text


@pytest.mark.parametrize("text", [
    "../{sop}", "/{sop}", "{sop}/", "a//{sop}", "{study}.dcm", "{sop", "{sop}.", "{SOP}", "{sop}\\x", "./{sop}",
    "a b/{sop}", "/".join("abcdefgh") + "/{sop}", "x" * 200 + "{sop}",
])
def test_templates_that_could_lead_astray_are_refused(text: str) -> None:
    with pytest.raises(WrongValue):
        parse_path_template(text)


def test_the_kind_before_a_name_may_be_left_out() -> None:
    assert {parse_destination_name(text) for text in ("pacs", "dimse:pacs", "s3:pacs")} == {"pacs"}


def test_a_rule_that_names_the_platform_opens_its_lane(tmp_path: Path) -> None:
    path = tmp_path / "router.conf"
    path.write_text("[router]\ndefault_send_to = none\n[folder:disk]\npath = x\n"
                    "[rule:a]\nsend_to = satusehat, nobody\n")
    assert load(path, {}, require_platform=False).lane_names() == ("satusehat", "disk")
    with pytest.raises(ConfigurationInvalid, match="organization_id"):
        load(path, {})
    path.write_text("[router]\nsend_to = none\n[folder:disk]\npath = x\n[rule:a]\nsend_to = disk\n")
    assert load(path, {}).lane_names() == ("disk",)
