"""C-STORE as a peer sees it: what is kept, what is refused with which status, and what is written down."""

from __future__ import annotations

import io
import itertools
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from interface.http.health import STALE_AFTER_MS
from internal.dicomfile import read_meta
from tests.contract.dimse.role import Footprint, Role, until
from tests.contract.dimse.wire import (
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Wire,
    command,
    context,
    data_set,
    element,
    explicit,
    p_data,
    pdu,
    pdv,
)

AT_ONCE_S = 2

_numbers = itertools.count(1)

#: A child looks every two seconds whether there is anything new to say, and has nothing.
NOT_WITHIN_MS = 4000


def fresh_uid() -> str:
    return f"1.2.826.77.{next(_numbers)}"


def test_the_data_set_is_kept_exactly_as_received(shared: Role) -> None:
    uid = fresh_uid()
    body = data_set(uid, pixels=300_001) + explicit(0xFFFC, 0xFFFC, b"OB", bytes(10))
    with Wire(shared.port) as wire:
        assert wire.associate() == {1: (0, EXPLICIT), 3: (0, IMPLICIT)}
        answer = wire.store(5, uid, body)
        assert (answer.status, answer.field, answer.message_id) == (0, 0x8001, 5)
        assert answer.values[0x1000].rstrip(b"\0").decode() == uid
        assert answer.values[0x0002].rstrip(b"\0").decode() == CT
        wire.release()
    assert shared.data_sets()[uid] == body
    assert shared.temporary_files() == []


def test_the_file_says_how_it_arrived(shared: Role) -> None:
    uid = fresh_uid()
    with Wire(shared.port) as wire:
        wire.associate(calling="CT_WARD3")
        wire.store(1, uid, data_set(uid))
        local = wire.sock.getsockname()
        wire.release()
    entry = shared.entries()[-1]
    with shared.spool.open_entry(entry.id) as file:
        meta = read_meta(io.BytesIO(file.read()))
    assert meta.arrival is not None
    assert (meta.arrival.calling_aet, meta.arrival.called_aet) == ("CT_WARD3", "DCMROUTER")
    assert meta.arrival.peer_address == f"127.0.0.1:{local[1]}"
    assert 0 <= entry.arrived_at - meta.arrival.arrived_at < 60_000
    assert meta.arrival.association_id == shared.record("released")["association_id"]


def test_fragments_of_any_size_and_several_in_one_pdu_make_the_same_bytes(shared: Role) -> None:
    uid, other, third = fresh_uid(), fresh_uid(), fresh_uid()
    body = data_set(uid, pixels=3000)
    with Wire(shared.port) as wire:
        wire.associate()
        request = command(1, 1, CT, uid)
        for index in range(len(request)):  # the command, byte by byte
            wire.send(p_data(pdv(1, 3 if index == len(request) - 1 else 1, request[index : index + 1])))
        wire.send_data(body, fragment=1)
        assert wire.response().status == 0
        # the whole message in one PDU, and the last fragment empty
        body2 = data_set(other, pixels=1001)
        pieces = (pdv(1, 0, body2[:7]), pdv(1, 0, body2[7:]), pdv(1, 2, b""))
        wire.send(p_data(pdv(1, 3, command(1, 2, CT, other)), *pieces))
        assert wire.response().status == 0
        # two messages in one go, the answers in order (PS3.7 D.3.3.3: no asynchronous window was agreed on)
        body3 = data_set(third)
        message = p_data(pdv(1, 3, command(1, 3, CT, third))) + p_data(pdv(1, 2, body3))
        wire.send(message + p_data(pdv(3, 3, command(0x30, 4, VERIFICATION, data_set=False))))
        assert [wire.response().message_id for _ in range(2)] == [3, 4]
        wire.release()
    kept = shared.data_sets()
    assert (kept[uid], kept[other], kept[third]) == (body, body2, body3)


def test_the_largest_fragments_that_we_allow(shared: Role) -> None:
    uid = fresh_uid()
    body = data_set(uid, pixels=1_500_000)
    with Wire(shared.port) as wire:
        wire.associate()
        assert wire.store(1, uid, body, fragment=262_144 - 6).status == 0
        wire.release()
    assert shared.data_sets()[uid] == body


