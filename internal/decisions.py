"""SQL for what a person has decided about a study, and for orders known before their images.

Written by commands and the API, read by the delivery under its lease. Decisions are never changed, only revoked: before
and after stay. Layer 3, imports identity, rows and store. Changes when people may decide something new.
"""
# ruff: noqa: S608 - SQL is composed of our own column lists only; every value is bound

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any

from internal.events import add_event
from internal.identity import Person
from internal.rows import json_object, json_text
from internal.store import Row, Tx

_COLUMNS = "decision_id, study_uid, part, kind, body, reason, who, at, revoked_at"
_MAX_REASON = 500


class Kind(StrEnum):
    """What was decided."""

    PATIENT = "patient"  #: these sides are one patient; body: {"sides": fingerprint}
    ACCESSION = "accession"  #: body: {"before": received, "after": sent}
    DISCARD = "discard"  #: the study's bytes may go; body: {"until": epoch ms}
    WITHDRAW = "withdraw"  #: body: code_sha256, job_id, destination, confirmed_by (name, "" until then)


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision; times in epoch ms, `revoked_at` None while it holds."""

    decision_id: int
    study_uid: str
    part: str
    kind: Kind
    body: Mapping[str, Any]
    reason: str
    who: str
    at: int
    revoked_at: int | None


def decide(
    tx: Tx, kind: Kind, study_uid: str, *, part: str = "", body: Mapping[str, Any], reason: str, who: str, now: int,
    text: str,
) -> Decision:
    """Write a decision and its line in the timeline (`text`, without patient data); it replaces an earlier one.

    Raises ValueError without a reason.
    """
    reason = " ".join(reason.split())[:_MAX_REASON]
    if not reason:
        raise ValueError("a reason is needed")
    revoke(tx, kind, study_uid, part=part, now=now)
    row = tx.row("INSERT INTO decision (study_uid, part, kind, body, reason, who, at) VALUES (?, ?, ?, ?, ?, ?, ?)"
                 f" RETURNING {_COLUMNS}", (study_uid, part, str(kind), json_text(body), reason, who, now))
    assert row is not None  # RETURNING of an INSERT
    add_event(tx, now, f"decided-{kind}", text, study_uid=study_uid, who=who, fields={"part": part})
    return _decision(row)


def find_decision(tx: Tx, kind: Kind, study_uid: str, part: str = "") -> Decision | None:
    """Return the decision that holds, None if there is none."""
    row = tx.row(f"SELECT {_COLUMNS} FROM decision WHERE study_uid = ? AND part = ? AND kind = ?"
                 " AND revoked_at IS NULL ORDER BY decision_id DESC LIMIT 1", (study_uid, part, str(kind)))
    return _decision(row) if row else None


def decisions_of(tx: Tx, study_uid: str) -> list[Decision]:
    """Return every decision about a study, revoked ones included, oldest first."""
    return [_decision(row) for row in tx.rows(
        f"SELECT {_COLUMNS} FROM decision WHERE study_uid = ? ORDER BY decision_id", (study_uid,))]


def is_withdrawn(tx: Tx, study_uid: str, destination: str) -> bool:
    """Return whether the study was taken back from `destination`, confirmed by a second person: never sent again."""
    rows = tx.rows("SELECT body FROM decision WHERE study_uid = ? AND kind = ? AND revoked_at IS NULL",
                   (study_uid, str(Kind.WITHDRAW)))
    bodies = [json_object(body) for (body,) in rows]
    return any(body["confirmed_by"] and body["destination"] == destination for body in bodies)


def revoke(tx: Tx, kind: Kind, study_uid: str, *, part: str = "", now: int) -> bool:
    """End the decision that holds; the row stays. False if there was none."""
    return tx.execute("UPDATE decision SET revoked_at = ? WHERE study_uid = ? AND part = ? AND kind = ?"
                      " AND revoked_at IS NULL", (now, study_uid, part, str(kind))) > 0


def _decision(row: Row) -> Decision:
    return Decision(row[0], row[1], row[2], Kind(row[3]), json_object(row[4]), row[5], row[6], row[7], row[8])


# --- people and orders ---------------------------------------------------------------------------------------------

_MAX_PEOPLE = 50


def patients_of(tx: Tx, study_uid: str) -> list[Person]:
    """Return the distinct patients that the study's current instances name, at most 50, in a stable order."""
    return [Person(name, birth_date, sex, mrn) for name, birth_date, sex, mrn in tx.rows(
        "SELECT DISTINCT patient_name, patient_birth_date, patient_sex, patient_id FROM instance WHERE study_uid = ?"
        " AND is_current = 1 ORDER BY patient_name, patient_birth_date, patient_sex, patient_id LIMIT ?",
        (study_uid, _MAX_PEOPLE))]


