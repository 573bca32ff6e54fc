"""A hospital's index of several years, written straight into SQLite: 200,000 studies and 5 million images by default.

Bulk SQL with indexes built afterwards, because the indexer would need minutes of fsync for the same rows. Everybody is
invented. Changes when the schema does.
"""

from __future__ import annotations

import time
from pathlib import Path

import apsw

from internal.store import Store

DAY_MS = 86_400_000
STUDIES, IMAGES_PER_STUDY, SERIES_PER_STUDY, DAYS = 200_000, 25, 5, 125
ENVIRONMENT = "https://staging.example|100000001"
_BULKY = ("study", "study_part", "series", "instance", "association_study", "job", "item", "event", "study_term")
FIRST = ("BUDI", "SITI", "AGUS", "DEWI", "EKO", "RINA", "JOKO", "SRI", "ANDI", "WATI", "HENDRA", "LESTARI", "BAMBANG",
         "YULI", "RUDI", "NING", "DARMA", "PUTU", "KADEK", "MADE", "WAYAN", "KETUT", "UJANG", "ASEP", "DEDI", "TITIN")
LAST = ("SANTOSO", "WIBOWO", "RAHAYU", "SETIAWAN", "HIDAYAT", "SAPUTRA", "KUSUMA", "PERMATA", "UTAMI", "NUGROHO",
        "SUSANTI", "PRATAMA", "GUNAWAN", "WIJAYA", "HARTONO", "SIREGAR", "NASUTION", "LUBIS", "TANJUNG", "SEMBIRING")
MODALITIES = ("CT", "MR", "CR", "DX", "US", "MG", "XA", "CR", "DX", "US")
_HELD = ("patient-mismatch", "several-orders", "partly-delivered", "foreign-imaging-study")


def build(path: Path, *, studies: int = STUDIES, days: int = DAYS, now: int | None = None) -> float:
    """Fill a new database at `path`; return how many seconds it took."""
    began_s = time.perf_counter()
    store = Store.open(f"sqlite:///{path}")
    store.migrate()
    store.close()
    db = apsw.Connection(str(path))
    for name, value in (("synchronous", "off"), ("cache_size", -400_000), ("temp_store", "memory"),
                        ("foreign_keys", 0)):
        db.pragma(name, value)
    indexes = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN"
                         f" ({', '.join('?' * len(_BULKY))})", _BULKY).fetchall()
    db.execute("BEGIN")
    for name, _ in indexes:
        db.execute(f"DROP INDEX {name}")
    _fill(db, studies, days, int(time.time() * 1000) if now is None else now)
    for _, sql in indexes:
        db.execute(sql)
    db.execute("COMMIT")
    db.pragma("wal_checkpoint", "truncate")
    db.close()
    return time.perf_counter() - began_s


def _fill(db: apsw.Connection, studies: int, days: int, now: int) -> None:
    _names(db, studies, days, now)
    for sql in (_STUDY, _PART, _SERIES, _INSTANCE, _ASSOCIATION, _JOB, _FACTS, _ITEM, _EVENT, *_TERMS, _TALLY, _DEVICE):
        db.execute(sql)


