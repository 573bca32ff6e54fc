"""Admitting callers: a person's word, what it lets go on, and what the receiver is told.

Layer 4, over devices and jobs. The receiver has no database: it reads run/policy.json, a projection of the decisions
that is published after each change. Changes when the receiver has to be told more.
"""

from __future__ import annotations

import json

from internal import devices, jobs
from internal.devices import Verdict
from internal.spool import POLICY_NAME, Spool
from internal.store import Store, Tx


def decide(
    tx: Tx, aet: str, address: str, verdict: Verdict | None, *, default: Verdict, who: str, now: int,
    restores: int | None = None,
) -> list[int]:
    """Write down what a person says about a caller; return the jobs that go on because of it."""
    devices.decide(tx, aet, address, verdict, who=who, now=now, restores=restores)
    return release(tx, default, who=who, now=now)


def release(tx: Tx, default: Verdict, *, who: str, now: int) -> list[int]:
    """Let every job go on that was held for its caller and need not be any more; return them."""
    waiting = jobs.held_for_caller(tx)
    refused = {uid for uid in {uid for _, uid in waiting} if devices.unadmitted(tx, uid, default)}
    free = [job_id for job_id, study_uid in waiting if study_uid not in refused]
    return [job_id for job_id, _ in jobs.admit(tx, free, who=who, now=now)]


def publish(store: Store, spool: Spool) -> bool:
    """Bring run/policy.json up to date; True if that changed it. Raises StorageFull or StorageFailed.

    A caller to hold is accepted by the receiver: what it sends is held by the index.
    """
    with store.reading() as tx:
        decided = devices.decisions(tx)
    callers = [{"aet": aet, "address": address, "verdict": "refuse" if verdict is Verdict.REFUSE else "accept"}
               for (aet, address), verdict in sorted(decided.items())]
    document = json.dumps({"callers": callers}).encode("ascii")
    if spool.read_published(POLICY_NAME) == document:
        return False
    spool.publish(POLICY_NAME, document)
    return True