@dataclass(frozen=True, slots=True)
class KnownOrder:
    """An order that came through our own API: its accession, patient, modality and day (YYYYMMDD), "" unknown.

    `urgent`: its priority is urgent, asap or stat. Source: FHIR R4 request-priority.
    """

    source: str
    order_id: str
    accession_number: str
    patient: Person
    modality: str = ""
    day: str = ""
    urgent: bool = False


def add_order(tx: Tx, order: KnownOrder, now: int) -> None:
    """Keep an order, replacing an earlier one with the same source and id."""
    body = {"name": order.patient.name, "birth_date": order.patient.birth_date, "sex": order.patient.sex,
            "mrn": order.patient.mrn, "modality": order.modality, "day": order.day,
            "urgent": order.urgent}
    tx.execute("INSERT INTO known_order (source, order_id, accession_number, received_at, day, mrn, body)"
               " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source, order_id) DO UPDATE SET"
               " accession_number = excluded.accession_number, received_at = excluded.received_at, day = excluded.day,"
               " mrn = excluded.mrn, body = excluded.body",
               (order.source, order.order_id, order.accession_number, now, order.day, order.patient.mrn,
                json_text(body)))


def orders_under(tx: Tx, accession_number: str) -> list[KnownOrder]:
    """Return the known orders with exactly this accession number."""
    return [_order(row) for row in tx.rows(
        f"SELECT {_ORDER_COLUMNS} FROM known_order WHERE accession_number = ? ORDER BY source, order_id LIMIT 50",
        (accession_number,))]


def is_urgent(tx: Tx, accession_number: str) -> bool:
    """Return whether a known order under this accession number is urgent; "" names none."""
    return bool(accession_number) and any(order.urgent for order in orders_under(tx, accession_number))


def orders_between(tx: Tx, first_day: str, last_day: str, limit: int = 5000) -> list[KnownOrder]:
    """Return known orders of these days (YYYYMMDD, both included), newest first: where the doctor looks."""
    return [_order(row) for row in tx.rows(
        f"SELECT {_ORDER_COLUMNS} FROM known_order WHERE day BETWEEN ? AND ? ORDER BY day DESC, source, order_id"
        " LIMIT ?", (first_day, last_day, limit))]


def orders_near(tx: Tx, day: str, arrived_at: int) -> list[KnownOrder]:
    """Return known orders within 30 days of a study's day (DA; where it is none, the day of arrival, epoch ms)."""
    try:
        middle = date(int(day[:4]), int(day[4:6]), int(day[6:8]))
    except ValueError:
        middle = datetime.fromtimestamp(arrived_at / 1000, UTC).date()
    reach = timedelta(days=_REACH_DAYS)
    first, last = max(middle, date.min + reach) - reach, min(middle, date.max - reach) + reach
    return orders_between(tx, f"{first:%Y%m%d}", f"{last:%Y%m%d}")


_REACH_DAYS = 30
_ORDER_COLUMNS = "source, order_id, accession_number, body"


def _order(row: Row) -> KnownOrder:
    body = json_object(row[3])
    return KnownOrder(row[0], row[1], row[2], Person(body["name"], body["birth_date"], body["sex"], body["mrn"]),
                      body["modality"], body["day"], body["urgent"])
