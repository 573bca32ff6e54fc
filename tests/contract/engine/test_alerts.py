"""Alerts from the condition to the person: raised once, told over real channels, reminded, known, over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from interface.alerts import Alerts, AlertsOptions
from interface.mail import MailOptions
from internal import alerts, conditions, jobs, lanes, notices, set_aside
from internal.alerts import Alert, Condition
from internal.conditions import Limits, Vitals
from internal.config import AlertSettings
from internal.config.values import Secret
from internal.states import State
from internal.watcher import Rule, Watcher
from internal.worker import Lane
from tests.contract.destinations.hospital import Hospital
from tests.contract.destinations.mail_server import MailServer
from tests.contract.engine.conftest import Engine

HOUR, DAY = 3_600_000, 86_400_000
WIB = ZoneInfo("Asia/Jakarta")
REPEAT = 12 * HOUR
PATIENT = "P1"


@pytest.fixture
def hospital() -> Iterator[Hospital]:
    made = Hospital()
    yield made
    made.close()


@pytest.fixture
def mail() -> Iterator[MailServer]:
    made = MailServer("none")
    yield made
    made.close()


class Watch:
    """A watcher and the lane that tells, driven by hand."""

    def __init__(self, engine: Engine, url: str, mail_port: int, conditions: tuple[Condition, ...]) -> None:
        self.engine = engine
        self.free_bytes, self.offset_s = 100 * 10**9, 0
        self.settings = AlertSettings(
            mail_to=("it@rs.example",) if mail_port else (), webhook_url=Secret(url) if url else Secret(),
            webhook_body=Secret('{"chat": 7, "text": "{title}|{condition}|{subject}|{news}"}'),
            webhook_authorization=Secret("Bearer geheim-77"))
        channels = (("mail",) if mail_port else ()) + (("webhook",) if url else ())
        self.told = Alerts(AlertsOptions(
            rules={"jaga": self.settings}, language="en", zone=WIB, timeout_s=5,
            mail=MailOptions(host="127.0.0.1", port=mail_port, security="none", sender="r@rs.example") if mail_port
            else None))
        self.lane = Lane(self.told, engine.store, engine.spool, engine.clock, engine.policy, jitter=lambda: 0.5)
        self.watcher = Watcher(engine.store, engine.clock, [Rule("jaga", conditions, Limits(), channels, REPEAT)],
                               self.vitals)

    def vitals(self) -> Vitals:
        return Vitals("node", self.free_bytes, 2 * 10**9, WIB, {"satusehat": self.offset_s} if self.offset_s else {})

    def look(self, later_ms: int = 60_000) -> int:
        """Let time pass, look, and tell what there is to tell."""
        self.engine.clock.ms += later_ms
        changed = self.watcher.run_once()
        while self.lane._once():
            pass
        return changed

    def open(self) -> list[Alert]:
        with self.engine.store.reading() as tx:
            return alerts.open_alerts(tx)

    def down(self, code: str = "connect") -> None:
        with self.engine.store.transaction() as tx:
            now = self.engine.clock.ms
            lanes.pause_lane(tx, "satusehat", now + HOUR, code, "no answer", now)

    def up(self) -> None:
        with self.engine.store.transaction() as tx:
            lanes.resume_lane(tx, "satusehat", self.engine.clock.ms)


def bodies(hospital: Hospital) -> list[dict[str, Any]]:
    return [json.loads(body) for _, body in hospital.told]


def test_a_lane_that_is_down_is_told_once_then_again_then_over(engine: Engine, hospital: Hospital) -> None:
    watch = Watch(engine, f"{hospital.url}/bot/sendMessage", 0, (Condition.LANE_DOWN,))
    watch.down()
    assert watch.look(10 * 60_000) == 0 and not watch.open()  # not for long enough
    assert watch.look(6 * 60_000) == 1
    watch.down()  # the breaker again
    assert watch.look() == 0 and len(bodies(hospital)) == 1
    assert bodies(hospital)[0] == {
        "chat": 7, "text": "ALERT: destination satusehat does not answer|lane-down|satusehat|raised"}
    assert hospital.told[0][0]["Authorization"] == "Bearer geheim-77"
    assert watch.look(REPEAT) == 1 and bodies(hospital)[-1]["text"].endswith("|again")
    watch.up()
    assert watch.look() == 1 and bodies(hospital)[-1]["text"].endswith("|cleared")
    assert not watch.open() and watch.look() == 0 and len(bodies(hospital)) == 3


def test_what_flaps_is_not_told_each_time(engine: Engine, hospital: Hospital) -> None:
    watch = Watch(engine, hospital.url, 0, (Condition.LANE_DOWN,))
    for _ in range(5):
        watch.down()
        watch.look(20 * 60_000)
        watch.up()
        watch.look()
    assert [body["text"].rpartition("|")[2] for body in bodies(hospital)] == ["raised", "cleared"]
    watch.down()
    watch.look(20 * 60_000)
    watch.look(REPEAT)
    assert bodies(hospital)[-1]["text"].endswith("|raised")


def test_whoever_knows_is_not_reminded_but_told_when_it_is_over(engine: Engine, hospital: Hospital) -> None:
    watch = Watch(engine, hospital.url, 0, (Condition.CREDENTIALS, Condition.LANE_DOWN))
    watch.down("credentials-refused")
    watch.look()
    one, = watch.open()
    assert one.condition is Condition.CREDENTIALS
    with engine.store.transaction() as tx:
        alerts.acknowledge(tx, one.alert_id, who="user:sari", now=engine.clock.ms)
    watch.look(3 * REPEAT)
    assert len(bodies(hospital)) == 1
    watch.up()
    watch.look()
    assert bodies(hospital)[-1]["text"].endswith("|cleared")


def test_a_receiver_that_is_down_loses_nothing_and_holds_up_nobody(
    engine: Engine, hospital: Hospital, mail: MailServer,
) -> None:
    watch = Watch(engine, hospital.url, mail.port, (Condition.LANE_DOWN,))
    hospital.statuses += [503, 503]
    watch.down()
    watch.look(20 * 60_000)
    assert len(mail.taken) == 1 and len(hospital.told) == 1
    watch.look(REPEAT // 2)
    watch.look(REPEAT // 2 - 60_000 * 30)
    assert len(hospital.told) == 3 and len(mail.taken) == 1
    with engine.store.reading() as tx:
        assert {row.state for row in jobs.list_jobs(tx) if row.kind == "alert"} == {State.DONE}
        assert not jobs.lane(tx, alerts.LANE).failures


def test_news_during_a_step_are_told_after_it(engine: Engine, hospital: Hospital) -> None:
    watch = Watch(engine, hospital.url, 0, (Condition.LANE_DOWN,))
    watch.down()
    engine.clock.ms += 20 * 60_000
    watch.watcher.run_once()
    job = watch.lane._take()
    assert job is not None
    watch.up()
    engine.clock.ms += 60_000
    watch.watcher.run_once()  # the alert is over while the first message is on its way
    watch.lane._advance(job, follow=False)
    engine.assembler.run_once(engine.clock.ms)  # a job without a study is none of its business
    with engine.store.transaction() as tx:
        assert notices.reopen_behind(tx, alerts.LANE, engine.clock.ms, kind=alerts.KIND) == 1
    while watch.lane._once():
        pass
    assert [body["text"].rpartition("|")[2] for body in bodies(hospital)] == ["raised", "cleared"]


def test_no_message_names_a_patient_and_a_hostile_title_is_harmless(engine: Engine, mail: MailServer) -> None:
    engine.receive("1.2.3", accession="A1")
    engine.settle()
    with engine.store.transaction() as tx:
        tx.execute("UPDATE job SET state = 'waiting', waiting_since = ? WHERE kind = 'deliver'",
                   (engine.clock.ms - 2 * DAY,))
    watch = Watch(engine, "", mail.port, (Condition.WAITING,))
    watch.look()
    text = mail.taken[0].content.decode()
    assert "1 studies wait" in text and PATIENT not in text and "1.2.3" not in text
    with engine.store.transaction() as tx:
        alerts.raise_alert(tx, "jaga", alerts.Finding(Condition.DEVICE_SILENT, "X\r\nBcc: a@b\u202e"), quiet_ms=0,
                           channels=("mail",), now=engine.clock.ms)
    while watch.lane._once():
        pass
    assert b"\nBcc:" not in mail.taken[1].content and "\u202e" not in mail.taken[1].content.decode()


# --- conditions ----------------------------------------------------------------------------------------------------

def monday(engine: Engine) -> int:
    """Return a Monday 00:00 in Jakarta, at least ten weeks after the epoch of the test's clock."""
    day = engine.clock.ms // DAY * DAY - 7 * HOUR
    return day + ((4 - (day // DAY + 1)) % 7) * DAY + 70 * DAY


def came(engine: Engine, hours: list[int], aet: str = "CT1") -> None:
    with engine.store.transaction() as tx:
        tx.executemany("INSERT INTO tally (hour_at, calling_aet, modality, instances, size_bytes)"
                       " VALUES (?, ?, 'CT', 1, 1)", [(at, aet) for at in hours])


def found(engine: Engine, watch: Watch, condition: Condition, now: int) -> list[conditions.Finding]:
    with engine.store.reading() as tx:
        return conditions.find(tx, condition, Limits(), watch.vitals(), now)


def test_a_device_is_silent_only_in_its_own_hours(engine: Engine) -> None:
    """It works Monday to Friday from 8 to 15; nights and weekends are no silence."""
    watch = Watch(engine, "", 0, ())
    start = monday(engine)
    hours = [start + week * 7 * DAY + day * DAY + hour * HOUR for week in range(4) for day in range(5)
             for hour in range(8, 15)]
    came(engine, hours)
    came(engine, hours[:5], aet="NEW1")  # known for less than two weeks: nothing is usual
    last_friday = start + 3 * 7 * DAY + 4 * DAY
    for now, silent in ((last_friday + 20 * HOUR, False), (last_friday + 2 * DAY + 12 * HOUR, False),
                        (start + 28 * DAY + 11 * HOUR, False), (start + 28 * DAY + 12 * HOUR + 1, True)):
        names = [one.subject for one in found(engine, watch, Condition.DEVICE_SILENT, now)]
        assert names == (["CT1"] if silent else []), now


def test_the_disk_is_forecast_by_how_it_filled(engine: Engine) -> None:
    watch = Watch(engine, "", 0, (Condition.DISK,))
    watch.look()
    watch.free_bytes -= 10 * 10**9
    assert watch.look(2 * HOUR) == 0  # two hours say nothing about a week
    watch.free_bytes = 62 * 10**9
    watch.look(22 * HOUR)  # 38 GB in a day, 60 GB left above the minimum
    one, = watch.open()
    assert one.detail == {"days": 1, "free_gb": 62}
    watch.free_bytes = 100 * 10**9
    watch.look(HOUR)
    assert not watch.open()
    watch.free_bytes = 10**9
    watch.look()
    assert watch.open()[0].detail["days"] == 0


def test_a_clock_that_is_off_and_one_that_is_right(engine: Engine) -> None:
    watch = Watch(engine, "", 0, (Condition.CLOCK,))
    watch.offset_s = 45
    assert watch.look() == 0
    watch.offset_s = -3600
    watch.look()
    assert watch.open()[0].detail == {"seconds": -3600}


def test_files_that_were_set_aside_in_the_last_day(engine: Engine) -> None:
    watch = Watch(engine, "", 0, (Condition.SET_ASIDE,))
    assert watch.look() == 0
    first_at = engine.clock.ms
    with engine.store.transaction() as tx:
        set_aside.note_bad(tx, "f-1", "no mark", first_at)
        set_aside.note_bad(tx, "f-2", "no mark", first_at + HOUR, study_uid="1.2.3")
    watch.look()
    assert watch.open()[0].detail == {"files": 2, "since": first_at}
    with engine.store.transaction() as tx:
        set_aside.accept_missing(tx, "1.2.3", engine.clock.ms)
    watch.look()
    assert watch.open()[0].detail == {"files": 1, "since": first_at}
    watch.look(DAY)
    assert not watch.open()


def test_an_alert_of_a_rule_that_is_gone_goes_too(engine: Engine) -> None:
    watch = Watch(engine, "", 0, (Condition.CLOCK,))
    watch.offset_s = 3600
    watch.look()
    watch.watcher = Watcher(engine.store, engine.clock, [], watch.vitals)
    watch.look()
    assert not watch.open()
