#!/usr/bin/env python3
"""Binnacle's metrics engine beside Prometheus and VictoriaMetrics, on the same data in one go.

Takes the load generator and its recorded data from outside of this repository (--bench), the peers from Debian
unstable, and prints versions, figures, ratios, and the ratio to what the machine itself needs to decode the
bodies. `make bench-metrics` runs it; --only and --servers run parts of it.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from fetch import fetch_peers

HOUR = 3600


class Server:
    """A process under test, on an empty folder."""

    def __init__(self, name, binary, data):
        self.name, self.binary, self.data = name, binary, data
        self.process, self.port = None, None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def arguments(self):
        raise NotImplementedError

    def flush(self):
        """Brings everything into its final form; answers the folder to measure."""
        raise NotImplementedError

    write_path = "/api/v1/write"
    ready_path = "/-/ready"
    query_params = []

    def start(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.data.mkdir(parents=True)
        log = open(self.data.parent / f"{self.name}.log", "ab")
        self.process = subprocess.Popen([str(self.binary), *self.arguments()], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(self.url + self.ready_path, timeout=2).read()
                return
            except OSError:
                if self.process.poll() is not None:
                    sys.exit(f"{self.name} ended at once; see {self.data.parent}/{self.name}.log")
                time.sleep(0.2)
        sys.exit(f"{self.name} was not ready within a minute")

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def get(self, path, method="GET"):
        request = urllib.request.Request(self.url + path, method=method, data=b"" if method == "POST" else None)
        return urllib.request.urlopen(request, timeout=600).read()


class Binnacle(Server):
    def version(self):
        return subprocess.check_output([self.binary, "--version"], text=True).strip()

    def arguments(self):
        return ["serve", "--listen", f"127.0.0.1:{self.port}", "--data", str(self.data), "--enable-admin-api"]

    def flush(self):
        name = json.loads(self.get("/api/v1/admin/tsdb/snapshot", "POST"))["data"]["name"]
        return self.data / "snapshots" / name


class Prometheus(Server):
    def version(self):
        return subprocess.check_output([self.binary, "--version"], text=True).splitlines()[0]

    def arguments(self):
        config = self.data.parent / "prometheus.yml"
        config.write_text("global: {}\n")
        return [
            f"--config.file={config}",
            f"--storage.tsdb.path={self.data}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--storage.tsdb.retention.time=45d",
            "--web.enable-remote-write-receiver",
            "--web.enable-admin-api",
        ]

    def flush(self):
        name = json.loads(self.get("/api/v1/admin/tsdb/snapshot", "POST"))["data"]["name"]
        return self.data / "snapshots" / name


class VictoriaMetrics(Server):
    ready_path = "/health"
    query_params = ["--param", "nocache=1"]

    def version(self):
        # Its packages do not always carry a version of their own.
        said = subprocess.run([self.binary, "--version"], capture_output=True, text=True)
        return ((said.stdout + said.stderr).strip() or "no version of its own") + f" (package {self.package})"

    def arguments(self):
        return [
            f"-storageDataPath={self.data}",
            f"-httpListenAddr=127.0.0.1:{self.port}",
            "-retentionPeriod=45d",
        ]

    def flush(self):
        self.get("/internal/force_flush")
        time.sleep(5)
        return self.data


class Bench:
    """The load generator, and the data it made."""

    def __init__(self, source, cache):
        target = cache / "bench-target"
        environment = {**os.environ, "CARGO_TARGET_DIR": str(target)}
        subprocess.run(["cargo", "build", "-q", "--release"], cwd=source, env=environment, check=True)
        self.binary, self.source, self.cache = target / "release/bench", source, cache / "bench"
        scrapes = self.cache / "scrapes"
        if not scrapes.is_dir():
            scrapes.mkdir(parents=True)
            packed = subprocess.Popen(
                ["zstd", "-dc", "--long=27", source / "data/node-scrapes.tar.zst"], stdout=subprocess.PIPE
            )
            subprocess.run(["tar", "-C", scrapes, "-x"], stdin=packed.stdout, check=True)

    def run(self, *arguments):
        out = subprocess.run([self.binary, *map(str, arguments)], capture_output=True, text=True)
        if out.returncode != 0:
            sys.exit(f"bench {arguments[0]} failed: {out.stderr}")
        return out.stdout

    def data(self, name, series, hours):
        """Data that ends an hour ago or more, and that the retention of every server covers."""
        folder = self.cache / name
        meta = folder / "meta.json"
        if meta.exists() and time.time() - json.loads(meta.read_text())["end_ms"] / 1000 < 30 * 24 * HOUR:
            return folder
        start = (int(time.time()) // (2 * HOUR) * 2 * HOUR) - (int(hours) + 2) * HOUR
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start))
        duration = f"{round(hours * 60)}m"
        self.run("gen-metrics", "--scrapes", self.cache / "scrapes", "--out", folder, "--series", series,
                 "--duration", duration, "--start", moment)
        return folder

    def logs(self, lines):
        """Lines of logs as files of a node and as bodies of Loki's push."""
        folder = self.cache / f"l{lines // 1_000_000}m"
        if not (folder / "meta.json").exists():
            self.run("gen-logs", "--templates", self.source.parent / "real/logs/loghub", "--out", folder,
                     "--lines", lines, "--forms", "cri,loki")
        return folder

    def usage(self, server, *more):
        return json.loads(self.run("usage", "--pid", server.process.pid, *more))


