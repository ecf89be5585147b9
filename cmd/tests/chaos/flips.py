"""Flips single bits, uniform over all bytes of all files, and reads every series back."""

import collections
import json
import shutil
import time

from load import METRIC, Steps, Writer, wait_until_gone
from server import NotStarted, Server

DAYS = 3
SERIES = 60
STEP_MS = 30_000
PER_BATCH = 20
SPAN = 4 * 86_400


def make_data(options, folder):
    """Blocks of days and of hours, and a write-ahead log with what is in none of them."""
    server = Server(options.binnacle, folder / "sound", folder / "sound.log")
    end = int(time.time() * 1000) // STEP_MS * STEP_MS
    clock = Steps(end - DAYS * 86_400_000, STEP_MS, PER_BATCH)
    for part in range(4):
        server.start()
        writer = Writer(0, server, clock, SERIES)
        writer.start()
        while clock.at < end - (3 - part) * 18_000_000:
            time.sleep(0.01)
        writer.halt.set()
        wait_until_gone([writer], 30)
        # The next start writes the blocks that are due. One end in two is a clean one.
        time.sleep(0.5)
        if part % 2:
            server.kill()
        else:
            server.stop()
    return folder / "sound", end / 1000


def answer_of(server, at):
    return server.query(f"{METRIC}[{SPAN}s]", at)


def series_of(answer):
    return {json.dumps(one["metric"], sort_keys=True): one["values"] for one in answer["data"]["result"]}


def kind_of(path):
    name = str(path)
    if name.startswith("wal/"):
        return "write-ahead log"
    return "block" if name.endswith(".block") else path.name


def pick(random_, files):
    """A byte, each of all with the same chance."""
    at = random_.randrange(sum(size for _, size in files))
    for path, size in files:
        if at < size:
            return path, at
        at -= size
    raise AssertionError("within the sum")


def copy_and_flip(sound, data, path, at, bit):
    shutil.rmtree(data, ignore_errors=True)
    shutil.copytree(sound, data, ignore=shutil.ignore_patterns("reserve"))
    with open(data / path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def judge(truth, answer):
    """The outcome, and how many samples are missing."""
    if answer["status"] != "success":
        return "refused", 0
    found = series_of(answer)
    if found == truth:
        return ("right, warned" if answer.get("warnings") else "right"), 0
    if not answer.get("warnings"):
        return "WRONG", 0
    lost = 0
    for name, values in truth.items():
        have = {at: value for at, value in found.pop(name, [])}
        for at, value in values:
            if at not in have:
                lost += 1
            elif have.pop(at) != value:
                return "WRONG VALUE", 0
        if have:
            return "WRONG MOMENT", 0
    return ("WRONG SERIES" if found else "less, warned"), lost


def flip_bits(options, random_, folder):
    sound, at = make_data(options, folder)
    files = sorted((path.relative_to(sound), path.stat().st_size) for path in sound.rglob(options.flip_files) if path.is_file())
    # The reserve for a full disk: nobody reads what is in it.
    files = [(path, size) for path, size in files if path.name != "reserve"]
    copy = folder / "reference"
    shutil.copytree(sound, copy)
    reference = Server(options.binnacle, copy, folder / "reference.log")
    reference.start()
    truth_answer = answer_of(reference, at)
    reference.kill()
    truth = series_of(truth_answer)
    samples = sum(len(values) for values in truth.values())
    print(f"bit flips: {samples} samples in {sum(size for _, size in files)} bytes of {len(files)} files", flush=True)
    outcomes = collections.defaultdict(collections.Counter)
    worst, details = collections.Counter(), []
    server = Server(options.binnacle, folder / "flipped", folder / "flipped.log")
    for number in range(options.flips):
        path, byte = pick(random_, files)
        bit = random_.randrange(8)
        copy_and_flip(sound, server.data, path, byte, bit)
        try:
            server.start()
            outcome, lost = judge(truth, answer_of(server, at))
            server.kill()
        except NotStarted as error:
            outcome, lost = "start refused", 0
            details.append(f"{path} byte {byte} bit {bit}: {error}")
        kind = kind_of(path)
        outcomes[kind][outcome] += 1
        worst[kind] = max(worst[kind], lost)
        if outcome.startswith(("WRONG", "refused")):
            details.append(f"{path} byte {byte} bit {bit}: {outcome}")
    return report(outcomes, worst, details, server.panics())


def report(outcomes, worst, details, panics):
    names = ["right", "right, warned", "less, warned"]
    names += sorted({name for counts in outcomes.values() for name in counts} - set(names))
    print("| file | flips | " + " | ".join(names) + " | most samples lost |")
    print("|---|---:|" + "---:|" * (len(names) + 1))
    for kind, counts in sorted(outcomes.items()):
        cells = " | ".join(str(counts[name]) for name in names)
        print(f"| {kind} | {sum(counts.values())} | {cells} | {worst[kind]} |")
    print(f"bit flips: {len(details)} faults, {panics} panics")
    for detail in details[:20]:
        print(f"  {detail}")
    return len(details) + panics
