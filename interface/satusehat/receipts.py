"""What the answer to one push makes of its item, and what is kept of it as a receipt.

Used by `pushing`; imports client, effects, run and internal. Changes when an answer is to count in another way.
Source: the map, section 2 (item rules); satusehat facts 3.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from interface.logs import DETAIL, PHRASES
from interface.logs import event as log_event
from interface.satusehat.client import Pushed, Verdict
from interface.satusehat.effects import NOT_UNDERSTOOD
from interface.satusehat.run import Run
from internal.errors import RouterError, UnknownOutcome
from internal.model import Item, ItemState
from internal.ports import Frozen

log = logging.getLogger("router.satusehat")

Result = Pushed | RouterError


@dataclass(frozen=True, slots=True)
class Answered:
    """One item with what its answer makes of it; `unread`: how many replies to it could not be understood."""

    item: Item
    state: ItemState
    result: Result
    unread: int = 0

    def describe(self, now_ms: int) -> dict[str, Any]:
        """Return the receipt as it is kept: time, status, code and words, none of them patient data."""
        answer: dict[str, Any] = {"at": now_ms, "text": self.text}
        if isinstance(self.result, Pushed):
            return answer | {"status": self.result.status, "code": self.result.code}
        status = self.result.status if isinstance(self.result, UnknownOutcome) else None
        return answer | {"status": status, "code": NOT_UNDERSTOOD, "unread": self.unread}

    @property
    def text(self) -> str:
        """Return the platform's words, or what is known in their place."""
        if isinstance(self.result, Pushed):
            return self.result.text
        return f"accepted, reply not understood: {self.result}"


def judge(frozen: Frozen, result: Result) -> ItemState | None:
    """Return the state that `result` gives the item, None when it is not known yet.

    409 "already exists" is a receipt for bytes that an earlier attempt may have brought there as a whole: one that is
    on record and was not taken back (see `Work.take_back`); else what is there is not known to be ours.
    """
    if not isinstance(result, Pushed):
        return None
    if result.verdict is Verdict.EXISTS:
        return ItemState.STORED if frozen.item.sends > 1 else ItemState.UNVERIFIED
    return ItemState.STORED if result.verdict is Verdict.STORED else ItemState.REFUSED


def count_unread(item: Item) -> int:
    """Return how many replies to pushes of this item could not be understood so far."""
    unread = item.answer.get("unread", 0)
    return unread if isinstance(unread, int) else 0


def tell(run: Run, one: Answered) -> None:
    """Tell people: a refusal and a reply in a new form in the timeline, a receipt in the log."""
    header = one.item.instance.header
    if one.state is ItemState.REFUSED:
        phrase = PHRASES["instance_failed"].format(sop_uid=header.sop_uid)
        run.work.event("instance-refused", f"{phrase}: {one.text}", sop_uid=header.sop_uid)
    elif one.state is ItemState.UNREAD:
        run.work.alert(NOT_UNDERSTOOD, "SATUSEHAT accepts images, but its replies are not understood any more: "
                       f"they count as delivered without proof ({one.text})")
    elif one.state is not ItemState.SENT:
        phrase = PHRASES["instance_sent"].format(series_uid=header.series_uid, sop_uid=header.sop_uid)
        log_event(log, DETAIL, phrase, study=header.study_uid, job=run.work.job.job_id, receipt=str(one.state))