@pytest.mark.parametrize("private", [70_000, 2_000_000])
def test_uids_behind_much_private_data_are_found(shared: Role, private: int) -> None:
    uid = fresh_uid()
    with Wire(shared.port) as wire:
        wire.associate()
        assert wire.store(1, uid, data_set(uid, private=private)).status == 0
        assert wire.store(2, uid, data_set(uid, study="", private=private)).status == 0xC000
        wire.release()


REFUSED = {
    "empty data set": (fresh_uid(), CT, b"", 0xC000, "empty"),
    "garbage": (fresh_uid(), CT, b"\xff" * 5000, 0xC000, ""),
    "no study UID": (fresh_uid(), CT, data_set("1.2.826.77.2", study=""), 0xC000, "study"),
    "no series UID": (fresh_uid(), CT, data_set("1.2", series=""), 0xC000, "series"),
    "no SOP instance UID": (fresh_uid(), CT, data_set(""), 0xC000, "sop"),
    "another instance": ("1.2.3.4", CT, data_set("1.2.3.5"), 0xA900, "Instance"),
    "another class": ("1.2.3.4", CT, data_set("1.2.3.4", sop_class="1.2.840.10008.5.1.4.1.1.4"), 0xA900, "Class"),
    "study UID that is a path": ("1.2.3.4", CT, data_set("1.2.3.4", study="../../etc"), 0xA900, "Study"),
    "no instance UID in the command": ("", CT, data_set("1.2.3.4"), 0x0117, "Instance"),
    "instance UID of no length": (b"", CT, data_set(b""), 0x0117, "Instance"),
    "instance UID of no length in the command": (b"", CT, data_set("1.2.3.4"), 0x0117, "Instance"),
    "instance UID of no length in the data set": ("1.2.3.4", CT, data_set(b""), 0xC000, "sop"),
    "instance UID of padding": (b"\0\0", CT, data_set(b"\0\0"), 0x0117, "Instance"),
    "instance UID of padding in the command": (b"\0\0", CT, data_set("1.2.3.4"), 0x0117, "Instance"),
    "instance UID of padding in the data set": ("1.2.3.4", CT, data_set(b"\0\0"), 0xC000, "sop"),
    "instance UID of blanks": (b"  ", CT, data_set(b"  "), 0x0117, "Instance"),
    "class UID of no length": ("1.2.3.4", b"", data_set("1.2.3.4", b""), 0xA900, "Class"),
    "class UID of no length in the command": ("1.2.3.4", b"", data_set("1.2.3.4"), 0xA900, "Class"),
    "class UID of no length in the data set": ("1.2.3.4", CT, data_set("1.2.3.4", b""), 0xC000, "class"),
    "class UID of padding": ("1.2.3.4", b"\0\0", data_set("1.2.3.4", b"\0\0"), 0xA900, "Class"),
    "class UID of padding in the command": ("1.2.3.4", b"\0\0", data_set("1.2.3.4"), 0xA900, "Class"),
    "class UID of padding in the data set": ("1.2.3.4", CT, data_set("1.2.3.4", b"\0\0"), 0xC000, "class"),
    "instance UID that is a path": ("../../../tmp/x", CT, data_set("../../../tmp/x"), 0x0117, "Instance"),
    "instance UID too long": ("1." * 40 + "1", CT, data_set("1.2"), 0x0117, "Instance"),
    "instance UID with letters": ("1.2.a", CT, data_set("1.2.a"), 0x0117, "Instance"),
    "no class UID in the command": ("1.2.3.4", "", data_set("1.2.3.4"), 0xA900, "Class"),
    "class of another context": ("1.2.3.4", VERIFICATION, data_set("1.2.3.4", VERIFICATION), 0xA900, "context"),
}


