-- When pods have lines, so that a query of an hour need not know those of a month: hours since 1970 of the first and the
-- last one, NULL if none came. `own` is what these say under names of metadata, as JSON; '' if that differs or is not known.
-- `labels_id` is 0 where lines came of which nobody knows the pod. `seen` is also when the last line came.
ALTER TABLE pods ADD COLUMN own TEXT;
ALTER TABLE pods ADD COLUMN first_hour INTEGER;
ALTER TABLE pods ADD COLUMN last_hour INTEGER;
-- The first day of intake (since 1970) of which all lines were noted there.
CREATE TABLE pods_noted_from (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    day INTEGER NOT NULL
) STRICT;
