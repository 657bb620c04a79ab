#!/usr/bin/env python3
"""Has a change made patchword slower? Two binaries in turn on this machine; fails where one takes above 1.05 of the other's time.

    python benches/regression.py OLD NEW [--rounds 5] [--most 1.05] [--cpu] [--device flex]

OLD and NEW are programs, such as target/release/patchword of the last commit (git worktree add, cargo build --release --locked) and of today.
In each round both take every task once, in alternating order: captions of the captioner that ships with 3 beams and greedy, one image of a
ViT-B with random weights, and training steps of configs/bench.toml. A task's figure is the median over the rounds of new seconds over old
ones. --cpu compares CPU seconds (user and system) of the whole process in place of the seconds that it measured: less exact, but right where
other programs run beside it.
"""
import argparse, json, os, resource, statistics, subprocess, sys

TASKS = {
    "caption, 3 beams, batch 16": ["bench", "caption", "--model", "flickr8k", "--images", "32", "--num-beams", "3", "--new-tokens", "12"],
    "caption, greedy, batch 1": ["bench", "caption", "--model", "flickr8k", "--images", "16", "--batch-size", "1", "--new-tokens", "12"],
    "encode and decode, ViT-B": ["bench", "caption", "--config", "configs/vit-base.toml", "--images", "2", "--batch-size", "1"],
    "training step": ["bench", "train", "--steps", "3", "--warmup", "1"],
}


def cpu():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return "unknown CPU"


def take(program, task, device):
    """Seconds that the program measured, and CPU seconds that it used."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [program, *task, "--json", "--device", device]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    measured = report["step_seconds"]["median"] if "step_seconds" in report else 1 / report["images_per_second"]
    return measured, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--most", type=float, default=1.05)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--device", default="flex")
    parser.add_argument("--only", help="tasks whose name holds this")
    arguments = parser.parse_args()
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    print(f"{cpu()}, {len(os.sched_getaffinity(0))} cores, {arguments.rounds} rounds in turn")
    slower = []
    for name, task in TASKS.items():
        if arguments.only and arguments.only not in name:
            continue
        ratios, seconds = [], []
        for index in range(arguments.rounds):
            order = [arguments.old, arguments.new]
            taken = {program: take(program, task, arguments.device)[arguments.cpu] for program in (order if index % 2 else order[::-1])}
            seconds.append(taken[arguments.new])
            ratios.append(taken[arguments.new] / taken[arguments.old])
        ratio = statistics.median(ratios)
        print(f"{name:30} {statistics.median(seconds):8.3f} s, {ratio:.3f} of the old ({min(ratios):.3f} to {max(ratios):.3f})")
        if ratio > arguments.most:
            slower.append(name)
    if slower:
        sys.exit(f"slower than {arguments.most} of the old: {', '.join(slower)}")


if __name__ == "__main__":
    main()
