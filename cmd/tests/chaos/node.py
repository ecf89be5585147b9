"""What runs on a node of the test's own: `binnacle collect`, and a kubelet that is played (kubelet.py)."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import kubelet
from server import NotStarted, Server, free_port

READY_SECONDS = 30
END_SECONDS = 60


class Store(Server):
    """`binnacle serve` at an address that stays the same over its starts."""

    def __init__(self, binary, folder):
        super().__init__(binary, folder / "data", folder / "server.log")
        self.keeps_port = True


class Collector:
    """`binnacle collect`, started, asked, ended by its process id."""

    def __init__(self, binary, folder, store_url, logs=None, spool=None):
        self.binary, self.folder = str(binary), Path(folder)
        self.log, self.state = self.folder / "collector.log", self.folder / "state"
        self.port, self.process = free_port(), None
        self.config = self.folder / "collect.yml"
        containers = (logs or self.folder / "node") / "containers"
        keys = f"containers: {containers}" + (f", spool: {{size: {spool}}}" if spool else "")
        self.config.write_text(f"store: {{url: {store_url}, node: chaos-node}}\nlogs:\n  - {{{keys}}}\n")

    def spawn(self, before=None):
        with open(self.log, "ab") as log:
            arguments = [self.binary, "collect", "--config", str(self.config), "--state", str(self.state)]
            arguments += ["--listen", f"127.0.0.1:{self.port}"]
            self.process = subprocess.Popen(arguments, stdout=log, stderr=log, preexec_fn=before, cwd=self.folder)

    def start(self, before=None):
        self.spawn(before)
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise NotStarted(f"the collector ended, exit code {self.process.returncode}: {self.last_lines()}")
            try:
                self.get("/livez")
                return
            except OSError:
                time.sleep(0.02)
        raise NotStarted(f"the collector does not answer after {READY_SECONDS} s: {self.last_lines()}")

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return answer.read().decode()

    def metric(self, name):
        """The sum of its values, or None where there is no such thing, or no answer."""
        try:
            return metric_of(self.get("/metrics"), f"binnacle_collector_{name}")
        except OSError:
            return None

    def memory(self):
        """Mebibytes by their names in /proc, VmHWM and RssAnon among them."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        pairs = (line.split() for line in lines if line.startswith(("Vm", "Rss")))
        return {pair[0].rstrip(":"): int(pair[1]) / 1024 for pair in pairs}

    def cpu_seconds(self):
        return cpu_seconds(self.process.pid)

    def is_alive(self):
        return self.process is not None and self.process.poll() is None

    def last_lines(self):
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-3:])

    def panics(self):
        return self.log.read_text(errors="replace").count("panicked at")

    def kill(self):
        self.end(signal.SIGKILL)

    def stop(self):
        self.end(signal.SIGTERM)

    def end(self, sign):
        if self.process is None:
            return
        self.process.send_signal(sign)
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise NotStarted(f"the collector was not gone {END_SECONDS} s after signal {sign}") from None
        finally:
            self.process = None


def cpu_seconds(pid):
    """Of all its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def metric_of(text, name):
    values = [float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.split("{")[0].split(" ")[0] == name]
    return int(sum(values)) if values else None


class Kubelet:
    """The process that writes and rotates."""

    def __init__(self, root, **options):
        self.root = Path(root)
        self.options = {**kubelet.DEFAULTS, **options}
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "containers").mkdir(exist_ok=True)
        arguments = [sys.executable, kubelet.__file__, json.dumps({**options, "root": str(root)})]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise NotStarted(f"the kubelet ended with exit code {self.process.wait()}")
        return json.loads(line)

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.read()

    def count(self):
        """Lines that were begun so far."""
        return self.ask("count")["written"]

    def stop(self):
        """Ends its lines, and then itself; answers how many there are, and by how much it was late."""
        said = self.ask("stop")
        self.process.stdin.close()
        self.process.wait(END_SECONDS)
        return said

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
