-- The last record of the write-ahead log of which all lines are in partitions, and its CRC-32C: SQLite itself would
-- not see that a bit has flipped.
CREATE TABLE logs_through (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    sequence INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
