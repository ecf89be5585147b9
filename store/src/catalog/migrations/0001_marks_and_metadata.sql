-- First byte of each log file that has not been taken in.
CREATE TABLE log_marks (
    file TEXT PRIMARY KEY,
    mark INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What metrics are, by their own account.
CREATE TABLE metric_metadata (
    metric TEXT NOT NULL,
    kind TEXT NOT NULL,
    help TEXT NOT NULL,
    unit TEXT NOT NULL,
    PRIMARY KEY (metric, kind, help, unit)
) STRICT, WITHOUT ROWID;
