"""Data that the load generator does not make: bodies as Filebeat sends them, and lines of prose."""

import heapq
import json
import random
import struct
import sys
from itertools import accumulate, islice
from pathlib import Path

# Filebeat's `bulk_max_size` by default is 1,600; 4,000 is what the other doors get.
LINES_PER_BODY = 4000
PROSE_STREAMS = 8
PROSE_WORDS = 20_000
PROSE_SEED = 7


def lines_of(path):
    """Time, stream and message of each line of a container's file, and where it begins."""
    offset = 0
    with open(path, "rb") as file:
        for line in file:
            moment, iostream, _, message = line.rstrip(b"\n").split(b" ", 3)
            yield moment, path.parent.name, iostream, message, offset
            offset += len(line)


def document(moment, stream, iostream, message, offset):
    """A line as Filebeat 8 has it, from a container's log with the fields of Kubernetes."""
    namespace, pod, container = stream.split("_")
    return json.dumps({
        "@timestamp": moment[:23].decode() + "Z",
        "log": {"offset": offset, "file": {"path": f"/var/log/containers/{pod}_{namespace}_{container}.log"}},
        "stream": iostream.decode(),
        "message": message.decode(),
        "input": {"type": "filestream"},
        "kubernetes": {
            "namespace": namespace,
            "pod": {"name": pod},
            "container": {"name": container},
            "node": {"name": "node-1"},
            "labels": {"app": container},
        },
        "host": {"name": "node-1"},
        "agent": {"type": "filebeat", "version": "8.19.0"},
        "ecs": {"version": "8.0.0"},
    }, separators=(",", ":"), ensure_ascii=False)


def bulk(source, lines):
    """The first lines of the generator's as bodies of `_bulk`, in its own form; answers their folder."""
    folder = source.parent / f"{source.name}-bulk{lines}"
    if (folder / "meta.json").exists():
        return folder
    folder.mkdir(exist_ok=True)
    merged = islice(heapq.merge(*map(lines_of, sorted(source.glob("cri/*/0.log")))), lines)
    action, number, raw_bytes = '{"create":{"_index":"filebeat-8.19.0"}}\n', 0, 0
    with open(folder / "es-bulk.bin", "wb") as out:
        while batch := list(islice(merged, LINES_PER_BODY)):
            body = "".join(f"{action}{document(*line)}\n" for line in batch).encode()
            raw = sum(len(message) for _, _, _, message, _ in batch)
            # The generator's frame: shard, lines, raw bytes, length.
            out.write(struct.pack("<4I", number, len(batch), raw, len(body)) + body)
            number, raw_bytes = number + 1, raw_bytes + raw
    meta = json.loads((source / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"lines": lines, "raw_bytes": raw_bytes}))
    return folder


def word_list(rng):
    """Words of syllables; the frequent ones are short, as in a language."""
    syllables = [a + b + c for a in "bcdfghklmnprstvw" for b in "aeiou" for c in ("", "n", "r", "s")]
    words, known = [], set()
    while len(words) < PROSE_WORDS:
        longest = 1 + min(3, len(words).bit_length() // 4)
        word = "".join(rng.choices(syllables, k=rng.randint(1, longest)))
        if word not in known:
            known.add(word)
            words.append(word)
    return words


def prose(cache, lines):
    """Files of containers with sentences whose words are drawn by Zipf's law; answers their folder."""
    folder = cache / f"prose{lines}"
    if (folder / "meta.json").exists():
        return folder
    rng = random.Random(PROSE_SEED)
    words = word_list(rng)
    weights = list(accumulate(1 / rank for rank in range(1, len(words) + 1)))
    files = []
    for number in range(PROSE_STREAMS):
        place = folder / "cri" / f"press_writer-6c9f7d4b8-{number:05x}_writer"
        place.mkdir(parents=True, exist_ok=True)
        files.append(open(place / "0.log", "w"))
    raw_bytes = 0
    for line in range(lines):
        text = " ".join(rng.choices(words, cum_weights=weights, k=rng.randint(6, 24))).capitalize() + "."
        raw_bytes += len(text)
        second, thousandth = divmod(line * 7200 // (lines // 1000 or 1), 1000)
        hour, minute = divmod(second // 60, 60)
        moment = f"2026-01-01T{hour:02}:{minute:02}:{second % 60:02}.{thousandth:03}{line % 1_000_000:06}Z"
        files[rng.randrange(PROSE_STREAMS)].write(f"{moment} stdout F {text}\n")
    for file in files:
        file.close()
    (folder / "meta.json").write_text(json.dumps({"lines": lines, "raw_bytes": raw_bytes}))
    return folder


if __name__ == "__main__":
    # In a process of its own, so that its work is over before a measurement begins.
    kind, place, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    print({"bulk": bulk, "prose": prose}[kind](place, count))
