-- Which metrics anybody asked for, and when last, in milliseconds: names, and patterns of names. `is_pattern` is 2 of
-- the one row that says since when this is written down.
CREATE TABLE queried (
    is_pattern INTEGER NOT NULL CHECK (is_pattern IN (0, 1, 2)),
    name TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (is_pattern, name)
) STRICT, WITHOUT ROWID;
