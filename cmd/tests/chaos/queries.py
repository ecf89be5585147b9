#!/usr/bin/env python3
"""Throws questions at a server that no server can answer, and asks a small one every tenth of a second meanwhile.

The lines are those of `make bench-logs`, from the load generator outside of this repository (--bench). Fails if the server
ended, an answer came long after its deadline, the server took more memory than it was given, or nobody got an answer.
`make chaos-queries` runs it.
"""

import argparse
import collections
import http.client
import json
import random
import shutil
import socket
import sys
import tempfile
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cardinality
from bombs import all_bombs
from lines import STEP_MS
from load import field, snappy, varint
from server import Server

sys.path.append(str(Path(__file__).resolve().parents[2] / "benches/peers"))
from metrics import Bench

TIMEOUT_SECONDS = 5.0
# After its deadline an answer may come by so much later: two cores, and whoever asks shares them.
OVERRUN_SECONDS = 3.0
# 256 MiB of what one query may hold, and a gigabyte of all; the rest is caches, the head of the series, open pages.
SAMPLES, SAMPLES_TOTAL = 16_000_000, 64_000_000
RSS_MIB = 2048
SERIES = 200_000
GIANTS, GIANT_BYTES = 1500, 200_000
READERS, READER_SECONDS = 60, 20
# Of an answer; a client that has enough goes.
READ_MAX = 256 << 20
IN_THE_ANSWER = "at its end"


