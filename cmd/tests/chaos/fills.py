"""Fills the disk under the server, frees it, and asks what was lost and how soon writes were taken again."""

import os
import time
import urllib.error

from disk import LoopDisk
from server import Server


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


def send_for(seconds, server, sources, counts):
    """Sends batches in turn, each until it is taken where its source may send it again."""
    deadline = time.monotonic() + seconds
    waiting = counts["waiting"]
    while time.monotonic() < deadline:
        for number, source in enumerate(sources):
            batch = waiting.pop(number, None) or source.next()
            try:
                source.post(server, batch)
                source.learn(batch, True)
                counts["taken"] += 1
            except urllib.error.HTTPError as error:
                if error.code not in (503, 507) or not error.headers.get("Retry-After"):
                    raise SystemExit(f"a full disk is answered by {error.code}: {error.read()[:200]}")
                counts["refused"] += 1
                source.learn(batch, False)
                if source.retries:
                    waiting[number] = batch
                time.sleep(0.05)


def fill_rounds(options, random_, folder, kind):
    disk = LoopDisk(folder / "fills.img", folder / "fills", kind.FILL_MEGABYTES)
    disk.mount()
    server = Server(options.binnacle, disk.path / "data", folder / "fills.log")
    ballast = disk.path / "ballast"
    load = kind.fill_load(random_)
    faults, resumed, counts = [], [], {"taken": 0, "refused": 0, "waiting": {}}
    try:
        server.start()
        for number in range(options.fills):
            send_for(random_.uniform(0.2, 1.0), server, load.sources, counts)
            fill(ballast)
            refused = counts["refused"]
            send_for(kind.FULL_SECONDS, server, load.sources, counts)
            if counts["refused"] == refused:
                faults.append(f"round {number}: the disk was full and nothing was refused")
            why = load.read(server)
            if why is not None:
                faults.append(f"round {number}: no reads while the disk is full: {why}")
            os.remove(ballast)
            began = time.monotonic()
            taken = counts["taken"]
            while server.process.poll() is None and counts["taken"] == taken and time.monotonic() - began < 30:
                send_for(0.06, server, load.sources, counts)
            resumed.append(time.monotonic() - began)
            if server.process.poll() is not None:
                faults.append(f"round {number}: the server ended: {server.last_lines()}")
                break
            if counts["taken"] == taken:
                faults.append(f"round {number}: nothing is taken 30 s after there is room again")
        for restart in range(2):
            faults += load.check(server, True)
            if restart == 0:
                server.kill()
                server.start()
    finally:
        server.kill()
        disk.unmount()
    resumed.sort()
    print(
        f"full disk: {len(resumed)} rounds of {kind.FULL_SECONDS:.0f} s, {counts['taken']} batches taken, "
        f"{counts['refused']} refused, {len(faults)} faults, {server.panics()} panics; writes taken again after "
        f"{resumed[len(resumed) // 2]:.1f} s (median), {resumed[-1]:.1f} s at the most"
    )
    for fault in faults[:20]:
        print(f"  {fault}")
    return len(faults) + server.panics()
