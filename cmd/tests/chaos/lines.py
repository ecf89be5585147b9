"""Log lines whose texts follow from their numbers, by two doors, and a memory of what was acknowledged.

A collector's batches name the bytes of the files that they are from, so that one whose answer was lost is sent again, and
every line must be there once. Loki's push has no such thing: there a batch without an answer is not sent again, and may be
there or not; what was acknowledged must be there once all the same.
"""

import json
import re
import struct
import time
import urllib.error
import urllib.parse
import zlib

from load import Steps, Writer, field, snappy, varint, wait_until_gone
from server import Server

# Two gigabytes of messages would close a partition; here days do.
CUT_MEGABYTES = 1024
FILL_MEGABYTES = 256
FILLS, FULL_SECONDS = 1, 120.0
FLIPS = 500
ITEMS = "lines"

STEP_MS = 1000
PER_BATCH = 240
FILES = 3
# Lines of one moment, whose order only their places in the file tell.
PER_MOMENT = 10
FILE_BATCHES = 40
# Between two batches, or there would be more lines than can be looked at.
PAUSE_SECONDS = 0.008
LATE_SECONDS = 5
# What is looked at in one go, so that it fits into memory.
WINDOW_MS = 500 * STEP_MS
KEY = re.compile(r"k(\d+)-(\d+)-(\d+)")
WORDS = (
    "harbour lantern tide anchor compass chart current north keel rudder beacon storm calm sail mast deck cargo manifest "
    "pilot crew watch night dawn fog signal reef shoal drift course bearing knot league ballast rope sounding"
).split()


def text_of(writer, batch, number):
    """Of one line: templates with variables, JSON, logfmt, stack traces, prose."""
    key = f"k{writer}-{batch}-{number}"
    noise = zlib.crc32(key.encode())
    kind = number % 8
    if kind == 0:
        return (f"10.{noise >> 24}.{noise >> 16 & 255}.7 - - \"GET /api/v1/carts/{noise % 90_000} HTTP/1.1\" 200 {noise % 9000} "
                f"0.{noise % 1000:03} {key}")
    if kind == 1:
        return json.dumps({"level": "warn" if noise % 9 == 0 else "info", "msg": "order moved", "order": noise % 100_000,
                           "took_ms": noise % 1700 / 10, "trace_id": f"{noise:08x}{batch:016x}{number:08x}", "key": key})
    if kind == 2:
        return (f"java.lang.IllegalStateException: no berth for {key}\n\tat harbour.Dock.moor(Dock.java:{noise % 900})\n"
                f"\tat harbour.Pilot.steer(Pilot.java:{noise % 77})\nCaused by: java.io.IOException: tide {noise % 12}")
    if kind == 3:
        words = [WORDS[(noise >> at) % len(WORDS)] for at in range(0, 24, 2)]
        return " ".join(words) + f", said {key}."
    if kind == 4:
        return f"level=error component=pump msg=\"pressure lost\" bar={noise % 4000 / 1000} valve=v-{noise % 300} key={key}"
    if kind == 5:
        return f"connection from 192.168.{noise >> 8 & 255}.{noise & 255}:{noise % 60_000} closed after {noise % 90}s, {key}"
    if kind == 6:
        return f"ключ {key} — naïve café ☕ {noise:x}"
    return f"heartbeat {key}"


def time_of(batch, number):
    """Unix nanoseconds of a line; a batch is known by the milliseconds at which it begins."""
    return batch * 1_000_000 + number // PER_MOMENT * 1_000_000


def pod_of(writer, number):
    return f"chaos-{writer}-{number % FILES}"


