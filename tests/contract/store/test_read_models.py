"""What pages ask: today's figures, searching, lists of what is open, the story of one study; on both engines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internal import jobs, overview, study_list, tally, timeline
from internal.model import ItemState
from internal.overview import HOUR_MS, outcome_of
from internal.states import Finish, NotYet, Outcome, Refuse, State
from internal.store import Store
from internal.study_list import Search
from internal.study_terms import TermKind, words
from internal.timeline import Progress, Stage
from tests.contract.store.samples import LANE, STAGING, add, claim, instance, settle_study

NOON = 1_800_000_000_000 - 1_800_000_000_000 % HOUR_MS


def receive(store: Store, number: int, **options: object) -> str:
    uid = f"2.25.{number}"
    header = {"patient_name": "SANTOSO^BUDI", "patient_id": f"RM{number}", "study_date": "20270115", "modality": "CT"}
    add(store, instance(1, study=uid, part=f"ACC{number}", at=NOON + number * 1000, **{**header, **options}))  # type: ignore[arg-type]
    return uid


def end(store: Store, number: int, outcome: Outcome | None, **options: object) -> str:
    """Receive, settle and deliver a study up to this outcome (None: only queued)."""
    uid = receive(store, number, **options)
    settle_study(store, uid, part=f"ACC{number}", now=NOON + number * 1000)
    if outcome is None:
        return uid
    job = claim(store, now=NOON + 10**6)
    assert job is not None and job.study_uid == uid
    with store.transaction() as tx:
        if isinstance(outcome, Finish):
            for one in jobs.items(tx, job, list(ItemState), 100):
                (sent,) = jobs.mark_sent(tx, job, [(one, "sha", 10, {})])
                jobs.settle_items(tx, job, [(sent, ItemState.STORED, {})])
        jobs.settle(tx, job, outcome, now=NOON + 2 * 10**6, due_at=NOON + 10**9)
    return uid


def found(store: Store, **search: str) -> list[str]:
    with store.reading() as tx:
        return [one.study_uid for one in study_list.find(tx, Search(**search)).studies]


def test_today_says_what_came_and_what_became_of_it(store: Store) -> None:
    end(store, 1, Finish())
    end(store, 2, NotYet("no-order", "none"))
    end(store, 3, Refuse("patient-mismatch", "other"), modality="MR")
    end(store, 4, None)
    receive(store, 5)
    with store.reading() as tx:
        day = overview.day(tx, NOON)
        causes = overview.causes(tx)
        assert overview.count_receiving(tx) == 1
        assert overview.day(tx, NOON + HOUR_MS).total.total == 0
    assert (day.total.delivered, day.total.moving, day.total.waiting, day.total.held) == (1, 2, 1, 1)
    assert day.total.total == 5
    assert {name: share.total for name, share in day.modalities.items()} == {"CT": 4, "MR": 1}
    assert {at: share.total for at, share in day.hours.items()} == {NOON: 5}
    assert day.delivered_jobs == 1
    assert {(one.state, one.reason_code, one.jobs) for one in causes} == {
        (State.WAITING, "no-order", 1), (State.HELD, "patient-mismatch", 1), (State.QUEUED, "", 1)}


def test_arrivals_are_counted_by_hour_caller_and_modality(store: Store) -> None:
    receive(store, 1)
    receive(store, 2)
    receive(store, 1)  # the same bytes again are no new image
    receive(store, 3, modality="MR")
    with store.reading() as tx:
        counts = tally.counts_since(tx, NOON)
        assert [(one.hour_at, one.calling_aet, one.modality, one.instances, one.size_bytes) for one in counts] == [
            (NOON, "CT1", "CT", 2, 2002), (NOON, "CT1", "MR", 1, 1001)]
        assert overview.forecast(tx, 30_030, NOON + HOUR_MS).days == 10
        assert overview.forecast(tx, 30_030, NOON + 48 * HOUR_MS).days is None


@pytest.mark.parametrize("search", [
    {"text": "2.25.7"}, {"text": " ACC7 "}, {"text": "rm7"}, {"text": "wibo"}, {"text": "wib sri"},
    {"text": "Wíbowo, SRI"}, {"modality": "MG"}, {"text": "wib", "modality": "MG", "caller": "CT1", "state": "queued"},
    {"state": "queued", "modality": "MG"}, {"first_day": "20270120"}, {"caller": "CT1", "first_day": "20270120"},
    {"last_day": "20270120", "first_day": "20270120", "modality": "MG"},
])
def test_a_study_is_found_by(store: Store, search: dict[str, str]) -> None:
    end(store, 7, None, patient_name="WIBOWO^SRI", modality="MG", study_date="20270120")
    for number in (1, 2):
        receive(store, number)
    assert found(store, **search) == ["2.25.7"]


@pytest.mark.parametrize("search", [
    {"text": "owo"}, {"text": "wib budi"}, {"text": "ACC"}, {"text": "rm"}, {"text": "w"}, {"modality": "M"},
    {"caller": "CT"}, {"state": "held"}, {"last_day": "20270119", "text": "wib"}, {"state": "receiving", "text": "wib"},
    {"text": "%"}, {"text": "'"}, {"text": "\0"},
])
def test_what_does_not_fit_is_not_found(store: Store, search: dict[str, str]) -> None:
    end(store, 7, None, patient_name="WIBOWO^SRI", modality="MG", study_date="20270120")
    assert found(store, **search) == []


@pytest.mark.parametrize("search", [{}, {"text": "budi"}, {"modality": "CT"}, {"caller": "CT1"}, {"state": "receiving"},
                                    {"first_day": "20270101"}])
def test_pages_follow_each_other_without_gap_or_repetition(store: Store, search: dict[str, str]) -> None:
    uids = [receive(store, number) for number in range(1, 8)]
    seen: list[str] = []
    after = ""
    while True:
        with store.reading() as tx:
            page = study_list.find(tx, Search(**search), after, limit=3)
        seen += [one.study_uid for one in page.studies]
        after = page.after
        if not after:
            break
    assert seen == uids[::-1]


def test_open_jobs_come_longest_first_by_page_and_reason(store: Store) -> None:
    for number in (1, 2, 3):
        end(store, number, NotYet("no-order", "none", retry_after_s=60))
    end(store, 4, Refuse("several-orders", "two"))
    with store.reading() as tx:
        first, after = study_list.open_jobs(tx, [State.WAITING, State.HELD], limit=2)
        second, end_of = study_list.open_jobs(tx, [State.WAITING, State.HELD], after=after, limit=2)
        orders, _ = study_list.open_jobs(tx, [State.WAITING, State.HELD], reason_code="several-orders")
        none, _ = study_list.open_jobs(tx, [State.HELD], destination="elsewhere")
    assert [one.part for one in first + second] == ["ACC1", "ACC2", "ACC3", "ACC4"]
    assert end_of == ""
    assert [(one.part, one.study and one.study.patient_name) for one in orders] == [("ACC4", "SANTOSO^BUDI")]
    assert none == []


def test_a_cursor_that_is_none_is_refused(store: Store) -> None:
    with store.reading() as tx, pytest.raises(ValueError):
        study_list.find(tx, Search(), "x")
    with store.reading() as tx, pytest.raises(ValueError):
        study_list.open_jobs(tx, [State.HELD], after="1-x")


def test_the_story_of_a_study(store: Store) -> None:
    uid = end(store, 1, NotYet("no-order", "none"))
    with store.reading() as tx:
        story = timeline.story(tx, uid, LANE)
        assert timeline.story(tx, "2.25.404", LANE) is None
    assert story is not None
    assert (story.study.outcome, story.study.accession_numbers, story.is_settled) == ("waiting", ("ACC1",), True)
    (course,) = story.courses
    assert [(one.stage, one.progress) for one in course.steps] == [
        (Stage.RECEIVED, Progress.DONE), (Stage.ORDER, Progress.BLOCKED), (Stage.REGISTERED, Progress.TODO),
        (Stage.SENT, Progress.TODO), (Stage.CONFIRMED, Progress.TODO)]
    assert course.steps[0].at == NOON + 1000
    assert (course.arrived, course.total, course.job.environment) == (0, 1, STAGING)
    assert [event.code for event in story.events] == ["job-planned", "job-waiting"]
    assert [one.instances for one in story.series] == [1]


def test_a_finished_story_has_every_stage(store: Store) -> None:
    uid = end(store, 1, Finish())
    with store.reading() as tx:
        platform, folder = timeline.story(tx, uid, LANE), timeline.story(tx, uid, "another")
    assert platform is not None and folder is not None
    assert {one.progress for one in platform.courses[0].steps} == {Progress.DONE}
    assert [one.stage for one in folder.courses[0].steps] == [Stage.RECEIVED, Stage.SENT, Stage.CONFIRMED]


@pytest.mark.parametrize(("states", "receiving", "outcome"), [
    ([], False, "nowhere"), ([], True, "receiving"), (["done"], False, "done"), (["done"], True, "receiving"),
    (["done", "held"], True, "held"), (["cancelled", "done"], False, "done"), (["waiting", "active"], False, "waiting"),
])
def test_one_word_for_a_study(states: list[str], receiving: bool, outcome: str) -> None:
    assert outcome_of(states, receiving=receiving) == outcome


@given(st.text(max_size=300))
def test_words_of_any_name_are_bounded(name: str) -> None:
    found = words(name)
    assert len(found) <= 8
    assert all(0 < len(word) <= 64 and word == word.strip() for word in found)


def test_terms_are_offered_in_order(store: Store) -> None:
    for number, modality in enumerate(("US", "CT", "MR", "CT"), start=1):
        receive(store, number, modality=modality)
    with store.reading() as tx:
        assert study_list.terms_of_kind(tx, TermKind.MODALITY) == ["CT", "MR", "US"]
        assert study_list.terms_of_kind(tx, TermKind.MODALITY, limit=2) == ["CT", "MR"]
