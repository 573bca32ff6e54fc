"""The one state machine of every job: the only place that decides where a job goes next.

Layer 0, imports nothing. The table drives the code (`jobs.settle`), the tests and the diagram in the docs.
Changes only when a job can be in a new situation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal


class State(StrEnum):
    """Where a job is. A job ends DONE, or by a person's word; there is no automatic terminal failure."""

    QUEUED = "queued"  #: due as soon as a worker of its lane is free
    ACTIVE = "active"  #: a worker holds its lease
    DEFERRED = "deferred"  #: a fault that should pass by itself; next try at due_at
    WAITING = "waiting"  #: nothing is wrong, something is not there yet (an order); costs no attempt
    HELD = "held"  #: needs a person; the bytes are kept
    DONE = "done"  #: everything settled up to done_revision is confirmed by the other side
    CANCELLED = "cancelled"  #: a person said that it shall not be sent


class Event(StrEnum):
    """What can happen to a job."""

    CLAIM = "claim"  #: a worker takes it
    FINISH = "finish"  #: every item has its receipt
    MORE = "more"  #: the step used up its time, work is left
    LEASE_LOST = "lease_lost"  #: its worker died or stalled
    LATER = "later"  #: a fault that should pass
    NOT_YET = "not_yet"  #: no fault, but not ready
    REFUSE = "refuse"  #: only a person can go on from here
    WAKE = "wake"  #: what it waited for may have come
    RETRY = "retry"  #: a person asks for it
    GIVE_UP = "give_up"  #: patience ended, or something came up that a person has to decide first
    CANCEL = "cancel"  #: a person stops it
    REOPEN = "reopen"  #: a late instance, or a person asks to send again


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.QUEUED, Event.CLAIM): State.ACTIVE,
    (State.DEFERRED, Event.CLAIM): State.ACTIVE,
    (State.WAITING, Event.CLAIM): State.ACTIVE,
    (State.ACTIVE, Event.FINISH): State.DONE,
    (State.ACTIVE, Event.MORE): State.QUEUED,
    (State.ACTIVE, Event.LEASE_LOST): State.QUEUED,
    (State.ACTIVE, Event.LATER): State.DEFERRED,
    (State.ACTIVE, Event.NOT_YET): State.WAITING,
    (State.ACTIVE, Event.REFUSE): State.HELD,
    (State.DEFERRED, Event.WAKE): State.QUEUED,
    (State.WAITING, Event.WAKE): State.QUEUED,
    (State.DEFERRED, Event.RETRY): State.QUEUED,
    (State.WAITING, Event.RETRY): State.QUEUED,
    (State.HELD, Event.RETRY): State.QUEUED,
    (State.HELD, Event.REOPEN): State.QUEUED,
    (State.CANCELLED, Event.RETRY): State.QUEUED,
    (State.QUEUED, Event.GIVE_UP): State.HELD,
    (State.ACTIVE, Event.GIVE_UP): State.HELD,
    (State.DEFERRED, Event.GIVE_UP): State.HELD,
    (State.WAITING, Event.GIVE_UP): State.HELD,
    (State.QUEUED, Event.CANCEL): State.CANCELLED,
    (State.ACTIVE, Event.CANCEL): State.CANCELLED,
    (State.DEFERRED, Event.CANCEL): State.CANCELLED,
    (State.WAITING, Event.CANCEL): State.CANCELLED,
    (State.HELD, Event.CANCEL): State.CANCELLED,
    (State.DONE, Event.REOPEN): State.QUEUED,
}


class IllegalTransition(Exception):
    """This event cannot happen to a job in this state."""


def next_state(state: State, event: Event) -> State:
    """Return the state a job in `state` has after `event`; raises IllegalTransition where the table has no entry."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"a job that is {state} cannot {event}") from None


def can(state: State, event: Event) -> bool:
    """Return whether `event` may happen to a job in `state`."""
    return (state, event) in TRANSITIONS


@dataclass(frozen=True, slots=True)
class Finish:
    """Every item of the claimed revision has a receipt; `note` is shown to people.

    `code` is given by `jobs.settle` alone, which looks at the receipts: why a finished job is worth a look.
    """

    note: str = ""
    code: str = ""
    event: Literal[Event.FINISH] = field(default=Event.FINISH, init=False)


@dataclass(frozen=True, slots=True)
class More:
    """The step stopped at an instance boundary because its time was used up."""

    event: Literal[Event.MORE] = field(default=Event.MORE, init=False)


@dataclass(frozen=True, slots=True)
class Later:
    """A fault that should pass by itself.

    `blame="lane"` pauses the whole lane once and charges this job no attempt; `blame="job"` charges one.
    `retry_after_s` (seconds) is what the other side asked for; None lets the worker's backoff decide.
    """

    code: str
    reason: str
    retry_after_s: float | None = None
    blame: Literal["job", "lane"] = "job"
    event: Literal[Event.LATER] = field(default=Event.LATER, init=False)


@dataclass(frozen=True, slots=True)
class NotYet:
    """No fault, but something is missing (no ServiceRequest yet, the platform's index lags).

    `retry_after_s` (seconds) None: the waiting room's schedule, which slows down with age, decides.
    """

    code: str
    reason: str
    retry_after_s: float | None = None
    event: Literal[Event.NOT_YET] = field(default=Event.NOT_YET, init=False)


@dataclass(frozen=True, slots=True)
class Refuse:
    """Only a person can go on; `detail` (JSON) holds both sides, such as all candidate orders."""

    code: str
    reason: str
    detail: dict[str, Any] = field(default_factory=dict)
    event: Literal[Event.REFUSE] = field(default=Event.REFUSE, init=False)


Outcome = Finish | More | Later | NotYet | Refuse