@pytest.mark.attack("S1")
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_an_image_is_refused_at_once_and_the_association_goes_on(shared: Role, case: str) -> None:
    uid, sop_class, body, status, comment = REFUSED[case]
    before = len(shared.entries())
    good = fresh_uid()
    with Wire(shared.port) as wire:
        wire.associate()
        began = time.monotonic()
        answer = wire.store(9, uid, body, sop_class)
        assert time.monotonic() - began < AT_ONCE_S
        assert (answer.status, answer.message_id) == (status, 9), answer.comment
        assert comment in answer.comment and 0 < len(answer.comment) <= 64
        assert wire.store(10, good, data_set(good)).status == 0
        wire.release()
    assert len(shared.entries()) == before + 1
    assert shared.temporary_files() == []
    assert shared.record("released")["refused"] == {f"0x{status:04X}": 1}


def test_a_store_without_a_data_set_is_refused_at_once(shared: Role) -> None:
    with Wire(shared.port) as wire:
        wire.associate()
        began = time.monotonic()
        wire.send(p_data(pdv(1, 3, command(1, 1, CT, "1.2.3", data_set=False))))
        answer = wire.response()
        assert time.monotonic() - began < AT_ONCE_S
        assert (answer.status, bool(answer.comment)) == (0xC000, True)
        assert wire.echo() == 0
        wire.release()


def test_uids_that_only_break_the_strict_syntax_are_accepted(shared: Role) -> None:
    uid = f"1.02.003.{next(_numbers)}"
    with Wire(shared.port) as wire:
        wire.associate()
        assert wire.store(1, uid, data_set(uid, study="1.00.7")).status == 0
        wire.release()
    assert uid in shared.data_sets()


def test_association_records_tell_studies_and_how_it_ended(shared: Role) -> None:
    studies = {"1.2.5.1": 2, "1.2.5.2": 1}
    with Wire(shared.port) as wire:
        wire.associate(calling="REC")
        for study, count in studies.items():
            for _ in range(count):
                uid = fresh_uid()
                wire.store(1, uid, data_set(uid, study=study))
        wire.release()
    record = shared.record("released")
    assert record["studies"] == studies and record["calling_aet"] == "REC" and record["slot"] == "receive-0"
    assert record["association_id"].startswith(f"receive-0.{record['boot']}.")
    assert record["started_at"] <= record["last_at"] <= record["ended_at"]


@pytest.mark.parametrize(("ending", "how"), [(pdu(7, bytes(4)), "aborted"), (b"", "lost")])
def test_what_was_acknowledged_is_kept_when_the_peer_aborts(shared: Role, ending: bytes, how: str) -> None:
    uid, half = fresh_uid(), fresh_uid()
    with Wire(shared.port) as wire:
        wire.associate(calling=f"END_{how}")
        assert wire.store(1, uid, data_set(uid)).status == 0
        wire.send(p_data(pdv(1, 3, command(1, 2, CT, half))))
        wire.send(p_data(pdv(1, 0, data_set(half, pixels=100_000)[:50_000])))
        wire.send(ending)
    record = until(lambda: [r for r in shared.records(how) if r["calling_aet"] == f"END_{how}"])[0]
    assert record["studies"] == {"1.2.9": 1}
    assert uid in shared.data_sets() and half not in shared.data_sets()
    assert shared.temporary_files() == []


def test_many_that_break_off_in_the_middle_leave_neither_descriptors_nor_files(shared: Role) -> None:
    footprint = Footprint(shared)
    body = data_set("1.2.3", pixels=250_000)
    for number in range(100):
        with Wire(shared.port) as wire:
            wire.associate()
            wire.send(p_data(pdv(1, 3, command(1, 1, CT, "1.2.3"))))
            wire.send(p_data(pdv(1, 0, body[: 240_000 if number % 3 else 9_000])))
            wire.send(pdu(7, bytes(4)) if number % 2 else p_data(pdv(1, 0, bytes(5_000)))[:2_000])
    until(lambda: shared.fresh("receive.json")["open"] == 0)
    footprint.descriptors_fall_back()
    assert shared.temporary_files() == []


def test_an_echo_leaves_no_trace(shared: Role) -> None:
    before = len(shared.records())
    with Wire(shared.port) as wire:
        wire.associate(context(3, VERIFICATION, IMPLICIT))
        assert [wire.echo(), wire.echo()] == [0, 0]
        wire.release()
    assert len(shared.records()) == before


