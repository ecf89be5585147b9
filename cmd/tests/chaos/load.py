"""Threads that send batches until the server is gone, and what their bodies are made of."""

import struct
import threading
import time


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


class Writer(threading.Thread):
    """Sends one batch of a source after the other, until the server is gone."""

    def __init__(self, server, source):
        super().__init__(daemon=True)
        self.server, self.source = server, source
        self.halt = threading.Event()
        self.is_dark = threading.Event()

    def run(self):
        while not self.halt.is_set():
            batch = self.source.next()
            try:
                self.source.post(self.server, batch)
            except OSError:
                # No answer, or one that says no: either way the batch may or may not be there.
                self.source.learn(batch, False)
                return
            # In the very moment of the cut ext4 answers some syncs that did nothing; a machine without power would not.
            self.source.learn(batch, not self.is_dark.is_set())


class Steps:
    """Hands out moments, ascending, the same for nobody twice."""

    def __init__(self, start, step, per_batch):
        self.at, self.step, self.per_batch, self.lock = start, step, per_batch, threading.Lock()

    def next(self):
        with self.lock:
            times = [self.at + one * self.step for one in range(self.per_batch)]
            self.at += self.per_batch * self.step
            return times


def wait_until_gone(writers, seconds):
    deadline = time.monotonic() + seconds
    for writer in writers:
        writer.join(max(0.1, deadline - time.monotonic()))
        if writer.is_alive():
            raise SystemExit("a writer still waits for an answer of a server that is gone")
