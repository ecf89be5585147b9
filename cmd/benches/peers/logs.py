#!/usr/bin/env python3
"""Binnacle's log engine on ten million lines: intake by two doors, size, queries.

Takes the load generator from outside of this repository (--bench) and makes its data in the cache folder. Beside each
figure stands what VictoriaLogs 1.26 and Loki (August 2026) needed for the same on the machine of PEERS.md; times are
compared after the decoding speeds of both machines (`bench floor`). `make bench-logs` runs it.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from metrics import Bench, Binnacle, Server, settle

# Of PEERS.md: p50 in milliseconds of VictoriaLogs and Loki, and what is wanted of us, in the order of the queries.
WANTED = {
    "needle: trace id in text": (56.00, 6561.79, 10),
    "needle: trace id field": (33.60, 5885.95, 10),
    "needle: absent word": (16.69, 5734.40, 3),
    "common word, last 100": (114.17, 1022.98, 8),
    "common word, count": (2785.28, 7061.50, 3),
    "all lines, last 100": (96.38, 848.38, 8),
    "all lines, count": (2.69, 9977.85, None),
    "phrase, count": (1651.71, 7573.50, 8),
    "phrase, last 100": (286.46, 1378.30, None),
    "and/or/not, count": (4139.01, 9232.38, 150),
    "namespace + word, last 100": (99.65, 148.35, None),
    "level + namespace, count": (10.08, 886.78, None),
    "one pod, last 100": (35.87, 76.67, None),
    "regex, count": (6524.93, 10444.80, 300),
    "histogram of a word, 1m": (4591.61, 14295.04, 30),
    "histogram of all by level, 1m": (1602.56, 18874.37, None),
    "top pods of all": (4.02, 19267.58, 4),
    "top pods of a word": (5054.46, 9650.17, 50),
}

# zstd 1 on a megabyte of CRI text there, MB/s out: the middle of 740 to 1,010.
PEERS_DECODE = 875.0


class Collector(Server):
    """Our node agent, reading the files as the kubelet lays them out."""

    ready_path = "/-/ready"

    def arguments(self):
        return ["collect", "--config", str(self.data.parent / "collect.yml")]


def anonymous_mb(pid):
    """Peak of memory that no file backs."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", text)[1]) / 1024


def appended(server):
    text = server.get("/metrics").decode()
    return sum(int(float(line.split()[1])) for line in text.splitlines()
               if line.startswith("binnacle_store_log_lines_appended_total"))


def pods(folder, root):
    """Hard links to the files, with the names that the kubelet gives."""
    containers = root / "containers"
    containers.mkdir(parents=True)
    for number, source in enumerate(sorted((folder / "cri").iterdir())):
        namespace, pod, container = source.name.split("_")
        place = root / "pods" / f"{namespace}_{pod}_{number:08x}-0000-0000-0000-000000000000" / container
        place.mkdir(parents=True)
        os.link(source / "0.log", place / "0.log")
        (containers / f"{pod}_{namespace}_{container}-{number:064x}.log").symlink_to(place / "0.log")
    return containers


def watch_memory(server, until):
    """Waits until `until` says so; answers the highest memory seen."""
    peak = 0
    while not until():
        peak = max(peak, anonymous_mb(server.process.pid))
        time.sleep(0.25)
    return max(peak, anonymous_mb(server.process.pid))


def disk_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def intake(bench, server, meta, push):
    before = server.data.parent / "before.json"
    bench.usage(server, "--reset-peak", "--save", before)
    began = time.monotonic()
    peak = push()
    wall = time.monotonic() - began
    used = bench.usage(server, "--since", before)
    raw = meta["raw_bytes"]
    return {
        "lines/s": meta["lines"] / wall,
        "CPU-s per GB": used["cpu_s"] / raw * 1e9,
        "peak anonymous MB": peak,
        "peak RSS MB": used["peak_rss_bytes"] / 1e6,
    }


def seal(server, meta):
    """Waits until the pages are on the disk, and answers the bytes of logs for each raw byte."""
    settle(server, rest=5, most=60)
    return disk_bytes(server.data / "logs") / meta["raw_bytes"]


def through_loki(bench, server, folder, meta):
    def push():
        process = subprocess.Popen([bench.binary, "push-logs", "--protocol", "loki", "--url",
                                    server.url + "/loki/api/v1/push", "--dir", str(folder)],
                                   stdout=subprocess.PIPE, text=True)
        peak = watch_memory(server, lambda: process.poll() is not None)
        print(process.stdout.read().strip())
        assert process.returncode == 0
        return max(peak, watch_memory(server, lambda: appended(server) >= meta["lines"]))
    return intake(bench, server, meta, push)


