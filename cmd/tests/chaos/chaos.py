#!/usr/bin/env python3
"""Ends the server in bad moments, cuts the power of its disk, fills it, flips bits of its files, and asks what is left.

`make chaos-metrics` runs it; --kills, --cuts, --fills and --flips say how often, --series how many series are too many, --seed repeats a run.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from cardinality import explode
from disk import LoopDisk
from fills import fill_rounds
from flips import flip_bits
from load import Memory, Steps, Writer, wait_until_gone
from server import NotStarted, Server

DAY = 86_400
WRITERS = 2
SERIES = 20
STEP_MS = 12_000
PER_BATCH = 5
# An answer to all at once would be larger than a query may load.
FULL_CHECK_EVERY = 50


def crash_rounds(name, rounds, random_, server, crash, revive):
    """Load, a crash at a random moment, a start, and a look at what was acknowledged, so many times."""
    start = int(time.time() - 30 * DAY) * 1000
    clock, memory = Steps(start, STEP_MS, PER_BATCH), Memory(SERIES)
    faults, ready = [], []
    for number in range(rounds + 1):
        try:
            ready.append(server.start())
        except NotStarted as error:
            faults.append(f"round {number}: the start was refused: {error}")
            break
        since = start if number % FULL_CHECK_EVERY == 0 or number == rounds else max(start, clock.at - DAY * 1000)
        faults += [f"round {number}: {fault}" for fault in memory.check_days(server, since, clock.at)]
        if number == rounds:
            break
        writers = [Writer(one, server, clock, SERIES) for one in range(WRITERS)]
        for writer in writers:
            writer.start()
        time.sleep(random_.uniform(0.02, 0.6))
        crash(writers)
        wait_until_gone(writers, 30)
        for writer in writers:
            memory.learn(writer)
        revive()
    server.kill()
    ready.sort()
    print(
        f"{name}: {rounds} rounds, {memory.count()} samples acknowledged over "
        f"{(clock.at - start) / DAY / 1000:.1f} days of their own time, {len(faults)} faults, {server.panics()} panics; "
        f"ready after {ready[len(ready) // 2]:.2f} s (median), {ready[int(len(ready) * 0.99)]:.2f} s (99th percentile)"
    )
    for fault in faults[:20]:
        print(f"  {fault}")
    return len(faults) + server.panics()


def kills(options, random_, folder):
    server = Server(options.binnacle, folder / "kills", folder / "kills.log")
    return crash_rounds("SIGKILL", options.kills, random_, server, lambda _: server.kill(), lambda: None)


def cuts(options, random_, folder):
    disk = LoopDisk(folder / "cuts.img", folder / "cuts", 512)
    disk.mount()
    try:
        server = Server(options.binnacle, disk.path / "data", folder / "cuts.log")

        def crash(writers):
            for writer in writers:
                writer.is_dark.set()
            disk.cut_power()
            server.kill()

        def revive():
            disk.unmount()
            disk.mount()

        return crash_rounds("power cut", options.cuts, random_, server, crash, revive)
    finally:
        server.kill()
        disk.unmount()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binnacle", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--fills", type=int, default=20)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--series", type=int, default=5_000_000, help="into a gigabyte of memory")
    parser.add_argument("--flip-files", default="*", help="only files of such a name")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    random_ = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="binnacle-chaos-"))
    bad = 0
    if options.series:
        bad += explode(options, int(time.time()) * 1000 - DAY * 1000 // 24, folder)
    parts = ((options.kills, kills), (options.cuts, cuts), (options.fills, fill_rounds), (options.flips, flip_bits))
    for rounds, run in parts:
        if rounds:
            bad += run(options, random_, folder)
            sys.stdout.flush()
    if bad:
        raise SystemExit(f"{bad} faults; what was printed is in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
