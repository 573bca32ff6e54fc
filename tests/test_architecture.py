"""The map as a test: who may import whom, and how large things may grow.

`internal/` is read as a list of steps from the ground up; a module imports only from steps below its own. A new module
fails here until it has been given its place, which is the moment to ask whether it needs to exist.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.python_source import tree_of

ROOT = Path(__file__).resolve().parent.parent

# From the ground up. A package counts as one module; inside it anything may import anything.
STEPS: tuple[tuple[str, frozenset[str]], ...] = tuple((layer, frozenset(names.split())) for layer, names in (
    ("L0", "errors states failpoints identity peers"),
    ("L0", "model"),
    ("L0", "ports config"),
    ("L1", "usual_hours accession charset dicomfile doorbell filelock hours new_directory passwords report_box rows"
           " disk_hints query fhir dictionary tables"),
    ("L1", "empty_files spool_entry whole_mark"),
    ("L1", "scan"),
    ("L1", "element_bytes"),
    ("L1", "outline elements"),
    ("L1", "rules"),
    ("L1", "rewrite"),
    ("L1", "header_json content"),
    ("L1", "parse_child"),
    ("L2", "engines spool_writer leftovers codec parser"),
    ("L2", "store spool"),
    ("L3", "audit_trail set_aside replays catalogue users series_metadata intake watched"),
    ("L3", "sessions"),
    ("L3", "devices study_terms tally"),
    ("L3", "associations events lanes"),
    ("L3", "overview lane_settings"),
    ("L3", "items index decisions"),
    ("L3", "rule_rows"),
    ("L3", "claims interventions job_list"),
    ("L3", "study_list"),
    ("L3", "jobs"),
    ("L3", "timeline"),
    ("L3", "commitments"),
    ("L3", "notices holdings corrections withdrawals late"),
    ("L3", "gallery alerts"),
    ("L3", "conditions"),
    ("L4", "frozen pictures pseudonyms"),
    ("L4", "ahead rulebook"),
    ("L4", "work"),
    ("L4", "admission"),
    ("L4", "indexer assemble worker retain doctor settings_rows watcher describe rule_tester"),
))
STEP_OF = {name: number for number, (_, names) in enumerate(STEPS) for name in names}

# What talks to the outside has no place in internal/.
OUTSIDE = frozenset({
    "socket", "socketserver", "ssl", "http", "urllib3", "requests", "httpx", "aiohttp", "ftplib", "smtplib", "asyncio",
    "selectors", "pynetdicom", "fastapi", "starlette", "uvicorn", "jinja2", "boto3", "rich",
})
OUTSIDE_DOTTED = frozenset({"urllib.request"})
DATABASE = frozenset({"apsw", "psycopg", "sqlite3"})

# Each of these is the one place that may.
MAY_PRINT = ("interface/cli", "sandbox/", "main.py")
MAY_USE_DATABASE = ("internal/engines.py", "sandbox/")
BANNED_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc"})

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60


def product_files() -> list[Path]:
    return sorted(path for folder in ("internal", "interface", "sandbox") for path in (ROOT / folder).rglob("*.py")) + \
        [path for path in (ROOT / "main.py",) if path.exists()]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    return tree_of(path)


@pytest.fixture(autouse=True, scope="module")
def trees() -> Iterator[None]:
    """A hundred megabytes of syntax trees that no later test needs."""
    yield
    parsed.cache_clear()


def imports(tree: ast.Module, package: str) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of everything imported, however deep in the code; `package` resolves relative ones."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[:len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, base] if base else parent)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


@cache
def imported(path: Path) -> list[tuple[int, str]]:
    package = ".".join(path.relative_to(ROOT).parent.parts)
    return list(imports(parsed(path), package))


def layer_faults(module: str, found: list[tuple[int, str]]) -> list[str]:
    """Return what is wrong with the imports of one module of internal/, `module` as in STEPS."""
    faults = []
    for line, dotted in found:
        parts = dotted.split(".")
        if parts[0] != "internal" or len(parts) < 2 or parts[1] == module:
            continue
        if parts[1] not in STEP_OF:
            faults.append(f"line {line}: internal.{parts[1]} has no place in STEPS")
        elif STEP_OF[parts[1]] >= STEP_OF[module]:
            faults.append(f"line {line}: {module} imports {parts[1]}, which is not below it")
    return faults


INTERNAL = sorted((ROOT / "internal").rglob("*.py"))


def faults_in(files: Iterable[Path], check: Callable[[Path], Iterable[object]]) -> list[str]:
    """Return what `check` finds in each file, with the file's name: one test goes through all of them."""
    return [f"{name_of(path)}: {fault}" for path in files for fault in check(path)]