def through_collector(bench, server, folder, meta, work, binary):
    containers = pods(folder, work / "var-log")
    (work / "collect.yml").write_text(
        f"store:\n  url: {server.url}\nlogs:\n  - containers: {containers}\n")
    log = open(work / "collector.log", "ab")

    def push():
        process = subprocess.Popen([str(binary), "collect", "--config", str(work / "collect.yml")],
                                   stdout=log, stderr=log, cwd=work)
        try:
            def done():
                assert process.poll() is None, f"the collector ended; see {work}/collector.log"
                return appended(server) >= meta["lines"]
            peak = watch_memory(server, done)
            used = json.loads(bench.run("usage", "--pid", process.pid))
            print(f"collector: {used['cpu_s'] / meta['raw_bytes'] * 1e9:.1f} CPU-s per GB,"
                  f" peak RSS {used['peak_rss_bytes'] / 1e6:.0f} MB")
            return peak
        finally:
            process.terminate()
            process.wait()
    return intake(bench, server, meta, push)


def queries(bench, server, folder, source, work, speed):
    answers = work / "queries.json"
    bench.run("query-logs", "--kind", "loki", "--url", server.url, "--set", source, "--dir", folder, "--json", answers)
    print("\n| query, p50 ms | binnacle | wanted here | VictoriaLogs | Loki | to VictoriaLogs | found |")
    print("|---|---|---|---|---|---|---|")
    for answer in json.loads(answers.read_text()):
        p50 = answer["latency"].get("p50_ms", answer["latency"].get("p50"))
        peer, loki, wanted = WANTED.get(answer["name"], (None, None, None))
        limit = f"{wanted * speed:.1f}" if wanted else "-"
        ratio = f"{p50 / (peer * speed):.3f}" if peer else "-"
        missed = " !" if (wanted and p50 > wanted * speed) or (peer and p50 > peer * speed) else ""
        print(f"| {answer['name']} | {p50:.2f}{missed} | {limit} | {peer} | {loki} | {ratio} |"
              f" {answer['found']} {answer['error'] or ''} |")


def main():
    here = Path(__file__).resolve().parents[3]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binnacle", required=True, type=Path, help="the program to measure")
    parser.add_argument("--bench", type=Path, default=here.parent / "shared/bench", help="the load generator")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/binnacle", help="for the data")
    parser.add_argument("--lines", type=int, default=10_000_000)
    parser.add_argument("--doors", default="collector,loki", help="by which doors the lines come; the last is queried")
    parser.add_argument("--keep", action="store_true", help="leave the last server's folder there")
    options = parser.parse_args()
    if not options.bench.is_dir():
        sys.exit(f"the load generator is not at {options.bench}: say --bench DIR")
    bench = Bench(options.bench, options.cache)
    folder = bench.logs(options.lines)
    meta = json.loads((folder / "meta.json").read_text())
    codecs = json.loads(bench.run("floor", "--logs", folder))["codecs"]
    decode = codecs["zstd1_1m"]["decompress_mb_per_s"]
    speed = PEERS_DECODE / decode
    print(f"floor: zstd 1 on a megabyte of CRI text gives {decode:.0f} MB/s")
    print(f"\n{meta['lines']:,} lines, {meta['raw_bytes'] / 1e9:.2f} GB of messages;"
          f" times of PEERS.md are taken times {speed:.2f}\n")
    binary = options.binnacle.resolve()
    for door in options.doors.split(","):
        work = options.cache / "work" / f"logs-{door}"
        subprocess.run(["rm", "-rf", work], check=True)
        work.mkdir(parents=True)
        server = Binnacle("binnacle", binary, work / "data")
        server.start()
        try:
            if door == "loki":
                figures = through_loki(bench, server, folder, meta)
            else:
                figures = through_collector(bench, server, folder, meta, work, binary)
            figures["disk / raw"] = seal(server, meta)
            print(f"through {door}: " + ", ".join(f"{name} {value:,.3f}" for name, value in figures.items()))
            if door == options.doors.split(",")[-1]:
                queries(bench, server, folder, options.bench / "queries/logs.json", work, speed)
                print(f"\nanonymous memory after the queries: {anonymous_mb(server.process.pid):.0f} MB")
        finally:
            server.stop()
            if not options.keep:
                subprocess.run(["rm", "-rf", work / "data"], check=True)


if __name__ == "__main__":
    main()
