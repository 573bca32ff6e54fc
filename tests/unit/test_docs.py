"""What the pages say is held against the code: commands, options, targets, links, file names, settings, states."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest
import yaml

from interface.cli import main

ROOT = Path(__file__).parents[2]
READMES = (ROOT / "README.md", ROOT / "README.id.md")
PAGES = (*READMES, *sorted((ROOT / "docs").rglob("*.md")))
FOLDERS = (
    "deploy",
    "conda_env",
    "requirements",
    "docs",
    "assets",
    "internal",
    "interface",
    "sandbox",
    "tests",
    "bench",
)


def code_of(text: str) -> Iterator[str]:
    """Yield every line of fenced blocks and every code span."""
    parts = re.split(r"^```.*$", text, flags=re.MULTILINE)
    for number, part in enumerate(parts):
        if number % 2:
            yield from (line.strip() for line in part.splitlines() if line.strip())
        else:
            yield from (span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", part))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def help_of(command: str) -> str:
    out = io.StringIO()
    with redirect_stdout(out), pytest.raises(SystemExit) as end:
        sys.exit(main([command, "--help"] if command else ["--help"]))
    assert end.value.code == 0
    return out.getvalue()


def invocations(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (command, options) of every `main.py ...` in code."""
    for code in code_of(text):
        for arguments in re.findall(r"main\.py\b([^#;&|]*)", code):
            words = arguments.split()
            command = next((word for word in words if not word.startswith("-")), "")
            yield command, [word.partition("=")[0] for word in words if word.startswith("-")]


def missing_options(command: str, options: list[str]) -> list[str]:
    known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", help_of(command or "run")))
    return [option for option in options if re.sub(r"^-(v+)$", "-v", option) not in known]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_and_option_exists(page: Path) -> None:
    commands = set(re.findall(r"^ +([a-z][a-z-]+)(?: |$)", help_of(""), flags=re.MULTILINE))
    for command, options in invocations(page.read_text(encoding="utf-8")):
        assert not command or command in commands, f"{name_of(page)}: main.py has no command {command!r}"
        assert not missing_options(command, options), f"{name_of(page)}: main.py {command} {options}"


def test_the_check_of_commands_can_fail() -> None:
    text = "`python main.py quue` and\n```sh\npython main.py queue --jsn --state held\n```\n"
    assert list(invocations(text)) == [("quue", []), ("queue", ["--jsn", "--state"])]
    assert missing_options("queue", ["--jsn", "--state"]) == ["--jsn"]


def test_every_command_is_in_the_readme() -> None:
    commands = set(re.findall(r"^    ([a-z][a-z-]+)(?: |$)", help_of(""), flags=re.MULTILINE))
    assert len(commands) >= 12
    for readme in READMES:
        used = {command or "run" for command, _ in invocations(readme.read_text(encoding="utf-8"))}
        assert commands - used <= {"template"}, f"{name_of(readme)} does not mention {commands - used}"


def test_both_readmes_name_the_same_commands() -> None:
    found = [sorted(map(repr, invocations(readme.read_text(encoding="utf-8")))) for readme in READMES]
    assert found[0] == found[1]
    tables = [re.findall(r"`(storescu [^`]+|conda [^`]+|make [^`]+)`", r.read_text(encoding="utf-8")) for r in READMES]
    assert tables[0] == tables[1]


def test_the_commands_that_the_demo_prints_exist() -> None:
    source = (ROOT / "sandbox" / "demo.py").read_text(encoding="utf-8")
    for command, arguments in re.findall(r"main\.py ([a-z-]+)([^\n]*)\\n", source):
        assert not missing_options(command, re.findall(r"(?<= )--?[a-z]+", arguments)), command


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for code in code_of(page.read_text(encoding="utf-8")):
        for target in re.findall(r"(?:^|\s)make ([a-z]+)", code):
            assert target in targets, f"{name_of(page)}: make {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_file_names_resolve(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith("https://"):
            assert (page.parent / target.partition("#")[0]).exists(), f"{name_of(page)}: link to {target}"
    for code in code_of(text):
        for name in re.findall(rf"(?<![\w./<-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w", code):
            assert (ROOT / name).exists(), f"{name_of(page)}: {name}"