def test_internal_imports_only_what_lies_below() -> None:
    def check(path: Path) -> list[str]:
        module = path.relative_to(ROOT / "internal").parts[0].removesuffix(".py")
        if module == "__init__":
            return [dotted for _, dotted in imported(path) if dotted.startswith("internal")]
        if module not in STEP_OF:
            return ["give it its place in STEPS"]
        return layer_faults(module, imported(path))

    assert faults_in(INTERNAL, check) == []


def test_internal_knows_nothing_of_the_outside() -> None:
    def check(path: Path) -> list[str]:
        return [f"line {line}: {dotted}" for line, dotted in imported(path)
                if dotted.split(".")[0] in OUTSIDE | {"interface", "sandbox", "main"}
                or any(dotted == name or dotted.startswith(f"{name}.") for name in OUTSIDE_DOTTED)]

    assert faults_in(INTERNAL, check) == []


def test_one_file_knows_databases() -> None:
    files = [path for path in product_files() if not name_of(path).startswith(MAY_USE_DATABASE)]
    assert faults_in(files, lambda path: [
        dotted for _, dotted in imported(path) if dotted.split(".")[0] in DATABASE]) == []


def test_the_sandbox_is_an_application_of_its_own() -> None:
    def check(path: Path) -> set[str]:
        roots = {dotted.split(".")[0] for _, dotted in imported(path)}
        if name_of(path).startswith("sandbox/"):
            return roots & {"internal", "interface", "main"}
        return set() if name_of(path).startswith(("main.py", "interface/cli")) else roots & {"sandbox"}

    assert faults_in(product_files(), check) == []


def size_faults(path: Path) -> list[str]:
    """Return the file if it is too long, and its functions that are."""
    lines = len(path.read_text(encoding="utf-8").splitlines())
    faults = [f"{lines} lines"] if lines > MAX_FILE_LINES else []
    return faults + [f"{node.name}: {length} lines" for node in ast.walk(parsed(path))
                     if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                     and (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES]


def test_size() -> None:
    assert faults_in(product_files(), size_faults) == []


def statement_faults(tree: ast.Module, *, may_print: bool) -> list[str]:
    """Return bare excepts, globals and prints."""
    faults = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            faults.append(f"line {node.lineno}: bare except")
        elif isinstance(node, ast.Global):
            faults.append(f"line {node.lineno}: global")
        elif (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
              and not may_print):
            faults.append(f"line {node.lineno}: print")
    return faults


def test_no_bare_except_no_global_no_print() -> None:
    assert faults_in(product_files(), lambda path: statement_faults(
        parsed(path), may_print=name_of(path).startswith(MAY_PRINT))) == []


def test_modules_are_named_by_meaning_and_say_what_they_are() -> None:
    def check(path: Path) -> list[str]:
        banned = BANNED_NAMES & set(path.relative_to(ROOT).with_suffix("").parts)
        mute = path.read_text(encoding="utf-8").strip() and not ast.get_docstring(parsed(path))
        return [*banned, *(["a module says in its docstring what it is for"] if mute else [])]

    assert faults_in(product_files(), check) == []


# --- the checks can fail -------------------------------------------------------------------------------------------

def test_the_layer_check_sees_every_way_to_import() -> None:
    source = """
import internal.jobs
from internal import worker as w
from internal.store import Tx
def late():
    from internal.nowhere import x
    from . import jobs
    from .assemble import settle
"""
    found = list(imports(ast.parse(source), "internal"))
    assert [fault.partition(": ")[2] for fault in layer_faults("index", found)] == [
        "index imports jobs, which is not below it", "index imports worker, which is not below it",
        "internal.nowhere has no place in STEPS", "index imports jobs, which is not below it",
        "index imports assemble, which is not below it",
    ]
    assert layer_faults("jobs", [(1, "internal.jobs.claim"), (2, "internal.events"), (3, "os.path")]) == []


def test_the_statement_check_sees_what_it_should() -> None:
    tree = ast.parse("try:\n  f()\nexcept:\n  pass\ndef g():\n  global x\n  print(1)\n")
    assert statement_faults(tree, may_print=False) == ["line 3: bare except", "line 6: global", "line 7: print"]
    assert statement_faults(tree, may_print=True) == ["line 3: bare except", "line 6: global"]


def test_every_file_is_looked_at_and_its_size_counts(tmp_path: Path) -> None:
    assert faults_in(INTERNAL[:2], lambda path: ["x"]) == ["internal/__init__.py: x", "internal/accession.py: x"]
    long = tmp_path / "long.py"
    long.write_text("def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES + "y = 1\n" * MAX_FILE_LINES)
    assert size_faults(long) == [f"{MAX_FUNCTION_LINES + MAX_FILE_LINES + 1} lines",
                                 f"f: {MAX_FUNCTION_LINES + 1} lines"]


def test_layers_are_in_order_and_nothing_is_listed_twice() -> None:
    layers = [layer for layer, _ in STEPS]
    assert layers == sorted(layers)
    assert sum(len(names) for _, names in STEPS) == len(STEP_OF)
    assert product_files()
