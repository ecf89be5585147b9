#!/usr/bin/env python3
"""Thousands of files, a hundred of them busy: how long a line of an idle one takes, and the collector's memory.

The idle files are written by a process of its own, which is this file as a program. Some of their lines are probes, which
carry the moment at which they were written; they are looked for as in `make bench-logs`.
"""

import json
import math
import os
import random
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

from kubelet import append_to, make_container
from ledger import Ledger, Verdict, wait_for_lines
from node import Collector, Kubelet, Store

sys.path.append(str(Path(__file__).resolve().parents[2] / "benches/peers"))
import fresh

BUSY, BUSY_RATE = 100, 20_000
NAMESPACE = "idle"
# Of pods; those of the busy ones are below.
FIRST_IDLE = 1000
TICK_S = 0.02
PROBES_PER_S = 50
WANTED_P99 = 2.0
# The collector's memory for so many files.
RSS_MIB = {1000: 64, 10_000: 256}
# For the collector to find the files.
WARM_UP_SECONDS = 10


def write(root, paths, every, seconds):
    """A line into each file in turn, each `every` so many seconds; answers how many lines and probes."""
    rate = len(paths) / every
    step = max(1, int(rate / PROBES_PER_S))
    while math.gcd(step, len(paths)) != 1:
        step += 1
    written = probes = 0
    began, late = time.monotonic(), 0.0
    while (now := time.monotonic()) < began + seconds:
        late = max(late, now - began - (written + TICK_S * rate) / rate)
        for number in range(written, int((now - began) * rate)):
            at = time.time_ns()
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at // 10**9)) + f".{at % 10**9:09}Z"
            word = "freshprobe" if number % step == 0 else "idle"
            file = append_to(paths[number % len(paths)])
            os.write(file, f"{stamp} stdout F {word} seq={number // step} at={at}\n".encode())
            os.close(file)
            written += 1
            probes += number % step == 0
        time.sleep(TICK_S)
    print(json.dumps({"written": written, "probes": probes, "late_s": late}))


class Memory(threading.Thread):
    """The collector's highest RssAnon."""

    def __init__(self, collector):
        super().__init__(daemon=True)
        self.collector, self.halt, self.peak = collector, threading.Event(), 0.0

    def run(self):
        while not self.halt.wait(0.25) and self.collector.is_alive():
            self.peak = max(self.peak, self.collector.memory().get("RssAnon", 0.0))


def idle_lines(store, wanted):
    """How many of them are there, soon after the last one was written."""
    deadline = time.monotonic() + fresh.GRACE_S
    while (found := count_idle(store)) < wanted and time.monotonic() < deadline:
        time.sleep(0.25)
    return found


def count_idle(store):
    query = urllib.parse.urlencode({"q": f"namespace:{NAMESPACE}", "start": "now-1h", "end": "now+1h"})
    return json.loads(store.get(f"/api/logs/histogram?{query}"))["data"]["total"]


def measure(store, collector, node, files, options):
    """What the writer of idle files says, and the delays of probes in searches and in live tail."""
    paths = [make_container(node, FIRST_IDLE + number, NAMESPACE)[0] for number in range(files - BUSY)]
    random.Random(options.seed).shuffle(paths)
    (node / "idle.json").write_text(json.dumps([str(path) for path in paths]))
    for path in paths:
        path.touch()
    time.sleep(WARM_UP_SECONDS)
    stop, found, told = threading.Event(), fresh.Seen(), fresh.Seen()
    watchers = ((fresh.search, found), (fresh.follow, told))
    threads = [threading.Thread(target=work, args=(store, seen, stop), daemon=True) for work, seen in watchers]
    for thread in threads:
        thread.start()
    used = collector.cpu_seconds()
    arguments = [sys.executable, __file__, str(node), str(options.idle_every), str(options.seconds / 2)]
    out = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True, timeout=options.seconds / 2 + 60)
    said = json.loads(out.stdout)
    said["cores"] = (collector.cpu_seconds() - used) / (options.seconds / 2)
    deadline = time.monotonic() + fresh.GRACE_S
    while time.monotonic() < deadline and len(found.delays) < said["probes"]:
        time.sleep(0.1)
    stop.set()
    threads[0].join(60)
    return said, found, told


def judge(files, said, found, told, memory, anonymous):
    """Prints the figures; answers the faults."""
    faults = []
    for name, seen in (("search", found), ("live tail", told)):
        p50, p99 = seen.quantile(0.5), seen.quantile(0.99)
        print(f"files: {files:,}, {BUSY} of them busy: an idle file's line to {name} p50 {p50:.3f} s, p99 {p99:.3f} s, "
              f"{len(seen.delays)} of {said['probes']} probes {seen.problem or ''}", flush=True)
        if not p99 < WANTED_P99:
            faults.append(f"{name}: p99 {p99:.3f} s rather than {WANTED_P99} s")
    if len(found.delays) < said["probes"]:
        faults.append(f"{said['probes'] - len(found.delays)} probes were not found within {fresh.GRACE_S} s")
    limit = next((limit for most, limit in RSS_MIB.items() if files <= most), RSS_MIB[10_000])
    print(f"files: {files:,}: the collector's VmHWM {memory['VmHWM']:.0f} MiB of {limit}, RssAnon {anonymous:.0f} MiB, "
          f"{said['cores']:.2f} cores; the idle files' writer was late by {said['late_s']:.2f} s at most", flush=True)
    if memory["VmHWM"] > limit:
        faults.append(f"VmHWM {memory['VmHWM']:.0f} MiB rather than {limit}")
    return faults


def run(files, options, folder):
    node = folder / "node"
    (node / "containers").mkdir(parents=True)
    store, since_ns, collector, kubelet = Store(options.binnacle, folder), time.time_ns() - 60 * 10**9, None, None
    try:
        store.start()
        collector = Collector(options.collector, folder, store.url)
        collector.start()
        watch = Memory(collector)
        watch.start()
        kubelet = Kubelet(node, streams=BUSY, rate=min(BUSY_RATE, options.rate), rotation="kubelet", seed=options.seed)
        said, found, told = measure(store, collector, node, files, options)
        written = kubelet.stop()["written"]
        wait_for_lines(store, since_ns, written, 60)
        watch.halt.set()
        faults = judge(files, said, found, told, collector.memory(), watch.peak)
        if (stored := idle_lines(store, said["written"])) != said["written"]:
            faults.append(f"{stored:,} of {said['written']:,} lines of idle files are there")
        verdict = Verdict(store, Ledger(node, BUSY), since_ns)
        print(f"files: {files:,}: busy ones: {verdict}", flush=True)
        verdict.show()
        for fault in faults:
            print(f"  {fault}", flush=True)
        return len(faults) + verdict.bad() + store.panics() + collector.panics()
    finally:
        for one in (kubelet, collector, store):
            if one is not None:
                one.kill()


def scenario(files):
    return lambda options, _, folder: run(max(files, BUSY + 1), options, folder)


if __name__ == "__main__":
    root = Path(sys.argv[1])
    write(root, json.loads((root / "idle.json").read_text()), float(sys.argv[2]), float(sys.argv[3]))
