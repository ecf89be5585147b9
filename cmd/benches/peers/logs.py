#!/usr/bin/env python3
"""Binnacle's log engine on ten million lines: intake by three doors, size, queries, freshness, free text.

Takes the load generator from outside of this repository (--bench) and makes its data in the cache folder. Beside each
figure stands what VictoriaLogs 1.26 and Loki (August 2026) needed for the same on the machine of PEERS.md; times are
compared after the decoding speeds of both machines (`bench floor`). `make bench-logs` runs it; --parts runs some of

    doors     the lines through the collector and through Loki's push
    queries   the generator's set in LogQL, and the same and others in Lucene's syntax, on what the last door brought
              (through Loki's push lines have attributes, trace ids and levels; through the collector they have none)
    bulk      a part of the lines through Elasticsearch's _bulk, as Filebeat sends them
    fresh     from a line in a file to a search and to live tail, by the server's own collector and by `collect`
    text      sentences without templates, through the collector
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import corpora
import fresh
import lucene
from metrics import Bench, Binnacle, settle

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


# CPU-seconds per GB of messages and bytes on disk for each of them, and delays in seconds.
WANTED_COST = {"collector": (22, 0.15), "loki": (36, 0.15), "bulk": (36, 0.20), "text": (None, 0.30)}
WANTED_DELAY = {"search": 2.0, "tail": 0.5}
PARTS = "doors,queries,bulk,fresh,text"
BULK_LINES = 3_000_000
TEXT_LINES = 1_000_000


# What selects all lines in the set's LogQL, and what does where nobody gave them such a label.
SET_CLUSTER = r'cluster=\"prod-eu-1\"'
ANY_NODE = r'node=~\".+\"'


class WithFiles(Binnacle):
    """The server with a collector of its own for files of containers."""

    def arguments(self):
        return [*super().arguments(), "--config", str(self.data.parent / "collect.yml")]


def anonymous_mb(pid):
    """Peak of memory that no file backs."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", text)[1]) / 1024


def appended(server):
    text = server.get("/metrics").decode()
    return sum(int(float(line.split()[1])) for line in text.splitlines()
               if line.startswith("binnacle_store_log_lines_appended_total"))


def pods(folder, root, most=None):
    """Hard links to the files, or to so many of them, with the names that the kubelet gives."""
    containers = root / "containers"
    containers.mkdir(parents=True)
    for number, source in enumerate(sorted((folder / "cri").iterdir())[:most]):
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


def through_http(bench, server, folder, meta, protocol, path):
    def push():
        process = subprocess.Popen([bench.binary, "push-logs", "--protocol", protocol, "--url", server.url + path,
                                    "--dir", str(folder)], stdout=subprocess.PIPE, text=True)
        peak = watch_memory(server, lambda: process.poll() is not None)
        print(process.stdout.read().strip())
        assert process.returncode == 0
        return max(peak, watch_memory(server, lambda: appended(server) >= meta["lines"]))
    return intake(bench, server, meta, push)


def collector(binary, work):
    """How the node agent is started. With a state of its own: another run's would say that the files are read already."""
    return [str(binary), "collect", "--config", str(work / "collect.yml"), "--state", str(work / "state"),
            "--listen", "127.0.0.1:0"]


def through_collector(bench, server, folder, meta, work, binary):
    containers = pods(folder, work / "var-log")
    (work / "collect.yml").write_text(
        f"store:\n  url: {server.url}\nlogs:\n  - containers: {containers}\n")
    log = open(work / "collector.log", "ab")

    def push():
        process = subprocess.Popen(collector(binary, work), stdout=log, stderr=log, cwd=work)
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


def logql_rows(bench, server, folder, source, work, all_lines):
    """Name, p50 in milliseconds and what was found of each query of the set."""
    answers = work / "queries.json"
    asked = work / "set.json"
    asked.write_text(source.read_text().replace(SET_CLUSTER, all_lines))
    bench.run("query-logs", "--kind", "loki", "--url", server.url, "--set", asked, "--dir", folder, "--json", answers)
    for answer in json.loads(answers.read_text()):
        p50 = answer["latency"].get("p50_ms", answer["latency"].get("p50"))
        yield answer["name"], p50, str(answer["error"] or answer["found"])


