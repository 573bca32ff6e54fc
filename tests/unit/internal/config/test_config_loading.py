"""Loading: precedence, every mistake at once with its line, warnings, and rubbish that must not crash."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from internal import errors
from internal.config import SETTINGS, ConfigurationInvalid, Settings, environment_key, environment_name, load
from tests.examples import examples

CREDENTIALS = "[satusehat]\norganization_id = 100099001\nclient_key = the-client\nsecret_key = the%secret;#=:\n"


def conf(folder: Path, text: str | bytes) -> Path:
    path = folder / "router.conf"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(0o600)
    return path


def read(folder: Path, text: str | bytes, environ: dict[str, str] | None = None, **overrides: str) -> Settings:
    return load(conf(folder, text), environ or {}, {k.replace("__", "."): v for k, v in overrides.items()})


def mistakes(folder: Path, text: str | bytes, environ: dict[str, str] | None = None, **overrides: str) -> list[str]:
    with pytest.raises(ConfigurationInvalid) as caught:
        read(folder, text, environ, **overrides)
    return [str(problem) for problem in caught.value.problems]


def test_three_values_are_enough_and_everything_else_has_its_default(tmp_path: Path) -> None:
    found = read(tmp_path, CREDENTIALS)
    assert found.satusehat.organization_id == "100099001"
    assert found.satusehat.secret_key.reveal() == "the%secret;#=:"
    assert found.satusehat.url == "https://api-satusehat-dev.dto.kemkes.go.id"
    assert (found.router.settle, found.spool.min_free, found.spool.fsync) == (60.0, 2 << 30, True)
    assert found.data_dir == found.router.data_dir == tmp_path / "data"
    assert (found.spool_dir, found.database_path) == (tmp_path / "data/spool", tmp_path / "data/index.db")
    assert found.database_url == f"sqlite://{found.database_path}"
    assert found.warnings == ()
    assert environment_key(found) == "https://api-satusehat-dev.dto.kemkes.go.id|100099001"
    assert environment_name(found.satusehat.url) == "development"


def test_the_last_word_has_the_command_line_then_the_environment_then_the_file(tmp_path: Path) -> None:
    text = CREDENTIALS + "dicom_port = 1001\nhttp_port = 1002\nworkers = 5\n"
    found = read(tmp_path, text, {"ROUTER_SATUSEHAT_DICOM_PORT": "2001", "ROUTER_SATUSEHAT_HTTP_PORT": "2002"},
                 satusehat__dicom_port="3001")
    assert (found.satusehat.dicom_port, found.satusehat.http_port, found.satusehat.workers) == (3001, 2002, 5)
    assert found.source_of("satusehat.dicom_port") == "command line"
    assert found.source_of("satusehat.http_port") == "environment ROUTER_SATUSEHAT_HTTP_PORT"
    assert found.source_of("satusehat.workers") == "file router.conf line 7"
    assert found.source_of("router.settle") == "default"
    with pytest.raises(KeyError):
        found.source_of("router.setle")


@pytest.mark.parametrize(("names", "attribute"), [
    (("ORG_ID", "ORGANIZATION_ID"), "organization_id"), (("CLIENT", "CLIENT_KEY"), "client_key"),
    (("SECRET", "SECRET_KEY"), "secret_key"), (("WEBHOOK_USER",), "webhook_user"),
    (("WEBHOOK_PASSWORD",), "webhook_password"), (("AE_TITLE",), "ae_title"),
])
def test_names_of_the_official_container_and_of_forks(tmp_path: Path, names: tuple[str, ...], attribute: str) -> None:
    for name in names:
        value = getattr(read(tmp_path, CREDENTIALS, {name: "FROM-ENV"}).satusehat, attribute)
        assert (value if isinstance(value, str) else value.reveal()) == "FROM-ENV"


def test_url_by_the_containers_name(tmp_path: Path) -> None:
    for name in ("URL", "API_URL"):
        found = read(tmp_path, CREDENTIALS, {name: "api-satusehat.kemkes.go.id"})
        assert found.satusehat.url == "https://api-satusehat.kemkes.go.id"


def test_every_setting_can_come_from_a_file_that_the_environment_names(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret-from-file\n")
    (tmp_path / "secret").chmod(0o600)
    found = read(tmp_path, CREDENTIALS, {"SECRET_FILE": str(tmp_path / "secret")})
    assert found.satusehat.secret_key.reveal() == "s3cret-from-file"
    assert found.source_of("satusehat.secret_key") == "environment SECRET_FILE"
    assert found.warnings == ()


def test_a_file_named_by_the_environment_that_is_missing_is_a_mistake(tmp_path: Path) -> None:
    assert mistakes(tmp_path, CREDENTIALS, {"SECRET_FILE": str(tmp_path / "none")}) == [
        "environment SECRET_FILE: names a file that cannot be read: No such file or directory"]
    assert "not a file" in mistakes(tmp_path, CREDENTIALS, {"SECRET_FILE": str(tmp_path)})[0]


def test_systemd_credentials_are_read_for_secrets_and_yield_to_the_environment(tmp_path: Path) -> None:
    (tmp_path / "creds").mkdir(mode=0o700)
    for name, value in {"secret_key": "by-systemd", "database.url": "postgresql://u:p@h/d", "url": "no"}.items():
        (tmp_path / "creds" / name).write_text(value)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "creds")}
    found = read(tmp_path, CREDENTIALS, environ)
    assert found.satusehat.secret_key.reveal() == "by-systemd"
    assert found.source_of("satusehat.secret_key") == "credential secret_key"
    assert found.database.url.reveal() == "postgresql://u:p@h/d"
    assert read(tmp_path, CREDENTIALS, {**environ, "SECRET": "by-env"}).satusehat.secret_key.reveal() == "by-env"


def test_all_mistakes_are_reported_at_once_with_their_lines(tmp_path: Path) -> None:
    text = CREDENTIALS.replace("client_key = the-client\n", "") + (
        "dicom_port = eleven\n[router]\nlog_format = jsn\nsettle = 90\n[spool]\nfsync = maybe\nmin_free = 2 apples\n")
    found = mistakes(tmp_path, text)
    for line, part in {
        4: "[satusehat] dicom_port = eleven is not a whole number (allowed: 0 to 65535)",
        6: "did you mean json?", 7: "write a number and a unit", 9: "neither yes nor no", 10: "is not a size",
    }.items():
        assert [each for each in found if f"router.conf line {line}:" in each and part in each], (line, found)
    assert any("client_key is not set" in each and "CLIENT" in each for each in found)
    assert len(found) == 6


def test_the_three_missing_values_are_named_together(tmp_path: Path) -> None:
    found = mistakes(tmp_path, "")
    assert [each.split("] ")[1].split(" ")[0] for each in found] == ["organization_id", "client_key", "secret_key"]
    assert load(conf(tmp_path, ""), {}, require_platform=False).satusehat.organization_id == ""
    only_folder = "[router]\nsend_to = disk\n[folder:disk]\npath = /srv/images\n"
    assert read(tmp_path, only_folder).folders["disk"].path == Path("/srv/images")


def test_a_missing_file_says_what_to_copy(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationInvalid, match=r"copy router\.conf\.template to router\.conf"):
        load(tmp_path / "router.conf", {})
    with pytest.raises(ConfigurationInvalid, match="is not a file"):
        load(tmp_path, {})


@pytest.mark.parametrize(("text", "expected"), [
    ("organization_id = 1\n", "line 1: stands before any section"),
    ("[satusehat]\nsecret_key hunter2\n", "line 2: is neither [section] nor key = value"),
    ("[satusehat]\nae_title = A\nae_title = B\n", "line 3: [satusehat] ae_title stands a second time; the first is on"),
    ("[router]\n[spool]\n[router]\n", "line 3: [router] stands a second time; the first is on line 1"),
    (b"[satusehat]\nae_title = \xff\n", "line 2: has a byte that is not UTF-8"),
    ("[satusehat]\n".encode("utf-16"), "is saved as UTF-16"),
    (b"#" * 300_000, "larger than 256 KB"),
    ("[satusehat]\nae_title = A\n  dicom_port = 2\n", "goes on in line 3"),
    ("[satusehat]\nurl = http://api-satusehat.kemkes.go.id\n", "must begin with https://"),
    ("[satusehat]\ndicom_port = 8080\n", "the other of dicom_port and http_port"),
    ("[router]\nsettle = 2h\n", "settle must not be longer than settle_max"),
    ("[router]\nsend_to = satusehat, arhive\n[folder:archive]\npath = /x\n", "did you mean archive?"),
    ("[folder:archive]\n", "[folder:archive] path is not set"),
    ("[folder:Archiv Süd]\npath = /x\n", "is not a usable name"),
    ("[folder:satusehat]\npath = /x\n", "not satusehat"),
    ("".join(f"[folder:f{n}]\npath = /x\n" for n in range(101)), "more than 100 times"),
    ("[folder:a]\npath = data/out\n", "lies inside data_dir"),
    ("[satusehat]\ntz_name = Asia/Jakata\n", "did you mean Asia/Jakarta?"),
    ("[satusehat]\ndicom_port = 11112 ; the port\n", "a comment needs a line of its own"),
    ('[satusehat]\ndicom_port = "11112"\n', "write it without quotes"),
])
def test_one_mistake(tmp_path: Path, text: str | bytes, expected: str) -> None:
    found = mistakes(tmp_path, text)
    assert any(expected in each for each in found), found
    assert not any("hunter2" in each for each in found)


@pytest.mark.parametrize(("text", "expected"), [
    ("[satusehat]\ndicom_prt = 1\n", "line 2: [satusehat] dicom_prt is not a setting (did you mean dicom_port?)"),
    ("[satusehat]\nsettle = 5s\n", "it belongs in [router]"),
    ("[spol]\nfsync = no\n", "line 1: [spol] is not a section (did you mean spool?)"),
    ("[satusehat]\ndcm_dir = /in/\n", "dcm_dir is accepted but not used"),
    ("[satusehat]\nfirebase_token = x\n", "firebase_token is accepted but not used"),
    ("[satusehat]\nclient_key = $CLIENT_KEY\n", "client_key is $CLIENT_KEY, a placeholder"),
    ("[spool]\nfsync = tidak\n", "can be lost in a power cut"),
    ('[satusehat]\nsecret_key = "hunter2"\n', "has quotes around it"),
    ("[satusehat]\nurl = api-satusehat-stg.dto.kemenkes.go.id\n", "did you mean api-satusehat-stg.dto.kemkes.go.id?"),
    ("[satusehat]\nwebhook_url = http://10.0.0.1/h\nwebhook_password = hunter2\n", "password unencrypted"),
])
def test_one_warning(tmp_path: Path, text: str, expected: str) -> None:
    found = load(conf(tmp_path, text), {}, require_platform=False)
    assert any(expected in str(each) for each in found.warnings), found.warnings
    assert not any("hunter2" in str(each) for each in found.warnings)


def test_an_unknown_variable_of_ours_is_a_warning_and_an_unknown_option_a_mistake(tmp_path: Path) -> None:
    found = read(tmp_path, CREDENTIALS, {"ROUTER_SPOOL_FSINC": "no"})
    assert [str(each) for each in found.warnings] == [
        "environment ROUTER_SPOOL_FSINC: is not a setting (did you mean ROUTER_SPOOL_FSYNC?)"]
    assert mistakes(tmp_path, CREDENTIALS, spool__fsinc="no") == [
        "command line: spool.fsinc is not a setting (did you mean spool.fsync?)"]


def test_a_placeholder_is_as_good_as_nothing(tmp_path: Path) -> None:
    text = "[satusehat]\norganization_id = $ORGANIZATION_ID\nclient_key = ${CLIENT_KEY}\nsecret_key = $(SECRET_KEY)\n"
    assert len(mistakes(tmp_path, text)) == 3
    assert read(tmp_path, text, {"ORG_ID": "1", "CLIENT": "abcd", "SECRET": "$not-a-placeholder"})


@pytest.mark.skipif(os.name == "nt", reason="no mode bits on Windows")
def test_a_secret_that_everybody_can_read_is_a_warning(tmp_path: Path) -> None:
    path = conf(tmp_path, CREDENTIALS)
    path.chmod(0o644)
    assert [str(each) for each in load(path, {}).warnings] == [
        "file router.conf line 3: [satusehat] client_key is in a file that every user can read (chmod 600)",
        "file router.conf line 4: [satusehat] secret_key is in a file that every user can read (chmod 600)"]


def test_a_file_as_windows_editors_write_it(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbf" + CREDENTIALS.replace("\n", "\r\n").encode()
    assert read(tmp_path, text).source_of("satusehat.secret_key") == "file router.conf line 4"


@pytest.mark.skipif(os.name == "nt", reason="such a path is right there")
def test_a_windows_path_elsewhere_is_a_mistake(tmp_path: Path) -> None:
    assert "is a Windows path" in mistakes(tmp_path, CREDENTIALS + "[router]\ndata_dir = C:\\router: data\n")[0]


def test_the_official_template_of_old_versions_loads(tmp_path: Path) -> None:
    found = read(tmp_path, CREDENTIALS + (
        "url = api-satusehat-stg.dto.kemkes.go.id\ndicom_pathsuffix = /dicom/v1/dicomWeb/studies\n"
        "fhir_pathsuffix = /fhir-r4/v1\ntz_name = Asia/Jakarta\nae_title = DCMROUTER\ndicom_port = 11112\n"
        "dcm_dir = /in/\nhttp_port = 8080\nmroc_client_url = http://localhost:8000\ncalling_ae_title = ROUTER\n"
        "webhook_url =\nwebhook_user =\nwebhook_password =\nflask_port = 8082\nencrypt = False\n"))
    assert found.satusehat.url == "https://api-satusehat-stg.dto.kemkes.go.id"
    assert len(found.warnings) == 3


def test_folders_from_file_and_environment(tmp_path: Path) -> None:
    text = CREDENTIALS + "[router]\nsend_to = satusehat\n disk-1\n  , folder:pacs\n[folder:disk-1]\npath = ../disk\n"
    found = read(tmp_path, text, {"ROUTER_FOLDER_PACS_PATH": "/pacs", "ROUTER_FOLDER_DISK_1_PATH": "/disk"})
    assert found.router.send_to == ("satusehat", "disk-1", "pacs")
    assert {name: folder.path for name, folder in found.folders.items()} == {
        "disk-1": Path("/disk"), "pacs": Path("/pacs")}
    assert found.source_of("folder:disk-1.path") == "environment ROUTER_FOLDER_DISK_1_PATH"
    assert found.warnings == ()


def test_settings_cannot_be_changed_and_hide_their_secrets(tmp_path: Path) -> None:
    text = CREDENTIALS + "webhook_url = https://h/hook-key-0123\n[database]\nurl = postgresql://u:db%2Dpass@h:5432/d?x=qqq\n"
    found = read(tmp_path, text)
    for shown in (repr(found), str(found), f"{found.satusehat.secret_key}", f"{found.database.url!s:>3}"):
        assert not any(each in shown for each in ("the%secret", "the-client", "hook-key", "2Dpass", "qqq"))
    assert "postgresql://u:***@h:5432/d" in repr(found)
    hidden = {"the-client", "the%secret;#=:", "https://h/hook-key-0123", "hook-key-0123", "db-pass"}
    assert hidden <= set(found.secrets())
    with pytest.raises(AttributeError):
        found.satusehat.workers = 7  # type: ignore[misc]


@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(
    st.binary(max_size=400),
    st.lists(st.one_of(
        st.sampled_from([f"[{s}]" for s in ("satusehat", "router", "folder:a", "folder:", "DEFAULT", "x]")]),
        st.builds("{}{}{}".format, st.sampled_from([each.key for each in SETTINGS] + ["x"]),
                  st.sampled_from(["=", " : ", ""]), st.text(max_size=40)),
        st.text(max_size=40)), max_size=12).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass")),
))
def test_any_bytes_give_settings_or_a_list_of_mistakes(tmp_path: Path, content: bytes) -> None:
    try:
        load(conf(tmp_path, content), {}, require_platform=False)
    except ConfigurationInvalid as invalid:
        assert invalid.problems
        assert all(str(each).isprintable() for each in invalid.problems)


@settings(max_examples=examples(200), deadline=None)
@given(st.sampled_from(SETTINGS), st.text(min_size=1, max_size=60))
def test_any_text_for_any_setting_is_read_or_refused(setting: object, text: str) -> None:
    assert isinstance(setting, type(SETTINGS[0]))
    environ = {setting.environment[0].replace("FOLDER:NAME", "FOLDER_A"): text}
    try:
        load(None, environ, require_platform=False)
    except ConfigurationInvalid as invalid:
        assert all(str(each).isprintable() for each in invalid.problems)


@settings(max_examples=examples(200), deadline=None)
@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=0x2FF, categories=("L", "N", "P", "S")),
               min_size=6, max_size=40).map("Zq7-{}".format))
def test_no_mistake_or_warning_or_repr_shows_a_secret(secret: str) -> None:
    environ = {"CLIENT": secret, "SECRET": secret, "WEBHOOK_PASSWORD": secret, "WEBHOOK_URL": f"https://h/{secret}",
               "ROUTER_DATABASE_URL": f"postgresql://u:{secret}@h/d", "ORG_ID": "1"}
    for more in ({}, {"ROUTER_SATUSEHAT_DICOM_PORT": "wrong"}):
        try:
            shown = repr(load(None, {**environ, **more}))
        except ConfigurationInvalid as invalid:
            shown = str(invalid) + "".join(map(str, invalid.warnings))
        assert secret not in shown
