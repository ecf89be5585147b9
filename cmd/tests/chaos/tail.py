#!/usr/bin/env python3
"""Files of containers that are written and rotated as on a node, `collect`, `serve`, and what may happen to them.

    --killed        both are killed at random while streams rotate every 50 to 200 ms (RELIABILITY.md L1, L2, L21)
    --stopped       the collector is away while files are rotated four times and compressed (L4)
    --away SECONDS  the store is away while the kubelet rotates and deletes (L9, L20); what is lost must be what is reported
    --files N       so many files, a hundred of them busy: how fresh the lines of the others are (L15)
    --long-line     a gigabyte without a line end, for a collector in 64 MiB (L12)

Each line is read back: what is missing, doubled, out of order in its stream or damaged is a fault. `make chaos-tail` runs
all of it, some 40 minutes, with --away twice; --seed repeats a run, --keep leaves the folder there.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import crowd
import longline
from ledger import Ledger, Verdict, newest, wait_for_lines
from lives import Lives
from node import Collector, Kubelet, Store, metric_of
from server import NotStarted

AWAY_RATE = 20_000
# Not further behind the writer: caught up.
FRESH_SECONDS = 3
LINE_BYTES = 200
STORED = "binnacle_store_log_lines_appended_total"
# For what was written to be found after the writer's end.
CATCH_UP_SECONDS = 120


class Rig:
    """A store, a collector and a kubelet in a folder of their own; they end with the `with`."""

    def __init__(self, options, folder, spool=None):
        self.folder, self.options, self.spool = folder, options, spool
        (folder / "node/containers").mkdir(parents=True)
        self.store = Store(options.binnacle, folder)
        self.collector = self.kubelet = self.lives = None
        self.since_ns = time.time_ns() - 60 * 10**9

    def __enter__(self):
        try:
            self.store.start()
            self.collector = Collector(self.options.collector, self.folder, self.store.url, spool=self.spool)
            self.collector.start()
            self.lives = Lives(self.collector, self.folder / "events.jsonl")
            self.lives.start()
            return self
        except BaseException:
            self.__exit__()
            raise

    def write(self, **how):
        self.kubelet = Kubelet(self.folder / "node", seed=self.options.seed, **how)

    def __exit__(self, *_):
        if self.lives is not None:
            self.lives.halt.set()
        for one in (self.kubelet, self.collector, self.store):
            if one is not None:
                one.kill()

    def finish(self):
        """Ends the writer, and waits for the collector; answers a sentence, and what the store has."""
        said = self.kubelet.stop()
        found, seconds = wait_for_lines(self.store, self.since_ns, said["written"], CATCH_UP_SECONDS)
        # Whatever comes now is there twice.
        time.sleep(1)
        self.lives.end()
        ledger = Ledger(self.folder / "node", self.kubelet.options["streams"])
        verdict = Verdict(self.store, ledger, self.since_ns)
        late = f", the writer was late by {said['late_s']:.2f} s at most" if said["late_s"] > 0.2 else ""
        return f"the last line was found {seconds:.1f} s after the end{late}; {self.lives}", verdict

    def panics(self):
        return self.store.panics() + self.collector.panics()


def report(name, rig, sentence, verdict, faults, but=()):
    said = rig.lives.counts()["log_lost_bytes_total"]
    if said > verdict.missing_bytes:
        faults.append(f"the collector says that {said:,} bytes are lost, and {verdict.missing_bytes:,} are missing")
    bad = verdict.bad(but) + len(faults) + rig.panics()
    print(f"{name}: {verdict}; {sentence}; {bad} faults, {rig.panics()} panics", flush=True)
    verdict.show(but)
    for fault in faults[:20]:
        print(f"  {fault}", flush=True)
    return bad


def kill_one(one, lives, faults):
    lives.ask()
    if one.process.poll() is not None:
        faults.append(f"it ended by itself, exit code {one.process.returncode}: {one.last_lines()}")
    one.kill()
    one.spawn()
    lives.note(killed=type(one).__name__)


def killed(options, random_, folder):
    with Rig(options, folder) as rig:
        rig.write(streams=options.streams, rate=options.rate, keep_s=options.keep_seconds, restart_s=options.restart_every,
                  split_over_rotation=options.split_over_rotation)
        began, faults, victims = time.monotonic(), [], [rig.store, rig.collector]
        for at in sorted(random_.uniform(0.5, options.seconds) for _ in range(options.kills)):
            time.sleep(max(0.0, began + at - time.monotonic()))
            kill_one(random_.choice(victims), rig.lives, faults)
        time.sleep(max(0.0, began + options.seconds - time.monotonic()))
        rig.store.wait_until_ready()
        if not rig.collector.is_alive():
            faults.append(f"the collector ended by itself: {rig.collector.last_lines()}")
        sentence, verdict = rig.finish()
        sentence = f"{options.kills} kills in {options.seconds:.0f} s, {sentence}"
        return report("killed", rig, sentence, verdict, faults)


def stopped(options, _, folder):
    with Rig(options, folder) as rig:
        rig.write(streams=options.streams, rate=min(options.rate, AWAY_RATE), rotation="manual")
        for sign in (signal.SIGTERM, signal.SIGKILL):
            time.sleep(3)
            rig.collector.end(sign)
            for _ in range(4):
                time.sleep(0.5)
                rig.kubelet.ask("rotate")
            rig.kubelet.ask("litter")
            time.sleep(0.5)
            if options.lose_state:
                shutil.rmtree(rig.collector.state, ignore_errors=True)
            rig.collector.start()
        time.sleep(2)
        sentence, verdict = rig.finish()
        return report("stopped", rig, f"four rotations twice, {sentence}", verdict, [])


class Drain:
    """How the collector makes up for what it could not send, while the writer goes on."""

    def __init__(self, rig, rate):
        self.rig, self.rate = rig, rate
        self.lines = self.seconds = 0
        # Until the first line came: whoever was refused for long asks seldom.
        self.waited = None
        self.is_done = False

    def is_fresh(self):
        """Whether each stream has a line of the last moments: files are read in their order, so that none is behind."""
        for stream in range(self.rig.kubelet.options["streams"]):
            if not newest(self.rig.store, stream, FRESH_SECONDS):
                return False
        lag = self.rig.collector.metric("log_lag_bytes")
        return lag is None or lag < FRESH_SECONDS * self.rate * LINE_BYTES

    def run(self, most_seconds):
        """Until there is no lag; the store was just started, so that it counts from zero."""
        began = time.monotonic()
        while time.monotonic() < began + most_seconds and not self.is_done:
            time.sleep(0.25)
            self.is_done = self.is_fresh()
            self.lines = metric_of(self.rig.store.get("/metrics").decode(), STORED) or 0
            self.seconds = time.monotonic() - began
            if self.lines and self.waited is None:
                self.waited = self.seconds

    def __str__(self):
        waited = self.waited or 0.0
        rate = self.lines / max(self.seconds - waited, 0.25)
        done = "" if self.is_done else "NOT "
        return (f"{done}caught up after {self.seconds:.1f} s, of which {waited:.1f} s without a line; then {rate:,.0f} lines/s, "
                f"{rate / self.rate:.2f} times the intake")


def sleep_away(rig, seconds):
    """The most that the collector said of lag and spool, and its memory."""
    most, deadline = {"log_lag_bytes": 0, "log_spool_bytes": 0, "VmHWM": 0}, time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(2.0, left))
        if not rig.collector.is_alive():
            raise NotStarted(f"the collector ended while the store was away: {rig.collector.last_lines()}")
        for name in ("log_lag_bytes", "log_spool_bytes"):
            most[name] = max(most[name], rig.collector.metric(name) or 0)
        most["VmHWM"] = rig.collector.memory()["VmHWM"]
    return most


def away(options, _, folder):
    return away_with(options, folder, options.spool)


def away_without_spool(options, _, folder):
    """So that there is something lost."""
    return away_with(options, folder, "0B")


def away_with(options, folder, spool):
    rate, faults = min(options.rate, AWAY_RATE), []
    with Rig(options, folder, spool) as rig:
        rig.write(streams=options.streams, rate=rate, rotation="kubelet", check_s=options.check_seconds,
                  max_bytes=int(options.max_mib * 2**20))
        time.sleep(5)
        rig.store.stop()
        most = sleep_away(rig, options.away)
        rig.store.start()
        drain = Drain(rig, rate)
        drain.run(max(60, options.away))
        if not drain.is_done:
            faults.append(f"the collector did not catch up: {rig.collector.last_lines()}")
        sentence, verdict = rig.finish()
        said = rig.collector.metric("log_lost_bytes_total")
        lost, still_there = verdict.counts["missing"], verdict.counts["missing"] - verdict.missing_deleted
        if (said or 0) < verdict.missing_bytes:
            faults.append(f"{verdict.missing_bytes:,} bytes are missing, and the collector says {said}")
        if most["log_lag_bytes"] + most["log_spool_bytes"] < rate * LINE_BYTES:
            faults.append(f"the collector said that {most['log_lag_bytes']:,} bytes were behind, at most")
        if still_there:
            faults.append(f"{still_there:,} missing lines are in files that are still there")
        print(f"away: {options.away:.0f} s at {rate:,} lines/s: deleted unread {lost:,} lines, {verdict.missing_bytes:,} "
              f"bytes; reported {'nothing' if said is None else f'{said:,}'}; {drain}; lag at most {most['log_lag_bytes']:,} "
              f"bytes, spool {most['log_spool_bytes']:,} bytes, VmHWM {most['VmHWM']:.0f} MiB")
        return report("away", rig, sentence, verdict, faults, but=("missing",))


def scenarios(options):
    """What was asked for, or all of it: names and functions."""
    wanted = [("killed", killed)] * options.killed + [("stopped", stopped)] * options.stopped
    wanted += [("away", away)] * (options.away is not None)
    wanted += [(f"files-{files}", crowd.scenario(files)) for files in options.files or ()]
    wanted += [("long-line", longline.scenario)] * options.long_line
    if not wanted:
        options.away = 600.0
        wanted = [("killed", killed), ("stopped", stopped), ("files-1000", crowd.scenario(1000)),
                  ("files-10000", crowd.scenario(10_000)), ("long-line", longline.scenario), ("away", away), ("away-without-spool", away_without_spool)]
    return wanted


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binnacle", type=Path, required=True, help="the store's program")
    parser.add_argument("--collector", type=Path, help="the collector's program, if it is another")
    parser.add_argument("--killed", action="store_true")
    parser.add_argument("--stopped", action="store_true")
    parser.add_argument("--away", type=float, nargs="?", const=600.0, metavar="SECONDS", help="default: 600")
    parser.add_argument("--files", type=int, action="append", metavar="N", help="may be there more than once")
    parser.add_argument("--long-line", action="store_true")
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--rate", type=int, default=50_000, help="lines a second; 20,000 at most but for --killed")
    parser.add_argument("--seconds", type=float, default=120, help="of --killed; half of it for --files")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--split-over-rotation", action="store_true", help="messages begin in one file and end in the next")
    parser.add_argument("--keep-seconds", type=float, default=40, help="that rotated files have to live in --killed")
    parser.add_argument("--restart-every", type=float, default=15, help="seconds of a container in --killed; 0 is for ever")
    parser.add_argument("--lose-state", action="store_true", help="the collector's folder is empty after --stopped")
    parser.add_argument("--check-seconds", type=float, default=10, help="between two looks of the kubelet in --away")
    parser.add_argument("--max-mib", type=float, default=10, help="the size at which the kubelet rotates in --away")
    parser.add_argument("--spool", help="size of the collector's spool in --away, such as 64MB; default: its own")
    parser.add_argument("--idle-every", type=float, default=5, help="seconds between two lines of an idle file")
    parser.add_argument("--long-bytes", type=int, default=1 << 30, help="of the long line")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    options.binnacle = options.binnacle.resolve()
    options.collector = (options.collector or options.binnacle).resolve()
    return options


def main():
    options = parse()
    # So that what was started is ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
    print(f"seed {options.seed}", flush=True)
    folder, bad = Path(tempfile.mkdtemp(prefix="binnacle-tail-")), 0
    for number, (name, run) in enumerate(scenarios(options)):
        place = folder / name
        place.mkdir()
        try:
            faults = run(options, random.Random(options.seed + number), place)
        except (NotStarted, OSError) as error:
            print(f"{name}: broken off: {error!r}", flush=True)
            faults = 1
        bad += faults
        # The lines themselves take gigabytes; what the programs said is kept, and what was written where.
        if not (options.keep and faults):
            for rest in ("node/pods", "node/containers", "data"):
                shutil.rmtree(place / rest, ignore_errors=True)
    if bad:
        raise SystemExit(f"{bad} faults; what was printed is in {folder}")
    if not options.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
