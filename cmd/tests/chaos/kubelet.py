#!/usr/bin/env python3
"""Plays the kubelet and the container runtime: containers that write, and files that are rotated, compressed and deleted.

A process of its own. Its first argument says how, as JSON (`DEFAULTS`); commands come by standard input, one a line, and
each is answered by one line of JSON; at the end of the input it ends. `node.py` has the other side of it.

    ROOT/pods/chaos_tail-3_UID/app/0.log                        grows; ends within a line now and then
                                  /0.log.20261123-155301        rotated last
                                  /0.log.20261123-155300.gz     rotated before, compressed by way of .tmp
                                  /1.log                        of the container that began anew
    ROOT/containers/tail-3_chaos_app-ID.log                     leads to 0.log
    ROOT/ledger/tail-3.lengths                                  bytes of each line, as 32 bits, in the order of their numbers
    ROOT/ledger/files.jsonl                                     which lines each rotated file has, and when it was deleted

What a line says follows from the seed, its stream and its number, so that the ledger need not have it:
`STREAM NUMBER CRC32 PAYLOAD`, the checksum of the payload begun with the number.
"""

import collections
import gzip
import json
import os
import queue
import random
import shutil
import sys
import threading
import time
import zlib
from array import array
from pathlib import Path

NAMESPACE, CONTAINER = "chaos", "app"
DEFAULTS = {
    "streams": 10,
    "rate": 50_000,  # lines a second of all streams
    "seed": 1,
    # fast: each stream every `rotate_s`, deleted after `keep_s`. kubelet: by size, as the kubelet's ContainerLogManager does
    # it. manual: by command, and nothing is deleted.
    "rotation": "fast",
    "rotate_s": [0.05, 0.2],
    "keep_s": 40.0,
    # Seconds after which a container of `fast` starts again, with a file of the next number; 0 is never.
    "restart_s": 0.0,
    "max_bytes": 10 << 20,
    "max_files": 5,
    "check_s": 10.0,
    # A message that begins in a file and ends in the next one, as happens when the runtime reopens between two pieces.
    "split_over_rotation": False,
}

TICK_S = 0.01
# A container runtime cuts messages there.
PIECE_BYTES = 16 * 1024
# `TIME stdout F ` and the line's end: the time has nine digits behind the point.
HEAD_BYTES = 41
PAYLOADS = 4096
GIANTS, GIANT_BYTES = 3, (15_000, 20 * 1024)
WORDS = "harbour tide anchor chart keel rudder beacon storm naïve deck cargo ключ pilot watch night dawn ☕ reef drift".split()


def make_payloads(seed):
    """Texts that lines take in turn, each with whether its line is written in pieces though it is short."""
    random_ = random.Random(seed)
    payloads = []
    for number in range(PAYLOADS):
        length = random_.randint(*GIANT_BYTES) if number < GIANTS else min(2000, 10 + int(random_.expovariate(1 / 120)))
        text = bytearray(f"{random_.getrandbits(64):x}".encode())
        while len(text) < length:
            text += b" " + random_.choice(WORDS).encode() + b"=%x" % random_.getrandbits(24)
        payloads.append((bytes(text), random_.random() < 0.003))
    return payloads


def pod_of(number):
    return f"tail-{number}"


def make_link(root, number, path, namespace=NAMESPACE):
    """Of a container that logs to `path`; each start of it has an ID of its own."""
    restart = int(path.name.split(".")[0])
    link = Path(root) / f"containers/{pod_of(number)}_{namespace}_{CONTAINER}-{number:032x}{restart:032x}.log"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(path)
    return link


def make_container(root, number, namespace=NAMESPACE):
    """The directory and the link, as the kubelet makes them; answers the paths of the log file and of the link."""
    place = Path(root) / f"pods/{namespace}_{pod_of(number)}_{number:08x}-0000-4000-8000-000000000000" / CONTAINER
    place.mkdir(parents=True)
    return place / "0.log", make_link(root, number, place / "0.log", namespace)


def append_to(path):
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)


class Clock:
    """Moments of lines: never back, and the same for three lines in turn."""

    def __init__(self):
        self.at, self.second, self.prefix = 0, None, b""

    def catch_up(self):
        """To now, and past all that was given out."""
        self.at = max(self.at + 1000, time.time_ns())

    def stamp(self, number):
        if number % 3 == 0:
            self.at += 1000
        second, rest = divmod(self.at, 1_000_000_000)
        if second != self.second:
            self.second = second
            self.prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second)).encode()
        return b"%b%09dZ" % (self.prefix, rest)


