"""The figures of this node for Prometheus: from the roles' status files and cheap SQL, never patient data.

Flow: the web role asks `render` at each scrape. Labels are lanes, states, reason codes, AE titles (bounded) and slots.
Imports the spool, read models and prometheus_client. Changes when another figure is worth watching; the dashboard in
deploy/ and docs/api.md name them. Source: Prometheus exposition formats; prometheus.io/docs/practices/naming.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from internal import alerts, conditions, devices, job_list, jobs, overview
from internal.conditions import Vitals
from internal.errors import RouterError
from internal.spool import Spool
from internal.store import Store, Tx

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ROLES = ("receive", "deliver", "web")
STALE_MS = 15_000
MAX_SLOTS = 64
MAX_DEVICES = 200
MAX_CAUSES = 200
#: Upper bounds in seconds of how long unfinished jobs have been under way.
AGE_BOUNDS_S = (60, 300, 900, 3600, 4 * 3600, 86_400, 3 * 86_400, 7 * 86_400, 30 * 86_400)


@dataclass(frozen=True)
class Sources:
    """What the figures are read from; `store` None: the database cannot be opened now. `now_ms`: epoch ms."""

    spool: Spool
    store: Store | None
    lanes: tuple[str, ...]
    min_free_bytes: int
    now_ms: int
    version: str
    environment: str


def render(sources: Sources) -> bytes:
    """Return every figure in Prometheus' text format 0.0.4. What cannot be read now is left out, never invented."""
    registry = CollectorRegistry()
    registry.register(_Node(sources))
    return generate_latest(registry)