def test_an_unknown_operation_is_answered(shared: Role) -> None:
    with Wire(shared.port) as wire:
        wire.associate()
        wire.send(p_data(pdv(1, 3, command(0x0020, 1, CT))))  # C-FIND
        wire.send_data(b"\x08\x00\x52\x00CS\x06\x00STUDY ")
        assert wire.response().status == 0x0211
        wire.send(p_data(pdv(1, 3, element(0, 0x100, struct.pack("<H", 0x0FFF)) + element(0, 0x120, b"\1\0")
                             + element(0, 0x800, b"\x01\x01"))))  # C-CANCEL: no answer  # fmt: skip
        assert wire.echo() == 0
        wire.release()


def test_open_associations_are_published_while_they_carry_a_study(shared: Role) -> None:
    uid = fresh_uid()
    with Wire(shared.port) as wire:
        wire.associate()
        wire.store(1, uid, data_set(uid, study="1.2.77"))
        shown = until(lambda: shared.fresh("receive-0.json")["associations"])  # counted after the answer has left
        assert shown[0]["studies"] == {"1.2.77": 1}
        wire.release()
    until(lambda: not shared.fresh("receive-0.json")["associations"])


def test_a_child_with_nothing_to_do_still_says_that_it_lives(shared: Role) -> None:
    def idle() -> dict[str, Any] | None:
        return None if (status := shared.fresh("receive-0.json"))["open_associations"] else status

    before = until(idle)
    after = until(lambda: status if (status := shared.status("receive-0.json")) != before else None)
    assert NOT_WITHIN_MS < after["alive_at"] - before["alive_at"] < STALE_AFTER_MS
    assert {**after, "alive_at": 0} == {**before, "alive_at": 0}


def test_a_full_disk_refuses_each_instance_and_receiving_resumes_by_itself(start: Callable[..., Role]) -> None:
    role = start(environment={"ROUTER_FAULT": "recv.mid:sleep=0"}, min_free_bytes=0)
    with Wire(role.port) as wire:
        wire.associate()
        assert wire.store(1, "1.2.3", data_set("1.2.3")).status == 0
        wire.release()
    role.stop()
    role = start(min_free_bytes=1 << 60)
    with Wire(role.port) as wire:
        wire.associate()
        for number in range(3):
            assert wire.store(number, "1.2.4", data_set("1.2.4")).status == 0xA700
        assert wire.echo() == 0
        wire.release()
    assert list(role.data_sets()) == ["1.2.3"] and role.temporary_files() == []


def test_an_object_over_the_limit_is_refused(start: Callable[..., Role]) -> None:
    role = start(max_object_bytes=100_000)
    with Wire(role.port) as wire:
        wire.associate()
        assert wire.store(1, "1.2.3", data_set("1.2.3", pixels=200_000)).status == 0xA700
        assert role.temporary_files() == []
        assert wire.store(2, "1.2.3", data_set("1.2.3", pixels=9_000)).status == 0
        wire.release()


@pytest.mark.parametrize(("fault", "status"), [("store.after_write:enospc", 0xA700), ("store.after_write:eio", 0xA700)])
def test_disk_faults_are_answered_and_leave_nothing(start: Callable[..., Role], fault: str, status: int) -> None:
    # the first hit is the record of the slot's start
    role = start(environment={"ROUTER_FAULT": f"{fault}:2"})
    with Wire(role.port) as wire:
        wire.associate()
        assert wire.store(1, "1.2.3", data_set("1.2.3")).status == status
        assert wire.echo() == 0
        wire.release()
    assert role.entries() == [] and role.temporary_files() == []


def test_a_defect_of_ours_ends_one_association_only(start: Callable[..., Role]) -> None:
    role = start(environment={"ROUTER_FAULT": "recv.mid:raise"})
    with Wire(role.port) as wire:
        wire.associate()
        wire.send(p_data(pdv(1, 3, command(1, 1, CT, "1.2.3"))) + p_data(pdv(1, 0, b"x" * 1000)))
        assert wire.read_pdu()[0] == 7
    with Wire(role.port) as wire:
        wire.associate()
        assert wire.echo() == 0
        wire.release()
    assert role.temporary_files() == []