class CollectorSource:
    """Reads files that are never there: batches whose lines have an origin."""

    retries = True

    def __init__(self, number, clock, memory):
        self.number, self.clock, self.memory = number, clock, memory
        self.waiting, self.sent = None, 0
        self.offsets = [0] * FILES

    def next(self):
        """A batch of which no answer came is the next one again."""
        time.sleep(PAUSE_SECONDS)
        return self.clock.next()[0] if self.waiting is None else self.waiting

    def body(self, batch):
        """And where each file's next batch begins."""
        offsets, entries = list(self.offsets), [bytearray() for _ in range(FILES)]
        for number in range(PER_BATCH):
            message = text_of(self.number, batch, number).encode()
            entry = (b"\x09" + struct.pack("<q", time_of(batch, number)) + b"\x10" + varint(offsets[number % FILES])
                     + field(3, message) + field(5, b"stdout"))
            entries[number % FILES] += field(5, entry)
            offsets[number % FILES] += len(message) + 1
        push = bytearray()
        for one in range(FILES):
            labels = {"app": "chaos", "container": "c", "namespace": "chaos", "pod": pod_of(self.number, one)}
            stream = b"".join(field(4, field(1, name.encode()) + field(2, labels[name].encode())) for name in labels)
            file = f"chaos-{self.number}-{one}-{self.sent // FILE_BATCHES}".encode()
            head = field(1, file) + b"\x10" + varint(self.offsets[one]) + b"\x18" + varint(offsets[one])
            push += field(1, head + stream + bytes(entries[one]))
        return snappy(bytes(push)), offsets

    def post(self, server, batch):
        body, offsets = self.body(batch)
        headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
        answer = json.loads(server.post("/api/collect/logs", body, headers))
        counts = (answer["appended"], answer["duplicate"])
        if counts not in ((PER_BATCH, 0), (0, PER_BATCH)):
            self.memory.faults.append(f"a batch was taken in part: {answer}")
        if self.sent % 7 == 3:
            # Once more what was just acknowledged.
            again = json.loads(server.post("/api/collect/logs", body, headers))
            if (again["appended"], again["duplicate"]) != (0, PER_BATCH):
                self.memory.faults.append(f"a batch sent twice: {again}")
        self.last = (body, headers)
        self.next_offsets = offsets

    def learn(self, batch, is_acknowledged):
        self.memory.learn(self.number, batch, is_acknowledged)
        if is_acknowledged:
            self.offsets, self.waiting, self.sent = self.next_offsets, None, self.sent + 1
        else:
            self.waiting = batch


