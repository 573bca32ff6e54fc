"""The step of a destination that takes images one by one or in batches: freeze, send, write down each answer, conclude.

Used by every destination but the platform, which has phases of its own. `send` is what differs: it yields an answer for
each image as it comes, and raises what concerns the whole lane. Imports internal only. Changes when the order of
freezing, sending and writing down changes for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from internal.failpoints import hit
from internal.model import LEFT_OUT, RECEIPTED, Item, ItemState
from internal.ports import Frozen, Work
from internal.states import Finish, Later, More, Outcome, Refuse

BATCH = 16
_OPEN = (ItemState.SENT, ItemState.DUE)
MAX_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Answer:
    """What the other side said of one image; `said` (JSON) is kept with the item and shown to people.

    With it are kept the UIDs under which the image left: where a rule gives new ones, the other side knows no others.
    """

    frozen: Frozen
    state: ItemState
    said: dict[str, Any] = field(default_factory=dict)


Send = Callable[[Sequence[Frozen]], Iterator[Answer]]


def send_all(work: Work, send: Send, batch: int = BATCH) -> Outcome | None:
    """Send every image that has no answer; None when all have one, More when the step's time is used up.

    Before the first image leaves, every one is tried on the rules: where one cannot be changed, none is sent.
    Answers are committed per batch, also those that came before `send` raised. An image without an answer is sent
    again with the same bytes. While a batch is being sent, the bytes of the next one are checked.
    """
    work.rehearse()
    last = 0
    while items := work.items(_OPEN, batch, last):
        last = items[-1].item_id
        answers: list[tuple[Item, ItemState, dict[str, Any]]] = []
        try:
            for answer in send(work.freeze(items, partial(work.items, _OPEN, batch, last))):
                sent = answer.frozen.header
                said = {"at": work.clock.now_ms(), "sop_class_uid": sent.sop_class_uid, "sop_uid": sent.sop_uid}
                answers.append((answer.frozen.item, answer.state, {**said, **answer.said}))
                work.renew()
        finally:
            if answers:
                work.settle_items(answers)
        if work.should_yield():
            return More()
    return None


def conclude(work: Work, name: str, what: str) -> Outcome:
    """Return Finish when every image is there, else Refuse with up to 50 that are not, or Later; `what`: "files"."""
    counts = work.count_items()
    total = sum(count for state, count in counts.items() if state not in LEFT_OUT)
    arrived = sum(counts.get(state, 0) for state in RECEIPTED)
    if arrived == total:
        hit("study.before_done")
        unread = counts.get(ItemState.UNREAD, 0)
        note = f"{unread} accepted, reply not understood" if unread else ""
        work.event("sent", f"{arrived} {what} are at {name}")
        return Finish(note)
    open_ = counts.get(ItemState.SENT, 0) + counts.get(ItemState.DUE, 0)
    if open_:
        return Later("no-answer", f"{open_} of {total} {what} have no answer of {name} yet")
    others = work.items((ItemState.CONFLICT, ItemState.REFUSED), MAX_SHOWN)
    detail = {"files": [{**item.answer, "sop_uid": item.instance.header.sop_uid} for item in others]}
    reasons = sorted({str(item.answer.get("text", "")) for item in others})
    return Refuse("partly-delivered", f"partly delivered {arrived}/{total}: {'; '.join(reasons)[:300]}", detail)
