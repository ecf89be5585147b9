-- A mark that a flipped bit raised would have lines that are new taken for known ones.
ALTER TABLE log_marks ADD COLUMN crc INTEGER;
