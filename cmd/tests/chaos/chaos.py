#!/usr/bin/env python3
"""Ends the server in bad moments, cuts the power of its disk, fills it, flips bits of its files, and asks what is left.

`make chaos-metrics` and `make chaos-logs` run it; --kills, --cuts, --fills and --flips say how often, --series how many
series are too many, --seed repeats a run.
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
from load import Writer, wait_until_gone
from server import FAKETIME, NotStarted, Server

import lines
import samples

KINDS = {"metrics": samples, "logs": lines}

DAY = 86_400
# An answer to all at once would be larger than a query may load.
FULL_CHECK_EVERY = 50
# So many days go by for the server during a run, so that partitions of logs are closed; fewer than retention has.
SERVER_DAYS = 20


def crash_rounds(name, rounds, random_, server, crash, revive, load):
    """Load, a crash at a random moment, a start, and a look at what was acknowledged, so many times."""
    faults, ready = [], []
    for number in range(rounds + 1):
        if load.ages:
            server.days_ahead = number * SERVER_DAYS // max(rounds, SERVER_DAYS)
        try:
            ready.append(server.start())
        except NotStarted as error:
            faults.append(f"round {number}: the start was refused: {error}")
            break
        everything = number % FULL_CHECK_EVERY == 0 or number == rounds
        faults += [f"round {number}: {fault}" for fault in load.check(server, everything)]
        if number == rounds:
            break
        writers = [Writer(server, source) for source in load.sources]
        for writer in writers:
            writer.start()
        time.sleep(random_.uniform(0.02, 0.6))
        crash(writers)
        wait_until_gone(writers, 30)
        revive()
    server.kill()
    ready.sort()
    print(
        f"{name}: {rounds} rounds, {load.summary()}, {len(faults)} faults, {server.panics()} panics; "
        f"ready after {ready[len(ready) // 2]:.2f} s (median), {ready[int(len(ready) * 0.99)]:.2f} s (99th percentile)"
    )
    for fault in faults[:20]:
        print(f"  {fault}")
    return len(faults) + server.panics()


def kills(options, random_, folder, kind):
    server = Server(options.binnacle, folder / "kills", folder / "kills.log")
    load = kind.crash_load(random_)
    return crash_rounds("SIGKILL", options.kills, random_, server, lambda _: server.kill(), lambda: None, load)


def cuts(options, random_, folder, kind):
    disk = LoopDisk(folder / "cuts.img", folder / "cuts", kind.CUT_MEGABYTES)
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

        return crash_rounds("power cut", options.cuts, random_, server, crash, revive, kind.crash_load(random_))
    finally:
        server.kill()
        disk.unmount()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binnacle", type=Path, required=True)
    parser.add_argument("--of", choices=KINDS, default="metrics", help="what is sent and asked for")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--fills", type=int, help="default: 20 of metrics, for two seconds each; one of logs, for two minutes")
    parser.add_argument("--flips", type=int, help="default: 1000 of metrics, 500 of logs")
    parser.add_argument("--series", type=int, default=5_000_000, help="into a gigabyte of memory")
    parser.add_argument("--flip-files", default="*", help="only files of such a name")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    kind = KINDS[options.of]
    options.fills = kind.FILLS if options.fills is None else options.fills
    options.flips = kind.FLIPS if options.flips is None else options.flips
    print(f"seed {options.seed}", flush=True)
    if kind is lines and not FAKETIME.exists():
        print(f"SKIPPED 1: no partition is closed, {FAKETIME} is not there (apt install libfaketime)", flush=True)
    random_ = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="binnacle-chaos-"))
    bad = 0
    if options.series and options.of == "metrics":
        bad += explode(options, int(time.time()) * 1000 - DAY * 1000 // 24, folder)
    parts = ((options.kills, kills), (options.cuts, cuts), (options.fills, fill_rounds), (options.flips, flip_bits))
    for rounds, run in parts:
        if rounds:
            bad += run(options, random_, folder, kind)
            sys.stdout.flush()
    if bad:
        raise SystemExit(f"{bad} faults; what was printed is in {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
