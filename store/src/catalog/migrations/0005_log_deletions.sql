-- Entries of logs that somebody wants gone: those of `query` from `start` until before `end` (nanoseconds of events since
-- 1970) that the log had by its record `sequence`; it was asked for at `through`. Finished ones stay for a while, so that the write-ahead log brings nothing back.
CREATE TABLE log_deletions (
    id INTEGER PRIMARY KEY,
    query TEXT NOT NULL,
    start INTEGER NOT NULL,
    end INTEGER NOT NULL,
    through INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    state INTEGER NOT NULL CHECK (state IN (0, 1, 2, 3)),
    pages INTEGER NOT NULL,
    pages_done INTEGER NOT NULL,
    removed INTEGER NOT NULL,
    trouble TEXT
) STRICT;