class LokiSource:
    """Pushes in JSON and in protobuf by turns. Every so often a batch comes late."""

    retries = False

    def __init__(self, number, clock, memory):
        self.number, self.clock, self.memory = number, clock, memory
        self.late, self.sent = None, 0

    def next(self):
        time.sleep(PAUSE_SECONDS)
        self.sent += 1
        if self.sent % 9 == 0 and self.late is not None:
            batch, self.late = self.late, None
            return batch
        batch = self.clock.next()[0]
        if self.sent % 11 == 0 and self.late is None:
            self.late, batch = batch, self.clock.next()[0]
        return batch

    def labels(self, one):
        return {"app": "chaos", "container": "c", "namespace": "chaos", "pod": pod_of(self.number, one)}

    def streams(self, batch):
        for one in range(FILES):
            yield one, [(time_of(batch, number), text_of(self.number, batch, number))
                        for number in range(one, PER_BATCH, FILES)]

    def json_body(self, batch):
        streams = [{"stream": self.labels(one), "values": [[str(at), text] for at, text in entries]}
                   for one, entries in self.streams(batch)]
        return json.dumps({"streams": streams}).encode(), {"Content-Type": "application/json"}

    def protobuf_body(self, batch):
        out = bytearray()
        for one, entries in self.streams(batch):
            labels = "{" + ", ".join(f'{name}="{value}"' for name, value in self.labels(one).items()) + "}"
            stream = bytearray(field(1, labels.encode()))
            for at, text in entries:
                stamp = b"\x08" + varint(at // 1_000_000_000) + b"\x10" + varint(at % 1_000_000_000)
                stream += field(2, field(1, stamp) + field(2, text.encode()))
            out += field(1, bytes(stream))
        return snappy(bytes(out)), {"Content-Type": "application/x-protobuf"}

    def post(self, server, batch):
        body, headers = self.json_body(batch) if self.sent % 2 else self.protobuf_body(batch)
        server.post("/loki/api/v1/push", body, headers)

    def learn(self, batch, is_acknowledged):
        self.memory.learn(self.number, batch, is_acknowledged)


class Memory:
    """Batches that must be there, and those that may be."""

    def __init__(self):
        self.must, self.may = set(), set()
        self.faults = []

    def learn(self, writer, batch, is_acknowledged):
        (self.must if is_acknowledged else self.may).add((writer, batch))

    def check(self, entries, since, until):
        """Faults in entries, oldest first, of batches that begin in since..until."""
        faults, found, last = [], {}, {}
        for entry in entries:
            key = KEY.search(entry["message"])
            if key is None:
                faults.append(f"a line that nobody sent: {entry['message'][:80]!r}")
                continue
            writer, batch, number = map(int, key.groups())
            numbers = found.setdefault((writer, batch), set())
            pod = entry["stream"].get("pod")
            if number in numbers:
                faults.append(f"{key[0]}: doubled")
            numbers.add(number)
            if entry["message"] != text_of(writer, batch, number) or pod != pod_of(writer, number):
                faults.append(f"{key[0]} of {pod}: other text, or of another stream: {entry['message'][:80]!r}")
            if int(entry["time_ns"]) != time_of(batch, number):
                faults.append(f"{key[0]}: at {entry['time_ns']} rather than {time_of(batch, number)}")
            if last.get(pod, (0, 0)) >= (batch, number):
                faults.append(f"{key[0]}: out of order, after {last[pod]}")
            last[pod] = (batch, number)
        for one in self.must:
            if since <= one[1] < until and len(found.get(one, ())) < PER_BATCH:
                faults.append(f"{one}: {PER_BATCH - len(found.get(one, ()))} acknowledged lines are missing")
        for one, numbers in found.items():
            if one not in self.must and one not in self.may:
                faults.append(f"{one}: was never sent")
            elif len(numbers) < PER_BATCH and one not in self.must:
                faults.append(f"{one}: a push was kept in part, {len(numbers)} lines")
        # What was there once stays there.
        self.must |= self.may & found.keys()
        return faults


def params(since, until, **more):
    query = {"q": "namespace:chaos", "start": since * 1_000_000, "end": until * 1_000_000, **more}
    return urllib.parse.urlencode(query, doseq=True)


def ask(server, path, since, until, **more):
    return json.loads(server.get(f"/api/logs/{path}?{params(since, until, **more)}"))["data"]


def export(server, since, until):
    """Entries, oldest first, and the trailer."""
    rows = server.get(f"/api/logs/export?{params(since, until)}").decode().splitlines()
    trailer = json.loads(rows.pop())["trailer"]
    return rows, trailer


def search_pages(server, since, until, pages):
    """Ids of the newest matches, and how many there are, by a cursor and in pieces."""
    ids, more = [], {}
    for _ in range(pages):
        page = ask(server, "search", since, until, limit=2000, **more)
        ids += [entry["id"] for entry in page["entries"]]
        if not page["more"]:
            break
        more = {"cursor": page["cursor"]}
    pieces = server.get(f"/api/logs/search?{params(since, until, limit=2000, stream='true')}").decode().splitlines()
    pieces = [json.loads(piece) for piece in pieces]
    streamed = [entry["id"] for piece in pieces[:-1] for entry in piece["entries"]]
    return ids, streamed, pieces[-1]


def disagreements(server, since, until, entries):
    """Where other answers are not that of the export, and their warnings."""
    faults, warnings, total = [], [], len(entries)
    pods = {}
    for entry in entries:
        pods[entry["stream"]["pod"]] = pods.get(entry["stream"]["pod"], 0) + 1
    ids, streamed, end = search_pages(server, since, until, 3)
    newest = [entry["id"] for entry in reversed(entries)]
    if ids != newest[: len(ids)] or len(ids) != min(total, 6000):
        faults.append(f"the pages of a search hold other entries than the export: {len(ids)} of {total}")
    if streamed != newest[: len(streamed)] or len(streamed) != min(total, 2000) or end["total"] != total:
        faults.append(f"the pieces of a search: {len(streamed)} entries and {end.get('total')} of {total}")
    facets = ask(server, "facets", since, until, field="pod", limit=1000)
    by_pod = {value["value"]: value["count"] for value in facets["facets"][0]["values"]}
    if by_pod != pods:
        faults.append(f"facets: {by_pod} rather than {pods}")
    histogram = ask(server, "histogram", since, until)
    if histogram["total"] != total:
        faults.append(f"histogram: {histogram['total']} of {total}")
    seconds = (until - since) // 1000
    query = urllib.parse.urlencode({"query": f'sum by (pod) (count_over_time({{namespace="chaos"}}[{seconds}s]))',
                                    "time": until * 1_000_000 - 1})
    sums = json.loads(server.get(f"/loki/api/v1/query?{query}"))["data"]["result"]
    by_logql = {one["metric"]["pod"]: int(one["value"][1]) for one in sums}
    # Its range has its end and not its start.
    if by_logql != pods:
        faults.append(f"LogQL: {by_logql} rather than {pods}")
    for answer in (end, facets, histogram):
        warnings += answer["warnings"]
    return faults, warnings


class Lines:
    """Load of lines by both doors."""

    # Partitions are closed when their day is over.
    ages = True

    def __init__(self, random_, collectors, pushers):
        self.random = random_
        self.start = int(time.time() - 3 * 86_400) * 1000
        self.clock, self.memory = Steps(self.start, STEP_MS, 1), Memory()
        self.sources = [CollectorSource(number, self.clock, self.memory) for number in range(collectors)]
        self.sources += [LokiSource(collectors + number, self.clock, self.memory) for number in range(pushers)]
        self.checked, self.late_starts = [], 0

    def wait_for_lines(self, server, since):
        """A start queues the lines of the log, and may be ready before all of them can be found."""
        wanted = PER_BATCH * sum(batch >= since for _, batch in self.memory.must)
        began, is_late = time.monotonic(), False
        while time.monotonic() - began < LATE_SECONDS:
            try:
                if ask(server, "histogram", since, self.clock.at + STEP_MS)["total"] >= wanted:
                    break
            except OSError:
                # What comes next will say it.
                break
            is_late = True
            time.sleep(0.02)
        self.late_starts += is_late

    def check(self, server, everything):
        """Faults in all that a server has, or in what the last rounds sent."""
        self.checked.append(self.clock.at)
        since = self.start if everything else self.checked[-4:][0] - 20 * STEP_MS
        faults = []
        self.wait_for_lines(server, since)
        for at in range(since, self.clock.at + STEP_MS, WINDOW_MS):
            faults += self.check_window(server, at, min(at + WINDOW_MS, self.clock.at + STEP_MS))
        faults += self.memory.faults
        self.memory.faults = []
        return faults

    def check_window(self, server, since, until):
        try:
            rows, trailer = export(server, since, until)
            entries = [json.loads(row) for row in rows]
            faults = self.memory.check(entries, since, until)
            if trailer["status"] != "success" or trailer["count"] != len(entries):
                faults.append(f"export: {trailer}")
            more, warnings = disagreements(server, since, until, entries)
            faults += more + [f"warning: {warning}" for warning in trailer["warnings"] + warnings]
            return faults + self.find_some(server, entries)
        except OSError as error:
            said = error.read()[:200] if isinstance(error, urllib.error.HTTPError) else ""
            return [f"no answer: {error} {said}"]

    def find_some(self, server, entries):
        """A line by its own word, and in its neighbourhood."""
        faults = []
        for entry in self.random.sample(entries, min(3, len(entries))):
            key = KEY.search(entry["message"])[0]
            at = int(entry["time_ns"]) // 1_000_000
            found = ask(server, "search", at - 60_000, at + 60_000, q=f'"{key}"')
            ids = [one["id"] for one in found["entries"]]
            if ids != [entry["id"]] or found["total"] != 1:
                faults.append(f"{key} is found {found['total']} times")
            around = {"file": entry["file"], "offset": entry["offset"], "before": 5, "after": 5}
            if not entry["file"]:
                continue
            near = json.loads(server.get(f"/api/logs/context?{urllib.parse.urlencode(around)}"))["data"]
            offsets = [one["offset"] for one in [*near["before"], near["entry"], *near["after"]] if one]
            if (near["entry"] or {}).get("id") != entry["id"] or offsets != sorted(set(offsets)):
                faults.append(f"{key}: its neighbourhood is {offsets}")
        return faults

    def read(self, server):
        """Why a server does not answer, if it does not."""
        try:
            ask(server, "search", self.start, self.clock.at)
            return None
        except OSError as error:
            return str(error)

    def summary(self):
        return f"{len(self.memory.must) * PER_BATCH} lines acknowledged, {self.late_starts} starts ready before all were found"


def crash_load(random_):
    return Lines(random_, collectors=2, pushers=1)


def fill_load(random_):
    return Lines(random_, collectors=1, pushers=1)


class Flipped:
    """Closed partitions, one that takes pages, lines that only the write-ahead log has, and marks."""

    DAYS = 3
    # A page and a bit, which the log keeps or a smaller page has.
    BATCHES_A_DAY = 300
    # Of the kinds of files, how often; the rest has no line and no mark.
    WEIGHTS = {"page": 5, "write-ahead log": 4, "catalog.sqlite": 2, "catalog.sqlite-wal": 2, "closed": 1}

    def __init__(self, options, folder):
        self.sound = folder / "sound"
        self.load = Lines(None, collectors=1, pushers=1)
        server = Server(options.binnacle, self.sound, folder / "sound.log")
        for day in range(self.DAYS):
            server.days_ahead = day
            server.start()
            writers = [Writer(server, source) for source in self.load.sources]
            for writer in writers:
                writer.start()
            while self.load.clock.at < self.load.start + (day + 1) * self.BATCHES_A_DAY * STEP_MS:
                time.sleep(0.01)
            for writer in writers:
                writer.halt.set()
            wait_until_gone(writers, 30)
            if day == 0:
                # By then the first marks are in the catalog.
                time.sleep(35)
            if day % 2 and day < self.DAYS - 1:
                server.stop()
            else:
                server.kill()
        # A line that comes later is told by its batch, and each flip has the same.
        self.next = self.load.clock.at
        self.seen, self.found, self.whole = None, {}, 0

    def kind_of(self, path):
        if path.parts[0] == "wal":
            return "write-ahead log"
        return {".page": "page"}.get(path.suffix, path.name)

    def pick(self, random_, files):
        """A byte of a file of some kind; most bytes of all are of pages and of the log."""
        kinds = {}
        for path, size in files:
            if self.kind_of(path) in self.WEIGHTS:
                kinds.setdefault(self.kind_of(path), []).append((path, size))
        (kind,) = random_.choices(sorted(kinds), [self.WEIGHTS[kind] for kind in sorted(kinds)])
        path, size = random_.choice(kinds[kind])
        return path, random_.randrange(size)

    def ask(self, server):
        """Why there is no answer; the lines of each stream; whether there were warnings."""
        rows, trailer = export(server, self.load.start, self.next)
        self.count = len(rows)
        if trailer["status"] != "success":
            return str(trailer), {}, False
        if rows != self.seen:
            self.seen, self.found = rows, {}
            for row in rows:
                entry = json.loads(row)
                key = f"{entry['file']} {entry['offset']}" if entry["file"] else entry["id"]
                line = (entry["time_ns"], entry["level"], entry["message"])
                self.found.setdefault(entry["stream"]["pod"], []).append((key, line))
        return None, self.found, bool(trailer["warnings"])

    def ask_more(self, server, is_warned):
        """Faults in counts, and in what becomes of lines that are sent now, new ones and known ones."""
        faults = []
        histogram = ask(server, "histogram", self.load.start, self.next)
        page = ask(server, "search", self.load.start, self.next)
        for name, answer in (("histogram", histogram), ("search", page)):
            if answer["total"] != self.count and not (answer["warnings"] or is_warned):
                faults.append(f"{name} counts {answer['total']} of {self.count}")
        source = self.load.sources[0]
        body, headers = source.last
        known = json.loads(server.post("/api/collect/logs", body, headers))
        self.whole = max(self.whole, self.count)
        # Of lines that are lost nobody knows any more that they were there.
        if known["appended"] and self.count == self.whole:
            faults.append(f"known lines were taken again: {known}")
        body, _ = source.body(self.next)
        new = json.loads(server.post("/api/collect/logs", body, headers))
        if new["appended"] != PER_BATCH:
            faults.append(f"new lines were not taken: {new}")
        return faults
