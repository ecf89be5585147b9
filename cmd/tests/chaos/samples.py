"""Samples through remote write, whose values follow from their name and time, and a memory of what was acknowledged."""

import json
import struct
import time
import zlib

from load import Steps, Writer, field, snappy, varint, wait_until_gone
from server import Server

HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
METRIC = "chaos_value"

# Of the disk whose power is cut, and of the one that is filled: ext4 takes no less for itself than this leaves room.
CUT_MEGABYTES = 512
FILL_MEGABYTES = 96
FILLS, FULL_SECONDS = 20, 2.0
FLIPS = 1000
ITEMS = "samples"


def value_of(writer, series, at):
    """Of one sample. Some series count, some stand still, some have digits, some are noise."""
    noise = zlib.crc32(f"{writer} {series} {at}".encode())
    kinds = [at // 1000 % 100_000, 7, noise % 1000 / 100, noise / 4294967296 * 1e-3]
    return float(kinds[series % 4])


def body(writer, series, times):
    out = bytearray()
    for number in series:
        names = {"__name__": METRIC, "series": f"{number:04}", "writer": str(writer)}
        labels = b"".join(field(1, field(1, name.encode()) + field(2, names[name].encode())) for name in sorted(names))
        samples = b"".join(
            field(2, b"\x09" + struct.pack("<d", value_of(writer, number, at)) + b"\x10" + varint(at)) for at in times
        )
        out += field(1, labels + samples)
    return snappy(bytes(out))


class SampleSource:
    """Batches of one writer's series. Every so often one comes late."""

    # A sample that is there already is no second one.
    retries = True

    def __init__(self, number, clock, memory):
        self.number, self.clock, self.memory = number, clock, memory
        self.late, self.is_late_due = None, False

    def next(self):
        if self.is_late_due:
            times, self.late, self.is_late_due = self.late, None, False
            return times
        times = self.clock.next()
        if times[0] % 7 == 0 and self.late is None:
            self.late, times = times, self.clock.next()
        self.is_late_due = self.late is not None and times[0] % 5 == 0
        return times

    def post(self, server, times):
        server.post("/api/v1/write", body(self.number, range(self.memory.series), times), HEADERS)

    def learn(self, times, is_acknowledged):
        self.memory.learn(self.number, times, is_acknowledged)


class Memory:
    """What must be there, and what may be."""

    def __init__(self, series):
        self.series = series
        self.must, self.may = {}, {}

    def learn(self, writer, times, is_acknowledged):
        (self.must if is_acknowledged else self.may).setdefault(str(writer), set()).update(times)

    def count(self):
        return self.series * sum(len(moments) for moments in self.must.values())

    def check_days(self, server, start, end):
        """Faults in what a server has from start up to end, read in parts, as one query may load only so much."""
        faults, at = [], start - 1
        while at < end:
            until = min(at + 5 * 86_400_000, end)
            faults += self.check(server.query(f"{METRIC}[{until - at}ms]", until / 1000), at, until)
            at = until
        return faults

    def check(self, answer, start, end):
        """Faults in an answer to METRIC over the moments from start up to end, both in milliseconds."""
        if answer["status"] != "success":
            return [f"query refused: {answer}"]
        faults = [f"warning: {warning}" for warning in answer.get("warnings", [])]
        found = {}
        for result in answer["data"]["result"]:
            key = (result["metric"]["writer"], int(result["metric"]["series"]))
            times = [round(at * 1000) for at, _ in result["values"]]
            if any(a >= b for a, b in zip(times, times[1:])):
                faults.append(f"{key}: moments twice or out of order")
            for at, (_, value) in zip(times, result["values"]):
                if float(value) != value_of(*key, at):
                    faults.append(f"{key} at {at}: {value} is wrong")
            found[key] = set(times)
        for writer, must in self.must.items():
            may = self.may.get(writer, set())
            wanted = {at for at in must if start < at <= end}
            for series in range(self.series):
                here = found.get((writer, series), set())
                missing, foreign = wanted - here, here - must - may
                if missing:
                    faults.append(f"({writer}, {series}): {len(missing)} acknowledged are missing, first {min(missing)}")
                if foreign:
                    faults.append(f"({writer}, {series}): {len(foreign)} were never sent, first {min(foreign)}")
        return faults


class Samples:
    """Load of samples over days of their own time, and what is known of it."""

    DAY_MS = 86_400_000
    # The clock of the server is left alone.
    ages = False

    def __init__(self, writers, series, days_ago, step_ms, per_batch):
        self.start = int(time.time() - days_ago * 86_400) * 1000
        self.clock, self.memory = Steps(self.start, step_ms, per_batch), Memory(series)
        self.sources = [SampleSource(number, self.clock, self.memory) for number in range(writers)]

    def check(self, server, everything):
        """Faults in all that a server has, or in the last day of it."""
        since = self.start if everything else max(self.start, self.clock.at - self.DAY_MS)
        return self.memory.check_days(server, since, self.clock.at)

    def read(self, server):
        """Why a server does not answer, if it does not."""
        answer = server.query(f"count({METRIC})", self.clock.at / 1000)
        return None if answer["status"] == "success" else str(answer)

    def summary(self):
        days = (self.clock.at - self.start) / self.DAY_MS
        return f"{self.memory.count()} samples acknowledged over {days:.1f} days of their own time"


def crash_load(_):
    return Samples(writers=2, series=20, days_ago=30, step_ms=12_000, per_batch=5)


def fill_load(_):
    return Samples(writers=1, series=20, days_ago=20, step_ms=20_000, per_batch=5)


class Flipped:
    """Blocks of days and of hours, and a write-ahead log with what is in none of them."""

    DAYS = 3
    STEP_MS = 30_000
    SPAN = 4 * 86_400

    def __init__(self, options, folder):
        self.sound = folder / "sound"
        server = Server(options.binnacle, self.sound, folder / "sound.log")
        end = int(time.time() * 1000) // self.STEP_MS * self.STEP_MS
        self.at = end / 1000
        load = Samples(writers=1, series=60, days_ago=self.DAYS, step_ms=self.STEP_MS, per_batch=20)
        for part in range(4):
            server.start()
            writer = Writer(server, load.sources[0])
            writer.start()
            while load.clock.at < end - (3 - part) * 18_000_000:
                time.sleep(0.01)
            writer.halt.set()
            wait_until_gone([writer], 30)
            # The next start writes the blocks that are due. One end in two is a clean one.
            time.sleep(0.5)
            if part % 2:
                server.kill()
            else:
                server.stop()

    def kind_of(self, path):
        if path.parts[0] == "wal":
            return "write-ahead log"
        return "block" if path.suffix == ".block" else path.name

    def pick(self, random_, files):
        """A byte, each of all with the same chance."""
        at = random_.randrange(sum(size for _, size in files))
        for path, size in files:
            if at < size:
                return path, at
            at -= size
        raise AssertionError("within the sum")

    def ask(self, server):
        """Why there is no answer; the samples of each series; whether there were warnings."""
        answer = server.query(f"{METRIC}[{self.SPAN}s]", self.at)
        if answer["status"] != "success":
            return str(answer), {}, False
        result = answer["data"]["result"]
        found = {json.dumps(one["metric"], sort_keys=True): one["values"] for one in result}
        return None, found, bool(answer.get("warnings"))

    def ask_more(self, _server, _is_warned):
        return []