def settle(server, rest, most=180):
    """Waits until the process does next to nothing for a while: it merges what came, some in rounds of half a minute."""
    def used():
        fields = Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    deadline = time.monotonic() + most
    quiet, before = 0, used()
    while quiet < rest and time.monotonic() < deadline:
        time.sleep(1)
        now = used()
        quiet = quiet + 1 if now - before < 0.1 else 0
        before = now


def measure(bench, server, folder, queries, work):
    """Pushes the data, flushes, asks; answers the figures."""
    server.start()
    try:
        time.sleep(2)
        before = work / "before.json"
        idle = bench.usage(server, "--reset-peak", "--save", before)
        pushed = json.loads(bench.run("push-metrics", "--url", server.url + server.write_path, "--dir", folder))
        used = bench.usage(server, "--since", before)
        samples = json.loads((folder / "meta.json").read_text())["samples"]
        figures = {
            "samples/s": samples / pushed.get("seconds", pushed.get("wall_s", 1)),
            "CPU-s per M": used["cpu_s"] / samples * 1e6,
            "peak RSS MB": used["peak_rss_bytes"] / 1e6,
            "RSS over idle MB": (used["rss_bytes"] - idle["rss_bytes"]) / 1e6,
            "errors": pushed.get("errors", 0),
        }
        settle(server, rest=35)
        flushed = server.flush()
        settle(server, rest=3)
        used = bench.usage(server, "--since", before, "--disk", flushed)
        figures["CPU-s per M with flush"] = used["cpu_s"] / samples * 1e6
        figures["disk B/sample"] = used["disk_bytes"] / samples
        latencies = {}
        if queries:
            answers = work / "queries.json"
            bench.run("query-metrics", "--url", server.url, "--set", queries, "--dir", folder, "--json", answers,
                      *server.query_params)
            for answer in json.loads(answers.read_text()):
                p50 = answer["latency"].get("p50_ms", answer["latency"].get("p50"))
                latencies[answer["name"]] = (p50, answer["found"], answer["error"])
            figures["peak RSS MB with queries"] = bench.usage(server)["peak_rss_bytes"] / 1e6
        return figures, latencies
    finally:
        server.stop()


