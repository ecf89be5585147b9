"""Fills the disk under the server, frees it, and asks what was lost and how soon writes were taken again."""

import os
import time
import urllib.error

from disk import LoopDisk
from load import HEADERS, METRIC, Memory, Steps, Writer, body
from server import Server

SERIES = 20
FULL_SECONDS = 2.0
# ext4 takes no less for itself than this leaves room.
MEGABYTES = 96


def fill(path):
    """Takes what room there is, in ever smaller pieces."""
    with open(path, "ab", buffering=0) as ballast:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    ballast.write(bytes(size))
            except OSError:
                pass
        os.fsync(ballast.fileno())


def send_for(seconds, server, clock, writer, counts):
    """Sends batches, each until it is taken; answers after so many seconds."""
    deadline = time.monotonic() + seconds
    times = clock.next()
    while time.monotonic() < deadline:
        try:
            server.post("/api/v1/write", body(writer.number, range(SERIES), times), HEADERS)
            writer.acknowledged.append(times)
            counts["taken"] += 1
            times = clock.next()
        except urllib.error.HTTPError as error:
            if error.code not in (503, 507) or not error.headers.get("Retry-After"):
                raise SystemExit(f"a full disk is answered by {error.code}: {error.read()[:200]}")
            counts["refused"] += 1
            time.sleep(0.05)
    writer.unknown.append(times)


def fill_rounds(options, random_, folder):
    disk = LoopDisk(folder / "fills.img", folder / "fills", MEGABYTES)
    disk.mount()
    server = Server(options.binnacle, disk.path / "data", folder / "fills.log")
    ballast = disk.path / "ballast"
    start = int(time.time() - 20 * 86_400) * 1000
    clock, memory = Steps(start, 20_000, 5), Memory(SERIES)
    writer = Writer(0, server, clock, SERIES)
    faults, resumed, counts = [], [], {"taken": 0, "refused": 0}
    try:
        server.start()
        for number in range(options.fills):
            send_for(random_.uniform(0.2, 1.0), server, clock, writer, counts)
            fill(ballast)
            refused = counts["refused"]
            send_for(FULL_SECONDS, server, clock, writer, counts)
            if counts["refused"] == refused:
                faults.append(f"round {number}: the disk was full and nothing was refused")
            answer = server.query(f"count({METRIC})", clock.at / 1000)
            if answer["status"] != "success":
                faults.append(f"round {number}: no reads while the disk is full: {answer}")
            os.remove(ballast)
            began = time.monotonic()
            while server.process.poll() is None and time.monotonic() - began < 30:
                taken = counts["taken"]
                send_for(0.06, server, clock, writer, counts)
                if counts["taken"] > taken:
                    break
            resumed.append(time.monotonic() - began)
            if server.process.poll() is not None:
                faults.append(f"round {number}: the server ended: {server.last_lines()}")
                break
        memory.learn(writer)
        for restart in range(2):
            faults += memory.check_days(server, start, clock.at)
            if restart == 0:
                server.kill()
                server.start()
    finally:
        server.kill()
        disk.unmount()
    resumed.sort()
    print(
        f"full disk: {len(resumed)} rounds, {counts['taken']} batches taken, {counts['refused']} refused, "
        f"{len(faults)} faults, {server.panics()} panics; writes taken again after "
        f"{resumed[len(resumed) // 2]:.1f} s (median), {resumed[-1]:.1f} s at the most"
    )
    for fault in faults[:20]:
        print(f"  {fault}")
    return len(faults) + server.panics()
