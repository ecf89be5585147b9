"""A gigabyte without a line end, for a collector in 64 MiB: it lives, the line is cut and says so, what follows is there.

Once as one line of the file, and once as a runtime writes it: in pieces of 16 KiB, all but the last of them marked `P`.
"""

import json
import os
import time
import urllib.parse

from cardinality import make_group
from kubelet import NAMESPACE, PIECE_BYTES, append_to, make_container, pod_of
from node import Collector, Store

GROUP_BYTES = 64 << 20
# Whatever the limit is, it is not above this.
MESSAGE_MAX_BYTES = 2 << 20
AFTER = 1000
WAIT_SECONDS = 180
BLOCK = b"y" * (1 << 20)


def stamp():
    now = time.time_ns()
    return (time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09}Z").encode()


def write_whole(file, size):
    os.write(file, stamp() + b" stdout F longline begins ")
    for _ in range(size // len(BLOCK)):
        os.write(file, BLOCK)
    os.write(file, b"\n")


def write_pieces(file, size):
    os.write(file, stamp() + b" stdout P longline begins \n")
    pieces = (stamp() + b" stdout P " + BLOCK[:PIECE_BYTES] + b"\n") * 64
    for _ in range(size // (64 * PIECE_BYTES)):
        os.write(file, pieces)
    os.write(file, stamp() + b" stdout F the end\n")


def write_after(file):
    for number in range(AFTER):
        os.write(file, b"%b stdout F after %d\n" % (stamp(), number))


def entries(store, number, query):
    query = urllib.parse.urlencode({"q": f'namespace:{NAMESPACE} AND pod:"{pod_of(number)}" AND {query}', "limit": 5000,
                                    "start": "now-1h", "end": "now+1h"})
    return json.loads(store.get(f"/api/logs/search?{query}"))["data"]["entries"]


def wait_for_after(store, collector, number):
    """Until the lines behind the long one are found, or the collector is dead."""
    deadline, found = time.monotonic() + WAIT_SECONDS, []
    while time.monotonic() < deadline and collector.is_alive() and len(found) < AFTER:
        time.sleep(0.5)
        found = entries(store, number, "after")
    return found


def judge(name, collector, found, long):
    """Faults in what the store has of one file."""
    faults = []
    if not collector.is_alive():
        faults.append(f"{name}: the collector is dead, exit code {collector.process.poll()}: {collector.last_lines()}")
    texts = sorted(entry["message"] for entry in found)
    if texts != sorted(f"after {number}" for number in range(AFTER)):
        faults.append(f"{name}: {len(texts)} lines behind it rather than {AFTER}")
    if len(long) != 1:
        faults.append(f"{name}: the long line is there {len(long)} times")
    for entry in long:
        if not 1000 < len(entry["message"]) <= MESSAGE_MAX_BYTES:
            faults.append(f"{name}: {len(entry['message'])} bytes of it are kept")
    return faults


def one_line(store, collector, node, number, options):
    """Faults with a file whose first line is long; the file is gone afterwards."""
    name, write_line = (("one line", write_whole), ("pieces", write_pieces))[number]
    before = collector.metric("log_lines_truncated_total") or 0
    path, _ = make_container(node, number)
    file = append_to(path)
    began = time.monotonic()
    write_line(file, options.long_bytes)
    write_after(file)
    os.close(file)
    found = wait_for_after(store, collector, number)
    seconds = time.monotonic() - began
    long = entries(store, number, "longline")
    faults = judge(name, collector, found, long)
    fields = [field for entry in long for field in entry["fields"] if "trunc" in field]
    counted = (collector.metric("log_lines_truncated_total") or 0) - before
    if not fields:
        faults.append(f"{name}: no field of the entry says that it was cut; the metric counts {counted}")
    kept = max((len(entry["message"]) for entry in long), default=0)
    print(f"long line, {name}: {options.long_bytes >> 20} MiB, {seconds:.1f} s to the line behind it, {kept:,} bytes kept, "
          f"fields {fields}, cut by the metric: {counted}", flush=True)
    path.unlink()
    return faults


def peak_of(group):
    for name in ("memory.max_usage_in_bytes", "memory.peak"):
        if (group / name).exists():
            return int((group / name).read_text()) / 2**20
    return float("nan")


def scenario(options, _, folder):
    group = make_group(GROUP_BYTES)
    if group is None:
        return 0
    node = folder / "node"
    (node / "containers").mkdir(parents=True)
    store, faults = Store(options.binnacle, folder), []
    store.start()
    collector = Collector(options.collector, folder, store.url)
    try:
        collector.start(lambda: (group / "cgroup.procs").write_text(str(os.getpid())))
        for number in (0, 1):
            if collector.is_alive():
                faults += one_line(store, collector, node, number, options)
        memory = collector.memory() if collector.is_alive() else {"VmHWM": float("nan")}
        print(f"long line: the collector's VmHWM {memory['VmHWM']:.0f} MiB, its group's peak {peak_of(group):.0f} of "
              f"{GROUP_BYTES >> 20} MiB with the files' pages; {len(faults)} faults", flush=True)
    finally:
        collector.kill()
        store.kill()
        group.rmdir()
    for fault in faults:
        print(f"  {fault}")
    return len(faults) + store.panics() + collector.panics()
