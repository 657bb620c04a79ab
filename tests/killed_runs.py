#!/usr/bin/env python3
"""A folder is captioned by a run that is killed (SIGKILL) at 100 random moments and started again until it is done:
its outputs equal those of a run that nobody disturbed, byte for byte, and no photo was captioned twice.

    python3 tests/killed_runs.py target/release/patchword [--kills 100] [--photos 60] [--seed 1] [-- FLAGS OF CAPTION]

Python 3 alone. The photos are those of datasets/photos under many names, with damaged and equal ones among them.
FLAGS go to `patchword caption` (the device is flex); `-- --model tests/fixtures/parity/blip` is a tiny model.
"""
import argparse
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def make_photos(folder: Path, count: int) -> None:
    photos = sorted((ROOT / "datasets/photos").glob("*.[jp][pn]g"))
    for number in range(count):
        source = photos[number % len(photos)]
        target = folder / f"{number % 4}" / f"{number:04}{source.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        content = source.read_bytes()
        if number % 17 == 5:
            content = content[: len(content) // 2]
        elif number % 3:
            # Another content and the same pixels: what stands behind the end of a JPEG is no part of it.
            content += b"%d" % number
        target.write_bytes(content)


class Run:
    def __init__(self, program, folder: Path, name: str, flags):
        self.folder, self.name = folder, name
        self.command = [program, "caption", "photos", "--manifest", f"{name}.db", "-o", f"{name}.jsonl",
                        "--write", "txt", "--write", "json", "--write-to", name, *flags]
        self.environment = {**os.environ, "PATCHWORD_DEVICE": "flex"}

    def start(self):
        return subprocess.Popen(self.command, cwd=self.folder, env=self.environment,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def finish(self) -> str:
        process = self.start()
        said = process.communicate()[1].decode()
        if process.returncode not in (0, 3):
            sys.exit(f"{self.name}: exit code {process.returncode}: {said}")
        return said

    def files(self):
        place = self.folder / self.name
        return {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--photos", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:end])
    options.flags = sys.argv[end + 1 :]
    options.flags = [str(Path(flag).resolve()) if (Path(flag) / "config.json").is_file() else flag for flag in options.flags]
    program, rng = str(Path(options.program).resolve()), random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_photos(folder / "photos", options.photos)
        whole = Run(program, folder, "whole", options.flags)
        start = time.monotonic()
        whole.finish()
        seconds = time.monotonic() - start
        killed, starts, kills = Run(program, folder, "killed", options.flags), 0, 0
        while kills < options.kills:
            process = killed.start()
            starts += 1
            # A run that gets far would be over after two; most moments are early ones.
            time.sleep(seconds * rng.random() ** 2)
            process.send_signal(signal.SIGKILL)
            process.stderr.read()
            if process.wait() == -signal.SIGKILL:
                kills += 1
            for path in (folder / "killed").rglob("*.txt"):
                assert path.read_bytes().endswith(b"\n"), f"half a sidecar: {path}"
            done = sqlite3.connect(folder / "killed.db").execute(
                "SELECT count(*) FROM sqlite_master WHERE name = 'photos'").fetchone()[0] and sqlite3.connect(
                folder / "killed.db").execute("SELECT count(*) FROM photos WHERE status = 'pending'").fetchone()[0]
            if done == 0 and process.returncode != -signal.SIGKILL:
                # Begun anew, so that every kill meets a run that has work to do.
                compare(folder, program, whole, killed)
                for path in [folder / "killed.jsonl", *folder.glob("killed.db*")]:
                    path.unlink(missing_ok=True)
                shutil.rmtree(folder / "killed", ignore_errors=True)
        killed.finish()
        compare(folder, program, whole, killed)
        print(f"{kills} kills in {starts} starts of a run of {seconds:.1f} s over {options.photos} photos: "
              "outputs equal, none captioned twice")


def compare(folder: Path, program: str, whole: Run, killed: Run) -> None:
    for run in (whole, killed):
        subprocess.run([program, "caption", "export", f"{run.name}.db", "-o", f"{run.name}-export.csv", "--overwrite"],
                       cwd=folder, check=True, stderr=subprocess.DEVNULL)
    for ending in (".jsonl", "-export.csv"):
        a, b = ((folder / f"{run.name}{ending}").read_bytes() for run in (whole, killed))
        assert a == b, f"{ending} differs"
    a, b = whole.files(), killed.files()
    left = [path for path in b if path not in a]
    assert not [path for path in left if not path.name.endswith(".new")], f"left over: {left}"
    assert all(b.get(path) == content for path, content in a.items()), "sidecars differ"
    rows = sqlite3.connect(folder / "killed.db").execute(
        "SELECT path, attempts FROM photos WHERE status = 'done' AND attempts <> 1").fetchall()
    assert not rows, f"captioned twice: {rows}"


if __name__ == "__main__":
    main()
