"""The API against its own document: whatever fits the schema is answered as the schema says, and never with a 500."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import schemas as _loaded_here_not_deep_inside_a_test  # noqa: F401
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from interface.alert_texts import PLACEHOLDERS, fill_form, fill_json
from internal import alerts
from internal.alerts import Condition, Finding
from internal.config import load, render_config
from internal.users import Role
from tests.contract.http.doors import PASSWORD, Doors
from tests.contract.store.samples import STUDY, add, instance, settle_study

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DOCS = Path(__file__).parents[3] / "docs"
CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
#: A stream does not end by itself.
LEFT_OUT = {"/api/v1/events/stream"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    started = Doors(tmp_path_factory.mktemp("document"), settings={
        "satusehat.url": "http://127.0.0.1:9", "satusehat.organization_id": "100", "satusehat.client_key": "client",
        "satusehat.secret_key": "geheim-1234"})
    add(started.store, instance(1, patient_name="RAHASIA"))
    settle_study(started.store)
    with started.store.transaction() as tx:
        alerts.raise_alert(tx, "default", Finding(Condition.DISK, "", {"days": 1}), quiet_ms=0, channels=(), now=5)
    yield started
    started.close()


def operations(house: Doors, key: str) -> list[Any]:
    document = house.visitor(key=key).get("/api/swagger.json").json()
    schema = schemathesis.openapi.from_dict(document)
    return [found.ok() for found in schema.get_all_operations() if found.ok().path not in LEFT_OUT]


def try_all(house: Doors, examples: int) -> int:
    """Send `examples` requests to each operation, fitting ones and others; return how many operations there are."""
    key = house.key("administer")
    found, visitor = operations(house, key), house.visitor(key=key)
    for operation in found:
        fitting = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        broken = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

        @settings(max_examples=examples, deadline=None, database=None, derandomize=not os.environ.get("FUZZ"),
                  suppress_health_check=list(HealthCheck))
        @given(case=st.one_of(fitting, broken))
        def send(case: Any) -> None:
            reply = case.call(base_url=house.url, session=visitor.session, timeout=20,
                              headers={"Authorization": f"Bearer {key}"})
            case.validate_response(reply, checks=CHECKS)

        send()
    return len(found)


@pytest.mark.timeout(120)
def test_every_operation_keeps_what_the_document_promises(house: Doors) -> None:
    assert try_all(house, 2) >= 45


@pytest.mark.long(seconds=90)
@pytest.mark.timeout(600)
def test_every_operation_keeps_it_for_many_requests(house: Doors) -> None:
    assert try_all(house, 40) >= 45


# --- the pages about it ---------------------------------------------------------------------------------------------

def rows_of(document: dict[str, Any]) -> str:
    """Return the table of docs/api.md."""
    lines = ["| Request | Right | What it does |", "| --- | --- | --- |"]
    lines += [f"| `{method.upper()} {path}` | `{operation['x-right']}` | {operation['description'].splitlines()[0]} |"
              for path, methods in document["paths"].items() for method, operation in methods.items()]
    return "\n".join(lines) + "\n"


def test_the_table_of_requests_is_that_of_the_document(house: Doors) -> None:
    """UPDATE_DOCS=1 writes the table anew."""
    page = DOCS / "api.md"
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition("<!-- requests -->\n")
    after = rest.partition("<!-- /requests -->")[2]
    document = house.visitor(key=house.key("view")).get("/api/swagger.json").json()
    expected = f"{before}<!-- requests -->\n{rows_of(document)}<!-- /requests -->{after}"
    if os.environ.get("UPDATE_DOCS") == "1":
        page.write_text(expected, encoding="utf-8")
    assert text == expected or os.environ.get("UPDATE_DOCS") == "1", "run this test once with UPDATE_DOCS=1"


@pytest.mark.curl
@pytest.mark.parametrize("page", ["api.md", "id/api.md"])
def test_the_examples_of_the_pages_work(house: Doors, page: str, tmp_path: Path) -> None:
    examples = re.findall(r"```sh\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    environment = {"PATH": os.environ["PATH"], "ROUTER": house.url, "KEY": house.key("operate"), "STUDY": STUDY}
    assert examples
    for example in examples:
        done = subprocess.run(["sh", "-eu", "-c", example], env=environment, cwd=tmp_path, capture_output=True,
                              text=True, timeout=30, check=False)
        assert done.returncode == 0, (example, done.stderr)


def test_the_examples_of_alerts_are_good_settings(tmp_path: Path) -> None:
    text = (DOCS / "alerts.md").read_text(encoding="utf-8")
    (tmp_path / "router.conf").write_text("\n".join(re.findall(r"```ini\n(.*?)```", text, re.DOTALL)))
    (tmp_path / "router.conf").chmod(0o600)
    found = load(tmp_path / "router.conf", {}, require_platform=False)
    assert found.warnings == () and set(found.alerts) == {"it", "telegram", "whatsapp"}
    fields = dict.fromkeys(PLACEHOLDERS, 'a "b" & c=d')
    assert json.loads(fill_json(found.alerts["telegram"].webhook_body.reveal(), fields))["text"] == 'a "b" & c=d'
    assert fill_form(found.alerts["whatsapp"].webhook_body.reveal(), fields).endswith(b"a+%22b%22+%26+c%3Dd")
    assert "TOKEN" not in render_config(found)


# --- the page in a browser ------------------------------------------------------------------------------------------

@pytest.mark.chromium
@pytest.mark.long(seconds=6)
def test_the_page_shows_the_api_asks_nobody_else_and_tries_it_out(house: Doors, chromium: Browser) -> None:
    house.add_user("pembaca", Role.OPERATOR)
    hosts: set[str] = set()
    said: list[str] = []
    page = chromium.new_page()
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.goto(f"{house.url}/login")
    page.fill("input[name=name]", "pembaca")
    page.fill("input[name=password]", PASSWORD)
    page.press("input[name=password]", "Enter")
    page.wait_for_url(lambda url: "/login" not in url)
    page.goto(f"{house.url}/api/docs")
    page.click("#operations-operations-pause_api_v1_lanes__name__pause_post .opblock-summary-control")
    page.click("text=Try it out")
    page.fill("tr[data-param-name=name] input", "satusehat")
    page.click("button.execute")
    page.wait_for_selector(".live-responses-table .response-col_status >> text=200")
    page.close()
    assert hosts <= {urlsplit(house.url).netloc, ""}
    assert said == []