class _Node(Collector):
    def __init__(self, sources: Sources) -> None:
        self._of = sources

    def describe(self) -> Iterable[Metric]:
        """Declare nothing ahead: reading twice for that would cost as much again."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every family once."""
        about = GaugeMetricFamily("router_info", "This router.", labels=["version", "environment"])
        about.add_metric([self._of.version, self._of.environment], 1)
        yield about
        yield from self._roles()
        yield from self._receiving()
        yield from self._lanes_at_work()
        yield from self._disk()
        yield from self._from_database()

    # -- status files ------------------------------------------------------------------------------------------------

    def _roles(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("router_role_up", "1 while the role's status is younger than 15 s.", labels=["role"])
        for role in ROLES:
            up.add_metric([role], float(self._is_fresh(self._status(role))))
        yield up

    def _receiving(self) -> Iterator[Metric]:
        children = {str(slot): status for slot in range(MAX_SLOTS)
                    if (status := self._status(f"receive-{slot}")) and self._is_fresh(status)}
        counters = {slot: _mapping(status.get("counters")) for slot, status in children.items()}
        yield _histogram("router_store_seconds", "From the last byte of an image to its durable answer.", "slot",
                         {slot: _mapping(one.get("answer_ms")) for slot, one in counters.items()}, 0.001)
        yield _histogram("router_store_bytes", "Size of stored images.", "slot",
                         {slot: _mapping(one.get("size_bytes")) for slot, one in counters.items()}, 1)
        answers = CounterMetricFamily("router_store_answers", "C-STORE answers by status.", labels=["slot", "status"])
        accepted = CounterMetricFamily("router_associations", "Associations accepted.", labels=["slot"])
        opened = GaugeMetricFamily("router_associations_open", "Associations open now.", labels=["slot"])
        for slot, one in counters.items():
            for code, count in sorted(_mapping(one.get("statuses")).items())[:50]:
                answers.add_metric([slot, code], _number(count))
            accepted.add_metric([slot], _number(one.get("associations")))
            opened.add_metric([slot], _number(children[slot].get("open_associations")))
        yield from (answers, accepted, opened)
        gate = _mapping(self._status("receive").get("counters"))
        yield CounterMetricFamily("router_connections_refused", "Connections refused over the limits.",
                                  value=_number(gate.get("refused_connections")))

    def _lanes_at_work(self) -> Iterator[Metric]:
        deliver = _mapping(self._status("deliver").get("counters"))
        for name, text in (("indexed", "Images indexed."), ("set_aside", "Files set aside as unreadable."),
                           ("planned", "Studies planned."), ("purged", "Images removed by retention.")):
            yield CounterMetricFamily(f"router_{name}", text, value=_number(deliver.get(name)))
        lanes = {name: _mapping(one) for name, one in _mapping(deliver.get("lanes")).items()}
        steps = CounterMetricFamily("router_lane_steps", "Steps of a lane's workers.", labels=["lane"])
        throttled = CounterMetricFamily("router_lane_throttled", "429 answers of a destination.", labels=["lane"])
        offset = GaugeMetricFamily("router_clock_offset_seconds", "How far a destination's clock is ahead of ours.",
                                   labels=["lane"])
        for name, one in lanes.items():
            steps.add_metric([name], _number(one.get("steps")))
            throttled.add_metric([name], _number(one.get("throttled")))
            if "clock_offset_s" in one:
                offset.add_metric([name], _number(one["clock_offset_s"]))
        yield from (steps, throttled, offset)
        yield _histogram("router_push_seconds", "One answered request that carried an image.", "lane", {
            name: _mapping(one.get("push_ms")) for name, one in lanes.items() if "push_ms" in one}, 0.001)

    def _disk(self) -> Iterator[Metric]:
        try:
            free_bytes, oldest_at = self._of.spool.free_bytes(), self._of.spool.oldest_new_at()
        except (OSError, RouterError):
            return
        yield GaugeMetricFamily("router_disk_free_bytes", "Free space on the spool's disk.", value=free_bytes)
        yield GaugeMetricFamily("router_disk_min_free_bytes", "Below this images are refused.",
                                value=self._of.min_free_bytes)
        age_s = 0.0 if oldest_at is None else max(0, self._of.now_ms - oldest_at) / 1000
        yield GaugeMetricFamily("router_index_backlog_seconds", "Age of the oldest image not indexed yet.",
                                value=age_s)

    # -- the database -------------------------------------------------------------------------------------------------

    def _from_database(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("router_database_up", "1 while the database answers.")
        try:
            if self._of.store is None:
                raise RouterError("the database is not there")
            with self._of.store.reading() as tx:
                found = [*self._jobs(tx), *self._lane_rows(tx), *self._devices(tx), *self._alerts(tx),
                         *self._forecast(tx)]
        except RouterError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield from (up, *found)

    def _jobs(self, tx: Tx) -> Iterator[Metric]:
        unfinished = GaugeMetricFamily("router_jobs", "Unfinished jobs.", labels=["lane", "state", "reason"])
        oldest = GaugeMetricFamily("router_queue_oldest_seconds", "Age of the oldest unfinished job.",
                                   labels=["lane", "state"])
        counts: dict[tuple[str, str, str], int] = {}
        ages: dict[tuple[str, str], float] = {}
        for cause in overview.causes(tx)[:MAX_CAUSES]:
            key = (cause.destination, str(cause.state))
            counts[*key, cause.reason_code] = counts.get((*key, cause.reason_code), 0) + cause.jobs
            ages[key] = max(ages.get(key, 0.0), (self._of.now_ms - cause.oldest_at) / 1000)
        for labels, count in counts.items():
            unfinished.add_metric(labels, count)
        for (lane, state), age_s in ages.items():
            oldest.add_metric([lane, state], max(0.0, age_s))
        yield from (unfinished, oldest)
        unproven = GaugeMetricFamily(
            "router_not_proven", "Finished deliveries with receipts that do not prove that our bytes are there.",
            labels=["lane"])
        for lane, count in job_list.count_not_proven(tx).items():
            unproven.add_metric([lane], count)
        yield unproven
        queue = GaugeHistogramMetricFamily("router_queue_age_seconds", "How long unfinished jobs have been under way.",
                                           labels=["lane"])
        for lane, (sizes, sum_s) in overview.queue_ages(tx, AGE_BOUNDS_S, self._of.now_ms).items():
            queue.add_metric([lane], _buckets(AGE_BOUNDS_S, sizes), sum_s)
        yield queue

    def _lane_rows(self, tx: Tx) -> Iterator[Metric]:
        is_open = GaugeMetricFamily("router_lane_open", "0 while the lane is paused.", labels=["lane"])
        down = GaugeMetricFamily("router_lane_down_seconds", "How long the destination has not answered.",
                                 labels=["lane"])
        for name in self._of.lanes:
            lane = jobs.lane(tx, name)
            is_open.add_metric([name], float(lane.paused_until <= self._of.now_ms))
            down.add_metric([name], max(0, self._of.now_ms - lane.down_since) / 1000 if lane.down_since else 0)
        yield from (is_open, down)

    def _devices(self, tx: Tx) -> Iterator[Metric]:
        last: dict[str, int] = {}
        for one in devices.list_devices(tx):
            if one.last_image_at is not None and one.aet:
                last[one.aet] = max(last.get(one.aet, 0), one.last_image_at)
        silent = GaugeMetricFamily("router_device_last_image_timestamp_seconds", "When a device sent its last image.",
                                   labels=["aet"])
        for aet, at in sorted(last.items(), key=lambda pair: -pair[1])[:MAX_DEVICES]:
            silent.add_metric([aet], at / 1000)
        yield silent

    def _alerts(self, tx: Tx) -> Iterator[Metric]:
        found = GaugeMetricFamily("router_alerts", "Alerts that go on.", labels=["rule", "condition"])
        counts: dict[tuple[str, str], int] = {}
        for one in alerts.open_alerts(tx):
            key = (one.rule, str(one.condition))
            counts[key] = counts.get(key, 0) + 1
        for (rule, condition), count in counts.items():
            found.add_metric([rule, condition], count)
        yield found

    def _forecast(self, tx: Tx) -> Iterator[Metric]:
        vitals = Vitals(self._of.spool.node, self._of.spool.free_bytes(), self._of.min_free_bytes)
        days = conditions.days_left(tx, vitals, self._of.now_ms)
        if days is not None:
            yield GaugeMetricFamily("router_disk_days", "Days until images are refused, as the disk fills now.",
                                    value=days)

    def _status(self, role: str) -> Mapping[str, Any]:
        try:
            return _mapping(json.loads(self._of.spool.read_published(f"{role}.json") or b"{}"))
        except (ValueError, RouterError):
            return {}

    def _is_fresh(self, status: Mapping[str, Any]) -> bool:
        return self._of.now_ms - _number(status.get("alive_at")) <= STALE_MS


def _histogram(
    name: str, text: str, label: str, shown: Mapping[str, Mapping[str, Any]], scale: float,
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=[label])
    for value, one in shown.items():
        bounds, counts = one.get("bounds") or [], one.get("counts") or []
        if len(counts) == len(bounds) + 1:
            family.add_metric([value], _buckets([bound * scale for bound in bounds], counts),
                              _number(one.get("sum")) * scale)
    return family


def _buckets(bounds: Iterable[float], counts: Iterable[float]) -> list[tuple[str, float]]:
    total, buckets = 0.0, []
    for bound, count in zip([*(f"{bound:g}" for bound in bounds), "+Inf"], counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
