"""Five million series into a gigabyte: old series go on, new ones are refused and said, and nobody is killed for memory."""

import json
import os
import struct
import urllib.error
from pathlib import Path

from load import field, snappy, varint
from samples import HEADERS
from server import Server

GROUPS = Path("/sys/fs/cgroup")
LIMIT_BYTES = 1 << 30
KNOWN = 20_000
PER_BATCH = 5_000


def make_group(limit_bytes=LIMIT_BYTES):
    """A memory control group of the test's own; None where that is not allowed."""
    is_v2 = (GROUPS / "cgroup.controllers").exists()
    group = (GROUPS if is_v2 else GROUPS / "memory") / f"binnacle-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.max" if is_v2 else "memory.limit_in_bytes")).write_text(str(limit_bytes))
    except OSError as error:
        print(f"SKIPPED, no control group for memory: {error}")
        return None
    return group


def body(metric, job, numbers, at):
    out = bytearray()
    sample = field(2, b"\x09" + struct.pack("<d", float(at // 1000)) + b"\x10" + varint(at))
    for number in numbers:
        names = {"__name__": metric, "instance": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "job": job}
        labels = b"".join(field(1, field(1, name.encode()) + field(2, names[name].encode())) for name in sorted(names))
        out += field(1, labels + sample)
    return snappy(bytes(out))


def push(server, metric, job, numbers, at):
    """Whether all of it was taken, and what the server says."""
    try:
        server.post("/api/v1/write", body(metric, job, numbers, at), HEADERS)
        return True, ""
    except urllib.error.HTTPError as error:
        if error.code != 400:
            raise
        return False, error.read().decode()


def peak_megabytes(server):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def explode(options, now, folder):
    """So many new series of one job, and again and again the known ones of another."""
    group = make_group()
    if group is None:
        return 0
    server = Server(options.binnacle, folder / "cardinality", folder / "cardinality.log")
    faults, refused, said, at = [], 0, "", now
    try:
        server.start(lambda: (group / "cgroup.procs").write_text(str(os.getpid())))
        for start in range(0, options.series, PER_BATCH):
            if start % (40 * PER_BATCH) == 0:
                at += 15_000
                for known in range(0, KNOWN, PER_BATCH):
                    taken, why = push(server, "known", "steady", range(known, known + PER_BATCH), at)
                    faults += [] if taken else [f"known series were refused: {why}"]
            taken, why = push(server, "exploding", "runaway", range(start, start + PER_BATCH), at)
            refused, said = (refused, said) if taken else (refused + 1, why)
        peak = peak_megabytes(server)
        rounds = (at - now) // 15_000
        answer = server.query(f"sum(count_over_time(known[{at - now}ms]))", at / 1000)
        found = float(answer["data"]["result"][0]["value"][1])
        if found != rounds * KNOWN:
            faults.append(f"{found} samples of known series of {rounds * KNOWN}")
        top = json.loads(server.get("/api/v1/status/tsdb"))["data"]["seriesCountByMetricName"][0]
        if refused == 0 or top["name"] != "exploding":
            faults.append(f"{refused} batches were refused, the largest metric is {top}")
        print(
            f"cardinality: {options.series:,} series of one job into {LIMIT_BYTES >> 20} MiB: {top['value']:,} taken, "
            f"peak memory {peak:.0f} MiB, {found:,.0f} samples of known series meanwhile, {len(faults)} faults, "
            f"{server.panics()} panics; refused with: {said[:120].strip()}"
        )
    except OSError as error:
        faults.append(f"no answer: {error}: {server.last_lines()}")
    finally:
        server.kill()
        group.rmdir()
    for fault in faults[:20]:
        print(f"  {fault}")
    return len(faults) + server.panics()