class Data:
    """What the bombs are about."""

    def __init__(self, meta):
        start, end = meta["start_ms"] * 1_000_000, meta["end_ms"] * 1_000_000
        self.span_ns = {"start": start, "end": end}
        self.seconds = (meta["end_ms"] - meta["start_ms"]) // 1000
        self.metrics_end = int(time.time())
        giant = int(time.time() - 86_400) * 1_000_000_000
        self.giant_ns = {"start": giant, "end": giant + GIANTS * STEP_MS * 1_000_000}
        self.giant_place = {"file": "giant", "offset": GIANTS // 2 * GIANT_BYTES}
        self.light = {**self.span_ns, "q": f'"request completed" AND namespace:{meta["vars"]["namespace"]}', "limit": 10}


def push_giants(server, data):
    """Lines of 200 kB in one file."""
    labels = {"namespace": "chaos", "pod": "giant"}
    stream = b"".join(field(4, field(1, name.encode()) + field(2, labels[name].encode())) for name in labels)
    for first in range(0, GIANTS, 50):
        entries = bytearray()
        for number in range(first, first + 50):
            blob = random.Random(number).randbytes(GIANT_BYTES // 2 - 100).hex()
            at = data.giant_ns["start"] + number * STEP_MS * 1_000_000
            message = json.dumps({"number": number, "blob": blob}).encode()
            offset = b"\x10" + varint(number * GIANT_BYTES)
            entries += field(5, b"\x09" + at.to_bytes(8, "little") + offset + field(3, message))
        head = field(1, b"giant") + b"\x10" + varint(first * GIANT_BYTES) + b"\x18" + varint((first + 50) * GIANT_BYTES)
        headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
        server.post("/api/collect/logs", snappy(field(1, head + stream + bytes(entries))), headers)


def fill(server, bench, folder, data, wanted):
    """Lines, giant lines, series."""
    said = bench.run("push-logs", "--protocol", "loki", "--url", server.url + "/loki/api/v1/push", "--dir", folder)
    print(said.strip())
    push_giants(server, data)
    for at in range(3):
        for first in range(0, SERIES, cardinality.PER_BATCH):
            numbers = range(first, first + cardinality.PER_BATCH)
            moment = (data.metrics_end - 1800 + at * 600) * 1000
            cardinality.push(server, "exploding", "bomb", numbers, moment)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        query = urllib.parse.urlencode({**data.span_ns, "q": "*", "limit": 1})
        found = json.loads(server.get(f"/api/logs/search?{query}"))["data"]["total"]
        if found >= wanted:
            return found
        time.sleep(1)
    raise SystemExit(f"{found} of {wanted} lines can be found")


def ask(port, path, parameters, user):
    """Status, seconds until the end of the answer, bytes of it."""
    form = urllib.parse.urlencode(parameters, doseq=True)
    headers = {"X-Grafana-User": user, "Content-Type": "application/x-www-form-urlencoded"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    began, size = time.monotonic(), 0
    try:
        # What is too long for an address comes as a form; those who take none have short ones.
        if len(form) > 1000:
            connection.request("POST", path, form, headers)
        else:
            connection.request("GET", f"{path}?{form}", headers=headers)
        answer = connection.getresponse()
        status, last = answer.status, b""
        while size < READ_MAX and (piece := answer.read(1 << 20)):
            size += len(piece)
            last = piece
        # What comes in pieces says at its end that there is no more of it.
        if status == 200 and last.rstrip().rsplit(b"\n", 1)[-1].startswith(b'{"type":"error"'):
            status = IN_THE_ANSWER
        return status, time.monotonic() - began, size
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error!r}"[:80], time.monotonic() - began, size
    finally:
        connection.close()


class Light(threading.Thread):
    """A small question every tenth of a second, by another user; whether or not the one before was answered."""

    def __init__(self, port, data):
        super().__init__(daemon=True)
        self.port, self.data, self.halt = port, data, threading.Event()
        self.took, self.refused = [], collections.Counter()

    def run(self):
        with ThreadPoolExecutor(100) as pool:
            while not self.halt.wait(0.1):
                pool.submit(self.one)

    def one(self):
        status, took, _ = ask(self.port, "/api/logs/search", self.data.light, "light")
        if status == 200:
            self.took.append(took)
        else:
            self.refused[status] += 1

    def report(self):
        took = sorted(self.took) or [float("inf")]
        p50, p99 = took[len(took) // 2] * 1000, took[int(len(took) * 0.99)] * 1000
        return f"p50 {p50:.0f} ms, p99 {p99:.0f} ms of {len(self.took)}, refused {dict(self.refused) or 0}"


def while_light(port, data, work):
    light = Light(port, data)
    light.start()
    result = work()
    light.halt.set()
    light.join()
    return result, light


def slow_reader(port, data, number, until):
    """Takes everything, a kilobyte in a tenth of a second."""
    kinds = ["ndjson", "csv", "text"]
    path = "/api/logs/export?" + urllib.parse.urlencode({**data.span_ns, "q": "*", "format": kinds[number % 3]})
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nX-Grafana-User: reader-{number}\r\n\r\n".encode())
        first = connection.recv(1024).decode(errors="replace").split(" ", 2)[1]
        while time.monotonic() < until:
            time.sleep(0.1)
            connection.recv(1024)
        return first


def read_slowly(port, data):
    """Exports of everything, by many clients who take their time."""
    until = time.monotonic() + READER_SECONDS
    with ThreadPoolExecutor(READERS) as pool:
        readers = [pool.submit(slow_reader, port, data, number, until) for number in range(READERS)]
    outcomes = collections.Counter()
    for reader in readers:
        outcomes["no answer" if reader.exception() else reader.result()] += 1
    return outcomes


def memory_mib(server, name):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) / 1024


def forget_peak(server):
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")


def throw(server, data, bombs, at_once):
    """The outcome of each: name, status, seconds, bytes."""
    def one(bomb):
        name, path, parameters = bomb
        outcome = ask(server.port, path, {"timeout": f"{TIMEOUT_SECONDS:.0f}s", **parameters}, "bomber")
        return name, *outcome

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, bombs))


