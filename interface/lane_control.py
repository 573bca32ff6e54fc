"""What people have set for lanes, put into force while the deliver role runs.

Reads the rows of `lane_settings` at every call and changes only what differs; what router.conf states stays. Also says
what the configuration and its rows are to each other (`ground_of`). Changes when lanes can be set in another way.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from interface.destinations import PLATFORM
from interface.rule_book import build_book
from internal import catalogue, lane_settings, settings_rows
from internal.config import Settings
from internal.devices import Verdict
from internal.doctor import read_alias_file
from internal.fhir import dates
from internal.hours import parse_hours
from internal.lane_settings import LaneSettings
from internal.ports import Destination, Throttled
from internal.settings_rows import Ground
from internal.store import Store
from internal.worker import Lane

log = logging.getLogger("router.lanes")


def ground_of(settings: Settings) -> Ground:
    """Return what `settings` state that rows may not state too."""
    alias_file = settings.satusehat.alias_file
    stated = [f"{PLATFORM}.{key}" for key in ("bandwidth", "send_hours")
              if settings.source_of(f"satusehat.{key}") != "default"]
    return Ground(
        unknown_callers=Verdict(settings.dicom.unknown_callers), lanes=frozenset(settings.lane_names()),
        throttled=frozenset({PLATFORM}), in_file={
            "alias": frozenset(read_alias_file(alias_file if alias_file != Path() else None)), "lane": stated,
            "rule": frozenset(rule.name for rule in settings.rules)},
        compile_rules=lambda texts: build_book(settings).compile(texts))


class LaneControl:
    """Keeps the lanes of one deliver role at what people have set."""

    def __init__(
        self, settings: Settings, store: Store, lanes: Sequence[Lane], destinations: Sequence[Destination],
    ) -> None:
        self._settings = settings
        self._store = store
        self._lanes = {lane.name: lane for lane in lanes}
        self._throttled = {one.name: one for one in destinations if isinstance(one, Throttled)}
        self._zone = dates.zone(settings.satusehat.tz_name)
        self._ground = ground_of(settings)
        self._in_force = dict.fromkeys(self._lanes, LaneSettings())
        self._said: list[str] = []

    def apply(self) -> None:
        """Put what has changed since the last call into force."""
        with self._store.reading() as tx:
            rows = catalogue.current(tx, lane_settings.KIND)
            conflicts = settings_rows.conflicts(tx, self._ground)
        if conflicts != self._said:
            self._said = conflicts
            for sentence in conflicts:
                log.error("%s; what the file says is in force", sentence)
        for name, lane in self._lanes.items():
            wanted = lane_settings.parse(rows.get(name))
            if wanted != self._in_force[name]:
                self._set(lane, wanted)
                self._in_force[name] = wanted

    def _set(self, lane: Lane, wanted: LaneSettings) -> None:
        stated, platform = self._ground.in_file[lane_settings.KIND], self._settings.satusehat
        if f"{lane.name}.send_hours" not in stated:
            text = platform.send_hours if lane.name == PLATFORM else ""
            lane.keep_hours(parse_hours(wanted.send_hours if wanted.send_hours is not None else text, self._zone))
        if lane.name in self._throttled and f"{lane.name}.bandwidth" not in stated:
            limit = wanted.bandwidth if wanted.bandwidth is not None else platform.bandwidth
            self._throttled[lane.name].limit_bandwidth(limit)
        log.info("Lane settings changed", extra={"fields": {
            "lane": lane.name, "bandwidth": wanted.bandwidth, "send_hours": wanted.send_hours}})