@pytest.mark.dcmtk
def test_the_storescu_lines_use_options_that_dcmtk_knows() -> None:
    program = shutil.which("storescu")
    assert program
    known = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=20, check=False).stdout
    lines = [code for code in code_of(READMES[0].read_text(encoding="utf-8")) if code.startswith("storescu")]
    assert len(lines) == 6
    for line in lines:
        for option in re.findall(r"(?<=\s)--?[a-z][\w-]*", line):
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", known), option


def test_backticked_names_with_an_underscore_are_settings() -> None:
    from internal.config import SETTINGS
    from internal.rules.ruleset import KEYS as RULE_KEYS

    known = {setting.key for setting in SETTINGS} | {
        "dcm_dir", "done_revision", "settled_revision", *RULE_KEYS}
    for page in (
        *READMES,
        *(ROOT / "docs").glob("*/*.md"),
        ROOT / "docs/first-day.md",
        ROOT / "docs/troubleshooting.md",
    ):
        if page.parent.name == "adr":
            continue
        for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", page.read_text(encoding="utf-8")):
            assert name in known, f"{name_of(page)}: {name} is no setting"


@pytest.mark.parametrize(
    ("page", "language"), [("docs/troubleshooting.md", "en"), ("docs/id/troubleshooting.md", "id")]
)
def test_the_table_of_reasons_is_that_of_the_code(page: str, language: str) -> None:
    """UPDATE_DOCS=1 writes the table anew."""
    from interface.explain import render_reasons

    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition("<!-- reasons -->\n")
    _, _, after = rest.partition("<!-- /reasons -->")
    expected = f"{before}<!-- reasons -->\n{render_reasons(language)}<!-- /reasons -->{after}"
    if os.environ.get("UPDATE_DOCS") == "1":
        path.write_text(expected, encoding="utf-8")
    assert text == expected or os.environ.get("UPDATE_DOCS") == "1", "run this test once with UPDATE_DOCS=1"


