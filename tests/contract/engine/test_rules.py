"""Rules in the engine: routing, rewriting, freezing, holding; on both databases."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Mapping
from typing import BinaryIO

import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset

from internal import catalogue, jobs, rule_rows, settings_rows
from internal import work as work_module
from internal.config import RuleText
from internal.errors import BytesMissing, ConfigurationInvalid, NotAllowed, NotFound, Transient
from internal.model import ItemState
from internal.ports import Frozen, Work
from internal.pseudonyms import open_vault
from internal.rules.edits import LookUp
from internal.settings_rows import Ground
from internal.states import Event, Finish, Later, Outcome, State

from .conftest import Engine


def rule(name: str = "one", **entries: str) -> RuleText:
    """Return a rule of router.conf."""
    return RuleText(name, entries, dict.fromkeys(entries, (7,)), "file router.conf")


class Receiver:
    """A destination that keeps what arrives; `lose` answers are lost once the bytes have left."""

    def __init__(self, lose: int = 0) -> None:
        self.files: list[bytes] = []
        self.frozen: list[Frozen] = []
        self.lose = lose

    def __call__(self, work: Work) -> Outcome:
        while items := work.items([ItemState.DUE, ItemState.SENT], 4):
            for one in work.freeze(items):
                with one.open() as body:
                    self.files.append(body.read())
                assert len(self.files[-1]) == one.size_bytes
                self.frozen.append(one)
                if self.lose:
                    self.lose -= 1
                    return Later("lost", "the answer was lost", 1)
                work.settle_items([(one.item, ItemState.STORED, {"status": 200})])
        return Finish()

    def images(self) -> list[FileDataset]:
        return [dcmread(io.BytesIO(content)) for content in self.files]


def receive_and_send(engine: Engine, study_uid: str = "1.2.3", **values: str) -> Receiver:
    receiver = Receiver()
    engine.destination.script = receiver
    engine.receive(study_uid, **values)  # type: ignore[arg-type]
    engine.settle()
    while engine.work():
        pass
    return receiver


def test_what_leaves_is_rewritten_and_what_came_stays(engine: Engine) -> None:
    engine.use_rules(rule(when="calling = CT1", do='set PatientID = "N-{PatientID}"', send_to="scripted"))
    entry = engine.receive("1.2.3", pixels=b"\7\7")
    receiver = Receiver()
    engine.destination.script = receiver
    engine.settle()
    engine.work()
    (image,) = receiver.images()
    assert (image.PatientID, image.PixelData) == ("N-P1", b"\7\7")
    assert receiver.frozen[0].header.patient_id == "N-P1"
    with engine.spool.open_entry(entry.id) as file:
        assert b"N-P1" not in file.read()
    job = engine.job()
    assert (job.state, job.rules) == (State.DONE, engine.book.in_force.revision if engine.book.in_force else "")
    with engine.store.reading() as tx:
        (item,) = jobs.items_of(tx, job.job_id, job.environment)
        routed = rule_rows.routing_of(tx, "1.2.3")
    assert (item.recipe["kind"], item.recipe["rules"]) == ("rewrite", job.rules)
    assert routed is not None
    assert (routed.destinations, routed.fired, routed.nowhere) == ({"scripted": 1}, ("one",), False)


def test_the_same_bytes_leave_at_every_attempt_even_under_other_rules_and_tables(engine: Engine) -> None:
    table = engine.root / "t.csv"
    table.write_text("P1,FIRST\n")
    engine.use_rules(rule(do="map PatientID using table t.csv", send_to="scripted"))
    receiver = Receiver(lose=1)
    engine.destination.script = receiver
    engine.receive("1.2.3")
    engine.settle()
    engine.work()
    table.write_text("P1,SECOND\nmore,lines\n")
    engine.use_rules(rule(do='set PatientID = "OTHER"', send_to="scripted"))
    engine.clock.ms += 10_000
    engine.work()
    assert len(receiver.files) == 2
    assert receiver.files[0] == receiver.files[1]
    assert receiver.images()[1].PatientID == "FIRST"
    assert engine.states() == [State.DONE]


def test_what_was_frozen_leaves_as_it_was_also_when_the_rule_is_gone_and_the_study_grew(engine: Engine) -> None:
    engine.use_rules(rule(do='set PatientID = "FIRST"', send_to="scripted"))
    receiver = Receiver(lose=1)
    engine.destination.script = receiver
    engine.receive("1.2.3", sop_uid="1.9.1")
    engine.settle()
    engine.work()
    engine.use_rules()
    engine.receive("1.2.3", sop_uid="1.9.2")
    engine.settle()
    engine.clock.ms += 10_000
    while engine.work():
        pass
    assert engine.states() == [State.DONE] and receiver.files[0] == receiver.files[1]
    assert [image.PatientID for image in receiver.images()] == ["FIRST", "FIRST", "P1"]


def test_a_rewrite_that_cannot_be_done_holds_the_study_with_the_cause_and_loses_nothing(engine: Engine) -> None:
    engine.use_rules(rule(do="set PatientID = EthnicGroup else hold", send_to="scripted"))
    receiver = receive_and_send(engine)
    assert receiver.files == []
    job = engine.job()
    assert (job.state, job.reason_code) == (State.HELD, "source-empty")
    assert "EthnicGroup is empty" in job.reason
    with engine.store.reading() as tx:
        (item,) = jobs.items_of(tx, job.job_id, job.environment)
    assert item.state is ItemState.DUE


def test_a_corrected_rule_counts_when_the_study_is_sent_again(engine: Engine) -> None:
    engine.use_rules(rule(do="set PatientID = EthnicGroup else hold", send_to="scripted"))
    receiver = receive_and_send(engine)
    assert engine.states() == [State.HELD]
    engine.use_rules(rule(do='set PatientID = "GOOD"', send_to="scripted"))
    with engine.store.transaction() as tx:
        jobs.act(tx, [1], Event.RETRY, who="dr", now=engine.clock.ms)
    assert engine.work() and engine.states() == [State.DONE]
    assert [image.PatientID for image in receiver.images()] == ["GOOD"]


def test_a_study_goes_where_the_rules_say_and_one_that_goes_nowhere_is_told(
    engine: Engine, caplog: pytest.LogCaptureFixture,
) -> None:
    engine.use_rules(rule("keeps", when="AccessionNumber = STAY", keep="yes"),
                     rule("holds", when="AccessionNumber = LOOK", hold="look at it first"))
    with caplog.at_level(logging.WARNING):
        receive_and_send(engine, "1.2.1", accession="STAY")
    receive_and_send(engine, "1.2.2", accession="LOOK")
    receiver = receive_and_send(engine, "1.2.4", accession="GO")
    assert [one.header.study_uid for one in receiver.frozen] == ["1.2.4"]
    with engine.store.reading() as tx:
        (nowhere,) = rule_rows.routed_nowhere(tx)
        events = [event.code for event in jobs.events_of(tx, "1.2.1")]
    assert (nowhere.study_uid, nowhere.kept_by) == ("1.2.1", "keeps")
    assert "routed-nowhere" in events
    assert "goes nowhere" in caplog.text
    held = engine.job(1)
    assert (held.study_uid, held.state, held.reason_code) == ("1.2.2", State.HELD, "held-by-rule")
    assert held.reason == "rule holds: look at it first"
    with engine.store.transaction() as tx:
        assert len(jobs.act(tx, [held.job_id], Event.RETRY, who="dr", now=engine.clock.ms)) == 1
    assert engine.work()
    assert engine.job(1).state is State.DONE


def test_a_filter_picks_the_instances_that_go(engine: Engine) -> None:
    engine.use_rules(rule(only='SOPInstanceUID = "1.9.1"', send_to="scripted"))
    engine.receive("1.2.3", sop_uid="1.9.1")
    receiver = receive_and_send(engine, sop_uid="1.9.2")
    assert [one.header.sop_uid for one in receiver.frozen] == ["1.9.1"]
    assert engine.job().state is State.DONE


def test_a_bad_set_leaves_the_old_one_in_force_also_after_a_start(engine: Engine) -> None:
    good = rule(do='set PatientID = "GOOD"', send_to="scripted")
    engine.use_rules(good)
    revision = engine.book.in_force.revision if engine.book.in_force else ""
    engine.use_rules(rule(do="set PatientNam = \"x\"", send_to="scripted"))
    assert engine.book.in_force is not None
    assert engine.book.in_force.revision == revision
    assert engine.book.problems[0].startswith("file router.conf line 7: [rule:one] do PatientNam is no DICOM keyword")
    assert receive_and_send(engine).images()[0].PatientID == "GOOD"


def test_without_any_usable_set_nothing_leaves_until_there_is_one(engine: Engine) -> None:
    engine.use_rules(rule(do="nonsense"))
    assert engine.book.in_force is None
    assert engine.book.problems


def put(engine: Engine, name: str, body: Mapping[str, object] | None, who: str = "dr") -> None:
    """Write a rule of the catalogue as pages, API and commands do."""
    ground = Ground(compile_rules=engine.book.compile, in_file={"rule": {"twice"}})
    with engine.store.transaction() as tx:
        settings_rows.change(tx, "rule", name, body, ground, who=who, now=engine.clock.ms)


def test_the_catalogue_has_history_and_rollback_and_refuses_what_cannot_be_used(engine: Engine) -> None:
    def body(value: str) -> dict[str, object]:
        return {"entries": {"do": f'set PatientID = "{value}"', "send_to": "scripted"}}

    book, store, now = engine.book, engine.store, engine.clock.ms
    put(engine, "web", body("ONE"))
    assert book.reload(store, now)
    assert receive_and_send(engine).images()[0].PatientID == "ONE"
    put(engine, "web", body("TWO"))
    with pytest.raises(NotAllowed, match="no DICOM keyword"):
        put(engine, "web", {"entries": {"do": 'set PatientNam = "X"', "send_to": "scripted"}})
    for wrong in ({"entries": {"do": 1}}, {"entry": {}}, {"entries": {}, "position": "x"}, {"entries": {}, "more": 1}):
        with pytest.raises(NotAllowed):
            put(engine, "web", wrong)
    with pytest.raises(NotAllowed):
        put(engine, "No Name", body("X"))
    assert book.reload(store, now)
    assert not book.reload(store, now)
    assert receive_and_send(engine, "1.2.4").images()[0].PatientID == "TWO"
    with store.transaction() as tx:
        settings_rows.rollback(tx, "rule", "web", 1, Ground(compile_rules=book.compile), who="boss", now=now)
    book.reload(store, now)
    assert receive_and_send(engine, "1.2.5").images()[0].PatientID == "ONE"
    with store.reading() as tx:
        changes = catalogue.history(tx, rule_rows.KIND, "web")
    assert [(change.revision, change.author, change.restores) for change in changes] == [
        (3, "boss", 1), (2, "dr", None), (1, "dr", None)]
    put(engine, "web", None)
    book.reload(store, now)
    assert receive_and_send(engine, "1.2.6").images()[0].PatientID == "P1"


def test_a_busy_database_does_not_keep_a_new_set_from_coming_into_force(
    engine: Engine, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def busy(*_: object) -> None:
        raise Transient("the database is busy")

    put(engine, "web", {"entries": {"do": 'set PatientID = "NEW"', "send_to": "scripted"}})
    with monkeypatch.context() as patch, pytest.raises(Transient):
        patch.setattr(rule_rows, "keep_set", busy)
        engine.book.reload(engine.store, engine.clock.ms)
    assert engine.book.reload(engine.store, engine.clock.ms)
    assert receive_and_send(engine).images()[0].PatientID == "NEW"


@pytest.mark.parametrize("fault", [BytesMissing(), OSError(5, "Input/output error")])
def test_a_file_that_a_rule_cannot_read_holds_or_delays_its_study_only(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, fault: Exception,
) -> None:
    engine.use_rules(rule(when="EthnicGroup missing", send_to="scripted"))
    bad = engine.receive("1.2.1")
    engine.receive("1.2.2")
    real = engine.spool.open_entry

    def open_entry(entry_id: str) -> BinaryIO:
        if entry_id == bad.id:
            raise fault
        return real(entry_id)

    engine.index()
    monkeypatch.setattr(engine.spool, "open_entry", open_entry)
    engine.settle()
    with engine.store.reading() as tx:
        found = {job.study_uid: (job.state, job.reason_code) for job in jobs.list_jobs(tx)}
    assert found.pop("1.2.2") == (State.QUEUED, "")
    assert found == ({} if isinstance(fault, OSError) else {"1.2.1": (State.HELD, "routing-failed")})
    monkeypatch.setattr(engine.spool, "open_entry", real)
    engine.settle()
    assert len(engine.states()) == 2


def test_the_same_name_in_file_and_catalogue_is_an_error(engine: Engine) -> None:
    with pytest.raises(NotAllowed, match=r"stands in router\.conf"):
        put(engine, "twice", {"entries": {"keep": "yes"}})
    engine.use_rules(rule("both", keep="yes"))
    with pytest.raises(NotAllowed, match="second time"):
        put(engine, "both", {"entries": {"keep": "yes"}})


def test_look_ups_are_kept_in_the_recipe_and_a_dead_service_only_delays(engine: Engine) -> None:
    asked: list[str] = []
    answers: Mapping[str, str] = {"P1": "NIK1"}

    def find(source: LookUp, key: str) -> str | None:
        asked.append(key)
        if len(asked) == 1:
            raise Transient("look-up nik cannot be reached", code="lookup-connect", retry_after_s=1, blame_lane=False)
        return answers.get(key)

    engine.use_rules(rule(do="map PatientID using lookup nik else hold", send_to="scripted"), lookups=("nik",),
                     look_up=find)
    receiver = Receiver(lose=1)
    engine.destination.script = receiver
    engine.receive("1.2.3")
    engine.settle()
    engine.work()
    assert (engine.job().state, engine.job().reason_code) == (State.DEFERRED, "lookup-connect")
    for _ in range(2):
        engine.clock.ms += 10_000
        engine.work()
    assert engine.states() == [State.DONE]
    assert [image.PatientID for image in receiver.images()] == ["NIK1", "NIK1"]
    assert asked == ["P1", "P1"]  # the third attempt took it from the recipe


def test_a_pseudonym_leads_back_to_its_patient_with_the_key_alone(engine: Engine) -> None:
    engine.use_rules(rule(do="deidentify accept burned-in", send_to="scripted"))
    receiver = receive_and_send(engine)
    (image,) = receiver.images()
    assert image.PatientID.startswith("P")
    assert image.PatientID != "P1"
    assert receiver.frozen[0].header.sop_uid == image.SOPInstanceUID != receiver.frozen[0].item.instance.header.sop_uid
    with engine.store.reading() as tx:
        sealed = rule_rows.sealed_original(tx, image.PatientID)
    assert sealed is not None
    assert b"P1" not in base64.urlsafe_b64decode(sealed[1])
    vault = engine.book.vault
    with engine.store.reading() as tx:
        assert vault.reveal(tx, image.PatientID) == "P1"
        with pytest.raises(ConfigurationInvalid, match="another key"):
            open_vault("k" * 40, engine.root).reveal(tx, image.PatientID)
        with pytest.raises(NotFound):
            vault.reveal(tx, "PNOBODY")
    assert (engine.root / "pseudonym.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("kept_bytes", [0, 3_000, 1_000_000])
def test_what_was_made_while_rehearsing_leaves_as_if_it_were_made_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, kept_bytes: int,
) -> None:
    monkeypatch.setattr(work_module, "_FORMS_BYTES", kept_bytes)
    engine.use_rules(rule(when="StationName missing", do='set PatientID = "N-{PatientID}"', send_to="scripted"))
    receiver = Receiver(lose=1)
    engine.destination.script = lambda work: (work.rehearse(), receiver(work))[1]
    for number in range(5):
        engine.receive("1.2.3", sop_uid=f"1.9.{number}", pixels=bytes([number, 0]))
    engine.settle()
    assert engine.work()
    engine.clock.ms += 60_000
    while engine.work():
        pass
    assert engine.states() == [State.DONE]
    assert {(image.SOPInstanceUID, image.PatientID, image.PixelData[0]) for image in receiver.images()} == {
        (f"1.9.{number}", "N-P1", number) for number in range(5)}
    assert receiver.files[0] == receiver.files[1], "what was sent before and never answered leaves as it was"
