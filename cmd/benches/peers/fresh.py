"""How long a line takes from its file to a search and to live tail, while files grow steadily.

A process of its own writes; every tenth of a second one of its lines is a probe that carries the moment at which it was
written. The measuring process asks for probes over and over, and follows them in live tail.
"""

import http.client
import itertools
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlencode

RATE = 20_000
SECONDS = 60
FILES = 20
TICK_S = 0.02
PROBES_PER_S = 10
# Between two searches. A line is found so much later at worst than it could have been.
POLL_S = 0.05
PROBE = re.compile(r"freshprobe seq=(\d+) at=(\d+)")
# After the last line.
GRACE_S = 10


def containers(root, sources):
    """Empty files as the kubelet lays them out, with some messages for each."""
    links = root / "containers"
    links.mkdir(parents=True)
    places = []
    for number, source in enumerate(sources):
        namespace, pod, container = source.parent.name.split("_")
        place = root / "pods" / f"{namespace}_{pod}_{number:08x}-0000-0000-0000-000000000000" / container
        place.mkdir(parents=True)
        (place / "0.log").touch()
        (links / f"{pod}_{namespace}_{container}-{number:064x}.log").symlink_to(place / "0.log")
        places.append((place / "0.log", source))
    return links, places


def write(places, rate, seconds):
    """Appends to the files in turn, `rate` lines a second in all."""
    writers = []
    for place, source in places:
        with open(source, "rb") as file:
            messages = [line.split(b" ", 1)[1] for line in itertools.islice(file, 20_000)]
        writers.append((open(place, "ab", buffering=0), itertools.cycle(messages)))
    began, ticks, probes, late = time.monotonic(), int(seconds / TICK_S), 0, 0.0
    share = rate * TICK_S / len(writers)
    owed = 0.0
    for tick in range(ticks):
        now = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(now // 10**9)).encode()
        stamp += b"%09dZ " % (now % 10**9)
        owed += share
        count, owed = int(owed), owed - int(owed)
        for file, messages in writers:
            file.write(b"".join(stamp + message for message in itertools.islice(messages, count)))
        if tick * TICK_S * PROBES_PER_S >= probes:
            file = writers[probes % len(writers)][0]
            file.write(stamp + b"stdout F freshprobe seq=%d at=%d\n" % (probes, time.time_ns()))
            probes += 1
        rest = began + (tick + 1) * TICK_S - time.monotonic()
        late = max(late, -rest)
        time.sleep(max(0.0, rest))
    print(json.dumps({"probes": probes, "late_s": late, "seconds": time.monotonic() - began}))


class Seen:
    """Delays in seconds of the probes, by number."""

    def __init__(self):
        self.delays, self.problem = {}, None

    def take(self, message, now_ns):
        match = PROBE.search(message)
        if match and int(match[1]) not in self.delays:
            self.delays[int(match[1])] = (now_ns - int(match[2])) / 1e9

    def quantile(self, share):
        ordered = sorted(self.delays.values())
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def search(server, seen, stop):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    while not stop.is_set():
        params = {"q": "freshprobe", "limit": 500, "total": "false", "start": "now-30s", "end": "now+1m"}
        connection.request("GET", "/api/logs/search?" + urlencode(params))
        answer = connection.getresponse()
        body, now = answer.read(), time.time_ns()
        if answer.status != 200:
            seen.problem = body.decode(errors="replace")[:200]
            return
        for entry in json.loads(body)["data"]["entries"]:
            seen.take(entry["message"], now)
        time.sleep(POLL_S)


def follow(server, seen, stop):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/api/logs/tail?q=freshprobe")
    answer = connection.getresponse()
    kind = ""
    while not stop.is_set() and (line := answer.readline()):
        now = time.time_ns()
        text = line.decode(errors="replace").rstrip()
        if text.startswith("event:"):
            kind = text[6:].strip()
        elif text.startswith("data:") and kind == "entry":
            seen.take(json.loads(text[5:])["message"], now)
        elif text.startswith("data:") and kind in ("dropped", "failed"):
            seen.problem = f"{kind} {text[5:]}"


def measure(server, root, rate=RATE, seconds=SECONDS):
    """Writes beneath `root` and watches; answers what the writer says, what a search saw, and what the tail."""
    stop, found, told = threading.Event(), Seen(), Seen()
    watchers = [threading.Thread(target=work, args=(server, seen, stop), daemon=True)
                for work, seen in ((search, found), (follow, told))]
    for watcher in watchers:
        watcher.start()
    out = subprocess.run([sys.executable, __file__, str(root / "places.json"), str(rate), str(seconds)],
                         stdout=subprocess.PIPE, text=True, check=True)
    written = json.loads(out.stdout)
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and min(len(found.delays), len(told.delays)) < written["probes"]:
        time.sleep(0.1)
    stop.set()
    watchers[0].join(60)
    return written, found, told


if __name__ == "__main__":
    names = json.loads(Path(sys.argv[1]).read_text())
    write([(Path(place), Path(source)) for place, source in names], int(sys.argv[2]), float(sys.argv[3]))
