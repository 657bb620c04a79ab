#!/usr/bin/env python3
"""Damages image files at random and has patchword decode them under a limit of memory: none may end it or get lost.

    cargo build --release --example decode
    python3 tests/mutate_images.py target/release/examples/decode [MUTANTS] [SEED] [SECONDS]

Seeds are the files in src/image/testdata and its formats/. Every mutant must be named on stdout, decoded or refused; what
ends the program, hangs it or is left out is kept in a folder of its own and makes the exit code 1. 20,000 mutants take about
ten minutes on two cores. Panics that are caught and become an error of the file are counted, not findings.
"""
import collections, os, random, shutil, subprocess, sys, tempfile, time

binary = os.path.abspath(sys.argv[1])
given = dict(enumerate(sys.argv[2:]))
total, seed, seconds = int(given.get(0, 20000)), int(given.get(1, 1)), float(given.get(2, "inf"))
here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../src/image/testdata")
seeds = sorted(os.path.join(folder, name) for folder in (here, os.path.join(here, "formats")) for name in os.listdir(folder)
               if not name.endswith((".py", ".txt", ".md")) and os.path.isfile(os.path.join(folder, name)))
rng = random.Random(seed)
LIMIT = 1_500_000  # kilobytes of address space
BATCH = 100


def mutant(content):
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 4, 8])):
        kind = rng.random()
        at = rng.randrange(min(len(content), 200)) if rng.random() < 0.6 else rng.randrange(len(content))
        if kind < 0.5:
            content[at] ^= 1 << rng.randrange(8)
        elif kind < 0.7:
            content[at] = rng.choice([0, 255, 127, 128])
        elif kind < 0.8:
            content[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
        elif kind < 0.9:
            del content[at : at + rng.randrange(1, 40)]
        else:
            content[at:at] = content[at : at + rng.randrange(1, 60)]
        if len(content) < 8:
            content += bytes(8)
    return content[: rng.randrange(4, len(content))] if rng.random() < 0.2 else content


counts, begin, findings = collections.Counter(), time.time(), 0
kept = tempfile.mkdtemp(prefix="mutants-")
with tempfile.TemporaryDirectory() as folder:
    while counts["mutants"] < total and time.time() - begin < seconds:
        names = []
        for index in range(BATCH):
            source = rng.choice(seeds)
            with open(source, "rb") as file:
                content = mutant(file.read())
            names.append(os.path.join(folder, f"{counts['mutants'] + index}-{os.path.basename(source)}"))
            with open(names[-1], "wb") as file:
                file.write(content)
        try:
            ended = subprocess.run(["bash", "-c", f'ulimit -v {LIMIT}; exec "$@"', "bash", binary, *names], capture_output=True, text=True, errors="replace", timeout=300)
            code, out, err = ended.returncode, ended.stdout, ended.stderr
        except subprocess.TimeoutExpired as error:
            code, out, err = "hangs", (error.stdout or b"").decode(errors="replace"), ""
        lines = out.splitlines()
        lost = [name for name in names if not any(name in line for line in lines)]
        counts["decoded"] += sum(line.startswith("decoded") for line in lines)
        counts["caught panics"] += err.count("panicked at")
        for line in err.splitlines():
            if "panicked at" in line:
                counts["  at " + line.split("panicked at ")[1][-90:]] += 1
        if code not in (0, 3) or lost:
            findings += 1
            print(f"FOUND exit code {code}, {len(lost)} not named; first {lost[:1]}; {err[-300:]!r}")
            for name in lost[:1]:
                shutil.copy(name, kept)
        for name in names:
            os.remove(name)
        counts["mutants"] += BATCH
print(f"{len(seeds)} seeds, {counts['mutants']} mutants, {counts['decoded']} decoded, {counts['caught panics']} caught panics, {findings} findings, {time.time() - begin:.0f} s")
for place, count in counts.most_common():
    if place.startswith("  at"):
        print(count, place)
if findings:
    sys.exit(f"kept in {kept}")
os.rmdir(kept)
