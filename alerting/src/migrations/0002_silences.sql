-- Silences as API v2 shows them, without their state, which the time decides.
CREATE TABLE silences (
    id TEXT PRIMARY KEY,
    body TEXT NOT NULL,
    ends_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
