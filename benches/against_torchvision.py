"""The captioner that ships reads an image, beside torchvision's MobileNetV2 (its backbone alone, batch norm folded in), on two CPU threads.

    cargo build --release --locked
    python benches/against_torchvision.py [target/release/patchword]

Needs torch and torchvision; no weights are downloaded. Five rounds in turn; medians, and the medians of the rounds' ratios.
"""

import re
import statistics
import subprocess
import sys
import time

import torch
import torchvision
from torch.fx.experimental.optimization import fuse

PIXELS, BATCHES, ROUNDS, THREADS = 288, (1, 8), 5, 2


def patchword(program, batch):
    command = f"{program} bench caption --model flickr8k --batch-size {batch} --images 24 --num-beams 1 --new-tokens 4 --device flex"
    out = subprocess.run(command.split(), capture_output=True, text=True, check=True).stdout
    return float(re.search(r"^encode\s+([\d.]+) ms an image", out, re.M).group(1))


def cpu():
    with open("/proc/cpuinfo") as file:
        return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown CPU")


def backbone(network, form, batch):
    x = torch.randn(batch, 3, PIXELS, PIXELS).to(memory_format=form)
    with torch.inference_mode():
        for _ in range(3):
            network(x)
        times = []
        for _ in range(24 // batch):
            start = time.perf_counter()
            network(x)
            times.append((time.perf_counter() - start) / batch * 1000)
    return statistics.median(times)


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else "target/release/patchword"
    torch.set_num_threads(THREADS)
    print(cpu())
    network = fuse(torchvision.models.mobilenet_v2(weights=None).eval().features)
    forms = {"channels last": torch.channels_last, "as it is": torch.contiguous_format}
    for batch in BATCHES:
        rounds = []
        for _ in range(ROUNDS):
            row = {"patchword": patchword(program, batch)}
            for name, form in forms.items():
                row[name] = backbone(network.to(memory_format=form), form, batch)
            rounds.append(row)
        for name in rounds[0]:
            milliseconds = statistics.median(row[name] for row in rounds)
            ratio = statistics.median(row["patchword"] / row[name] for row in rounds)
            print(f"batch {batch}, {name:14}{milliseconds:7.2f} ms an image, patchword takes {ratio:.2f} of it")


main()
