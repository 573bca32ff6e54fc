"""SQL for what full parsing found: which studies are still to be described, and the headers of a series as DICOM JSON.

Layer 3. Written by `describe`, read by whoever answers metadata. Changes when more is kept of a header.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from internal.errors import BytesDamaged
from internal.store import Tx

#: What the lines of one series may take up in all (bytes of JSON).
MAX_BODY_BYTES: Final = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Undescribed:
    """A study of which headers are still to be parsed, up to `revision`."""

    study_uid: str
    revision: int


@dataclass(frozen=True, slots=True)
class Source:
    """One current instance and where its data set begins (bytes)."""

    instance_id: str
    location: str
    dataset_offset: int
    transfer_syntax_uid: str
    is_gone: bool


@dataclass(frozen=True, slots=True)
class SeriesMetadata:
    """The headers of one series: `lines` is DICOM JSON (a data set each) by instance id, in order of arrival.

    `unparsed` says of each instance without a line why: it is registered and delivered all the same.
    """

    study_uid: str
    series_uid: str
    revision: int
    lines: Mapping[str, bytes]
    unparsed: Mapping[str, str]


def undescribed(tx: Tx, node: str, settled_before: int) -> Undescribed | None:
    """Return the newest study settled by `settled_before` (ms), with bytes on `node`, of which headers are due."""
    row = tx.row(
        "SELECT study_uid, settled_revision FROM study s WHERE described_revision < settled_revision AND purged = 0"
        " AND settled_at <= ? AND EXISTS (SELECT 1 FROM instance n WHERE n.study_uid = s.study_uid"
        " AND n.location LIKE ?) ORDER BY settled_at DESC LIMIT 1", (settled_before, f"spool:{node}/%"))
    return None if row is None else Undescribed(row[0], row[1])


def sources(tx: Tx, study_uid: str) -> dict[str, list[Source]]:
    """Return the current instances of a study by series, in order of arrival."""
    found: dict[str, list[Source]] = {}
    for row in tx.rows(
            "SELECT id, location, dataset_offset, transfer_syntax_uid, COALESCE(purging_at, purged_at), series_uid"
            " FROM instance WHERE study_uid = ? AND is_current = 1 ORDER BY id", (study_uid,)):
        found.setdefault(row[5], []).append(Source(row[0], row[1], row[2], row[3], row[4] is not None))
    return found


def series_metadata(tx: Tx, study_uid: str, series_uid: str) -> SeriesMetadata | None:
    """Return what was found in a series, None if nothing was yet. Raises BytesDamaged if the row is not readable."""
    row = tx.row("SELECT revision, instances, unparsed, body FROM series_metadata WHERE study_uid = ?"
                 " AND series_uid = ?", (study_uid, series_uid))
    if row is None:
        return None
    ids = json.loads(row[1])
    with gzip.open(io.BytesIO(row[3])) as body:
        lines = body.read(MAX_BODY_BYTES).splitlines()
    if len(lines) != len(ids):
        raise BytesDamaged("the metadata of this series are not readable; they are built again with the next image")
    return SeriesMetadata(study_uid, series_uid, row[0], dict(zip(ids, lines, strict=True)), json.loads(row[2]))


class Body:
    """The body of a row while it is made: one line per instance, compressed as they come."""

    def __init__(self) -> None:
        self.instances: list[str] = []
        self.total_bytes = 0
        self._packed = io.BytesIO()
        self._gzip = gzip.GzipFile(fileobj=self._packed, mode="wb", compresslevel=6, mtime=0)

    def add(self, instance_id: str, line: bytes) -> bool:
        """Add the line of one instance; False if the series would become too long."""
        if self.total_bytes + len(line) + 1 > MAX_BODY_BYTES:
            return False
        self.total_bytes += len(line) + 1
        self.instances.append(instance_id)
        self._gzip.write(line + b"\n")
        return True

    def finish(self) -> bytes:
        """Return the whole; nothing may be added any more."""
        self._gzip.close()
        return self._packed.getvalue()


def put_series(
    tx: Tx, study: Undescribed, series_uid: str, *, instances: Sequence[str], unparsed: Mapping[str, str], body: bytes,
    now: int,
) -> None:
    """Write the row of a series, instead of the one before."""
    tx.execute(
        "INSERT INTO series_metadata (study_uid, series_uid, revision, built_at, instances, unparsed, body)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (study_uid, series_uid) DO UPDATE SET revision = excluded.revision,"
        " built_at = excluded.built_at, instances = excluded.instances, unparsed = excluded.unparsed,"
        " body = excluded.body",
        (study.study_uid, series_uid, study.revision, now, json.dumps(list(instances)), json.dumps(dict(unparsed)),
         body))


def mark_described(tx: Tx, study: Undescribed) -> None:
    """Write down that every series of the study is described up to its revision."""
    tx.execute("UPDATE study SET described_revision = ? WHERE study_uid = ? AND described_revision < ?",
               (study.revision, study.study_uid, study.revision))
