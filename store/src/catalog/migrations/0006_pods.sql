-- What Kubernetes says of pods whose lines are stored. Pods of one workload mostly have the same labels, which are kept
-- once, as JSON. `seen` are seconds since 1970.
CREATE TABLE pod_labels (
    id INTEGER PRIMARY KEY,
    labels TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE pods (
    uid TEXT NOT NULL PRIMARY KEY,
    labels_id INTEGER NOT NULL,
    seen INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
