-- The first schema. Written once for both engines: INTEGER is 64 bits on each (BIGINT on PostgreSQL), BLOB is BYTEA there;
-- ${serial}, ${writer_xact} and ${bytewise} are filled in by store.py. Columns named *_at are UTC epoch milliseconds, JSON is
-- kept as TEXT.
-- A migration never changes once it was released: a new table or column is a new numbered file.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- Rules, devices, users, lanes and aliases as changed in pages or the API; a rollback is a new revision with an old body.
CREATE TABLE catalogue (
    kind        TEXT NOT NULL,
    name        TEXT NOT NULL,
    revision    INTEGER NOT NULL,
    author      TEXT NOT NULL,
    at          INTEGER NOT NULL,
    body        TEXT,
    restored_revision INTEGER,
    PRIMARY KEY (kind, name, revision)
);

-- What we hold and ever held ------------------------------------------------------------------------------------

-- unsettled_since: arrival of the first instance after the last settled revision (NULL: none).
-- purged: the bytes of every instance are gone (rows stay).
-- described_revision: the settled revision up to which its headers were parsed in full (series_metadata).
-- registrations: how often the study was settled, which is how often a further one has to wait longer.
-- listed_at: arrival of the instance that was indexed first; lists are ordered by it, so it never changes.
CREATE TABLE study (
    study_uid          TEXT PRIMARY KEY,
    revision           INTEGER NOT NULL DEFAULT 0,
    settled_revision   INTEGER NOT NULL DEFAULT 0,
    settled_at         INTEGER,
    registrations      INTEGER NOT NULL DEFAULT 0,
    described_revision INTEGER NOT NULL DEFAULT 0,
    first_arrived_at   INTEGER NOT NULL,
    last_arrived_at    INTEGER NOT NULL,
    listed_at          INTEGER NOT NULL DEFAULT 0,
    unsettled_since    INTEGER,
    settle_requested   INTEGER NOT NULL DEFAULT 0,
    urgent             INTEGER NOT NULL DEFAULT 0,
    conflict           INTEGER NOT NULL DEFAULT 0,
    instances          INTEGER NOT NULL DEFAULT 0,
    purged             INTEGER NOT NULL DEFAULT 0,
    patient_id         TEXT NOT NULL DEFAULT '',
    patient_name       TEXT NOT NULL DEFAULT '',
    patient_birth_date TEXT NOT NULL DEFAULT '',
    patient_sex        TEXT NOT NULL DEFAULT '',
    study_date         TEXT NOT NULL DEFAULT '',
    study_time         TEXT NOT NULL DEFAULT '',
    study_id           TEXT NOT NULL DEFAULT '',
    description        TEXT NOT NULL DEFAULT ''
);
CREATE INDEX study_unsettled ON study (unsettled_since) WHERE revision > settled_revision;
CREATE INDEX study_age ON study (last_arrived_at, study_uid) WHERE purged = 0;
CREATE INDEX study_patient ON study (patient_id);
CREATE INDEX study_day ON study (study_date, listed_at, study_uid);
CREATE INDEX study_listed ON study (listed_at, study_uid);
CREATE INDEX study_undescribed ON study (settled_at) WHERE described_revision < settled_revision AND purged = 0;

-- The accessions under which a study's instances came; '' is "none".
CREATE TABLE study_part (
    study_uid TEXT NOT NULL REFERENCES study (study_uid),
    part      TEXT NOT NULL,
    PRIMARY KEY (study_uid, part)
);
CREATE INDEX study_part_accession ON study_part (part);

CREATE TABLE series (
    study_uid     TEXT NOT NULL REFERENCES study (study_uid),
    series_uid    TEXT NOT NULL,
    modality      TEXT NOT NULL DEFAULT '',
    series_number TEXT NOT NULL DEFAULT '',
    description   TEXT NOT NULL DEFAULT '',
    body_part     TEXT NOT NULL DEFAULT '',
    series_date   TEXT NOT NULL DEFAULT '',
    series_time   TEXT NOT NULL DEFAULT '',
    instances     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (study_uid, series_uid)
);

