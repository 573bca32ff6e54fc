"""SQL for pictures: which instance stands for a study, and one instance by its UIDs.

Used by the web role; imports rows and store. Changes when another image should stand for a study.
"""
# ruff: noqa: S608 - only column names of ours are composed into SQL

from __future__ import annotations

from internal.errors import NotFound
from internal.model import Instance
from internal.rows import instance_from, select_instance
from internal.store import Tx

#: What has no image of the patient; shown only where a study has nothing else.
_LAST = ("SR", "KO", "PR", "DOC", "RTSTRUCT", "RTPLAN", "RTRECORD", "REG", "FID", "PLAN", "RWV", "ECG", "AU")


def representative(tx: Tx, study_uid: str) -> Instance:
    """Return the middle instance of the study's largest series of images whose bytes are here; raises NotFound."""
    places = ", ".join("?" * len(_LAST))
    series = tx.row(
        "SELECT series_uid, COUNT(*) FROM instance WHERE study_uid = ? AND is_current = 1 AND purged_at IS NULL"
        f" GROUP BY series_uid ORDER BY MIN(CASE WHEN modality IN ({places}) THEN 1 ELSE 0 END), COUNT(*) DESC,"
        " series_uid LIMIT 1", (study_uid, *_LAST))
    if series is None:
        raise NotFound("no image of this study is here")
    row = tx.row(
        f"SELECT {select_instance('i')} FROM instance i WHERE i.study_uid = ? AND i.series_uid = ? AND i.is_current = 1"
        " AND i.purged_at IS NULL ORDER BY LENGTH(i.instance_number), i.instance_number, i.id LIMIT 1 OFFSET ?",
        (study_uid, series[0], series[1] // 2))
    if row is None:
        raise NotFound("no image of this study is here")
    return instance_from(row)


def current_instance(tx: Tx, study_uid: str, sop_uid: str) -> Instance:
    """Return the current version of one instance, its bytes here or purged; raises NotFound."""
    row = tx.row(f"SELECT {select_instance('i')} FROM instance i WHERE i.study_uid = ? AND i.sop_uid = ?"
                 " AND i.is_current = 1 LIMIT 1", (study_uid, sop_uid))
    if row is None:
        raise NotFound("no such image in this study")
    return instance_from(row)