def test_the_state_table_of_the_docs_is_that_of_the_code() -> None:
    from internal.states import TRANSITIONS

    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z]+)` \| ([a-z_]+) \| `([a-z]+)` \|$", text, flags=re.MULTILINE)
    assert rows == [(str(state), str(event), str(target)) for (state, event), target in TRANSITIONS.items()]


def test_the_changelog_is_newest_first_and_names_this_version() -> None:
    lines = (ROOT / "CHANGELOG").read_text(encoding="utf-8").splitlines()
    versions = [
        tuple(map(int, found[1].split("."))) for line in lines if (found := re.match(r"(\d+\.\d+\.\d+)\b", line))
    ]
    assert versions == sorted(versions, reverse=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert versions[0] == tuple(map(int, project["version"].split(".")))


@pytest.mark.attack("S65")
def test_requirements_are_pinned_by_hash_and_carry_no_address() -> None:
    files = sorted((ROOT / "requirements").glob("*.txt"))
    assert [file.stem for file in files] == ["demo", "postgres", "router", "test"]
    pins: dict[str, dict[str, set[str]]] = {}
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"https?:|//|^\s*-(?!-hash=)", text, flags=re.MULTILINE), file.name
        for block in re.split(r"\n(?=\S)", text.strip()):
            name = re.match(
                r"([\w.-]+)==([\w.+!]+)(?: ; [^\\]+)? \\\n(    --hash=sha256:[0-9a-f]{64}(?: \\\n|$))+$", block
            )
            assert name, f"{file.name}: {block.splitlines()[0]}"
            pins.setdefault(name[1], {}).setdefault(file.stem, set()).add(name[2])
    for package, by_file in pins.items():
        assert len({frozenset(versions) for versions in by_file.values()}) == 1, f"{package} differs: {by_file}"


def test_the_pinned_files_satisfy_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = {"router": [], "postgres": extras["postgres"], "demo": extras["demo"], "test": extras["test"]}
    for stem, more in wanted.items():
        pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / f"requirements/{stem}.txt").read_text(), flags=re.MULTILINE))
        for line in [*project["dependencies"], *more]:
            name = re.split(r"[\s<>=\[;]", line)[0].lower().replace("_", "-").replace(".", "-")
            assert name in {pin.lower().replace("_", "-").replace(".", "-") for pin in pinned}, f"{stem}: {name}"


def test_no_file_carries_an_address_of_a_registry() -> None:
    words = ("py" + "pi.", "python" + "hosted", "registry." + "npmjs", "index" + "-url =", "extra-index" + "-url")
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        if parts[0] in {".git", ".venv", ".demo", "data", "build"} or "cache" in parts[0] or not path.is_file():
            continue
        if path.suffix not in {".pyc", ".svg"} and path.stat().st_size < 2_000_000:
            text = path.read_bytes().decode("utf-8", "replace").lower()
            assert not [word for word in words if word in text], path


def test_conda_environments_bring_python_and_the_pinned_list() -> None:
    files = {path.name for path in (ROOT / "conda_env").iterdir()}
    assert files == {"conda-unix.yml", "conda-win.yml", "conda-macos-m1.yml", "conda-macos-x64.yml"}
    for name in files:
        env = yaml.safe_load((ROOT / "conda_env" / name).read_text(encoding="utf-8"))
        assert (env["name"], env["channels"]) == ("dicom-router", ["conda-forge"])
        assert env["dependencies"][:2] == ["python=3.12", "pip"]
        (line,) = env["dependencies"][2]["pip"]
        assert (ROOT / "conda_env" / line.removeprefix("-r ")).resolve() == ROOT / "requirements/router.txt"


def test_compose_takes_the_place_of_the_official_container() -> None:
    compose = yaml.safe_load((ROOT / "deploy/docker-compose.yml").read_text(encoding="utf-8"))
    service = compose["services"]["dicom-router"]
    official = {"AE_TITLE", "ORG_ID", "CLIENT", "SECRET", "URL", "WEBHOOK_URL", "WEBHOOK_USER", "WEBHOOK_PASSWORD"}
    assert set(service["environment"]) == official
    assert service["container_name"] == "dicom-router"
    assert service["ports"] == ["11112:11112", "127.0.0.1:8080:8080"]  # plain HTTP stays here
    assert service["restart"] == "always"
    volume, _, inside = service["volumes"][0].partition(":")
    assert volume in compose["volumes"]
    dockerfile = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
    assert f"VOLUME {inside}" in dockerfile
    for name in re.findall(r"^COPY (.+) \S+$", dockerfile, flags=re.MULTILINE):
        assert all((ROOT / source).exists() for source in name.split()), name


def test_names_given_to_containers_and_services_are_settings() -> None:
    from internal.config import SETTINGS

    known = {variable for setting in SETTINGS for variable in setting.environment}
    for name in ("deploy/Dockerfile", "deploy/dicom-router.service"):
        found = re.findall(r"\b(ROUTER_[A-Z_]+)=", (ROOT / name).read_text(encoding="utf-8"))
        assert found, name
        assert set(found) <= known, name
    compose = yaml.safe_load((ROOT / "deploy/docker-compose.yml").read_text(encoding="utf-8"))
    assert set(compose["services"]["dicom-router"]["environment"]) <= known


def test_the_picture_is_drawn_from_its_text() -> None:
    sys.path.insert(0, str(ROOT / "assets"))
    try:
        import architecture
    finally:
        sys.path.remove(str(ROOT / "assets"))
    text = (ROOT / "assets/architecture.txt").read_text(encoding="utf-8")
    assert architecture.render(text) == (ROOT / "assets/architecture.svg").read_text(encoding="utf-8")
    with pytest.raises(architecture.PictureWrong, match="no box"):
        architecture.parse("band a\nrow\nbox b | B\narrow b > c\n")
    with pytest.raises(architecture.PictureWrong, match="line 2"):
        architecture.parse("band a\nbx b | B\n")
