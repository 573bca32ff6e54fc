"""Secrets and patients where they do not belong, and what our own code and repository must not hold."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from interface.http.actor import Actor
from interface.http.app import create_app, guarded_routes
from interface.http.auth import accounts
from interface.http.rights import Right, rights_of_role
from internal.config import load, render_config
from internal.users import Role
from tests.contract.http.doors import PASSWORD, Doors
from tests.python_source import tree_of

ROOT = Path(__file__).resolve().parents[2]
ADMIN = Actor("user:admin", "admin", rights_of_role(Role.ADMIN), "192.0.2.1")
PRODUCT = [path for folder in ("internal", "interface", "sandbox") for path in (ROOT / folder).rglob("*.py")]
#: Those that start processes: themselves, with arguments of their own.
MAY_START_PROCESSES = ("interface/supervisor.py", "interface/dimse/backends.py", "internal/codec/",
                       "internal/parser.py", "sandbox/")


@pytest.mark.attack("S58")
def test_no_secret_is_logged_or_kept(doors: Doors, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    visitor = doors.logged_in("viewer")
    doors.visitor().login("viewer", "a-wrong-secret-9")
    _, key = accounts.issue_key(doors.context, ADMIN, "SIMRS", [Right.VIEW])
    assert doors.visitor(key).get("/").status_code == 200
    doors.visitor("rk_1234567890ab_wrong-secret").get("/")
    new = "another horse battery"
    old = visitor.token
    visitor.post("/password", {"current": PASSWORD, "new": new, "again": new})
    secrets = [PASSWORD, "a-wrong-secret-9", key, key.split("_", 2)[2], old, visitor.token, visitor.csrf(), new,
               "wrong-secret"]
    kept = b"".join(path.read_bytes() for path in doors.settings.data_dir.rglob("*") if path.is_file())
    text = caplog.text + str(doors.audit())
    # The client in this process logs what it sends.
    ours = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("urllib3"))
    for secret in secrets:
        assert secret not in ours and secret not in str(doors.audit())
        assert secret.encode() not in kept
    assert text


@pytest.mark.attack("S59")
def test_no_route_takes_patient_data_in_its_address(doors: Doors) -> None:
    banned = re.compile(r"patient|name$|birth|mrn|nik\b|accession|search|query|^q$")
    # Names of things that are no people: assets, settings, lanes, accounts.
    for route in guarded_routes(create_app(doors.context)):
        for field in route.dependant.query_params:
            assert not banned.search(field.name), f"{route.path}?{field.name}= stands in histories and proxies' logs"


@pytest.mark.attack("S60")
def test_printed_settings_and_their_repr_hold_no_secret() -> None:
    given = {"oidc.client_secret": "oidc-secret-1", "satusehat.secret_key": "platform-secret-1",
             "database.url": "postgresql://u:db-secret-1@h/d", "satusehat.webhook_password": "hook-secret-1"}
    settings = load(None, {}, given, require_platform=False)
    shown = repr(settings) + str(settings) + render_config(settings)
    for secret in ("oidc-secret-1", "platform-secret-1", "db-secret-1", "hook-secret-1"):
        assert secret not in shown
        assert secret in "".join(settings.secrets()), "the log's filter knows it"


@pytest.mark.attack("S60")
def test_a_password_is_never_an_argument() -> None:
    from interface.cli import build_parser

    parsers = [build_parser()]
    options = []
    for parser in parsers:
        for action in parser._actions:
            if isinstance(action.choices, dict):
                parsers += action.choices.values()
            options += action.option_strings
    assert len(parsers) > 20
    assert not [option for option in options if re.search("pass|secret|token|key", option)]


@pytest.mark.attack("S64")
def test_the_service_gives_up_what_it_does_not_need() -> None:
    unit = (ROOT / "deploy/dicom-router.service").read_text()
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet=", "ProtectHome=yes",
                 "UMask=0077", "PrivateDevices=yes", "User=dicom-router",
                 "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX"):
        assert f"\n{line}\n" in unit
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    assert "\nUSER router\n" in dockerfile
    compose = (ROOT / "deploy/docker-compose.yml").read_text()
    assert "cap_drop: [ALL]" in compose and "read_only: true" in compose


def calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            yield from (f"import {name}" for name in [*names, getattr(node, "module", None) or ""])


_BANNED = re.compile(r"^(eval|exec|compile|.*\.mktemp|mktemp|.*yaml\.load|import (pickle|shelve|marshal|dill))$")
_PROCESSES = re.compile(
    r"^(os\.(system|popen|exec\w+|spawn\w+)|subprocess\.\w+|import (subprocess|pty|multiprocessing))$")


@pytest.mark.attack("S66", "S42")
def test_nothing_runs_or_loads_what_came_from_outside() -> None:
    for path in PRODUCT:
        name = path.relative_to(ROOT).as_posix()
        found = list(calls(tree_of(path)))
        assert not [call for call in found if _BANNED.match(call)], name
        if not name.startswith(MAY_START_PROCESSES):
            assert not [call for call in found if _PROCESSES.match(call)], name
        assert "shell=True" not in path.read_text(encoding="utf-8"), name


def test_the_check_of_calls_can_fail() -> None:
    found = list(calls(ast.parse("import pickle\nfrom os import system\nos.system('x')\neval('1')\nyaml.load(f)")))
    assert [call for call in found if _BANNED.match(call)] == ["import pickle", "eval", "yaml.load"]
    assert [call for call in found if _PROCESSES.match(call)] == ["os.system"]


@pytest.mark.attack("S67")
def test_the_repository_holds_no_key_and_no_log() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    marker = b"-----BEGIN " + b"PRIVATE KEY"
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if not path.is_file():
            continue
        assert path.suffix not in {".log", ".pem", ".key", ".p12", ".pfx", ".crt", ".db", ".sqlite"}, name
        body = path.read_bytes()
        assert marker not in body and not re.search(rb"-----BEGIN (RSA|EC|OPENSSH) PRIVATE", body), name
