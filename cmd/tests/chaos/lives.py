"""What a collector says of itself over all its lives: each start counts from zero."""

import json
import threading
import time

COUNTS = ("log_lost_bytes_total", "log_gap_bytes_total", "log_refused_bytes_total")
EVERY_S = 0.25


class Lives(threading.Thread):
    """Asks a collector over and over, and writes down what it said and what was done to it: events.jsonl."""

    def __init__(self, collector, path):
        super().__init__(daemon=True)
        self.collector, self.log = collector, open(path, "a", buffering=1)
        self.halt, self.lock = threading.Event(), threading.Lock()
        self.pid, self.now, self.before = None, dict.fromkeys(COUNTS, 0), dict.fromkeys(COUNTS, 0)
        self.lag_seconds = 0.0

    def note(self, **what):
        self.log.write(json.dumps({"at": round(time.time(), 3), **what}) + "\n")

    def ask(self):
        """Also just before a collector is killed, so that little of what it said is missed."""
        with self.lock:
            process = self.collector.process
            if process is None:
                return
            counts = {name: self.collector.metric(name) or 0 for name in COUNTS}
            lag = self.collector.metric("log_lag_seconds") or 0
            if process.pid != self.pid:
                self.before = self.counts()
                self.pid = process.pid
            elif any(counts[name] < self.now[name] for name in COUNTS):
                # No answer; it said more before.
                return
            self.now = counts
            self.lag_seconds = max(self.lag_seconds, lag)
            self.note(pid=process.pid, lag_seconds=lag, **counts)

    def counts(self):
        return {name: self.before[name] + self.now[name] for name in COUNTS}

    def run(self):
        while not self.halt.wait(EVERY_S):
            self.ask()

    def end(self):
        self.ask()
        self.halt.set()
        self.join()

    def __str__(self):
        said = [f"{name.split('_')[1]} {count:,} bytes" for name, count in self.counts().items() if count]
        return f"lag {self.lag_seconds:.0f} s at most" + (f", said in all lives: {', '.join(said)}" if said else "")