-- One row per accepted set of bytes; rows outlive purged bytes. At most one row per SOP Instance UID is current.
-- committed_at: when a modality was promised last that it may delete its own (storage commitment).
CREATE TABLE instance (
    id                  TEXT PRIMARY KEY,
    study_uid           TEXT NOT NULL REFERENCES study (study_uid),
    part                TEXT NOT NULL,
    series_uid          TEXT NOT NULL,
    sop_uid             TEXT NOT NULL,
    sop_class_uid       TEXT NOT NULL,
    transfer_syntax_uid TEXT NOT NULL,
    is_current          INTEGER NOT NULL,
    sha256              TEXT NOT NULL,
    dataset_offset      INTEGER NOT NULL,
    dataset_bytes       INTEGER NOT NULL,
    location            TEXT NOT NULL,
    purging_at          INTEGER,
    purged_at           INTEGER,
    committed_at        INTEGER,
    arrived_at          INTEGER NOT NULL,
    association_id      TEXT NOT NULL,
    calling_aet         TEXT NOT NULL,
    called_aet          TEXT NOT NULL,
    peer_address        TEXT NOT NULL,
    source              TEXT NOT NULL,
    accession_number    TEXT NOT NULL,
    patient_id          TEXT NOT NULL,
    patient_name        TEXT NOT NULL,
    patient_birth_date  TEXT NOT NULL,
    patient_sex         TEXT NOT NULL,
    study_date          TEXT NOT NULL,
    study_time          TEXT NOT NULL,
    study_description   TEXT NOT NULL,
    study_id            TEXT NOT NULL,
    modality            TEXT NOT NULL,
    series_number       TEXT NOT NULL,
    series_description  TEXT NOT NULL,
    series_date         TEXT NOT NULL,
    series_time         TEXT NOT NULL,
    body_part           TEXT NOT NULL,
    instance_number     TEXT NOT NULL,
    image_type          TEXT NOT NULL,
    number_of_frames    TEXT NOT NULL,
    timezone_offset     TEXT NOT NULL,
    station_name        TEXT NOT NULL,
    institution_name    TEXT NOT NULL,
    character_set       TEXT NOT NULL
);
CREATE UNIQUE INDEX instance_current ON instance (sop_uid) WHERE is_current = 1;
CREATE INDEX instance_beside ON instance (sop_uid) WHERE is_current = 0;
CREATE INDEX instance_purging ON instance (purging_at) WHERE purging_at IS NOT NULL AND purged_at IS NULL;
CREATE INDEX instance_study ON instance (study_uid, part);

-- The same data set again: no instance row, but the entry is known.
CREATE TABLE duplicate (
    id         TEXT PRIMARY KEY,
    of_id      TEXT NOT NULL REFERENCES instance (id),
    arrived_at INTEGER NOT NULL
);
CREATE INDEX duplicate_of ON duplicate (of_id);

-- Entries that were being parsed (starts: how often) and entries that were set aside.
CREATE TABLE parsing (
    entry_id  TEXT PRIMARY KEY,
    starts    INTEGER NOT NULL,
    study_uid TEXT NOT NULL DEFAULT ''
);
-- study_uid: the study that lacks the entry, '' if nobody knows; accepted_at: a person lets the study go without it.
CREATE TABLE bad (
    entry_id       TEXT PRIMARY KEY,
    reason         TEXT NOT NULL,
    at             INTEGER NOT NULL,
    study_uid      TEXT NOT NULL DEFAULT '',
    association_id TEXT NOT NULL DEFAULT '',
    accepted_at    INTEGER
);
CREATE INDEX bad_study ON bad (study_uid);

