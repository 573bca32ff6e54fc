"""The gate and its children: caps, policy, restart, and every way to end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.dimse.role import ROOT, Role, until
from tests.contract.dimse.wire import (
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Closed,
    Wire,
    associate_rq,
    command,
    context,
    data_set,
    p_data,
    pdv,
)

PROPOSED = context(1, CT, EXPLICIT) + context(3, VERIFICATION, EXPLICIT)


def rejection(port: int, **options: object) -> tuple[int, int, int]:
    """Result, source and reason of the A-ASSOCIATE-RJ, followed by an orderly end."""
    with Wire(port) as wire:
        wire.send(associate_rq(PROPOSED, **options))  # type: ignore[arg-type]
        kind, body = wire.read_pdu()
        assert kind == 3
        assert wire.wait_closed() is False
        return body[1], body[2], body[3]


def accepted(port: int, **options: object) -> bool:
    with Wire(port) as wire:
        wire.associate(**options)
        assert wire.echo() == 0
        wire.release()
    return True


def test_refusals_have_the_right_reason(shared: Role) -> None:
    assert rejection(shared.port, called="OTHER") == (1, 1, 7)
    assert rejection(shared.port, application="1.2.3") == (1, 1, 2)
    assert rejection(shared.port, version=2) == (1, 2, 2)
    assert accepted(shared.port, version=3)


def test_several_titles_and_both_address_families(start: Callable[..., Role]) -> None:
    role = start(ae_titles=["ONE", "TWO"], bind=["127.0.0.1", "::1"])
    assert accepted(role.port, called="ONE") and accepted(role.port, called="TWO")
    assert rejection(role.port, called="DCMROUTER") == (1, 1, 7)
    with Wire(role.port, host="::1") as wire:
        wire.associate(called="ONE")
        assert wire.echo() == 0
        wire.release()


@pytest.mark.attack("S8")
def test_caps_in_all_and_per_address_refuse_without_a_reset(start: Callable[..., Role]) -> None:
    role = start(max_associations=3, max_associations_per_address=2, children=2, bind=["0.0.0.0"])
    held = [Wire(role.port), Wire(role.port)]
    for wire in held:
        wire.associate()
    for _ in range(40):
        assert rejection(role.port) == (2, 3, 2)
    other = Wire(role.port)
    other.sock.close()
    other.sock = socket.create_connection(("127.0.0.2", role.port), source_address=("127.0.0.2", 0), timeout=15)
    other.associate()
    held[0].release()
    until(lambda: accepted_or_refused(role.port))
    for wire in (held[1], other):
        assert wire.echo() == 0
        wire.release()
    assert role.stop() == 0
    refusals = [refusal for record in role.records("refused") for refusal in record["refusals"]]
    assert sum(refusal["count"] for refusal in refusals if refusal["peer"] == "127.0.0.1") >= 40


def accepted_or_refused(port: int) -> bool:
    with Wire(port) as wire:
        wire.send(associate_rq(PROPOSED))
        return wire.read_pdu()[0] == 2


def test_a_refused_peer_that_says_nothing_more_is_dropped(start: Callable[..., Role]) -> None:
    role = start(max_associations=1)
    with Wire(role.port) as first, Wire(role.port) as silent:
        first.associate()
        silent.send(associate_rq(PROPOSED))
        assert silent.read_pdu()[0] == 3
        with pytest.raises(Closed):
            silent.exactly(1)
        assert first.echo() == 0


def test_associations_are_shared_out_over_the_children(start: Callable[..., Role]) -> None:
    role = start(children=2)
    all_ready(role)
    wires = [Wire(role.port) for _ in range(6)]
    for wire in wires:
        wire.associate()
    counts = [child["open"] for child in role.fresh("receive.json")["children"]]
    assert counts == [3, 3]
    for wire in wires:
        wire.release()


def test_a_burst_of_associations_is_accepted(start: Callable[..., Role]) -> None:
    role = start(children=2)
    wires = [Wire(role.port) for _ in range(200)]
    for wire in wires:
        wire.send(associate_rq(PROPOSED))
    assert all(wire.read_pdu()[0] == 2 for wire in wires)
    for wire in wires:
        assert wire.echo() == 0
        wire.sock.close()


def caller(aet: str, address: str = "", verdict: str = "accept") -> dict[str, str]:
    return {"aet": aet, "address": address, "verdict": verdict}


@pytest.mark.attack("S11")
def test_unknown_callers_are_refused_where_so_configured_and_policy_is_read_again(start: Callable[..., Role]) -> None:
    role = start(unknown_callers="refuse")
    assert rejection(role.port, calling="CT1") == (1, 1, 3)
    policy = {"callers": [caller("CT1"), caller("CT2", "127.0.0.1"), caller("CT3", "10.9.9.9")]}
    role.spool.publish("policy.json", json.dumps(policy).encode())
    role.process.send_signal(signal.SIGHUP)
    until(lambda: not refused(role.port, "CT1"))
    assert accepted(role.port, calling="CT2")
    assert rejection(role.port, calling="CT3") == (1, 1, 3)
    assert rejection(role.port, calling="CT3@10.9.9.9") == (1, 1, 3)  # a title is not an address
    assert "1.2.840.10008.1.1" in role.log()  # what was asked for
    role.spool.publish("policy.json", b'{"callers": "broken"')  # the last good copy rules
    role.process.send_signal(signal.SIGHUP)
    until(lambda: "not usable" in role.log())
    assert accepted(role.port, calling="CT1")
    role.spool.publish("policy.json", json.dumps({"callers": [caller("CT1", "", "refuse")]}).encode())
    until(lambda: refused(role.port, "CT1"))  # found without a signal


def all_ready(role: Role) -> None:
    until(lambda: all(child["ready"] for child in role.fresh("receive.json")["children"]))


def test_sighups_that_overtake_each_other_stop_nobody(start: Callable[..., Role]) -> None:
    role = start()
    (child,) = role.children()
    again_and_again = f"import os, time\nwhile True: os.kill({child}, {int(signal.SIGHUP)}), time.sleep(0.0002)"
    with subprocess.Popen([sys.executable, "-c", again_and_again]) as hammer:
        try:
            assert all(accepted(role.port) for _ in range(200))
        finally:
            hammer.kill()
    assert role.children() == [child]
    assert role.stop() == 0


def refused(port: int, calling: str) -> bool:
    with Wire(port) as wire:
        wire.send(associate_rq(PROPOSED, calling=calling))
        return wire.read_pdu()[0] == 3


def test_a_child_that_dies_is_started_again_and_its_associations_have_ended(start: Callable[..., Role]) -> None:
    role = start()
    with Wire(role.port) as wire:
        wire.associate()
        wire.store(1, "1.2.3", data_set("1.2.3"))
        child = role.children()[0]
        os.kill(child, signal.SIGKILL)
        with pytest.raises(Closed):
            wire.exactly(1)
    until(lambda: role.children()[0] not in (child, None) and role.fresh("receive.json")["children"][0]["ready"])
    assert accepted(role.port)
    restarts = [record for record in role.records("slot-restarted") if record["slot"] == "receive-0"]
    assert len(restarts) == 2 and restarts[0]["boot"] != restarts[1]["boot"]
    assert role.data_sets().keys() == {"1.2.3"}
    until(lambda: role.fresh("receive.json")["open"] == 0)


def test_sigterm_finishes_the_instance_in_hand_and_aborts_the_idle(start: Callable[..., Role]) -> None:
    role = start(children=2, drain_s=10)
    all_ready(role)  # their own records are temporary files for a moment, too
    body = data_set("1.2.3", pixels=150_000)
    with Wire(role.port) as busy, Wire(role.port) as idle, Wire(role.port) as half_open:
        busy.associate(calling="BUSY")
        idle.associate()
        half_open.send(b"\1")
        assert busy.echo() == 0
        busy.send(p_data(pdv(1, 3, command(1, 1, CT, "1.2.3"))) + p_data(pdv(1, 0, body[:100_000])))
        until(lambda: role.temporary_files())
        role.process.send_signal(signal.SIGTERM)
        assert idle.read_pdu()[0] == 7
        assert half_open.read_pdu()[0] == 7
        with pytest.raises(OSError):
            until(lambda: not socket.create_connection(("127.0.0.1", role.port), 1).close(), 5)
        busy.send(p_data(pdv(1, 2, body[100_000:])))
        assert busy.response().status == 0
        assert busy.read_pdu()[0] == 7
        assert busy.wait_closed() is False
    assert role.stop() == 0
    assert role.data_sets() == {"1.2.3": body}
    assert [record["calling_aet"] for record in role.records("shutdown")] == ["BUSY"]


def test_a_peer_that_never_ends_its_message_is_cut_off_after_the_drain_time(start: Callable[..., Role]) -> None:
    role = start(drain_s=0.5)
    with Wire(role.port) as wire:
        wire.associate()
        wire.send(p_data(pdv(1, 3, command(1, 1, CT, "1.2.3"))) + p_data(pdv(1, 0, b"x" * 100_000)))
        until(lambda: role.temporary_files())
        assert role.stop(seconds=10) == 0
    assert role.data_sets() == {}


def test_a_second_sigterm_ends_at_once(start: Callable[..., Role]) -> None:
    role = start(drain_s=60)
    with Wire(role.port) as wire:
        wire.associate()
        wire.send(p_data(pdv(1, 3, command(1, 1, CT, "1.2.3"))) + p_data(pdv(1, 0, b"x" * 100_000)))
        until(lambda: role.temporary_files())
        role.process.send_signal(signal.SIGTERM)
        assert wire.sock.getpeername()
        until(lambda: not listening(role.port))
        role.process.send_signal(signal.SIGTERM)
        assert role.process.wait(10) == 0


def listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("children", [0, 2])
def test_supervised_it_ends_with_its_standard_input(start: Callable[..., Role], children: int) -> None:
    role = start(supervised=True, children=children)
    assert accepted(role.port)
    assert role.process.stdin
    role.process.stdin.close()
    assert role.process.wait(15) == 0


def test_a_killed_gate_leaves_no_child_behind(start: Callable[..., Role]) -> None:
    role = start(children=2)
    children = role.children()
    role.kill()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))
    again = start()
    assert accepted(again.port)


def test_in_one_process_as_on_windows(start: Callable[..., Role]) -> None:
    role = start(children=0)
    with Wire(role.port) as wire:
        wire.associate()
        assert wire.store(1, "1.2.3", data_set("1.2.3")).status == 0
        wire.release()
    until(lambda: role.fresh("receive.json")["open"] == 0)
    assert role.stop() == 0
    assert role.data_sets().keys() == {"1.2.3"}
    assert role.record("released")["slot"] == "receive-0"


def attempt(root: Path, **settings: object) -> tuple[int, str]:
    """Exit code and what was said by a role that must not start."""
    command_line = [sys.executable, "-m", "interface.dimse", "--spool", str(root), "--settings-json",
                    json.dumps({"port": 0, "bind": ["127.0.0.1"], "children": 1, **settings})]  # fmt: skip
    done = subprocess.run(command_line, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stderr


def test_mistakes_at_start_are_one_sentence_and_an_exit_code(shared: Role, tmp_path: Path) -> None:
    code, said = attempt(tmp_path / "spool", port=shared.port)
    assert code == 2 and f"port {shared.port}" in said and "Traceback" not in said
    (tmp_path / "spool" / "spool.id").unlink()
    code, said = attempt(tmp_path / "spool")
    assert code == 2 and "not mounted" in said and "Traceback" not in said


def test_a_second_copy_on_the_same_folder_is_told_so(shared: Role) -> None:
    began = time.monotonic()
    code, said = attempt(shared.root, lock_wait_s=0.5)
    assert code == 2 and "already running" in said and str(shared.process.pid) in said and "Traceback" not in said
    assert time.monotonic() - began >= 0.5  # it waits for a predecessor that is still draining
    assert accepted(shared.port)


def test_idle_contexts_answer_with_what_was_chosen(shared: Role) -> None:
    with Wire(shared.port) as wire:
        answers = wire.associate(
            context(1, CT, "1.2.840.10008.1.2.4.91", IMPLICIT, EXPLICIT),
            context(3, "1.2.840.10008.5.1.4.1.2.2.1", IMPLICIT), context(5, CT, "1.2.840.10008.1.2.4.94"),
        )  # fmt: skip
        assert answers[1] == (0, EXPLICIT)
        assert (answers[3][0], answers[5][0]) == (3, 4)
        wire.release()