def print_row(name, p50, best, wanted, speed, found):
    """`best` is of use where others work on the machine meanwhile."""
    peer, loki, usual = WANTED.get(name, (None, None, None))
    wanted = wanted or usual
    limit = f"{wanted * speed:.1f}" if wanted else "-"
    ratio = f"{p50 / (peer * speed):.3f}" if peer else "-"
    missed = " !" if (wanted and p50 > wanted * speed) or (peer and p50 > peer * speed) else ""
    best = f" / {best:.2f}" if best else ""
    print(f"| {name} | {p50:.2f}{best}{missed} | {limit} | {peer or '-'} | {loki or '-'} | {ratio} | {found} |",
          flush=True)


def queries(bench, server, folder, meta, source, work, speed, all_lines):
    columns = "wanted here | VictoriaLogs | Loki | to VictoriaLogs | found |\n|---|---|---|---|---|---|---|"
    print(f"\n| LogQL, p50 ms | binnacle | {columns}")
    logql = {}
    for name, p50, found in logql_rows(bench, server, folder, source, work, all_lines):
        logql[name] = found
        print_row(name, p50, None, None, speed, found)
    print(f"\n| Lucene, p50 / best ms | binnacle | {columns}")
    for query, p50, best, found in lucene.measure(server, folder, meta, logql):
        print_row(query["name"], p50, best, query.get("wanted"), speed, found)
    print(f"\nanonymous memory after the queries: {anonymous_mb(server.process.pid):.0f} MB")


@contextmanager
def running(options, name, kind=Binnacle):
    """A server on an empty folder, and the folder around it."""
    work = options.cache / "work" / f"logs-{name}"
    subprocess.run(["rm", "-rf", work], check=True)
    work.mkdir(parents=True)
    server = kind("binnacle", options.binnacle, work / "data")
    try:
        yield server, work
    finally:
        server.stop()
        if not options.keep:
            subprocess.run(["rm", "-rf", work / "data", work / "var-log"], check=True)


def print_figures(name, figures):
    cpu, disk = WANTED_COST[name]
    wanted = {"CPU-s per GB": cpu, "disk / raw": disk}
    print(f"\n| through {name} | binnacle | wanted |\n|---|---|---|")
    for figure, value in figures.items():
        limit = wanted.get(figure)
        missed = " !" if limit and value > limit else ""
        print(f"| {figure} | {value:,.3f}{missed} | {limit or '-'} |", flush=True)


def doors(options, bench, folder, meta, parts, speed):
    """The lines through each door, and the queries on what the last one brought."""
    names = options.doors.split(",")
    for door in names if "doors" in parts else names[-1:]:
        with running(options, door) as (server, work):
            server.start()
            if door == "loki":
                figures = through_http(bench, server, folder, meta, "loki", "/loki/api/v1/push")
            else:
                figures = through_collector(bench, server, folder, meta, work, options.binnacle)
            figures["disk / raw"] = seal(server, meta)
            print_figures(door, figures)
            if door == names[-1] and "queries" in parts:
                all_lines = SET_CLUSTER if door == "loki" else ANY_NODE
                queries(bench, server, folder, meta, options.bench / "queries/logs.json", work, speed, all_lines)


