"""A Binnacle of the test's own: started, asked, ended by its process id."""

import json
import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

READY_SECONDS = 30
# Of Debian's package libfaketime.
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def free_port():
    """One that the kernel gives to no outgoing connection while the server is away."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                free.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise NotStarted("no port is free")


class NotStarted(Exception):
    """The server ended, or was not ready in time; the text holds what it printed last."""


class Server:
    def __init__(self, binary, data, log, more=()):
        self.binary, self.data, self.log, self.more = str(binary), Path(data), Path(log), list(more)
        self.process, self.port = None, None
        # By so much the server's clock is ahead of ours, if there is a library for that.
        self.days_ahead = 0
        # For those who know it by its address and do not hear that it began anew.
        self.keeps_port = False

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def environment(self):
        if not self.days_ahead or not FAKETIME.exists():
            return None
        # Only the calendar: threads wait by the other clock. And nothing that a kill would leave behind.
        settings = {"FAKETIME": f"+{self.days_ahead}d", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DISABLE_SHM": "1"}
        return {**os.environ, "LD_PRELOAD": str(FAKETIME), **settings}

    def start(self, before=None):
        """Answers after how many seconds it was ready; `before` runs in its process first."""
        self.spawn(before)
        return self.wait_until_ready()

    def spawn(self, before=None):
        if self.port is None or not self.keeps_port:
            self.port = free_port()
        with open(self.log, "ab") as log:
            arguments = [self.binary, "serve", "--listen", f"127.0.0.1:{self.port}", "--data", str(self.data)]
            arguments += self.more
            self.process = subprocess.Popen(arguments, stdout=log, stderr=log, preexec_fn=before,
                                            env=self.environment())

    def wait_until_ready(self):
        began = time.monotonic()
        while time.monotonic() - began < READY_SECONDS:
            try:
                self.get("/-/ready")
                return time.monotonic() - began
            except OSError:
                if self.process.poll() is not None:
                    raise NotStarted(f"exit code {self.process.returncode}: {self.last_lines()}")
                time.sleep(0.005)
        self.kill()
        raise NotStarted(f"not ready after {READY_SECONDS} s: {self.last_lines()}")

    def last_lines(self):
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-3:])

    def panics(self):
        return self.log.read_text(errors="replace").count("panicked at")

    def kill(self):
        self.end(signal.SIGKILL)

    def stop(self):
        self.end(signal.SIGTERM)

    def end(self, sign):
        if self.process is not None:
            self.process.send_signal(sign)
            self.process.wait(timeout=60)
            self.process = None

    def get(self, path):
        return self.answer(self.url + path)

    def post(self, path, body, headers):
        return self.answer(urllib.request.Request(self.url + path, body, headers))

    def answer(self, request):
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def query(self, expression, at):
        params = urllib.parse.urlencode({"query": expression, "time": f"{at:.3f}"})
        try:
            return json.loads(self.get(f"/api/v1/query?{params}"))
        except urllib.error.HTTPError as error:
            return json.loads(error.read())
