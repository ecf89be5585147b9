-- When somebody last spoke of a file, in days since 1970: without lines of that time left, its mark is of no use.
ALTER TABLE log_marks ADD COLUMN day INTEGER NOT NULL DEFAULT 0;
UPDATE log_marks SET day = CAST(strftime('%s', 'now') AS INTEGER) / 86400;
