"""Rows of `instance` to and from `model.Instance`, JSON columns, and lists of placeholders.

Used by `index`, `items` and `jobs`; imports only model. Changes when more has to be remembered of an instance.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

from internal.model import Arrival, Header, Instance

_HEADER = tuple(field.name for field in fields(Header))
_ARRIVAL = tuple(field.name for field in fields(Arrival))
_OWN = ("id", "part", "sha256", "dataset_offset", "dataset_bytes", "location", "is_current", "purged_at")
_IMAGE_TYPE = len(_OWN) + _HEADER.index("image_type")
_header_values = attrgetter(*_HEADER)
_arrival_values = attrgetter(*_ARRIVAL)

#: Columns of `instance` in the order that `instance_values` writes and `instance_from` reads.
INSTANCE_COLUMNS = (*_OWN, *_HEADER, *_ARRIVAL)


def select_instance(alias: str) -> str:
    """Return the column list that `instance_from` reads, each column of the table `alias`."""
    return ", ".join(f"{alias}.{column}" for column in INSTANCE_COLUMNS)


def instance_values(instance: Instance) -> list[Any]:
    """Return the values of `INSTANCE_COLUMNS`."""
    values = [
        instance.id, instance.part, instance.sha256, instance.dataset_offset, instance.dataset_bytes, instance.location,
        int(instance.current), instance.purged_at, *_header_values(instance.header), *_arrival_values(instance.arrival),
    ]
    values[_IMAGE_TYPE] = json.dumps(values[_IMAGE_TYPE])
    return values


def instance_from(row: Sequence[Any]) -> Instance:
    """Return the instance of a row that begins with `INSTANCE_COLUMNS`."""
    own, header = row[:len(_OWN)], list(row[len(_OWN):len(_OWN) + len(_HEADER)])
    header[_IMAGE_TYPE - len(_OWN)] = tuple(json.loads(row[_IMAGE_TYPE]))
    arrival = row[len(_OWN) + len(_HEADER):len(INSTANCE_COLUMNS)]
    return Instance(
        id=own[0], part=own[1], sha256=own[2], dataset_offset=own[3], dataset_bytes=own[4], location=own[5],
        current=bool(own[6]), purged_at=own[7], header=Header(*header), arrival=Arrival(*arrival),
    )


def node_of(location: str) -> str:
    """Return the node of ``spool:<node>/<id>``, "" for bytes that every node can reach."""
    return location.removeprefix("spool:").partition("/")[0] if location.startswith("spool:") else ""


def json_text(value: Mapping[str, Any]) -> str:
    """Return a JSON object as it is stored: compact, ASCII, keys in the order given."""
    return json.dumps(dict(value), separators=(",", ":"))


def json_object(text: str) -> dict[str, Any]:
    """Return the JSON object stored by `json_text`."""
    value: dict[str, Any] = json.loads(text)
    return value


def marks(values: Sequence[Any]) -> str:
    """Return as many placeholders as there are values: ``?, ?, ?``."""
    return ", ".join("?" * len(values))


def chunks(values: Sequence[Any], size: int = 500) -> Iterator[Sequence[Any]]:
    """Cut a sequence into pieces that fit into one list of placeholders."""
    for start in range(0, len(values), size):
        yield values[start:start + size]


def row_number(text: str) -> int:
    """Return a number that a caller gives back to us, as in a cursor; ValueError where no row could have it."""
    number = int(text)
    if not 0 <= number < 2**63:
        raise ValueError("no row has this number")
    return number
