"""Stored instances: their rows, and their files named by content.

Between the DICOM store and `database`. Imports `database`, `uploads`. Changes when the keeping of instances
changes. A row is committed after its file has its final name, so a row without a file cannot be.
"""

from __future__ import annotations

import enum
from pathlib import Path

from sandbox.database import Database, now_ms
from sandbox.uploads import Upload, UploadFolder

STATE_COLUMNS = ("sop_uid", "study_uid", "series_uid", "sop_class_uid", "imaging_study_id", "sha256",
                 "dataset_sha256", "bytes", "times_received", "times_conflicting", "received_at")


class Kept(enum.Enum):
    """What became of an instance: stored now, known with these bytes, or known with other bytes."""

    STORED = "stored"
    SAME = "same"
    CONFLICT = "conflict"


class InstanceTable:
    """All instances below `folder`."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder / "instances"
        self.uploads = UploadFolder(folder / "uploads")
        self._folder.mkdir(parents=True, exist_ok=True)

    def path_of(self, sha256: str) -> Path:
        """Where the bytes with this hash are kept."""
        return self._folder / sha256[:2] / f"{sha256}.dcm"

    def keep(self, upload: Upload, imaging_study_id: str) -> Kept:
        """Store an upload once; the row is committed on return. Source: fact sheet section 3 (Google semantics)."""
        head = upload.head
        path = self.path_of(upload.sha256)
        path.parent.mkdir(exist_ok=True)
        with self._database.transaction():
            rows = self._database.query(
                "SELECT number, sha256 FROM instance WHERE sop_uid=? AND series_uid=? AND study_uid=?",
                (head.sop_uid, head.series_uid, head.study_uid))
            if rows:
                same = rows[0][1] == upload.sha256
                column = "times_received" if same else "times_conflicting"
                self._database.query(f"UPDATE instance SET {column} = {column} + 1 WHERE number=?",  # noqa: S608
                                     (rows[0][0],))
                return Kept.SAME if same else Kept.CONFLICT
            upload.path.replace(path)
            self._database.query(
                "INSERT INTO instance (study_uid, series_uid, sop_uid, sop_class_uid, imaging_study_id, sha256, "
                "dataset_sha256, bytes, times_received, times_conflicting, received_at) "
                "VALUES (?,?,?,?,?,?,?,?,1,0,?)",
                (head.study_uid, head.series_uid, head.sop_uid, head.sop_class_uid, imaging_study_id, upload.sha256,
                 upload.dataset_sha256, upload.bytes, now_ms()))
        return Kept.STORED

    def find(self, study_uid: str, series_uid: str, sop_uid: str) -> Path | None:
        """The file of one instance, or None."""
        rows = self._database.query("SELECT sha256 FROM instance WHERE sop_uid=? AND series_uid=? AND study_uid=?",
                                    (sop_uid, series_uid, study_uid))
        return self.path_of(rows[0][0]) if rows else None

    def listing(self) -> list[dict[str, object]]:
        """Every instance as `GET /_sandbox/state` shows it, oldest first."""
        rows = self._database.query(f"SELECT {', '.join(STATE_COLUMNS)} FROM instance ORDER BY number")  # noqa: S608
        return [dict(zip(STATE_COLUMNS, row, strict=True)) for row in rows]

    def totals(self) -> tuple[int, int]:
        """(number of instances, their bytes)."""
        count, size = self._database.query("SELECT count(*), coalesce(sum(bytes), 0) FROM instance")[0]
        return int(count), int(size)

    def delete_all(self) -> None:
        """Forget all instances and remove their files."""
        with self._database.transaction():
            rows = self._database.query("SELECT sha256 FROM instance")
            self._database.query("DELETE FROM instance")
            for (sha256,) in rows:
                self.path_of(sha256).unlink(missing_ok=True)
