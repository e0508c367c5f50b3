-- The gateway's ledger, version 1. Never changed; what comes later is another migration.
-- Times are milliseconds since 1970, amounts are nanograms, digests are their 32 bytes.
CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE accounts (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    -- What may be spent in all; none is without a limit.
    credit INTEGER CHECK (credit >= 0),
    -- What finished jobs cost, and what accepted ones may still cost.
    spent INTEGER NOT NULL DEFAULT 0 CHECK (spent >= 0),
    reserved INTEGER NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    running_max INTEGER CHECK (running_max > 0),
    queued_max INTEGER CHECK (queued_max > 0)
) STRICT;

CREATE TABLE api_keys (
    hash BLOB PRIMARY KEY CHECK (length(hash) = 32),
    account INTEGER NOT NULL REFERENCES accounts (id),
    name TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    revoked INTEGER
) STRICT, WITHOUT ROWID;

-- Canonical bytes by their plain BLAKE3.
CREATE TABLE manifests (
    digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
    bytes BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE deployments (
    name TEXT PRIMARY KEY,
    manifest BLOB NOT NULL REFERENCES manifests (digest),
    shape TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
    sequence INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE CHECK (length(id) = 32),
    -- 0 accepted, 1 finished with a receipt, 2 ended without a run.
    state INTEGER NOT NULL CHECK (state IN (0, 1, 2)),
    account INTEGER NOT NULL REFERENCES accounts (id),
    manifest BLOB NOT NULL REFERENCES manifests (digest),
    deployment TEXT,
    accepted INTEGER NOT NULL,
    deadline INTEGER,
    time_max_ms INTEGER,
    -- Zero once the job ended.
    reserved INTEGER NOT NULL CHECK (reserved >= 0),
    finished INTEGER,
    price INTEGER CHECK (price >= 0),
    -- The job's own error (state 1), or whose fault it is that nothing ran and the exit code (2).
    error_code INTEGER,
    fault TEXT,
    error TEXT,
    request BLOB NOT NULL,
    input BLOB NOT NULL,
    receipt BLOB,
    opening BLOB,
    output BLOB,
    log BLOB
) STRICT;
CREATE INDEX jobs_open ON jobs (sequence) WHERE state = 0;
CREATE INDEX jobs_of_account ON jobs (account, sequence);
