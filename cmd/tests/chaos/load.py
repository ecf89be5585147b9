"""Remote write of samples whose values follow from their name and time, and a memory of what was acknowledged."""

import struct
import threading
import time
import zlib

HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
METRIC = "chaos_value"


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def snappy(raw):
    """As snappy's block format, all of it literal."""
    out = bytearray(varint(len(raw)))
    for start in range(0, len(raw), 65536):
        piece = raw[start : start + 65536]
        out += bytes([61 << 2]) + struct.pack("<H", len(piece) - 1) + piece
    return bytes(out)


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


class Writer(threading.Thread):
    """Sends one batch after the other, until the server is gone. Every so often a batch comes late or twice."""

    def __init__(self, number, server, clock, series):
        super().__init__(daemon=True)
        self.number, self.server, self.clock, self.series = number, server, clock, series
        self.acknowledged = []
        self.unknown = []
        self.failure = None
        self.halt = threading.Event()
        self.is_dark = threading.Event()

    def run(self):
        late = None
        while not self.halt.is_set():
            times = self.clock.next()
            if times[0] % 7 == 0 and late is None:
                late = times
                continue
            if not self.send(times):
                return
            if late is not None and times[0] % 5 == 0:
                if not self.send(late):
                    return
                late = None

    def send(self, times):
        try:
            self.server.post("/api/v1/write", body(self.number, range(self.series), times), HEADERS)
        except OSError as error:
            # No answer, or one that says no: either way the batch may or may not be there.
            self.unknown.append(times)
            self.failure = error
            return False
        # In the very moment of the cut ext4 answers some syncs that did nothing; a machine without power would not.
        (self.unknown if self.is_dark.is_set() else self.acknowledged).append(times)
        return True


class Steps:
    """Hands out moments, ascending, the same for nobody twice."""

    def __init__(self, start, step, per_batch):
        self.at, self.step, self.per_batch, self.lock = start, step, per_batch, threading.Lock()

    def next(self):
        with self.lock:
            times = [self.at + one * self.step for one in range(self.per_batch)]
            self.at += self.per_batch * self.step
            return times


class Memory:
    """What must be there, and what may be."""

    def __init__(self, series):
        self.series = series
        self.must, self.may = {}, {}

    def learn(self, writer):
        for known, batches in ((self.must, writer.acknowledged), (self.may, writer.unknown)):
            moments = known.setdefault(str(writer.number), set())
            moments.update(at for times in batches for at in times)

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


def wait_until_gone(writers, seconds):
    deadline = time.monotonic() + seconds
    for writer in writers:
        writer.join(max(0.1, deadline - time.monotonic()))
        if writer.is_alive():
            raise SystemExit("a writer still waits for an answer of a server that is gone")
