#!/usr/bin/env python3
"""Captions of a folder by a Ray Data pipeline, each worker with a patchword of its own that stays loaded:

    pip install 'ray[data]'
    python3 configs/cluster/ray_caption.py /data/photos captions.jsonl --workers 8 [--patchword PATH] [--num-gpus 1] \
        [-- FLAGS OF `patchword caption`, such as --model M --num-beams 5]

Ray places workers, hands out blocks of paths and starts a worker again that died, with the block that it had; patchword
reads and captions the photos (`patchword caption --serve-stdin`: a line of JSON in, a line out, in order). All nodes must
see the folder under the same path. A photo that cannot be read has an `error` in place of a `caption`, and the exit code
is then 3. With RAY_ADDRESS set the cluster there is used, else this machine is one.
"""
import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif", ".jxl", ".jp2"}


class Captioner:
    """A patchword process, and what goes through it."""

    def __init__(self, command):
        self.command = command
        self.process = None

    def __call__(self, block):
        paths = list(block["path"])
        try:
            answers = self.ask(paths)
        except (BrokenPipeError, EOFError):
            # The process died and this worker did not: once more with another one.
            self.process = None
            answers = self.ask(paths)
        return {"path": paths, "answer": answers}

    def ask(self, paths):
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            env={**os.environ, **threads()})
        # A block is written whole before it is read: its lines are far shorter than a pipe holds, and patchword reads
        # on while it captions.
        lines = "".join(json.dumps({"image": path}) + "\n" for path in paths)
        self.process.stdin.write(lines.encode())
        self.process.stdin.flush()
        answers = []
        for _ in paths:
            line = self.process.stdout.readline()
            if not line.endswith(b"\n"):
                raise EOFError("patchword ended")
            answers.append(line.decode().rstrip("\n"))
        return answers

    def __del__(self):
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait()


def threads():
    """As many threads as Ray gave this worker: it sets OMP_NUM_THREADS."""
    count = os.environ.get("OMP_NUM_THREADS")
    return {"RAYON_NUM_THREADS": count} if count else {}


def main() -> int:
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--num-cpus", type=float, default=1, help="CPUs of a worker")
    parser.add_argument("--num-gpus", type=float, default=0, help="GPUs of a worker")
    parser.add_argument("--block", type=int, default=64, help="photos handed out together")
    parser.add_argument("--patchword", default="patchword")
    options = parser.parse_args(sys.argv[1:end])

    import ray

    ray.init(log_to_driver=False, logging_level="error")
    paths = sorted(str(path) for path in options.photos.rglob("*") if path.suffix.lower() in ENDINGS)
    command = [options.patchword, "caption", "--serve-stdin", "--quiet", *sys.argv[end + 1 :]]
    answers = (
        ray.data.from_items([{"path": path} for path in paths], override_num_blocks=max(1, len(paths) // options.block))
        .map_batches(Captioner, fn_constructor_args=[command], batch_size=options.block,
                     compute=ray.data.ActorPoolStrategy(size=options.workers), num_cpus=options.num_cpus,
                     num_gpus=options.num_gpus)
    )
    partial, failed = options.output.with_name(options.output.name + ".partial"), 0
    lines = {row["path"]: row["answer"] for row in answers.iter_rows()}
    missing = [path for path in paths if path not in lines]
    if missing:
        raise SystemExit(f"no answer for {missing[:5]} and {len(missing)} in all")
    with partial.open("w") as file:
        for path in paths:
            failed += "error" in json.loads(lines[path])
            file.write(lines[path] + "\n")
    partial.replace(options.output)
    print(f"{len(paths) - failed} written, {failed} failed", file=sys.stderr)
    return 3 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