-- ended_at NULL: open as far as we know. studies: {study UID: count}, refused: {status: count}.
CREATE TABLE association (
    association_id TEXT PRIMARY KEY,
    node           TEXT NOT NULL DEFAULT '',
    slot           TEXT NOT NULL DEFAULT '',
    boot           TEXT NOT NULL DEFAULT '',
    calling_aet    TEXT NOT NULL DEFAULT '',
    called_aet     TEXT NOT NULL DEFAULT '',
    peer_address   TEXT NOT NULL DEFAULT '',
    started_at     INTEGER NOT NULL,
    ended_at       INTEGER,
    how            TEXT NOT NULL DEFAULT '',
    studies        TEXT NOT NULL DEFAULT '{}',
    refused        TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX association_open ON association (slot) WHERE ended_at IS NULL;

CREATE TABLE association_study (
    study_uid      TEXT NOT NULL,
    association_id TEXT NOT NULL,
    last_at        INTEGER NOT NULL,
    PRIMARY KEY (study_uid, association_id)
);

-- Callers as seen, by title and address (no port), last_image_at NULL: no image yet; what people say about them is in catalogue, kind 'device'.
CREATE TABLE device (
    aet           TEXT NOT NULL,
    address       TEXT NOT NULL,
    first_seen_at INTEGER NOT NULL,
    last_seen_at  INTEGER NOT NULL,
    last_image_at INTEGER,
    PRIMARY KEY (aet, address)
);

-- What must go where ---------------------------------------------------------------------------------------------

-- settled_revision: the study's revision up to which items were planned; revision: that at the last claim;
-- done_revision: that at the last finish. priority: 0 urgent, 1 normal, 2 backlog.
-- accession: the number it is sent under where that was corrected, '' if it is the part's.
-- rules: the rule set by which it was last planned ('' none): what leaves for it is rewritten by these.
-- news: how often it reached a state that others want to know of; told: how many of these were handed to the outbox.
-- turns: steps that used up their time since it was opened. polling: 1 while WAITING only means looking again for
-- something that others bring (an order), as often as the lane allows.
-- node: the spool that holds all bytes still to go ('' anywhere). opened_at: since when it is unfinished.
CREATE TABLE job (
    job_id           ${serial},
    kind             TEXT NOT NULL,
    destination      TEXT NOT NULL,
    environment      TEXT NOT NULL,
    study_uid        TEXT NOT NULL,
    part             TEXT NOT NULL,
    state            TEXT NOT NULL,
    reason_code      TEXT NOT NULL DEFAULT '',
    reason           TEXT NOT NULL DEFAULT '',
    detail           TEXT NOT NULL DEFAULT '{}',
    attempts         INTEGER NOT NULL DEFAULT 0,
    turns            INTEGER NOT NULL DEFAULT 0,
    polling          INTEGER NOT NULL DEFAULT 0,
    priority         INTEGER NOT NULL DEFAULT 1 CHECK (priority BETWEEN 0 AND 2),
    due_at           INTEGER NOT NULL,
    revision         INTEGER NOT NULL DEFAULT 0,
    done_revision    INTEGER NOT NULL DEFAULT 0,
    settled_revision INTEGER NOT NULL DEFAULT 0,
    node             TEXT NOT NULL DEFAULT '',
    lease            TEXT NOT NULL DEFAULT '',
    lease_until      INTEGER NOT NULL DEFAULT 0,
    leased_by        TEXT NOT NULL DEFAULT '',
    lease_losses     INTEGER NOT NULL DEFAULT 0,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    opened_at        INTEGER NOT NULL,
    waiting_since    INTEGER,
    escalated_at     INTEGER,
    done_at          INTEGER,
    accession        TEXT NOT NULL DEFAULT '',
    rules            TEXT NOT NULL DEFAULT '',
    news             INTEGER NOT NULL DEFAULT 0,
    told             INTEGER NOT NULL DEFAULT 0,
    UNIQUE (kind, destination, study_uid, part)
);
CREATE INDEX job_fresh ON job (destination, environment, priority, turns, opened_at DESC, job_id DESC)
    WHERE state = 'queued';
CREATE INDEX job_again ON job (destination, environment, priority, due_at, job_id)
    WHERE state IN ('deferred', 'waiting') AND polling = 0;
CREATE INDEX job_poll_longest ON job (destination, environment, due_at, job_id)
    WHERE state = 'waiting' AND polling = 1;
CREATE INDEX job_poll_newest ON job (destination, environment, opened_at DESC, job_id DESC)
    WHERE state = 'waiting' AND polling = 1;
CREATE INDEX job_active ON job (lease_until) WHERE state = 'active';
CREATE INDEX job_behind ON job (job_id) WHERE state = 'done' AND done_revision < settled_revision;
CREATE INDEX job_accession ON job (accession) WHERE accession <> '';
CREATE INDEX job_news ON job (job_id) WHERE news > told;
CREATE INDEX job_state ON job (state, job_id);
CREATE INDEX job_study ON job (study_uid, kind, state);

CREATE TABLE job_facts (
    job_id      INTEGER NOT NULL REFERENCES job (job_id),
    environment TEXT NOT NULL,
    facts       TEXT NOT NULL,
    PRIMARY KEY (job_id, environment)
);

-- revision: the settled revision that brought the item. sha256 and size_bytes are those of the frozen bytes.
CREATE TABLE item (
    item_id     ${serial},
    job_id      INTEGER NOT NULL REFERENCES job (job_id),
    environment TEXT NOT NULL,
    instance_id TEXT NOT NULL REFERENCES instance (id),
    revision    INTEGER NOT NULL,
    state       TEXT NOT NULL,
    sha256      TEXT NOT NULL DEFAULT '',
    size_bytes  INTEGER NOT NULL DEFAULT 0,
    recipe      TEXT NOT NULL DEFAULT '{}',
    sends       INTEGER NOT NULL DEFAULT 0,
    answer      TEXT NOT NULL DEFAULT '{}',
    UNIQUE (job_id, instance_id, environment)
);
CREATE INDEX item_sending ON item (job_id, state, item_id);
CREATE INDEX item_instance ON item (instance_id);

CREATE TABLE intent (
    intent_id   ${serial},
    job_id      INTEGER NOT NULL REFERENCES job (job_id),
    environment TEXT NOT NULL,
    verb        TEXT NOT NULL,
    opened_at   INTEGER NOT NULL,
    deadline_at INTEGER NOT NULL,
    answered_at INTEGER,
    answer      TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX intent_job ON intent (job_id, verb);

-- A lane is paused while paused_until lies ahead; failures: how often in a row it was paused by its breaker, down_since:
-- since when (0: not). While standby_until lies ahead, the destination `standby` takes its studies; then its own is tried.
CREATE TABLE lane (
    name         TEXT PRIMARY KEY,
    paused_until INTEGER NOT NULL DEFAULT 0,
    paused_by    TEXT NOT NULL DEFAULT '',
    reason_code  TEXT NOT NULL DEFAULT '',
    reason       TEXT NOT NULL DEFAULT '',
    failures     INTEGER NOT NULL DEFAULT 0,
    down_since   INTEGER NOT NULL DEFAULT 0,
    updated_at   INTEGER NOT NULL,
    alert_code   TEXT NOT NULL DEFAULT '',
    alert        TEXT NOT NULL DEFAULT '',
    alert_at     INTEGER NOT NULL DEFAULT 0,
    standby_until INTEGER NOT NULL DEFAULT 0,
    standby       TEXT NOT NULL DEFAULT ''
);

-- Orders known before their images, whatever brought them.
CREATE TABLE known_order (
    source           TEXT NOT NULL,
    order_id         TEXT NOT NULL,
    accession_number TEXT NOT NULL,
    received_at      INTEGER NOT NULL,
    day              TEXT NOT NULL DEFAULT '',
    mrn              TEXT NOT NULL DEFAULT '',
    body             TEXT NOT NULL,
    PRIMARY KEY (source, order_id)
);
CREATE INDEX known_order_accession ON known_order (accession_number);
CREATE INDEX known_order_day ON known_order (day);

-- What people decided about a study; rows are revoked, never changed.
CREATE TABLE decision (
    decision_id ${serial},
    study_uid   TEXT NOT NULL,
    part        TEXT NOT NULL DEFAULT '',
    kind        TEXT NOT NULL,
    body        TEXT NOT NULL DEFAULT '{}',
    reason      TEXT NOT NULL,
    who         TEXT NOT NULL,
    at          INTEGER NOT NULL,
    revoked_at  INTEGER
);
CREATE INDEX decision_study ON decision (study_uid, kind);

-- For people; no code decides by reading it. xact lets a feed know which transactions have ended.
CREATE TABLE event (
    event_id  ${serial},
    xact      ${writer_xact},
    at        INTEGER NOT NULL,
    study_uid TEXT NOT NULL DEFAULT '',
    job_id    INTEGER,
    code      TEXT NOT NULL,
    text      TEXT NOT NULL,
    fields    TEXT NOT NULL DEFAULT '{}',
    who       TEXT NOT NULL DEFAULT ''
);
CREATE INDEX event_study ON event (study_uid, event_id);
CREATE INDEX event_feed ON event (xact, event_id);

-- Rules ----------------------------------------------------------------------------------------------------------

-- Every set of rules that was ever in force; revision is a hash of its texts. body: the rules in order.
CREATE TABLE rule_set (
    revision TEXT PRIMARY KEY,
    at       INTEGER NOT NULL,
    body     TEXT NOT NULL
);

-- Where the rules sent a study when it was last planned. nowhere: 1 if it went to no destination at all.
-- body: destinations with counts, rules that fired, holds.
CREATE TABLE routing (
    study_uid TEXT PRIMARY KEY REFERENCES study (study_uid),
    rules     TEXT NOT NULL,
    at        INTEGER NOT NULL,
    nowhere   INTEGER NOT NULL,
    body      TEXT NOT NULL
);
CREATE INDEX routing_nowhere ON routing (at) WHERE nowhere = 1;

-- Pseudonyms that left the hospital; body is encrypted with the router's key.
CREATE TABLE pseudonym (
    pseudonym TEXT PRIMARY KEY,
    key_id    TEXT NOT NULL,
    at        INTEGER NOT NULL,
    body      TEXT NOT NULL
);

-- Ways out and in beside the platform -----------------------------------------------------------------------------

-- What nodes said to our requests for storage commitment; reasons: {SOP Instance UID: Failure Reason, 0 committed}.
CREATE TABLE commitment_answer (
    transaction_uid TEXT PRIMARY KEY,
    calling_aet     TEXT NOT NULL,
    arrived_at      INTEGER NOT NULL,
    reasons         TEXT NOT NULL
);

-- Files of watched folders that were looked at: with this size and time they need not be looked at again.
CREATE TABLE watched (
    name      TEXT NOT NULL,
    path      TEXT NOT NULL,
    size      INTEGER NOT NULL,
    mtime_ns  INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    accepted  INTEGER NOT NULL,
    refused   INTEGER NOT NULL,
    reason    TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (name, path)
);

-- Alerts ----------------------------------------------------------------------------------------------------------

-- What is wrong by a rule of [alert:NAME], for as long as it is. subject: the device or lane it is about, '' for the
-- router itself. detail: numbers and moments, never patient data. told_at: when people were told last (NULL: never).
CREATE TABLE alert (
    alert_id        ${serial},
    rule            TEXT NOT NULL,
    condition       TEXT NOT NULL,
    subject         TEXT NOT NULL,
    detail          TEXT NOT NULL DEFAULT '{}',
    raised_at       INTEGER NOT NULL,
    told_at         INTEGER,
    acknowledged_at INTEGER,
    acknowledged_by TEXT NOT NULL DEFAULT '',
    cleared_at      INTEGER
);
CREATE UNIQUE INDEX alert_open ON alert (rule, condition, subject) WHERE cleared_at IS NULL;
CREATE INDEX alert_past ON alert (rule, condition, subject, alert_id);

-- Free space of a node's spool, once an hour, for a week.
CREATE TABLE disk_sample (
    node       TEXT NOT NULL,
    hour_at    INTEGER NOT NULL,
    free_bytes INTEGER NOT NULL,
    PRIMARY KEY (node, hour_at)
);

-- What pages ask -------------------------------------------------------------------------------------------------

-- What a study can be found by: kind "name" (words of the patient's name), "patient" (Patient ID), "modality", "caller"
-- (AE title). at is the study's listed_at, so that the newest are found first without sorting.
CREATE TABLE study_term (
    kind      TEXT NOT NULL,
    term      TEXT${bytewise} NOT NULL,
    at        INTEGER NOT NULL,
    study_uid TEXT NOT NULL,
    PRIMARY KEY (kind, term, at, study_uid)
);
CREATE INDEX study_term_study ON study_term (study_uid, kind, term);

-- New images and their bytes by hour of arrival, caller and modality: what charts and forecasts add up.
CREATE TABLE tally (
    hour_at     INTEGER NOT NULL,
    calling_aet TEXT NOT NULL,
    modality    TEXT NOT NULL,
    instances   INTEGER NOT NULL,
    size_bytes  INTEGER NOT NULL,
    PRIMARY KEY (hour_at, calling_aet, modality)
);

-- What is not delivered yet, and why; and what was delivered lately.
CREATE INDEX job_open ON job (state, reason_code, destination, opened_at, job_id, kind, study_uid)
    WHERE state <> 'done' AND state <> 'cancelled';
CREATE INDEX job_not_proven ON job (state, reason_code, job_id, destination)
    WHERE state = 'done' AND reason_code = 'not-proven';
CREATE INDEX job_delivered ON job (kind, state, updated_at, study_uid) WHERE state = 'done' AND kind = 'deliver';

-- Who may come in, and who did what ------------------------------------------------------------------------------

-- name: lower case. password: as passwords.py writes it, '' where only single sign-on lets this person in.
-- subject: "<issuer> <sub>" of single sign-on, '' for none. must_change: the password was given by somebody else.
CREATE TABLE account (
    name          TEXT PRIMARY KEY,
    role          TEXT NOT NULL,
    password      TEXT NOT NULL DEFAULT '',
    must_change   INTEGER NOT NULL DEFAULT 0,
    subject       TEXT NOT NULL DEFAULT '',
    created_at    INTEGER NOT NULL,
    created_by    TEXT NOT NULL,
    disabled_at   INTEGER,
    last_login_at INTEGER
);
CREATE UNIQUE INDEX account_subject ON account (subject) WHERE subject <> '';

-- session_id names the session in the audit trail; only the hash of what the browser holds is kept.
CREATE TABLE web_session (
    token_sha256 TEXT PRIMARY KEY,
    session_id   TEXT NOT NULL UNIQUE,
    account      TEXT NOT NULL REFERENCES account (name),
    address      TEXT NOT NULL,
    started_at   INTEGER NOT NULL,
    seen_at      INTEGER NOT NULL
);
CREATE INDEX web_session_account ON web_session (account);
CREATE INDEX web_session_seen ON web_session (seen_at);

-- rights: words with blanks between.
CREATE TABLE api_key (
    key_id        TEXT PRIMARY KEY,
    name          TEXT NOT NULL,
    secret_sha256 TEXT NOT NULL,
    rights        TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    created_by    TEXT NOT NULL,
    expires_at    INTEGER,
    revoked_at    INTEGER,
    used_at       INTEGER
);

-- Failed logins in a row, by account and address, by account, and by address; the subject is hashed.
CREATE TABLE login_failure (
    subject    TEXT PRIMARY KEY,
    failures   INTEGER NOT NULL,
    last_at    INTEGER NOT NULL,
    open_again_at INTEGER NOT NULL
);

-- Append-only: hash is SHA-256 over the hash before and the canonical JSON of the row. study_uid: whose data was
-- looked at, '' for none. fields: before, after and whatever else the action has to say.
CREATE TABLE audit (
    seq       INTEGER PRIMARY KEY,
    at        INTEGER NOT NULL,
    author    TEXT NOT NULL,
    address   TEXT NOT NULL,
    session   TEXT NOT NULL,
    action    TEXT NOT NULL,
    subject   TEXT NOT NULL,
    study_uid TEXT NOT NULL,
    fields    TEXT NOT NULL,
    hash      TEXT NOT NULL
);
CREATE INDEX audit_study ON audit (study_uid, seq) WHERE study_uid <> '';
CREATE INDEX audit_session ON audit (session, action, subject, at) WHERE session <> '';
CREATE INDEX audit_author ON audit (author, seq);

CREATE TABLE audit_head (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    seq  INTEGER NOT NULL,
    hash TEXT NOT NULL
);

-- How far each exporter has got; lease_until keeps two nodes from sending the same.
CREATE TABLE audit_export (
    name        TEXT PRIMARY KEY,
    seq         INTEGER NOT NULL,
    leased_by   TEXT NOT NULL DEFAULT '',
    lease_until INTEGER NOT NULL DEFAULT 0
);

-- What was answered to requests with an Idempotency-Key, for a day; owner: session or API key.
CREATE TABLE replay (
    owner          TEXT NOT NULL,
    replay_key     TEXT NOT NULL,
    request_sha256 TEXT NOT NULL,
    answer         TEXT NOT NULL,
    at             INTEGER NOT NULL,
    PRIMARY KEY (owner, replay_key)
);
CREATE INDEX replay_at ON replay (at);
-- What full parsing found, a row per series --------------------------------------------------------------------

-- instances: their ids in the order of the lines of body, which is gzip; unparsed: {instance id: why it has no line}.
CREATE TABLE series_metadata (
    study_uid  TEXT NOT NULL,
    series_uid TEXT NOT NULL,
    revision   INTEGER NOT NULL,
    built_at   INTEGER NOT NULL,
    instances  TEXT NOT NULL,
    unparsed   TEXT NOT NULL,
    body       BLOB NOT NULL,
    PRIMARY KEY (study_uid, series_uid)
);
