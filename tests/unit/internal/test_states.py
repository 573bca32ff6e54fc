"""The state table against a list written by hand from the description of the machine, not from the code.

The description: a worker claims what is queued, deferred or waiting. What it works on ends done, has more to do, lost
its lease, failed for now, is not ready yet, or is refused. Held and cancelled need a person; done may be reopened.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internal.states import (
    TRANSITIONS,
    Event,
    Finish,
    IllegalTransition,
    Later,
    More,
    NotYet,
    Refuse,
    State,
    can,
    next_state,
)

# One line per state: what may happen there and where it leads. Everything else is illegal.
BY_HAND = """
queued     claim>active      give_up>held     cancel>cancelled
active     finish>done       more>queued      lease_lost>queued  later>deferred  not_yet>waiting  refuse>held  give_up>held  cancel>cancelled
deferred   claim>active      wake>queued      retry>queued       give_up>held    cancel>cancelled
waiting    claim>active      wake>queued      retry>queued       give_up>held    cancel>cancelled
held       retry>queued      reopen>queued    cancel>cancelled
done       reopen>queued
cancelled  retry>queued
"""  # noqa: E501
LEGAL = {
    (line.split()[0], step.partition(">")[0]): step.partition(">")[2]
    for line in BY_HAND.strip().splitlines() for step in line.split()[1:]
}
EVERY_STATE = ["queued", "active", "deferred", "waiting", "held", "done", "cancelled"]
EVERY_EVENT = ["claim", "finish", "more", "lease_lost", "later", "not_yet", "refuse", "wake", "retry", "give_up",
               "cancel", "reopen"]
ILLEGAL = [(state, event) for state in EVERY_STATE for event in EVERY_EVENT if (state, event) not in LEGAL]


def test_there_are_no_other_states_and_events() -> None:
    assert sorted(State) == sorted(EVERY_STATE)
    assert sorted(Event) == sorted(EVERY_EVENT)
    assert len(LEGAL) == 26
    assert len(ILLEGAL) == 58


@pytest.mark.parametrize(("pair", "target"), LEGAL.items(), ids=lambda value: "-".join(value) if value else None)
def test_legal(pair: tuple[str, str], target: str) -> None:
    state, event = State(pair[0]), Event(pair[1])
    assert can(state, event)
    assert next_state(state, event) is State(target)


@pytest.mark.parametrize(("state", "event"), ILLEGAL)
def test_illegal(state: str, event: str) -> None:
    assert not can(State(state), Event(event))
    with pytest.raises(IllegalTransition, match=f"{state} cannot {event}"):
        next_state(State(state), Event(event))


@pytest.mark.parametrize(("outcome", "event"), [
    (Finish(), Event.FINISH), (More(), Event.MORE), (Later("a", "b"), Event.LATER), (NotYet("a", "b"), Event.NOT_YET),
    (Refuse("a", "b"), Event.REFUSE),
])
def test_every_outcome_of_a_step_is_an_event_of_an_active_job(
    outcome: Finish | More | Later | NotYet | Refuse, event: Event,
) -> None:
    assert outcome.event is event
    assert can(State.ACTIVE, outcome.event)


def test_only_people_end_a_job_without_delivery_and_nothing_gets_stuck() -> None:
    by_itself = {Event.CLAIM, Event.FINISH, Event.MORE, Event.LEASE_LOST, Event.LATER, Event.NOT_YET, Event.REFUSE,
                 Event.WAKE, Event.GIVE_UP}
    reached_without_people = {target for (_, event), target in TRANSITIONS.items() if event in by_itself}
    assert State.CANCELLED not in reached_without_people
    for state in State:
        assert any(start is state for start, _ in TRANSITIONS), f"nothing leads on from {state}"


@given(events=st.lists(st.sampled_from(list(Event)), max_size=40))
def test_any_history_keeps_to_the_table(events: list[Event]) -> None:
    state = State.QUEUED
    for event in events:
        before = state
        try:
            state = next_state(state, event)
        except IllegalTransition:
            assert (before, event) not in LEGAL
        else:
            assert LEGAL[before, event] == state
            assert state is not State.DONE or event is Event.FINISH
