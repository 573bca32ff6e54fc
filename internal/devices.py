"""SQL for devices: who has called, and what a person has said about them.

Callers are learned by `associations`; decisions are revisions in the catalogue. Read by `assemble` (who may be sent
on), `admission` (what the receiver is told) and people's commands. Imports catalogue, errors and store.
Changes when a device can be more than accepted, held or refused.
"""
# ruff: noqa: S608 - only a number of ours is composed into SQL

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from internal import catalogue, peers
from internal.errors import NotAllowed
from internal.store import Row, Tx, storable

#: A hostile peer may invent titles; beyond this many no further caller is learned.
MAX_LEARNED = 10_000
KIND = "device"
_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}", re.ASCII)


class Verdict(StrEnum):
    """What happens to what a caller sends."""

    ACCEPT = "accept"
    HOLD = "hold"  #: received and kept, not sent on until a person admits the caller
    REFUSE = "refuse"  #: its associations are rejected with 1/1/3


@dataclass(frozen=True, slots=True)
class Caller:
    """One calling AE title at one address (as peers.host_of returns it); `at` in epoch ms."""

    aet: str
    address: str
    at: int


@dataclass(frozen=True, slots=True)
class Device:
    """A caller as people see it; `verdict` is "" while nobody has decided, `address` "" means any address.

    Times in epoch ms; `last_image_at` None: it has brought none.
    """

    aet: str
    address: str
    first_seen_at: int | None
    last_seen_at: int | None
    last_image_at: int | None
    verdict: str


def learn(tx: Tx, callers: Iterable[Caller], *, with_images: bool = False) -> None:
    """Note when each caller was seen, and whether it brought images then; at most MAX_LEARNED different ones."""
    latest: dict[tuple[str, str], tuple[int, int]] = {}
    for caller in callers:
        key = (storable(caller.aet), storable(caller.address))
        first, last = latest.get(key, (caller.at, caller.at))
        latest[key] = (min(first, caller.at), max(last, caller.at))
    for (aet, address), (first, last) in sorted(latest.items()):
        changed = tx.execute(
            "UPDATE device SET first_seen_at = CASE WHEN first_seen_at < ? THEN first_seen_at ELSE ? END, last_seen_at"
            " = CASE WHEN last_seen_at > ? THEN last_seen_at ELSE ? END WHERE aet = ? AND address = ?",
            (first, first, last, last, aet, address))
        if not changed:
            tx.execute(
                "INSERT INTO device (aet, address, first_seen_at, last_seen_at) SELECT ?, ?, ?, ?"
                f" WHERE (SELECT COUNT(*) FROM device) < {MAX_LEARNED} ON CONFLICT (aet, address) DO NOTHING",
                (aet, address, first, last))
        if with_images:
            tx.execute("UPDATE device SET last_image_at = ? WHERE aet = ? AND address = ? AND (last_image_at IS NULL"
                       " OR last_image_at < ?)", (last, aet, address, last))


def decide(
    tx: Tx, aet: str, address: str, verdict: Verdict | None, *, who: str, now: int, restores: int | None = None,
) -> None:
    """Write down what a person says about a caller (`address` "": from anywhere); None forgets earlier words.

    The address may be written in any way. Raises NotAllowed for what can be no caller: nobody would ever match it.
    """
    address = peers.canonical(address)
    if verdict is not None:
        _check_caller(aet, address)
    body = None if verdict is None else {"aet": aet, "address": address, "verdict": str(verdict)}
    catalogue.record(tx, KIND, f"{aet}@{address}", body, author=who, now=now, restores=restores)


def _check_caller(aet: str, address: str) -> None:
    # Source: PS3.5 6.2, value representation AE.
    if not _AE_TITLE.fullmatch(aet) or aet != aet.strip():
        raise NotAllowed("an AE title has 1 to 16 ASCII characters without a backslash, and no space at its ends")
    try:
        peers.parse_address(address or "::")
    except ValueError:
        raise NotAllowed("an address is an IP address, or nothing for any address") from None


def decisions(tx: Tx) -> dict[tuple[str, str], Verdict]:
    """Return every decision in force by (AE title, address or "")."""
    return {(str(body["aet"]), str(body["address"])): Verdict(body["verdict"])
            for body in catalogue.current(tx, KIND).values()}


def verdict_on(
    decided: Mapping[tuple[str, str], Verdict], aet: str, address: str, default: Verdict,
) -> Verdict:
    """Return what holds for a caller: the word on this very address, else on the title, else `default`."""
    return decided.get((aet, address)) or decided.get((aet, "")) or default


def unadmitted(tx: Tx, study_uid: str, default: Verdict) -> list[tuple[str, str]]:
    """Return (AE title, address) of every caller that brought images of the study and is not accepted."""
    decided = decisions(tx)
    if default is Verdict.ACCEPT and not decided:
        return []
    rows = tx.rows("SELECT DISTINCT calling_aet, peer_address FROM instance WHERE study_uid = ? AND source = 'dimse'"
                   " AND is_current = 1", (study_uid,))
    callers = {(aet, peers.host_of(peer)) for aet, peer in rows}
    return sorted(caller for caller in callers if verdict_on(decided, *caller, default) is not Verdict.ACCEPT)


def list_devices(tx: Tx) -> list[Device]:
    """Return every caller seen or decided upon, those without a decision first, then by title and address."""
    decided = decisions(tx)
    seen = {(row[0], row[1]): row[2:] for row in tx.rows(
        "SELECT aet, address, first_seen_at, last_seen_at, last_image_at FROM device")}
    devices = [_device(aet, address, seen.get((aet, address)), str(decided.get((aet, address), "")))
               for aet, address in seen.keys() | decided.keys()]
    return sorted(devices, key=lambda device: (device.verdict != "", device.aet, device.address))


def _device(aet: str, address: str, seen: Row | None, verdict: str) -> Device:
    first, last, image = seen or (None, None, None)
    return Device(aet, address, first, last, image, verdict)
