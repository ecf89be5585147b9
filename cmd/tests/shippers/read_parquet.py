"""Rows of a Parquet file as two readers see them: read_parquet.py FILE. Ends with 77 where they are not installed."""

import json
import sys

try:
    import duckdb
    import pyarrow.parquet
except ImportError as error:
    print(error)
    sys.exit(77)

COLUMNS = ("message", "level", "namespace", "pod", "container", "service", "iostream", "trace_id", "span_id")


def by_duckdb(file):
    table = f"read_parquet('{file}')"
    kinds = dict(duckdb.sql(f"SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM {table})").fetchall())
    assert kinds["labels"] == kinds["attributes"] == "MAP(VARCHAR, VARCHAR)", kinds
    # It shows moments to the microsecond, and asks for their nanoseconds.
    names = ", ".join(COLUMNS)
    rows = duckdb.sql(
        f"SELECT epoch_ns(time), epoch_ns(received), {names}, hex(message_bytes), map_entries(labels),"
        f" map_entries(attributes) FROM {table}"
    ).fetchall()
    pairs = lambda entries: {entry["key"]: entry["value"] for entry in entries}
    return kinds, [[*row[:-2], pairs(row[-2]), pairs(row[-1])] for row in rows]


def by_pyarrow(file):
    table = pyarrow.parquet.read_table(file)
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds["time"] == kinds["received"] == "timestamp[ns, tz=UTC]", kinds
    columns = [table[name].cast("int64") for name in ("time", "received")] + [table[name] for name in COLUMNS]
    columns = [column.to_pylist() for column in columns]
    raw = [None if one is None else one.hex().upper() for one in table["message_bytes"].to_pylist()]
    maps = [[dict(pairs) for pairs in table[name].to_pylist()] for name in ("labels", "attributes")]
    return kinds, [list(row) for row in zip(*columns, raw, *maps)]


if __name__ == "__main__":
    kinds, first = by_duckdb(sys.argv[1])
    _, second = by_pyarrow(sys.argv[1])
    assert first == second, next(pair for pair in zip(first, second) if pair[0] != pair[1])
    json.dump({"time": kinds["time"], "rows": first}, sys.stdout)
