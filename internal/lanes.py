"""SQL for lanes: whether a destination may be tried now, and who stopped it.

Called by `worker` (circuit breaker) and by people's commands; imports store. Changes when a lane gets another brake.
"""

from __future__ import annotations

from dataclasses import dataclass

from internal.store import Tx

#: Who pauses a lane when no person does.
BREAKER = "breaker"


@dataclass(frozen=True, slots=True)
class Lane:
    """The state of one destination's lane; times in epoch ms, `failures` counts pauses by the breaker in a row.

    `down_since`: when the breaker paused it first in this row, 0 while it works. While `standby_until` lies
    ahead, the destination `standby` takes its studies. `alert`: what a person has to look at
    although deliveries go on, "" when there is nothing.
    """

    name: str
    paused_until: int = 0
    paused_by: str = ""
    reason_code: str = ""
    reason: str = ""
    failures: int = 0
    updated_at: int = 0
    alert_code: str = ""
    alert: str = ""
    alert_at: int = 0
    down_since: int = 0
    standby_until: int = 0
    standby: str = ""


_SELECT = ("SELECT name, paused_until, paused_by, reason_code, reason, failures, updated_at, alert_code, alert,"
           " alert_at, down_since, standby_until, standby FROM lane")


def lane(tx: Tx, name: str) -> Lane:
    """Return the lane; one that was never paused is open."""
    row = tx.row(f"{_SELECT} WHERE name = ?", (name,))
    return Lane(*row) if row else Lane(name)


def lanes(tx: Tx) -> list[Lane]:
    """Return every lane that was ever paused or had an alert, by name."""
    return [Lane(*row) for row in tx.rows(f"{_SELECT} ORDER BY name")]


def alert_lane(tx: Tx, name: str, code: str, text: str, now: int) -> bool:
    """Show `text` with the lane until a person opens it again; False when the same code stands there already."""
    tx.execute("INSERT INTO lane (name, updated_at) VALUES (?, ?) ON CONFLICT (name) DO NOTHING", (name, now))
    return tx.execute("UPDATE lane SET alert_code = ?, alert = ?, alert_at = ?, updated_at = ?"
                      " WHERE name = ? AND alert_code <> ?", (code, text, now, now, name, code)) == 1


def clear_alert(tx: Tx, name: str, now: int) -> bool:
    """Take the alert down because a person has seen it; True when there was one."""
    return tx.execute("UPDATE lane SET alert_code = '', alert = '', alert_at = 0, updated_at = ?"
                      " WHERE name = ? AND alert_code <> ''", (now, name)) == 1


def pause_lane(tx: Tx, name: str, until: int, code: str, reason: str, now: int, *, by: str = BREAKER) -> None:
    """Pause a lane until `until`. The breaker's pauses are counted, and leave a person's running pause alone."""
    tx.execute("INSERT INTO lane (name, updated_at) VALUES (?, ?) ON CONFLICT (name) DO NOTHING", (name, now))
    tx.execute("UPDATE lane SET failures = failures + ?, standby_until = 0, updated_at = ? WHERE name = ?",
               (int(by == BREAKER), now, name))
    tx.execute("UPDATE lane SET down_since = ? WHERE name = ? AND down_since = 0 AND failures > 0", (now, name))
    tx.execute("UPDATE lane SET paused_until = ?, paused_by = ?, reason_code = ?, reason = ? WHERE name = ?"
               " AND (? <> ? OR paused_by IN ('', ?) OR paused_until < ?)",
               (until, by, code, reason, name, by, BREAKER, BREAKER, now))


def resume_lane(tx: Tx, name: str, now: int, *, by: str = BREAKER) -> bool:
    """Open a lane and forget its failures; True if that changed it. The breaker leaves a person's pause alone."""
    return tx.execute("UPDATE lane SET paused_until = 0, paused_by = '', reason_code = '', reason = '', failures = 0,"
                      " down_since = 0, standby_until = 0, standby = '', updated_at = ? WHERE name = ?"
                      " AND (paused_until > 0 OR failures > 0)"
                      " AND (? <> ? OR paused_by IN ('', ?) OR paused_until < ?)",
                      (now, name, by, BREAKER, BREAKER, now)) == 1


def stand_in(tx: Tx, name: str, standby: str, until: int, now: int) -> None:
    """Let the destination `standby` take a failing lane's studies until `until`, when its own is tried again."""
    tx.execute("UPDATE lane SET standby = ?, standby_until = ?, paused_until = ?, updated_at = ? WHERE name = ?"
               " AND paused_by IN ('', ?)", (standby, until, now, now, name, BREAKER))


def hurry_lane(tx: Tx, name: str, now: int) -> None:
    """End the breaker's pause because a person does not want to wait; its failures stay counted, one worker probes."""
    tx.execute("UPDATE lane SET paused_until = ?, updated_at = ? WHERE name = ? AND paused_until > ?"
               " AND paused_by IN ('', ?)", (now, now, name, now, BREAKER))