def _names(db: apsw.Connection, studies: int, days: int, now: int) -> None:
    """Write one temporary row per study that everything else is derived from; study 0 is the newest."""
    db.execute("CREATE TEMP TABLE g (n INTEGER PRIMARY KEY, at INTEGER, uid TEXT, first TEXT, last TEXT, modality TEXT,"
               " aet TEXT, state TEXT, code TEXT, day TEXT, settled INTEGER)")
    db.execute("CREATE TEMP TABLE k (k INTEGER PRIMARY KEY)")
    db.executemany("INSERT INTO k VALUES (?)", [(number,) for number in range(IMAGES_PER_STUDY)])
    step_ms = days * DAY_MS // studies

    def rows() -> object:
        for n in range(studies):
            at = now - n * step_ms
            state, code = "done", ""
            if n % 50 == 7:
                state, code = "waiting", "no-order"
            elif n % 100 == 13:
                state, code = "held", _HELD[n // 100 % len(_HELD)]
            elif n < studies // 500 and n % 5 == 1:
                state = "queued"
            elif n % 400 == 3:
                state, code = "deferred", "timeout"
            modality = MODALITIES[n % 10]
            yield (n, at, f"2.25.{10**30 + n}", FIRST[n % len(FIRST)], LAST[n // 7 % len(LAST)], modality,
                   f"{modality}{n % 4 + 1}", state, code, time.strftime("%Y%m%d", time.gmtime(at / 1000)),
                   int(n >= max(3, studies // 10_000)))

    db.executemany("INSERT INTO g VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows())


_STUDY = f"""INSERT INTO study (study_uid, revision, settled_revision, settled_at, registrations, first_arrived_at,
    last_arrived_at, listed_at, instances, patient_id, patient_name, patient_birth_date, patient_sex, study_date,
    study_time, description)
    SELECT uid, 1, settled, at + 60000, 1, at, at + 30000, at, {IMAGES_PER_STUDY}, 'RM' || (n / 3), last || '^' ||
    first,
    '19700101', 'M', day, '080000', modality || ' EXAMINATION' FROM temp.g"""
_PART = "INSERT INTO study_part SELECT uid, 'ACC' || n FROM temp.g"
_SERIES = f"""INSERT INTO series SELECT uid, uid || '.' || k, modality, k + 1, 'SERIES ' || k, 'CHEST', day, '080000',
    {IMAGES_PER_STUDY // SERIES_PER_STUDY} FROM temp.g, temp.k WHERE k < {SERIES_PER_STUDY}"""
_INSTANCE = f"""INSERT INTO instance SELECT printf('%08d-%02d', n, k), uid, 'ACC' || n, uid || '.' || (k %
    {SERIES_PER_STUDY}), uid || '.' || (k % {SERIES_PER_STUDY}) || '.' || k, '1.2.840.10008.5.1.4.1.1.2',
    '1.2.840.10008.1.2.1', 1, hex(zeroblob(32)),
    400, 526000, 'spool:node/' || printf('%08d-%02d', n, k), NULL, NULL, NULL, at + k * 1000,
    'slot.boot.' || n, aet, 'ROUTER', '192.0.2.' || (n % 40) || ':104', 'dimse', 'ACC' || n, 'RM' || (n / 3),
    last || '^' || first, '19700101', 'M', day, '080000', '', '', modality, '1', '', day, '080000', 'CHEST', k, '[]',
    '', '', '', '', '' FROM temp.g, temp.k"""
_ASSOCIATION = "INSERT INTO association_study SELECT uid, 'slot.boot.' || n, at FROM temp.g"
_JOB = f"""INSERT INTO job (job_id, kind, destination, environment, study_uid, part, state, reason_code, reason, due_at,
    revision, done_revision, settled_revision, node, created_at, updated_at, opened_at, waiting_since, polling)
    SELECT n + 1, 'deliver', 'satusehat', '{ENVIRONMENT}', uid, 'ACC' || n, state, code, '', at + 90000, 1,
    state = 'done', 1, 'node', at + 60000, at + 120000, at + 60000, CASE state WHEN 'waiting' THEN at + 61000 END,
    state = 'waiting' FROM temp.g WHERE settled ORDER BY n"""
_FACTS = f"""INSERT INTO job_facts SELECT n + 1, '{ENVIRONMENT}', json_object('service_request_id', 'sr' || n,
    'patient_id', 'p' || n, 'imaging_study_id', 'is' || n) FROM temp.g WHERE settled AND state = 'done'"""
_ITEM = f"""INSERT INTO item (job_id, environment, instance_id, revision, state, sha256, size_bytes, sends, answer)
    SELECT n + 1, '{ENVIRONMENT}', printf('%08d-%02d', n, k), 1, CASE state WHEN 'done' THEN 'stored' ELSE 'due' END,
    hex(zeroblob(32)), 526400, state = 'done', '{{}}' FROM temp.g, temp.k WHERE settled"""
_EVENT = """INSERT INTO event (at, study_uid, job_id, code, text) SELECT at + 60000 + k * 1000, uid, n + 1,
    CASE k WHEN 0 THEN 'job-planned' WHEN 1 THEN 'order-search' WHEN 2 THEN 'order-found' WHEN 3 THEN 'posted'
    WHEN 4 THEN 'push' ELSE 'job-done' END, 'text' FROM temp.g, temp.k
    WHERE settled AND k < CASE state WHEN 'done' THEN 6 ELSE 2 END"""
_TERMS = (
    "INSERT INTO study_term SELECT 'name', lower(first), at, uid FROM temp.g",
    "INSERT INTO study_term SELECT 'name', lower(last), at, uid FROM temp.g",
    "INSERT INTO study_term SELECT 'patient', 'rm' || (n / 3), at, uid FROM temp.g",
    "INSERT INTO study_term SELECT 'modality', modality, at, uid FROM temp.g",
    "INSERT INTO study_term SELECT 'caller', aet, at, uid FROM temp.g",
)
_TALLY = f"""INSERT INTO tally SELECT at - at % 3600000, aet, modality, COUNT(*) * {IMAGES_PER_STUDY},
    COUNT(*) * {IMAGES_PER_STUDY} * 526000 FROM temp.g GROUP BY 1, 2, 3"""
_DEVICE = """INSERT INTO device SELECT aet, '192.0.2.' || (n % 4 + 10), MIN(at), MAX(at),
    MAX(at) FROM temp.g GROUP BY 1, 2"""