class Stream:
    """A container that writes."""

    def __init__(self, root, number, seed, payloads):
        self.number, self.payloads = number, payloads
        self.name = pod_of(number).encode()
        self.random = random.Random(f"{seed} {number}")
        self.path, self.link = make_container(root, number)
        self.file, self.size = append_to(self.path), 0
        self.clock = Clock()
        self.next, self.first_here = 0, 0
        # What is to be written before anything else: the rest of a line.
        self.carry = b""
        # The last piece of a message whose others are written already, and its iostream.
        self.open_piece = None
        self.rotated_at = int(time.time())
        self.lengths = open(Path(root) / f"ledger/{pod_of(number)}.lengths", "ab")

    def compose(self, count):
        """The next so many lines, except for a last piece, which may come later."""
        out, lengths, clock, payloads = [], array("I"), self.clock, self.payloads
        for number in range(self.next, self.next + count):
            which = (number * 2_654_435_761 + self.number * 97 >> 3) % PAYLOADS
            payload, in_pieces = payloads[which]
            iostream = b"stderr" if which % 8 == 5 else b"stdout"
            if self.open_piece is not None and self.open_piece[0] == iostream:
                out.append(self.end_message())
            message = b"%b %d %08x %b" % (self.name, number, zlib.crc32(payload, number), payload)
            if in_pieces or len(message) > PIECE_BYTES:
                pieces = self.cut(message)
                out += [b"%b %b P %b\n" % (clock.stamp(number), iostream, piece) for piece in pieces[:-1]]
                if self.open_piece is not None:
                    out.append(self.end_message())
                self.open_piece = (iostream, pieces[-1])
                lengths.append(len(message) + HEAD_BYTES * len(pieces))
            else:
                out.append(b"%b %b F %b\n" % (clock.stamp(number), iostream, message))
                lengths.append(len(message) + HEAD_BYTES)
        self.next += count
        self.lengths.write(lengths)
        return out

    def cut(self, message):
        if len(message) <= PIECE_BYTES:
            at = self.random.randrange(1, len(message))
            return [message[:at], message[at:]]
        return [message[at : at + PIECE_BYTES] for at in range(0, len(message), PIECE_BYTES)]

    def end_message(self):
        iostream, piece = self.open_piece
        self.open_piece = None
        return b"%b %b F %b\n" % (self.clock.stamp(1), iostream, piece)

    def put(self, data):
        self.size += len(data)
        while data:
            data = data[os.write(self.file, data) :]

    def write(self, count):
        """So many lines; the last of them not to its end, mostly."""
        self.clock.catch_up()
        data = self.carry + b"".join(self.compose(count))
        far = len(data) if self.random.random() < 0.05 else min(len(data), 250)
        cut = len(data) - (self.random.randrange(far) if far else 0)
        self.carry = data[cut:]
        self.put(data[:cut])

    def end_lines(self, ends_message=True):
        data, self.carry = self.carry, b""
        if ends_message and self.open_piece is not None:
            data += self.end_message()
        self.put(data)

    def rotate(self, splits):
        """Renames as the kubelet does, and reopens a moment later as the runtime does; answers what is to be told of it."""
        # Two rotations of a second would have one name; ours are quicker than those of the kubelet.
        self.rotated_at = max(self.rotated_at + 1, int(time.time()))
        name = self.path.name + time.strftime(".%Y%m%d-%H%M%S", time.gmtime(self.rotated_at))
        os.rename(self.path, self.path.parent / name)
        self.write(3)
        self.end_lines(ends_message=not splits)
        return self.reopen(name)

    def reopen(self, name):
        """Goes on in a new file; answers what is to be told of the one before, which is called so by now."""
        os.close(self.file)
        told = {"stream": self.number, "name": name, "first": self.first_here, "next": self.next, "bytes": self.size}
        self.file, self.size, self.first_here = append_to(self.path), 0, self.next
        return told

    def restart(self):
        """The container ended and began anew, with the next file."""
        self.end_lines()
        old, restarts = self.path, int(self.path.name.split(".")[0])
        self.path = old.with_name(f"{restarts + 1}.log")
        return self.reopen(old.name)


