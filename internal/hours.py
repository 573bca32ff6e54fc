"""Hours of the day at which a lane may be used, such as 19:00-06:00.

Layer 1, pure. `config` checks the text, `worker` asks. Changes when a timetable can say more.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, tzinfo


@dataclass(frozen=True, slots=True)
class Hours:
    """From `begin` up to and without `end`, each day in `zone`; across midnight where `end` is the earlier one."""

    begin: time
    end: time
    zone: tzinfo

    def is_open(self, now_ms: int) -> bool:
        """Return whether the moment `now_ms` (UTC epoch milliseconds) lies within the hours."""
        now = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(self.zone).time()
        if self.begin <= self.end:
            return self.begin <= now < self.end
        return now >= self.begin or now < self.end


def parse_hours(text: str, zone: tzinfo) -> Hours | None:
    """Return the hours that ``HH:MM-HH:MM`` names, None for "" (always); raises ValueError for anything else."""
    if not text.strip():
        return None
    begin, separator, end = (part.strip() for part in text.partition("-"))
    if not separator or len(begin) != 5 or len(end) != 5 or begin == end:
        raise ValueError("hours are written as HH:MM-HH:MM")
    return Hours(time.fromisoformat(begin), time.fromisoformat(end), zone)
