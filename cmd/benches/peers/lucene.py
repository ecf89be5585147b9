"""The queries of `../queries/logs-lucene.json` through `/api/logs`, and what a scan of the lines says of each.

A query's `scan` is an expression of Perl's kind over the messages, which holds for as many lines as the answer says;
`files` narrows it to streams, `NAMESPACE_POD_CONTAINER`, and `case` is the text that LogQL counts where it regards the
letters' case. What a scan found stays in the data's folder.
"""

import fnmatch
import http.client
import json
import statistics
import subprocess
import time
from pathlib import Path
from urllib.parse import urlencode

QUERIES = Path(__file__).resolve().parents[1] / "queries/logs-lucene.json"
REPEATS = 10
WARMUPS = 2
# A query that takes seconds is not asked ten times.
PER_QUERY_S = 15.0
# The runtime's header in front of a message: time, stream, F.
HEADER = r"^\S+ \S+ F "


def filled(value, names):
    """The value with {{names}} filled in."""
    text = json.dumps(value)
    for name, of in names.items():
        text = text.replace("{{" + name + "}}", str(of))
    return json.loads(text)


def grep(pattern, paths, fixed=False):
    """Lines of each file that the expression finds."""
    kind = "-F" if fixed else "-P"
    command = ["nice", "grep", "-acH", kind, "-e", pattern, "--", *paths]
    out = subprocess.run(command, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    if out.returncode > 1:
        raise RuntimeError(f"grep {pattern}: {out.stderr}")
    counts = (line.rsplit(":", 1) for line in out.stdout.splitlines())
    return {Path(path).parent.name: int(count) for path, count in counts}


def header_is_searched(pattern):
    return pattern.removeprefix("(?i)").startswith("^")


def scan(folder, wanted):
    """Lines that hold what is wanted, by stream."""
    kept = folder / "scans.json"
    known = json.loads(kept.read_text()) if kept.exists() else {}
    key = json.dumps(wanted, sort_keys=True)
    if key not in known:
        streams = [path.parent for path in sorted(folder.glob("cri/*/0.log"))]
        streams = [path for path in streams if fnmatch.fnmatch(path.name, wanted.get("files", "*"))]
        pattern = wanted["words"]
        if header_is_searched(pattern):
            pattern = pattern.replace("^", HEADER, 1)
        known[key] = grep(pattern, [str(path / "0.log") for path in streams])
        if "case" in wanted:
            found = grep(wanted["case"], [str(path / "0.log") for path in streams], fixed=True)
            known[key + " as it stands"] = found
        kept.write_text(json.dumps(known))
    return known[key], known.get(key + " as it stands")


def found(path, data):
    """What an answer holds, in the words of the scan."""
    if path == "facets":
        return [value["count"] for value in data["facets"][0]["values"]]
    return data["total"] if data.get("total") is not None else len(data["entries"])


def expected(query, by_stream):
    """What an answer must hold, of a scan's counts."""
    total = sum(by_stream.values())
    if query["path"] == "facets":
        pods = {}
        for stream, count in by_stream.items():
            pod = stream.split("_")[1]
            pods[pod] = pods.get(pod, 0) + count
        return sorted((count for count in pods.values() if count), reverse=True)[:10]
    return min(total, 100) if query["params"].get("total") == "false" else total


def ask(server, query):
    """Milliseconds of each run, and the last answer."""
    address = f"/api/logs/{query['path']}?" + urlencode(query["params"])
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    times, began = [], time.monotonic()
    for run in range(WARMUPS + REPEATS):
        if run > 1 and time.monotonic() - began > PER_QUERY_S:
            break
        asked = time.monotonic()
        connection.request("GET", address)
        answer = connection.getresponse()
        body = answer.read()
        took = (time.monotonic() - asked) * 1000
        if answer.status != 200:
            return [took], {"error": body.decode(errors="replace")[:200]}
        times.append(took)
    connection.close()
    # Of a slow query the first run counts as well as a later one.
    return times[WARMUPS:] or times[1:] or times, json.loads(body)


def agreement(query, answer, folder, logql):
    """What was found, and whether it is what there is."""
    if "error" in answer:
        return answer["error"]
    data = answer["data"]
    ours = found(query["path"], data)
    notes = [str(sum(ours)) if isinstance(ours, list) else f"{ours}"]
    other = logql.get(query["name"])
    if "scan" in query:
        counted, as_it_stands = scan(folder, query["scan"])
        wanted = expected(query, counted)
        notes.append("as the scan" if ours == wanted else f"! the scan says {wanted}")
        if as_it_stands is not None:
            notes.append(f"{sum(as_it_stands.values())} as it stands; LogQL says {other}")
    elif other is not None:
        notes.append("as LogQL" if str(ours) == str(other) else f"! LogQL says {other}")
    notes += data.get("warnings") or []
    notes += [data["hint"]] if data.get("hint") else []
    return ", ".join(notes)


def measure(server, folder, meta, logql):
    """Asks every query; yields it with its p50 and best time in milliseconds, and what was found."""
    for query in filled(json.loads(QUERIES.read_text()), meta["vars"]):
        # Of nanoseconds, as the API takes numbers.
        query["params"] |= {"start": meta["start_ms"] * 1_000_000, "end": meta["end_ms"] * 1_000_000}
        times, answer = ask(server, query)
        yield query, statistics.median(times), min(times), agreement(query, answer, folder, logql)
