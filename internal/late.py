"""SQL for images that come after their study was delivered: whether they go, alone or with all that went before.

Layer 3, called by `assemble` in the transaction that planned the job again. Imports items, jobs' events and store.
Changes when a destination can treat late images in another way.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from internal.events import add_event
from internal.rows import json_text
from internal.store import Tx


class Late(StrEnum):
    """What goes to a destination when images come after the delivery."""

    ALL = "all"  #: the whole study once more, with equal bytes
    NEW = "new"  #: the new images
    NEVER = "never"  #: nothing: they are kept here and shown as left out


@dataclass(frozen=True, slots=True)
class LatePolicy:
    """`before` counts until `cutoff_ms` after the delivery, `after` from then on; 0: `before` for ever."""

    before: Late = Late.NEW
    cutoff_ms: int = 0
    after: Late = Late.NEW

    def choose(self, since_ms: int) -> Late:
        """Return what to do `since_ms` after the delivery."""
        return self.after if self.cutoff_ms and since_ms >= self.cutoff_ms else self.before


def apply(tx: Tx, job_id: int, policy: LatePolicy, revision: int, now: int) -> None:
    """Let `policy` decide on the items that settled revision `revision` has added to a job.

    Nothing happens to a job that was never done: all of its images are on time.
    """
    row = tx.row("SELECT done_at, environment, study_uid, destination FROM job WHERE job_id = ?", (job_id,))
    if row is None or not row[0]:
        return
    done_at, environment, study_uid, destination = row
    choice = policy.choose(now - done_at)
    if choice is Late.NEVER:
        count = tx.execute(
            "UPDATE item SET state = 'skipped', answer = ? WHERE job_id = ? AND environment = ? AND revision = ?"
            " AND state = 'due' AND sends = 0",
            (json_text({"at": now, "text": "late image, left out (late = never)"}), job_id, environment, revision))
        words = f"{count} late images stay here: late = never"
    elif choice is Late.ALL:
        count = tx.execute(
            "UPDATE item SET state = 'due', answer = ? WHERE job_id = ? AND environment = ? AND state = 'stored'",
            (json_text({"at": now, "text": "sent again with late images (late = all)"}), job_id, environment))
        words = f"{count} images go again with the late ones: late = all"
    else:
        return
    if count:
        add_event(tx, now, "late-images", f"{destination}: {words}", study_uid=study_uid, job_id=job_id,
                  fields={"destination": destination, "late": str(choice), "images": count})
