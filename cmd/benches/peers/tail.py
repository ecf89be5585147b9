#!/usr/bin/env python3
"""What the collector needs for the files of a node: MB/s and CPU-seconds per GB of them, from the disk to where it sends.

The lines are those of `make bench-logs`, as 160 containers, whose files the system has in memory already. --parts runs some of

    store   to a server, until it has acknowledged all of them
    sink    to somebody who acknowledges at once and looks at nothing: the collector's own work up to the point of sending

MB and GB are powers of ten and count bytes of the files, headers included. `make bench-tail` runs it.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from logs import anonymous_mb, appended, pods
from metrics import Bench, Binnacle

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests/chaos"))
from node import Collector

PARTS = "store,sink"
# For all of it; a collector that needs longer has stopped.
MOST_SECONDS = 300
POLL_S = 0.2
TAKEN = {"appended": 0, "duplicate": 0, "gap_bytes": 0}


def answer(what):
    body = json.dumps(what).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


class Sink:
    """Takes whatever is posted, and forgets it; of each file that it is asked for it has nothing."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.requests = self.bytes = 0
        self.problem = None
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.take_all, args=(connection,), daemon=True).start()

    def take_all(self, connection):
        buffer = memoryview(bytearray(4 << 20))
        try:
            while self.take_one(connection, buffer):
                pass
        except OSError:
            # Whoever sent is gone.
            pass
        finally:
            connection.close()

    def take_one(self, connection, buffer):
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(16 << 10)
            if not piece:
                return False
            head += piece
        head, _, rest = head.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
        if b"content-length" not in fields:
            self.problem = f"a body without a length: {head[:200]!r}"
            return False
        length = int(fields[b"content-length"])
        if head.startswith(b"POST /api/collect/marks "):
            while len(rest) < length:
                rest += connection.recv(1 << 20)
            connection.sendall(answer({"marks": [0] * len(json.loads(rest)["files"])}))
            return True
        left = length - len(rest)
        while left > 0:
            read = connection.recv_into(buffer, min(left, len(buffer)))
            if not read:
                return False
            left -= read
        self.requests += 1
        self.bytes += length
        connection.sendall(answer(TAKEN))
        return True


def read_once(containers):
    """Bytes and lines of all files, which are in the system's memory afterwards."""
    size = lines = 0
    for link in sorted(containers.iterdir()):
        with open(link, "rb", buffering=0) as file:
            while block := file.read(1 << 20):
                size, lines = size + len(block), lines + block.count(b"\n")
    return size, lines


def cpu(pid):
    """Seconds of user and of system so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return tuple(int(field) / os.sysconf("SC_CLK_TCK") for field in fields[11:13])


def follow(collector, is_done):
    """Seconds, seconds of user and of system, and the most anonymous memory, until all is where it should be."""
    began, peak = time.monotonic(), 0.0
    while not is_done():
        if not collector.is_alive() or time.monotonic() > began + MOST_SECONDS:
            sys.exit(f"the collector ended or stopped: {collector.last_lines()}")
        peak = max(peak, anonymous_mb(collector.process.pid))
        time.sleep(POLL_S)
    return time.monotonic() - began, *cpu(collector.process.pid), peak


def report(name, size, figures, more):
    wall, user, system, peak = figures
    print(f"| {name} | {size / 1e6 / wall:.0f} | {(user + system) / size * 1e9:.2f} | {user / size * 1e9:.2f} |"
          f" {system / size * 1e9:.2f} | {size / 1e6 / (user + system):.0f} | {peak:.0f} | {more} |", flush=True)


def to_store(options, work, logs, size, lines):
    server = Binnacle("binnacle", options.binnacle, work / "data")
    server.start()
    collector = Collector(options.collector, work, server.url, logs)
    try:
        collector.spawn()
        figures = follow(collector, lambda: appended(server) >= lines)
        report("store", size, figures, f"the server's CPU-s per GB: {sum(cpu(server.process.pid)) / size * 1e9:.1f}")
    finally:
        collector.kill()
        server.stop()


def to_sink(options, work, logs, size, _):
    sink = Sink()
    collector = Collector(options.collector, work, sink.url, logs)

    def is_done():
        if sink.problem:
            sys.exit(sink.problem)
        read = collector.metric("log_bytes_read_total") or 0
        return read >= size and collector.metric("log_lag_bytes") == 0

    try:
        collector.spawn()
        figures = follow(collector, is_done)
        report("sink", size, figures, f"{sink.requests:,} requests, {sink.bytes / 1e6:,.0f} MB in them")
    finally:
        collector.kill()


def data(options):
    """The folder of the bench's lines, made if it is not there."""
    folder = options.cache / f"bench/l{options.lines // 1_000_000}m"
    if (folder / "meta.json").exists():
        return folder
    if not options.bench.is_dir():
        sys.exit(f"the load generator is not at {options.bench}: say --bench DIR")
    return Bench(options.bench, options.cache).logs(options.lines)


def main():
    here = Path(__file__).resolve().parents[3]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binnacle", required=True, type=Path, help="the server's program")
    parser.add_argument("--collector", type=Path, help="the collector's program, if it is another")
    parser.add_argument("--bench", type=Path, default=here.parent / "shared/bench", help="the load generator")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/binnacle", help="for the data")
    parser.add_argument("--lines", type=int, default=10_000_000)
    parser.add_argument("--containers", type=int, help="only so many of the 160")
    parser.add_argument("--parts", default=PARTS, help="what is measured")
    options = parser.parse_args()
    options.binnacle = options.binnacle.resolve()
    options.collector = (options.collector or options.binnacle).resolve()
    if unknown := set(options.parts.split(",")) - set(PARTS.split(",")):
        sys.exit(f"--parts: {', '.join(sorted(unknown))} is none of {PARTS}")
    # So that what was started is ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
    folder = data(options)
    # Beside the data: links do not lead to other disks.
    (options.cache / "work").mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="tail-", dir=options.cache / "work"))
    try:
        logs = work / "var-log"
        size, lines = read_once(pods(folder, logs, options.containers))
        print(f"{len(os.listdir(logs / 'containers'))} files, {lines:,} lines, {size / 1e9:.2f} GB\n\n| the collector, to | "
              "MB/s | CPU-s per GB | user | system | MB/s per core | anonymous MB | |\n|---|---|---|---|---|---|---|---|")
        for part, measure in (("store", to_store), ("sink", to_sink)):
            if part in options.parts.split(","):
                (work / part).mkdir()
                measure(options, work / part, logs, size, lines)
    finally:
        subprocess.run(["rm", "-rf", work], check=True)


if __name__ == "__main__":
    main()
