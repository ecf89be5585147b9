"""Flips single bits of files and asks for everything that was stored."""

import collections
import shutil

from server import NotStarted, Server


def copy_and_flip(sound, data, path, at, bit):
    shutil.rmtree(data, ignore_errors=True)
    shutil.copytree(sound, data, ignore=shutil.ignore_patterns("reserve"))
    with open(data / path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


def judge(truth, answer):
    """The outcome, and how many items are missing."""
    refusal, found, is_warned = answer
    if refusal is not None:
        return "refused", 0
    if found == truth:
        return ("right, warned" if is_warned else "right"), 0
    lost, found = 0, dict(found)
    for name, values in truth.items():
        have = {at: value for at, value in found.pop(name, [])}
        for at, value in values:
            if at not in have:
                lost += 1
            elif have.pop(at) != value:
                return "WRONG VALUE", 0
        if have:
            return "WRONG MOMENT", 0
    if found:
        return "WRONG SERIES", 0
    return ("less, warned" if is_warned else "WRONG, unsaid"), lost


def truth_of(options, subject, folder):
    """What a server answers of the sound files."""
    copy = folder / "reference"
    shutil.copytree(subject.sound, copy)
    server = Server(options.binnacle, copy, folder / "reference.log")
    server.start()
    refusal, truth, is_warned = subject.ask(server)
    more = subject.ask_more(server, False)
    server.kill()
    if refusal or is_warned or more:
        raise SystemExit(f"sound files are answered by {refusal or more or 'warnings'}")
    return truth


def flip_bits(options, random_, folder, kind):
    subject = kind.Flipped(options, folder)
    sound = subject.sound
    files = sorted((path.relative_to(sound), path.stat().st_size) for path in sound.rglob(options.flip_files) if path.is_file())
    # The reserve for a full disk: nobody reads what is in it.
    files = [(path, size) for path, size in files if path.name != "reserve" and size > 0]
    truth = truth_of(options, subject, folder)
    items = sum(len(values) for values in truth.values())
    size = sum(size for _, size in files)
    print(f"bit flips: {items} {kind.ITEMS} in {size} bytes of {len(files)} files", flush=True)
    outcomes = collections.defaultdict(collections.Counter)
    worst, details = collections.Counter(), []
    server = Server(options.binnacle, folder / "flipped", folder / "flipped.log")
    for _ in range(options.flips):
        path, byte = subject.pick(random_, files)
        bit = random_.randrange(8)
        copy_and_flip(sound, server.data, path, byte, bit)
        more = []
        try:
            server.start()
            answer = subject.ask(server)
            outcome, lost = judge(truth, answer)
            more = subject.ask_more(server, answer[2])
        except NotStarted as error:
            outcome, lost, more = "start refused", 0, [str(error)]
        except OSError as error:
            outcome, lost, more = "refused", 0, [f"no answer: {error}"]
        finally:
            server.kill()
        name = subject.kind_of(path)
        outcomes[name][outcome] += 1
        worst[name] = max(worst[name], lost)
        if more or outcome.startswith(("WRONG", "refused")):
            details.append(f"{path} byte {byte} bit {bit}: {outcome}, {lost} lost" + "".join(f"; {fault}" for fault in more))
    return report(kind, outcomes, worst, details, server.panics())


def report(kind, outcomes, worst, details, panics):
    names = ["right", "right, warned", "less, warned"]
    names += sorted({name for counts in outcomes.values() for name in counts} - set(names))
    print("| file | flips | " + " | ".join(names) + f" | most {kind.ITEMS} lost |")
    print("|---|---:|" + "---:|" * (len(names) + 1))
    for name, counts in sorted(outcomes.items()):
        cells = " | ".join(str(counts[outcome]) for outcome in names)
        print(f"| {name} | {sum(counts.values())} | {cells} | {worst[name]} |")
    print(f"bit flips: {len(details)} faults, {panics} panics")
    for detail in details[:20]:
        print(f"  {detail}")
    return len(details) + panics
