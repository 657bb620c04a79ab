#!/usr/bin/env python3
"""The Ray pipeline of configs/cluster, on a cluster of this machine alone with two workers, one of which is killed in the
middle: what it writes equals one run of `patchword caption`.

    pip install 'ray[data]'
    python3 tests/ray_pipeline.py target/release/patchword [--photos 200] [-- FLAGS OF CAPTION]

The kill is a SIGKILL of one worker's patchword, and a moment later of one worker itself (a Ray actor, found by its
process title). Needs Linux's /proc.
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def below(parent: int):
    """All processes below one, with their command lines."""
    found, parents = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (OSError, ValueError):
                pass
    wanted, more = {parent}, True
    while more:
        more = {pid for pid, above in parents.items() if above in wanted and pid not in wanted}
        wanted |= more
    return {pid: found[pid] for pid in wanted if pid in found}


def kill_one(parent: int, wanted, what: str, killed) -> None:
    until = time.monotonic() + 900
    while time.monotonic() < until:
        for pid, command in below(parent).items():
            if wanted(command):
                os.kill(pid, signal.SIGKILL)
                killed.append(what)
                return
        time.sleep(0.05)


def main() -> None:
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    flags = [str(Path(flag).resolve()) if (Path(flag) / "config.json").is_file() else flag for flag in sys.argv[end + 1 :]]
    program = str(Path(sys.argv[1]).resolve())
    count = int(sys.argv[sys.argv.index("--photos") + 1]) if "--photos" in sys.argv[:end] else 200
    environment = {**os.environ, "PATCHWORD_DEVICE": "flex", "RAY_DEDUP_LOGS": "0"}
    photos = sorted((ROOT / "datasets/photos").glob("*.jpg"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photos"
        folder.mkdir()
        for number in range(count):
            target = folder / f"{number:05}.jpg"
            if number % 50 == 7:
                target.write_bytes(photos[0].read_bytes()[:1000])
            else:
                shutil.copy(photos[number % len(photos)], target)
        start = time.monotonic()
        alone = subprocess.run([program, "caption", folder, "--format", "jsonl", *flags], env=environment,
                               capture_output=True, text=True)
        seconds_alone = time.monotonic() - start
        assert alone.returncode == 3, alone.stderr
        expected = {line["path"]: line["caption"] for line in map(json.loads, alone.stdout.splitlines())}
        out, killed = Path(name) / "ray.jsonl", []
        start = time.monotonic()
        pipeline = subprocess.Popen([sys.executable, ROOT / "configs/cluster/ray_caption.py", folder, out, "--workers", "2",
                                     "--block", "16", "--patchword", program, "--", *flags], env=environment)

        def kill() -> None:
            is_program = lambda command: "--serve-stdin" in command and program in command.split(" ")[0]
            kill_one(pipeline.pid, is_program, "a patchword", killed)
            time.sleep(1)
            kill_one(pipeline.pid, lambda command: "MapWorker" in command, "a worker", killed)

        threading.Thread(target=kill, daemon=True).start()
        code = pipeline.wait()
        seconds = time.monotonic() - start
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert code == 3, code
        assert killed == ["a patchword", "a worker"], killed
        assert len(lines) == count and [line["path"] for line in lines] == sorted(line["path"] for line in lines)
        captions = {line["path"]: line["caption"] for line in lines if "caption" in line}
        assert captions == expected, "captions differ"
        assert all("error" in line for line in lines if line["path"] not in expected)
        print(f"{count} photos, {len(captions)} captioned, {count - len(captions)} named as bad; killed: "
              f"{', '.join(killed)}; equal to one run. Ray: {seconds:.0f} s, one run: {seconds_alone:.0f} s")


if __name__ == "__main__":
    main()