def corpus(kind, place, lines):
    """Made by a process of its own, or there already; answers the folder and what it says of itself."""
    made = [sys.executable, corpora.__file__, kind, str(place), str(lines)]
    folder = Path(subprocess.run(made, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
    return folder, json.loads((folder / "meta.json").read_text())


def bulk(options, bench, folder):
    folder, meta = corpus("bulk", folder, min(BULK_LINES, options.lines))
    with running(options, "bulk") as (server, _):
        server.start()
        figures = through_http(bench, server, folder, meta, "es-bulk", "/elastic/_bulk")
        figures["disk / raw"] = seal(server, meta)
    print_figures("bulk", figures)


def packed_bytes(folder, level):
    """What zstd makes of the messages, stream after stream: nothing that is quick is much smaller."""
    packer = subprocess.Popen(["zstd", f"-{level}", "-q", "-c"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    counter = subprocess.Popen(["wc", "-c"], stdin=packer.stdout, stdout=subprocess.PIPE, text=True)
    for path in sorted(folder.glob("cri/*/0.log")):
        for line in open(path, "rb"):
            packer.stdin.write(line.split(b" ", 3)[3])
    packer.stdin.close()
    return int(counter.communicate()[0])


def text(options, bench):
    folder, meta = corpus("prose", bench.cache, TEXT_LINES)
    with running(options, "text") as (server, work):
        server.start()
        figures = through_collector(bench, server, folder, meta, work, options.binnacle)
        figures["disk / raw"] = seal(server, meta)
    for level in (1, 9):
        figures[f"of zstd -{level}"] = packed_bytes(folder, level) / meta["raw_bytes"]
    print_figures("text", figures)


def freshness(options, folder):
    """By the collector within the server, and by one beside it."""
    sources = sorted(folder.glob("cri/*/0.log"), key=lambda path: -path.stat().st_size)[:fresh.FILES]
    print("\n| a line's way, seconds | p50 | p99 | wanted p99 | seen |\n|---|---|---|---|---|")
    for by in ("serve", "collect"):
        with running(options, f"fresh-{by}", WithFiles if by == "serve" else Binnacle) as (server, work):
            links, places = fresh.containers(work / "var-log", sources)
            (work / "var-log/places.json").write_text(json.dumps([[str(place), str(of)] for place, of in places]))
            config = work / "collect.yml"
            config.write_text(f"logs:\n  - containers: {links}\n")
            server.start()
            beside = None
            if by == "collect":
                config.write_text(f"store:\n  url: {server.url}\n" + config.read_text())
                log = open(work / "collector.log", "ab")
                beside = subprocess.Popen(collector(options.binnacle, work), stdout=log, stderr=log, cwd=work)
            try:
                time.sleep(2)
                written, found, told = fresh.measure(server, work / "var-log")
            finally:
                if beside:
                    beside.terminate()
                    beside.wait()
        for name, seen in (("search", found), ("tail", told)):
            wanted, p99 = WANTED_DELAY[name], seen.quantile(0.99)
            lost = "" if len(seen.delays) == written["probes"] else " !"
            missed = "" if p99 <= wanted else " !"
            print(f"| {by}: file to {name} | {seen.quantile(0.5):.3f} | {p99:.3f}{missed} | {wanted} |"
                  f" {len(seen.delays)} of {written['probes']}{lost} {seen.problem or ''} |", flush=True)
        print(f"the writer was late by {written['late_s']:.3f} s at most")


def main():
    here = Path(__file__).resolve().parents[3]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binnacle", required=True, type=Path, help="the program to measure")
    parser.add_argument("--bench", type=Path, default=here.parent / "shared/bench", help="the load generator")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/binnacle", help="for the data")
    parser.add_argument("--lines", type=int, default=10_000_000)
    parser.add_argument("--parts", default=PARTS, help="what is measured")
    parser.add_argument("--doors", default="collector,loki", help="by which doors the lines come; the last is queried")
    parser.add_argument("--keep", action="store_true", help="leave the folders of the servers there")
    options = parser.parse_args()
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS.split(",")):
        sys.exit(f"--parts: {', '.join(sorted(unknown))} is none of {PARTS}")
    if not options.bench.is_dir():
        sys.exit(f"the load generator is not at {options.bench}: say --bench DIR")
    options.binnacle = options.binnacle.resolve()
    bench = Bench(options.bench, options.cache)
    folder = bench.logs(options.lines)
    meta = json.loads((folder / "meta.json").read_text())
    codecs = json.loads(bench.run("floor", "--logs", folder))["codecs"]
    decode = codecs["zstd1_1m"]["decompress_mb_per_s"]
    speed = PEERS_DECODE / decode
    print(f"floor: zstd 1 on a megabyte of CRI text gives {decode:.0f} MB/s")
    print(f"\n{meta['lines']:,} lines, {meta['raw_bytes'] / 1e9:.2f} GB of messages;"
          f" times of PEERS.md are taken times {speed:.2f}\n")
    if {"doors", "queries"} & set(parts):
        doors(options, bench, folder, meta, parts, speed)
    if "bulk" in parts:
        bulk(options, bench, folder)
    if "fresh" in parts:
        freshness(options, folder)
    if "text" in parts:
        text(options, bench)


if __name__ == "__main__":
    main()
