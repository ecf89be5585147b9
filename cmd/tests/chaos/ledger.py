"""What the played kubelet wrote, and whether the store has it: each line once, whole, in its order."""

import http.client
import json
import time
import urllib.parse
import zlib
from array import array
from bisect import bisect_right
from collections import Counter

from kubelet import NAMESPACE, pod_of

READ_BYTES = 1 << 20
# Of ranges and lines that are shown.
SHOWN = 5


class Ledger:
    """Lines that were written, and the files that they were in."""

    def __init__(self, root, streams):
        self.lengths, self.files = [], [[] for _ in range(streams)]
        for number in range(streams):
            lengths = array("I")
            lengths.frombytes((root / f"ledger/{pod_of(number)}.lengths").read_bytes())
            self.lengths.append(lengths)
        self.deleted = {}
        for row in (root / "ledger/files.jsonl").read_text().splitlines():
            event = json.loads(row)
            if "deleted" in event:
                self.deleted[event["stream"], event["name"]] = event["at"]
            else:
                self.files[event["stream"]].append((event["first"], event["next"], event["name"]))

    def written(self):
        return sum(len(lengths) for lengths in self.lengths)

    def file_of(self, stream, number):
        """The last name of a line's file, and the number of the first line behind that file."""
        at = bisect_right(self.files[stream], (number + 1,)) - 1
        if at < 0 or number >= self.files[stream][at][1]:
            return "the open file", len(self.lengths[stream])
        _, end, name = self.files[stream][at]
        deleted = self.deleted.get((stream, name))
        return name + (time.strftime(" (deleted %H:%M:%S)", time.gmtime(deleted)) if deleted else ""), end

    def files_of(self, stream, at, end):
        """Names of the files that have these lines, and how many each has."""
        while at < end:
            name, behind = self.file_of(stream, at)
            yield name, min(end, behind) - at
            at = behind


class Found:
    """What the store has of one stream."""

    def __init__(self, stream, lengths):
        self.stream, self.name, self.lengths = stream, pod_of(stream).encode(), lengths
        self.seen = bytearray(len(lengths))
        self.highest, self.counts, self.faults = -1, Counter(), []

    def fault(self, kind, text):
        self.counts[kind] += 1
        if self.counts[kind] <= SHOWN:
            self.faults.append(f"{kind}: {pod_of(self.stream)}: {text}")

    def take(self, line):
        parts = line.split(b" ", 3)
        try:
            name, number, crc, payload = parts[0], int(parts[1]), int(parts[2], 16), parts[3]
            is_whole = name == self.name and zlib.crc32(payload, number) == crc and number < len(self.seen)
        except (ValueError, IndexError):
            is_whole = False
        if not is_whole:
            self.fault("damaged", f"{line[:100]!r} and {max(0, len(line) - 100)} more bytes")
        elif self.seen[number]:
            self.fault("doubled", f"line {number}")
        else:
            self.seen[number] = 1
            self.counts["stored"] += 1
            if number < self.highest:
                self.fault("out of order", f"line {number} comes after {self.highest}")
            self.highest = max(self.highest, number)

    def gaps(self):
        """Ranges of missing lines."""
        at = self.seen.find(0)
        while at != -1:
            end = self.seen.find(1, at)
            end = len(self.seen) if end == -1 else end
            yield at, end
            at = self.seen.find(0, end) if end < len(self.seen) else -1

    def missing(self):
        """How many lines, and how many bytes they had in their files."""
        gaps = list(self.gaps())
        return sum(end - at for at, end in gaps), sum(sum(self.lengths[at:end]) for at, end in gaps)


