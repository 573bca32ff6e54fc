"""/metrics: who may read it, what it tells, what it never tells, and that the dashboard asks for nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from interface.dimse.counters import Counters
from interface.histogram import PUSH_BOUNDS_MS, Histogram
from internal import alerts, devices, lanes
from internal.alerts import Condition, Finding
from tests.contract.http.doors import Doors, now_ms
from tests.contract.store.samples import add, claimed, instance, settle_study

DASHBOARD = Path(__file__).parents[3] / "deploy" / "grafana-dashboard.json"
PATIENT = "RAHASIA^SEKALI"


def fill(doors: Doors) -> None:
    """A busy node: images stored, one job on its way, a lane that is down, an alert, all roles alive."""
    claimed(doors.store, instance(1, patient_name=PATIENT, patient_id="P-77"))
    add(doors.store, instance(1, study="2.25.2", patient_name=PATIENT, at=now_ms()))
    settle_study(doors.store, "2.25.2")
    with doors.store.transaction() as tx:
        lanes.pause_lane(tx, "satusehat", now_ms() + 60_000, "dns", "no such host", now_ms() - 90_000)
        alerts.raise_alert(tx, "jaga", Finding(Condition.DISK, "", {"days": 1}), quiet_ms=0, channels=(), now=5)
        devices.learn(tx, [devices.Caller("CT1", "192.0.2.7", now_ms())], with_images=True)
        tx.execute("INSERT INTO disk_sample (node, hour_at, free_bytes) VALUES (?, ?, ?)",
                   (doors.spool.node, now_ms() - 24 * 3_600_000, 1 << 60))
    counters, pushes = Counters(), Histogram(PUSH_BOUNDS_MS)
    for size_bytes in (10_000, 600_000):
        counters.store(0, size_bytes, 0.004)
    counters.store(0xA700, 5, 0.1)
    counters.add("associations", 3)
    pushes.add(120)
    alive: dict[str, Any] = {"alive_at": now_ms()}
    lane = {"steps": 7, "throttled": 1, "clock_offset_s": -2, "push_ms": pushes.shown()}
    for name, status in {
            "receive-0": {**alive, "open_associations": 2, "counters": counters.shown()},
            "receive": {**alive, "counters": {"refused_connections": 4}},
            "web": alive,
            "deliver": {**alive, "counters": {"indexed": 2, "lanes": {"satusehat": lane}}}}.items():
        doors.spool.publish(f"{name}.json", json.dumps(status).encode())


def read(doors: Doors) -> str:
    reply = doors.visitor(key=doors.key("metrics")).get("/metrics")
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    return reply.text


def values(text: str) -> dict[tuple[str, ...], float]:
    """Return each sample by its name and label values, the bucket's bound last."""
    return {(sample.name, *(value for name, value in sample.labels.items() if name != "le"),
             *filter(None, [sample.labels.get("le")])): sample.value
            for family in text_string_to_metric_families(text) for sample in family.samples}


def test_the_figures_are_those_of_the_files_and_rows(doors: Doors) -> None:
    fill(doors)
    text = read(doors)
    found = values(text)
    assert found["router_store_seconds_count", "0"] == 2
    assert found["router_store_seconds_bucket", "0", "0.005"] == 2
    assert found["router_store_seconds_bucket", "0", "0.002"] == 0
    assert abs(found["router_store_seconds_sum", "0"] - 0.008) < 1e-6
    assert found["router_store_bytes_bucket", "0", "16000"] == 1 and found["router_store_bytes_sum", "0"] == 610_000
    assert found["router_store_answers_total", "0", "0xA700"] == 1
    assert found["router_push_seconds_bucket", "satusehat", "0.2"] == 1
    assert found["router_clock_offset_seconds", "satusehat"] == -2
    assert found["router_role_up", "receive"] == found["router_role_up", "deliver"] == 1
    assert found["router_jobs", "satusehat", "", "queued"] == 1
    assert found["router_queue_age_seconds_bucket", "satusehat", "+Inf"] == 2
    assert found["router_lane_open", "satusehat"] == 0 and found["router_lane_down_seconds", "satusehat"] >= 90
    assert found["router_alerts", "disk", "jaga"] == 1 and found["router_database_up",] == 1
    assert found["router_disk_days",] >= 0
    assert PATIENT not in text and "P-77" not in text and "2.25." not in text


def test_old_status_files_count_as_nothing(doors: Doors) -> None:
    fill(doors)
    doors.spool.publish("receive-0.json", json.dumps({"alive_at": 1, "counters": Counters().shown()}).encode())
    doors.spool.publish("deliver.json", b"not json")
    found = values(read(doors))
    assert ("router_store_seconds_count", "0") not in found and found["router_role_up", "deliver"] == 0


def test_devices_are_bounded(doors: Doors) -> None:
    with doors.store.transaction() as tx:
        devices.learn(tx, [devices.Caller(f"AE{number}", "192.0.2.7", now_ms()) for number in range(400)],
                      with_images=True)
    assert read(doors).count("router_device_last_image_timestamp_seconds{") == 200


@pytest.mark.parametrize(("is_open", "status"), [("no", 401), ("yes", 200)])
def test_without_a_key_only_from_this_machine_and_only_if_asked(
    open_doors: Callable[..., Doors], is_open: str, status: int,
) -> None:
    doors = open_doors(http__open_metrics=is_open)
    assert requests.get(f"{doors.url}/metrics", timeout=10).status_code == status
    assert doors.visitor(key=doors.key("view")).get("/metrics").status_code == (200 if is_open == "yes" else 403)
    assert requests.get(f"{doors.url}/api/v1/lanes", timeout=10).status_code == 401


def test_every_figure_of_the_dashboard_exists(doors: Doors) -> None:
    fill(doors)
    names = {sample.name for family in text_string_to_metric_families(read(doors)) for sample in family.samples}
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    used = {name for expr in asked for name in re.findall(r"router_[a-z_]+", expr)}
    assert len(asked) >= 10 and used <= names, used - names
