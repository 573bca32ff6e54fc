"""The API against its own document: whatever fits the schema is answered as the schema says, and never with a 500."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from internal import alerts
from internal.alerts import Condition, Finding
from tests.contract.http.doors import Doors
from tests.contract.store.samples import add, instance, settle_study

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


def test_the_document_is_the_one_that_was_agreed_on(house: Doors) -> None:
    """Paths and methods of docs/api.md are those of the document."""
    text = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
    document = house.visitor(key=house.key("view")).get("/api/swagger.json").json()
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in text, (method, path)
