"""Faults that concern one study each, all at once on one router: what the platform, senders and contents do wrong."""

from __future__ import annotations

import os
import random
import re

import pytest

from tests.faults import platform, senders
from tests.faults.conftest import Keep, Record
from tests.faults.stand import Fault, Stand, run_together
from tests.system.rig import ROOT

GROUPS = {"platform": platform.FAULTS, "senders and content": senders.FAULTS}


@pytest.mark.timeout(180)
def test_a_share_of_them(stand: Stand) -> None:
    """Another dozen in each run of the gate; `make proof` brings all about."""
    seed = os.environ["ROTATE_SEED"]
    share = random.Random(seed).sample([fault for faults in GROUPS.values() for fault in faults], 12)
    print(f"ROTATE_SEED={seed}: {[fault.id for fault in share]}")
    stand.start()
    died = [one for one in run_together(stand, share) if not one.survived]
    assert not died, died


@pytest.mark.long(seconds=35)
@pytest.mark.timeout(240)
@pytest.mark.parametrize("group", GROUPS)
def test_together(stand: Stand, keep: Keep, group: str) -> None:
    faults: list[Fault] = GROUPS[group]
    stand.start()
    keep(run_together(stand, faults))


#: What is not brought about here, and why.
NOT_RUN = {
    "A12": "kill during retention: tests/contract/engine/test_retain.py",
    "A19": "an exception in a worker: tests/contract/engine/test_engine.py",
    "A21": "memory used up: the bounds are tests/contract/dimse/test_crowds.py",
    "C5": "database on a full disk: tests/contract/store/test_sqlite_faults.py",
    "C6": "a database of a newer version: tests/contract/store/test_store.py",
    "C7": "PostgreSQL stops in a transaction: tests/contract/store/test_store.py",
    "C9": "connection limit of PostgreSQL: one writer and four readers per process",
    "C11": "the clock goes back: no tool for it here; feeds order by transaction, not by time",
    "D1": "wrong credentials: tests/system/test_delivery.py",
    "D10": "other bytes under the same UID: tests/contract/destinations/test_audit.py",
    "D17": "DNS: tests/contract/outbound",
    "D18": "TLS: tests/contract/outbound",
    "D28": "gzip bomb, endless reply: tests/contract/outbound",
    "D35": "a slow link: bench/push.py",
    "D36": "proxies of the environment: tests/contract/outbound",
    "E2": "a dead line without FIN: tests/contract/dimse/test_hostile.py",
    "E7": "three studies in one association: tests/system/test_delivery.py",
    "E11": "500 associations at once: tests/contract/dimse/test_attacks.py, with 1,100",
    "E12": "10,000 health checks: tests/contract/dimse/test_attacks.py, with 10,000 connections",
    "E13": "a 4 GB object: bench/receive_costs.py",
    "E14": "100,000 small objects: bench/receive_costs.py, minutes of small images",
    "E22": "storage commitment: tests/contract/engine/test_commitment.py",
    "E23": "commitment peer away: tests/contract/engine/test_commitment.py",
    "E24": "asynchronous window: tests/contract/dimse/test_store.py",
    "E25": "a slow sender: tests/contract/dimse/test_hostile.py",
}


def test_what_is_not_brought_about_here_is_named(record: Record) -> None:
    ran = {fault.id.rstrip("abcdefgh") for faults in GROUPS.values() for fault in faults}
    for id_, why in NOT_RUN.items():
        text, _, where = why.partition(": ")
        assert id_ not in ran
        assert all((ROOT / path).exists() for path in re.findall(r"(?:tests|bench)/[\w/]+(?:\.py)?", where)), where
        shown = f"shown by {where}" if where.startswith(("tests/", "bench/")) else where
        record(id_, text, f"not run: {shown}")