def judge(options, server, outcomes, lights, readers):
    """Prints figures; answers faults."""
    statuses = collections.Counter(str(status) for _, status, _, _ in outcomes)
    name, _, worst, _ = max(outcomes, key=lambda outcome: outcome[2])
    faults = [f"{name}: {status}" for name, status, _, _ in outcomes
              if isinstance(status, str) and status != IN_THE_ANSWER
              or isinstance(status, int) and status >= 500 and status not in (503, 504)]
    faults += [f"{name}: {took:.1f} s" for name, _, took, _ in outcomes if took > TIMEOUT_SECONDS + OVERRUN_SECONDS]
    if server.process.poll() is not None:
        return [*faults, f"the server ended: {server.last_lines()}"]
    peak = memory_mib(server, "VmHWM")
    if peak > options.rss_mib:
        faults.append(f"peak RSS {peak:.0f} MiB, {options.rss_mib} are allowed")
    for light in lights:
        if not light.took or light.refused:
            faults.append(f"the light query: {light.report()}")
    faults += [f"{server.panics()} panics"] if server.panics() else []
    print(f"{len(outcomes)} bombs, {options.at_once} at once: answered {statuses.pop('200', 0)}, refused {dict(statuses)}; "
          f"deadline {TIMEOUT_SECONDS:.0f} s, worst overrun {max(0.0, worst - TIMEOUT_SECONDS):.2f} s ({name}); "
          f"{READERS} slow readers: {dict(readers)}; peak RSS {peak:.0f} MiB of {options.rss_mib}, {len(faults)} faults")
    return faults


def main():
    here = Path(__file__).resolve().parents[3]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binnacle", type=Path, required=True)
    parser.add_argument("--bench", type=Path, default=here.parent / "shared/bench", help="the load generator")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/binnacle", help="for the data")
    parser.add_argument("--lines", type=int, default=10_000_000)
    parser.add_argument("--at-once", type=int, default=3, help="bombs; four queries run at once on two cores")
    parser.add_argument("--rounds", type=int, default=1, help="of all bombs")
    parser.add_argument("--only", default="", help="bombs with this in their names")
    parser.add_argument("--rss-mib", type=int, default=RSS_MIB, help="that the server may take")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the order of the bombs")
    options = parser.parse_args()
    if not options.bench.is_dir():
        raise SystemExit(f"the load generator is not at {options.bench}: say --bench DIR")
    print(f"seed {options.seed}", flush=True)
    bench = Bench(options.bench, options.cache)
    source = bench.logs(options.lines)
    data = Data(json.loads((source / "meta.json").read_text()))
    folder = Path(tempfile.mkdtemp(prefix="binnacle-bombs-"))
    limits = ["--query-max-samples", str(SAMPLES), "--query-max-samples-total", str(SAMPLES_TOTAL)]
    limits += ["--query-timeout", f"{TIMEOUT_SECONDS:.0f}s"]
    server = Server(options.binnacle, folder / "data", folder / "server.log", limits)
    bombs = [bomb for bomb in all_bombs(data) if options.only in bomb[0]] * options.rounds
    random.Random(options.seed).shuffle(bombs)
    server.start()
    try:
        lines = fill(server, bench, source, data, options.lines)
        print(f"{lines} lines, {SERIES} series; RSS {memory_mib(server, 'VmRSS'):.0f} MiB", flush=True)
        _, alone = while_light(server.port, data, lambda: time.sleep(10))
        forget_peak(server)
        outcomes, beside = while_light(server.port, data, lambda: throw(server, data, bombs, options.at_once))
        readers, reading = while_light(server.port, data, lambda: read_slowly(server.port, data))
        for name, status, took, size in sorted(outcomes, key=lambda outcome: -outcome[2])[:12]:
            print(f"  {took:6.2f} s  {status}  {size:>10} bytes  {name}")
        print(f"the light query alone: {alone.report()}; beside bombs: {beside.report()}; "
              f"beside slow readers: {reading.report()}")
        faults = judge(options, server, outcomes, (alone, beside, reading), readers)
    finally:
        server.kill()
    for fault in faults[:20]:
        print(f"  {fault}")
    if faults:
        raise SystemExit(f"{len(faults)} faults; what was printed is in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