def export(server, stream, since_ns):
    """Messages of a stream, oldest first, as blocks of whole lines."""
    query = urllib.parse.urlencode({
        "q": f'namespace:{NAMESPACE} AND pod:"{pod_of(stream)}"', "format": "text",
        "start": since_ns, "end": "now+1h", "order": "oldest",
    })
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request("GET", f"/api/logs/export?{query}")
    answer = connection.getresponse()
    if answer.status != 200:
        raise OSError(f"export: {answer.status} {answer.read(300).decode(errors='replace')}")
    rest = b""
    while block := answer.read(READ_BYTES):
        *lines, rest = (rest + block).split(b"\n")
        yield lines
    if rest:
        yield [rest]
    connection.close()


def newest(server, stream, seconds):
    """The newest entry of a stream, if it is of the last so many seconds."""
    query = urllib.parse.urlencode({"q": f'namespace:{NAMESPACE} AND pod:"{pod_of(stream)}"', "limit": 1,
                                    "start": f"now-{seconds}s", "end": "now+1h", "total": "false"})
    return json.loads(server.get(f"/api/logs/search?{query}"))["data"]["entries"]


def total(server, since_ns):
    """How many lines are found in all, and the warnings."""
    query = urllib.parse.urlencode({"q": f"namespace:{NAMESPACE}", "start": since_ns, "end": "now+1h"})
    answer = json.loads(server.get(f"/api/logs/histogram?{query}"))["data"]
    return answer["total"], answer["warnings"]


def wait_for_lines(server, since_ns, wanted, seconds, stuck_seconds=20):
    """Until so many are found, or no more come; answers how many, and after how many seconds."""
    began = moved = time.monotonic()
    found = -1
    while time.monotonic() < began + seconds and time.monotonic() < moved + stuck_seconds:
        try:
            now = total(server, since_ns)[0]
        except OSError:
            now = found
        if now != found:
            found, moved = now, time.monotonic()
        if found >= wanted:
            break
        time.sleep(0.25)
    return found, moved - began


class Verdict:
    """Counts over all streams, and some of the faults."""

    def __init__(self, server, ledger, since_ns):
        self.counts, self.faults, self.missing_bytes = Counter(written=ledger.written()), [], 0
        self.missing_deleted = 0
        for stream, lengths in enumerate(ledger.lengths):
            found = Found(stream, lengths)
            try:
                for lines in export(server, stream, since_ns):
                    for line in lines:
                        found.take(line)
            except (OSError, http.client.HTTPException) as error:
                self.faults.append(f"no answer: {pod_of(stream)}: {error!r}")
                continue
            self.add(found, ledger)
        counted, warnings = total(server, since_ns)
        self.faults += [f"warning: {warning}" for warning in warnings]
        exported = sum(self.counts[kind] for kind in ("stored", "doubled", "damaged"))
        if counted != exported:
            self.faults.append(f"the histogram counts {counted} lines, the export has {exported}")

    def add(self, found, ledger):
        missing, missing_bytes = found.missing()
        self.counts += found.counts
        self.counts["missing"] += missing
        self.missing_bytes += missing_bytes
        for number, (at, end) in enumerate(found.gaps()):
            files = list(ledger.files_of(found.stream, at, end))
            self.missing_deleted += sum(lines for name, lines in files if "(deleted" in name)
            if number < SHOWN:
                of = files[0][0] + (f" to {files[-1][0]}" if len(files) > 1 else "")
                found.faults.append(f"missing: {pod_of(found.stream)}: lines {at} to {end - 1} of {of}")
        self.faults += found.faults

    def bad(self, but=()):
        kinds = {"missing", "doubled", "out of order", "damaged"} - set(but)
        others = sum(fault.startswith(("no answer", "warning", "the histogram")) for fault in self.faults)
        return sum(self.counts[kind] for kind in kinds) + others

    def __str__(self):
        kinds = ("written", "stored", "missing", "doubled", "out of order", "damaged")
        return ", ".join(f"{kind} {self.counts[kind]:,}" for kind in kinds)

    def show(self, but=()):
        for fault in [fault for fault in self.faults if not fault.startswith(tuple(but))][:20]:
            print(f"  {fault}")