def print_figures(title, results, bar):
    names = list(results)
    print(f"\n## {title}\n")
    others = [name for name in names if name != "binnacle"]
    print("| figure | " + " | ".join(names) + " | " + " | ".join(f"binnacle / {n}" for n in others) + " |")
    print("|---" * (1 + len(names) + len(others)) + "|")
    for figure in results[names[0]][0]:
        values = [results[name][0].get(figure) for name in names]
        row = [f"{value:,.2f}" if value is not None else "-" for value in values]
        for other in others:
            ours, theirs = results.get("binnacle", ({},))[0].get(figure), results[other][0].get(figure)
            row.append(f"{ours / theirs:.2f}" if ours is not None and theirs else "-")
        print(f"| {figure} | " + " | ".join(row) + " |")
    queries = results[names[0]][1]
    if not queries:
        return
    print("\n| query, p50 ms | " + " | ".join(names) + " | " + " | ".join(f"binnacle / {n}" for n in others) + " | found |")
    print("|---" * (2 + len(names) + len(others)) + "|")
    ratios = {other: [] for other in others}
    for query in queries:
        row = [f"{results[name][1][query][0]:.2f}" for name in names]
        for other in others:
            if "binnacle" in results:
                ratio = results["binnacle"][1][query][0] / results[other][1][query][0]
                ratios[other].append(ratio)
                row.append(f"{ratio:.2f}")
        found = [results[name][1][query][1] for name in names]
        same = str(found[0]) if len(set(found)) == 1 else "differ: " + " / ".join(map(str, found))
        errors = [results[name][1][query][2] for name in names if results[name][1][query][2]]
        print(f"| {query} | " + " | ".join(row) + f" | {same} {'; '.join(errors)} |")
    for other in others:
        if ratios[other]:
            mean = 1.0
            for ratio in ratios[other]:
                mean *= ratio ** (1 / len(ratios[other]))
            print(f"\ngeometric mean of binnacle / {other}: {mean:.2f}, largest {max(ratios[other]):.2f}")


def main():
    here = Path(__file__).resolve().parents[3]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binnacle", required=True, type=Path, help="the program to measure")
    parser.add_argument("--bench", type=Path, default=here.parent / "shared/bench", help="the load generator")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/binnacle", help="for data and peers")
    parser.add_argument("--servers", default="binnacle,prometheus,victoriametrics")
    parser.add_argument("--only", default="100k,24h,1m", help="which data")
    options = parser.parse_args()
    if not options.bench.is_dir():
        sys.exit(f"the load generator is not at {options.bench}: say --bench DIR")
    peers = options.cache / "peers"
    peers.mkdir(parents=True, exist_ok=True)
    wanted = options.servers.split(",")
    packages = fetch_peers(peers) if set(wanted) - {"binnacle"} else {}
    bench = Bench(options.bench, options.cache)
    kinds = {
        "binnacle": (Binnacle, options.binnacle.resolve()),
        "prometheus": (Prometheus, peers / "prometheus/usr/bin/prometheus"),
        "victoriametrics": (VictoriaMetrics, peers / "victoria-metrics/usr/bin/victoria-metrics"),
    }
    VictoriaMetrics.package = packages.get("victoria-metrics")
    for name in wanted:
        kind, binary = kinds[name]
        print(f"{name}: {kind(name, binary, Path()).version()}")
    sets = {
        "100k": ("100,000 series, 15 s, 2 h", "m100k", 100_000, 2, "metrics-2h.json"),
        "24h": ("5,000 active series, 15 s, 24 h", "m5k", 5_000, 24, "metrics-24h.json"),
        "1m": ("1,000,000 series, 15 s, 5 min", "m1m", 1_000_000, 5 / 60, None),
    }
    for key in options.only.split(","):
        title, name, series, hours, queries = sets[key]
        folder = bench.data(name, series, hours)
        results = {}
        for server_name in wanted:
            work = options.cache / "work" / f"{key}-{server_name}"
            subprocess.run(["rm", "-rf", work], check=True)
            work.mkdir(parents=True)
            kind, binary = kinds[server_name]
            server = kind(server_name, binary, work / "data")
            queries_path = options.bench / "queries" / queries if queries else None
            results[server_name] = measure(bench, server, folder, queries_path, work)
            subprocess.run(["rm", "-rf", work / "data"], check=True)
        print_figures(title, results, "victoriametrics")
        sys.stdout.flush()
        if key == "100k":
            print("\n" + bench.run("floor", "--metrics", folder).strip())


if __name__ == "__main__":
    main()
