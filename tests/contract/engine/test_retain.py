"""Retention on both engines: only confirmed bytes go, in two steps; rows and receipts stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from internal import decisions, holdings, index, jobs
from internal.decisions import Kind
from internal.errors import BytesMissing
from internal.model import ItemState
from internal.ports import Work
from internal.retain import Retainer, RetentionPolicy
from internal.states import Event, Finish, Outcome, Refuse, State
from tests.contract.engine.conftest import Engine, deliver_all

STUDY = "1.2.826.0.1.4"
DAY = 86_400_000


def retainer(engine: Engine, *, free: int = 1 << 50, **changes: object) -> Retainer:
    policy = RetentionPolicy(low_space_bytes=1000, **changes)  # type: ignore[arg-type]
    return Retainer(engine.store, engine.spool, engine.clock, policy, lambda: free)


def files(engine: Engine, root: Path) -> int:
    return len(list((root / "spool" / "cur").rglob("*.dcm"))) or len(
        [one for one in (root / "spool" / "cur").rglob("*") if one.is_file()])


def passes(engine: Engine, keeper: Retainer, count: int = 3) -> int:
    removed = 0
    for _ in range(count):
        removed += keeper.run_once()
        engine.clock.ms += 61_000
    return removed


def delivered(engine: Engine, images: int = 3) -> None:
    for _ in range(images):
        engine.receive(STUDY)
    engine.settle()
    while engine.work():
        pass


def test_confirmed_and_old_enough_goes_and_rows_stay(engine: Engine, tmp_path: Path) -> None:
    delivered(engine)
    assert files(engine, tmp_path) == 3
    assert passes(engine, retainer(engine)) == 0
    engine.clock.ms += 31 * DAY
    assert passes(engine, retainer(engine)) == 3
    assert files(engine, tmp_path) == 0
    with engine.store.reading() as tx:
        held = index.inventory(tx, STUDY)
        assert len(held.instances) == 3 and all(one.purged_at for one in held.instances)
        assert jobs.count_items(tx, jobs.job(tx, 1)) == {ItemState.STORED: 3}
        assert [e.code for e in jobs.events_of(tx, STUDY)].count("purged") == 1
        with pytest.raises(BytesMissing):
            engine.spool.open_entry(held.instances[0].id)
    assert passes(engine, retainer(engine)) == 0


def test_two_steps_leave_a_reader_its_file(engine: Engine, tmp_path: Path) -> None:
    delivered(engine)
    engine.clock.ms += 31 * DAY
    keeper = retainer(engine)
    keeper.run_once()
    assert files(engine, tmp_path) == 3
    keeper.run_once()
    assert files(engine, tmp_path) == 3
    engine.clock.ms += 61_000
    assert keeper.run_once() == 3


def test_what_a_modality_was_promised_stays_for_commit_keep_and_until_it_is_confirmed(engine: Engine) -> None:
    delivered(engine)
    with engine.store.transaction() as tx:
        tx.execute("UPDATE instance SET committed_at = ? WHERE id IN (SELECT MIN(id) FROM instance)",
                   (engine.clock.ms + 20 * DAY,))
    engine.clock.ms += 31 * DAY
    keeper = retainer(engine, commit_keep_ms=90 * DAY, free=0)  # a full disk changes nothing of a promise
    assert passes(engine, keeper) == 2
    engine.clock.ms += 78 * DAY
    assert passes(engine, keeper) == 0
    engine.clock.ms += 2 * DAY
    assert passes(engine, keeper) == 1


def test_what_was_promised_stays_past_commit_keep_while_it_is_not_delivered(engine: Engine, tmp_path: Path) -> None:
    engine.destination.script = _refuse
    delivered(engine)
    with engine.store.transaction() as tx:
        tx.execute("UPDATE instance SET committed_at = ?", (engine.clock.ms,))
    engine.clock.ms += 4000 * DAY
    assert passes(engine, retainer(engine, commit_keep_ms=DAY, free=0)) == 0
    assert files(engine, tmp_path) == 3


def _refuse(_work: Work) -> Outcome:
    return Refuse("several-orders", "two")


def _unverified(work: Work) -> Outcome:
    items = work.items([ItemState.DUE], 10)
    work.settle_items([(f.item, ItemState.UNVERIFIED, {}) for f in work.freeze(items)])
    return Finish()


def test_what_is_not_confirmed_stays_for_ever(engine: Engine, tmp_path: Path) -> None:
    engine.destination.script = _refuse
    delivered(engine)
    engine.clock.ms += 4000 * DAY
    assert passes(engine, retainer(engine, free=0)) == 0
    assert files(engine, tmp_path) == 3


@pytest.mark.parametrize(("counts", "removed"), [(False, 0), (True, 3)])
def test_unverified_counts_only_where_the_hospital_says_so(engine: Engine, counts: bool, removed: int) -> None:
    engine.destination.script = _unverified
    delivered(engine)
    engine.clock.ms += 31 * DAY
    assert passes(engine, retainer(engine, unverified_counts=counts)) == removed
    with engine.store.reading() as tx:
        assert [share.why for share in holdings.shares(tx)] == ([] if removed else ["delivered/not-proven"])


def test_a_late_image_keeps_the_whole_study(engine: Engine) -> None:
    delivered(engine)
    engine.clock.ms += 31 * DAY
    engine.receive(STUDY)
    engine.index()
    engine.clock.ms += 31 * DAY
    assert passes(engine, retainer(engine)) == 0


def test_a_second_destination_that_has_not_got_it_keeps_it(engine: Engine) -> None:
    delivered(engine)
    with engine.store.transaction() as tx:
        held = index.inventory(tx, STUDY)
        jobs.plan(tx, kind="deliver", destination="folder", environment="f", study_uid=STUDY, part="",
                  instances=held.instances, settled_revision=held.revision, now=1, due_at=1)
    engine.clock.ms += 31 * DAY
    assert passes(engine, retainer(engine, free=0)) == 0


def test_a_person_who_sends_again_between_the_steps_keeps_the_bytes(engine: Engine, tmp_path: Path) -> None:
    delivered(engine)
    engine.clock.ms += 31 * DAY
    keeper = retainer(engine)
    keeper.run_once()
    with engine.store.transaction() as tx:
        jobs.act(tx, [1], Event.REOPEN, who="t", now=engine.clock.ms, environment="env-2")
    assert passes(engine, keeper) == 0
    assert files(engine, tmp_path) == 3
    with engine.store.reading() as tx:
        assert tx.value("SELECT COUNT(*) FROM instance WHERE purging_at IS NOT NULL") == 0


def test_disk_pressure_takes_confirmed_ones_early(engine: Engine) -> None:
    delivered(engine)
    assert passes(engine, retainer(engine)) == 0
    assert passes(engine, retainer(engine, free=0)) == 3


def test_purge_never_keeps_everything(engine: Engine) -> None:
    delivered(engine)
    engine.clock.ms += 4000 * DAY
    assert passes(engine, retainer(engine, free=0, purge=False)) == 0


def test_the_same_bytes_that_came_twice_go_together(engine: Engine, tmp_path: Path) -> None:
    engine.receive(STUDY, sop_uid="1.2.3.4")
    engine.receive(STUDY, sop_uid="1.2.3.4")
    delivered(engine, 1)
    assert files(engine, tmp_path) == 3
    engine.clock.ms += 31 * DAY
    passes(engine, retainer(engine))
    assert files(engine, tmp_path) == 0


def test_a_crash_after_the_unlink_is_repeated_without_harm(engine: Engine) -> None:
    delivered(engine)
    engine.clock.ms += 31 * DAY
    keeper = retainer(engine)
    keeper.run_once()
    engine.clock.ms += 61_000
    with engine.store.reading() as tx:
        going = holdings.purging(tx, keeper._rules(), engine.spool.node, engine.clock.ms, 10)
    assert len(going) == 3
    engine.spool.remove([id_ for id_, _, _ in going])
    assert keeper.run_once() == 3


def _discarded(engine: Engine) -> None:
    engine.destination.script = _refuse
    delivered(engine)
    with engine.store.transaction() as tx:
        jobs.act(tx, [1], Event.CANCEL, who="t", now=engine.clock.ms)
        decisions.decide(tx, Kind.DISCARD, STUDY, body={}, reason="phantom", who="t", now=engine.clock.ms, text="gone")


def test_discarded_bytes_go_after_thirty_days(engine: Engine, tmp_path: Path) -> None:
    _discarded(engine)
    engine.clock.ms += 29 * DAY
    assert passes(engine, retainer(engine, purge=False)) == 0
    engine.clock.ms += 2 * DAY
    assert passes(engine, retainer(engine, purge=False)) == 3
    assert files(engine, tmp_path) == 0


def test_a_late_image_of_a_discarded_study_is_kept_and_not_sent(engine: Engine, tmp_path: Path) -> None:
    _discarded(engine)
    engine.clock.ms += DAY
    engine.receive(STUDY)
    engine.settle()
    assert engine.states() == [State.CANCELLED]
    engine.clock.ms += 31 * DAY
    assert passes(engine, retainer(engine)) == 3
    assert files(engine, tmp_path) == 1


def test_discard_that_was_undone_keeps_everything(engine: Engine) -> None:
    _discarded(engine)
    with engine.store.transaction() as tx:
        assert decisions.revoke(tx, Kind.DISCARD, STUDY, now=engine.clock.ms)
    engine.clock.ms += 31 * DAY
    assert passes(engine, retainer(engine)) == 0


def test_shares_say_what_bytes_are_kept_for(engine: Engine) -> None:
    engine.destination.script = _refuse
    delivered(engine, 2)
    engine.destination.script = deliver_all
    engine.receive("1.2.826.0.1.5")
    engine.settle()
    engine.work()
    with engine.store.reading() as tx:
        shares = {share.why: share.instances for share in holdings.shares(tx)}
    assert shares == {"held/several-orders": 2, "delivered": 1}
