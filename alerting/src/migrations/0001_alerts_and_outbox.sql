-- Alerts of every rule, as of its last evaluation.
CREATE TABLE alerts (
    rule TEXT NOT NULL,
    labels TEXT NOT NULL,
    annotations TEXT NOT NULL,
    state TEXT NOT NULL,
    value_bits INTEGER NOT NULL,
    active_at INTEGER NOT NULL,
    fired_at INTEGER,
    resolved_at INTEGER,
    keep_firing_since INTEGER,
    PRIMARY KEY (rule, labels)
) STRICT, WITHOUT ROWID;

-- When each rule was last evaluated, in Unix milliseconds.
CREATE TABLE evaluations (
    rule TEXT PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What each receiver was last told of each group: fingerprints with blanks between them.
CREATE TABLE notified (
    receiver TEXT NOT NULL,
    group_key TEXT NOT NULL,
    firing TEXT NOT NULL,
    resolved TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (receiver, group_key)
) STRICT, WITHOUT ROWID;

-- Notifications: pending, sent, or dead.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    receiver TEXT NOT NULL,
    url TEXT NOT NULL,
    group_key TEXT NOT NULL,
    body TEXT NOT NULL,
    created INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_try INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending',
    last_error TEXT NOT NULL DEFAULT '',
    changed INTEGER NOT NULL
) STRICT;
CREATE INDEX outbox_pending ON outbox (receiver, url, id) WHERE state = 'pending';