class Kubelet:
    """All containers of a node, and their files."""

    def __init__(self, root, options):
        self.root, self.options = Path(root), options
        (self.root / "ledger").mkdir(parents=True)
        self.ledger = open(self.root / "ledger/files.jsonl", "a")
        payloads = make_payloads(options["seed"])
        self.streams = [Stream(root, number, options["seed"], payloads) for number in range(options["streams"])]
        self.random = random.Random(options["seed"])
        now = time.monotonic()
        self.rotate_at = [now + self.random.uniform(*options["rotate_s"]) for _ in self.streams]
        self.restart_at = [now + self.random.uniform(0.5, 1.5) * (options["restart_s"] or float("inf")) for _ in self.streams]
        self.newest = [None] * len(self.streams)
        self.to_delete = collections.deque()
        self.lock, self.work = threading.Lock(), queue.SimpleQueue()
        threading.Thread(target=self.do_work, daemon=True).start()

    def tell(self, **what):
        self.ledger.write(json.dumps({**what, "at": round(time.time(), 3)}) + "\n")

    def do_work(self):
        """What takes its time, one after the other: the kubelet has one worker for it."""
        while True:
            task, *arguments = self.work.get()
            task(*arguments)

    def rotate(self, number):
        """Answers the path of what was rotated; the one before is due to be compressed."""
        stream = self.streams[number]
        with self.lock:
            told = stream.rotate(self.options["split_over_rotation"])
            self.tell(**told)
        path = stream.path.parent / told["name"]
        older, self.newest[number] = self.newest[number], path
        return path, older

    def compress(self, path):
        temporary, packed = Path(f"{path}.tmp"), Path(f"{path}.gz")
        try:
            with open(path, "rb") as plain, gzip.open(temporary, "wb", compresslevel=1) as out:
                shutil.copyfileobj(plain, out, 1 << 20)
        except FileNotFoundError:
            return
        os.rename(temporary, packed)
        os.remove(path)

    def litter(self):
        """What a kubelet leaves that died while it compressed: a file beside its compressed self, and a piece of one."""
        for path in filter(None, self.newest):
            packed = gzip.compress(path.read_bytes())
            Path(f"{path}.gz").write_bytes(packed)
            Path(f"{path}.tmp").write_bytes(packed[: len(packed) // 2])

    def restart(self, number):
        """A container ends and begins anew; answers the path of the file that ended, and its link."""
        stream = self.streams[number]
        old = stream.path
        with self.lock:
            self.tell(**stream.restart())
        old_link, stream.link = stream.link, make_link(self.root, number, stream.path)
        return old, old_link

    def delete(self, number, path, link=None):
        """Whichever of both there is."""
        for there in filter(None, (link, path, Path(f"{path}.gz"))):
            there.unlink(missing_ok=True)
        with self.lock:
            self.tell(stream=number, name=path.name, deleted=True)

    def keep_house(self, now):
        """Rotates and restarts what is due, fast."""
        low, high = self.options["rotate_s"]
        for number, due in enumerate(self.restart_at):
            if now >= due:
                self.to_delete.append((now + self.options["keep_s"], number, *self.restart(number)))
                self.restart_at[number] = now + self.random.uniform(0.5, 1.5) * self.options["restart_s"]
        for number, due in enumerate(self.rotate_at):
            if now < due:
                continue
            path, older = self.rotate(number)
            if older is not None:
                self.work.put((self.compress, older))
            self.to_delete.append((now + self.options["keep_s"], number, path))
            self.rotate_at[number] = now + self.random.uniform(low, high)
        while self.to_delete and self.to_delete[0][0] <= now:
            _, *what = self.to_delete.popleft()
            self.work.put((self.delete, *what))

    def rotate_large(self):
        """One look of ContainerLogManager: deletes the oldest, compresses, rotates, of each container whose file is large."""
        for number, stream in enumerate(self.streams):
            if stream.size <= self.options["max_bytes"]:
                continue
            rotated = sorted(path for path in stream.path.parent.glob(f"{stream.path.name}.*") if path.suffix != ".tmp")
            excess = len(rotated) - (self.options["max_files"] - 2)
            for path in rotated[: max(0, excess)]:
                self.delete(number, path.with_suffix("") if path.suffix == ".gz" else path)
            for path in rotated[max(0, excess) :]:
                if path.suffix != ".gz":
                    self.compress(path)
            self.rotate(number)

    def rotate_all(self):
        for number in range(len(self.streams)):
            _, older = self.rotate(number)
            if older is not None:
                self.compress(older)

    def count(self):
        return sum(stream.next for stream in self.streams)

    def end(self):
        with self.lock:
            for stream in self.streams:
                stream.end_lines()
                stream.lengths.flush()
            self.ledger.flush()


def run(kubelet, commands):
    """Writes until it is told to end; answers by how many seconds it was late at most."""
    options, late, owed, paused = kubelet.options, 0.0, 0.0, False
    share = options["rate"] / len(kubelet.streams)
    at, check_at = time.monotonic(), time.monotonic() + options["check_s"]
    while True:
        now = time.monotonic()
        late = max(late, now - at - 2 * TICK_S)
        owed, at = owed + min(1.0, now - at) * share * (not paused), now
        count, owed = int(owed), owed - int(owed)
        with kubelet.lock:
            for stream in kubelet.streams if count else ():
                stream.write(count)
        if options["rotation"] == "fast" and not paused:
            kubelet.keep_house(now)
        elif options["rotation"] == "kubelet" and now >= check_at:
            check_at = now + options["check_s"]
            kubelet.work.put((kubelet.rotate_large,))
        while not commands.empty():
            command = commands.get()
            if command == "stop":
                return late
            if command == "rotate":
                kubelet.rotate_all()
            elif command == "litter":
                kubelet.litter()
            elif command in ("pause", "go"):
                paused = command == "pause"
                with kubelet.lock:
                    [stream.end_lines() for stream in kubelet.streams]
            print(json.dumps({"written": kubelet.count()}), flush=True)
        time.sleep(max(0.0, TICK_S - (time.monotonic() - now)))


def read_commands(commands):
    for line in sys.stdin:
        commands.put(line.strip())
    commands.put("stop")


def main():
    options = {**DEFAULTS, **json.loads(sys.argv[1])}
    kubelet = Kubelet(options["root"], options)
    commands = queue.SimpleQueue()
    threading.Thread(target=read_commands, args=(commands,), daemon=True).start()
    print(json.dumps({"written": 0}), flush=True)
    late = run(kubelet, commands)
    kubelet.end()
    print(json.dumps({"written": kubelet.count(), "late_s": round(late, 3)}), flush=True)


if __name__ == "__main__":
    main()
